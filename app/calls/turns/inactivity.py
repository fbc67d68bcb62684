"""Silent callers, and callers who are none: inactivity prompts and unproductive turns.

`InactivityPrompts` asks whether the caller is still there: one clock, which runs only while nobody
has the floor, all that was said has been heard, and the caller does not wait for us.
`Productivity` ends calls that talk with hold music or a machine. Pure: what they decide is said and
ended by the conversation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from app.calls.actions import ClosingPrompt
from app.calls.policy import InactivityTexts, ProductivityRules
from app.calls.turns.meaningful_words import meaningful_words
from app.calls.turns.turn_table import Turn
from app.events import EndReason

__all__ = ["ENDLESS_TURN", "InactivityPrompts", "Productivity", "Prompt"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """Something to say while the call goes on."""

    text: str


class InactivityPrompts:
    """Asks into a silence, and ends the call after the last question.

    A sound of the caller sets the clock back; only words make the questions begin anew, so that a
    noisy line without a caller ends too.
    """

    def __init__(self, texts: InactivityTexts, *, after_ms: int = 10_000) -> None:
        """`after_ms`: silence before each question and before the end; 0 never asks."""
        self._texts = texts
        self._after_ms = after_ms
        self._asked = 0
        self._since_ms: int | None = None
        self._done = False

    def on_state(self, turn: Turn, now_ms: int, *, drained: bool, paused: bool) -> None:
        """Say how things stand, at every event and tick.

        `drained`: the caller has heard all that was said. `paused`: a tool runs, a response is on
        its way, digits are awaited, the call is on hold: the caller waits for us.
        """
        if turn is not Turn.IDLE or not drained or paused:
            self._since_ms = None
        elif self._since_ms is None:
            self._since_ms = now_ms

    def on_caller_words(self, transcript: str, now_ms: int) -> None:
        """The caller's turn has a transcript, maybe one without words."""
        if self._since_ms is not None:
            self._since_ms = now_ms
        self._done = False  # a noise too can have cut the closing prompt off
        if meaningful_words(transcript):
            self._asked = 0

    def on_key(self, now_ms: int) -> None:
        """A key is an answer too."""
        if self._since_ms is not None:
            self._since_ms = now_ms
        self._asked = 0
        self._done = False

    def on_tick(self, now_ms: int) -> Prompt | ClosingPrompt | None:
        """Return what to say into the silence now, if anything."""
        quiet = self._since_ms is not None and now_ms - self._since_ms >= self._after_ms
        if not quiet or self._done or not self._after_ms:
            return None
        self._since_ms = None  # until the question is heard; the next `on_state` knows
        if self._asked == len(self._texts.prompts):
            self._done = True
            return ClosingPrompt(EndReason.SILENCE, self._texts.closing_prompt)
        self._asked += 1
        return Prompt(self._texts.prompts[self._asked - 1])


# Unproductive turns -------------------------------------------------------------------------------


ENDLESS_TURN: Final = "endless_turn"


class Productivity:
    """Counts turns in a row in which no caller said anything: hold music, announcements, noise."""

    def __init__(self, rules: ProductivityRules) -> None:
        self._rules = rules
        self.unproductive_turns = 0
        self._wordless_since_ms = 0
        self._sound_since_ms: int | None = None
        self._said: list[tuple[str, ...]] = []

    def on_caller_turn(self, transcript: str, now_ms: int) -> None:
        """A caller's turn was transcribed; empty when nothing was made out."""
        words = tuple(meaningful_words(transcript))
        least = self._rules.repeated_from_words
        repeated = bool(least) and len(words) >= least and words in self._said
        if words and not repeated:
            self._said.append(words)
            del self._said[:-20]
            self.on_caller_acted()
            return
        if not self.unproductive_turns:
            # Not from the last words on: the agent may have talked for long, and been listened to.
            self._wordless_since_ms = now_ms
        self.unproductive_turns += 1

    def on_caller_acted(self) -> None:
        """The caller did something else that a machine does not: pressed a key, came back."""
        self.unproductive_turns = 0
        self._sound_since_ms = None

    def on_floor(self, now_ms: int, *, taken: bool) -> None:
        """Say at every event and tick whether a sound of the caller's side goes on."""
        if not taken:
            self._sound_since_ms = None
        elif self._sound_since_ms is None:
            self._sound_since_ms = now_ms

    def exhausted(self, now_ms: int) -> str:
        """The reason to end the call, or nothing. Ask when no tool runs and nobody is on hold."""
        rules = self._rules
        if rules.max_turns and self.unproductive_turns >= rules.max_turns:
            return "unproductive_turns"
        # Silence alone is the business of `InactivityPrompts`: without turns, nobody is talking.
        wordless_ms = now_ms - self._wordless_since_ms
        if (
            rules.max_wordless_ms
            and self.unproductive_turns
            and wordless_ms >= rules.max_wordless_ms
        ):
            return "no_caller_words"
        # Music that pauses for nobody is one turn without an end: it never gets a transcript.
        since_ms = self._sound_since_ms
        if rules.max_wordless_ms and since_ms is not None:
            return ENDLESS_TURN if now_ms - since_ms >= rules.max_wordless_ms else ""
        return ""
