"""Trying again what failed for now: a limit, doubling pauses with jitter, a budget of time."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from app.errors import AppError

__all__ = ["parse_retry_after", "retry"]


logger = logging.getLogger(__name__)
_T = TypeVar("_T")


def _note(error: AppError, pause_s: float | None) -> None:
    if pause_s is not None:
        facts = {"error": error.code, "pause_ms": int(pause_s * 1000)}
        logger.debug("attempt failed, trying again", extra=facts)


async def retry(  # noqa: PLR0913 - each is a plain setting with a default
    attempt: Callable[[], Awaitable[_T]],
    *,
    attempts: int | None = None,
    first_delay_s: float,
    max_backoff_s: float = float("inf"),
    max_delay_s: float = float("inf"),
    budget_s: float = float("inf"),
    may_retry: Callable[[AppError], bool] = lambda error: error.retryable,
    on_failure: Callable[[AppError, float | None], None] = _note,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    rng: Callable[[], float] = random.random,
) -> _T:
    """Await `attempt()` until it succeeds; `attempts` counts the first one; None means without end.

    The pause after a failure doubles each time up to `max_backoff_s`, plus or minus half by chance.
    It is never shorter than the peer asked for with `retry_after_s`, and never longer than
    `max_delay_s`. `on_failure` is told of each failure and of the seconds until the next attempt;
    None where there is none.

    Raises:
        TimeoutError: an attempt was still running at the end of `budget_s`.
        AppError: the last failure, when `may_retry` refuses it, when the attempts are used up, or
            when the pause would last beyond the budget.
    """
    if attempts is not None and attempts < 1:
        raise ValueError("attempts must be 1 at least")
    clock = asyncio.get_running_loop().time
    deadline = clock() + budget_s
    for count in itertools.count(1):
        try:
            async with asyncio.timeout_at(None if budget_s == float("inf") else deadline):
                return await attempt()
        except AppError as error:
            pause_s = min(first_delay_s * 2 ** min(count - 1, 30), max_backoff_s) * (0.5 + rng())
            pause_s = min(max(pause_s, error.retry_after_s or 0.0), max_delay_s)
            if count == attempts or not may_retry(error) or clock() + pause_s >= deadline:
                on_failure(error, None)
                raise
            on_failure(error, pause_s)
        await sleep(pause_s)
    raise AssertionError("the loop above ends by itself")


def parse_retry_after(value: str | None) -> float | None:
    """Seconds of a `Retry-After` header: a number or a date (RFC 9110, section 10.2.3)."""
    try:
        seconds = float(value or "")
    except ValueError:
        try:
            at = parsedate_to_datetime(value or "")
        except ValueError:
            return None
        seconds = (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if seconds < float("inf") else None
