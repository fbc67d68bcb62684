"""`trunkline doctor` about what is kept of calls: real databases, a real disk."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from app.doctor.store import check_store
from app.doctor.system_checks import Verdict
from app.parts import call_store
from app.settings import Settings
from app.store.spool import Spool
from app.store.sql.store import SqlStore
from tests.fakes.call_events import call_events, recorded
from tests.fakes.postgres import Cluster
from tests.integration.store_site import new_database, opened, postgres

__all__ = ["postgres"]


async def found_in(state: Path, **store: Any) -> dict[str, tuple[Verdict, str]]:
    settings = Settings.model_validate({"state_dir": state, "store": store})
    results = await check_store(settings, call_store(settings))
    assert all(bool(one.remedy) is (one.verdict is not Verdict.GOOD) for one in results)
    return {one.subject: (one.verdict, one.text) for one in results}


async def test_a_history_that_will_be_made_and_one_that_is_there_are_good(tmp_path: Path) -> None:
    found = await found_in(tmp_path)
    assert found["history"] == (Verdict.GOOD, "is made when the server starts")
    assert set(found) == {"history", "disk"}
    (tmp_path / "recordings").mkdir()
    async with opened(tmp_path / "calls.db") as store:
        await store.append(recorded(call_events()), instance="me")
    found = await found_in(tmp_path)
    assert found["history"] == (
        Verdict.GOOD,
        f"sqlite: {tmp_path / 'calls.db'}, 1 call, up to date",
    )
    assert found["recordings"][0] is Verdict.GOOD


async def test_tables_that_are_behind_a_broken_file_and_a_spool_are_named(tmp_path: Path) -> None:
    store = SqlStore(tmp_path / "calls.db")
    await store.database.upgrade("calls_001")
    await store.close()
    spool = Spool.create(tmp_path / "spool", "gone-1", max_bytes=100_000)
    spool.put(recorded(call_events()))
    spool.close()
    (tmp_path / "recordings").write_text("a file")
    found = await found_in(tmp_path)
    assert found["history"][0] is Verdict.WARNING and "it lacks calls_" in found["history"][1]
    assert found["spool"][0] is Verdict.WARNING
    assert found["recordings"] == (
        Verdict.WRONG,
        f"{tmp_path / 'recordings'} cannot be written",
    )
    for name in ("calls.db", "calls.db-wal", "calls.db-shm"):
        (tmp_path / name).write_bytes(b"no database at all" * 1_000)
    found = await found_in(tmp_path)
    assert found["history"] == (
        Verdict.WRONG,
        "the database refuses: file is not a database; "
        "restore a copy, or move the file away: a new one is made",
    )


async def test_a_postgres_that_is_up_to_date_or_not_there(
    tmp_path: Path, postgres: Cluster
) -> None:
    url = await new_database(postgres)
    async with opened(url):
        pass
    assert (await found_in(tmp_path, url=url))["history"][0] is Verdict.GOOD
    verdict, text = (await found_in(tmp_path, url="postgresql://u:secret@127.0.0.1:9/none"))[
        "history"
    ]
    assert verdict is Verdict.WRONG and "secret" not in text


@pytest.mark.parametrize(
    ("free_mb", "verdict"),
    [(50, Verdict.WRONG), (500, Verdict.WARNING), (5_000, Verdict.GOOD)],
)
async def test_a_disk_that_fills_up_is_named(
    free_mb: int, verdict: Verdict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = shutil._ntuple_diskusage(10**12, 0, free_mb * 1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    assert (await found_in(tmp_path / "not made yet"))["disk"][0] is verdict
