"""Rules that a server broke: what Twilio would warn of or refuse, with its error numbers.

Pure. Checks the TwiML that asks for a stream; the messages on the stream are checked by
`app.carrier.twilio.caller_side`. Follows Twilio voice/twiml/stream and its error pages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from app.dial.twiml import StreamOrder

__all__ = ["Fault", "check_stream"]

# Twilio, voice/twiml/stream: name and value of a Parameter together stay under 500 characters.
_PARAMETER_CHARS: Final = 500
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True, slots=True)
class Fault:
    """A broken rule: Twilio's error number and a description."""

    code: str
    text: str
    at_ms: int = 0


def check_stream(order: StreamOrder) -> list[Fault]:
    """Find what Twilio would refuse or drop silently; plain ws is allowed on the loopback only."""
    faults = []
    parts = urlsplit(order.url)
    if parts.scheme not in {"ws", "wss"}:
        faults.append(Fault("31920", f"stream url {order.url!r} is not a websocket url"))
    elif parts.scheme == "ws" and parts.hostname not in _LOOPBACK:
        faults.append(Fault("31910", f"stream url {order.url!r} must be wss"))
    if parts.query:
        text = "stream url has a query string, which Twilio drops; use <Parameter>"
        faults.append(Fault("31920", text))
    for name, value in order.parameters.items():
        if not name:
            faults.append(Fault("12200", "<Parameter> without a name"))
        if len(name) + len(value) >= _PARAMETER_CHARS:
            text = f"<Parameter name={name!r}> is {len(name) + len(value)} characters; limit 500"
            faults.append(Fault("12200", text))
    return faults
