"""The spool: events on disk that the store has not taken yet."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from app.events import CallId
from app.store.base import StoredEvent
from app.store.spool import Spool, SpoolFull, leftovers
from tests.fakes.call_events import call_events, recorded

RECORDS = recorded(call_events(said=("Grüße \U0001f600",)))


def spool_in(folder: Path, name: str = "host-1", max_bytes: int = 100_000) -> Spool:
    return Spool.create(folder / "spool", name, max_bytes=max_bytes)


def all_of(spool: Spool) -> list[StoredEvent]:
    return list(spool.first(1_000)[0])


def test_events_come_out_in_their_order_and_a_part_at_a_time(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    spool.put(RECORDS[:2])
    spool.put(RECORDS[2:])
    first, end = spool.first(3)
    assert list(first) == RECORDS[:3]
    spool.drop(end, 3)
    assert spool.pending == len(RECORDS) - 3
    rest, end = spool.first(100)
    assert list(rest) == RECORDS[3:]
    spool.drop(end, len(rest))
    assert spool.empty
    assert spool.path.stat().st_size == 0
    spool.put(RECORDS[:1])
    assert all_of(spool) == RECORDS[:1]
    spool.close()


def test_files_are_for_their_owner_only_and_an_empty_one_goes(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    assert spool.path.stat().st_mode & 0o777 == 0o600
    assert spool.path.parent.stat().st_mode & 0o777 == 0o700
    spool.close()
    assert not spool.path.exists()


def test_what_is_too_much_is_refused_as_a_whole(tmp_path: Path) -> None:
    spool = spool_in(tmp_path, max_bytes=600)
    spool.put(RECORDS[:1])
    with pytest.raises(SpoolFull):
        spool.put(RECORDS * 10)
    assert all_of(spool) == RECORDS[:1]
    spool.close()


def test_a_disk_that_takes_half_keeps_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = spool_in(tmp_path)
    spool.put(RECORDS[:1])

    def fails(_file: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fails)
        with pytest.raises(OSError, match="No space"):
            spool.put(RECORDS)
    spool.put(RECORDS[1:2])
    assert all_of(spool) == RECORDS[:2]
    spool.close()


TORN = {
    "half a line": b'{"call_id":"call_9","se',
    "no JSON": b"\xff\xfe\0\0\n",
    "JSON of another kind": b"[1]\n17\nnull\n",
    "missing fields": b'{"call_id":"call_9","at":1}\n',
    "a time that there is not": b'{"call_id":"c","seq":1,"at":99999999999999999999}\n',
}


@pytest.mark.parametrize("case", TORN)
def test_lines_that_are_no_events_are_passed_over(case: str, tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    spool.put(RECORDS[:2])
    with spool.path.open("ab") as file:
        file.write(TORN[case])
    os.close(spool._file)  # as when the process is killed
    [found] = leftovers(tmp_path / "spool", max_bytes=100_000)
    records, end = found.first(100)
    assert list(records) == RECORDS[:2]
    found.drop(end, len(records))
    found.close()
    assert not spool.path.exists()


def test_a_file_is_left_over_once_its_process_is_gone_and_has_one_heir(tmp_path: Path) -> None:
    alive = spool_in(tmp_path, "alive")
    dead = spool_in(tmp_path, "dead")
    dead.put(RECORDS)
    os.close(dead._file)
    [found] = leftovers(tmp_path / "spool", max_bytes=100_000)
    assert (found.instance, all_of(found)) == ("dead", RECORDS)
    assert leftovers(tmp_path / "spool", max_bytes=100_000) == []
    found.close()
    alive.close()


def test_events_of_a_call_can_be_removed_wherever_they_stand(tmp_path: Path) -> None:
    other = recorded(call_events("call_2"))
    spool = spool_in(tmp_path)
    spool.put([*RECORDS, *other, *RECORDS])
    _, end = spool.first(1)
    spool.drop(end, 1)
    spool.forget({CallId("call_1")})
    assert all_of(spool) == other
    assert b'"call_1"' not in spool.path.read_bytes()
    spool.put(RECORDS[:1])
    assert all_of(spool) == [*other, RECORDS[0]]
    spool.close()
