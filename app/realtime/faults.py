"""Failures of a voice model by class: error codes, HTTP status, websocket close codes.

One table for connecting, for errors in mid-call and for failed responses. The caller decides on the
behavior for each class. By RELIABILITY of this project and OpenAI's client
(`types/websocket_reconnection.py`), autumn 2026.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

from app.errors import VoiceClosed, VoiceRefused, VoiceUnavailable
from app.realtime.events import ErrorDetail

__all__ = [
    "FaultClass",
    "classify",
    "find_code",
    "place_of",
    "refusal_for_close",
    "refusal_for_error",
    "refusal_for_status",
]


_PLACE_CHARS: Final = 200
_TOOL: Final = re.compile(r"(?:session\.)?tools\[?\.?([0-9]{1,4})", re.ASCII)


class FaultClass(StrEnum):
    """The reaction that an error asks for.

    FATAL: no retry heals it. RETRY: try again, with a pause. ROTATE: the session is over, open
    another. BENIGN: log it. UNKNOWN: log and count it; the session usually stays open.
    """

    FATAL = "fatal"
    RETRY = "retry"
    ROTATE = "rotate"
    BENIGN = "benign"
    UNKNOWN = "unknown"


_FATAL: Final = frozenset(
    {
        "account_deactivated",
        "authentication_error",
        "beta_api_shape_disabled",
        "billing_hard_limit_reached",
        "credit_balance_exhausted",
        "deployment_not_found",
        "insufficient_quota",
        "invalid_api_key",
        "invalid_model",
        "invalid_organization",
        "model_not_found",
        "permission_denied",
        "permission_error",
        "unsupported_country_region_territory",
        "unsupported_model",
    }
)
_RETRY: Final = frozenset(
    {
        "inference_rate_limit_exceeded",
        "internal_error",
        "rate_limit_error",
        "rate_limit_exceeded",
        "server_error",
        "service_unavailable",
        "overloaded",
    }
)
_ROTATE: Final = frozenset({"session_expired"})
_BENIGN: Final = frozenset(
    {
        "conversation_already_has_active_response",
        "input_audio_buffer_commit_empty",
        "item_truncate_invalid_item_id",
        "response_cancel_not_active",
    }
)
_CLASSES: Final = (
    (FaultClass.FATAL, _FATAL),
    (FaultClass.RETRY, _RETRY),
    (FaultClass.ROTATE, _ROTATE),
    (FaultClass.BENIGN, _BENIGN),
)

_RETRYABLE_STATUS: Final = frozenset({408, 425, 429})
_FATAL_CLOSE_CODES: Final = frozenset({1002, 1003, 1007, 1008, 1009, 1010})

BETA_HINT: Final = (
    "the server failed inside the handshake; OpenAI did so with clients of the beta interface,"
    " which ended on 2026-05-12: check `dialect` and the headers"
)


def classify(error: ErrorDetail) -> FaultClass:
    """The class of an `error` event, or of the error of a failed response."""
    for known in (error.code, error.type):
        for fault_class, codes in _CLASSES:
            if known in codes:
                return fault_class
    if "already shorter than" in error.message:  # truncating beyond the audio has no code
        return FaultClass.BENIGN
    return FaultClass.UNKNOWN


def find_code(text: str) -> str | None:
    """A fatal or expiry code that a close reason or an error body mentions, if any."""
    return next((code for code in sorted(_FATAL | _ROTATE) if code in text), None)


def place_of(error: ErrorDetail, tools: Sequence[Mapping[str, Any]] = ()) -> str:
    """The setting that an error points at, if any, with the name of the tool that it is.

    `tools` are those of the settings that the error is about.
    """
    place = (error.param or "")[:_PLACE_CHARS]
    found = _TOOL.match(place)
    if found is None or int(found[1]) >= len(tools):
        return place
    return f"{place} (tool {tools[int(found[1])].get('name', '')})"


def refusal_for_error(
    error: ErrorDetail, tools: Sequence[Mapping[str, Any]] = ()
) -> VoiceRefused | VoiceUnavailable:
    """The refusal behind an `error` event that answers our session settings.

    An unknown code is a refusal: the same settings would meet it again. `tools` are those that the
    session was to have: one that the error points at is named.
    """
    code = error.code or error.type or "session_refused"
    place = place_of(error, tools)
    where = f" at {place}" if place else ""
    if classify(error) in {FaultClass.RETRY, FaultClass.ROTATE}:
        return VoiceUnavailable(f"the model failed to set up the session: {code}", code=code)
    return VoiceRefused(f"the model refused the session: {code}{where}", code=code)


def refusal_for_close(closed: VoiceClosed) -> VoiceRefused | VoiceUnavailable:
    """The refusal behind a close before the session was agreed on."""
    code = closed.close_code
    message = f"the model closed the connection during set-up, close code {code}"
    if closed.code in _FATAL:
        return VoiceRefused(f"{message}: {closed.code}", code=closed.code)
    if code in _FATAL_CLOSE_CODES or code >= 3000:
        return VoiceRefused(message, code="closed_in_setup")
    return VoiceUnavailable(message, code="closed_in_setup")


def refusal_for_status(
    status: int, *, code: str | None = None, retry_after_s: float | None = None
) -> VoiceRefused | VoiceUnavailable:
    """The refusal behind an HTTP status in place of a websocket; `code` is the body's error."""
    known = code or f"http_{status}"
    if code in _FATAL:
        return VoiceRefused(f"the model refused us: HTTP {status}, {code}", code=code)
    if status in _RETRYABLE_STATUS or status >= 500:
        message = f"the model is not available: HTTP {status}"
        if status == 500:
            message = f"{message} ({BETA_HINT})"
        return VoiceUnavailable(message, code=known, retry_after_s=retry_after_s)
    return VoiceRefused(f"the model refused us: HTTP {status}", code=known)
