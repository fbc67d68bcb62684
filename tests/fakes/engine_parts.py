"""Speech parts that work by arithmetic: the same sound always gives the same words.

For tests of the engine's protocol half. `LevelDetector` goes by loudness, `ScriptedRecognizer`
answers from a list, `ToneSynthesizer` hums one tone for as long as a text would take to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from app.engine.base import Heard, Reply, ToolUse
from app.errors import VoiceUnavailable
from app.realtime.events import ServerVad

__all__ = [
    "EchoResponder",
    "LevelDetector",
    "MarkedEdge",
    "ScriptedHearing",
    "ScriptedRecognizer",
    "ToneSynthesizer",
    "quiet",
    "said",
    "speech",
]

RATE_HZ = 16_000
MS_PER_CHAR = 20
CHUNK_MS = 200
LOUD = 1_000


def speech(ms: int, rate_hz: int = RATE_HZ) -> bytes:
    """Loud int16 sound: a 440 Hz tone at about -10 dBFS."""
    at = np.arange(ms * rate_hz // 1000) / rate_hz
    return (np.sin(2 * np.pi * 440 * at) * 10_000).astype("<i2").tobytes()


def quiet(ms: int, rate_hz: int = RATE_HZ) -> bytes:
    """Digital silence, int16."""
    return bytes(2 * (ms * rate_hz // 1000))


def said(words: str) -> Heard:
    """A turn on which both listeners agree."""
    return Heard(transcript=words, intents={"lm": words or None, "grammar": words or None})


@dataclass(frozen=True, slots=True)
class MarkedEdge:
    """Speech started or stopped here."""

    started: bool
    at_ms: int


class LevelDetector:
    """Speech is what is loud, in windows of 10 ms; it starts at once and ends after silence."""

    def __init__(self, settings: ServerVad) -> None:
        self.settings = settings
        self._rest = b""
        self._now_ms = 0
        self._quiet_ms = 0
        self._speaking = False
        self._last_end_ms = 0

    @property
    def quiet_ms(self) -> int:
        return self._quiet_ms if self._speaking else 0

    def push(self, pcm16: bytes) -> list[MarkedEdge]:
        edges = []
        data = self._rest + pcm16
        size = RATE_HZ // 100 * 2
        whole = len(data) - len(data) % size
        self._rest = data[whole:]
        for start in range(0, whole, size):
            edge = self._window(np.frombuffer(data[start : start + size], "<i2"))
            if edge is not None:
                edges.append(edge)
        return edges

    def _window(self, samples: np.ndarray[tuple[int], np.dtype[np.int16]]) -> MarkedEdge | None:
        loud = int(np.abs(samples.astype(int)).max()) > LOUD
        self._now_ms += 10
        self._quiet_ms = 0 if loud else self._quiet_ms + 10
        if loud and not self._speaking:
            self._speaking = True
            before = self._now_ms - 10 - self.settings.prefix_padding_ms
            return MarkedEdge(True, max(self._last_end_ms, before))
        if self._speaking and self._quiet_ms >= self.settings.silence_duration_ms:
            self._speaking = False
            self._last_end_ms = self._now_ms
            return MarkedEdge(False, self._now_ms)
        return None


class ScriptedHearing:
    """A turn of `ScriptedRecognizer`."""

    def __init__(self, recognizer: ScriptedRecognizer, context: str) -> None:
        self.recognizer = recognizer
        self.context = context
        self.audio = bytearray()
        self.abandoned = False

    def push(self, pcm16: bytes) -> None:
        self.audio += pcm16

    async def finish(self) -> Heard:
        await self.recognizer.may_finish.wait()
        if not self.recognizer.script:
            raise VoiceUnavailable("the script is over", code="recognizer_lost")
        return self.recognizer.script.pop(0)

    def abandon(self) -> None:
        self.abandoned = True


class ScriptedRecognizer:
    """Hears what the script says, turn by turn; then it fails."""

    def __init__(self, *script: Heard) -> None:
        self.script = list(script)
        self.hearings: list[ScriptedHearing] = []
        self.may_finish = asyncio.Event()
        self.may_finish.set()

    def listen(self, context: str, languages: Sequence[str] = ()) -> ScriptedHearing:
        hearing = ScriptedHearing(self, context)
        self.hearings.append(hearing)
        return hearing


class ToneSynthesizer:
    """20 ms of tone per character, int16 at 24 kHz.

    `may_go_on` unset holds it after the first chunk. `fails`: it cannot speak at all.
    """

    def __init__(self) -> None:
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        self.fails = False
        self.started = 0
        self.stopped_early = 0

    async def speak(self, text: str, *, voice: str, speed: float) -> AsyncGenerator[bytes, None]:
        if self.fails:
            raise VoiceUnavailable("no voice", code="synthesizer_lost")
        self.started += 1
        left_ms = int(len(text) * MS_PER_CHAR / speed)
        done = False
        try:
            while left_ms > 0:
                yield speech(min(left_ms, CHUNK_MS), 24_000)
                left_ms -= CHUNK_MS
                await self.may_go_on.wait()
            done = True
        finally:
            self.stopped_early += not done


class EchoResponder:
    """Says what it was told. `message` makes the next turn one; `call NAME` makes a tool call."""

    def __init__(self) -> None:
        self.context = "menu"
        self.opened = False
        self.keeps_audio = False
        self.offered: frozenset[str] = frozenset()
        self.log: list[str] = []

    def offer_tools(self, names: Collection[str]) -> None:
        self.offered = frozenset(names)

    def open(self) -> Reply:
        self.log.append("open")
        return Reply(text="Welcome.")

    def repeat(self) -> Reply:
        self.log.append("repeat")
        return Reply(text="As I said.")

    def hear(self, heard: Heard) -> Reply:
        self.log.append(f"hear {heard.transcript}")
        if not heard.transcript:
            return Reply()
        self.keeps_audio = heard.transcript == "message"
        return self._answer(heard.transcript)

    def read(self, text: str) -> Reply:
        self.log.append(f"read {text}")
        return self._answer(text)

    def is_message(self, text: str) -> bool:
        return not text.startswith("[keypad]")

    def not_kept(self) -> Reply:
        self.log.append("not kept")
        self.keeps_audio = False
        return Reply(text="Not kept.")

    def tool_result(self, name: str, output: str) -> Reply:
        self.log.append(f"result {name} {output}")
        return Reply(text=f"{name} said {output}.")

    def _answer(self, words: str) -> Reply:
        verb, _, name = words.partition(" ")
        if verb == "call":
            return Reply(text="One moment.", tools=(ToolUse(name=name, arguments={"now": True}),))
        if verb == "quietly":
            return Reply(tools=(ToolUse(name=name, arguments={}),))
        return Reply(text=f"You said {words}.")
