"""The trace of a model's wire in the log at DEBUG: events by type and id, audio by its length.

The rest of an event (words, instructions, arguments) stands under `pii.event`, which `app.logs`
masks. Credentials that an event may carry, and what tools answer, are left out, whatever is
shown. Pure.
"""

from __future__ import annotations

import json
from typing import Any, Final

__all__ = ["wire_facts"]

_IDS: Final = ("event_id", "response_id", "item_id", "previous_item_id")
_PARTS: Final = {
    "response": {"id": "response_id", "status": "status"},
    "item": {"id": "item_id", "type": "item_type", "status": "status", "name": "tool"},
}
"""Parts of an event, and what of them tells one event from another without a word of speech."""

_SECRET: Final = frozenset({"authorization", "headers", "client_secret", "api_key"})
"""Keys of the protocol that hold credentials, such as those of a remote MCP server."""


def wire_facts(text: str) -> dict[str, Any]:
    """The facts of one message for the log."""
    facts: dict[str, Any] = {"peer": "model", "characters": len(text)}
    try:
        event = json.loads(text)
    except (ValueError, RecursionError):
        return {**facts, "type": "(not JSON)"}
    if not isinstance(event, dict):
        return {**facts, "type": "(not an object)"}
    kind = facts["type"] = str(event.pop("type", ""))[:100]
    error = event.get("error")
    if isinstance(error, dict):
        facts["code"] = str(error.get("code") or error.get("type") or "")[:100]
    facts |= {key: event.pop(key) for key in _IDS if isinstance(event.get(key), str)}
    for key, shown in _PARTS.items():
        part = event.get(key)
        if isinstance(part, dict):
            found = {fact: part.get(name) for name, fact in shown.items()}
            facts |= {fact: value[:100] for fact, value in found.items() if isinstance(value, str)}
    if isinstance(event.get("call_id"), str):  # the function call's: the log's is the phone call's
        facts["tool_call_id"] = event.pop("call_id")
    if kind.endswith("audio.delta") and isinstance(event.get("delta"), str):
        event["audio"] = event.pop("delta")
    if isinstance(event.get("audio"), str):
        facts["audio"] = _length(event.pop("audio"))
    if event:
        facts["pii.event"] = json.dumps(_shown(event), ensure_ascii=False)
    return facts


def _shown(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _field(key, part) for key, part in value.items()}
    if isinstance(value, list):
        return [_shown(part) for part in value]
    return value


def _field(key: str, value: Any) -> Any:
    if key in _SECRET and value is not None:
        return "[hidden]"
    if key == "audio" and isinstance(value, str):
        return _length(value)
    if key == "output" and isinstance(value, str):  # a tool's, which may hold digits of the keypad
        return f"[{len(value)} characters]"
    return _shown(value)


def _length(base64: str) -> str:
    return f"[{len(base64) * 3 // 4} bytes]"
