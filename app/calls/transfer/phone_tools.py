"""The tools of an agent on the phone: transfers, tones, text messages.

Made once for all calls, from the destinations of the configuration; which call a function call
belongs to is a fact of its context. A model names a destination and never an address: names that
are not in the list are refused by the schema, and again by `Destinations`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from app.agents.tools.tool import Tool, ToolContext
from app.calls.transfer.transfers import MAX_SUMMARY_CHARS, Transfers, transfer_note
from app.carrier.base import DestinationKind
from app.carrier.destinations import MAX_DIGITS, MAX_SMS_CHARS, TO_CALLER, Destinations
from app.errors import ToolError
from app.events import CallId

__all__ = ["CANCEL_TRANSFER", "SEND_DTMF", "SEND_SMS", "TRANSFER_CALL", "Lookup", "phone_tools"]


TRANSFER_CALL: Final = "transfer_call"
CANCEL_TRANSFER: Final = "cancel_transfer"
"""Comes with `transfer_call`, where a destination is warm."""
SEND_DTMF: Final = "send_dtmf"
SEND_SMS: Final = "send_sms"

_AS_LONG_AS_IT_TAKES_MS: Final = 24 * 3_600_000
"""A transfer has limits of its own: how long it rings, and how long calls may last."""
_TONES_MS: Final = 90_000
_ALL_CALLS: Final = 10_000
"""The people of every call may talk at the same time."""

Lookup = Callable[[CallId], Transfers | None]


def phone_tools(destinations: Destinations, lookup: Lookup) -> dict[str, Tool]:
    """The tools by name; without destinations there is nowhere to transfer to.

    `lookup` finds the transfers of a live call. Text messages go to the caller, or to a destination
    that is a phone number.
    """
    tools = [_send_dtmf(lookup), _send_sms(destinations, lookup)]
    if destinations.names:
        tools.append(_transfer_call(destinations, lookup))
    if any(one.warm for one in destinations.by_name.values()):
        tools.append(_cancel_transfer(lookup))
    return {tool.name: tool for tool in tools}


def _transfers(lookup: Lookup, context: ToolContext) -> Transfers:
    found = lookup(context.call_id)
    if found is None:
        raise ToolError("There is no telephone line in this conversation.", code="no_line")
    return found


def _parameters(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def _transfer_call(destinations: Destinations, lookup: Lookup) -> Tool:
    async def run(context: ToolContext, arguments: Mapping[str, Any]) -> Any:
        transfers = _transfers(lookup, context)
        result = await transfers.transfer(arguments["destination"], arguments.get("summary", ""))
        return {
            "outcome": result.outcome.value,
            "note": transfer_note(result),
        }

    properties: dict[str, Any] = {"destination": {"type": "string", "enum": [*destinations.names]}}
    if any(one.screened or one.warm for one in destinations.by_name.values()):
        properties["summary"] = {
            "type": "string",
            "maxLength": MAX_SUMMARY_CHARS,
            "description": "What the person hears before they take the call: who calls, and why.",
        }
    listed = "; ".join(
        f"{name}: {one.spoken}" + (f" ({one.description})" if one.description else "")
        for name, one in destinations.by_name.items()
    )
    return Tool(
        name=TRANSFER_CALL,
        description=(
            "Connect the caller with a person or a department. Tell the caller before you use it. "
            "They come back to you when nobody answers. "
            f"Destinations: {listed}."
        ),
        parameters={**_parameters(properties), "required": ["destination"]},
        run=run,
        timeout_ms=_AS_LONG_AS_IT_TAKES_MS,
        max_concurrency=_ALL_CALLS,
    )


def _cancel_transfer(lookup: Lookup) -> Tool:
    async def run(context: ToolContext, _arguments: Mapping[str, Any]) -> Any:
        _transfers(lookup, context).cancel()
        return "Nobody is called any more. The caller stays with you."

    return Tool(
        name=CANCEL_TRANSFER,
        description=(
            "Stop a transfer that is under way: the caller has changed their mind while you still "
            "talk with them."
        ),
        parameters=_parameters({}),
        run=run,
    )


def _send_dtmf(lookup: Lookup) -> Tool:
    async def run(context: ToolContext, arguments: Mapping[str, Any]) -> Any:
        await _transfers(lookup, context).send_digits(arguments["digits"])
        return "The tones were sent."

    digits = {
        "type": "string",
        "pattern": f"^[0-9*#wW]{{1,{MAX_DIGITS}}}$",
        "description": "The keys in their order; w waits half a second, W a whole one.",
    }
    return Tool(
        name=SEND_DTMF,
        description=(
            "Press telephone keys, for a menu at the other end of the line. For a moment nobody "
            "hears anything else."
        ),
        parameters=_parameters({"digits": digits}),
        run=run,
        timeout_ms=_TONES_MS,
        max_concurrency=_ALL_CALLS,
    )


def _send_sms(destinations: Destinations, lookup: Lookup) -> Tool:
    async def run(context: ToolContext, arguments: Mapping[str, Any]) -> Any:
        await _transfers(lookup, context).send_sms(arguments["to"], arguments["body"])
        return "The message was sent."

    numbers = [
        name for name, one in destinations.by_name.items() if one.kind is DestinationKind.NUMBER
    ]
    return Tool(
        name=SEND_SMS,
        description=(
            "Send a short text message to the caller's own number, or to a named destination. Ask "
            "the caller before you write to them."
        ),
        parameters=_parameters(
            {
                "to": {"type": "string", "enum": [TO_CALLER, *numbers]},
                "body": {"type": "string", "minLength": 1, "maxLength": MAX_SMS_CHARS},
            }
        ),
        run=run,
        timeout_ms=20_000,
    )
