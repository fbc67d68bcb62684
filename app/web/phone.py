"""The carrier's routes: voice webhook, status callback, media websocket, transcript feed.

Knows no carrier: a `PhoneWebhooks` checks signatures, reads forms and writes documents; `Calls`
admits and claims calls. This module decides the order. The signature comes before anything else,
for websockets before they are accepted; a webhook waits for no model and no store; few sockets may
be open that have not claimed a call, and they reach no model.

Every refusal of a request that did not prove its origin is the same 403. A socket is refused with
HTTP 403 before it is accepted, and with close code 1008 after.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol, TypeVar

from fastapi import APIRouter, Depends, Request, WebSocket
from fastapi.responses import PlainTextResponse, Response
from starlette.requests import ClientDisconnect, HTTPConnection
from websockets.frames import CloseCode

from app.calls.outbound.dialer import Dialer
from app.calls.route import Diversion
from app.calls.transfer.transfer_reports import TransferReports
from app.carrier.base import (
    CallProgress,
    CarrierCallId,
    Destination,
    Fallback,
    IncomingCall,
    MediaStream,
    StreamStarted,
)
from app.errors import (
    AppError,
    CapacityError,
    CarrierUnavailable,
    RemoteProtocolError,
    SignatureError,
)
from app.web.forwarding import CHECKED_FORM, Forwarded
from app.web.metrics import AuthFailure, Metrics, Refusal
from app.web.placing import PlacedCallWebhooks, add_placing_routes
from app.web.server.sockets import MessageTransport, transport_of, vouch_for
from app.web.tickets import TICKET_PROTOCOL, SocketTickets, offers_ticket
from app.web.transcript import Follow, add_transcript_feed
from app.web.transfers import TransferWebhooks, add_transfer_routes

__all__ = [
    "Call",
    "Calls",
    "Form",
    "PhoneWebhooks",
    "SignedForms",
    "UnclaimedSockets",
    "phone_router",
]

logger = logging.getLogger(__name__)

MAX_FORM_BYTES: Final = 65_536
FORM_TYPE: Final = "application/x-www-form-urlencoded"
_NO_STORE: Final = {"cache-control": "no-store"}

Form = Sequence[tuple[str, str]]
Forward = Callable[[Request, Form], Awaitable[Response | None]]
"""The answer of another process to a checked request; None when it is for this one."""
T = TypeVar("T")


class PhoneWebhooks(TransferWebhooks, PlacedCallWebhooks, Protocol):
    """A carrier's signatures, forms and documents.

    Raises `SignatureError` and `RemoteProtocolError`.
    """

    content_type: str

    def check_http(self, path_and_query: str, form: Form, headers: Mapping[str, str]) -> None: ...
    def check_websocket(self, path: str, headers: Mapping[str, str]) -> None: ...
    def parse_form(self, body: bytes) -> list[tuple[str, str]]: ...
    def read_status(self, form: Form) -> tuple[CarrierCallId, CallProgress]: ...
    def refuse(self) -> str: ...
    def divert(self, incoming: IncomingCall, say: str | None, to: Destination | None) -> str: ...
    async def open_stream(self, transport: MessageTransport) -> MediaStream: ...


class Admission(Protocol):
    """A call that was let in."""

    @property
    def token(self) -> str: ...


class Call(Protocol):
    """A call that a media stream has claimed."""

    async def attach(self, stream: MediaStream) -> None:
        """Take the stream, and return when the call is over and the stream closed."""
        ...


class Calls(Protocol):
    """The part of the switchboard that webhooks and media sockets use."""

    @property
    def transfer_reports(self) -> TransferReports: ...
    def admit(self, incoming: IncomingCall) -> Admission | Diversion: ...
    def claim(self, started: StreamStarted) -> Call: ...
    def report(self, carrier_call_id: CarrierCallId, progress: CallProgress) -> None: ...
    def fallback(self, carrier_call_id: CarrierCallId) -> Fallback | None: ...


def phone_router(  # noqa: PLR0913 - a carrier's parts, its paths and its options
    webhooks: PhoneWebhooks,
    calls: Calls,
    metrics: Metrics,
    *,
    webhook_path: str,
    status_path: str,
    stream_path: str,
    follow: Follow | None = None,
    unclaimed: UnclaimedSockets | None = None,
    tickets: SocketTickets | None = None,
    forward: Forward | None = None,
    others_stream_path: str | None = None,
    dialer: Callable[[], Dialer] | None = None,
) -> APIRouter:
    """The routes of one carrier; every HTTP route among them wants a signature.

    `forward` has requests answered by the process that has their call. At `others_stream_path` come
    streams that a proxy should have sent to another server, named `other` there. `tickets` are what
    browsers open sockets with, in place of a signature. `dialer` places calls, `follow` serves
    transcripts.
    """
    forms = SignedForms(webhooks, metrics, forward)
    signed = APIRouter(dependencies=[Depends(forms.check)])

    @signed.api_route(webhook_path, methods=["GET", "POST"])
    async def voice(request: Request) -> Response:
        incoming = forms.read(webhooks.read_incoming, request)
        try:
            admitted = calls.admit(incoming)
        except SignatureError as error:
            forms.refuse(AuthFailure.WEBHOOK_REPLAYED, error)
            raise
        except CapacityError as error:
            metrics.refused(error.code)
            document = webhooks.refuse()
        else:
            if isinstance(admitted, Diversion):
                document = webhooks.divert(incoming, admitted.say, admitted.to)
            else:
                document = webhooks.answer(admitted.token, calls.fallback(incoming.carrier_call_id))
        return Response(document, media_type=webhooks.content_type, headers=_NO_STORE)

    @signed.post(status_path)
    async def status(request: Request) -> Response:
        calls.report(*forms.read(webhooks.read_status, request))
        return PlainTextResponse("", headers=_NO_STORE)

    add_transfer_routes(
        signed, webhooks, calls.transfer_reports, forms.read, fallback=calls.fallback
    )
    if dialer is not None:
        add_placing_routes(signed, webhooks, dialer, forms.read)
    if follow is not None:
        add_transcript_feed(signed, follow)
    router = APIRouter()
    router.routes.extend(signed.routes)
    media = MediaSocket(webhooks, calls, metrics, unclaimed or UnclaimedSockets(), tickets)
    router.add_api_websocket_route(stream_path, media.serve)
    if others_stream_path is not None:
        router.add_api_websocket_route(others_stream_path, media.refuse_stray)
    return router


class SignedForms:
    """The forms of signed requests: `check` is the dependency of every HTTP route of a carrier.

    A route without it finds no form in its request, and fails.
    """

    def __init__(
        self, webhooks: PhoneWebhooks, metrics: Metrics, forward: Forward | None = None
    ) -> None:
        self._webhooks = webhooks
        self._metrics = metrics
        self._forward = forward

    async def check(self, request: Request) -> None:
        """Leave with the request what was posted; of a GET, the fields of its query.

        Raises:
            SignatureError: not signed, whatever else may be wrong with it.
            Forwarded: another process has the call, and has answered.
        """
        if (checked := request.scope.get(CHECKED_FORM)) is not None:
            request.state.signed_form = checked
            return
        posted = await self._posted(request) if request.method == "POST" else []
        try:
            self._webhooks.check_http(_target(request), posted, request.headers)
        except SignatureError as error:
            self.refuse(AuthFailure.WEBHOOK_SIGNATURE, error)
            raise
        vouch_for(request)
        if request.method == "POST":
            request.state.signed_form = posted
        else:
            request.state.signed_form = self._webhooks.parse_form(request.scope["query_string"])
        if self._forward is not None:
            response = await self._forward(request, request.state.signed_form)
            if response is not None:
                raise Forwarded(response)

    def read(self, reader: Callable[[Form], T], request: Request) -> T:
        """Read the form of a request that is signed, but may be of another account.

        Raises:
            SignatureError: it is.
        """
        try:
            return reader(request.state.signed_form)
        except SignatureError as error:
            self.refuse(AuthFailure.WEBHOOK_ACCOUNT, error)
            raise

    async def _posted(self, request: Request) -> Form:
        try:
            return self._webhooks.parse_form(await _body(request))
        except (RemoteProtocolError, ClientDisconnect) as error:
            unreadable = SignatureError("the form cannot be read", code="form_unreadable")
            self.refuse(AuthFailure.WEBHOOK_FORM, unreadable)
            raise unreadable from error

    def refuse(self, kind: AuthFailure, error: SignatureError) -> None:
        self._metrics.auth_failed(kind)
        logger.warning("webhook refused", extra={"kind": kind.value, "code": error.code})


async def _body(request: Request) -> bytes:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != FORM_TYPE:
        raise RemoteProtocolError("the body is not a form")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            raise RemoteProtocolError("the form is too large")
    return bytes(body)


def _target(connection: HTTPConnection) -> str:
    """Path and query as they were sent: what the carrier signed, before any decoding."""
    path: bytes = connection.scope["raw_path"]
    query: bytes = connection.scope["query_string"]
    return (path + b"?" + query if query else path).decode("ascii", "replace")


class UnclaimedSockets:
    """Bounds the accepted sockets that have not claimed a call.

    One more cuts the one that has waited longest: a flood of silent sockets thus never keeps out a
    stream that has something to say.
    """

    def __init__(self, total: int = 256) -> None:
        self._total = total
        self._waiting: dict[asyncio.Timeout, None] = {}

    @property
    def taken(self) -> int:
        return len(self._waiting)

    @contextlib.asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """Count a socket for as long as the block lasts.

        Raises:
            TimeoutError: in the block, when another one needs the place.
        """
        async with asyncio.timeout(None) as waiting:
            if len(self._waiting) >= self._total:
                oldest = next(iter(self._waiting))
                del self._waiting[oldest]
                oldest.reschedule(asyncio.get_running_loop().time())
            self._waiting[waiting] = None
            try:
                yield
            finally:
                self._waiting.pop(waiting, None)


class MediaSocket:
    """The media websocket, from its handshake to the end of its call."""

    def __init__(
        self,
        webhooks: PhoneWebhooks,
        calls: Calls,
        metrics: Metrics,
        unclaimed: UnclaimedSockets,
        tickets: SocketTickets | None = None,
    ) -> None:
        self._webhooks = webhooks
        self._calls = calls
        self._metrics = metrics
        self._unclaimed = unclaimed
        self._tickets = tickets

    async def serve(self, websocket: WebSocket) -> None:
        """Check and accept a carrier's stream, or a browser's socket by its ticket."""
        tickets = self._tickets if offers_ticket(websocket) else None
        try:
            if tickets is None:
                self._webhooks.check_websocket(_target(websocket), websocket.headers)
                serve = None
            else:
                serve = tickets.redeem(websocket)
        except SignatureError as error:
            signed = tickets is None
            failure = AuthFailure.MEDIA_SIGNATURE if signed else AuthFailure.MEDIA_TICKET
            self._metrics.auth_failed(failure)
            logger.warning("media socket refused", extra={"code": error.code})
            await websocket.close()  # before accept: HTTP 403 on the wire
            return
        # The handshake's signature is the same for every call: whoever has seen one can send it
        # again. A signed socket is still a stranger until it claims a call.
        await websocket.accept(None if tickets is None else TICKET_PROTOCOL)
        # From here on the socket belongs to the call: messages come and go without ASGI.
        transport = transport_of(websocket)
        await (serve or self._attach)(transport)

    async def _attach(self, transport: MessageTransport) -> None:
        """Claim a call, and attach the stream to it."""
        claimed = None
        try:
            async with self._unclaimed.hold():
                claimed = await self._claim(transport)
        except TimeoutError:
            self._metrics.refused(Refusal.SOCKETS)
            logger.warning("media stream refused", extra={"code": "too_many_unclaimed"})
        if claimed is None:
            transport.close(CloseCode.POLICY_VIOLATION)
            return
        call, stream = claimed
        await call.attach(stream)

    async def refuse_stray(self, websocket: WebSocket, other: str) -> None:
        """Refuse a stream whose call another server has, and say so where the carrier sent it."""
        with contextlib.suppress(SignatureError):
            self._webhooks.check_websocket(_target(websocket), websocket.headers)
            logger.error(
                "stream of another server: send streams there by their path",
                extra={"server": other[:63]},
            )
        await websocket.close()

    async def _claim(self, transport: MessageTransport) -> tuple[Call, MediaStream] | None:
        try:
            stream = await self._webhooks.open_stream(transport)
            return self._calls.claim(stream.started), stream
        except SignatureError as error:
            self._metrics.auth_failed(AuthFailure.MEDIA_TOKEN)
            refused: AppError = error
        except RemoteProtocolError as error:
            self._metrics.auth_failed(AuthFailure.MEDIA_START)
            refused = error
        except CarrierUnavailable as error:
            refused = error  # It left by itself, which strangers and broken networks both do.
        logger.warning(
            "media stream refused", extra={"code": refused.code, "reason": refused.message}
        )
        return None
