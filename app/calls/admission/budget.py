"""The money that all calls of a day may cost, and how much of it is spent.

`DayBudget` is pure: amounts go in as they are spent, each into the day on which it is, by the
calendar of one time zone. `Budget` reads the clock, tells the log, and keeps what was spent in a
file, so that a restart does not begin the day anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import AsyncIterator, Callable
from datetime import UTC, date, datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from app.tasks import running
from app.threads import in_thread

__all__ = ["Budget", "BudgetNews", "DayBudget"]


logger = logging.getLogger(__name__)

KEEP_EVERY_S: Final = 5.0
_KEPT_DAYS: Final = 2
_ROUNDING: Final = 1e-9


class BudgetNews(StrEnum):
    """News of a budget; each comes once a day."""

    NEARLY_SPENT = "nearly_spent"
    SPENT = "spent"


class DayBudget:
    """A budget for each day. `now` is aware of its zone, whichever that is."""

    def __init__(
        self,
        per_day_usd: float,
        *,
        warn_at: float = 0.8,
        time_zone: str = "UTC",
        spent: dict[date, float] | None = None,
    ) -> None:
        """0 means no budget. `warn_at` is a share of it; earlier processes have spent `spent`."""
        self.per_day_usd = per_day_usd
        self._warn_usd = warn_at * per_day_usd
        self._zone = ZoneInfo(time_zone)
        self._spent = dict(spent or {})
        self._told: set[tuple[date, BudgetNews]] = set()
        self._minute = 0.0
        self._today = date.min

    def day(self, now: datetime) -> date:
        """The day that an amount spent now belongs to."""
        minute = now.timestamp() // 60  # within which no zone has a midnight
        if minute != self._minute:
            self._minute, self._today = minute, now.astimezone(self._zone).date()
        return self._today

    def spend(self, usd: float, now: datetime) -> BudgetNews | None:
        """Count an amount; the news that there is of it."""
        day = self.day(now)
        new = day not in self._spent
        self._spent[day] = self._spent.get(day, 0.0) + usd
        if new:
            for old in sorted(self._spent)[:-_KEPT_DAYS]:
                del self._spent[old]
            self._told = {one for one in self._told if one[0] in self._spent}
        return self.news(now)

    def news(self, now: datetime) -> BudgetNews | None:
        """Tell once a day that the budget is nearly spent, and once that it is."""
        day, spent = self.day(now), self.spent_usd(now)
        if self.exhausted(now):
            news = BudgetNews.SPENT
        elif self.per_day_usd and spent + _ROUNDING >= self._warn_usd:
            news = BudgetNews.NEARLY_SPENT
        else:
            return None
        if (day, news) in self._told:
            return None
        self._told |= {(day, news), (day, BudgetNews.NEARLY_SPENT)}
        return news

    def spent_usd(self, now: datetime) -> float:
        """The sum of the day so far."""
        return self._spent.get(self.day(now), 0.0)

    def exhausted(self, now: datetime) -> bool:
        """No more calls are to be taken today."""
        return 0 < self.per_day_usd <= self.spent_usd(now) + _ROUNDING

    def by_day(self) -> dict[date, float]:
        """The sums that are still of use."""
        return dict(self._spent)


class Budget:
    """The budget of this process. `spend` may be called with every cent, and never waits."""

    def __init__(
        self,
        per_day_usd: float,
        path: Path,
        *,
        warn_at: float = 0.8,
        time_zone: str = "UTC",
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._path = path
        self._now = now
        self._days = DayBudget(per_day_usd, warn_at=warn_at, time_zone=time_zone, spent=_read(path))
        self._changed = False
        self._complained = False
        self.on_spent: Callable[[float], None] = lambda usd: None
        """Is told of every amount that calls of this process have cost."""

    @property
    def per_day_usd(self) -> float:
        return self._days.per_day_usd

    @property
    def spent_usd(self) -> float:
        """The sum of today."""
        return self._days.spent_usd(self._now())

    @property
    def exhausted(self) -> bool:
        """No more calls are to be taken today; those that run go on."""
        return self._days.exhausted(self._now())

    def spend(self, usd: float) -> None:
        """Count what a call has cost since the last time."""
        if not usd:
            return
        self.on_spent(usd)
        self.count(usd)

    def count(self, usd: float) -> None:
        """Count what calls of another process have cost."""
        self._changed = True
        news = self._days.spend(usd, self._now())
        if news is None:
            return
        facts = {"spent_usd": round(self.spent_usd, 4), "per_day_usd": self.per_day_usd}
        if news is BudgetNews.SPENT:
            logger.error("budget of the day is spent: new calls are turned away", extra=facts)
        else:
            logger.warning("budget of the day is nearly spent", extra=facts)

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Budget]:
        """Keep what is spent, every few seconds and at the end."""
        async with running(self._keep_on()):
            yield self
        await self._keep()

    async def _keep_on(self) -> None:
        while True:
            await asyncio.sleep(KEEP_EVERY_S)
            await self._keep()

    async def _keep(self) -> None:
        if not self._changed:
            return
        self._changed = False
        sums = {day.isoformat(): round(usd, 6) for day, usd in self._days.by_day().items()}
        try:
            await in_thread(partial(_write, self._path, json.dumps(sums)))
        except asyncio.CancelledError:
            self._changed = True  # it may have been written, or not
            raise
        except OSError as error:
            if not self._complained:
                logger.warning(
                    "spent budget cannot be kept",
                    extra={"file": str(self._path), "error": error.strerror},
                )
            self._complained = True


def _read(path: Path) -> dict[date, float]:
    try:
        sums = json.loads(path.read_text(encoding="ascii"))
        return {date.fromisoformat(day): float(usd) for day, usd in sums.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError):
        logger.warning("spent budget cannot be read", extra={"file": str(path)})
        return {}


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(text)
    os.replace(draft, path)
