"""The tools with which a model controls its call, and their schemas.

The call runs them (`app.calls.keypad.keypad`, `app.calls.conversation.conversation`), so they have
no function here. An agent has those that its session lists.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from app.agents.tools.schema import ArgumentCheck, parse_arguments
from app.errors import AppError, ToolError

__all__ = [
    "CALL_TOOLS",
    "COLLECT_DIGITS",
    "DO_NOT_CALL",
    "END_CALL",
    "END_CALL_TOOL",
    "HOLD",
    "PAUSE_RECORDING",
    "PREFIX",
    "TAKE_MESSAGE",
    "read_call_tool",
    "refused_call_tool",
    "too_early",
]


END_CALL: Final = "end_call"
COLLECT_DIGITS: Final = "collect_digits"
DO_NOT_CALL: Final = "do_not_call"
HOLD: Final = "hold"
PAUSE_RECORDING: Final = "pause_recording"
TAKE_MESSAGE: Final = "take_message"


def _tool(
    name: str, description: str, properties: Mapping[str, Any], required: tuple[str, ...] = ()
) -> Mapping[str, Any]:
    return {
        "type": "function",
        "name": name,
        "description": description,
        "parameters": {
            "type": "object",
            "properties": dict(properties),
            "required": list(required),
            "additionalProperties": False,
        },
    }


END_CALL_TOOL: Final = _tool(
    END_CALL,
    "Hang up the phone. Use it only when the caller has said goodbye or asked to end the call. "
    "Say goodbye before you call it; the line stays open until the caller has heard it.",
    {
        "reason": {
            "type": "string",
            "enum": ["caller_said_goodbye", "caller_asked_to_end", "task_complete"],
            "description": "Why the call ends.",
        }
    },
    ("reason",),
)

_DIGITS: Final = {"type": "integer", "minimum": 1, "maximum": 64}

CALL_TOOLS: Final[Mapping[str, Mapping[str, Any]]] = {
    END_CALL: END_CALL_TOOL,
    COLLECT_DIGITS: _tool(
        COLLECT_DIGITS,
        "Have the caller enter digits on the telephone keypad, such as an account number or a PIN. "
        "Ask for them before you call it, and say that the hash key ends the entry. Do not repeat "
        "secret digits aloud.",
        {
            "min_digits": {**_DIGITS, "description": "The fewest digits that make sense."},
            "max_digits": {**_DIGITS, "description": "The most; the last one ends the entry."},
            "terminator": {
                "type": "string",
                "enum": ["#", "*", ""],
                "description": "The key that ends the entry; # unless given.",
            },
            "wait_seconds": {
                "type": "integer",
                "minimum": 3,
                "maximum": 60,
                "description": "How long to wait for the first digit; 8 unless given.",
            },
        },
        ("max_digits",),
    ),
    DO_NOT_CALL: _tool(
        DO_NOT_CALL,
        "Put the number of the person you talk with on the do-not-call list, so that nobody here "
        "calls it again. Use it at once when they ask for that, in whatever words, and do not try "
        "to persuade them.",
        {
            "words": {
                "type": "string",
                "maxLength": 300,
                "description": "What they said.",
            }
        },
    ),
    HOLD: _tool(
        HOLD,
        "Wait in silence while the caller does something, such as looking for a document. It ends "
        "when they speak or press a key.",
        {
            "phrase": {
                "type": "string",
                "maxLength": 200,
                "description": "What to say before, unless you have said it: Take your time.",
            },
            "seconds": {
                "type": "integer",
                "minimum": 5,
                "maximum": 600,
                "description": "The longest wait; 120 unless given.",
            },
        },
    ),
    PAUSE_RECORDING: _tool(
        PAUSE_RECORDING,
        "Pause the recording of this call before the caller says something that must not be kept, "
        "such as a card number, and resume it afterwards.",
        {"paused": {"type": "boolean", "description": "true to pause, false to resume."}},
        ("paused",),
    ),
    TAKE_MESSAGE: _tool(
        TAKE_MESSAGE,
        "Take down a message: what the caller says next is kept word for word. Ask for the message "
        "before you call it, and thank the caller once they have spoken.",
        {
            "recipient": {
                "type": "string",
                "maxLength": 100,
                "description": "Whom the message is for, as the caller said it.",
            }
        },
    ),
}

_CHECKS: Final = {
    name: ArgumentCheck(tool["parameters"], f"tool {name}") for name, tool in CALL_TOOLS.items()
}


def too_early() -> ToolError:
    """The refusal to hang up on a caller who has not said a word."""
    return ToolError("The caller has not spoken yet. Do not hang up.", code="too_early")


def read_call_tool(name: str, arguments_json: str) -> dict[str, Any]:
    """The checked arguments of one of these tools.

    Raises:
        ToolArgsInvalid: its schema does not allow them.
    """
    arguments = parse_arguments(arguments_json)
    _CHECKS[name].check(arguments)
    return arguments


def refused_call_tool(error: AppError) -> str:
    """The output for a function call that was refused."""
    return json.dumps({"error": error.message, "code": error.code}, ensure_ascii=False)


PREFIX: Final = "transfer_to_"
"""Begins the names of handoff tools."""
