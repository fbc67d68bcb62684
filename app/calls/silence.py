"""Quiet lines, useless turns, and noises that were no interruption.

Three small machines beside the turn table. `StillThere` asks whether the caller is still there: one
clock, which runs only while nobody has the floor, all that was said has been heard, and nothing of
ours keeps the caller waiting. `Productivity` ends calls that talk with hold music or a machine.
`FalseInterruption` finds out whether what cut the agent off was a caller or a cough. Pure: `now_ms`
is an argument; what they decide is said, resumed or ended by the conversation.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import StrEnum
from typing import Final

from app.calls.turns import Turn

__all__ = [
    "ENDLESS_TURN",
    "FalseInterruption",
    "Goodbye",
    "Interrupted",
    "Productivity",
    "ProductivityRules",
    "Prompt",
    "StillThere",
    "StillThereTexts",
    "is_echo",
    "meaningful_words",
]


# Words --------------------------------------------------------------------------------------------

# What transcription models write for breath, hums and agreement in passing. Yes, no and okay are
# not here: they answer questions. These are English; elsewhere some of it are words ("er", "um"),
# which cost a caller who says nothing else a resumed sentence.
_HUM: Final = re.compile(r"[mh]+|h?u[hmu]*[hm]|a+h+|aha|ahem|eh|erm?|o+h")
# "[music]", "(background noise)", "*coughs*", and the notes of subtitles: no words of a caller.
_REMARK: Final = re.compile(r"\[[^\]]{0,80}\]|\([^)]{0,80}\)|\*[^*]{0,80}\*|[\u2669-\u266f]")
_WORD: Final = re.compile(r"\w+")


def meaningful_words(transcript: str) -> list[str]:
    """The words of a transcript without hums and remarks, in small letters."""
    plain = _REMARK.sub(" ", transcript.lower()).replace("'", "").replace("-", "")
    return [word for word in _WORD.findall(plain) if not _HUM.fullmatch(word)]


_ECHO_WORDS: Final = 3
"""Of fewer words nobody can tell an echo from an answer that repeats a time or a name."""
_ECHO_SHARE: Final = 0.8


def is_echo(heard: str, said: str) -> bool:
    """Whether what was heard of the caller is what the agent has just said, more or less.

    `said` is the agent's last speech. What comes back through a room is written down with mistakes,
    so that most of the words in their order are enough.
    """
    words, spoken = meaningful_words(heard), meaningful_words(said)
    if len(words) < _ECHO_WORDS:
        return False
    same = SequenceMatcher(None, words, spoken, autojunk=False).get_matching_blocks()
    return sum(block.size for block in same) >= _ECHO_SHARE * len(words)


# Are you still there ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class StillThereTexts:
    """What is asked, one text after another, and what is said before hanging up."""

    prompts: tuple[str, ...] = ("Are you still there?", "I cannot hear you. Are you still there?")
    goodbye: str = "I cannot hear anybody, so I will hang up now. Goodbye."


@dataclass(frozen=True, slots=True)
class Prompt:
    """Ask whether the caller is there; the `number`th time, counted from 1."""

    text: str
    number: int


@dataclass(frozen=True, slots=True)
class Goodbye:
    """Nobody answered: say goodbye and hang up."""

    text: str


class StillThere:
    """Asks into a silence, and gives up after the last question.

    A sound of the caller sets the clock back; only words make the questions begin anew, so that a
    noisy empty line ends too.
    """

    def __init__(self, texts: StillThereTexts, *, after_ms: int = 10_000) -> None:
        """`after_ms`: silence before each question and before the goodbye; 0 never asks."""
        self._texts = texts
        self._after_ms = after_ms
        self._asked = 0
        self._since_ms: int | None = None
        self._done = False

    def on_state(self, turn: Turn, now_ms: int, *, drained: bool, paused: bool) -> None:
        """Say how things stand, at every event and tick.

        `drained`: the caller has heard all that was said. `paused`: a tool runs, a response is on
        its way, digits are awaited, the call is on hold: the silence is ours.
        """
        if turn is not Turn.IDLE or not drained or paused:
            self._since_ms = None
        elif self._since_ms is None:
            self._since_ms = now_ms

    def on_caller_words(self, transcript: str, now_ms: int) -> None:
        """The caller's turn has a transcript, maybe one without words."""
        if self._since_ms is not None:
            self._since_ms = now_ms
        self._done = False  # a noise too can have cut the goodbye off
        if meaningful_words(transcript):
            self._asked = 0

    def on_key(self, now_ms: int) -> None:
        """A key is an answer too."""
        if self._since_ms is not None:
            self._since_ms = now_ms
        self._asked = 0
        self._done = False

    def on_tick(self, now_ms: int) -> Prompt | Goodbye | None:
        """What to say into the silence now, if anything."""
        quiet = self._since_ms is not None and now_ms - self._since_ms >= self._after_ms
        if not quiet or self._done or not self._after_ms:
            return None
        self._since_ms = None  # until the question is heard; the next `on_state` knows
        if self._asked == len(self._texts.prompts):
            self._done = True
            return Goodbye(self._texts.goodbye)
        self._asked += 1
        return Prompt(self._texts.prompts[self._asked - 1], self._asked)


# Useless turns ------------------------------------------------------------------------------------


ENDLESS_TURN: Final = "endless_turn"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductivityRules:
    """How much talk without a caller is enough. 0 turns a rule off."""

    max_turns: int = 6
    max_wordless_ms: int = 180_000
    repeated_from_words: int = 4
    """A turn of so many words that was said before is an announcement, not a caller."""


class Productivity:
    """Counts turns in a row in which no caller said anything: hold music, announcements, noise."""

    def __init__(self, rules: ProductivityRules) -> None:
        self._rules = rules
        self._unproductive = 0
        self._wordless_since_ms = 0
        self._sound_since_ms: int | None = None
        self._said: deque[tuple[str, ...]] = deque(maxlen=20)

    @property
    def unproductive_turns(self) -> int:
        return self._unproductive

    def on_caller_turn(self, transcript: str, now_ms: int) -> None:
        """A caller's turn was transcribed; empty when nothing was made out."""
        words = tuple(meaningful_words(transcript))
        least = self._rules.repeated_from_words
        repeated = bool(least) and len(words) >= least and words in self._said
        if words and not repeated:
            self._said.append(words)
            self.on_caller_acted()
            return
        if not self._unproductive:
            # Not from the last words on: the agent may have talked for long, and been listened to.
            self._wordless_since_ms = now_ms
        self._unproductive += 1

    def on_caller_acted(self) -> None:
        """The caller did something else that a machine does not: pressed a key, came back."""
        self._unproductive = 0
        self._sound_since_ms = None

    def on_floor(self, now_ms: int, *, taken: bool) -> None:
        """Whether a sound of the caller's side goes on; say so at every event and tick."""
        if not taken:
            self._sound_since_ms = None
        elif self._sound_since_ms is None:
            self._sound_since_ms = now_ms

    def exhausted(self, now_ms: int) -> str:
        """Why the call should end, or nothing. Ask when no tool runs and nobody is on hold."""
        rules = self._rules
        if rules.max_turns and self._unproductive >= rules.max_turns:
            return "unproductive_turns"
        # Silence alone is the business of `StillThere`: without turns, nobody is talking.
        wordless_ms = now_ms - self._wordless_since_ms
        if rules.max_wordless_ms and self._unproductive and wordless_ms >= rules.max_wordless_ms:
            return "no_caller_words"
        # Music that pauses for nobody is one turn without an end: it never gets a transcript.
        since_ms = self._sound_since_ms
        if rules.max_wordless_ms and since_ms is not None:
            return ENDLESS_TURN if now_ms - since_ms >= rules.max_wordless_ms else ""
        return ""


# False interruptions ------------------------------------------------------------------------------


class Interrupted(StrEnum):
    """What an interruption turned out to be."""

    REAL = "real"
    FALSE = "false"


class FalseInterruption:
    """Decides whether speech that was cut off is taken up again.

    The agent is silent from the first sound; whether it stays so depends on what follows. Words are
    an interruption. A short sound without words, by the transcript or for as long as
    `false_interruption_ms` after it ended, was none. A sound that lasts as long as that is not
    short, and counts as real whatever it was. Sounds are known by the items that they become, since
    the transcript of an earlier turn may come late.
    """

    def __init__(self, false_interruption_ms: int = 2_000) -> None:
        """0 turns it off: every interruption is real."""
        self._limit_ms = false_interruption_ms
        self._sounds: set[str] = set()
        self._began_ms = 0
        self._ended_ms: int | None = None

    @property
    def open(self) -> bool:
        """Not decided yet: hold back the reply to this sound, and keep what was cut off."""
        return bool(self._sounds)

    def on_interrupted(self, item_id: str, now_ms: int) -> None:
        """The caller's sound has cut the agent off."""
        if self._limit_ms:
            self._sounds = {item_id}
            self._began_ms, self._ended_ms = now_ms, None

    def on_speech_started(self, item_id: str) -> None:
        """Another sound, while the agent is silent: it belongs to the same interruption."""
        if self._sounds:
            self._sounds.add(item_id)
            self._ended_ms = None

    def on_speech_stopped(self, now_ms: int) -> Interrupted | None:
        """The sound has ended; one that was not short is decided."""
        if not self._sounds:
            return None
        if now_ms - self._began_ms >= self._limit_ms:
            return self._decide(Interrupted.REAL)
        self._ended_ms = now_ms
        return None

    def on_transcript(self, item_id: str, transcript: str) -> Interrupted | None:
        """What the caller said; nothing, when it was no speech or the transcription failed."""
        if item_id not in self._sounds:
            return None
        if meaningful_words(transcript):
            return self._decide(Interrupted.REAL)
        if len(self._sounds) > 1:  # the other sounds' transcripts may still bring words
            self._sounds.discard(item_id)
            return None
        return None if self._ended_ms is None else self._decide(Interrupted.FALSE)

    def on_overtaken(self) -> Interrupted | None:
        """Something else was said or pressed meanwhile: what was cut off stays cut off."""
        return self._decide(Interrupted.REAL) if self._sounds else None

    def on_tick(self, now_ms: int) -> Interrupted | None:
        if not self._sounds:
            return None
        if self._ended_ms is None:
            long = now_ms - self._began_ms >= self._limit_ms
            return self._decide(Interrupted.REAL) if long else None
        if now_ms - self._ended_ms >= self._limit_ms:
            return self._decide(Interrupted.FALSE)
        return None

    def _decide(self, outcome: Interrupted) -> Interrupted:
        self._sounds = set()
        return outcome
