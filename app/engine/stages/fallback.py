"""Several servers of one stage in order: the next one takes over when one fails or is late.

An answer of a text model without a word or a tool call is a failure as well.

A server that failed rests for half a minute, so that the turns after it lose no time. Nothing is
lost in a switch: a turn's sound is kept until it is transcribed, a sentence's text until it is
spoken, and a text model that has said nothing yet is asked again from the start.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Final, Generic, Protocol, TypeVar

from app.engine.base import Heard, Hearing, PartialHearing
from app.engine.stages.base import (
    LanguageHints,
    SpeechToText,
    StageError,
    TextModel,
    TextPiece,
    TextRequest,
    TextToSpeech,
    TextUsage,
    ToolCall,
    transcribe_turn,
)
from app.engine.stages.sentences import has_words, sentences_of
from app.errors import ConfigError, VoiceUnavailable

__all__ = ["SWITCH_S", "Recognizers", "TextModels", "Voices"]

logger = logging.getLogger(__name__)

SWITCH_S: Final = 1.5
"""Longest silence of a server while another one could answer."""
REST_S: Final = 30.0
_CHARS_PER_S: Final = 10.0
"""A slow voice, while its own pace is not known: a word is sooner said twice than not at all."""
_PACED_S: Final = 1.0
"""Speech that is long enough to tell a voice's pace by."""
_SURE: Final = 0.9
"""Share of what a voice has said by its pace, that it has said for sure."""
_LONGEST_TURN_BYTES: Final = 60 * 32_000


class _Named(Protocol):
    @property
    def name(self) -> str: ...


N = TypeVar("N", bound=_Named)
T = TypeVar("T")


class _Fallback(Generic[N]):
    """The order of the servers, and which of them rest."""

    def __init__(self, stage: str, servers: Sequence[N], switch_s: float) -> None:
        if not servers:
            raise ConfigError(f"{stage}: the list of its servers is empty")
        self._stage = stage
        self._servers = servers
        self._switch_s = switch_s
        self._rest_until: dict[int, float] = {}

    def order(self) -> list[N]:
        """The servers to try: those that rest come last."""
        now = asyncio.get_running_loop().time()
        return sorted(self._servers, key=lambda server: self._rest_until.get(id(server), 0.0) > now)

    def limit_s(self, others: Sequence[N]) -> float | None:
        """Longest time for a server's first answer while there are others."""
        return self._switch_s if others else None

    def failed(self, server: N, error: VoiceUnavailable, others: Sequence[N]) -> None:
        """Let a server rest, and say that the next one takes over."""
        self._rest_until[id(server)] = asyncio.get_running_loop().time() + REST_S
        if others:
            logger.warning(
                "stage switched",
                extra={
                    "stage": self._stage,
                    "from": server.name,
                    "to": others[0].name,
                    "code": error.code,
                },
            )

    def late(self, server: N) -> StageError:
        return StageError(
            f"{server.name}: no answer within {self._switch_s:g} s", code="stage_timeout"
        )


class Recognizers:
    """Speech to text by several servers: the engine's recognizer, and a stage like each of them."""

    def __init__(self, servers: Sequence[SpeechToText], *, switch_s: float = SWITCH_S) -> None:
        self._fallback = _Fallback("stt", servers, switch_s)
        self.name = servers[0].name

    def listen(self, context: str, languages: Sequence[str] = ()) -> Hearing:
        """Begin a turn of a caller who speaks one of `languages`, where any is known."""
        return _Turn(self._fallback, languages)

    def open(self) -> Hearing:
        """As `SpeechToText.open`."""
        return _Turn(self._fallback)

    async def transcribe(self, pcm16: bytes) -> str:
        """As `SpeechToText.transcribe`."""
        return await transcribe_turn(self.open(), pcm16)


class _Turn:
    """A turn; its sound is kept for the server that may have to take over."""

    def __init__(self, fallback: _Fallback[SpeechToText], languages: Sequence[str] = ()) -> None:
        self._fallback = fallback
        self._languages = languages
        self._order = fallback.order()
        self._audio = bytearray()
        self._hearing = self._told(self._order[0]).open()
        self._early: asyncio.Future[Heard] | None = None

    def _told(self, server: SpeechToText) -> SpeechToText:
        """The server, told of the languages where it can be."""
        if self._languages and isinstance(server, LanguageHints):
            return server.in_languages(self._languages)
        return server

    def push(self, pcm16: bytes) -> None:
        if len(self._audio) < _LONGEST_TURN_BYTES:
            self._audio += pcm16
        self._hearing.push(pcm16)

    async def so_far(self) -> Heard | None:
        """Return the words up to now from the first server, where it can tell.

        `finish` returns the same, unless this was cancelled or failed, or `go_on` was called.
        """
        early = self._early = asyncio.get_running_loop().create_future()
        try:
            if not isinstance(self._hearing, PartialHearing):
                return None
            heard = await self._hearing.so_far()
            if heard is not None:
                early.set_result(heard)
            return heard
        finally:
            early.cancel()  # unless it has its result

    def go_on(self) -> None:
        """The caller has not finished: what was said so far is not all."""
        self._early = None

    async def _first(self) -> Heard:
        """The words of the first server, which may be at work on them already."""
        if self._early is not None:
            await asyncio.wait([self._early])
            if not self._early.cancelled():
                return self._early.result()
        return await self._hearing.finish()

    async def finish(self) -> Heard:
        """Return the words.

        Raises:
            VoiceUnavailable: no server could tell.
        """
        first, *others = self._order
        try:
            async with asyncio.timeout(self._fallback.limit_s(others)):
                return await self._first()
        except TimeoutError:
            error: VoiceUnavailable = self._fallback.late(first)
        except VoiceUnavailable as failed:
            error = failed
        self._fallback.failed(first, error, others)
        self._hearing.abandon()
        while others:
            server, *others = others
            try:
                async with asyncio.timeout(self._fallback.limit_s(others)):
                    words = await self._told(server).transcribe(bytes(self._audio))
                    return Heard(transcript=words)
            except TimeoutError:
                error = self._fallback.late(server)
            except VoiceUnavailable as failed:
                error = failed
            self._fallback.failed(server, error, others)
        raise error

    def abandon(self) -> None:
        self._hearing.abandon()
        self._audio.clear()


class TextModels:
    """Text models in order; the next one is asked while nothing has been said."""

    def __init__(self, servers: Sequence[TextModel], *, switch_s: float = SWITCH_S) -> None:
        self._fallback = _Fallback("llm", servers, switch_s)
        self.name = servers[0].name

    async def stream(self, request: TextRequest) -> AsyncGenerator[TextPiece, None]:
        """As `TextModel.stream`."""
        others = self._fallback.order()
        while True:
            server, *others = others
            begun, told = False, None
            try:
                async with aclosing(_from_first_word(server.stream(request))) as pieces:
                    async for piece in _first_within(pieces, self._fallback.limit_s(others)):
                        if isinstance(piece, TextUsage) and not begun:
                            told = piece
                            continue
                        begun = True
                        yield piece
                if begun:
                    return
                error: VoiceUnavailable = StageError(
                    f"{server.name}: the answer is empty", code="stage_empty"
                )
                used = told or TextUsage.estimate(request, "")
                yield replace(used, estimated=True) if others else used
            except TimeoutError:
                error = self._fallback.late(server)
                yield TextUsage.estimate(request, "")  # it has the request, and bills it
            except VoiceUnavailable as failed:
                error = failed
            self._fallback.failed(server, error, () if begun else others)
            if begun or not others:
                raise error


class Voices:
    """Voices in order; the next one goes on at the word where the last one was cut off."""

    def __init__(self, servers: Sequence[TextToSpeech], *, switch_s: float = SWITCH_S) -> None:
        self._fallback = _Fallback("tts", servers, switch_s)
        self._paces: dict[tuple[str, str], float] = {}
        self.name = servers[0].name

    async def speak(self, text: str, *, voice: str, speed: float) -> AsyncGenerator[bytes, None]:
        """As `TextToSpeech.speak`; a long text is spoken sentence by sentence."""
        for sentence in filter(has_words, sentences_of(text)):
            async with aclosing(self._sentence(sentence, voice, speed)) as chunks:
                async for chunk in chunks:
                    yield chunk

    async def _sentence(self, text: str, voice: str, speed: float) -> AsyncGenerator[bytes, None]:
        others = self._fallback.order()
        while True:
            server, *others = others
            spoken_bytes = 0
            try:
                speech = server.speak(text, voice=voice, speed=speed)
                async with aclosing(speech):
                    async for chunk in _each_within(speech, self._fallback.limit_s(others)):
                        spoken_bytes += len(chunk)
                        yield chunk
                spoken_s = spoken_bytes / 48_000 * speed
                if spoken_s > _PACED_S:
                    self._paces[server.name, voice] = len(text) / spoken_s
                return
            except TimeoutError:
                error: VoiceUnavailable = self._fallback.late(server)
            except VoiceUnavailable as failed:
                error = failed
            self._fallback.failed(server, error, others)
            if not others:
                raise error
            pace = self._paces.get((server.name, voice), _CHARS_PER_S)
            text = _unspoken(text, spoken_bytes / 48_000 * speed * pace)
            if not text:
                return


def _unspoken(text: str, spoken_chars: float) -> str:
    """The words from the one at which a voice was cut off, or from one that it has said before."""
    if spoken_chars >= len(text):
        return ""
    return text[text.rfind(" ", 0, int(spoken_chars * _SURE) + 1) + 1 :]


async def _from_first_word(
    pieces: AsyncGenerator[TextPiece, None],
) -> AsyncGenerator[TextPiece, None]:
    """Leave out blanks before the first word or tool call: nobody hears them."""
    begun = False
    async with aclosing(pieces):
        async for piece in pieces:
            if isinstance(piece, TextUsage):
                yield piece
            elif begun or isinstance(piece, ToolCall) or piece.text.strip():
                begun = True
                yield piece


async def _first_within(pieces: AsyncGenerator[T, None], limit_s: float | None) -> (
    AsyncGenerator[T, None]
):  # fmt: skip
    """Every piece; the first must come in time."""
    async with asyncio.timeout(limit_s):
        first = await anext(pieces, None)
    if first is not None:
        yield first
        async for piece in pieces:
            yield piece


async def _each_within(pieces: AsyncGenerator[T, None], limit_s: float | None) -> (
    AsyncGenerator[T, None]
):  # fmt: skip
    """Every piece; each must come in time after the last one was taken."""
    while True:
        async with asyncio.timeout(limit_s):
            piece = await anext(pieces, None)
        if piece is None:
            return
        yield piece
