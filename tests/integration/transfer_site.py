"""A carrier whose phones and REST API belong together: calls that are transferred and come back.

`FakeTwilio` holds the media streams, `TwilioApi` answers requests; a call that gets a new document
leaves its stream at once, as Twilio's do, and what follows is played by the test.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from app.calls.call import Call
from app.carrier.base import CarrierCallId
from app.dial.carrier_http import TwimlAnswer
from app.dial.twiml import Verb
from app.events import ToolRan
from app.realtime.events import ItemCreate
from tests.fakes.carrier import FakeCall, FakeTwilio, Ringing
from tests.fakes.twilio_phones import Phones
from tests.fakes.twilio_rest import ApiCall, TwilioApi
from tests.fakes.voice import Reply, ScriptedVoiceServer
from tests.fakes.waiting import until
from tests.integration.server import App, trunkline

__all__ = [
    "CALLER",
    "FRONT_DESK",
    "OURS",
    "TransferSite",
    "answered",
    "asks_for",
    "output",
    "transfer_site",
]

OURS: Final = "+15005550001"
CALLER: Final = "+15005550006"
PUBLIC_URL: Final = "https://voice.example.com"
FRONT_DESK: Final = "+14155550123"

DESTINATIONS: Final[Mapping[str, Any]] = {
    "front_desk": {"number": FRONT_DESK},
    "anna": {"sip": "sip:anna@pbx.example.com"},
    "guarded": {"number": FRONT_DESK, "screened": True},
    "listened": {"number": FRONT_DESK, "detect_voicemail": True},
    "line": {"queue": "support"},
    "boss": {"number": FRONT_DESK, "mode": "warm", "detect_voicemail": True},
}
TOOLS: Final = ["end_call", "transfer_call", "send_dtmf", "send_sms"]


def asks_for(tool: str, audio_ms: int = 300, **arguments: Any) -> list[Reply]:
    """A greeting, an answer that calls a tool, and what is said after it."""
    return [
        Reply(audio_ms=300, text="Good day."),
        Reply(audio_ms=audio_ms, text="One moment.", tool=(tool, json.dumps(arguments))),
        Reply(audio_ms=400, text="I am still with you."),
    ]


def output(voice: ScriptedVoiceServer, nth: int = 0) -> dict[str, Any]:
    """The output of a tool, as the model got it."""
    items = [create.item for create in voice.latest.of(ItemCreate)]
    outputs = [item.output for item in items if item.type == "function_call_output"]
    found: dict[str, Any] = json.loads(outputs[nth] or "")
    return found


async def answered(voice: ScriptedVoiceServer, nth: int = 0) -> dict[str, Any]:
    """The same, as soon as the model gets it."""

    def has_output() -> bool:
        items = [create.item for create in voice.latest.of(ItemCreate)]
        return len([item for item in items if item.type == "function_call_output"]) > nth

    await until(has_output)
    return output(voice, nth)


@dataclass
class TransferSite:
    """A server with an account, and everything at the carrier's side."""

    app: App
    api: TwilioApi
    twilio: FakeTwilio
    phones: Phones
    streams: dict[str, FakeCall] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.api.redirected = self._take_off

    def _take_off(self, call: ApiCall) -> None:
        self.streams[call.sid].leave_stream()

    async def call(self) -> FakeCall:
        """A call in which the greeting was heard, and the caller has said something."""
        ringing = await self.twilio.ring(self.app.url, caller_number=CALLER, called_number=OURS)
        self.api.add_call(ringing.caller.call_id)
        call = await self._connect(ringing)
        await call.hear_quiet(ms=300)
        await call.speak(0.4)
        return call

    async def _connect(self, ringing: Ringing) -> FakeCall:
        call = await ringing.connect()
        self.streams[ringing.caller.call_id] = call
        return call

    def at_carrier(self, call: FakeCall) -> ApiCall:
        return self.api.calls[call.identity.call_id]

    async def leaves(self, call: FakeCall) -> Verb:
        """Wait until the call has a document and no stream; the document's first verb."""
        await until(lambda: bool(self.at_carrier(call).documents))
        await call.ended()
        return self.at_carrier(call).verbs[0]

    async def is_away(self, call: FakeCall) -> None:
        """Wait until the server knows that the caller has left: REST has answered it as well."""
        sid = CarrierCallId(call.identity.call_id)
        held = self.app.switchboard._admissions[sid].call
        assert isinstance(held, Call)
        await until(lambda: held._caller_leg.away)

    async def post(self, call: FakeCall, url: str, status: str, **fields: str) -> Ringing:
        """A signed webhook about the call, and the document that it is answered with."""
        webhooks = call.ringing.webhooks
        answer = await webhooks.ask(webhooks.absolute(self.app.url, url), status, fields)
        return Ringing(self.twilio, call.ringing.caller, webhooks, answer)

    async def dial_ends(self, call: FakeCall, status: str, **fields: str) -> Ringing:
        """The `<Dial>` is over; the document that follows."""
        action = self.at_carrier(call).verbs[0].attributes["action"]
        call_status = fields.pop("CallStatus", "in-progress")
        return await self.post(call, action, call_status, DialCallStatus=status, **fields)

    async def comes_back(self, ringing: Ringing) -> FakeCall:
        """Follow a document back to a stream."""
        return await self._connect(ringing)

    def dialed_on(self, call: FakeCall) -> Ringing:
        """The sentences of the call's document itself, without another webhook."""
        webhooks = call.ringing.webhooks
        answer = TwimlAnswer(self.app.url, self.at_carrier(call).verbs)
        return Ringing(self.twilio, call.ringing.caller, webhooks, answer)

    async def leg(self) -> str:
        """Wait until a person is called; the id of the leg that was placed last."""
        await until(lambda: bool(self._legs()))
        return self._legs()[-1]

    @property
    def leg_count(self) -> int:
        """The number of people called so far."""
        return len(self._legs())

    def _legs(self) -> list[str]:
        return [sid for sid, call in self.api.calls.items() if call.direction != "inbound"]

    async def tool_ran(self, call: FakeCall) -> ToolRan:
        return await self.app.event(call, ToolRan)


@contextlib.asynccontextmanager
async def transfer_site(
    voice: ScriptedVoiceServer,
    *,
    policy: Mapping[str, Any] | None = None,
    **sections: Mapping[str, Any],
) -> AsyncIterator[TransferSite]:
    """A server with an account, destinations and an agent that may transfer callers."""
    async with TwilioApi(numbers=[{"phone_number": OURS}]) as api:
        live = {
            "twilio": {
                "account_sid": api.account_sid,
                "auth_token": api.auth_token,
                "rest_url": api.url,
                **sections.pop("twilio", {}),
            },
            "server": {"public_url": PUBLIC_URL},
            "destinations": DESTINATIONS,
            "agents": {"agent": {"tools": TOOLS}},
            **sections,
        }
        async with (
            trunkline(voice, policy=policy, **live) as app,
            app.twilio() as twilio,
            Phones(api, public_url=PUBLIC_URL, server_url=app.url) as phones,
        ):
            yield TransferSite(app, api, twilio, phones)
