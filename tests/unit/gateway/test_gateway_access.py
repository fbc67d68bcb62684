"""Sessions that are alike: places and money of each are released once."""

from __future__ import annotations

from app.gateway.access import Client, Ledger


def test_the_sessions_of_one_key_end_in_any_order() -> None:
    ledger = Ledger(None, {}, reserve_usd=0.5, max_sessions=2)
    client = Client(key_id="key_1", key_name="app")
    first, second = ledger.begin(client, paid=True), ledger.begin(client, paid=True)
    ledger.end(client, second)
    assert ledger.spend(client, first, 0.1)
    ledger.end(client, first)
    assert ledger.sessions == 0
