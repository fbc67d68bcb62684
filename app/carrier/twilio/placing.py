"""Twilio's reports of calls that we place: reads the forms, and says in plain words what they mean.

Pure. A webhook's address names the call, and its form does not.

Follows Twilio voice/api/call-resource (status callback), voice/answering-machine-detection
(2026-11), and RFC 3261 section 21, RFC 8197 (607) and RFC 8688 (608) for what SIP codes mean.
"""

from __future__ import annotations

import re
from typing import Final

from app.carrier.base import CallProgress, CarrierCallId, PlacedReport, PlacingPaths
from app.carrier.twilio.http import read_count, read_fields, read_id
from app.carrier.twilio.signature import Form
from app.errors import RemoteProtocolError

__all__ = ["PLACING_PATHS", "read_placed", "read_verdict", "report_of"]

PLACING_PATHS: Final = PlacingPaths(
    answer="/twilio/placed-answer",
    status="/twilio/placed-status",
    machine="/twilio/placed-machine",
)
_VERDICT: Final = re.compile(r"[a-z_]{1,40}", re.ASCII)
_MS: Final = 1_000_000

_PROGRESS_WORDS: Final = {
    CallProgress.BUSY: "the line was busy",
    CallProgress.NO_ANSWER: "nobody answered",
    CallProgress.CANCELED: "the call was canceled before anybody answered",
    CallProgress.FAILED: "the network could not connect the call",
}
_SIP_WORDS: Final = {
    400: "the network did not understand the call",
    401: "the network did not let the call through: it wants credentials",
    403: "the network forbids the call",
    404: "the number does not exist",
    405: "the network does not take such calls",
    408: "the phone did not react in time",
    410: "the number is not in use any more",
    480: "the phone is off or out of reach",
    484: "the number is not complete",
    486: "the line was busy",
    487: "the call was canceled before anybody answered",
    488: "the phone and the network do not speak the same codec",
    500: "the network failed",
    502: "the network failed",
    503: "the network has no line free",
    504: "the network did not answer in time",
    600: "all phones of the number were busy",
    603: "the call was declined, by the person or by a filter of the network",
    604: "the number does not exist anywhere",
    607: "the person, or a filter of theirs, has marked our calls as unwanted",
    608: "a filter of the network has rejected the call",
}


def report_of(
    carrier_call_id: CarrierCallId, progress: CallProgress, sip_code: int | None = None
) -> PlacedReport:
    """A call's progress with the reason, where it came to nothing."""
    if not progress.ended or progress is CallProgress.COMPLETED:
        return PlacedReport(carrier_call_id=carrier_call_id, progress=progress)
    words = _SIP_WORDS.get(sip_code or 0) or _PROGRESS_WORDS[progress]
    code = progress.value.replace("-", "_") if sip_code is None else f"sip_{sip_code}"
    return PlacedReport(carrier_call_id=carrier_call_id, progress=progress, code=code, reason=words)


def read_placed(form: Form, *, expect_account: str | None = None) -> PlacedReport:
    """Read the form of the status callback of a call that we placed.

    Raises:
        RemoteProtocolError: a field is missing, repeated or garbled.
        SignatureError: the call is of another account than `expect_account`.
    """
    names = {"CallSid", "CallStatus", "SipResponseCode"}
    fields = read_fields(form, names, expect_account=expect_account)
    try:
        progress = CallProgress(fields.get("CallStatus", ""))
    except ValueError as error:
        raise RemoteProtocolError("the callback's CallStatus is not known") from error
    sip_code = read_count(fields, "SipResponseCode")
    return report_of(CarrierCallId(read_id(fields, "CallSid")), progress, sip_code)


def read_verdict(
    form: Form, *, expect_account: str | None = None
) -> tuple[CarrierCallId, str, int]:
    """Read the detector's form: the call, what it says, and for how many ms it listened.

    Raises:
        RemoteProtocolError, SignatureError: as for `read_placed`.
    """
    names = {"CallSid", "AnsweredBy", "MachineDetectionDuration"}
    fields = read_fields(form, names, expect_account=expect_account)
    verdict = fields.get("AnsweredBy", "")
    if not _VERDICT.fullmatch(verdict):
        raise RemoteProtocolError("the callback's AnsweredBy is not a word")
    after_ms = min(read_count(fields, "MachineDetectionDuration") or 0, _MS)
    return CarrierCallId(read_id(fields, "CallSid")), verdict, after_ms
