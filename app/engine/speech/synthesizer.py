"""Text to speech by espeak-ng or flite, in a worker process.

The synthesizers render a sentence hundreds of times faster than it is spoken, so one worker serves
many calls: each call asks for a sentence at a time, and a reply that is cut off costs at most one
sentence of work. espeak-ng's library carries the GPLv3; only the worker process loads it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
from collections.abc import AsyncGenerator, Mapping
from typing import Final

from app.engine.speech.frames import Frame, Kind
from app.engine.speech.worker import Worker
from app.errors import VoiceUnavailable

__all__ = ["WorkerSynthesizer", "sentences"]


_READY_S: Final = 15.0
_RESTART_S: Final = 2.0
"""A caller can wait this long; a worker that dies is back in half a second."""
_SOUND_S: Final = 10.0
_LONGEST_CHARS: Final = 240
_END: Final = re.compile(r"(?<=[.!?])[\"')\]]*\s+")
_CLAUSE: Final = re.compile(r"(?<=[,;:])\s+")


def sentences(text: str) -> list[str]:
    """Cut text into pieces that are spoken on their own, none longer than 240 characters.

    Cuts at sentence ends, else after a comma, else between words; a word is cut only when it alone
    is too long.
    """
    pieces: list[str] = []
    for sentence in _END.split(text.strip()):
        rest = " ".join(sentence.split())
        while len(rest) > _LONGEST_CHARS:
            head = rest[:_LONGEST_CHARS]
            clauses = [found.start() for found in _CLAUSE.finditer(head)]
            cut = clauses[-1] if clauses else head.rfind(" ")
            cut = cut if cut > 0 else _LONGEST_CHARS
            pieces.append(rest[:cut].strip())
            rest = rest[cut:].strip()
        if rest:
            pieces.append(rest)
    return pieces


class WorkerSynthesizer:
    """Shared by all sessions of an engine; `await start()` before the first sentence."""

    def __init__(self, *, voices: Mapping[str, str] | None = None) -> None:
        """`voices` maps each voice that must exist to the setting that names it."""
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Queue[Frame | None]] = {}
        self._worker = Worker(
            f"{__package__}.synthesizer_worker",
            setup=json.dumps({"voices": dict(voices or {})}).encode(),
            on_frame=self._on_frame,
            on_lost=self._on_lost,
        )

    async def start(self) -> None:
        """Start the worker.

        Raises:
            ConfigError: no synthesizer is installed, or a voice is not there; the message says
                which, and what to do.
            VoiceUnavailable: the worker is not ready in time.
        """
        await self._worker.start(timeout_s=_READY_S)

    async def close(self) -> None:
        """End the worker; no process is left."""
        await self._worker.close()

    @property
    def pids(self) -> tuple[int, ...]:
        """The worker process if it is up, for health checks and measurement."""
        return (self._worker.pid,) if self._worker.pid is not None else ()

    @property
    def ready(self) -> bool:
        """The worker can speak."""
        return self._worker.ready

    async def speak(self, text: str, *, voice: str, speed: float) -> AsyncGenerator[bytes, None]:
        """Yield int16 mono PCM at 24 kHz in chunks of at most 200 ms.

        `voice` is a Realtime voice name or one of espeak-ng; any other speaks with `alloy`.

        Raises:
            VoiceUnavailable: the worker died, is not up, or does not answer.
        """
        for sentence in sentences(text):
            # Closed by name: a generator that is merely dropped goes on until it is collected.
            async with contextlib.aclosing(self._sentence(sentence, voice, speed)) as chunks:
                async for chunk in chunks:
                    yield chunk

    async def _sentence(self, text: str, voice: str, speed: float) -> AsyncGenerator[bytes, None]:
        if not await self._worker.until_ready(_RESTART_S):
            raise VoiceUnavailable("the synthesizer is starting again")
        number = next(self._numbers)
        frames: asyncio.Queue[Frame | None] = asyncio.Queue()
        self._waiting[number] = frames
        request = {"text": text, "voice": voice, "speed": speed}
        self._worker.send(Kind.BEGIN, number, json.dumps(request).encode())
        try:
            while True:
                frame = await self._next(frames)
                if frame.kind is Kind.DONE:
                    return
                if frame.kind is Kind.FAILED:
                    raise VoiceUnavailable(frame.body.decode())
                yield frame.body
        finally:
            if self._waiting.pop(number, None) is not None:
                self._worker.send(Kind.ABANDON, number)

    async def _next(self, frames: asyncio.Queue[Frame | None]) -> Frame:
        try:
            async with asyncio.timeout(_SOUND_S):
                frame = await frames.get()
        except TimeoutError:
            self._worker.kill()
            raise VoiceUnavailable("the synthesizer does not answer") from None
        if frame is None:
            raise VoiceUnavailable("the synthesizer's worker process died")
        return frame

    def _on_frame(self, frame: Frame) -> None:
        frames = self._waiting.get(frame.number)
        if frames is not None:
            frames.put_nowait(frame)

    def _on_lost(self) -> None:
        for frames in self._waiting.values():
            frames.put_nowait(None)
