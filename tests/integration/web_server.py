"""A server with the real HTTP edge and real Twilio webhooks, and a small switchboard behind them.

`FakeCalls` takes the switchboard's side of `app.web.phone.Calls`: it admits by call id, honors each
token once, and its calls send every piece of caller audio back. As a program (`python -m`) it
serves on a free port, prints it, and drains as the real one does: until the last call is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI

from app.calls.transfer.transfer_reports import TransferReports
from app.carrier.base import (
    CallerAudio,
    CallProgress,
    CarrierCallId,
    Fallback,
    IncomingCall,
    MediaStream,
    StreamStarted,
    TransferId,
    TransferResult,
)
from app.carrier.twilio.http import sign_http
from app.carrier.twilio.phone_webhooks import TwilioWebhooks
from app.carrier.twilio.transfer import Site as TwilioSite
from app.errors import CapacityError, SignatureError, VoiceClosed
from app.events import CallEvent
from app.realtime.connection import Transport
from app.realtime.dialect import GA, Dialect
from app.web.app import make_app
from app.web.clients import AccessRule
from app.web.health import health_router
from app.web.metrics import Metrics
from app.web.phone import UnclaimedSockets, phone_router
from app.web.realtime import realtime_router
from app.web.server.serving import Server, make_server
from app.web.server.sockets import SocketLimits
from tests.fakes.gateway import engine_gateway
from tests.fakes.streams import Events

__all__ = ["ACCOUNT", "AUTH_TOKEN", "EchoEngine", "FakeCalls", "Site", "build", "call_form"]

ACCOUNT = "AC" + "0" * 32
AUTH_TOKEN = "a token of the tests"
VOICE_PATH = "/twilio/voice"
STATUS_PATH = "/twilio/status"
STREAM_PATH = "/twilio/media-stream"
TRANSFER_PATHS = {
    "/twilio/after-transfer",
    "/twilio/transfer-screen",
    "/twilio/transfer-keys",
    "/twilio/leg-machine",
    "/twilio/leg-status",
    "/twilio/conference",
    "/twilio/queue-wait",
}


@dataclass(frozen=True, slots=True)
class Admission:
    """A call that was let in."""

    token: str


class EchoCall:
    """Sends the caller's audio back until the stream is over."""

    def __init__(self, calls: FakeCalls) -> None:
        self._calls = calls

    async def attach(self, stream: MediaStream) -> None:
        """Hold the call."""
        self._calls.live += 1
        self._calls.idle.clear()
        try:
            async for event in Events(stream):
                if isinstance(event, CallerAudio):
                    stream.send_audio(event.payload)
        finally:
            self._calls.live -= 1
            if not self._calls.live:
                self._calls.idle.set()
            stream.close()


class RecordedReports(TransferReports):
    """Notes which transfers are reported; no call knows any of them."""

    def __init__(self) -> None:
        super().__init__(lambda: (), lambda leg_id: None)
        self.found: list[str] = []

    def _find(self, transfer_id: TransferId) -> None:
        self.found.append(transfer_id)

    def screening(self, transfer_id: TransferId) -> None:
        """Nobody was asked for a key."""

    def on_over(
        self, carrier_call_id: CarrierCallId, transfer_id: TransferId, result: TransferResult
    ) -> str | None:
        """Note the outcome as well."""
        self.found.append(f"{transfer_id} {result.outcome.value}")
        return None


@dataclass
class FakeCalls:
    """The switchboard's side of the edge, in memory."""

    full: str = ""
    live: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    admitted: dict[CarrierCallId, Admission] = field(default_factory=dict)
    used: set[CarrierCallId] = field(default_factory=set)
    reports: list[tuple[str, CallProgress]] = field(default_factory=list)
    feeds: dict[CarrierCallId, asyncio.Queue[CallEvent | None]] = field(default_factory=dict)
    followers: int = 0
    transfer_reports: RecordedReports = field(default_factory=RecordedReports)

    def admit(self, incoming: IncomingCall) -> Admission:
        """Let a call in, unless there is no room."""
        if self.full:
            raise CapacityError("no room", code=self.full)
        known = self.admitted.get(incoming.carrier_call_id)
        if known is None:
            known = Admission(f"token-{len(self.admitted)}")
            self.admitted[incoming.carrier_call_id] = known
        return known

    def claim(self, started: StreamStarted) -> EchoCall:
        """The call of a token, once."""
        admission = self.admitted.get(started.carrier_call_id)
        given = started.parameters.get("token")
        if admission is None or admission.token != given or started.carrier_call_id in self.used:
            raise SignatureError("not a token of this call", code="token_invalid")
        self.used.add(started.carrier_call_id)
        return EchoCall(self)

    def report(self, carrier_call_id: CarrierCallId, progress: CallProgress) -> None:
        """Note a status callback."""
        self.reports.append((carrier_call_id, progress))

    def follow(self, carrier_call_id: CarrierCallId) -> AsyncIterator[CallEvent]:
        """The events that a test puts into the call's queue; `None` ends them."""
        return self._follow(self.feeds[carrier_call_id])

    async def _follow(self, feed: asyncio.Queue[CallEvent | None]) -> AsyncIterator[CallEvent]:
        self.followers += 1
        try:
            while (event := await feed.get()) is not None:
                yield event
        finally:
            self.followers -= 1

    def fallback(self, carrier_call_id: CarrierCallId) -> Fallback | None:
        """Nobody else takes the caller."""
        return None

    def reasons_not_ready(self) -> list[str]:
        """The answer of `/readyz`."""
        return [self.full] if self.full else []


class EchoEngine:
    """Sends every text back; the word `bye` makes it hang up."""

    def __init__(self) -> None:
        self.served = 0
        self.left_with: list[int] = []

    async def serve(self, transport: Transport, dialect: Dialect = GA, model: str = "") -> None:
        """Talk until either side leaves."""
        self.served += 1
        try:
            while (text := await transport.receive()) != "bye":
                await transport.send(text)
        except VoiceClosed as closed:
            self.left_with.append(closed.close_code)
            raise


@dataclass
class Site:
    """A server and what is behind it, with signatures for its address."""

    server: Server
    calls: FakeCalls
    engine: EchoEngine
    metrics: Metrics
    app: FastAPI
    unclaimed: UnclaimedSockets

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    @property
    def stream_url(self) -> str:
        return f"ws://127.0.0.1:{self.server.port}{STREAM_PATH}"

    def signed(self, path: str, form: Mapping[str, str] | None = None) -> dict[str, str]:
        """The header that the carrier sends with a request."""
        return {"X-Twilio-Signature": sign_http(AUTH_TOKEN, self.url + path, form or {})}

    def signed_stream(self) -> dict[str, str]:
        """The header that the carrier sends with a media handshake."""
        return {"X-Twilio-Signature": sign_http(AUTH_TOKEN, self.stream_url)}

    def counted(self, name: str, **labels: str) -> float:
        """A metric's value."""
        return self.metrics.registry.get_sample_value(f"trunkline_{name}", labels) or 0.0


def call_form(call_id: str = "CA" + "1" * 32, **fields: str) -> dict[str, str]:
    """The fields of a voice webhook."""
    return {
        "CallSid": call_id,
        "AccountSid": ACCOUNT,
        "From": "+15550100001",
        "To": "+15550100002",
        "CallStatus": "ringing",
        "Direction": "inbound",
        **fields,
    }


def build(
    *,
    limits: SocketLimits | None = None,
    unclaimed: UnclaimedSockets | None = None,
    start_deadline_s: float = 5.0,
    transcript_feed: bool = True,
    realtime_token: str = "",
    open_to_local: bool = True,
    metrics_token: str = "",
    own_signals: bool = False,
) -> Site:
    """A server on a free port of 127.0.0.1, bound and not started."""
    calls, engine, metrics = FakeCalls(), EchoEngine(), Metrics()
    unclaimed = unclaimed or UnclaimedSockets()
    address = {"url": ""}
    webhooks = TwilioWebhooks(
        auth_tokens=[AUTH_TOKEN],
        account_id=ACCOUNT,
        site=lambda: TwilioSite(
            base_url=address["url"],
            stream_path=STREAM_PATH,
            lost_message="We lost the connection.",
            busy_message="All lines are busy.",
        ),
        start_deadline_s=start_deadline_s,
    )
    app = make_app(
        [
            phone_router(
                webhooks,
                calls,
                metrics,
                webhook_path=VOICE_PATH,
                status_path=STATUS_PATH,
                stream_path=STREAM_PATH,
                follow=calls.follow if transcript_feed else None,
                unclaimed=unclaimed,
            ),
            health_router(
                metrics,
                AccessRule(metrics_token, open_to_local),
                reasons_not_ready=calls.reasons_not_ready,
            ),
            realtime_router(
                engine_gateway(engine), metrics, AccessRule(realtime_token, open_to_local)
            ),
        ]
    )

    async def drain() -> None:
        calls.full = "draining"
        metrics.set_draining(True)
        if calls.live:
            await calls.idle.wait()

    server = make_server(
        app,
        host="127.0.0.1",
        port=0,
        drain=drain,
        limits=limits,
        own_signals=own_signals,
    )
    address["url"] = f"http://127.0.0.1:{server.port}"
    return Site(server, calls, engine, metrics, app, unclaimed)


def main() -> None:
    """Serve until a signal comes, with the limits of the first argument."""
    given: dict[str, Any] = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
    if open_files := given.pop("open_files", None):
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_files, open_files))
    site = build(limits=SocketLimits(**given) if given else None, own_signals=True)

    @site.app.get("/guard")
    async def guard() -> dict[str, int]:
        counts = site.server.counts
        return {
            "receipt_timeouts": counts.receipt_timeouts,
            "flood_cuts": counts.flood_cuts,
            "oversized_heads": counts.oversized_heads,
            "stalls": counts.stalls,
            "refused_handshakes": counts.refused_handshakes,
            "open": len(site.server.server_state.connections),
            "tasks": len(site.server.server_state.tasks),
        }

    @site.app.get("/large")
    async def large() -> str:
        return "x" * 50_000_000

    sys.stdout.write(f"{site.server.port}\n")
    sys.stdout.flush()
    with contextlib.suppress(KeyboardInterrupt):
        site.server.run()
    sys.stdout.write(f"forced {site.server.forced}\n")


if __name__ == "__main__":
    main()
