"""Failures of requests to Twilio's REST API, as our errors and in plain words.

Pure. One place for all requests: status first, since a proxy or load balancer that answers knows no
Twilio number; then what the number says. The messages are ours and hold nothing of Twilio's text,
which may name phone numbers.

Follows Twilio api/errors (2026-11).
"""

from __future__ import annotations

import json
from typing import Any, Final

from twilio.base.exceptions import TwilioException
from twilio.http.response import Response

from app.errors import CarrierError, CarrierRefused, CarrierUnavailable

__all__ = ["NEVER_DONE", "NOT_FOUND", "NOT_IN_PROGRESS", "as_ours", "network_failure"]

NOT_FOUND: Final = "twilio_20404"
NOT_IN_PROGRESS: Final = "twilio_21220"

NEVER_DONE: Final = frozenset({"unreachable", "http_429", "twilio_20429", "twilio_10004"})
"""Codes of failures after which nothing can have happened, so that any request may be repeated."""

_AUTH_FAILED: Final = 20003
_TOO_MANY: Final = 20429

_WORDS: Final = {
    10004: "the account has as many calls at once as it may have",
    13223: "the number to call has no valid format",
    13224: "the number to call is not valid",
    13225: "the number to call is blocked by Twilio",
    13227: "the account may not call this country; see the voice geographic permissions",
    20001: "Twilio does not take a value of the request",
    20404: "Twilio knows no such call or number in this account",
    21205: "Twilio cannot use the address of a document",
    21210: "the number to call from is neither the account's nor verified by it",
    21211: "the number to call is not one that Twilio can reach",
    21213: "the number to call from is missing",
    21214: "the number to call cannot be reached from Twilio",
    21217: "the number to call is not a valid phone number",
    21212: "the number to call from is not valid",
    21215: "the account may not call this country; see the voice geographic permissions",
    21216: "Twilio does not let this account call the number",
    21218: "the application that the number would use does not exist",
    21219: "the number is not verified; a trial account may call verified numbers only",
    21220: "the call is not in progress any more",
    21408: "the account may not send messages to this country; see the messaging permissions",
    21421: "the number is not one that can be set up",
    21606: "the number to write from is not the account's, or takes no messages",
    21610: "the receiver has asked for no more messages",
    21614: "the number to write to is not a mobile number",
    21617: "the message is longer than Twilio sends",
}


def as_ours(error: TwilioException) -> CarrierError:
    """The error of the library as ours; retryable when it may pass."""
    status, number = _status_and_number(error)
    # The library puts the status in place of a code that is absent.
    own = isinstance(number, int) and number not in (0, status)
    code = f"twilio_{number}" if own else f"http_{status}"
    if status in (401, 403) or number == _AUTH_FAILED:
        return CarrierRefused("Twilio does not accept the account's credentials", code=code)
    if status == 429 or number == _TOO_MANY:
        return CarrierUnavailable("Twilio asks for fewer requests", code=code)
    if isinstance(status, int) and (status >= 500 or status == 408):
        return CarrierUnavailable(f"Twilio failed with HTTP {status}", code=code)
    if status is None:
        return CarrierUnavailable("Twilio's client failed", code="client_failed")
    known = _WORDS.get(number) if isinstance(number, int) else None
    return CarrierRefused(known or f"Twilio refused with HTTP {status}", code=code)


def _status_and_number(error: TwilioException) -> tuple[Any, Any]:
    """The status and number of an error. For lists, the library keeps the answer unread."""
    if len(error.args) > 1 and isinstance(answer := error.args[1], Response):
        try:
            found = json.loads(answer.text)
        except ValueError:
            found = None
        return answer.status_code, found.get("code") if isinstance(found, dict) else None
    return getattr(error, "status", None), getattr(error, "code", None)


def network_failure(error: OSError) -> CarrierUnavailable:
    """The code of a network failure: `unreachable` when the request cannot have been sent."""
    cause: BaseException | None = error
    seen = 0
    while cause is not None and seen < 10:
        # Names that do not resolve (socket.gaierror) are errors of a class that is not imported
        # here: this module touches no socket.
        if isinstance(cause, ConnectionRefusedError) or type(cause).__name__ == "gaierror":
            return CarrierUnavailable("Twilio cannot be reached", code="unreachable")
        if (invalid := getattr(cause, "verify_message", "")) and isinstance(invalid, str):
            text = f"Twilio's certificate is not valid: {invalid}"
            return CarrierUnavailable(text, code="unreachable")
        if isinstance(cause, TimeoutError):
            return CarrierUnavailable("Twilio did not answer in time", code="timeout")
        cause, seen = _inner(cause), seen + 1
    return CarrierUnavailable("the connection to Twilio broke", code="connection_lost")


def _inner(error: BaseException) -> BaseException | None:
    """One step towards the cause; urllib3 keeps it in `reason`, requests in its arguments."""
    reason = getattr(error, "reason", None)
    if isinstance(reason, BaseException):
        return reason
    if error.args and isinstance(error.args[0], BaseException):
        return error.args[0]
    return error.__cause__ or error.__context__
