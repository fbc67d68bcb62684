"""A caller who follows a script on a live leg, and tells what happens.

Between the pure `ScriptRun` and the socket's `Leg`: looks at the line every 20 ms, speaks, presses
keys and hangs up as the script says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from app.dial.leg import Leg
from app.dial.narrator import Narrator
from app.dial.script import HungUp, Note, PressKeys, ScriptRun, Situation, Speak

__all__ = ["ScriptedCaller"]

# The pause that ends a stretch of agent sound (`ear`): only then is its length known.
_STRETCH_OVER_MS: Final = 800


class ScriptedCaller:
    """Follows one script over all streams of a call. `hang_up_at_ms` ends it in any case."""

    def __init__(self, run: ScriptRun, speech: Mapping[str, bytes], narrator: Narrator) -> None:
        self.complaints: list[str] = []
        self.has_transcript = False
        self._run = run
        self._speech = speech
        self._narrator = narrator
        self._answered_ms = 0
        self._hang_up_at_ms = 0
        self._told_until_ms = 0
        self._leg: Leg | None = None
        self._streams = 0

    @property
    def unsaid(self) -> int:
        """How many utterances of the script were never begun."""
        return self._run.unsaid

    def answered(self, now_ms: int, *, at_most_ms: int) -> None:
        """The call's time begins here."""
        self._answered_ms = self._told_until_ms = now_ms
        self._hang_up_at_ms = now_ms + at_most_ms

    def on_frame(self, leg: Leg, now_ms: int) -> None:
        """Do what the script wants done now."""
        if leg is not self._leg:
            self._leg = leg
            self._streams += 1
        if now_ms >= self._hang_up_at_ms:
            at_most_s = (self._hang_up_at_ms - self._answered_ms) // 1000
            self.complaints.append(f"the call was still going on after {at_most_s} s")
            leg.hang_up()
            return
        stretch = leg.line.ear.latest_stretch
        self.tell_sound(leg, now_ms - _STRETCH_OVER_MS)
        situation = Situation(
            now_ms=now_ms,
            speaking=leg.line.mouth.speaking,
            streams=self._streams,
            agent_since_ms=stretch.start_ms if stretch else None,
            agent_until_ms=stretch.end_ms if stretch else None,
        )
        for action in self._run.on_tick(situation):
            match action:
                case Speak(file, text):
                    self._narrator.caller(now_ms - self._answered_ms, text or f"({file})")
                    leg.line.mouth.say(self._speech[file], text)
                case PressKeys(digits):
                    self._narrator.event(now_ms - self._answered_ms, f"caller presses {digits}")
                    leg.press(digits)
                case Note(text):
                    self.complaints.append(text)
                    self._narrator.event(now_ms - self._answered_ms, text)
                case HungUp():
                    self._narrator.event(now_ms - self._answered_ms, "caller hangs up")
                    leg.hang_up()

    def tell_sound(self, leg: Leg, until_ms: int) -> None:
        """For a server without transcript: agent sound that was over before `until_ms`."""
        for stretch in leg.line.ear.stretches:
            if self._told_until_ms < stretch.end_ms <= until_ms:
                self._told_until_ms = stretch.end_ms
                if not self.has_transcript:
                    at_ms = stretch.start_ms - self._answered_ms
                    self._narrator.agent_sound(at_ms, stretch.duration_ms)
