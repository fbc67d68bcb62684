"""A callee who wants no more calls: noted once, by their own words or by the model's. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from app.agents.dialogue.actions import DialogueAction, Record, RunTool
from app.agents.dialogue.dialogue import Dialogue
from app.calls.conversation.call_tools import CallTools
from app.calls.outbound.opt_out import opts_out
from app.errors import ToolFailed
from app.events import CallId, OptedOut

__all__ = ["OPTED_OUT", "DoNotCall"]


OPTED_OUT: Final = (
    "The person has asked not to be called again, and that was written down. Confirm in one "
    "sentence that they will get no more calls, say goodbye, and end the call. Do not try to "
    "persuade them."
)


class DoNotCall:
    """The wish of the other party of one call not to be called again."""

    def __init__(
        self, call_id: CallId, dialogue: Dialogue, tools: CallTools, *, placed: bool
    ) -> None:
        """`placed`: we have called them, so their words count."""
        self._call_id = call_id
        self._dialogue = dialogue
        self._tools = tools
        self._placed = placed
        self.asked = False

    def on_words(self, item_id: str, words: str, now_ms: int) -> Sequence[Record]:
        """Look for an opt-out in what was said, and record it."""
        asked = opts_out(words) if self._placed and not self.asked else ""
        return self._record(item_id, asked, now_ms) if asked else []

    def run(
        self, run: RunTool, arguments: Mapping[str, Any], now_ms: int, spoken: bool
    ) -> Sequence[DialogueAction]:
        """Record, by the model's word, that somebody wants no more calls."""
        if not (self._dialogue.active.facts.caller_number or "").startswith("+"):
            raise ToolFailed("Their number is not known. Tell them so.", code="number_unknown")
        words = arguments.get("words", "")
        noted = [] if self.asked else self._record("", words, now_ms)
        answer = {"ok": True, "note": OPTED_OUT}
        return [*noted, *self._tools.answer(run, answer, now_ms)]

    def _record(self, item_id: str, words: str, now_ms: int) -> Sequence[Record]:
        self.asked = True
        number = self._dialogue.active.facts.caller_number or ""
        event = OptedOut(
            call_id=self._call_id, at_ms=now_ms, item_id=item_id, number=number, words=words
        )
        return [Record(event)]
