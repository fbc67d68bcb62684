"""Those that answer placed calls: people, mailboxes, a phone that screens calls, a menu, a fax.

Each is a script of sentences, pauses and tones, which is spoken into a `FakeCall` by a voice that
no engine here uses, as a telephone line carries it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from app.engine.speech.voices import Voice
from tests.bench.answering_clips import line_tone, spoken_line
from tests.fakes.carrier import FakeCall
from tests.fakes.waiting import until

__all__ = ["CALLEES", "OVER", "REPLY", "Callee", "play"]

REPLY: Final = "@reply"
"""Listens until the agent has spoken, and is silent."""
OVER: Final = "@over"
"""Listens until the agent has spoken for a while."""
OVER_MS: Final = 1_300
QUIET_MS: Final = 900
_VOICES: Final = (Voice("en-gb+f1", 55, ""), Voice("en-gb+m1", 40, ""), Voice("en-us+f1", 55, ""))

Step = str | int
"""A sentence; a pause in ms; `beep HZ MS`; or one of the words above."""


@dataclass(frozen=True, slots=True)
class Callee:
    """One that answers, and what the carrier's detector says of them."""

    name: str
    steps: tuple[Step, ...]
    detected: str = ""

    @property
    def turns(self) -> tuple[str | None, ...]:
        """The words of each turn; None for a tone, which a detector of speech may take for one."""
        said = [step for step in self.steps if isinstance(step, str) and not step.startswith("@")]
        return tuple(None if step.startswith("beep ") else step for step in said)

    def sound(self, step: str) -> bytes:
        """A sentence or a tone, mono mu-law at 8 kHz; made once."""
        if step.startswith("beep "):
            return line_tone(*map(int, step.split()[1:]))
        return spoken_line(step, _VOICES[sum(map(ord, self.name)) % len(_VOICES)])


_MAILBOX: Final = "Hello, you have reached Anna Miller, please leave a message after the tone."
CALLEES: Final = (
    Callee("a person", (300, "Hello?", REPLY, "Yes, that is right.", REPLY, "Goodbye."), "human"),
    Callee("a mailbox with a beep", (300, _MAILBOX, 900, "beep 1000 400"), "machine_start"),
    Callee("a mailbox without a beep", (300, _MAILBOX), "machine_start"),
    Callee(
        "a phone that screens calls",
        (
            *(300, "Hi, please say your name and why you are calling.", REPLY),
            *(1_500, "Hello?", REPLY, "Goodbye."),
        ),
        "unknown",
    ),
    Callee(
        "a menu",
        (300, "Thank you for calling, for opening hours press one, for all else press two."),
        "human",
    ),
)
"""Those of the demo."""


async def play(
    call: FakeCall, callee: Callee, said: Callable[[str], None] = lambda _: None
) -> None:
    """Speak a script, to its end or that of the call; `said` hears each step that makes a sound."""
    for step in callee.steps:
        if call.over:
            return
        if isinstance(step, int):
            await _speak(call, b"\xff" * 8 * step)
        elif step == REPLY:
            await _listen(call, ms=20)
            await until(lambda: call.over or _quiet_ms(call) >= QUIET_MS)
        elif step == OVER:
            await _listen(call, ms=OVER_MS)
        else:
            said(step)
            await _speak(call, callee.sound(step))


async def _listen(call: FakeCall, *, ms: int) -> None:
    goal_ms = call.heard_ms + ms
    await until(lambda: call.over or call.heard_ms >= goal_ms)


def _quiet_ms(call: FakeCall) -> int:
    return call.now_ms - (call.stream.detector.last_audible_ms or 0)


async def _speak(call: FakeCall, sound: bytes) -> None:
    call.say(sound)
    await until(lambda: call.over or not call.stream.player.speaking)
