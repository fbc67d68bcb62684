"""Servers that are killed in mid-call: what the history had, it has, and its calls are closed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sqlite3
from pathlib import Path
from typing import Final

import pytest

from app.carrier.base import CarrierCallId
from app.errors import DialError
from app.events import CallId
from app.settings import carrier_credentials, load
from app.store.base import LOST_SEQ, CallFilter, Outcome
from app.store.fold import rebuilt
from app.store.sql.store import SqlStore
from audio.wav import read_wav
from tests.chaos.killed_server import start_server
from tests.fakes.carrier import FakeTwilio
from tests.fakes.stress import few_or
from tests.fakes.voice import Reply, ScriptedVoiceServer
from tests.fakes.waiting import until

pytestmark = pytest.mark.stress

KILLS: Final = few_or(12, 50)
CALLS: Final = 3
MACHINES: Final = few_or(3, 5)
ANSWERED_BEFORE_S: Final = 1.0
"""A call that was answered so long before is in the history, on a busy machine too."""


def acknowledged(path: Path) -> set[tuple[str, int]]:
    """The events that the database has."""
    if not path.exists():
        return set()
    with (
        contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection,
        contextlib.suppress(sqlite3.OperationalError),  # its tables are being made
    ):
        return {*connection.execute("SELECT call_id, seq FROM events")}
    return set()


def _calls(events: set[tuple[str, int]]) -> set[str]:
    return {call_id for call_id, _ in events}


async def test_servers_that_are_killed_in_mid_call_lose_nothing_that_was_kept(
    tmp_path: Path,
) -> None:
    voice = ScriptedVoiceServer(replies=[Reply(text="Hello.", audio_ms=100)] * 100)
    async with voice, asyncio.TaskGroup() as tasks:
        for machine in range(MACHINES):
            folder = tmp_path / str(machine)
            folder.mkdir()
            tasks.create_task(_kill_again_and_again(voice.url, folder, machine))


async def _kill_again_and_again(voice_url: str, folder: Path, seed: int) -> None:
    dice = random.Random(seed)
    database = folder / "var" / "calls.db"
    answered: set[CarrierCallId] = set()
    config = _configured(folder, voice_url)
    token = carrier_credentials(load(config, {})).auth_tokens[0]
    for nth in range(KILLS // MACHINES):
        before = acknowledged(database)
        server, port = await start_server(config)
        async with FakeTwilio(auth_token=token, speed=6) as twilio, asyncio.TaskGroup() as tasks:
            calls = []
            for _ in range(CALLS):
                calls.append(tasks.create_task(_hold_a_call(twilio, port)))
                await asyncio.sleep(dice.uniform(0, 0.2))
            if nth % 2:  # so that on a busy machine, too, some have something to lose
                await until(lambda: len(_calls(acknowledged(database) - before)) >= CALLS)  # noqa: B023
            await asyncio.sleep(dice.uniform(0, 0.3))
            known = acknowledged(database)
            server.kill()
            await server.wait()
        assert before <= known <= acknowledged(database)
        answered.update(held for one in calls if (held := one.result()) is not None)
    server, _ = await start_server(config)
    try:
        await until(lambda: not _open(database))
        await _check(database, answered)
    finally:
        await server.end()


def _configured(folder: Path, voice_url: str) -> Path:
    path = folder / "config.yaml"
    settings = {
        "voice_model": "openai",
        "server": {"port": 0},
        "recording": {"enabled": True, "notice": ""},
        "openai_realtime": {"url": voice_url, "api_key": "sk-scripted-model"},
    }
    path.write_text(json.dumps(settings))
    return path


async def _hold_a_call(twilio: FakeTwilio, port: int) -> CarrierCallId | None:
    """Call and listen until the server is gone; the call's id, if it was well under way."""
    with contextlib.suppress(DialError, OSError, AssertionError):
        loop = asyncio.get_running_loop()
        call = await twilio.call(f"http://127.0.0.1:{port}")
        began_s = loop.time()
        await call.ended()
        if loop.time() - began_s > ANSWERED_BEFORE_S:
            return call.identity.call_id
    return None


def _open(path: Path) -> set[tuple[str]]:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return {*connection.execute("SELECT call_id FROM open_calls")}


async def _check(database: Path, answered: set[CarrierCallId]) -> None:
    store = SqlStore(database)
    try:
        found = (await store.calls(CallFilter(), limit=1_000)).items
        assert {call.outcome for call in found} == {Outcome.LOST}
        assert len(found) > KILLS // MACHINES
        recordings = [Path(call.recording_file) for call in found if call.recording_file]
        opened = [path for path in recordings if path.exists()]  # its thread had begun with it
        assert opened
        for path in opened:
            with path.open("rb") as file:
                read_wav(file)
        assert answered <= {CarrierCallId(call.carrier_call_id) for call in found}
        for call in found:
            records = await store.events(CallId(call.call_id))
            numbers = [record.seq for record in records]
            assert numbers == [*range(1, len(records)), LOST_SEQ]
            assert call == rebuilt(records)
        assert await store.rebuild() == len(found)
        assert (await store.calls(CallFilter(), limit=1_000)).items == found
    finally:
        await store.close()
