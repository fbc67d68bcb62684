"""Trying again: which failures, how often, after which pauses, within which time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from app.errors import AppError, CarrierRefused, CarrierUnavailable
from app.retry import parse_retry_after, retry

PASSING = CarrierUnavailable("busy")


class Attempts:
    """Fails as told, then succeeds; keeps the pauses in between."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.made = 0
        self.pauses: list[float] = []

    async def __call__(self) -> str:
        self.made += 1
        if self.failures:
            raise self.failures.pop(0)
        return "done"

    async def sleep(self, pause_s: float) -> None:
        self.pauses.append(pause_s)


async def test_a_success_is_not_repeated() -> None:
    attempts = Attempts()
    assert await retry(attempts, attempts=3, first_delay_s=1.0) == "done"
    assert attempts.made == 1


@pytest.mark.parametrize(("rng", "factor"), [(0.0, 0.5), (0.5, 1.0), (1.0, 1.5)])
async def test_pauses_double_within_their_jitter(rng: float, factor: float) -> None:
    attempts = Attempts(*[PASSING] * 3)
    found = await retry(
        attempts, attempts=4, first_delay_s=0.2, sleep=attempts.sleep, rng=lambda: rng
    )
    assert found == "done"
    assert attempts.pauses == pytest.approx([0.2 * factor, 0.4 * factor, 0.8 * factor])


async def test_a_pause_is_what_the_peer_asks_for_up_to_the_limit() -> None:
    attempts = Attempts(
        CarrierUnavailable("busy", retry_after_s=3.0), CarrierUnavailable("x", retry_after_s=60.0)
    )
    await retry(attempts, attempts=3, first_delay_s=0.2, max_delay_s=5.0, sleep=attempts.sleep)
    assert attempts.pauses == [3.0, 5.0]


@pytest.mark.parametrize("limit", [1, 2, 5])
async def test_attempts_are_limited_and_the_last_failure_is_raised(limit: int) -> None:
    failures = [CarrierUnavailable(str(number)) for number in range(9)]
    attempts = Attempts(*failures)
    with pytest.raises(CarrierUnavailable) as raised:
        await retry(attempts, attempts=limit, first_delay_s=0.0)
    assert raised.value is failures[limit - 1]
    assert attempts.made == limit


@pytest.mark.parametrize("error", [CarrierRefused("no"), ValueError("a bug"), OSError("network")])
async def test_what_cannot_pass_is_raised_at_once(error: Exception) -> None:
    attempts = Attempts(error)
    with pytest.raises(type(error)):
        await retry(attempts, attempts=3, first_delay_s=0.0)
    assert attempts.made == 1


async def test_the_caller_decides_per_error() -> None:
    def once(error: AppError) -> bool:
        return error.code == "again"

    attempts = Attempts(CarrierRefused("x", code="again"), CarrierRefused("x", code="never"))
    with pytest.raises(CarrierRefused, match="x") as raised:
        await retry(attempts, attempts=5, first_delay_s=0.0, may_retry=once)
    assert (raised.value.code, attempts.made) == ("never", 2)


async def test_a_pause_beyond_the_budget_is_not_begun() -> None:
    attempts = Attempts(CarrierUnavailable("busy", retry_after_s=30.0))
    with pytest.raises(CarrierUnavailable, match="busy"):
        await retry(attempts, attempts=3, first_delay_s=0.0, budget_s=6.0, sleep=attempts.sleep)
    assert (attempts.made, attempts.pauses) == (1, [])


async def test_an_attempt_ends_with_the_budget() -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await retry(hang, attempts=3, first_delay_s=0.0, budget_s=0.01)


async def hang_while_sleeping(_pause_s: float) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("sleep", [asyncio.sleep, hang_while_sleeping])
async def test_cancellation_ends_it_at_any_point(
    sleep: Callable[[float], Awaitable[None]],
) -> None:
    made = 0

    async def attempt() -> None:
        nonlocal made
        made += 1
        if sleep is asyncio.sleep:
            await asyncio.Event().wait()
        raise PASSING

    task = asyncio.create_task(retry(attempt, attempts=9, first_delay_s=0.0, sleep=sleep))
    for _ in range(3):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert made == 1


@pytest.mark.parametrize("attempts", [1, 2, 4])
async def test_each_failure_is_told_with_the_pause_behind_it(attempts: int) -> None:
    peer, told = Attempts(*[PASSING] * attempts), list[tuple[AppError, float | None]]()
    with pytest.raises(CarrierUnavailable):
        await retry(
            peer,
            attempts=attempts,
            first_delay_s=0.2,
            sleep=peer.sleep,
            on_failure=lambda error, pause_s: told.append((error, pause_s)),
        )
    assert told == [(PASSING, pause_s) for pause_s in (*peer.pauses, None)]


async def test_no_attempts_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="attempts"):
        await retry(Attempts(), attempts=0, first_delay_s=0.0)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("1.5", 1.5),
        ("-3", 0.0),
        ("inf", None),
        ("nan", None),
        ("soon", None),
        ("", None),
        (None, None),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0),
    ],
)
def test_a_retry_after_header_is_a_number_or_a_date(
    value: str | None, seconds: float | None
) -> None:
    assert parse_retry_after(value) == seconds


def test_a_date_in_the_future_is_seconds_from_now() -> None:
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert parse_retry_after(at) == pytest.approx(90, abs=30)
