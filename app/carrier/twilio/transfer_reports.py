"""Twilio's reports of transfers: reads the forms of webhooks, and gives the outcomes they mean.

Pure. Strict about the fields that are used; ignores the rest. A webhook's address names its
transfer, and its form does not.

Follows Twilio voice/twiml/dial (action parameters), enqueue, gather, conference (status callback),
answering-machine-detection and the call status callback (2026-11); RFC 3261 section 21 for what a
SIP response code means.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from app.carrier.base import (
    CallProgress,
    CarrierCallId,
    LegStatus,
    Screening,
    TransferOutcome,
    TransferResult,
)
from app.carrier.twilio.http import read_count, read_fields, read_id
from app.carrier.twilio.signature import Form
from app.errors import RemoteProtocolError

__all__ = [
    "AnsweredBy",
    "ConferenceEvent",
    "ConferenceReport",
    "DialReport",
    "KeysReport",
    "LegReport",
    "MachineReport",
    "Screening",
    "dial_result",
    "leg_result",
    "leg_status",
    "read_conference",
    "read_dial",
    "read_keys",
    "read_leg",
    "read_machine",
    "read_queue_wait",
]

_DIGITS: Final = re.compile(r"[0-9*#A-D]{0,32}", re.ASCII)
_WORD: Final = re.compile(r"[a-z_-]{1,40}", re.ASCII)


class AnsweredBy(StrEnum):
    """The party that picked up, according to a detector."""

    HUMAN = "human"
    MACHINE = "machine"
    UNKNOWN = "unknown"


class ConferenceEvent(StrEnum):
    """The events of a conference that matter here."""

    JOINED = "participant-join"
    LEFT = "participant-leave"
    ENDED = "conference-end"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class DialReport:
    """The end of a `<Dial>` or `<Enqueue>`. `caller_gone`: the caller hung up."""

    carrier_call_id: CarrierCallId
    status: str
    queued: bool = False
    bridged: bool = True
    caller_gone: bool = False
    sip_code: int | None = None
    duration_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LegReport:
    """Progress of the leg that a warm transfer placed."""

    leg_id: CarrierCallId
    progress: CallProgress
    sip_code: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysReport:
    """The keys of a person; no digits when they let the question pass."""

    leg_id: CarrierCallId
    digits: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineReport:
    """The detector's verdict on a leg."""

    leg_id: CarrierCallId
    answered_by: AnsweredBy


@dataclass(frozen=True, slots=True, kw_only=True)
class ConferenceReport:
    """One event of a conference; `label` is the participant's, such as `caller`."""

    event: ConferenceEvent
    label: str = ""
    leg_id: CarrierCallId | None = None


# Forms --------------------------------------------------------------------------------------------

_DIAL_FIELDS: Final = frozenset(
    {
        *("CallSid", "CallStatus", "DialCallStatus", "DialCallDuration", "DialBridged"),
        *("DialSipResponseCode", "QueueResult", "QueueTime"),
    }
)


def read_dial(form: Form, *, expect_account: str | None = None) -> DialReport:
    """Read the form of `<Dial action>` or `<Enqueue action>`.

    Raises:
        RemoteProtocolError: a field is missing, repeated or garbled.
        SignatureError: the call is of another account than `expect_account`.
    """
    fields = read_fields(form, _DIAL_FIELDS, expect_account=expect_account)
    queued = "QueueResult" in fields and "DialCallStatus" not in fields
    status = fields.get("QueueResult" if queued else "DialCallStatus", "")
    if not _WORD.fullmatch(status):
        raise RemoteProtocolError("the webhook does not say how the transfer ended")
    return DialReport(
        carrier_call_id=CarrierCallId(read_id(fields, "CallSid")),
        status=status,
        queued=queued,
        # Told of dialed calls only, and not by every edition of the API.
        bridged=fields.get("DialBridged", "true").lower() != "false",
        caller_gone=_ended(fields) or (queued and status == "hangup"),
        sip_code=read_count(fields, "DialSipResponseCode"),
        duration_s=read_count(fields, "QueueTime" if queued else "DialCallDuration"),
    )


def _ended(fields: Mapping[str, str]) -> bool:
    try:
        return CallProgress(fields.get("CallStatus", "in-progress")).ended
    except ValueError as error:
        raise RemoteProtocolError("the webhook's CallStatus is not known") from error


def read_leg(form: Form, *, expect_account: str | None = None) -> LegReport:
    """Read the form of a leg's status callback.

    Raises:
        RemoteProtocolError, SignatureError: as for `read_dial`.
    """
    names = {"CallSid", "CallStatus", "SipResponseCode"}
    fields = read_fields(form, names, expect_account=expect_account)
    try:
        progress = CallProgress(fields.get("CallStatus", ""))
    except ValueError as error:
        raise RemoteProtocolError("the callback's CallStatus is not known") from error
    return LegReport(
        leg_id=CarrierCallId(read_id(fields, "CallSid")),
        progress=progress,
        sip_code=read_count(fields, "SipResponseCode"),
    )


def read_keys(form: Form, *, expect_account: str | None = None) -> KeysReport:
    """Read the form of `<Gather action>`.

    Raises:
        RemoteProtocolError, SignatureError: as for `read_dial`.
    """
    fields = read_fields(form, {"CallSid", "Digits"}, expect_account=expect_account)
    digits = fields.get("Digits", "")
    if not _DIGITS.fullmatch(digits):
        raise RemoteProtocolError("the webhook's Digits are not keys")
    return KeysReport(leg_id=CarrierCallId(read_id(fields, "CallSid")), digits=digits)


def read_machine(form: Form, *, expect_account: str | None = None) -> MachineReport:
    """Read the form of the detector of answering machines.

    Raises:
        RemoteProtocolError, SignatureError: as for `read_dial`.
    """
    fields = read_fields(form, {"CallSid", "AnsweredBy"}, expect_account=expect_account)
    verdict = fields.get("AnsweredBy", "")
    if verdict == "fax" or verdict.startswith("machine_"):
        answered_by = AnsweredBy.MACHINE
    else:
        answered_by = AnsweredBy.HUMAN if verdict == "human" else AnsweredBy.UNKNOWN
    return MachineReport(leg_id=CarrierCallId(read_id(fields, "CallSid")), answered_by=answered_by)


def read_conference(form: Form, *, expect_account: str | None = None) -> ConferenceReport:
    """Read the form of a conference's status callback.

    Raises:
        RemoteProtocolError, SignatureError: as for `read_dial`.
    """
    names = {"CallSid", "StatusCallbackEvent", "ParticipantLabel"}
    fields = read_fields(form, names, expect_account=expect_account)
    try:
        event = ConferenceEvent(fields.get("StatusCallbackEvent", ""))
    except ValueError:
        event = ConferenceEvent.OTHER
    label = fields.get("ParticipantLabel", "")
    return ConferenceReport(
        event=event,
        label=label if _WORD.fullmatch(label) else "",
        leg_id=CarrierCallId(read_id(fields, "CallSid")) if fields.get("CallSid") else None,
    )


def read_queue_wait(form: Form, *, expect_account: str | None = None) -> int:
    """For how many seconds the caller has waited in the queue.

    Raises:
        RemoteProtocolError, SignatureError: as for `read_dial`.
    """
    fields = read_fields(form, {"CallSid", "QueueTime"}, expect_account=expect_account)
    read_id(fields, "CallSid")
    return read_count(fields, "QueueTime") or 0


# Outcomes -----------------------------------------------------------------------------------------

_DIALED: Final = {
    "completed": TransferOutcome.ANSWERED,
    "answered": TransferOutcome.ANSWERED,  # of a conference
    "busy": TransferOutcome.BUSY,
    "no-answer": TransferOutcome.NO_ANSWER,
    "failed": TransferOutcome.FAILED,
    "canceled": TransferOutcome.CANCELED,
}
_QUEUED: Final = {
    "bridged": TransferOutcome.ANSWERED,
    "bridging-in-process": TransferOutcome.ANSWERED,
    "redirected-from-bridged": TransferOutcome.ANSWERED,
    "leave": TransferOutcome.NO_ANSWER,
    "queue-full": TransferOutcome.BUSY,
    "hangup": TransferOutcome.CANCELED,
}
_SCREENED: Final = {
    Screening.DECLINED: TransferOutcome.DECLINED,
    # Somebody picked up and pressed nothing while the question was asked twice.
    Screening.NO_KEY: TransferOutcome.VOICEMAIL,
    Screening.MACHINE: TransferOutcome.VOICEMAIL,
}
_BY_SIP_CODE: Final = {
    408: TransferOutcome.NO_ANSWER,  # Request Timeout
    480: TransferOutcome.NO_ANSWER,  # Temporarily Unavailable
    486: TransferOutcome.BUSY,  # Busy Here
    600: TransferOutcome.BUSY,  # Busy Everywhere
    603: TransferOutcome.DECLINED,  # Decline
    607: TransferOutcome.DECLINED,  # Unwanted (RFC 8197)
}


def dial_result(report: DialReport, screening: Screening | None = None) -> TransferResult:
    """The outcome of a cold transfer; `screening` is what a screened person did."""
    if report.queued:
        outcome = _QUEUED.get(report.status, TransferOutcome.FAILED)
        return TransferResult(outcome, f"queue={report.status}")
    outcome = _DIALED.get(report.status, TransferOutcome.FAILED)
    evidence = f"dial={report.status}"
    if screening in _SCREENED:
        outcome, evidence = _SCREENED[screening], f"{evidence} screening={screening.value}"
    elif outcome is TransferOutcome.ANSWERED and not report.bridged:
        # Picked up and hung up again before the two were connected.
        outcome, evidence = TransferOutcome.DECLINED, f"{evidence} bridged=false"
    elif outcome is not TransferOutcome.ANSWERED and report.sip_code is not None:
        outcome = _BY_SIP_CODE.get(report.sip_code, outcome)
        evidence = f"{evidence} sip={report.sip_code}"
    if report.caller_gone and outcome is not TransferOutcome.ANSWERED:
        outcome = TransferOutcome.CANCELED
    return TransferResult(outcome, evidence)


_LEG: Final = {
    CallProgress.COMPLETED: TransferOutcome.DECLINED,  # picked up, no key, hung up
    CallProgress.BUSY: TransferOutcome.BUSY,
    CallProgress.NO_ANSWER: TransferOutcome.NO_ANSWER,
    CallProgress.FAILED: TransferOutcome.FAILED,
    CallProgress.CANCELED: TransferOutcome.CANCELED,
}


def leg_result(report: LegReport) -> TransferResult:
    """The outcome of a leg that ended before its person accepted."""
    outcome = _LEG.get(report.progress, TransferOutcome.FAILED)
    evidence = f"leg={report.progress.value}"
    if report.sip_code is not None and report.progress is not CallProgress.COMPLETED:
        outcome = _BY_SIP_CODE.get(report.sip_code, outcome)
        evidence = f"{evidence} sip={report.sip_code}"
    return TransferResult(outcome, evidence)


def leg_status(report: LegReport) -> LegStatus:
    """The same in the carrier's common words."""
    result = leg_result(report) if report.progress.ended else None
    return LegStatus(leg_id=report.leg_id, progress=report.progress, result=result)
