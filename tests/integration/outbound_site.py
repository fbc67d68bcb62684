"""A server that places calls, the carrier that it places them with, and the phones that ring.

`OutboundSite.place` asks the API for a call; `rings` waits until the carrier has it. The phones are
played by the test: `answer` picks up and opens the media stream, `ends` reports any other fate.

In every call that is answered here, the disclosure has to be heard before anything else: `answer`
waits for it, and leaving the block checks it once more in all calls.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import httpx2

from app.calls.outbound.dialer import Dialer
from app.dial.carrier_http import Caller, Endpoints, Webhooks, http_client
from app.events import (
    AgentSaid,
    CallEnded,
    CallEvent,
    CallId,
    CallNotAnswered,
    DisclosureHeard,
)
from app.store.codec import Storable
from tests.fakes.carrier import FakeCall, FakeTwilio, Ringing
from tests.fakes.twilio_phones import Phones
from tests.fakes.twilio_rest import ApiCall, TwilioApi
from tests.fakes.voice import ScriptedVoiceServer
from tests.fakes.waiting import TIME_LIMIT_S, time_limit, until
from tests.integration.server import SPEED, App, trunkline

__all__ = ["CALLEE", "DISCLOSURE", "OURS", "OutboundSite", "check_disclosed", "outbound_site"]

OURS: Final = "+12125550100"
CALLEE: Final = "+14155550123"
PUBLIC_URL: Final = "https://voice.example.com"
OPERATOR: Final = "operator-token-of-tests"
IDENTITY: Final = "Acme Dental"
DISCLOSURE: Final = f"Hello, this is an AI assistant calling for {IDENTITY}."


def check_disclosed(events: Iterable[CallEvent | Storable]) -> bool:
    """Check that nothing was heard of a call's agent before the disclosure, and to its end.

    False: the callee was gone before that, and has heard nothing else.
    """
    heard = ""
    for event in events:
        if isinstance(event, DisclosureHeard):
            assert event.by_mark and DISCLOSURE in event.spoken, event
            return True
        if isinstance(event, AgentSaid):
            assert event.cut_off, f"heard before its proof: {event}"
            heard = f"{heard} {event.heard_text}".strip()
            assert DISCLOSURE.startswith(heard), f"heard without the disclosure: {heard}"
    return False


@dataclass
class OutboundSite:
    """A server with an account, and everything at the carrier's side."""

    app: App
    api: TwilioApi
    twilio: FakeTwilio
    phones: Phones
    client: httpx2.AsyncClient
    seen: dict[CallId, list[CallEvent]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.app.switchboard._observers += (self._see,)

    def _see(self, event: CallEvent) -> None:
        self.seen.setdefault(event.call_id, []).append(event)

    @property
    def dialer(self) -> Dialer:
        return self.app.trunkline.outbound.dialer

    async def request(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, **headers: str
    ) -> httpx2.Response:
        """Ask the API."""
        return await self.client.request(
            method,
            f"{self.app.url}/api/v1{path}",
            json=None if body is None else dict(body),
            headers={"authorization": f"Bearer {OPERATOR}", **headers},
        )

    async def place(self, to: str = CALLEE, **more: Any) -> httpx2.Response:
        """Have somebody called."""
        return await self.request("POST", "/calls", {"to": to, "agent": "caller", **more})

    async def placed(self, to: str = CALLEE, **more: Any) -> str:
        """The same, where it is allowed; the call's id."""
        answer = await self.place(to, **more)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["call_id"])

    async def rings(self, nth: int = 0) -> ApiCall:
        """The nth call that the carrier has, once it has it."""
        await until(lambda: len(self.api.calls) > nth)
        return list(self.api.calls.values())[nth]

    async def attempt(self, call_id: str) -> dict[str, Any]:
        """A placed call as the API shows it."""
        answer = await self.request("GET", f"/placed_calls/{call_id}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def outcome(self, call_id: str) -> dict[str, Any]:
        """The same, once it has ended."""
        await until(lambda: not self.dialer.knows(call_id))  # to ask over HTTP costs more
        return await self.until(call_id, lambda found: found["outcome"] is not None)

    async def until(self, call_id: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """A placed call, once something is true of it."""
        async with time_limit():
            while True:
                if holds(found := await self.attempt(call_id)):
                    return found
                await asyncio.sleep(0.01)

    async def kept(self, call_id: str) -> dict[str, Any]:
        """A call as the history has it, once it is over there."""
        over = (CallEnded, CallNotAnswered)
        await until(
            lambda: any(isinstance(one, over) for one in self.seen.get(CallId(call_id), ()))
        )
        async with time_limit():
            while True:
                answer = await self.request("GET", f"/calls/{call_id}")
                found: dict[str, Any] = answer.json()
                if answer.status_code == 200 and found["ended_at"] is not None:
                    return found
                await asyncio.sleep(0.02)

    async def events(self, call_id: str) -> list[dict[str, Any]]:
        """The events of a call that is over."""
        await self.kept(call_id)
        answer = await self.request("GET", f"/calls/{call_id}/events")
        found: list[dict[str, Any]] = answer.json()["events"]
        return found

    async def check_dialed_once(self) -> None:
        """Check that the carrier has no more calls to a number than were written down."""
        if self.dialer.keeps:
            written = Counter(one.number for one in await self.dialer.store.recent(10_000))
            placed = Counter(call.to for call in self.api.calls.values())
            assert placed <= written, placed - written

    async def fetch(self, call: ApiCall) -> Ringing:
        """Ask the server what the person who has answered should hear."""
        caller = Caller(
            call_id=call.sid,
            account_id=self.api.account_sid,
            caller_number=call.from_,
            called_number=call.to,
        )
        endpoints = Endpoints.of(self.app.url, public_url=PUBLIC_URL)
        client = http_client()
        client.timeout = httpx2.Timeout(TIME_LIMIT_S)
        self.twilio._clients.append(client)
        webhooks = Webhooks(client, endpoints, self.app.auth_token, caller)
        url = endpoints.as_reached(call.option("Url"))
        answer = await webhooks.ask(url, "in-progress", {"Direction": "outbound-api"})
        return Ringing(self.twilio, caller, webhooks, answer)

    async def answer(self, call: ApiCall, *, talks_over: bool = False) -> FakeCall:
        """Pick up, and hear the disclosure: a call in which both can speak.

        `talks_over`: the callee speaks and presses keys from the first sound on.
        """
        live = await self.pick_up(call)
        if talks_over:
            live.say(1.5)
            live.press("12#")
        await until(lambda: self._disclosed(call))
        assert not live.stream.clears  # nothing has cut it off
        return live

    async def pick_up(self, call: ApiCall, *, answered_by: str = "") -> FakeCall:
        """Pick up, and wait for nothing: the callee may have to speak first.

        `answered_by` is the verdict of the carrier's detector.
        """
        await self.phones.pick_up(call.sid, answered_by=answered_by)
        return await (await self.fetch(call)).connect()

    def _disclosed(self, call: ApiCall) -> bool:
        [call_id] = parse_qs(urlsplit(call.option("Url")).query)["placed"]
        return check_disclosed(self.seen[CallId(call_id)])

    async def ends(self, call: ApiCall, status: str, sip_code: int | None = None) -> None:
        """Nobody picks up, for this reason."""
        await self.phones.end(call.sid, status, sip_code=sip_code)

    async def ends_busy(self, number: str, **body: Any) -> None:
        """Call somebody whose line is busy, to the end of it."""
        nth = len(self.api.calls)
        call_id = await self.placed(number, **body)
        await self.ends(await self.rings(nth), "busy")
        await self.outcome(call_id)

    async def gone(self, call: FakeCall) -> None:
        """Hang up, and wait until the server knows."""
        await call.hang_up()
        await until(lambda: not self.app.switchboard.active)


@contextlib.asynccontextmanager
async def outbound_site(
    voice: ScriptedVoiceServer,
    *,
    look_up_s: tuple[float, ...] = (0.05, 0.1),
    speed: float = SPEED,
    state_dir: Path | None = None,
    **sections: Any,
) -> AsyncIterator[OutboundSite]:
    """A server that may place calls, as fast as its tests want them.

    `speed` is the pace at which callees live; who has answered is judged at the real one only.
    """
    outbound = {
        "enabled": True,
        "hours": "00:00-24:00",
        "calls_per_second": 500.0,
        "per_number_per_day": 0,
        "per_day": 0,
        "answered_by": {"enabled": False},
        **sections.pop("outbound", {}),
    }
    async with TwilioApi(numbers=[{"phone_number": OURS}]) as api:
        live = {
            "twilio": {
                "account_sid": api.account_sid,
                "auth_token": api.auth_token,
                "rest_url": api.url,
                "from_number": OURS,
            },
            "server": {"public_url": PUBLIC_URL, "operator_token": OPERATOR},
            "api": {"requests_per_s": 1_000},
            "agents": {"caller": {"variables": {"name": "you"}, "greeting": "Hello {name}!"}},
            "store": {},
            "compliance": {"identity": IDENTITY},
            "outbound": outbound,
            **sections,
        }
        async with (
            trunkline(voice, state_dir=state_dir, **live) as app,
            app.twilio(speed) as twilio,
            Phones(api, public_url=PUBLIC_URL, server_url=app.url) as phones,
            httpx2.AsyncClient(trust_env=False, timeout=TIME_LIMIT_S) as client,
        ):
            dialer = app.trunkline.outbound.dialer
            dialer.options = replace(dialer.options, look_up_s=look_up_s)
            site = OutboundSite(app, api, twilio, phones, client)
            yield site
            for events in site.seen.values():
                check_disclosed(events)
            await site.check_dialed_once()
