"""A disk that is full under everything that a server writes costs no call, and no event of one.

A limit on the size of files stands in for the disk: it is set and lifted while the process runs,
wherever that is allowed, and the writes fail in the kernel.
"""

from __future__ import annotations

import resource
import signal
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

from app.events import CallId
from app.store.fold import rebuilt
from audio.wav import read_wav
from tests.fakes.carrier import FakeCall
from tests.fakes.voice import Reply, ScriptedVoiceServer
from tests.fakes.waiting import until
from tests.integration.store_site import opened
from tests.integration.test_command import Served, live

if not hasattr(resource, "prlimit"):
    pytest.skip("limits of another process are Linux's", allow_module_level=True)

LEFT_BYTES: Final = 512
CALLS: Final = 2
"""Besides a brief one."""
UNAVAILABLE: Final = "call history unavailable"
AGAIN: Final = "call history is written again"


def leave_room(server: Served, size_bytes: int) -> None:
    """No file of the server can grow beyond this."""
    _, most = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (size_bytes, most))


def told(server: Served, message: str) -> int:
    return sum(line["message"] == message for line in server.lines())


async def talk(call: FakeCall) -> None:
    """The caller is answered."""
    await call.hear_quiet(ms=300)
    await call.speak(0.4)
    await call.hear(ms=200)


async def test_a_disk_that_is_full_in_mid_call_costs_no_call_and_no_event(tmp_path: Path) -> None:
    voice = ScriptedVoiceServer(replies=[Reply(text="Hello.", audio_ms=300)])
    recorded = {"enabled": True, "notice": ""}
    folder = tmp_path / "var" / "recordings"
    async with voice, live(tmp_path, voice, recording=recorded) as (server, phone, _api):
        call = await phone.call(server.url)
        await call.hear_quiet(ms=300)
        await until(lambda: any(path.stat().st_size > 8_000 for path in folder.glob("*.wav")))
        leave_room(server, LEFT_BYTES)
        await server.until_logged("recording failed")
        await talk(call)
        other = await phone.call(server.url)  # which begins without a disk
        await server.until_logged("recording failed", times=CALLS)
        await talk(other)
        brief = await phone.call(server.url)  # of which nothing is written before its end
        await brief.hear_quiet(ms=300)
        await brief.hang_up()
        for one in (call, other):
            await one.hang_up()
        await server.until_logged("call ended", times=CALLS + 1)
        leave_room(server, resource.RLIM_INFINITY)
        await until(lambda: 1 <= told(server, AGAIN) == told(server, UNAVAILABLE))
        server.process.send_signal(signal.SIGTERM)
        assert await server.ended() == 0
    lines = server.lines()
    said = Counter(line["message"] for line in lines)
    assert said["recording failed"] == CALLS + 1
    # Each is told once, until the last bytes of a file have let one batch through.
    assert 1 <= said["the call history's spool takes no more"] <= said[UNAVAILABLE] <= 2
    assert not [line for line in lines if "exception" in line]
    ids = [line["call_id"] for line in lines if line["message"] == "call ended"]
    wavs = {path.stem: path for path in folder.glob("*.wav")}
    assert wavs.keys() == {*ids}
    sizes = []
    for path in wavs.values():
        with path.open("rb") as file:
            sizes.append(len(read_wav(file)[1]))
    assert max(sizes) > 1_000
    async with opened(tmp_path / "var" / "calls.db") as store:
        for call_id in ids:
            events = await store.events(CallId(call_id))
            assert [event.seq for event in events] == [*range(1, len(events) + 1)]
            assert (await store.call(CallId(call_id))) == rebuilt(events)
            reasons = [
                event.body["reason"] for event in events if event.type == "recording_stopped"
            ]
            assert reasons == ["disk_full"]
