"""The carrier's routes for transfers: how one ended, who takes the call, what a queue plays.

Every one of them wants a signature, as all of the carrier's routes do; `phone.py` adds them to its
signed router. A webhook's address, which is signed as well, names the transfer. A webhook of an
unknown transfer is answered so that the call ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response

from app.calls.transfer.transfer_reports import TransferReports
from app.carrier.base import (
    CarrierCallId,
    Fallback,
    LegAnswer,
    LegStatus,
    Screening,
    TransferId,
    TransferPaths,
    TransferResult,
)

__all__ = ["TransferWebhooks", "add_transfer_routes"]

_NO_STORE: Final = {"cache-control": "no-store"}

Form = Sequence[tuple[str, str]]
T = TypeVar("T")


class TransferWebhooks(Protocol):
    """A carrier's forms and documents for transfers.

    Raises `SignatureError` and `RemoteProtocolError`.
    """

    content_type: str
    transfer_paths: TransferPaths

    def read_transfer_over(
        self, form: Form, screening: Screening | None
    ) -> tuple[CarrierCallId, TransferResult]: ...
    def read_person_keys(self, form: Form) -> tuple[CarrierCallId, str]: ...
    def read_machine_answered(self, form: Form) -> CarrierCallId | None: ...
    def read_leg_status(self, form: Form) -> LegStatus: ...
    def read_caller_joined(self, form: Form) -> bool: ...
    def read_queue_wait(self, form: Form) -> int: ...
    def after_transfer(self, token: str | None, fallback: Fallback | None = None) -> str: ...
    def ask_person(self, prompt: str, transfer_id: TransferId) -> str: ...
    def answer_person(self, answer: LegAnswer, transfer_id: TransferId) -> str: ...
    def queue_wait(self, waited_s: int, limit_s: int) -> str: ...


class FormReader(Protocol):
    """Reads the form of a request whose signature was checked."""

    def __call__(self, reader: Callable[[Form], T], request: Request) -> T: ...


def add_transfer_routes(
    signed: APIRouter,
    webhooks: TransferWebhooks,
    reports: TransferReports,
    read: FormReader,
    *,
    fallback: Callable[[CarrierCallId], Fallback | None],
) -> None:
    """Add the routes to a router that checks signatures; `read` reads its checked forms.

    `fallback` takes callers whose agent is lost.
    """
    paths = webhooks.transfer_paths

    def document(text: str) -> Response:
        return Response(text, media_type=webhooks.content_type, headers=_NO_STORE)

    @signed.post(paths.over)
    async def over(request: Request) -> Response:
        transfer_id = _transfer_of(request)
        screening = reports.screening(transfer_id)
        call_id, result = read(lambda form: webhooks.read_transfer_over(form, screening), request)
        token = reports.on_over(call_id, transfer_id, result)
        return document(webhooks.after_transfer(token, fallback(call_id)))

    @signed.post(paths.question)
    async def question(request: Request) -> Response:
        transfer_id = _transfer_of(request)
        read(webhooks.read_person_keys, request)
        prompt = reports.prompt(transfer_id)
        if prompt is None:
            return document(webhooks.answer_person(LegAnswer.TOO_LATE, transfer_id))
        return document(webhooks.ask_person(prompt, transfer_id))

    @signed.post(paths.keys)
    async def keys(request: Request) -> Response:
        transfer_id = _transfer_of(request)
        answer = reports.on_keys(transfer_id, *read(webhooks.read_person_keys, request))
        return document(webhooks.answer_person(answer, transfer_id))

    @signed.post(paths.machine)
    async def machine(request: Request) -> Response:
        leg_id = read(webhooks.read_machine_answered, request)
        if leg_id is not None:
            reports.on_machine(_transfer_of(request), leg_id)
        return PlainTextResponse("", headers=_NO_STORE)

    @signed.post(paths.leg)
    async def leg(request: Request) -> Response:
        reports.on_leg(_transfer_of(request), read(webhooks.read_leg_status, request))
        return PlainTextResponse("", headers=_NO_STORE)

    @signed.post(paths.conference)
    async def conference(request: Request) -> Response:
        if read(webhooks.read_caller_joined, request):
            reports.on_caller_joined(_transfer_of(request))
        return PlainTextResponse("", headers=_NO_STORE)

    @signed.post(paths.queue_wait)
    async def queue_wait(request: Request) -> Response:
        waited_s = read(webhooks.read_queue_wait, request)
        limit_s = reports.wait_limit_s(_transfer_of(request))
        return document(webhooks.queue_wait(waited_s, limit_s))


def _transfer_of(request: Request) -> TransferId:
    return TransferId(request.query_params.get("transfer", ""))
