"""`FakeTwilio`: places calls against a running server, over real sockets, as Twilio would.

Made of the parts of `trunkline dial`: it plays agent audio out in time, returns marks when their
audio has been played and all of them at once after `clear`, and keeps every fault of the server.
The pace is the real one or, with `speed`, faster.

    async with FakeTwilio(auth_token=TOKEN) as twilio:
        call = await twilio.call(server_url)
        await call.hear(ms=500)
        await call.speak(phrase("hours"))
        await call.hang_up()
        call.assert_clean()

Leaving the block drops what is still open: nothing outlives it.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Callable
from types import TracebackType
from typing import Self

import httpx2
from websockets.asyncio.client import ClientConnection

from app.carrier.base import CarrierCallId, StreamId
from app.dial.carrier_http import Caller, Endpoints, TwimlAnswer, Webhooks, http_client, sign
from app.dial.faults import Fault
from app.dial.leg import Clock, Leg, LegEnd, open_stream
from app.dial.stream import CarrierStream, StreamCounters, StreamIdentity
from app.dial.twiml import StreamOrder, Verb, stream_of
from app.framing import masked_text_frame
from tests.fakes.caller import tone
from tests.fakes.clock import FastClock
from tests.fakes.waiting import TIME_LIMIT_S, within

__all__ = ["DEVELOPMENT_ACCOUNT", "FakeCall", "FakeTwilio", "Ringing"]

DEVELOPMENT_ACCOUNT = "AC" + "0" * 32


class FakeTwilio:
    """A carrier with one account; makes any number of calls."""

    def __init__(
        self,
        *,
        auth_token: str,
        account_sid: str = DEVELOPMENT_ACCOUNT,
        speed: float = 1.0,
        public_url: str | None = None,
    ) -> None:
        self.auth_token = auth_token
        self.account_sid = account_sid
        self.public_url = public_url
        self.clock: Clock = FastClock(speed)
        self.calls: list[FakeCall] = []
        self._clients: list[httpx2.AsyncClient] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for call in self.calls:
            await call.drop()
        for client in self._clients:
            await client.aclose()

    async def call(self, server_url: str, *, call_sid: str | None = None) -> FakeCall:
        """Ring, be answered, open the stream: a call in which both can speak.

        Raises:
            DialError: refused, with what the server did wrong.
        """
        return await (await self.ring(server_url, call_sid=call_sid)).connect()

    async def ring(
        self,
        server_url: str,
        *,
        call_sid: str | None = None,
        auth_token: str | None = None,
        caller_number: str = "+15005550006",
        called_number: str = "+15005550001",
        verstat: str | None = None,
        status: str = "ringing",
    ) -> Ringing:
        """Post the voice webhook only. Another `auth_token` forges the signature.

        `verstat`: what the network says of the caller's number. `status`: of the call, which is
        "in-progress" when its document is asked for again.

        Raises:
            DialError: code `signature_refused` when the server refused the forgery.
        """
        endpoints = Endpoints.of(server_url, public_url=self.public_url)
        client = http_client()
        client.timeout = httpx2.Timeout(TIME_LIMIT_S)
        self._clients.append(client)
        caller = Caller(
            call_id=call_sid or "CA" + secrets.token_hex(16),
            account_id=self.account_sid,
            caller_number=caller_number,
            called_number=called_number,
        )
        token = self.auth_token if auth_token is None else auth_token
        webhooks = Webhooks(client, endpoints, token, caller)
        vouched = {} if verstat is None else {"StirVerstat": verstat}
        answer = await webhooks.ask(endpoints.voice_url, status, vouched)
        return Ringing(self, caller, webhooks, answer)


class Ringing:
    """A call whose webhook was answered: its TwiML, and the stream that may be opened for it."""

    def __init__(
        self, twilio: FakeTwilio, caller: Caller, webhooks: Webhooks, answer: TwimlAnswer
    ) -> None:
        self.caller = caller
        self.webhooks = webhooks
        self.answer = answer
        self._twilio = twilio

    @property
    def verbs(self) -> tuple[Verb, ...]:
        return self.answer.verbs

    @property
    def order(self) -> StreamOrder | None:
        """The stream that `<Connect><Stream>` asks for; None when the server refused the call."""
        return next((order for verb in self.verbs if (order := stream_of(verb))), None)

    async def open_socket(self, *, auth_token: str | None = None) -> ClientConnection:
        """The media websocket alone, nothing sent on it. Another `auth_token` forges its signature.

        Raises:
            DialError: code `31920` when the handshake was refused.
        """
        order = self.order
        assert order is not None, f"no stream in {self.verbs}"
        url, signature = self.webhooks.handshake(self.answer.url, order.url)
        if auth_token is not None:
            signature = sign(auth_token, order.url)
        return await open_stream(url, signature)

    async def connect(
        self, *, auth_token: str | None = None, parameters: dict[str, str] | None = None
    ) -> FakeCall:
        """Open the stream and start it; a second time reuses the token. `parameters` replace
        those of the TwiML.
        """
        socket = await self.open_socket(auth_token=auth_token)
        order = self.order
        assert order is not None
        identity = StreamIdentity(
            stream_id=StreamId("MZ" + secrets.token_hex(16)),
            call_id=CarrierCallId(self.caller.call_id),
            account_id=self.caller.account_id,
            parameters=order.parameters if parameters is None else parameters,
        )
        call = FakeCall(self, socket, identity, self._twilio.clock)
        self._twilio.calls.append(call)
        return call


class FakeCall:
    """A live call. Whatever waits here fails after `within_s` of real time, naming the call."""

    def __init__(
        self, ringing: Ringing, socket: ClientConnection, identity: StreamIdentity, clock: Clock
    ) -> None:
        self.ringing = ringing
        self.identity = identity
        self.stream = CarrierStream(identity, clock.now_ms(), recorder=self)
        self.caller_sound = bytearray()
        self.agent_sound = bytearray()
        self._leg = Leg(socket, self.stream, clock)
        self._clock = clock
        self._pulse = asyncio.Event()
        self._task = asyncio.create_task(self._leg.run(self._on_frame), name=identity.call_id)
        self._task.add_done_callback(lambda _: self._pulse.set())

    # Acts of the caller

    async def speak(self, sound: bytes | float) -> None:
        """Say mu-law bytes, or a tone of so many seconds, to its end."""
        self.say(sound)
        await self.wait_for(lambda: not self.stream.player.speaking)

    def say(self, sound: bytes | float) -> None:
        """The same without waiting."""
        ulaw = sound if isinstance(sound, bytes) else tone(round(sound * 1000))
        self.stream.player.say(ulaw)

    async def barge_in(self, sound: bytes | float, *, after_ms: int = 300) -> None:
        """Let the agent speak for `after_ms`, then speak over it."""
        await self.hear(ms=after_ms)
        await self.speak(sound)

    async def hear(self, *, ms: int, within_s: float = TIME_LIMIT_S) -> None:
        """Wait until `ms` more of agent sound have reached the ear."""
        goal_ms = self.heard_ms + ms
        await self.wait_for(lambda: self.heard_ms >= goal_ms, within_s=within_s)

    async def hear_quiet(self, *, ms: int, within_s: float = TIME_LIMIT_S) -> None:
        """Wait until the agent, having spoken, has been silent for `ms` of call time."""

        def quiet() -> bool:
            last_ms = self.stream.detector.last_audible_ms
            return last_ms is not None and self._clock.now_ms() - last_ms >= ms

        await self.wait_for(quiet, within_s=within_s)

    def press(self, digits: str) -> None:
        self._leg.press(digits)

    async def hang_up(self, *, report: bool = False) -> LegEnd:
        """`stop`, then the socket closes; with `report` the status callback follows."""
        self._leg.hang_up()
        end = await self.ended()
        if report:
            await self.ringing.webhooks.report("completed", duration_s=1)
        return end

    async def ended(self, *, within_s: float = TIME_LIMIT_S) -> LegEnd:
        """The end of the stream, whoever ended it."""
        return await within(within_s, asyncio.shield(self._task))

    # Faults of carriers and networks

    def leave_stream(self) -> None:
        """The call goes on to another document: `stop`, then the socket closes."""
        self._leg.hang_up()

    def mute(self, muted: bool = True) -> None:
        """A gap: no media while time goes on."""
        self._leg.mute(muted)

    async def send_raw(self, frame: str | bytes) -> None:
        """Anything at all, as a frame of its own."""
        await self._leg.socket.send(frame)

    def catch_up(self, frames: int) -> None:
        """So many frames in one write, as when a network that stalled goes on."""
        now_ms = self._clock.now_ms()
        texts = [text for _ in range(frames) for text in self.stream.frame(now_ms)]
        key = bytes(4)
        written = b"".join(masked_text_frame(text.encode(), key) for text in texts)
        self._leg.socket.transport.write(written)

    async def drop(self) -> None:
        """Reset the connection: no stop, no close frame."""
        self.abort()
        await asyncio.wait([self._task])

    def abort(self) -> None:
        """The same without waiting."""
        self._leg.socket.transport.abort()

    async def close_silently(self) -> None:
        """End the TCP connection in order, but with neither a stop nor a close frame."""
        self._leg.socket.transport.close()
        await asyncio.wait([self._task])

    def freeze(self) -> None:
        """Take nothing more from the socket, as a half-dead peer does."""
        transport = self._leg.socket.transport
        transport.pause_reading()
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)

    # Observations

    @property
    def over(self) -> bool:
        """True once the stream has ended; `ended` tells how."""
        return self._task.done()

    @property
    def now_ms(self) -> int:
        """The time by the clock of this call's sounds."""
        return self._clock.now_ms()

    @property
    def heard_ms(self) -> int:
        """Agent sound so far, short pauses included."""
        return sum(span.duration_ms for span in self.stream.detector.spans)

    @property
    def counters(self) -> StreamCounters:
        return self.stream.counters

    @property
    def faults(self) -> list[Fault]:
        return self.stream.faults

    def assert_clean(self) -> None:
        """The server broke no rule of Media Streams on this call."""
        assert not self.faults, f"{self.identity.call_id}: {self.faults}"

    async def wait_for(
        self, condition: Callable[[], bool], *, within_s: float = TIME_LIMIT_S
    ) -> None:
        """Wait until a condition holds; it is looked at with every frame and at the end."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + within_s
        while not condition():
            assert not self._task.done(), f"the call was over before that: {self._outcome()}"
            self._pulse.clear()
            try:
                async with asyncio.timeout_at(deadline_s):
                    await self._pulse.wait()
            except TimeoutError:
                raise AssertionError(f"not within {within_s} s: {self._outcome()}") from None

    # `app.dial.stream.Recorder`: everything that was said and heard, as mu-law

    def caller_audio(self, at_byte: int, ulaw: bytes) -> None:
        self.caller_sound += ulaw

    def agent_audio(self, at_byte: int, ulaw: bytes) -> None:
        self.agent_sound += ulaw

    def _on_frame(self, now_ms: int) -> None:
        self._pulse.set()

    def _outcome(self) -> str:
        end = self._task.result() if self._task.done() else "still open"
        return f"{end}, heard {self.heard_ms} ms, {self.counters}, {self.faults}"
