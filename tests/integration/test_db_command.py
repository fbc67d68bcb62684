"""`trunkline db`: the database of the history of calls."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli.commands import app
from tests.fakes.call_events import call_events, recorded
from tests.integration.store_site import opened

PASSWORD = "a-password-of-the-database"


def trunkline(folder: Path, command: str, **variables: str) -> tuple[int, str]:
    path = folder / "config.yaml"
    if not path.exists():
        path.write_text("{}")
    done = CliRunner().invoke(app, ["db", *command.split(), "-c", str(path)], env=variables)
    return done.exit_code, done.output


def test_the_tables_are_made_shown_and_made_anew(tmp_path: Path) -> None:
    code, out = trunkline(tmp_path, "status")
    assert code == 1
    assert "no history of calls yet" in out
    assert not (tmp_path / "var" / "calls.db").exists()
    assert trunkline(tmp_path, "upgrade") == (0, "the tables are up to date\n")

    async def put_a_call() -> None:
        async with opened(tmp_path / "var" / "calls.db") as store:
            await store.append(recorded(call_events()), instance="me")

    asyncio.run(put_a_call())
    assert trunkline(tmp_path, "rebuild") == (0, "calls made anew: 1\n")
    code, out = trunkline(tmp_path, "status --json")
    shown = json.loads(out)
    assert (code, shown["calls"], shown["events"], shown["open_calls"]) == (0, 1, 5, 0)
    assert "calls_005" in shown["revisions"]
    assert shown["missing_revisions"] == []
    code, out = trunkline(tmp_path, "status")
    assert "tables: up to date" in out


def test_what_is_too_old_goes_by_hand(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        "store: {retention: {calls_days: 400, transcripts_days: 1, recordings_days: 1}}"
    )
    sound = tmp_path / "var" / "recordings" / "call_1.wav"
    sound.parent.mkdir(parents=True)
    sound.write_bytes(b"RIFF")
    os.utime(sound, (0, 0))

    async def put_calls() -> tuple[int | None, int]:
        async with opened(tmp_path / "var" / "calls.db") as store:
            now = datetime.now(UTC)
            for name, days in (("old", 500), ("worn", 30), ("fresh", 0)):
                events = recorded(call_events(name, said=("A word.",)))
                at = now - timedelta(days=days)
                await store.append([replace(one, at=at) for one in events], instance="me")
            database = tmp_path / "var" / "calls.db"
            log = database.with_name("calls.db-wal").stat().st_size
            return (await store.status()).bytes, log + database.stat().st_size

    shown, is_there = asyncio.run(put_calls())
    assert shown == is_there
    assert trunkline(tmp_path, "clean") == (
        0,
        "removed: calls: 1; words: of 2 events; files: 1\n",
    )
    assert trunkline(tmp_path, "clean") == (
        0,
        "removed: calls: 0; words: of 0 events; files: 0\n",
    )
    assert not sound.exists()


PROBLEMS = {
    "off": ("store: off", {}, 2, "no history is kept: store is off"),
    "another database": ("{}", {"DATABASE_URL": "mysql://db/x"}, 2, "config.yaml:1: store.url"),
    "no URL": (
        "{}",
        {"DATABASE_URL": "db.example.com"},
        2,
        "expected a URL such as postgresql://user@host/name",
    ),
    "nobody answers": (
        "{}",
        {"DATABASE_URL": f"postgresql://me:{PASSWORD}@127.0.0.1:9/x"},
        1,
        "the database does not answer",
    ),
}


@pytest.mark.parametrize("case", PROBLEMS)
def test_a_problem_is_said_in_a_sentence(case: str, tmp_path: Path) -> None:
    config, variables, expected, words = PROBLEMS[case]
    (tmp_path / "config.yaml").write_text(config)
    code, out = trunkline(tmp_path, "status", **variables)
    assert (code, "Traceback" in out, PASSWORD in out) == (expected, False, False)
    assert words in out
