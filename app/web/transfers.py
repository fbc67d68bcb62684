"""The carrier's routes for transfers: how one ended, who takes the call, what a queue plays.

Every one of them wants a signature, as all of the carrier's routes do; `phone.py` adds them to its
signed router. Which transfer a webhook is about stands in its address, which is signed as well. A
transfer that nobody knows any more is answered so that the call ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response

from app.carrier.base import (
    CarrierCallId,
    Fallback,
    LegAnswer,
    LegNews,
    Screening,
    TransferId,
    TransferResult,
)

__all__ = ["TransferDesk", "TransferFront", "add_transfer_routes"]

_NO_STORE: Final = {"cache-control": "no-store"}

Form = Sequence[tuple[str, str]]
T = TypeVar("T")


class TransferFront(Protocol):
    """A carrier's words for transfers; raises `SignatureError` and `RemoteProtocolError`."""

    content_type: str

    def read_transfer_over(
        self, form: Form, screening: Screening | None
    ) -> tuple[CarrierCallId, TransferResult]: ...
    def read_person_keys(self, form: Form) -> tuple[CarrierCallId, str]: ...
    def read_machine_answered(self, form: Form) -> CarrierCallId | None: ...
    def read_leg_news(self, form: Form) -> LegNews: ...
    def read_caller_joined(self, form: Form) -> bool: ...
    def read_queue_wait(self, form: Form) -> int: ...
    def after_transfer(self, token: str | None, fallback: Fallback | None = None) -> str: ...
    def ask_person(self, prompt: str, transfer_id: TransferId) -> str: ...
    def answer_person(self, answer: LegAnswer, transfer_id: TransferId) -> str: ...
    def queue_wait(self, waited_s: int, limit_s: int) -> str: ...


class TransferDesk(Protocol):
    """The part of the switchboard that transfers use."""

    def screening(self, transfer_id: TransferId) -> Screening | None: ...
    def transfer_prompt(self, transfer_id: TransferId) -> str | None: ...
    def transfer_keys(
        self, transfer_id: TransferId, leg_id: CarrierCallId, digits: str
    ) -> LegAnswer: ...
    def transfer_machine(self, transfer_id: TransferId, leg_id: CarrierCallId) -> None: ...
    def transfer_leg(self, transfer_id: TransferId, news: LegNews) -> None: ...
    def transfer_joined(self, transfer_id: TransferId) -> None: ...
    def fallback(self, carrier_call_id: CarrierCallId) -> Fallback | None: ...
    def transfer_wait_s(self, transfer_id: TransferId) -> int: ...
    def transfer_over(
        self, carrier_call_id: CarrierCallId, transfer_id: TransferId, result: TransferResult
    ) -> str | None: ...


class FormReader(Protocol):
    """Reads the form of a request whose signature was checked."""

    def __call__(self, reader: Callable[[Form], T], request: Request) -> T: ...


def add_transfer_routes(
    signed: APIRouter,
    front: TransferFront,
    desk: TransferDesk,
    read: FormReader,
) -> None:
    """Add the routes to a router that checks signatures; `read` reads its checked forms."""

    def document(text: str) -> Response:
        return Response(text, media_type=front.content_type, headers=_NO_STORE)

    @signed.post("/twilio/after-transfer")
    async def after_transfer(request: Request) -> Response:
        transfer_id = _transfer_of(request)
        screening = desk.screening(transfer_id)
        call_id, result = read(lambda form: front.read_transfer_over(form, screening), request)
        token = desk.transfer_over(call_id, transfer_id, result)
        return document(front.after_transfer(token, desk.fallback(call_id)))

    @signed.post("/twilio/transfer-screen")
    async def screen(request: Request) -> Response:
        transfer_id = _transfer_of(request)
        read(front.read_person_keys, request)
        prompt = desk.transfer_prompt(transfer_id)
        if prompt is None:
            return document(front.answer_person(LegAnswer.TOO_LATE, transfer_id))
        return document(front.ask_person(prompt, transfer_id))

    @signed.post("/twilio/transfer-keys")
    async def keys(request: Request) -> Response:
        transfer_id = _transfer_of(request)
        answer = desk.transfer_keys(transfer_id, *read(front.read_person_keys, request))
        return document(front.answer_person(answer, transfer_id))

    @signed.post("/twilio/leg-machine")
    async def machine(request: Request) -> Response:
        leg_id = read(front.read_machine_answered, request)
        if leg_id is not None:
            desk.transfer_machine(_transfer_of(request), leg_id)
        return PlainTextResponse("", headers=_NO_STORE)

    @signed.post("/twilio/leg-status")
    async def leg_status(request: Request) -> Response:
        desk.transfer_leg(_transfer_of(request), read(front.read_leg_news, request))
        return PlainTextResponse("", headers=_NO_STORE)

    @signed.post("/twilio/conference")
    async def conference(request: Request) -> Response:
        if read(front.read_caller_joined, request):
            desk.transfer_joined(_transfer_of(request))
        return PlainTextResponse("", headers=_NO_STORE)

    @signed.post("/twilio/queue-wait")
    async def queue_wait(request: Request) -> Response:
        waited_s = read(front.read_queue_wait, request)
        limit_s = desk.transfer_wait_s(_transfer_of(request))
        return document(front.queue_wait(waited_s, limit_s))


def _transfer_of(request: Request) -> TransferId:
    return TransferId(request.query_params.get("transfer", ""))
