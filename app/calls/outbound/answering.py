"""The beginning of a placed call: nothing private is said before it is known who has answered.

Until the verdict the model is not asked for anything and answers nobody. Then each verdict has its
course: a person is greeted; a phone that screens calls gets one sentence, and is listened to; a
mailbox gets a message when it records, and a person who picks up meanwhile is talked with; a menu
is left to the model or hung up on; music is waited out; a fax and silence end the call.

It decides, and asks for `Step`s that the conversation carries out. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from app.calls.actions import End
from app.calls.outbound.answered_by import REVISED_WITHIN_MS, Answer, AnsweredByDetector
from app.calls.policy import AnsweredByRules
from app.events import AnsweredBy, AnswerJudged, CallId, EndReason

__all__ = [
    "CALLING_NOTE",
    "PERSON_NOTE",
    "Answering",
    "Greet",
    "Open",
    "Say",
    "Step",
    "Tell",
    "Withdraw",
]

UNDECIDED_QUIET_MS: Final = 3_000
"""Somebody has spoken, is silent, and may be anybody: the opening is said, and who answers it tells
more."""
LISTEN_AFTER_CUT_MS: Final = 8_000
"""Time for whoever interrupted a message to be found a person."""

CALLING_NOTE: Final = (
    "You have placed this call: you are the one who calls. It is not known yet who, or what, has "
    "answered. Say nothing until you are told who is there."
)
PERSON_NOTE: Final = "You have called, and a person has answered the phone."
SCREENING_NOTE: Final = "A phone has answered that asks who is calling, and why."
MAILBOX_NOTE: Final = "A mailbox has answered. A message is left on it."
SCREENED_NOTE: Final = (
    "The call was screened: a phone asked who is calling and why, and was told. Now a person "
    "speaks. Say who you are and what the call is about."
)
PICKED_UP_NOTE: Final = (
    "A person has picked up while you left a message on their mailbox. Do not go on with the "
    "message: say who you are, and talk with them."
)
MENU_NOTE: Final = (
    "A recorded menu has answered, and no person. Get through to a person by pressing keys with "
    "your tool for that, as the menu says. Speak only when it asks you to. If that does not work, "
    "end the call."
)


@dataclass(frozen=True, slots=True)
class Open:
    """Say what may be said to anybody: the disclosure, else `text`."""

    text: str


@dataclass(frozen=True, slots=True)
class Say:
    """Tell the model who is there, and have it say this, behind the disclosure."""

    note: str
    text: str


@dataclass(frozen=True, slots=True)
class Greet:
    """A person listens: the model is told so, and the call begins as others do."""

    note: str


@dataclass(frozen=True, slots=True)
class Tell:
    """The model may answer from now on: it is told who is there, and asked to speak."""

    text: str


@dataclass(frozen=True, slots=True)
class Withdraw:
    """A supposed person is none: the agent falls silent, and answers nobody."""


Step = Open | Say | Greet | Tell | Withdraw | AnswerJudged | End


class _Phase(Enum):
    WAITING = auto()
    """It is not known who is there, or that does not help yet."""
    OPENING = auto()
    SCREENED = auto()
    """The sentence for the screening phone is on its way."""
    MESSAGE = auto()
    LISTENING = auto()
    """The message was interrupted."""
    TALKING = auto()


class Answering:
    """The course of a call that was placed, until somebody is talked with."""

    def __init__(self, call_id: CallId, rules: AnsweredByRules, *, transcribed: bool) -> None:
        self._call_id = call_id
        self._rules = rules
        self._detector = AnsweredByDetector(
            nobody_after_ms=rules.nobody_after_ms,
            message_silence_ms=rules.message_silence_ms,
            transcribed=transcribed,
        )
        self._phase = _Phase.WAITING
        self._since_ms = 0
        self._opened = self._asked = False
        self._listens = True

    @property
    def verdict(self) -> AnsweredBy:
        return self._detector.verdict

    @property
    def holds(self) -> bool:
        """The model may not speak of its own accord."""
        return self._phase is not _Phase.TALKING

    @property
    def leaves_message(self) -> bool:
        """A message is being left: who speaks over it is listened to."""
        return self._phase is _Phase.MESSAGE

    # Events -------------------------------------------------------------------------------------

    def on_stream(self, now_ms: int) -> None:
        """The call was answered, and its sound flows."""
        self._detector.on_answered(now_ms)
        self._since_ms = now_ms

    def on_audio(self, ulaw: bytes) -> None:
        """A frame of the callee, mu-law at 8 kHz."""
        if self._listens:
            self._detector.on_audio(ulaw)

    def on_words(self, item_id: str, words: str, now_ms: int) -> None:
        """A transcript, or the part of it that is known."""
        self._detector.on_words(item_id, words, now_ms)

    def on_carrier(self, word: str) -> None:
        """The carrier's detector has come to a result."""
        self._detector.on_carrier(word)

    def on_interrupted(self, now_ms: int) -> None:
        """Somebody has spoken over the message, and it has stopped."""
        if self._phase is _Phase.MESSAGE:
            self._enter(_Phase.LISTENING, now_ms)

    # Time ---------------------------------------------------------------------------------------

    def on_tick(self, now_ms: int, *, ready: bool, heard_out: bool) -> Sequence[Step]:
        """Judge, and go on; `heard_out`: all that was asked for was heard.

        `ready`: the model can be asked to speak.
        """
        if not self._listens:
            return []
        answer = self._detector.on_tick(now_ms)
        steps: list[Step] = [] if answer is None else [self._recorded(answer, now_ms)]
        if self._phase is _Phase.TALKING and answer is None:
            self._listens = now_ms - self._since_ms < REVISED_WITHIN_MS
            if not self._listens:
                self._detector.close()
            return steps
        if self.verdict in (AnsweredBy.FAX, AnsweredBy.NOBODY):
            return [*steps, self._end()]
        return [*steps, *self._go_on(answer, now_ms, heard_out=heard_out)] if ready else steps

    def _recorded(self, answer: Answer, now_ms: int) -> AnswerJudged:
        return AnswerJudged(
            call_id=self._call_id,
            at_ms=now_ms,
            verdict=answer.verdict,
            before=answer.before,
            after_ms=answer.after_ms,
            evidence=answer.evidence,
        )

    def _end(self, detail: str = "") -> End:
        nobody = self.verdict is AnsweredBy.NOBODY
        reason = EndReason.SILENCE if nobody else EndReason.AGENT_HUNG_UP
        return End(reason, detail or f"answered_by_{self.verdict}")

    def _enter(self, phase: _Phase, now_ms: int) -> None:
        self._phase = phase
        self._since_ms = now_ms

    def _go_on(self, answer: Answer | None, now_ms: int, *, heard_out: bool) -> Sequence[Step]:
        waited_ms = now_ms - self._since_ms
        match self._phase:
            case _Phase.WAITING:
                return self._wait(now_ms)
            case _Phase.OPENING | _Phase.SCREENED if heard_out and waited_ms:
                self._detector.on_agent_spoke(now_ms)
                self._enter(_Phase.WAITING, now_ms)
            case _Phase.MESSAGE if heard_out and waited_ms:
                return [self._end("message_left")]
            case _Phase.LISTENING:
                return self._listen(now_ms)
            case _Phase.TALKING if answer is not None:
                # The supposed person was none.
                self._enter(_Phase.WAITING, now_ms)
                return [Withdraw(), *self._wait(now_ms)]
            case _:
                pass
        return []

    def _wait(self, now_ms: int) -> Sequence[Step]:
        rules, waited_ms = self._rules, now_ms - self._since_ms
        match self.verdict:
            case AnsweredBy.HUMAN:
                return self._talk(now_ms)
            case AnsweredBy.SCREENING if not self._asked:
                self._asked = True
                self._enter(_Phase.SCREENED, now_ms)
                return [Say(SCREENING_NOTE, rules.screening_text)]
            case AnsweredBy.SCREENING:
                return [self._end()] if waited_ms >= rules.screening_wait_ms else []
            case AnsweredBy.VOICEMAIL:
                return self._on_mailbox(now_ms)
            case AnsweredBy.IVR:
                if not rules.talk_to_menus:
                    return [self._end()]
                self._enter(_Phase.TALKING, now_ms)
                return [Tell(MENU_NOTE)]
            case AnsweredBy.HOLD:
                return [self._end()] if waited_ms >= rules.hold_wait_ms else []
            case _:
                return self._open(now_ms)

    def _talk(self, now_ms: int) -> Sequence[Step]:
        self._enter(_Phase.TALKING, now_ms)
        return [Tell(SCREENED_NOTE)] if self._asked else [Greet(PERSON_NOTE)]

    def _on_mailbox(self, now_ms: int) -> Sequence[Step]:
        if not self._rules.message:
            return [self._end()]
        if self._detector.message_due(now_ms):
            self._enter(_Phase.MESSAGE, now_ms)
            self._detector.on_agent_spoke(now_ms)
            return [Say(MAILBOX_NOTE, self._rules.message)]
        late = now_ms - self._since_ms >= self._rules.message_wait_ms
        return [self._end("mailbox_did_not_record")] if late else []

    def _listen(self, now_ms: int) -> Sequence[Step]:
        if self.verdict is AnsweredBy.HUMAN:
            self._enter(_Phase.TALKING, now_ms)
            return [Tell(PICKED_UP_NOTE)]
        late = now_ms - self._since_ms >= LISTEN_AFTER_CUT_MS
        return [self._end("message_cut")] if late else []

    def _open(self, now_ms: int) -> Sequence[Step]:
        """Nobody knows yet: after a while, say what may be said to anybody."""
        rules = self._rules
        if not self._detector.answered or self._opened:
            return []
        quiet_ms = self._detector.quiet_ms(now_ms)
        if rules.wait_for_callee and quiet_ms < self._quiet_enough_ms:
            return []
        self._opened = True
        self._enter(_Phase.OPENING, now_ms)
        return [Open(rules.opening)]

    @property
    def _quiet_enough_ms(self) -> int:
        return UNDECIDED_QUIET_MS if self._detector.spoke else self._rules.opening_after_ms
