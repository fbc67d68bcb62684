"""One reply of a chained engine: the text model writes, and each sentence is spoken as it is done.

What is spoken, and stands in the transcript, lacks the marks of Markdown (`stages/markdown.py`).

The model goes on writing while a sentence is spoken. Cancelling the task closes the request to the
model and that to the voice. The filler of a caller who waits is kept here, in each voice; when it
is said is up to the session and its host, since it may be before there is a reply.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Final, Protocol

from app.engine.actions import Generate
from app.engine.base import Synthesizer
from app.engine.stages.base import TextModel, TextUsage, ToolCall, Words
from app.engine.stages.markdown import Piece, SpokenPieces
from app.errors import VoiceUnavailable

__all__ = ["Chain", "Filler", "Reports"]

_AHEAD: Final = 8
"""Sentences that the model may be ahead of the voice."""
_VOICES: Final = 32
"""Voices in which a filler is kept: clients of `/v1/realtime` may name any."""


class Reports(Protocol):
    """The reports of a reply while it is made."""

    async def words(self, text: str) -> None: ...
    async def spoken(self, text: str, written: str) -> None: ...
    async def used(self, usage: TextUsage) -> None: ...
    async def sound(self, pcm16: bytes) -> None: ...
    async def done(self, calls: Sequence[ToolCall], stages: Mapping[str, int]) -> None: ...


class Filler:
    """A sentence for a caller whose answer is late, and its sound in each voice."""

    def __init__(self, text: str, after_s: float, synthesizer: Synthesizer) -> None:
        self.text = text
        self.after_s = after_s
        self._synthesizer = synthesizer
        self._kept: dict[tuple[str, float], _Kept] = {}

    async def sound(self, *, voice: str, speed: float) -> Sequence[bytes]:
        """Int16 mono PCM at 24 kHz in chunks, made once for all sessions.

        Raises:
            VoiceUnavailable: the voice failed; the next call tries again.
        """
        kept = self._kept.setdefault((voice, speed), _Kept())
        if len(self._kept) > _VOICES:
            del self._kept[next(iter(self._kept))]
        async with kept.lock:
            if not kept.chunks:
                speech = self._synthesizer.speak(self.text, voice=voice, speed=speed)
                async with aclosing(speech):
                    kept.chunks = [chunk async for chunk in speech]
        return kept.chunks


class _Kept:
    """The sound of a filler in one voice; the first who wants it makes it."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.chunks: Sequence[bytes] = ()


class Chain:
    """The text model and the voice of an engine, shared by its sessions."""

    def __init__(
        self,
        model: TextModel,
        synthesizer: Synthesizer,
        *,
        filler: str = "",
        filler_after_s: float = 1.5,
    ) -> None:
        """`filler` is said when no answer is heard `filler_after_s` after the end of the turn."""
        self.model = model
        self.filler = Filler(filler, filler_after_s, synthesizer) if filler else None
        self._synthesizer = synthesizer

    async def run(self, generate: Generate, reports: Reports) -> None:
        """Make one reply.

        Raises:
            VoiceUnavailable: the model or the voice failed.
        """
        reply = _Reply(self.model, self._synthesizer, generate, reports)
        if not generate.speaks:
            await reply.write_only()
            return
        await reply.write_and_speak()


class _Reply:
    """A reply on its way."""

    def __init__(
        self, model: TextModel, synthesizer: Synthesizer, generate: Generate, reports: Reports
    ) -> None:
        self._model = model
        self._synthesizer = synthesizer
        self._generate = generate
        self._reports = reports
        self._calls: list[ToolCall] = []
        self._stages: dict[str, int] = {}
        self._spoken = False
        self._loop = asyncio.get_running_loop()

    async def write_only(self) -> None:
        """Text out, as the model writes it."""
        began_s = self._loop.time()
        async with aclosing(self._model.stream(self._generate.request)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Words):
                    self._note("llm", began_s)
                    await self._reports.words(piece.text)
                else:
                    await self._keep(piece, began_s)
        await self._reports.done(self._calls, self._stages)

    async def write_and_speak(self) -> None:
        """Speech out, a sentence at a time."""
        sentences: asyncio.Queue[Piece | None] = asyncio.Queue(_AHEAD)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._write(sentences))
                group.create_task(self._speak(sentences))
        except* VoiceUnavailable as failures:
            raise failures.exceptions[0] from None
        await self._reports.done(self._calls, self._stages)

    async def _write(self, sentences: asyncio.Queue[Piece | None]) -> None:
        began_s = self._loop.time()
        splitter = SpokenPieces()
        async with aclosing(self._model.stream(self._generate.request)) as pieces:
            async for piece in pieces:
                if not isinstance(piece, Words):
                    await self._keep(piece, began_s)
                    continue
                self._note("llm", began_s)
                for sentence in splitter.push(piece.text):
                    await sentences.put(sentence)
        for sentence in splitter.flush():
            await sentences.put(sentence)
        await sentences.put(None)

    async def _speak(self, sentences: asyncio.Queue[Piece | None]) -> None:
        while (sentence := await sentences.get()) is not None:
            await self._say(sentence)

    async def _say(self, sentence: Piece) -> None:
        began_s, text = self._loop.time(), sentence.spoken
        # The blank belongs to the later sentence, so that pieces of transcript join to the whole.
        await self._reports.spoken(f" {text}" if self._spoken else text, sentence.written)
        self._spoken = True
        generate = self._generate
        speech = self._synthesizer.speak(text, voice=generate.voice, speed=generate.speed)
        async with aclosing(speech):
            async for chunk in speech:
                self._note("tts", began_s)
                await self._reports.sound(chunk)

    async def _keep(self, piece: ToolCall | TextUsage, began_s: float) -> None:
        if isinstance(piece, ToolCall):
            self._note("llm", began_s)
            self._calls.append(piece)
        else:
            # At once: the caller may interrupt what is still to be spoken.
            await self._reports.used(piece)

    def _note(self, stage: str, began_s: float) -> None:
        """The time of a stage up to its first answer in this reply."""
        if stage not in self._stages:
            self._stages[stage] = round((self._loop.time() - began_s) * 1000)
