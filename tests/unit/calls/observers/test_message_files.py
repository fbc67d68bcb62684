"""Messages as files, on disks that do not take them."""

from __future__ import annotations

import errno
import json
import logging
from collections import UserDict
from pathlib import Path

import pytest

from app.background import BackgroundJobs
from app.calls.observers import message_files
from app.calls.observers.message_files import MessageFiles, can_keep, keep
from app.events import CallId, MessageTaken
from tests.fakes.waiting import until

MESSAGE = MessageTaken(
    call_id=CallId("call_1"), at_ms=0, item_id="i", recipient="Ms. Lee", text="Call me back."
)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message_files, "TRIES", 200)
    monkeypatch.setattr(message_files, "LONGEST_PAUSE_S", 0.01)


def block(folder: Path, kind: str) -> None:
    if kind == "file":
        folder.write_text("")
    elif kind == "folder of nothing":
        folder.symlink_to(folder.parent / "not-there")
    else:
        folder.symlink_to("/proc")


BLOCKS = ["file", "folder of nothing", "no files"]


@pytest.mark.parametrize("kind", BLOCKS)
async def test_a_message_is_written_once_the_disk_takes_it(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    folder = tmp_path / "messages"
    block(folder, kind)
    async with BackgroundJobs() as jobs:
        MessageFiles(folder, jobs).observe(MESSAGE)
        await until(lambda: caplog.text.count("message not kept yet") >= 2)
        folder.unlink()
        await until(lambda: "message taken" in caplog.text)
    [path] = folder.iterdir()
    assert json.loads(path.read_text())["text"] == "Call me back."
    assert "message not kept\n" not in caplog.text
    assert "Call me back" not in caplog.text


async def test_a_message_that_no_try_has_written_is_an_error_with_its_call_and_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(message_files, "TRIES", 3)
    folder = tmp_path / "messages"
    block(folder, "file")
    async with BackgroundJobs() as jobs:
        MessageFiles(folder, jobs).observe(MESSAGE)
        await until(lambda: not jobs)
    [line] = [one for one in caplog.records if one.message == "message not kept"]
    facts = vars(line)
    assert (line.levelname, facts["call_id"], facts["errno"]) == ("ERROR", "call_1", 17)
    assert facts["file"].startswith(str(folder))
    tries = [one for one in caplog.records if one.message == "message not kept yet"]
    assert len(tries) == 2


@pytest.mark.parametrize("kind", BLOCKS)
async def test_the_check_finds_a_folder_that_takes_no_message(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "messages"
    block(folder, kind)
    assert not await can_keep(folder)


async def test_the_check_leaves_nothing_behind(tmp_path: Path) -> None:
    assert await can_keep(tmp_path / "messages")
    assert list((tmp_path / "messages").iterdir()) == []


def test_of_a_message_that_is_not_written_whole_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / "messages" / "one.json"

    class Full(UserDict[str, str]):
        def __getitem__(self, key: str) -> str:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        keep(path, Full(text="x"))
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("odd", ["\0", "\ud800", "\udc00"], ids=ascii)
def test_a_message_is_kept_whatever_characters_it_holds(odd: str, tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    keep(path, {"text": f"Call {odd} back."})
    kept = json.loads(path.read_text(encoding="utf-8"))["text"]
    assert (kept[:5], kept[6:]) == ("Call ", " back.")
