"""The first words of a call: the notice that has to be heard, the greeting and the menu. Pure.

Those of a call that was placed depend on who has answered (`outbound/answering.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, assert_never

from app.agents.dialogue.actions import Record
from app.agents.dialogue.dialogue import Dialogue
from app.calls.actions import End, Intent
from app.calls.conversation.do_not_call import OPTED_OUT
from app.calls.keypad.keypad import Keypad
from app.calls.outbound.answering import Greet, Open, Say, Tell
from app.calls.recording.notice import RecordingNotice
from app.events import AnswerJudged, CallId, DisclosureHeard, EndReason, Party
from app.realtime.events import Response

__all__ = ["FirstWords"]


LONGEST_GREETING_CHARS: Final = 500
"""Of a notice and a greeting that are said together; no engine is told more at a time."""


class FirstWords:
    """The notice and the greeting of one call, and the record that the notice was heard."""

    def __init__(
        self, call_id: CallId, dialogue: Dialogue, notice: RecordingNotice, keypad: Keypad
    ) -> None:
        self._call_id = call_id
        self._dialogue = dialogue
        self._notice = notice
        self._keypad = keypad
        self._noted = notice.permits  # there is none, and nothing to record

    def greet(self, now_ms: int) -> Sequence[Intent]:
        """Have the notice and the greeting said, and open the menu; or ask for a first response."""
        active = self._dialogue.active
        notice = self._notice.ask() if self._notice.pending else ""
        caller_first = active.agent.speaks_first is Party.CALLER
        greeting = "" if caller_first else active.greeting or ""
        before: list[Intent] = []
        if notice and greeting and len(notice) + len(greeting) < LONGEST_GREETING_CHARS:
            greeting = f"{notice} {greeting}"  # in one breath
        elif notice:
            before += self._dialogue.say_before(notice, now_ms)
        if caller_first:
            return before
        menu = self._keypad.open_menu(now_ms, greeting)
        if menu is not None:
            return [*before, *menu]
        if greeting:
            return [*before, *self._dialogue.say(greeting, now_ms)]
        return [*before, *self._dialogue.responses.ask(now_ms)]

    def say_notice(self, now_ms: int) -> Sequence[Intent]:
        """Have the notice said, if it was not heard yet; the call ends where that is of no use."""
        if not self._notice.pending:
            return []
        notice = self._notice.ask()
        if notice:
            return self._dialogue.say_before(notice, now_ms)
        return [End(EndReason.AGENT_HUNG_UP, "disclosure_not_heard")] if self._notice.exact else []

    def on_answered(
        self, step: Open | Say | Greet | Tell | AnswerJudged | End, now_ms: int, *, opted_out: bool
    ) -> Sequence[Intent]:
        """Take a step of a call that was placed: what is said first depends on who has answered.

        `opted_out`: whoever it is has asked for no more calls already.
        """
        match step:
            case AnswerJudged():
                return [Record(step)]
            case End():
                return [step]
            case Open(text):
                return self.say_notice(now_ms) or self._dialogue.say(text, now_ms)
            case Say(note, text):
                notice = self.say_notice(now_ms)
                return [
                    *self._dialogue.tell(note),
                    *notice,
                    *self._dialogue.say(text, now_ms),
                ]
            case Greet(note) if not opted_out:
                return [
                    *self._let_answer(),
                    *self._dialogue.tell(note),
                    *self.greet(now_ms),
                ]
            case Greet(note) | Tell(note):
                text = f"{note} {OPTED_OUT}" if isinstance(step, Greet) else note
                notice = self.say_notice(now_ms)
                return [*self._let_answer(), *notice, *self._dialogue.prompt(text, now_ms)]
            case _:
                assert_never(step)

    def _let_answer(self) -> Sequence[Intent]:
        update = self._dialogue.active.let_answer()
        return [] if update is None else [update]

    def on_generated(self, response: Response) -> None:
        """A response was completed: if it is the notice, compare what the model says it spoke."""
        self._notice.on_generated(response.id, self._spoken(response))

    def _spoken(self, response: Response) -> str:
        if not self._notice.is_said_by(response.id):
            return ""
        items = self._notice.item_ids
        written = [part for item in response.output if item.id in items for part in item.content]
        inside = " ".join(part.transcript or part.text or "" for part in written)
        history = self._dialogue.history
        entries = [history.get(item_id) for item_id in sorted(items)]
        return inside.strip() or " ".join(entry.text for entry in entries if entry is not None)

    def prove(self, now_ms: int) -> Sequence[Record]:
        """Record, once, that the notice was heard."""
        notice = self._notice
        if self._noted or not notice.permits:
            return []
        self._noted = True
        heard = DisclosureHeard(
            call_id=self._call_id,
            at_ms=now_ms,
            text=notice.text,
            spoken=notice.spoken,
            by_mark=notice.by_mark,
            tries=notice.tries,
        )
        return [Record(heard)]
