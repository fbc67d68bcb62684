"""The documents of transfers, tones and the way back: TwiML for calls that leave their stream.

Pure. `Site` holds the addresses that documents send Twilio to; `transfer_reports.py` reads what
webhooks bring back. Addresses that are dialed come from `Destination` values, which are made of
configuration.

Follows Twilio voice/twiml: dial, number, sip, conference, enqueue, leave, gather, play (2026-11).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlencode

from twilio.twiml.voice_response import Dial, Enqueue, Gather, Play, VoiceResponse

from app.carrier.base import (
    CallerIdPolicy,
    Destination,
    DestinationKind,
    Fallback,
    LegAnswer,
    TransferId,
    TransferOrder,
    TransferPaths,
)
from app.carrier.destinations import digits_fault
from app.carrier.twilio.forward import append_forward
from app.carrier.twilio.http import E164, append_connect, clean_text
from app.errors import LocalProtocolError

__all__ = [
    "CALLER_LABEL",
    "MAX_TWIML_CHARS",
    "TRANSFER_PATHS",
    "Site",
    "after_transfer_document",
    "answer_document",
    "conference_name",
    "digits_document",
    "join_document",
    "queue_wait_document",
    "return_document",
    "transfer_document",
    "whisper_document",
]

MAX_TWIML_CHARS: Final = 4_000
"""The limit of REST for the `Twiml` of a call (voice/api/call-resource)."""

CALLER_LABEL: Final = "caller"
"""The caller's label in the conference of a warm transfer."""

_TRANSFER_ID: Final = re.compile(r"[A-Za-z0-9_-]{8,64}", re.ASCII)
_HANG_UP: Final = '<?xml version="1.0" encoding="UTF-8"?><Response><Hangup /></Response>'
_GO_ON: Final = '<?xml version="1.0" encoding="UTF-8"?><Response />'
_MIN_PROMPT_CHARS: Final = 80
_QUEUE_POLL_S: Final = 5


TRANSFER_PATHS: Final = TransferPaths(
    over="/twilio/after-transfer",
    question="/twilio/transfer-screen",
    keys="/twilio/transfer-keys",
    machine="/twilio/leg-machine",
    leg="/twilio/leg-status",
    conference="/twilio/conference",
    queue_wait="/twilio/queue-wait",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """This server as documents name it: its addresses, and the sentences that Twilio speaks.

    Every address wants a signature. `own_number` is the caller id for calls over SIP, where the
    called number is not ours.
    """

    base_url: str
    stream_path: str
    lost_message: str
    busy_message: str = ""
    paths: TransferPaths = TRANSFER_PATHS
    keys_hint: str = "Press 1 to take the call, or 2 to decline."
    voice: str | None = None
    language: str | None = None
    own_number: str = ""

    def ours(self, called: str) -> str:
        """The number to call from: the one that was called, or `own_number` where it was none."""
        return called if E164.fullmatch(called) else self.own_number or called

    @property
    def stream_url(self) -> str:
        """The address of the media websocket."""
        scheme, _, rest = self.base_url.rstrip("/").partition("://")
        return f"{'wss' if scheme == 'https' else 'ws'}://{rest}{self.stream_path}"

    def placed_url(self, path: str, reference: str) -> str:
        """The address of a route, for one call that we place.

        Raises:
            LocalProtocolError: a reference that is not fit for an address.
        """
        if not _TRANSFER_ID.fullmatch(reference):
            raise LocalProtocolError("a reference has 8 to 64 URL-safe characters")
        return f"{self.base_url.rstrip('/')}{path}?{urlencode({'placed': reference})}"

    def url(self, path: str, transfer_id: TransferId) -> str:
        """The address of a route, for one transfer.

        Raises:
            LocalProtocolError: an id that is not fit for an address.
        """
        if not _TRANSFER_ID.fullmatch(transfer_id):
            raise LocalProtocolError("a transfer id has 8 to 64 URL-safe characters")
        return f"{self.base_url.rstrip('/')}{path}?{urlencode({'transfer': transfer_id})}"


# The caller's side --------------------------------------------------------------------------------


def transfer_document(order: TransferOrder, site: Site) -> str:
    """A cold transfer: the caller hears the destination ring, and comes back by `action`."""
    document, destination = VoiceResponse(), order.destination
    action = site.url(site.paths.over, order.transfer_id)
    if destination.kind is DestinationKind.QUEUE:
        wait = site.url(site.paths.queue_wait, order.transfer_id)
        enqueue = Enqueue(destination.address, action=action, method="POST", wait_url=wait)
        document.append(enqueue)
        return str(document)
    dial = Dial(
        action=action,
        method="POST",
        timeout=destination.ring_s,
        caller_id=_caller_id(order, site),
        # The caller hears it ring until the two are connected, also while a person listens to
        # the question for a key.
        answer_on_bridge=True,
    )
    options = _screening(destination, order.transfer_id, site)
    if destination.kind is DestinationKind.SIP:
        dial.sip(destination.address, **options)
    else:
        dial.number(destination.address, send_digits=destination.extension or None, **options)
    document.append(dial)
    return str(document)


def _caller_id(order: TransferOrder, site: Site) -> str | None:
    """The number to show; without one Twilio shows the caller's."""
    if order.destination.caller_id is CallerIdPolicy.CALLER and E164.fullmatch(order.caller_number):
        return order.caller_number
    return site.ours(order.our_number) or None


def _screening(destination: Destination, transfer_id: TransferId, site: Site) -> dict[str, str]:
    options: dict[str, str] = {}
    if destination.screened:
        options |= {"url": site.url(site.paths.question, transfer_id), "method": "POST"}
    if destination.detect_voicemail:
        options |= {
            "machine_detection": "Enable",
            "amd_status_callback": site.url(site.paths.machine, transfer_id),
            "amd_status_callback_method": "POST",
        }
    return options


def join_document(transfer_id: TransferId, site: Site) -> str:
    """The caller's way into the conference of a warm transfer."""
    document = VoiceResponse()
    dial = Dial(action=site.url(site.paths.over, transfer_id), method="POST")
    _conference(dial, transfer_id, site, label=CALLER_LABEL)
    document.append(dial)
    return str(document)


def conference_name(transfer_id: TransferId) -> str:
    """The name of a transfer's conference at Twilio, where names are the account's."""
    return f"trunkline-{transfer_id}"


def _conference(dial: Dial, transfer_id: TransferId, site: Site, *, label: str) -> None:
    # The first to leave ends it, so that nobody is left behind alone.
    dial.conference(
        conference_name(transfer_id),
        start_conference_on_enter=True,
        end_conference_on_exit=True,
        beep="false",
        wait_url="",
        max_participants=2,
        participant_label=label,
        status_callback=site.url(site.paths.conference, transfer_id),
        status_callback_event="join leave end",
        status_callback_method="POST",
    )


def return_document(site: Site, token: str, fallback: Fallback | None = None) -> str:
    """To the agent: a stream, for a new conversation or for the one that there was.

    The verbs after it run when the agent is lost while the caller is still there: a sentence, and
    the way to the fallback where there is one.
    """
    document = VoiceResponse()
    append_connect(document, site.stream_url, token)
    _append_lost(document, site, fallback)
    return str(document)


def _append_lost(document: VoiceResponse, site: Site, fallback: Fallback | None) -> None:
    if spoken := clean_text(site.lost_message).strip():
        document.say(spoken, voice=site.voice, language=site.language)
    if fallback is None:
        document.hangup()
    else:
        ours = site.ours(fallback.our_number)
        append_forward(document, replace(fallback, our_number=ours))


def after_transfer_document(site: Site, token: str | None, fallback: Fallback | None = None) -> str:
    """The document after a transfer: the agent again with a token, else the end of the call."""
    return _HANG_UP if token is None else return_document(site, token, fallback)


def digits_document(digits: str, site: Site, token: str, fallback: Fallback | None = None) -> str:
    """Tones, and then a new stream for the same conversation.

    Raises:
        LocalProtocolError: what cannot be sent as tones.
    """
    if fault := digits_fault(digits):
        raise LocalProtocolError(fault)
    document = VoiceResponse()
    document.append(Play(digits=digits))
    append_connect(document, site.stream_url, token)
    _append_lost(document, site, fallback)
    return str(document)


def queue_wait_document(waited_s: int, limit_s: int) -> str:
    """The wait of a caller in a queue; past the limit they leave it, and `action` follows."""
    document = VoiceResponse()
    left_s = limit_s - waited_s
    if left_s <= 0:
        document.leave()
        return str(document)
    # Requested again at its end: short pauses keep the limit.
    document.pause(length=min(left_s, _QUEUE_POLL_S))
    return str(document)


# The person's side --------------------------------------------------------------------------------


def whisper_document(prompt: str, transfer_id: TransferId, site: Site) -> str:
    """The words for a person who is called: the prompt and the question for a key, twice.

    A key, or its absence after the second time, is posted to `paths.keys`. A prompt that is too
    long for a REST request is cut at a blank.
    """
    text = " ".join(clean_text(prompt).split())
    while True:
        document = _whisper(text, transfer_id, site)
        excess = len(document) - MAX_TWIML_CHARS
        if excess <= 0:
            return document
        if len(text) <= _MIN_PROMPT_CHARS:
            raise LocalProtocolError("the whisper does not fit into a request")
        text = text[: max(_MIN_PROMPT_CHARS, len(text) - max(8, excess // 2))]
        text = text.rpartition(" ")[0] or text


def _whisper(prompt: str, transfer_id: TransferId, site: Site) -> str:
    document = VoiceResponse()
    for last in (False, True):
        gather = Gather(
            input="dtmf",
            num_digits=1,
            timeout=4 if not last else 6,
            action=site.url(site.paths.keys, transfer_id),
            method="POST",
            # Silence is an answer as well, but only the second time.
            action_on_empty_result=True if last else None,
        )
        spoken = f"{prompt} {clean_text(site.keys_hint)}".strip()
        gather.say(spoken, voice=site.voice, language=site.language)
        document.append(gather)
    document.hangup()
    return str(document)


def answer_document(answer: LegAnswer, transfer_id: TransferId, site: Site) -> str:
    """The reply to the key: an empty document lets the `<Dial>` of a cold transfer connect."""
    if answer is LegAnswer.CONNECT:
        return _GO_ON
    if answer is not LegAnswer.JOIN:
        return _HANG_UP
    document, dial = VoiceResponse(), Dial()
    _conference(dial, transfer_id, site, label="person")
    document.append(dial)
    return str(document)
