"""Webhooks about calls: from the log of events to a receiver, with both databases."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from standardwebhooks import Webhook as ReceiverLibrary

from app.credentials.api_keys import Scope
from app.events import CallId, CallNotAnswered, CallPlaced, CallTurnedAway
from app.http.client import SafeHttp
from app.http.signed_webhook import Webhook, WebhookSpec
from app.store.base import Outcome
from app.store.codec import Storable
from app.store.sql.store import SqlStore
from app.store.sql.webhooks import FINISHED, WebhookOutbox
from app.webhooks.deliverer import PAUSES_S, Receiver, WebhookDeliverer
from tests.fakes.call_events import BEGAN, call_events, recorded
from tests.fakes.waiting import time_limit, until
from tests.fakes.web_service import WebService, answer
from tests.integration.analysis_site import outgoing
from tests.integration.store_site import postgres, store
from tests.integration.test_api import client, is_problem, new_key
from tests.integration.test_api_history import kept, one_call
from tests.unit.store.test_fold import ENDINGS

__all__ = ["postgres", "store"]

SECRET = "whsec_" + "dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0"
AWAY = CallTurnedAway(
    call_id=CallId("call_away"),
    carrier_call_id="CA1",
    caller_number="+15550001111",
    called_number="+15552223333",
    reason="at_capacity",
)


@dataclass
class Clock:
    now: datetime = BEGAN


@dataclass
class Site:
    """A receiver, and what delivers to it."""

    service: WebService
    deliverer: WebhookDeliverer
    clock: Clock
    outcomes: list[str] = field(default_factory=list)

    async def deliver(self) -> list[dict[str, Any]]:
        """Deliver all that is due; the messages that the receiver got by it."""
        before = len(self.service.asked)
        while await self.deliverer.deliver_due():
            pass
        return [json.loads(asked.body) for asked in self.service.asked[before:]]


def site(
    store: SqlStore, http: SafeHttp, service: WebService, kinds: Collection[str] = (FINISHED,)
) -> Site:
    spec = WebhookSpec(url=f"{service.url}/hook", secret=SECRET, attempts=1, allow_private=True)
    receivers = {"crm": Receiver(Webhook(spec, http), frozenset(kinds))}
    clock, outcomes = Clock(), []  # type: ignore[var-annotated]
    deliverer = WebhookDeliverer(
        store,
        WebhookOutbox(store.database),
        receivers,
        on_outcome=outcomes.append,
        now=lambda: clock.now,
    )
    return Site(service, deliverer, clock, outcomes)


async def test_every_call_that_is_over_is_told_once_and_none_of_before(store: SqlStore) -> None:
    await store.append(recorded(call_events("call_past")), instance="me")
    async with outgoing() as http, WebService(answer(status=204)) as service:
        crm = site(store, http, service)
        assert await crm.deliver() == []
        await store.append(recorded(call_events("call_1")), instance="me")
        await store.append(recorded(call_events("call_2", ended=False)), instance="gone")
        await store.append(recorded([AWAY]), instance="me")
        told = sorted(await crm.deliver(), key=lambda message: str(message["id"]))
        assert [(m["type"], m["data"]["outcome"]) for m in told] == [
            ("call_finished", "answered"),
            ("call_finished", "busy"),
        ]
        assert [m["id"] for m in told] == ["call_1-finished", "call_away-finished"]
        await store.close_lost(of=["gone"])
        [lost] = await crm.deliver()
        assert (lost["data"]["call_id"], lost["data"]["outcome"]) == ("call_2", "lost")
        # Its end was in a spool after all: the call is not told of again.
        rest = recorded(call_events("call_2"))[-1:]
        await store.append(rest, instance="gone")
        assert await crm.deliver() == []
        for asked in service.asked:
            headers = {name: asked.headers[name] for name in asked.headers if "webhook" in name}
            assert ReceiverLibrary(SECRET).verify(asked.body, headers)


UNANSWERED: list[Storable] = [
    CallPlaced(
        call_id=CallId("call_1"),
        caller_number="+15550001111",
        called_number="+15552223333",
        agent="desk",
    ),
    CallNotAnswered(
        call_id=CallId("call_1"),
        carrier_call_id="CA1",
        outcome="no_answer",
        code="no_answer",
        reason="nobody answered",
        after_ms=30_000,
    ),
]


@pytest.mark.parametrize("case", [*ENDINGS, "placed, not answered"])
async def test_each_way_in_which_a_call_ends_is_told_once(case: str, store: SqlStore) -> None:
    events, outcome, _ = ENDINGS.get(case, (UNANSWERED, Outcome.NO_ANSWER, ""))
    over = outcome is not Outcome.IN_PROGRESS
    async with outgoing() as http, WebService(answer(status=204)) as service:
        crm = site(store, http, service)
        assert await crm.deliver() == []
        told = []
        for one in recorded(events):
            await store.append([one], instance="me")
            told += await crm.deliver()
        finished = [(message["type"], message["data"]["outcome"]) for message in told]
        assert finished == [(FINISHED, outcome.value)] * over


async def test_a_receiver_gets_the_events_that_it_wants(store: SqlStore) -> None:
    async with outgoing() as http, WebService(answer()) as service:
        crm = site(store, http, service, ["caller_said", FINISHED])
        await crm.deliver()
        await store.append(recorded(call_events("call_1", said=["One.", "Two."])), instance="me")
        told = await crm.deliver()
        assert sorted(m["data"].get("text", "") for m in told) == ["", "One.", "Two."]
        assert {m["data"]["call_id"] for m in told} == {"call_1"}


async def test_a_delivery_is_tried_again_for_a_day_and_then_replayed_by_hand(
    store: SqlStore,
) -> None:
    async with outgoing() as http, WebService(answer(status=500)) as service:
        crm = site(store, http, service)
        await crm.deliver()
        await store.append(recorded([AWAY]), instance="me")
        for pause_s in PAUSES_S:
            assert len(await crm.deliver()) == 1
            assert await crm.deliver() == []
            crm.clock.now += timedelta(seconds=pause_s - 1)
            assert await crm.deliver() == []
            crm.clock.now += timedelta(seconds=1)
        assert timedelta(hours=20) < crm.clock.now - BEGAN < timedelta(hours=24)
        assert len(await crm.deliver()) == 1
        assert crm.outcomes == ["retried"] * len(PAUSES_S) + ["failed"]
        crm.clock.now += timedelta(days=2)
        assert await crm.deliver() == []
        [failed] = await crm.deliverer.outbox.listed("failed")
        assert (failed.error, failed.attempts) == ("webhook_failed", len(PAUSES_S) + 1)
        assert len({asked.headers["webhook-id"] for asked in service.asked}) == 1
        assert len({asked.body for asked in service.asked}) == 1
        service.scripts = [answer(status=200)]
        assert await crm.deliverer.outbox.replay(failed.delivery_id, crm.clock.now)
        assert len(await crm.deliver()) == 1
        assert not await crm.deliverer.outbox.replay(failed.delivery_id + 1, crm.clock.now)
        crm.clock.now += timedelta(days=31)
        await crm.deliver()
        assert await crm.deliverer.outbox.listed() == []


async def test_several_processes_deliver_each_message_once(store: SqlStore) -> None:
    async with outgoing() as http, WebService(answer()) as service:
        both = [site(store, http, service), site(store, http, service)]
        for one in both:
            await one.deliver()
        for number in range(12):
            away = replace(AWAY, call_id=CallId(f"call_{number}"))
            await store.append(recorded([away]), instance="me")
        await asyncio.gather(*(one.deliver() for one in both))
        ids = [asked.headers["webhook-id"] for asked in service.asked]
        assert sorted(ids) == sorted({f"call_{number}-finished" for number in range(12)})


async def test_an_event_that_is_committed_late_is_still_told(store: SqlStore) -> None:
    async with outgoing() as http, WebService(answer()) as service:
        crm = site(store, http, service)
        await crm.deliver()
        await store.append(recorded(call_events("call_1")), instance="me")
        async with store.database.writing() as connection:  # as if it had a lower number
            row = await connection.execute(text("SELECT max(position) FROM events"))
            newest = row.scalar_one()
            await connection.execute(
                text("UPDATE events SET position = :to WHERE position = :newest"),
                {"to": newest + 50, "newest": newest},
            )
        assert [m["id"] for m in await crm.deliver()] == ["call_1-finished"]
        await store.append(recorded([AWAY]), instance="me")
        async with store.database.writing() as connection:
            await connection.execute(
                text("UPDATE events SET position = :to WHERE call_id = 'call_away'"),
                {"to": newest + 20},
            )
        assert [m["id"] for m in await crm.deliver()] == ["call_away-finished"]


async def test_nothing_of_an_erased_call_is_sent_or_kept(store: SqlStore) -> None:
    async with outgoing() as http, WebService(answer(status=500), answer()) as service:
        crm = site(store, http, service)
        await crm.deliver()
        await store.append(recorded([AWAY]), instance="me")
        await crm.deliver()
        await store.erase([AWAY.call_id])
        assert await crm.deliverer.outbox.listed() == []
        crm.clock.now += timedelta(days=1)
        assert await crm.deliver() == []


async def test_a_real_call_reaches_the_receiver_and_is_sent_again_by_the_api() -> None:
    async with WebService(answer(status=204)) as service:
        hook = {"url": f"{service.url}/hook", "secret": SECRET, "allow_private": True}
        async with kept(webhooks={"crm": hook}) as (app, admin), app.twilio():
            assert app.trunkline.history is not None
            outbox = WebhookOutbox(app.trunkline.history.store.database)  # type: ignore[attr-defined]
            await begun(outbox)
            call_id, _ = await one_call(app)
            await until(lambda: service.asked)
            message = json.loads(service.asked[0].body)
            assert (message["type"], message["data"]["call_id"]) == ("call_finished", call_id)
            found = await delivered(admin)
            again = f"/webhooks/deliveries/{found[0]['delivery_id']}/replay"
            assert (await admin.post(again)).status_code == 202
            await until(lambda: len(service.asked) == 2)
            assert service.asked[1].headers["webhook-id"] == service.asked[0].headers["webhook-id"]
            is_problem(
                await admin.post("/webhooks/deliveries/999/replay"), 404, "delivery_not_found"
            )
            metrics = (await app.trunkline.metrics.render()).decode()
            assert 'trunkline_webhook_deliveries_total{result="delivered"}' in metrics
            async with client(app, new_key(app, Scope.VIEWER)) as viewer:
                is_problem(await viewer.post(again), 403, "scope_too_small")


async def begun(outbox: WebhookOutbox) -> None:
    """Wait until the server has begun with the receiver."""
    async with time_limit():
        while True:
            async with outbox._database.reading() as connection:
                rows = await connection.execute(text("SELECT count(*) FROM webhook_cursors"))
                if rows.scalar_one():
                    return
            await asyncio.sleep(0.05)


async def delivered(admin: Any) -> list[dict[str, Any]]:
    """The deliveries, once there are some."""
    async with time_limit():
        while True:
            answer = await admin.get("/webhooks/deliveries?state=delivered")
            found: list[dict[str, Any]] = answer.json()["deliveries"]
            if found:
                return found
            await asyncio.sleep(0.05)


async def test_without_webhooks_the_routes_say_so() -> None:
    async with kept() as (_, admin):
        is_problem(await admin.get("/webhooks/deliveries"), 404, "webhooks_off")
