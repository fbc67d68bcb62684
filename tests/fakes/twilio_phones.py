"""`Phones`: what happens at the phones of a `TwilioApi`, with the webhooks that Twilio would post.

A leg is rung, picked up, keyed and hung up by the test; its documents are followed as far as
transfers go (`Gather`, `Dial` with a conference, `Hangup`). Every webhook is signed and posted over
a real socket; what it was answered is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Self

import httpx2

from app.carrier.twilio.signature import SIGNATURE_HEADER, sign_http
from app.dial.twiml import Verb, parse_twiml
from tests.fakes.twilio_parameters import twiml_fault
from tests.fakes.twilio_rest import ApiCall, ApiConference, TwilioApi
from tests.fakes.waiting import TIME_LIMIT_S

__all__ = ["Phones", "Posted"]

_EVENT_OF = {"in-progress": "answered", "initiated": "initiated", "ringing": "ringing"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """A webhook that was posted, and its answer."""

    url: str
    form: dict[str, str]
    status: int
    text: str


class Phones:
    """The people at the other ends."""

    def __init__(self, api: TwilioApi, *, public_url: str = "", server_url: str = "") -> None:
        """A webhook signed for `public_url` is posted to `server_url`, where they differ."""
        self.api = api
        self._addresses = (public_url, server_url)
        self.posted: list[Posted] = []
        self._client = httpx2.AsyncClient(timeout=TIME_LIMIT_S)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._client.aclose()

    # A leg that was placed by REST --------------------------------------------------------------

    async def ring(self, sid: str) -> None:
        """The phone rings."""
        await self._progress(self.api.calls[sid], "ringing")

    async def pick_up(self, sid: str, *, answered_by: str = "") -> None:
        """Somebody or something picks up; `answered_by` is the detector's verdict."""
        call = self.api.calls[sid]
        await self._progress(call, "in-progress")
        if answered_by and call.option("MachineDetection"):
            await self.post(
                call, call.option("AsyncAmdStatusCallback"), {"AnsweredBy": answered_by}
            )

    async def press(self, sid: str, digits: str) -> None:
        """A key during the question; what it is answered with is followed."""
        call = self.api.calls[sid]
        await self._gathered(call, _gathers(call)[0], digits)

    async def keep_silent(self, sid: str) -> None:
        """All questions pass; the last one may want to know."""
        call = self.api.calls[sid]
        for gather in _gathers(call):
            if gather.attributes.get("actionOnEmptyResult") == "true":
                await self._gathered(call, gather, "")
                return
        await self.end(sid)

    async def end(
        self, sid: str, status: str = "completed", *, sip_code: int | None = None
    ) -> None:
        """The leg ends: hung up, or never picked up."""
        call = self.api.calls[sid]
        extra = {} if sip_code is None else {"SipResponseCode": str(sip_code)}
        await self._leave(call)
        await self._progress(call, status, extra)

    async def report_end(self, sid: str) -> None:
        """Tell of an end that the server's own request has caused."""
        call = self.api.calls[sid]
        await self._leave(call)
        await self._progress(call, call.status)

    # A call that was given a document -----------------------------------------------------------

    async def follow(self, sid: str) -> None:
        """Do what the call's document says first, if it is a conference or the end."""
        call = self.api.calls[sid]
        for verb in call.verbs[:1]:
            rooms = [noun for noun in verb.children if noun.name == "Conference"]
            if verb.name == "Hangup":
                await self.end(sid)
            elif verb.name == "Dial" and rooms:
                await self._enter(call, rooms[0])

    async def dial_ends(self, sid: str, status: str, **fields: str) -> str:
        """The `<Dial>` of a cold transfer is over; the document that follows."""
        call = self.api.calls[sid]
        [dial] = [verb for verb in call.verbs if verb.name == "Dial"]
        return await self._continue(
            call, dial.attributes["action"], {"DialCallStatus": status, **fields}
        )

    async def queue_ends(self, sid: str, result: str) -> str:
        """The `<Enqueue>` of a cold transfer is over; the document that follows."""
        call = self.api.calls[sid]
        [enqueue] = [verb for verb in call.verbs if verb.name == "Enqueue"]
        fields = {"QueueResult": result, "QueueTime": "7"}
        return await self._continue(call, enqueue.attributes["action"], fields)

    # Steps ----------------------------------------------------------------------------------------

    async def post(self, call: ApiCall, url: str, fields: dict[str, str]) -> Posted:
        """A signed webhook about a call."""
        form = {
            "AccountSid": self.api.account_sid,
            "ApiVersion": "2010-04-01",
            "CallSid": call.sid,
            "CallStatus": call.status,
            "Direction": call.direction,
            "From": call.from_,
            "To": call.to,
            **fields,
        }
        signature = sign_http(self.api.auth_token, url, form)
        answer = await self._client.post(
            url.replace(*self._addresses), data=form, headers={SIGNATURE_HEADER: signature}
        )
        posted = Posted(url=url, form=form, status=answer.status_code, text=answer.text)
        self.posted.append(posted)
        return posted

    async def _continue(self, call: ApiCall, url: str, fields: dict[str, str]) -> str:
        answer = await self.post(call, url, fields)
        assert twiml_fault(parse_twiml(answer.text, "text/xml")) is None, answer.text
        call.documents.append(answer.text)
        await self.follow(call.sid)
        return answer.text

    async def _gathered(self, call: ApiCall, gather: Verb, digits: str) -> None:
        await self._continue(call, gather.attributes["action"], {"Digits": digits})

    async def _progress(
        self, call: ApiCall, status: str, extra: dict[str, str] | None = None
    ) -> None:
        call.status = status
        event = _EVENT_OF.get(status, "completed")
        wanted = call.options.get("StatusCallbackEvent", ["completed"])
        if call.option("StatusCallback") and event in wanted:
            await self.post(call, call.option("StatusCallback"), extra or {})

    async def _enter(self, call: ApiCall, noun: Verb) -> None:
        room = self.api.conference_named(noun.text)
        room.participants[call.sid] = dict(noun.attributes)
        if noun.attributes.get("startConferenceOnEnter", "true") == "true":
            room.status = "in-progress"
        await self._tell(room, call, "participant-join", dict(noun.attributes))

    async def _leave(self, call: ApiCall) -> None:
        for room in self.api.conferences.values():
            attributes = room.participants.pop(call.sid, None)
            if attributes is None:
                continue
            await self._tell(room, call, "participant-leave", attributes)
            if attributes.get("endConferenceOnExit") == "true" or not room.participants:
                await self._close(room, call, attributes)

    async def _close(self, room: ApiConference, by: ApiCall, attributes: dict[str, str]) -> None:
        room.status = "completed"
        others = [self.api.calls[sid] for sid in room.participants]
        room.participants.clear()
        await self._tell(room, by, "conference-end", attributes)
        for other in others:
            action = other.verbs[0].attributes.get("action")
            if action:
                await self._continue(other, action, {"DialCallStatus": "answered"})
            else:
                await self._progress(other, "completed")

    async def _tell(
        self, room: ApiConference, call: ApiCall, event: str, attributes: dict[str, str]
    ) -> None:
        events = attributes.get("statusCallbackEvent", "").split()
        if event.rpartition("-")[2] not in events:
            return
        fields = {"ConferenceSid": room.sid, "FriendlyName": room.name}
        if event.startswith("participant"):
            fields["ParticipantLabel"] = attributes.get("participantLabel", "")
        await self.post(
            call, attributes["statusCallback"], {**fields, "StatusCallbackEvent": event}
        )


def _gathers(call: ApiCall) -> list[Verb]:
    return [verb for verb in call.verbs if verb.name == "Gather"]
