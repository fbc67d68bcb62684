"""Texts of events as the gateway looks at them: their type, redaction, close codes.

Pure. Audio is nine tenths of all frames, so that a type is read from the first bytes where they are
spelled as servers and SDKs do; any other text is parsed.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from app.errors import VoiceClosed, VoiceError, VoiceRefused

__all__ = [
    "AT_CAPACITY",
    "BACKSLASH",
    "GOING_AWAY",
    "MONEY_SPENT",
    "QUOTE",
    "TIME_UP",
    "PlainAppend",
    "close_code_for",
    "cut_reason",
    "delta_begin",
    "error_event",
    "is_utf8",
    "parse",
    "redacted",
    "render",
    "server_type",
    "sound_chars",
]

NORMAL: Final = 1000
GOING_AWAY: Final = 1001
POLICY: Final = 1008
INTERNAL: Final = 1011
AT_CAPACITY: Final = 1013
MONEY_SPENT: Final = 4402
TIME_UP: Final = 4408

REASON_BYTES: Final = 123  # RFC 6455, 5.5: a control frame holds 125, of which the code takes two

# Numbers: `b'"' in text` tries its bytes as a number first, and makes an exception of that.
QUOTE: Final = ord('"')
BACKSLASH: Final = ord("\\")

_APPEND: Final = re.compile(
    rb'\{\s*(?:"event_id"\s*:\s*"[^"\\]{0,80}"\s*,\s*)?"type"\s*:\s*"input_audio_buffer\.append"\s*,'
    rb'\s*"audio"\s*:\s*"'
)
_APPEND_END: Final = re.compile(rb'"\s*(?:,\s*"event_id"\s*:\s*"[^"\\]{0,80}"\s*)?\}\s*')
_TYPE: Final = re.compile(
    r'\s*\{\s*(?:"event_id"\s*:\s*"[^"\\]{0,80}"\s*,\s*)?"type"\s*:\s*"([A-Za-z0-9_.]{1,80})"'
)
_DELTA: Final = re.compile(
    rb'\{\s*(?:"event_id"\s*:\s*"[^"\\]{0,80}"\s*,\s*)?"type"\s*:\s*'
    rb'"response\.(?:output_)?audio\.delta"'
)
_SENDABLE: Final = frozenset((*range(1000, 1004), *range(1007, 1015)))
_BUSY: Final = frozenset(
    {
        "engine_at_capacity",
        "http_429",
        "inference_rate_limit_exceeded",
        "insufficient_quota",
        "overloaded",
        "rate_limit_error",
        "rate_limit_exceeded",
    }
)
_SECRETS: Final = re.compile(
    r"\b(?:sk|ek|tk|pk|rk)[-_][A-Za-z0-9*_-]{6,}"  # keys, also half masked ones
    r"|\b[Bb]earer\s+\S+"
    r"|\b[0-9a-fA-F]{32,}\b"
    r"|\beyJ[\w.-]{20,}"
    r"|(?:https?|wss?)://\S+"
    r"|\b(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?\b"
    r"|\[?(?:[0-9a-fA-F]{1,4}:){3,7}[0-9a-fA-F]{1,4}\]?"
    r"|\b[\w-]+(?:\.[\w-]+)*\.(?:internal|local|lan|svc|corp|intra|cluster)\b(?::\d+)?",
)
_decode: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode


class PlainAppend:
    """Tells sound from a client that can mean nothing else: its keys are there once.

    A client writes its events alike, so that most begin as the last one did: with `begin`, which is
    empty while that holds an id.
    """

    __slots__ = ("begin",)

    def __init__(self) -> None:
        self.begin = b""

    def __call__(self, text: bytes) -> bool:
        if BACKSLASH in text or not text.isascii():
            return False
        begin = self.begin
        if not (begin and text.startswith(begin)):
            found = _APPEND.match(text)
            if found is None:
                return False
            begin = found[0]
            self.begin = b"" if b"event_id" in begin else begin
        end = text.find(b'"', len(begin))
        return text[end:] == b'"}' or _APPEND_END.fullmatch(text, end) is not None


def delta_begin(text: bytes) -> bytes:
    """The beginning that tells the model's sound, in either dialect, from all else.

    Empty for anything else, and where only a parser can tell.
    """
    found = _DELTA.match(text)
    return found[0] if found is not None and text.isascii() else b""


def sound_chars(text: str | bytes, key: str) -> int:
    """The length of the base64 in an event whose sound is under `key`, the last one as a rule."""
    mark = f'"{key}"'
    at = text.find(mark) if isinstance(text, str) else text.find(mark.encode())
    return max(0, len(text) - at - len(mark) - len(':""}'))


def is_utf8(text: bytes) -> bool:
    """True for text, as a client's frame has claimed to be."""
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def server_type(text: str) -> str:
    """The type of a server's event, empty where only a parser can tell."""
    found = _TYPE.match(text)
    return "" if found is None else found[1]


def parse(text: str | bytes) -> dict[str, Any] | None:
    """An event as an object; None for what is none."""
    try:
        found = _decode(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def render(event: object) -> bytes:
    """An event's text."""
    return _encode(event)


def redacted(text: str) -> str:
    """The text without keys, addresses and internal hosts."""
    return _SECRETS.sub("[redacted]", text)


def cut_reason(text: str) -> str:
    """The reason of a close frame: at most 123 bytes, cut between characters."""
    return text.encode("utf-8", "replace")[:REASON_BYTES].decode("utf-8", "ignore")


def error_event(code: str, message: str, *, kind: str = "server_error") -> bytes:
    """An `error` event of the gateway's own, valid in both dialects."""
    error = {
        "type": kind,
        "code": code,
        "message": redacted(message),
        "param": None,
        "event_id": None,
    }
    return render({"type": "error", "event_id": f"event_gateway_{code}", "error": error})


def close_code_for(error: VoiceError) -> int:
    """The close code by which a client hears of an upstream's refusal or end.

    The table stands in docs/gateway.md.
    """
    if isinstance(error, VoiceClosed):
        code = error.close_code
        return code if code in _SENDABLE or 3000 <= code < 5000 else INTERNAL
    if error.code in _BUSY:
        return AT_CAPACITY
    return POLICY if isinstance(error, VoiceRefused) else INTERNAL
