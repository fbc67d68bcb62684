"""The conversation of an engine session as a request to a text model.

Pure. Chat servers want every function call answered right behind it, so outputs move up to their
calls, and a call whose tool still runs is said to be running. Of a message that the caller cut off,
only the words that were heard go to the model.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Final

from app.engine.base import Heard, Reply
from app.engine.stages.base import Message, TextRequest, ToolCall

if TYPE_CHECKING:
    from app.engine.items import Conversation
    from app.engine.live_response import ResponsePlan
    from app.realtime.events import Item

__all__ = ["ModelResponder", "request_of"]

_RUNNING: Final = '{"status": "still running"}'


class ModelResponder:
    """The responder of a session whose replies a text model writes: it decides nothing itself."""

    context = ""
    keeps_audio = False

    def __init__(self) -> None:
        self.opened = False

    def is_message(self, text: str) -> bool:
        return False

    def not_kept(self) -> Reply:
        return Reply()

    def offer_tools(self, names: Collection[str]) -> None:
        """The model is given the tools with each request."""

    def open(self) -> Reply:
        return Reply()

    def repeat(self) -> Reply:
        return Reply()

    def hear(self, heard: Heard) -> Reply:
        return Reply()

    def read(self, text: str) -> Reply:
        return Reply()

    def tool_result(self, name: str, output: str) -> Reply:
        return Reply()


def request_of(plan: ResponsePlan, conversation: Conversation) -> TextRequest:
    """The request for one response."""
    if plan.input is None:
        history = [] if plan.conversation_id is None else conversation.history()
    else:
        history = [(item, _words(item)) for item in plan.input]
    system = [Message(role="system", text=plan.instructions)] if plan.instructions else []
    limit = plan.max_output_tokens
    return TextRequest(
        messages=(*system, *_messages(history)),
        tools=plan.functions,
        tool_choice=plan.tool_choice,
        max_tokens=limit if isinstance(limit, int) else None,
    )


def _messages(history: Iterable[tuple[Item, str]]) -> list[Message]:
    history = list(history)
    outputs = {
        item.call_id: item.output or ""
        for item, _ in history
        if item.type == "function_call_output"
    }
    messages: list[Message] = []
    calls: list[ToolCall] = []

    def answered() -> None:
        if not calls:
            return
        messages.append(Message(role="assistant", calls=tuple(calls)))
        for call in calls:
            text = outputs.get(call.call_id, _RUNNING)
            messages.append(Message(role="tool", text=text, call_id=call.call_id))
        calls.clear()

    for item, text in history:
        if item.type == "function_call" and item.call_id and item.name:
            calls.append(
                ToolCall(call_id=item.call_id, name=item.name, arguments=item.arguments or "{}")
            )
            continue
        answered()
        if item.type != "message" or not text.strip():
            continue
        if item.role == "assistant":
            if item.status == "in_progress":
                continue  # a filler, before the answer that is asked for here
            messages.append(Message(role="assistant", text=text))
        elif item.role == "system":
            messages.append(Message(role="system", text=text))
        else:
            messages.append(Message(role="user", text=text))
    answered()
    return messages


def _words(item: Item) -> str:
    return " ".join(filter(None, (part.text or part.transcript for part in item.content)))
