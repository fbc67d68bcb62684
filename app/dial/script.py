"""The simulated caller's script: its steps as data, and the caller who follows them.

Pure. `ScriptRun` decides every 20 ms what the caller does; `ScriptedCaller` carries that out on a
`Leg`. `script_file` reads scripts from disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from app.dial.leg import Leg
from app.dial.report import CallPrinter
from app.dial.utterances import Span

__all__ = [
    "Action",
    "AwaitHangUp",
    "AwaitReturn",
    "BargeIn",
    "HangUp",
    "HungUp",
    "Listen",
    "Note",
    "Press",
    "PressKeys",
    "Say",
    "ScriptRun",
    "ScriptedCaller",
    "Situation",
    "Speak",
    "Step",
    "Wait",
    "turns_script",
]


# An agent that has been silent this long is not speaking: nobody could be interrupted.
_PAUSE_MS: Final = 150
# The pause that ends a stretch of agent sound (`listening`): only then is its length known.
_STRETCH_OVER_MS: Final = 800
# A line of the transcript comes so long after what it tells of, or sooner.
_LINE_LATE_MS: Final = 500
# The agent's words come later where it was interrupted: the server waits for words of the caller.
_WORDS_LATE_MS: Final = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    """Wait until the agent has spoken and then been silent for `quiet_ms`."""

    quiet_ms: int = 1_200
    at_most_ms: int = 30_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Say:
    """Speak a WAV file; `text` is what is said in it."""

    file: str
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BargeIn:
    """Wait until the agent has spoken for `after_ms` without a longer pause, then speak."""

    file: str
    text: str = ""
    after_ms: int = 1_500
    at_most_ms: int = 30_000


@dataclass(frozen=True, slots=True)
class Press:
    """Press keys, `gap_ms` apart."""

    digits: str
    gap_ms: int = 200


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing for a while."""

    ms: int


@dataclass(frozen=True, slots=True)
class AwaitHangUp:
    """Wait for the agent to end the call; hang up when it does not."""

    at_most_ms: int = 15_000


@dataclass(frozen=True, slots=True)
class AwaitReturn:
    """Wait until a transfer has failed and the call has a media stream again."""

    at_most_ms: int = 60_000


@dataclass(frozen=True, slots=True)
class HangUp:
    """End the call."""


Step = Listen | Say | BargeIn | Press | Wait | AwaitHangUp | AwaitReturn | HangUp


@dataclass(frozen=True, slots=True)
class Speak:
    """Begin to speak this file."""

    file: str
    text: str


@dataclass(frozen=True, slots=True)
class PressKeys:
    """Press these keys now."""

    digits: str


@dataclass(frozen=True, slots=True)
class Note:
    """Report that the call did not go as the script expects."""

    text: str


@dataclass(frozen=True, slots=True)
class HungUp:
    """End the call now."""


Action = Speak | PressKeys | Note | HungUp


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """The state of the call that the caller can notice at `now_ms`.

    `agent_since_ms` is when the agent's latest stretch of sound began and `agent_until_ms` when it
    was last heard; None before the first sound. `streams` counts the call's media streams so far.
    """

    now_ms: int
    speaking: bool
    streams: int = 1
    agent_since_ms: int | None = None
    agent_until_ms: int | None = None


class ScriptRun:
    """A caller who follows a script."""

    def __init__(self, steps: tuple[Step, ...]) -> None:
        self._steps = steps
        self._index = 0
        self._entered_ms: int | None = None
        self._entered_on = 0
        self._acted = False
        self._keys_left = ""

    @property
    def finished(self) -> bool:
        return self._index >= len(self._steps)

    @property
    def utterances_left(self) -> int:
        """Utterances that were never begun."""
        left = self._steps[self._index :]
        begun = self._acted and self._entered_ms is not None
        return sum(isinstance(step, Say | BargeIn) for step in left[1 if begun else 0 :])

    def on_tick(self, situation: Situation) -> list[Action]:
        """Return what to do now, usually nothing. The caller hangs up after the last step."""
        actions: list[Action] = []
        while not self.finished:
            if self._entered_ms is None:
                self._enter(situation)
            done, step_actions = self._step(self._steps[self._index], situation)
            actions += step_actions
            if not done:
                break
            self._index += 1
            self._entered_ms = None
            if self.finished and not any(isinstance(action, HungUp) for action in actions):
                actions.append(HungUp())
            if any(isinstance(action, Speak) for action in step_actions):
                break
        return actions

    def _enter(self, at: Situation) -> None:
        self._entered_ms, self._entered_on = at.now_ms, at.streams
        self._acted = False
        step = self._steps[self._index]
        self._keys_left = step.digits if isinstance(step, Press) else ""

    def _step(self, step: Step, at: Situation) -> tuple[bool, list[Action]]:
        waited_ms = at.now_ms - (self._entered_ms or 0)
        match step:
            case Listen():
                return self._listen(step, at, waited_ms)
            case Say():
                return self._speak(step.file, step.text, at)
            case BargeIn():
                if self._acted or _spoken_for_ms(at, self._entered_ms or 0) >= step.after_ms:
                    return self._speak(step.file, step.text, at)
                if waited_ms < step.at_most_ms:
                    return False, []
                text = f"the agent never spoke for {step.after_ms} ms: no chance to barge in"
                return True, [Note(text)]
            case Press():
                return self._press(step, waited_ms)
            case Wait():
                return waited_ms >= step.ms, []
            case AwaitHangUp():
                if waited_ms < step.at_most_ms:
                    return False, []
                return True, [HungUp()]
            case AwaitReturn():
                if at.streams > self._entered_on or waited_ms < step.at_most_ms:
                    return at.streams > self._entered_on, []
                return True, [Note(f"nobody was transferred within {step.at_most_ms} ms")]
            case HangUp():
                return True, [HungUp()]

    def _listen(self, step: Listen, at: Situation, waited_ms: int) -> tuple[bool, list[Action]]:
        """Wait for agent sound and a pause. Sound from before the step must last into it."""
        until_ms = at.agent_until_ms
        heard = until_ms is not None and until_ms > (self._entered_ms or 0)
        if heard and until_ms is not None and at.now_ms - until_ms >= step.quiet_ms:
            return True, []
        if waited_ms < step.at_most_ms:
            return False, []
        if not heard:
            return True, [Note(f"the agent said nothing for {step.at_most_ms} ms")]
        return True, [Note(f"the agent was still speaking after {step.at_most_ms} ms")]

    def _speak(self, file: str, text: str, at: Situation) -> tuple[bool, list[Action]]:
        if not self._acted:
            self._acted = True
            return False, [Speak(file, text)]
        return not at.speaking, []

    def _press(self, step: Press, waited_ms: int) -> tuple[bool, list[Action]]:
        pressed = len(step.digits) - len(self._keys_left)
        if waited_ms < pressed * step.gap_ms:
            return False, []
        key, self._keys_left = self._keys_left[:1], self._keys_left[1:]
        return not self._keys_left, [PressKeys(key)]


def _spoken_for_ms(at: Situation, since_ms: int) -> int:
    """Time for which the agent has been speaking, counted from `since_ms`; 0 when it is silent."""
    if at.agent_since_ms is None or at.agent_until_ms is None:
        return 0
    if at.now_ms - at.agent_until_ms > _PAUSE_MS:
        return 0
    return at.agent_until_ms - max(at.agent_since_ms, since_ms)


def turns_script(files: tuple[str, ...]) -> tuple[Step, ...]:
    """The script of `--wav`: listen, speak each file and hear its answer, hang up."""
    turns: list[Step] = [Listen()]
    for file in files:
        turns += [Say(file=file), Listen()]
    return (*turns, HangUp())


class ScriptedCaller:
    """Follows one script over all streams of a call, and hangs up at a time limit."""

    def __init__(self, run: ScriptRun, speech: Mapping[str, bytes], printer: CallPrinter) -> None:
        self.problems: list[str] = []
        self.has_transcript = False
        self._run = run
        self._speech = speech
        self._printer = printer
        self._answered_ms = 0
        self._hang_up_at_ms = 0
        self._printed_until_ms = 0
        self._leg: Leg | None = None
        self._streams = 0

    @property
    def utterances_left(self) -> int:
        """The number of the script's utterances that were never begun."""
        return self._run.utterances_left

    def answered(self, now_ms: int, *, at_most_ms: int) -> None:
        """Start the call's clock."""
        self._answered_ms = self._printed_until_ms = now_ms
        self._hang_up_at_ms = now_ms + at_most_ms

    def on_frame(self, leg: Leg, now_ms: int) -> None:
        """Carry out the script's actions that are due."""
        if leg is not self._leg:
            self._leg = leg
            self._streams += 1
        if now_ms >= self._hang_up_at_ms:
            at_most_s = (self._hang_up_at_ms - self._answered_ms) // 1000
            self.problems.append(f"the call was still going on after {at_most_s} s")
            leg.hang_up()
            return
        stretch = leg.stream.detector.latest_stretch
        self.print_agent_sound(leg, now_ms - _STRETCH_OVER_MS)
        self._release_lines(stretch, now_ms)
        situation = Situation(
            now_ms=now_ms,
            speaking=leg.stream.player.speaking,
            streams=self._streams,
            agent_since_ms=stretch.start_ms if stretch else None,
            agent_until_ms=stretch.end_ms if stretch else None,
        )
        for action in self._run.on_tick(situation):
            match action:
                case Speak(file, text):
                    self._printer.caller(now_ms - self._answered_ms, text or f"({file})")
                    leg.stream.player.say(self._speech[file], text)
                case PressKeys(digits):
                    self._printer.event(now_ms - self._answered_ms, f"caller presses {digits}")
                    leg.press(digits)
                case Note(text):
                    self.problems.append(text)
                    self._printer.event(now_ms - self._answered_ms, text)
                case HungUp():
                    self._printer.event(now_ms - self._answered_ms, "caller hangs up")
                    leg.hang_up()

    def _release_lines(self, stretch: Span | None, now_ms: int) -> None:
        """Let lines be printed, but those behind words of the agent that are still to come."""
        until_ms = now_ms - _LINE_LATE_MS - self._answered_ms
        if stretch is not None and now_ms - stretch.end_ms < _WORDS_LATE_MS:
            began_ms = stretch.start_ms - _LINE_LATE_MS - self._answered_ms
            if self._printer.agent_told_ms < began_ms:
                until_ms = min(until_ms, began_ms)
        self._printer.release(until_ms)

    def print_agent_sound(self, leg: Leg, until_ms: int) -> None:
        """Print the agent sound that ended before `until_ms`, unless there is a transcript."""
        for stretch in leg.stream.detector.stretches:
            if self._printed_until_ms < stretch.end_ms <= until_ms:
                self._printed_until_ms = stretch.end_ms
                if not self.has_transcript:
                    at_ms = stretch.start_ms - self._answered_ms
                    self._printer.agent_sound(at_ms, stretch.duration_ms)
