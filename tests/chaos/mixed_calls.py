"""Calls of every kind, most of them well-behaved, and a model that sometimes fails, by one seed.

`MixedCalls` places calls that end in every way there is: hung up, reset, left without a word,
refused, borrowed, never connected, ended by the carrier. `FaultyVoiceServer` serves most
connections well and breaks, closes, fails or refuses the others.
"""

from __future__ import annotations

import random
import secrets
from enum import StrEnum
from typing import Final

import httpx2
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from app.dial.carrier_http import Caller, Endpoints, Webhooks
from app.errors import DialError
from tests.fakes.carrier import DEVELOPMENT_ACCOUNT, FakeCall, FakeTwilio, Ringing
from tests.fakes.voice import Reply, ScriptedVoiceServer, Trouble
from tests.integration.server import App

__all__ = ["CallOutcome", "FaultyVoiceServer", "MixedCalls"]

WELL: Final = (Reply(audio_ms=200, text="Hello."),)


class FaultyVoiceServer(ScriptedVoiceServer):
    """A Realtime server that serves `share_of_faults` of its connections badly.

    No trouble is of the kind that nothing heals: the breaker would keep later calls away from it.
    """

    def __init__(self, seed: int, share_of_faults: float) -> None:
        super().__init__(replies=WELL)
        self._dice = random.Random(seed)
        self._share = share_of_faults

    def _process_request(self, socket: ServerConnection, request: Request) -> Response | None:
        self.replies, self.trouble = self._pick_fault()
        # Nobody looks at them, and a test that counts objects should not count them.
        self.connections[:] = [served for served in self.connections if not served.closed]
        return super()._process_request(socket, request)

    def _pick_fault(self) -> tuple[tuple[Reply, ...], Trouble]:
        if self._dice.random() >= self._share:
            return WELL, Trouble()
        match self._dice.randrange(6):
            case 0:
                return WELL, Trouble(http_status=503)
            case 1:
                return WELL, Trouble(close_first=1011)
            case 2:
                return WELL, Trouble(texts=["nonsense", "{}", "[]"])
            case 3:
                return (Reply(audio_ms=200, close_after_ms=100),), Trouble()
            case 4:
                return (Reply(error_code="server_error"),), Trouble()
            case _:
                return (Reply(audio_ms=100, tool=("no_such_tool", "{}")), *WELL), Trouble()


class CallOutcome(StrEnum):
    """The outcome of a call."""

    HEARD = "hung up after the greeting"
    SPOKE = "hung up while the caller spoke"
    AT_ONCE = "hung up at once"
    RESET = "reset at some moment"
    END_OF_FILE = "closed without a word"
    REPORTED = "ended by the carrier's report"
    FORGED = "refused at the webhook"
    BORROWED = "refused at the stream"
    NEVER_OPENED = "never connected"
    CUT_EARLY = "cut before the stream's start"


class MixedCalls:
    """Callers with one line to one server."""

    def __init__(self, app: App, twilio: FakeTwilio, client: httpx2.AsyncClient, seed: int) -> None:
        self._app = app
        self._twilio = twilio
        self._client = client
        self._dice = random.Random(seed)
        self._endpoints = Endpoints.of(app.url)
        self.outcomes = dict.fromkeys(CallOutcome, 0)
        self.refused = 0

    async def call(self, outcome: CallOutcome) -> None:
        """Place one call and see it through."""
        self.outcomes[outcome] += 1
        if outcome is CallOutcome.FORGED:
            await self._forge()
            return
        ringing = await self._ring(self._app.auth_token)
        if ringing.order is None:
            self.refused += 1
            return
        if outcome is CallOutcome.NEVER_OPENED:
            await ringing.webhooks.report("no-answer")
            return
        if outcome is CallOutcome.CUT_EARLY:
            (await ringing.open_socket()).transport.abort()
            await ringing.webhooks.report("completed")
            return
        if outcome is CallOutcome.BORROWED:
            stranger = await ringing.connect(parameters={"token": "borrowed"})
            assert (await stranger.ended()).close_code == 1008
            self._twilio.calls.remove(stranger)
        call = await ringing.connect()
        await self._see_through(outcome, call)
        call.assert_clean()
        self._twilio.calls.remove(call)

    async def _see_through(self, outcome: CallOutcome, call: FakeCall) -> None:
        if outcome is not CallOutcome.AT_ONCE:
            await self._wait(call, heard_ms=100)
        if outcome is CallOutcome.SPOKE:
            call.say(1.0)
            await self._wait(call, frames=self._dice.randrange(40))
        if outcome in {CallOutcome.RESET, CallOutcome.END_OF_FILE}:
            await self._wait(call, frames=self._dice.randrange(30))
            await (call.drop() if outcome is CallOutcome.RESET else call.close_silently())
        elif outcome is CallOutcome.REPORTED:
            await call.ringing.webhooks.report("completed")
            await call.ended()
        else:
            await call.hang_up()

    async def _wait(self, call: FakeCall, *, heard_ms: int = 0, frames: int = 0) -> None:
        """Wait for sound or time to pass; a call may be over before that, its model being moody."""
        goal = call.counters.frames_sent + frames
        await call.wait_for(
            lambda: call.over or (call.heard_ms >= heard_ms and call.counters.frames_sent >= goal),
        )

    async def _forge(self) -> None:
        try:
            await self._ring("forged-token")
        except DialError as error:
            assert error.code == "signature_refused"
        else:
            raise AssertionError("a forged webhook was answered")

    async def _ring(self, auth_token: str) -> Ringing:
        caller = Caller(
            call_id="CA" + secrets.token_hex(16),
            account_id=DEVELOPMENT_ACCOUNT,
            caller_number="+15005550006",
            called_number="+15005550001",
        )
        webhooks = Webhooks(self._client, self._endpoints, auth_token, caller)
        answer = await webhooks.ask(self._endpoints.voice_url, "ringing")
        return Ringing(self._twilio, caller, webhooks, answer)

    def outcome(self) -> CallOutcome:
        """Half of the calls are ordinary, the others are not."""
        if self._dice.random() < 0.5:
            return CallOutcome.HEARD
        return self._dice.choice(list(CallOutcome))
