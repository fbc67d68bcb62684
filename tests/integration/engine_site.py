"""An engine whose speech parts work by arithmetic, and callers that read until they have it all."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

from app.engine.base import Heard
from app.engine.host import EngineParts
from app.engine.receptionist.message_folder import MessageFolder
from app.engine.server import Engine
from app.realtime.connection import VoiceConnection
from app.realtime.events import InputAudioAppend, SessionConfig, Transcription
from audio.format import PCM16_24K
from tests.fakes.engine_parts import (
    EchoResponder,
    LevelDetector,
    ScriptedRecognizer,
    ToneSynthesizer,
    quiet,
    speech,
)
from tests.fakes.waiting import time_limit

__all__ = ["Caller", "Site", "open_site"]

E = TypeVar("E")


class Site:
    """An engine with its parts in reach."""

    def __init__(self, *script: Heard, max_sessions: int = 8, messages: Path | None = None) -> None:
        self.recognizer = ScriptedRecognizer(*script)
        self.synthesizer = ToneSynthesizer()
        self.make_responder: Callable[[], EchoResponder] = EchoResponder
        self.engine = Engine(
            EngineParts(
                recognizer=self.recognizer,
                synthesizer=self.synthesizer,
                make_responder=lambda _hours: self.make_responder(),
                make_vad=LevelDetector,
                keep_message=MessageFolder(messages).keep if messages is not None else None,
            ),
            max_sessions=max_sessions,
        )

    async def call(self, **settings: Any) -> Caller:
        settings.setdefault("transcription", Transcription(model="any"))
        settings.setdefault("input_format", PCM16_24K)
        config = SessionConfig(**settings)
        return Caller(await self.engine.model().connect(config))


class Caller:
    """A client of the engine that reads until it has what it waits for."""

    def __init__(self, connection: VoiceConnection) -> None:
        self.connection = connection
        self.seen: list[object] = []

    async def until(self, kind: type[E]) -> E:
        async with time_limit():
            async for event in self.connection:
                self.seen.append(event)
                if isinstance(event, kind):
                    return event
        raise AssertionError(f"the session ended before {kind.__name__}")

    async def speak(self, ms: int = 600, then_quiet_ms: int = 700) -> None:
        rate_hz = 24_000
        for sound in (speech(ms, rate_hz), quiet(then_quiet_ms, rate_hz)):
            for start in range(0, len(sound), 960):
                await self.connection.send(InputAudioAppend(sound[start : start + 960]))

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.seen if isinstance(event, kind)]


@contextlib.asynccontextmanager
async def open_site(*script: Heard, **settings: Any) -> AsyncIterator[Site]:
    """An engine that runs for as long as the block; nothing of it is left afterwards."""
    before = {task for task in asyncio.all_tasks() if not task.done()}
    site = Site(*script, **settings)
    await site.engine.start()
    try:
        yield site
    finally:
        await site.engine.close()
    assert {task for task in asyncio.all_tasks() if not task.done()} <= before
    assert not [t for t in threading.enumerate() if t.name.startswith("engine-vad")]
    assert site.engine.sessions == 0
