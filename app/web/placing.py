"""The carrier's routes for calls that we place: who answered, how it goes, what has answered.

Every one of them wants a signature, as all of the carrier's routes do; `phone.py` adds them to its
signed router. A webhook's address, which is signed as well, names the call. A call that nobody here
knows is hung up on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response

from app.calls.outbound.dialer import Dialer
from app.carrier.base import CarrierCallId, Fallback, IncomingCall, PlacedReport, PlacingPaths
from app.web.transfers import FormReader

__all__ = ["PlacedCallWebhooks", "add_placing_routes"]

_NO_STORE: Final = {"cache-control": "no-store"}

Form = Sequence[tuple[str, str]]


class PlacedCallWebhooks(Protocol):
    """A carrier's forms and documents for calls that are placed.

    Raises `SignatureError` and `RemoteProtocolError`.
    """

    content_type: str
    placing_paths: PlacingPaths

    def read_incoming(self, form: Form) -> IncomingCall: ...
    def read_placed(self, form: Form) -> PlacedReport: ...
    def read_verdict(self, form: Form) -> tuple[CarrierCallId, str, int]: ...
    def answer(self, token: str, fallback: Fallback | None = None) -> str: ...
    def hang_up(self) -> str: ...


def add_placing_routes(
    signed: APIRouter,
    webhooks: PlacedCallWebhooks,
    dialer: Callable[[], Dialer],
    read: FormReader,
) -> None:
    """Add the routes to a router that checks signatures; `read` reads its checked forms."""
    paths = webhooks.placing_paths

    @signed.post(paths.answer)
    async def answer(request: Request) -> Response:
        incoming = read(webhooks.read_incoming, request)
        admission = await dialer().on_answer(_reference(request), incoming)
        if admission is None:
            document = webhooks.hang_up()
        else:
            document = webhooks.answer(admission.token, admission.fallback)
        return Response(document, media_type=webhooks.content_type, headers=_NO_STORE)

    @signed.post(paths.status)
    async def status(request: Request) -> Response:
        await dialer().on_status(_reference(request), read(webhooks.read_placed, request))
        return PlainTextResponse("", headers=_NO_STORE)

    @signed.post(paths.machine)
    async def machine(request: Request) -> Response:
        verdict = read(webhooks.read_verdict, request)
        await dialer().on_verdict(_reference(request), *verdict)
        return PlainTextResponse("", headers=_NO_STORE)


def _reference(request: Request) -> str:
    return request.query_params.get("placed", "")[:64]
