"""Messages that callers leave: what they say after `take_message`, word for word. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from app.agents.dialogue.actions import Record, RunTool
from app.agents.dialogue.dialogue import Dialogue
from app.calls.actions import CheckMessages, Intent
from app.calls.conversation.call_tools import CallTools
from app.errors import ToolArgsInvalid, ToolFailed
from app.events import CallId, MessageTaken, Party

__all__ = ["MessageTaking"]


LATE_WORDS_MS: Final = 5_000
"""A message that was answered waits so long for transcripts; most of them take a second."""


@dataclass(slots=True)
class _Message:
    """A message on its way: people pause while they leave one, and each pause ends a turn."""

    tool_call_id: str
    recipient: str
    spoken: bool
    item_id: str = ""
    texts: list[str] = field(default_factory=list)
    answered_ms: int | None = None


class MessageTaking:
    """The message that the caller of one call is leaving, if any."""

    def __init__(self, call_id: CallId, dialogue: Dialogue, tools: CallTools) -> None:
        self._call_id = call_id
        self._dialogue = dialogue
        self._tools = tools
        self._message: _Message | None = None

    def take(
        self, run: RunTool, arguments: Mapping[str, Any], now_ms: int, spoken: bool
    ) -> Sequence[Intent]:
        """Begin a message; `spoken`: the agent has said something along with the call.

        The answer waits until it is known whether messages can be kept. Callers are faster: what
        they say meanwhile belongs to the message.
        """
        if not self._dialogue.active.agent.transcribed:
            raise ToolArgsInvalid("What the caller says is not written down in this call.")
        before = self._keep(now_ms)
        recipient = arguments.get("recipient", "")
        self._message = _Message(run.tool_call_id, recipient, spoken)
        return [*before, CheckMessages(run)]

    def on_checked(self, run: RunTool, now_ms: int, *, can_keep: bool) -> Sequence[Intent]:
        """Answer the model: the caller is told the truth."""
        message = self._message
        current = message is not None and message.tool_call_id == run.tool_call_id
        if not can_keep:
            if current:
                self._message = None
            refused = ToolFailed(
                "Messages cannot be kept at the moment. Tell the caller so.",
                code="messages_not_kept",
            )
            return self._tools.refuse(run, refused, now_ms)
        note = "What the caller says next is kept. Ask for it now if you have not yet."
        answer = {"ok": True, "note": note}
        asked_for = current and message is not None and message.spoken
        return self._tools.answer(run, answer, now_ms, reply=not asked_for)

    def on_caller_words(self, item_id: str, text: str) -> None:
        """The caller has spoken: that belongs to the message."""
        if self._message is not None:
            self._message.item_id = self._message.item_id or item_id
            self._message.texts.append(text)
            self._message.answered_ms = None

    def on_heard_out(self, now_ms: int) -> list[Record]:
        """The caller has heard the answer to a message and says no more: it is complete.

        A message waits until all that the caller has said is transcribed.
        """
        return [] if self._untranscribed(now_ms) else self._keep(now_ms)

    def _untranscribed(self, now_ms: int) -> bool:
        message = self._message
        if message is None:  # asked at every tick of every call: before the transcript is copied
            return False
        entries = self._dialogue.transcript.messages()
        if all(entry.text_final for entry in entries if entry.party is Party.CALLER):
            return False
        if message.answered_ms is None:
            message.answered_ms = now_ms
        return now_ms - message.answered_ms < LATE_WORDS_MS

    def on_call_over(self, now_ms: int) -> list[Record]:
        """A caller who hangs up behind a message has left it all the same."""
        return self._keep(now_ms)

    def _keep(self, now_ms: int) -> list[Record]:
        message = self._message
        if message is None or not message.texts:
            return []
        self._message = None
        event = MessageTaken(
            call_id=self._call_id,
            at_ms=now_ms,
            item_id=message.item_id,
            recipient=message.recipient,
            text=" ".join(message.texts),
        )
        return [Record(event)]
