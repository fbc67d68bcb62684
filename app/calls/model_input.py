"""Things that the model is told besides the caller's sound, as events for readers of a call. Pure.

Function outputs are left out: they hold what other systems answered, and `ToolRan` names the tool.
So are messages in the caller's name, which stand for keys.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Final

from app.events import CallId, ModelInput
from app.realtime.events import (
    UNSET,
    ClientEvent,
    ItemCreate,
    ItemTruncate,
    ResponseCreate,
    SessionUpdate,
)

__all__ = ["model_input"]

MAX_CHARS: Final = 500


def model_input(event: ClientEvent, call_id: CallId, at_ms: int) -> ModelInput | None:
    """The record of an event that is sent to the model; None for most."""
    match event:
        case ItemTruncate():
            return ModelInput(
                call_id=call_id,
                at_ms=at_ms,
                what="truncated",
                item_id=event.item_id,
                heard_ms=event.audio_end_ms,
            )
        case ItemCreate(item=item) if item.role == "system":
            text = " ".join(part.text or "" for part in item.content)
            return ModelInput(
                call_id=call_id,
                at_ms=at_ms,
                what="note",
                item_id=item.id or "",
                text=text[:MAX_CHARS],
            )
        case SessionUpdate(session=session):
            given = [
                one.name
                for one in fields(session)
                if one.name != "type" and getattr(session, one.name) not in (UNSET, None)
            ]
            return ModelInput(call_id=call_id, at_ms=at_ms, what="settings", text=", ".join(given))
        case ResponseCreate(response=response) if response is not None and response.instructions:
            text = str(response.instructions)[:MAX_CHARS]
            return ModelInput(call_id=call_id, at_ms=at_ms, what="asked", text=text)
        case _:
            return None
