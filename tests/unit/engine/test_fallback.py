"""Stages over several servers, at the limits that callers meet, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from app.engine.base import Heard
from app.engine.stages.base import StageError, TextPiece, TextRequest, TextUsage, Words
from app.engine.stages.fallback import Recognizers, TextModels, Voices
from tests.fakes.clock import in_virtual_time

SOUND = bytes(range(256)) * 125


class Recognizer:
    """Hears what was pushed; a silent one never answers."""

    def __init__(self, name: str, *, silent: bool) -> None:
        self.name = name
        self._silent = silent
        self.heard = b""

    async def transcribe(self, pcm16: bytes) -> str:
        self.heard = pcm16
        return (await self.finish()).transcript

    def open(self) -> Recognizer:
        return self

    def push(self, pcm16: bytes) -> None:
        self.heard += pcm16

    async def finish(self) -> Heard:
        if self._silent:
            await asyncio.Event().wait()
        return Heard(transcript=f"{len(self.heard)} bytes")

    def abandon(self) -> None:
        pass


class Speaker:
    """A text model and a voice in one, which yields one piece, or nothing ever."""

    def __init__(self, name: str, *, silent: bool) -> None:
        self.name = name
        self._silent = silent
        self.asked: list[object] = []

    async def stream(self, request: TextRequest) -> AsyncGenerator[TextPiece, None]:
        await self._ask(request)
        yield Words("Hello.")

    async def speak(self, text: str, *, voice: str, speed: float) -> AsyncGenerator[bytes, None]:
        await self._ask(text)
        yield SOUND

    async def _ask(self, what: object) -> None:
        self.asked.append(what)
        if self._silent:
            await asyncio.Event().wait()


class PacedVoice:
    """Speaks so many characters a second, and is cut off after some of a sentence's."""

    def __init__(self, name: str, chars_per_s: float) -> None:
        self.name = name
        self.cut_after_chars: int | None = None
        self.said: list[str] = []
        self._char = bytes(2 * round(24_000 / chars_per_s))

    async def speak(self, text: str, *, voice: str, speed: float) -> AsyncGenerator[bytes, None]:
        self.said.append(text[: self.cut_after_chars])
        for _ in self.said[-1]:
            yield self._char
        if self.cut_after_chars is not None:
            raise StageError("cut", code="stage_cut")


@pytest.mark.parametrize("chars_per_s", [10.0, 12.0, 14.0, 18.0, 25.0])
@pytest.mark.parametrize("known", [True, False])
def test_no_word_is_lost_where_a_voice_is_cut_off(chars_per_s: float, known: bool) -> None:
    sentence = "We are open from nine to five on weekdays and until noon on Saturdays, so come."

    async def main() -> None:
        for cut in range(1, len(sentence)):
            first, second = PacedVoice("first", chars_per_s), PacedVoice("second", 15)
            voices = Voices([first, second])
            if known:
                async for _ in voices.speak("Good morning, what can I do for you today?",
                                            voice="a", speed=1.0):  # fmt: skip
                    pass
            first.cut_after_chars = cut
            async for _ in voices.speak(sentence, voice="a", speed=1.0):
                pass
            (rest,) = second.said
            assert sentence.endswith(rest)
            again = cut - (len(sentence) - len(rest))  # the word that was cut, and what is not sure
            assert 0 <= again <= (20 if known else 20 + cut * (1 - 10 / chars_per_s))

    in_virtual_time(main())


def test_each_stage_is_switched_within_a_second_and_a_half_and_nothing_is_lost() -> None:
    async def main() -> None:
        now = asyncio.get_running_loop().time
        dead, live = (Recognizer(name, silent=name == "dead") for name in ("dead", "live"))
        turn = Recognizers([dead, live]).listen("")
        for _ in range(4):
            turn.push(SOUND)
        began = now()
        assert (await turn.finish()).transcript == f"{4 * len(SOUND)} bytes"
        assert 1.4 < now() - began <= 1.5

        silent, speaking = (Speaker(name, silent=name == "dead") for name in ("dead", "live"))
        question = TextRequest(messages=())
        began = now()
        assert [piece async for piece in TextModels([silent, speaking]).stream(question)] == [
            TextUsage(estimated=True),  # of the question that came to nothing
            Words("Hello."),
        ]
        assert 1.4 < now() - began <= 1.5
        assert speaking.asked == silent.asked == [question]

        began, voices = now(), Voices([silent, speaking])
        sound = [chunk async for chunk in voices.speak("Hello.", voice="a", speed=1.0)]
        assert (b"".join(sound), 1.4 < now() - began <= 1.5) == (SOUND, True)
        assert speaking.asked[-1] == silent.asked[-1] == "Hello."
        began = now()  # a side that failed rests, and costs the next sentence no time
        assert [chunk async for chunk in voices.speak("Again.", voice="a", speed=1.0)]
        assert now() == began

    in_virtual_time(main())
