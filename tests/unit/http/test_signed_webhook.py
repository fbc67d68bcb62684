"""Signed webhooks, mistakes in their specs, and jobs that outlive calls."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from app.agents.llm.chat_completions import ChatSpec
from app.background import BackgroundJobs
from app.errors import ConfigError
from app.http.signed_webhook import Message, WebhookSpec, read_secret

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
URL = "https://hooks.example.com/calls"

# Secrets -----------------------------------------------------------------------------------------


def test_a_secret_may_be_plain_text() -> None:
    assert read_secret("correct horse battery staple") == b"correct horse battery staple"


@pytest.mark.parametrize("secret", ["", "short", "whsec_short", "whsec_!!!!", "x" * 65])
def test_a_weak_or_broken_secret_is_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(ConfigError) as raised:
        WebhookSpec(url=URL, secret=secret)
    assert not secret or secret not in raised.value.message


# Messages -----------------------------------------------------------------------------------------


def test_a_message_is_rendered_in_utc() -> None:
    at = datetime(2026, 11, 21, 5, 0, tzinfo=timezone(timedelta(hours=2)))
    message = Message(key="m1", kind="call.reviewed", data={"name": "Zoë"}, at=at)
    assert json.loads(message.render()) == {
        "id": "m1",
        "type": "call.reviewed",
        "timestamp": "2026-11-21T03:00:00Z",
        "data": {"name": "Zoë"},
    }


def test_a_new_message_is_stamped_with_the_current_time() -> None:
    before = datetime.now(UTC)
    assert before <= Message(key="m1", kind="k", data={}).at <= datetime.now(UTC)


@pytest.mark.parametrize("key", ["", "a.b", "a b", "x" * 129])
def test_a_key_with_other_characters_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="key"):
        Message(key=key, kind="k", data={})


# Specs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "http://hooks.example.com"},
        {"url": "https://127.0.0.1/"},
        {"url": "https://user:pass@hooks.example.com"},
        {"attempts": 0},
        {"timeout_ms": 0},
        {"first_delay_ms": 0},
        {"max_delay_ms": 10},
    ],
)
def test_a_webhook_that_cannot_work_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="webhook"):
        WebhookSpec(**{"url": URL, "secret": SECRET, **wrong})


def test_a_secret_does_not_show() -> None:
    spec = WebhookSpec(url=URL, secret=SECRET)
    assert SECRET not in repr(spec)
    assert "key" not in repr(spec)
    assert "sk-1" not in repr(ChatSpec(base_url=URL, model="m", api_key="sk-1"))


@pytest.mark.parametrize(
    "wrong",
    [{"base_url": "http://api.example.com/v1"}, {"model": ""}, {"timeout_ms": -1}],
)
def test_a_chat_endpoint_that_cannot_work_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="analysis"):
        ChatSpec(**{"base_url": URL, "model": "m", **wrong})


# Background jobs ---------------------------------------------------------------------------------


async def test_a_job_is_done_before_the_context_ends() -> None:
    done: list[str] = []

    async def work() -> None:
        await asyncio.sleep(0)
        done.append("done")

    async with BackgroundJobs() as jobs:
        assert jobs.put("a", work)
    assert done == ["done"]
    assert len(jobs) == 0


async def test_a_job_may_hand_in_another_at_the_last_moment() -> None:
    done: list[str] = []

    async def second() -> None:
        done.append("second")

    async def first() -> None:
        jobs.put("b", second)

    async with BackgroundJobs() as jobs:
        jobs.put("a", first)
    assert done == ["second"]


async def test_an_unfinished_job_is_cancelled_and_named_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with BackgroundJobs(grace_ms=10) as jobs:
        jobs.put("for ever", lambda: asyncio.Event().wait())  # type: ignore[arg-type,return-value]
    assert jobs.unfinished == 1
    assert [record.getMessage() for record in caplog.records] == ["background job was not finished"]
    assert not jobs.put("late", lambda: asyncio.sleep(0))


async def test_a_job_that_fails_harms_no_other(caplog: pytest.LogCaptureFixture) -> None:
    done: list[str] = []

    async def fail() -> None:
        raise ValueError("no")

    async def work() -> None:
        done.append("done")

    async with BackgroundJobs() as jobs:
        jobs.put("a", fail)
        jobs.put("b", work)
    assert done == ["done"]
    assert [record.getMessage() for record in caplog.records] == ["background job failed"]


async def test_jobs_do_not_pile_up_and_run_once_at_a_time() -> None:
    release = asyncio.Event()
    runs: list[str] = []

    async def work() -> None:
        runs.append("ran")
        await release.wait()

    async with BackgroundJobs(max_waiting=2) as jobs:
        assert jobs.put("a", work)
        assert jobs.put("a", work)
        assert jobs.put("b", work)
        assert not jobs.put("c", work)
        release.set()
    assert (len(runs), jobs.refused) == (2, 1)


def test_half_a_surrogate_pair_is_replaced_in_a_message() -> None:
    message = Message(key="m", kind="call.reviewed", data={"review": {"summary": "a\ud83d"}})
    assert json.loads(message.render())["data"] == {"review": {"summary": "a?"}}
