"""The beginning and the end of an engine and of its sessions: nothing outlives either."""

from __future__ import annotations

import asyncio

import pytest

from app.engine.base import Reply
from app.engine.host import EngineParts
from app.engine.server import Engine
from app.engine.speech.worker import Worker
from app.errors import ConfigError, VoiceClosed, VoiceUnavailable
from app.realtime.connection import open_connection, pipe
from app.realtime.events import (
    AudioDelta,
    ErrorEvent,
    ResponseCreate,
    ResponseDone,
    SessionConfig,
    SpeechStarted,
    SpeechStopped,
)
from tests.fakes.engine_parts import (
    EchoResponder,
    LevelDetector,
    ScriptedRecognizer,
    ToneSynthesizer,
    said,
)
from tests.fakes.waiting import time_limit, until
from tests.integration.engine_site import open_site

# Endings ------------------------------------------------------------------------------------------


async def test_a_client_that_vanishes_in_mid_speech_leaves_nothing() -> None:
    async with open_site(said("hello")) as site:
        caller = await site.call()
        site.synthesizer.may_go_on.clear()
        site.recognizer.may_finish.clear()
        await caller.connection.send(ResponseCreate())
        await caller.until(AudioDelta)
        await caller.speak()
        await caller.until(SpeechStopped)
        await caller.connection.close()
        await until(lambda: site.engine.sessions == 0)
        assert [hearing.abandoned for hearing in site.recognizer.hearings] == [True]


async def test_a_turn_that_is_cut_off_by_the_end_is_abandoned() -> None:
    async with open_site() as site:
        caller = await site.call()
        await caller.speak(300, then_quiet_ms=0)
        await caller.until(SpeechStarted)
        await caller.connection.close()
        await until(lambda: site.engine.sessions == 0)
        assert [hearing.abandoned for hearing in site.recognizer.hearings] == [True]


async def test_closing_the_engine_ends_its_sessions_and_takes_no_more() -> None:
    async with open_site() as site:
        caller = await site.call()
        ours, theirs = pipe()
        serving = asyncio.create_task(site.engine.serve(theirs))
        other = await open_connection(ours, SessionConfig())
        await site.engine.close()
        await serving
        for connection in (caller.connection, other):
            with pytest.raises(VoiceClosed) as closed:
                await anext(aiter(connection))
            assert closed.value.close_code == 1001
        with pytest.raises(VoiceUnavailable) as stopped:
            await site.call()
        assert stopped.value.code == "engine_stopped"


async def test_the_engine_can_be_started_again() -> None:
    async with open_site() as site:
        await site.engine.close()
        await site.engine.start()
        caller = await site.call()
        await caller.connection.send(ResponseCreate())
        assert (await caller.until(ResponseDone)).response.status == "completed"
        await caller.connection.close()


async def test_a_failure_of_ours_ends_its_session_and_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(EchoResponder):
        def open(self) -> Reply:
            raise RuntimeError("a bug")

    async with open_site() as site:
        neighbor = await site.call()
        site.make_responder = Broken
        caller = await site.call()
        await caller.connection.send(ResponseCreate())
        error = await caller.until(ErrorEvent)
        assert error.error.code == "internal_error"
        with pytest.raises(VoiceClosed) as closed:
            await caller.until(ResponseDone)
        assert closed.value.close_code == 1011
        assert "engine session failed" in caplog.text
        await neighbor.connection.send(ResponseCreate())
        assert (await neighbor.until(ResponseDone)).response.status == "completed"
        await neighbor.connection.close()


# Starting -----------------------------------------------------------------------------------------


class _Part(ScriptedRecognizer):
    """A recognizer with something to start."""

    def __init__(self, *, starts: bool) -> None:
        super().__init__()
        self.starts = starts
        self.closed = 0

    async def start(self) -> None:
        if not self.starts:
            raise ConfigError("it is not installed")

    async def close(self) -> None:
        self.closed += 1


def _engine_with(part: _Part) -> Engine:
    return Engine(
        EngineParts(
            recognizer=part,
            synthesizer=ToneSynthesizer(),
            make_responder=lambda _hours: EchoResponder(),
            make_vad=LevelDetector,
        )
    )


async def test_a_part_that_does_not_start_is_closed_and_named() -> None:
    part = _Part(starts=False)
    with pytest.raises(ConfigError, match="not installed"):
        await _engine_with(part).start()
    assert part.closed == 1


async def test_parts_are_closed_with_the_engine() -> None:
    part = _Part(starts=True)
    engine = _engine_with(part)
    assert engine.model().name == "offline-receptionist"
    await engine.start()
    await engine.close()
    assert part.closed == 1


async def test_a_session_that_was_promised_when_the_engine_closes_is_ended() -> None:
    async with open_site() as site:
        ours = await site.engine.serve_in_process()
        assert site.engine.sessions == 1
        await site.engine.close()
        with pytest.raises(VoiceClosed) as closed:
            await ours.receive()
        assert closed.value.close_code == 1001


async def test_a_system_that_makes_no_process_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sys.executable", "/no/such/python")
    lost: list[bool] = []
    worker = Worker(
        "app.engine.speech.synthesizer_worker",
        setup=b"{}",
        on_frame=lambda frame: None,
        on_lost=lambda: lost.append(True),
    )
    async with time_limit():
        with pytest.raises(ConfigError, match="cannot be started: No such file"):
            await worker.start(timeout_s=60)
    assert lost
    assert "speech worker not started" in caplog.text
