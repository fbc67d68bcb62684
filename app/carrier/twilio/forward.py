"""TwiML for calls that are put through at once, without an agent: out of hours, or at capacity.

Pure. The outcome is not reported: the call is over when the person who is called hangs up or does
not answer. Follows Twilio voice/twiml: say, dial, number, sip, enqueue (2026-11).
"""

from __future__ import annotations

from twilio.twiml.voice_response import Dial, VoiceResponse

from app.carrier.base import CallerIdPolicy, DestinationKind, Fallback
from app.carrier.twilio.http import E164, clean_text

__all__ = ["append_forward", "forward_document"]


def forward_document(
    fallback: Fallback, say: str, *, voice: str | None = None, language: str | None = None
) -> str:
    """Say something, if there is anything to say, and connect the caller to somebody else.

    The question for a key that a screened destination gets in a transfer is left out: nobody would
    be there to take the caller back.
    """
    document = VoiceResponse()
    if spoken := clean_text(say).strip():
        document.say(spoken, voice=voice, language=language)
    append_forward(document, fallback)
    return str(document)


def append_forward(document: VoiceResponse, fallback: Fallback) -> None:
    """Put the way to somebody else, and the end of the call, behind the verbs of a document."""
    to = fallback.to
    if to.kind is DestinationKind.QUEUE:
        document.enqueue(to.address)
        return
    dial = Dial(timeout=to.ring_s, caller_id=_caller_id(fallback), answer_on_bridge=True)
    if to.kind is DestinationKind.SIP:
        dial.sip(to.address)
    else:
        dial.number(to.address, send_digits=to.extension or None)
    document.append(dial)
    document.hangup()


def _caller_id(fallback: Fallback) -> str | None:
    """The number to show; without one Twilio shows the caller's, which has to be a number."""
    if fallback.to.caller_id is CallerIdPolicy.CALLER:
        known = fallback.caller_number
        if not known or E164.fullmatch(known):
            return known or None  # a document that is made for every caller knows none
    return fallback.our_number or None
