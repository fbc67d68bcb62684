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
import logging
import re
from collections.abc import AsyncGenerator, Mapping
from typing import Final

from app.engine.speech.frames import Frame, Kind
from app.engine.speech.worker import Worker
from app.errors import VoiceUnavailable
from app.json_text import whole_text

__all__ = ["WorkerSynthesizer", "sentences"]

logger = logging.getLogger(__name__)


_READY_S: Final = 15.0
_RESTART_S: Final = 2.0
"""A caller can wait this long; a worker that dies is back in half a second."""
_SOUND_S: Final = 2.0
"""A worker that has nothing for anybody for so long hangs: a sentence takes it milliseconds. With
the start of another one, callers hear the sentence before the call's limit of 4 s has passed."""
_BUSY_S: Final = 10.0
"""Longest wait behind the sentences of other calls."""
_LATE_S: Final = 1.0
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


class _WorkerLost(VoiceUnavailable):
    """The worker died or hangs; another one starts."""


class WorkerSynthesizer:
    """Shared by all sessions of an engine; `await start()` before the first sentence."""

    def __init__(self, *, voices: Mapping[str, str] | None = None) -> None:
        """`voices` maps each voice that must exist to the setting that names it."""
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Queue[Frame | None]] = {}
        self._frames = 0
        self._last_sign_s = 0.0  # a frame, or the first request after everything was answered
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
        """The worker can speak, and is not late with what it was asked for."""
        late_s = asyncio.get_running_loop().time() - self._last_sign_s if self._waiting else 0.0
        return self._worker.ready and late_s < _LATE_S

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
        """Speak a sentence; one that a lost worker has not begun is asked of the next one."""
        spoken = whole_text(text).replace("\0", " ")  # where C would end the text
        request = json.dumps({"text": spoken, "voice": voice, "speed": speed}).encode()
        begun = False
        for again in (False, True):
            try:
                async with contextlib.aclosing(self._rendered(request)) as chunks:
                    async for chunk in chunks:
                        begun = True
                        yield chunk
                return
            except _WorkerLost:
                if begun or again:
                    raise

    async def _rendered(self, request: bytes) -> AsyncGenerator[bytes, None]:
        if not await self._worker.until_ready(_RESTART_S):
            raise VoiceUnavailable("the synthesizer is starting again")
        number = next(self._numbers)
        frames: asyncio.Queue[Frame | None] = asyncio.Queue()
        if not self._waiting:
            self._last_sign_s = asyncio.get_running_loop().time()
        self._waiting[number] = frames
        self._worker.send(Kind.BEGIN, number, request)
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
        for _ in range(round(_BUSY_S / _SOUND_S)):
            seen = self._frames
            try:
                async with asyncio.timeout(_SOUND_S):
                    frame = await frames.get()
            except TimeoutError:
                if self._frames != seen:
                    continue  # it is at work for others
                # Nothing came from it for anybody: it hangs, and only a new process helps.
                logger.warning("speech worker does not answer", extra={"worker": "synthesizer"})
                self._worker.kill()
                raise _WorkerLost("the synthesizer does not answer") from None
            if frame is None:
                raise _WorkerLost("the synthesizer's worker process died")
            return frame
        raise VoiceUnavailable("the synthesizer has too much to do")

    def _on_frame(self, frame: Frame) -> None:
        self._frames += 1
        self._last_sign_s = asyncio.get_running_loop().time()
        frames = self._waiting.get(frame.number)
        if frames is not None:
            frames.put_nowait(frame)

    def _on_lost(self) -> None:
        for frames in self._waiting.values():
            frames.put_nowait(None)
