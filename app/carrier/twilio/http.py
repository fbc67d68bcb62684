"""Twilio over HTTP, without the HTTP: TwiML documents, webhook forms, status reports.

Pure: strings and pairs in, values out. Routes, status codes and content types belong to the web
room; `signature.py`, whose names are exported here as well, checks who signed a request.

Follows Twilio voice/twiml (stream, connect, say, reject) and the voice request parameters
(2026-11). Strict about the fields that are used; ignores the rest.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from twilio.twiml.voice_response import Connect, VoiceResponse

from app.carrier.base import CallDirection, CallProgress, CarrierCallId, IncomingCall
from app.carrier.twilio.signature import (
    SIGNATURE_HEADER,
    SIGNATURE_SETTINGS_HEADER,
    Form,
    SignatureChecker,
    form_pairs,
    sign_http,
)
from app.carrier.withheld import ANONYMOUS, is_withheld
from app.errors import LocalProtocolError, RemoteProtocolError, SignatureError

__all__ = [
    "E164",
    "MAX_FORM_BYTES",
    "SIGNATURE_HEADER",
    "SIGNATURE_SETTINGS_HEADER",
    "TOKEN_PARAMETER",
    "TWIML_CONTENT_TYPE",
    "Form",
    "SignatureChecker",
    "StatusReport",
    "append_connect",
    "clean_text",
    "parse_form",
    "read_count",
    "read_fields",
    "read_id",
    "read_incoming",
    "read_status",
    "refusal_document",
    "sign_http",
]

TWIML_CONTENT_TYPE: Final = "application/xml"
TOKEN_PARAMETER: Final = "token"

MAX_FORM_BYTES: Final = 65_536
"""A voice webhook has about 40 fields and 2 kB; SIP headers may add some more."""

_MAX_FIELDS: Final = 300
# A <Parameter>'s name and value together stay under 500 characters.
_MAX_PARAMETER_CHARS: Final = 499
E164: Final = re.compile(r"\+[1-9][0-9]{6,14}", re.ASCII)
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
# E.164, sip:, client:, anonymous, short codes: anything on one line without blanks. A blank is
# what an unescaped plus becomes.
_ADDRESS: Final = re.compile(r"[^\s\x00-\x20\x7f]{1,255}")
_COUNT: Final = re.compile(r"[0-9]{1,9}", re.ASCII)
# Characters that XML 1.0 allows in no form, not even escaped (section 2.2, Char).
_NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# Absent, inbound, outbound-api, outbound-dial; a caller with another one is answered too.
_OUTBOUND: Final = "outbound"


def append_connect(document: VoiceResponse, stream_url: str, token: str) -> None:
    """Put `<Connect><Stream>` behind the verbs that a document holds already.

    Raises:
        LocalProtocolError: a stream address or parameter that Twilio would drop.
    """
    address = urlsplit(stream_url)
    if address.scheme not in ("wss", "ws") or not address.netloc:
        raise LocalProtocolError("a stream address begins with wss:// and names a host")
    if address.query or address.fragment:
        # Twilio drops everything behind the question mark, or fails with 31920.
        raise LocalProtocolError("a stream address takes no query; use parameters")
    connect = Connect()
    stream = connect.stream(url=clean_text(stream_url))
    if len(TOKEN_PARAMETER) + len(token) > _MAX_PARAMETER_CHARS:
        raise LocalProtocolError("the token is longer than Twilio carries")
    stream.parameter(name=TOKEN_PARAMETER, value=clean_text(token))
    document.append(connect)


def refusal_document(
    message: str, *, busy: bool = False, voice: str | None = None, language: str | None = None
) -> str:
    """TwiML for a call that we cannot take: a polite sentence, or the busy tone.

    The busy tone does not answer the call, so it costs nobody anything.
    """
    document = VoiceResponse()
    if busy:
        document.reject(reason="busy")
        return str(document)
    if spoken := clean_text(message).strip():
        document.say(spoken, voice=voice, language=language)
    document.hangup()
    return str(document)


def clean_text(text: str) -> str:
    """Text without what XML cannot carry in any form."""
    return _NOT_XML.sub("", text)


def parse_form(body: bytes | str) -> list[tuple[str, str]]:
    """Fields of a form body or a query string, in their order, repeated and empty ones kept.

    Raises:
        RemoteProtocolError: too large, too many fields, not UTF-8.
    """
    if len(body) > MAX_FORM_BYTES:
        raise RemoteProtocolError(f"the form has more than {MAX_FORM_BYTES} bytes")
    try:
        text = body.decode("ascii") if isinstance(body, bytes) else body
        return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)
    except ValueError as error:  # also UnicodeDecodeError
        raise RemoteProtocolError("the form cannot be read") from error


def read_incoming(form: Form, *, expect_account: str | None = None) -> IncomingCall:
    """The voice webhook's call.

    Raises:
        RemoteProtocolError: a field is missing, repeated or garbled.
        SignatureError: the call is of another account than `expect_account`.
    """
    fields = read_fields(form, _READ, expect_account=expect_account)
    dialed_by, dialed = _address(fields, "From"), _required(_address(fields, "To"), "To")
    # Of a call that was placed to somebody, Twilio's From is our number.
    outbound = fields.get("Direction", "").startswith(_OUTBOUND)
    caller, ours = (dialed, _required(dialed_by, "From")) if outbound else (dialed_by, dialed)
    return IncomingCall(
        carrier_call_id=CarrierCallId(read_id(fields, "CallSid")),
        account_id=read_id(fields, "AccountSid"),
        caller_number=ANONYMOUS if is_withheld(caller) else caller,
        called_number=ours,
        direction=CallDirection.OUTBOUND if outbound else CallDirection.INBOUND,
        caller_verified=fields.get("StirVerstat") == VOUCHED_FOR and not outbound,
        ringing=fields.get("CallStatus") == CallProgress.RINGING.value,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusReport:
    """One status callback. `sequence` orders reports where the carrier numbers them."""

    carrier_call_id: CarrierCallId
    progress: CallProgress
    sequence: int | None = None
    duration_s: int | None = None


def read_status(form: Form, *, expect_account: str | None = None) -> StatusReport:
    """The status callback's report.

    Raises:
        RemoteProtocolError: a field is missing, repeated or garbled.
        SignatureError: the call is of another account than `expect_account`.
    """
    fields = read_fields(form, _READ, expect_account=expect_account)
    try:
        progress = CallProgress(fields.get("CallStatus", ""))
    except ValueError as error:
        raise RemoteProtocolError("the callback's CallStatus is not known") from error
    return StatusReport(
        carrier_call_id=CarrierCallId(read_id(fields, "CallSid")),
        progress=progress,
        sequence=read_count(fields, "SequenceNumber"),
        duration_s=read_count(fields, "CallDuration"),
    )


VOUCHED_FOR: Final = "TN-Validation-Passed-A"
"""STIR/SHAKEN attestation A: the carrier knows the caller and their right to the number. B and C
say nothing of the number; outside of the United States it is absent (Twilio, trusted calling)."""

_READ: Final = frozenset(
    {
        *("AccountSid", "CallSid", "From", "To", "Direction", "StirVerstat"),
        *("CallStatus", "SequenceNumber", "CallDuration"),
    }
)


def read_fields(
    form: Form, names: Collection[str], *, expect_account: str | None = None
) -> dict[str, str]:
    """The fields of these names, and of the account; what else a form holds is not looked at.

    Raises:
        RemoteProtocolError: a field is repeated, or the account is missing.
        SignatureError: the form is of another account than `expect_account`.
    """
    fields: dict[str, str] = {}
    for name, value in form_pairs(form):
        if name not in names and name != "AccountSid":
            continue
        if name in fields:
            raise RemoteProtocolError(f"the webhook has two fields {name}")
        fields[name] = value
    account = read_id(fields, "AccountSid")
    if expect_account is not None and account != expect_account:
        raise SignatureError("the webhook is of another account", code="wrong_account")
    return fields


def _required(value: str, name: str) -> str:
    if not value:
        raise RemoteProtocolError(f"the webhook lacks {name}")
    return value


def read_id(fields: Mapping[str, str], name: str) -> str:
    """A field that holds one of Twilio's ids.

    Raises:
        RemoteProtocolError: it is missing or garbled.
    """
    value = _required(fields.get(name, ""), name)
    if not _ID.fullmatch(value):
        raise RemoteProtocolError(f"the webhook's {name} is not an id")
    return value


def _address(fields: Mapping[str, str], name: str) -> str:
    value = fields.get(name)
    if value is None:
        return _required("", name)
    if name != "To" and is_withheld(value):
        return value
    if not (_ADDRESS.fullmatch(value) and value.isprintable()):
        raise RemoteProtocolError(f"the webhook's {name} is not a number or address")
    return value


def read_count(fields: Mapping[str, str], name: str) -> int | None:
    """A field that holds a count; None where it is missing or empty.

    Raises:
        RemoteProtocolError: it holds something else.
    """
    value = fields.get(name, "")
    if value and not _COUNT.fullmatch(value):
        raise RemoteProtocolError(f"the callback's {name} is not a count")
    return int(value) if value else None
