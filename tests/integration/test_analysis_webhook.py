"""Signed webhooks, delivered over real sockets."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator

import pytest

from app.background import BackgroundJobs
from app.errors import ToolError
from app.http.client import SafeHttp
from app.http.signed_webhook import Message, Outbox
from tests.fakes.web_service import WebService, answer
from tests.fakes.webhooks import is_signed
from tests.integration.analysis_site import hook, outgoing, silence


@pytest.fixture
async def http() -> AsyncIterator[SafeHttp]:
    async with outgoing() as client:
        yield client


# Webhooks -----------------------------------------------------------------------------------------


MESSAGE = Message(key="msg_1", kind="call.reviewed", data={"call_id": "call_1"})


async def test_a_receiver_can_check_the_signature(http: SafeHttp) -> None:
    async with WebService(answer(status=204)) as service:
        webhook = hook(service, http)
        assert (await webhook.post(MESSAGE)).status == 204
    [asked] = service.asked
    assert (asked.method, asked.target) == ("POST", "/hook")
    assert asked.headers["webhook-id"] == asked.headers["idempotency-key"] == "msg_1"
    assert is_signed(webhook.spec.key, asked.headers, asked.body)
    assert not is_signed(webhook.spec.key, asked.headers, asked.body + b" ")
    assert json.loads(asked.body)["data"] == {"call_id": "call_1"}


async def test_a_delivery_is_repeated_under_the_same_id(http: SafeHttp) -> None:
    async with WebService(
        answer(status=503), answer(status=429, retry_after="60"), answer(status=200)
    ) as service:
        webhook = hook(service, http)
        assert (await webhook.post(MESSAGE)).status == 200
    assert [asked.headers["webhook-id"] for asked in service.asked] == ["msg_1"] * 3
    assert len({asked.body for asked in service.asked}) == 1
    for asked in service.asked:
        assert is_signed(webhook.spec.key, asked.headers, asked.body)


@pytest.mark.parametrize("status", [400, 401, 404, 410, 301])
async def test_a_refusal_is_not_argued_with(status: int, http: SafeHttp) -> None:
    async with WebService(answer(status=status)) as service:
        with pytest.raises(ToolError) as raised:
            await hook(service, http).post(MESSAGE)
    assert raised.value.code in {"webhook_refused", "redirect_refused"}
    assert len(service.asked) == 1


async def test_a_receiver_that_stays_down_is_given_up(http: SafeHttp) -> None:
    async with WebService(answer(status=500)) as service:
        with pytest.raises(ToolError) as raised:
            await hook(service, http, attempts=4).post(MESSAGE)
    assert raised.value.code == "webhook_failed"
    assert len(service.asked) == 4


async def test_a_slow_receiver_is_tried_again(http: SafeHttp) -> None:
    async with WebService(silence, answer()) as service:
        await hook(service, http, timeout_ms=100).post(MESSAGE)
    assert len(service.asked) >= 2


async def test_a_receiver_that_is_not_there_is_tried_again(http: SafeHttp) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets the port
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
        with pytest.raises(ToolError) as raised:
            await hook(url, http, attempts=2).post(MESSAGE)
    assert raised.value.code == "unreachable"


async def test_the_outbox_delivers_in_the_background(
    http: SafeHttp, caplog: pytest.LogCaptureFixture
) -> None:
    bad, good = WebService(answer(status=404)), WebService(answer())
    async with bad, good, BackgroundJobs() as jobs:
        outbox = Outbox(jobs)
        assert outbox.put(hook(bad, http), MESSAGE)
        assert outbox.put(hook(good, http), Message(key="msg_2", kind="k", data={}))
    assert (len(bad.asked), len(good.asked)) == (1, 1)
    [record] = caplog.records
    assert record.getMessage() == "webhook was not delivered"
