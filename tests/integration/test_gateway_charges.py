"""Charges of the gateway on their way to a database, of each kind."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.events import TokenUsage
from app.gateway.meter import Charge
from app.gateway.usage import UsageBook
from app.store.sql.gateway import GatewayStore
from app.store.sql.store import SqlStore
from tests.integration.store_site import postgres, store

__all__ = ["postgres", "store"]


def note(book: UsageBook, number: int, **odd: Any) -> None:
    """Add a charge of a cent."""
    facts = {"key_name": "app", "model": "m", "channel": "up", "source_id": f"resp_{number}", **odd}
    charge = Charge(
        source_id=facts.pop("source_id"),
        kind=facts.pop("kind", "response"),
        usage=facts.pop("usage", TokenUsage(output_audio=1)),
        cost_usd=0.01,
    )
    book.add(facts.pop("session_id", "gws_1"), charge=charge, **facts)


async def spent(kept: GatewayStore) -> float:
    since = datetime.now(UTC) - timedelta(hours=1)
    return round(sum((await kept.spent(["app"], since)).values()), 2)


@pytest.mark.parametrize("text", ["\0", "a\0b", "\ud800", "a\udc00b"], ids=ascii)
@pytest.mark.parametrize("name", ["source_id", "model", "session_id"])
async def test_a_charge_is_kept_whatever_characters_it_holds(
    name: str, text: str, store: SqlStore
) -> None:
    kept = GatewayStore(store.database)
    book = UsageBook(kept)
    note(book, 1, **{name: text})
    note(book, 2)
    await book.write()
    assert await spent(kept) == 0.02


@pytest.mark.parametrize(
    "odd",
    [
        {"usage": TokenUsage(output_audio=2**63)},
        {"usage": TokenUsage(transcription_seconds="long")},  # type: ignore[arg-type]
        {"channel": "\ud800"},
        {"channel": None},
        {"model": 3},
    ],
    ids=str,
)
async def test_a_charge_that_the_database_can_never_take_holds_up_no_other(
    odd: dict[str, Any], store: SqlStore, caplog: pytest.LogCaptureFixture
) -> None:
    kept = GatewayStore(store.database)
    book = UsageBook(kept)
    for number in range(7):
        note(book, number, **(odd if number == 3 else {}))
    await book.write()
    refused = [line for line in caplog.records if "refuses a gateway charge" in line.message]
    assert [vars(line)["session_id"] for line in refused] == ["gws_1"] * len(refused)
    assert await spent(kept) == round(0.07 - 0.01 * len(refused), 2)
    assert len(refused) <= 1
    note(book, 8)
    await book.write()
    assert await spent(kept) == round(0.08 - 0.01 * len(refused), 2)
