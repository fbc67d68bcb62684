"""Calls that are placed, the do-not-call list and campaigns, over the API."""

from __future__ import annotations

import re
from collections.abc import Awaitable
from dataclasses import asdict
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal, TypeVar

from fastapi import APIRouter, Path, Query, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.calls.outbound.campaigns import CampaignOptions
from app.calls.outbound.dial_policy import Purpose
from app.calls.outbound.dialer import PlaceOrder
from app.calls.outbound.outbound import Outbound
from app.credentials.api_keys import Scope
from app.errors import PlacingRefused, StoreError, StoreUnavailable
from app.events import CallId
from app.store.outbound import Attempt, Campaign, Contact, ListedNumber
from app.web.api.guard import client_of, needs
from app.web.api.problem import ANSWER_S, Problem, store_problems

__all__ = ["add_outbound_routes"]

T = TypeVar("T")
FILE_S: Final = 60.0
"""The time for a file with many contacts."""
_UNAVAILABLE: Final = frozenset(
    {"draining", "at_capacity", "overloaded", "outbound_at_capacity", "no_store"}
)
_STATUS_OF: Final = {
    "outbound_not_enabled": HTTPStatus.CONFLICT,
    "called_already": HTTPStatus.CONFLICT,
    "campaign_state": HTTPStatus.CONFLICT,
    "over_budget": HTTPStatus.TOO_MANY_REQUESTS,
    "number_cap": HTTPStatus.TOO_MANY_REQUESTS,
    "day_cap": HTTPStatus.TOO_MANY_REQUESTS,
    "campaign_not_found": HTTPStatus.NOT_FOUND,
}
"""Every other refusal is a 422: the same request is refused again."""

Number = Annotated[str, Field(min_length=1, max_length=64)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Zone = Annotated[str, Field(pattern=r"^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$", max_length=64)]
Word = Literal["service", "marketing"]
CampaignId = Annotated[str, Path(max_length=64)]
Csv = Annotated[str, Field(min_length=1, max_length=60_000)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class NewCall(_Body):
    """A call to place. `variables` reach the agent's templates and tools as data."""

    to: Number
    agent: Name
    variables: dict[Name, Annotated[str, Field(max_length=2_000)]] = Field(
        default_factory=dict, max_length=50
    )
    purpose: Word = "service"
    from_number: Annotated[str, Field(max_length=64)] = ""
    time_zone: Zone | None = None


def _whole_number(text: str) -> str:
    if not re.fullmatch(r"\+[1-9][0-9]{6,14}", text, re.ASCII):
        raise ValueError("write the whole number with + and country code, such as +15551234567")
    return text


class NewNumber(_Body):
    """A number for the do-not-call list, or one that has consented."""

    number: Annotated[str, AfterValidator(_whole_number)]
    reason: Annotated[str, Field(max_length=500)] = ""


Retry = Annotated[int, Field(ge=0, le=2_592_000)]
RetryAfter = Literal[
    "busy", "no_answer", "canceled", "failed", "unknown",
    "voicemail", "screening", "ivr", "fax", "hold", "nobody",
]  # fmt: skip


class NewCampaign(_Body):
    """A campaign; it begins paused. `csv` are contacts.

    `retry_s` is the pause after each outcome; null: nobody is tried again after it.
    """

    name: Name
    agent: Name
    purpose: Word = "service"
    attempts: Annotated[int, Field(ge=1, le=20)] = 3
    retry_s: dict[RetryAfter, Retry | None] = Field(default_factory=dict)
    max_calls: Annotated[int, Field(ge=1, le=10_000)] = 5
    calls_per_second: Annotated[float, Field(gt=0, le=1_000, strict=False)] = 1.0
    hours: Annotated[str, Field(max_length=11)] = ""
    from_number: Annotated[str, Field(max_length=64)] = ""
    stop_after_failures: Annotated[int, Field(ge=0, le=1_000)] = 10
    csv: Annotated[str, Field(max_length=60_000)] = ""


class NewContacts(_Body):
    """Contacts as CSV: a column `number`, perhaps `time_zone`, all others variables."""

    csv: Csv


async def _answered(work: Awaitable[T], answer_s: float = ANSWER_S) -> T:
    """The result. Raises Problem in place of our own errors."""
    async with store_problems(answer_s):
        try:
            return await work
        except PlacingRefused as error:
            raise _problem(error) from error
        except StoreUnavailable:
            raise
        except StoreError as error:
            raise Problem(HTTPStatus.CONFLICT, error.code, error.message) from error


def _problem(error: PlacingRefused) -> Problem:
    status = _STATUS_OF.get(error.code, HTTPStatus.UNPROCESSABLE_ENTITY)
    if error.code in _UNAVAILABLE:
        status = HTTPStatus.SERVICE_UNAVAILABLE
    more: dict[str, Any] = {} if error.not_before is None else {"not_before": error.not_before}
    return Problem(status, error.code, error.message, **more)


def add_outbound_routes(router: APIRouter, outbound: Outbound) -> None:
    """Add the routes of placed calls, lists and campaigns."""
    _add_calls(router, outbound)
    _add_lists(router, outbound)
    _add_campaigns(router, outbound)


def _add_calls(router: APIRouter, outbound: Outbound) -> None:
    viewer, operator = needs(Scope.VIEWER), needs(Scope.OPERATOR)
    dialer = outbound.dialer

    @router.post("/calls", openapi_extra=operator, status_code=HTTPStatus.ACCEPTED)
    async def place_call(body: NewCall) -> dict[str, Any]:
        """Call somebody. The answer comes once the call is allowed; its events tell the rest."""
        order = PlaceOrder(
            number=body.to,
            agent=body.agent,
            variables=body.variables,
            purpose=Purpose(body.purpose),
            from_number=body.from_number,
            time_zone=body.time_zone,
        )
        return _shown_attempt(await _answered(dialer.place(order)))

    @router.get("/placed_calls", openapi_extra=viewer)
    async def placed_calls(
        limit: Annotated[int, Query(ge=1, le=1_000)] = 50,
    ) -> dict[str, Any]:
        """List the last calls placed, those under way first; `not_ready` says why none can be."""
        not_ready = None
        try:
            dialer.check_ready()
            _ = dialer.store
        except PlacingRefused as error:
            not_ready = {"code": error.code, "message": error.message}
        found = await _answered(dialer.store.recent(limit)) if dialer.keeps else ()
        return {"calls": [_shown_attempt(one) for one in found], "not_ready": not_ready}

    @router.get("/placed_calls/{call_id}", openapi_extra=viewer)
    async def placed_call(call_id: CampaignId) -> dict[str, Any]:
        """Show how far a placed call is, and what came of it."""
        try:
            found = await _answered(dialer.store.attempt(CallId(call_id)))
        except PlacingRefused as error:
            raise _problem(error) from error
        if found is None:
            raise Problem(HTTPStatus.NOT_FOUND, "call_not_found", "There is no such placed call")
        return _shown_attempt(found)


def _add_lists(router: APIRouter, outbound: Outbound) -> None:
    viewer, operator = needs(Scope.VIEWER), needs(Scope.OPERATOR)
    dialer = outbound.dialer

    @router.get("/do_not_call", openapi_extra=viewer)
    async def do_not_call(
        after: Annotated[str, Query(max_length=64)] = "",
        limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
    ) -> dict[str, Any]:
        """List the numbers that are never called."""
        listed = await _stored(lambda store: store.listed(after=after, limit=limit))
        return {"numbers": [_shown_number(one) for one in listed]}

    @router.post("/do_not_call", openapi_extra=operator)
    async def add_do_not_call(request: Request, body: NewNumber) -> dict[str, Any]:
        """Never call a number again."""
        by, now = client_of(request).name, dialer.now()
        await _stored(lambda store: store.list_number(body.number, now, body.reason, by))
        return {"number": body.number, "do_not_call": True}

    @router.delete("/do_not_call/{number}", openapi_extra=needs(Scope.ADMIN))
    async def remove_do_not_call(number: CampaignId) -> dict[str, Any]:
        """Take a number off the list."""
        gone = await _stored(lambda store: store.unlist_number(number))
        return {"number": number, "removed": gone}

    @router.post("/consents", openapi_extra=operator)
    async def add_consent(request: Request, body: NewNumber) -> dict[str, Any]:
        """Record that somebody has consented to marketing calls."""
        source = f"{body.reason} ({client_of(request).name})".strip()
        now = dialer.now()
        await _stored(lambda store: store.add_consent(body.number, now, source))
        return {"number": body.number, "consent": True}

    @router.delete("/consents/{number}", openapi_extra=operator)
    async def remove_consent(number: CampaignId) -> dict[str, Any]:
        """Record that somebody has withdrawn their consent."""
        gone = await _stored(lambda store: store.remove_consent(number))
        return {"number": number, "removed": gone}

    async def _stored(ask: Any) -> Any:
        try:
            store = dialer.store
        except PlacingRefused as error:
            raise _problem(error) from error
        return await _answered(ask(store))


def _add_campaigns(router: APIRouter, outbound: Outbound) -> None:
    viewer, operator = needs(Scope.VIEWER), needs(Scope.OPERATOR)
    campaigns, dialer = outbound.campaigns, outbound.dialer

    async def shown(campaign: Campaign) -> dict[str, Any]:
        counts = await _answered(dialer.store.counts(campaign.campaign_id))
        return {**_shown_campaign(campaign), "contacts": dict(counts)}

    @router.get("/campaigns", openapi_extra=viewer)
    async def list_campaigns() -> dict[str, Any]:
        """List all campaigns, the oldest first."""
        if not dialer.keeps:
            return {"campaigns": []}
        found = await _answered(dialer.store.campaigns())
        return {"campaigns": [await shown(one) for one in found]}

    @router.post("/campaigns", openapi_extra=operator, status_code=HTTPStatus.CREATED)
    async def create_campaign(body: NewCampaign) -> dict[str, Any]:
        """Make a campaign. It is paused until it is resumed."""
        given = body.model_dump(exclude={"name", "agent", "purpose", "csv"})
        options = CampaignOptions(**given)
        made = campaigns.create(body.name, body.agent, Purpose(body.purpose), options, body.csv)
        return await shown(await _answered(made))

    @router.get("/campaigns/{campaign_id}", openapi_extra=viewer)
    async def show_campaign(campaign_id: CampaignId) -> dict[str, Any]:
        """Show a campaign, with how many of its contacts are in each state."""
        return await shown(await _answered(campaigns.campaign(campaign_id)))

    @router.get("/campaigns/{campaign_id}/contacts", openapi_extra=viewer)
    async def list_contacts(
        campaign_id: CampaignId,
        after: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
    ) -> dict[str, Any]:
        """List contacts behind the one with the id `after`."""
        await _answered(campaigns.campaign(campaign_id))
        found = await _answered(dialer.store.contacts(campaign_id, after=after, limit=limit))
        return {"contacts": [_shown_contact(one) for one in found]}

    @router.post("/campaigns/{campaign_id}/contacts", openapi_extra=operator)
    async def add_contacts(campaign_id: CampaignId, body: NewContacts) -> dict[str, Any]:
        """Add contacts; a number that the campaign has already stays as it is."""
        return (await _answered(campaigns.add_contacts(campaign_id, body.csv)))._asdict()

    @router.post(
        "/campaigns/{campaign_id}/contacts.csv",
        openapi_extra=needs(Scope.OPERATOR, body="text/csv"),
    )
    async def add_contacts_file(
        request: Request,
        campaign_id: CampaignId,
        encoding: Annotated[str, Query(max_length=64)] = "",
    ) -> dict[str, Any]:
        """Add the contacts of a CSV file: in Unicode, unless `encoding` names another one."""
        added = campaigns.add_contacts(campaign_id, await request.body(), encoding)
        return (await _answered(added, FILE_S))._asdict()

    @router.post("/campaigns/{campaign_id}/{action}", openapi_extra=operator)
    async def act(
        request: Request, campaign_id: CampaignId, action: Literal["pause", "resume", "cancel"]
    ) -> dict[str, Any]:
        """Pause, resume or cancel a campaign. Calls that are under way go on."""
        by = client_of(request).name
        return await shown(await _answered(campaigns.act(campaign_id, action, by)))


def _shown_attempt(attempt: Attempt) -> dict[str, Any]:
    row = asdict(attempt)
    del row["owner"]
    return {
        **row,
        "state": attempt.state.value,
        "outcome": None if attempt.outcome is None else attempt.outcome.value,
    }


def _shown_number(listed: ListedNumber) -> dict[str, Any]:
    return asdict(listed)


def _shown_campaign(campaign: Campaign) -> dict[str, Any]:
    return {**asdict(campaign), "state": campaign.state.value}


def _shown_contact(contact: Contact) -> dict[str, Any]:
    return {**asdict(contact), "state": contact.state.value}
