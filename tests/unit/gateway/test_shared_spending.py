"""The money of keys and secrets over several processes: each counts what the others spend."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest

from app.gateway.access import Client, Ledger, Refused
from app.gateway.shared_spending import SharedSpending
from app.settings import GatewayKey
from tests.fakes.waiting import until
from tests.unit.test_bus import buses

SECRET = Client(key_id="k", key_name="app", secret_id="s", max_usd=1.0)
KEY = Client(key_id="k", key_name="app")


def ledger(keys: dict[str, GatewayKey] | None = None) -> Ledger:
    return Ledger(None, keys or {}, reserve_usd=0.1, max_sessions=9)


@contextlib.asynccontextmanager
async def processes(
    keys: dict[str, GatewayKey] | None = None,
) -> AsyncIterator[list[tuple[Ledger, SharedSpending]]]:
    """The ledgers of three processes."""
    async with buses() as found:
        ledgers = [ledger(keys) for _ in found]
        yield [(one, SharedSpending(bus, one)) for one, bus in zip(ledgers, found, strict=True)]


async def test_money_that_a_secret_has_spent_in_one_process_is_gone_in_all() -> None:
    async with processes() as [(one, _), (two, _), (three, _)]:
        first, second = one.begin(SECRET, paid=True), two.begin(SECRET, paid=True)
        assert one.spend(SECRET, first, 0.6)
        await until(lambda: bool(two.spent_by("s")))
        assert not two.spend(SECRET, second, 0.6)  # which alone would be within the limit
        await until(lambda: len(three.spent_by("s")) == 2)
        with pytest.raises(Refused, match="spent"):
            three.begin(SECRET, paid=True)


async def test_money_that_a_key_has_spent_in_one_process_is_gone_in_all() -> None:
    async with processes(keys={"app": GatewayKey(per_day_usd=1.0)}) as [(one, _), (two, _), _]:
        assert one.spend(KEY, one.begin(KEY, paid=True), 0.95)
        second = two.begin(KEY, paid=True)

        def refuses() -> bool:
            try:
                two.end(KEY, two.begin(KEY, paid=True))
            except Refused:
                return True
            return False

        await until(refuses)
        assert not two.spend(KEY, second, 0.05)


async def test_a_process_that_missed_it_asks_before_a_session_begins() -> None:
    async with buses() as (first_bus, _, late_bus):
        early = ledger()
        SharedSpending(first_bus, early)
        early.spend(SECRET, early.begin(SECRET, paid=True), 1.0)
        late = ledger()  # a process that has just begun
        sharing = SharedSpending(late_bus, late)
        late.begin(SECRET, paid=True)
        await sharing.learn(SECRET.secret_id)
        with pytest.raises(Refused, match="spent"):
            late.begin(SECRET, paid=True)


async def test_a_message_that_is_lost_is_made_good_by_the_next() -> None:
    async with processes() as [(one, _), (two, _), _]:
        reservation = one.begin(SECRET, paid=True)
        told, one.on_spent = one.on_spent, lambda client, usd: None
        one.spend(SECRET, reservation, 0.3)
        one.on_spent = told
        one.spend(SECRET, reservation, 0.3)
        await until(lambda: bool(two.spent_by("s")))
        assert sum(two.spent_by("s").values()) == pytest.approx(0.6)


async def test_nothing_is_told_of_what_no_limit_holds_for() -> None:
    async with processes() as [(one, _), (two, _), _]:
        free = Client(key_id="k", key_name="app", secret_id="free")
        one.spend(free, one.begin(free, paid=True), 5.0)
        one.spend(SECRET, one.begin(SECRET, paid=True), 0.5)
        await until(lambda: bool(two.spent_by("s")))
        assert not two.spent_by("free")
