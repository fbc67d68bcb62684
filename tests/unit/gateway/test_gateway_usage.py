"""Charges that are counted and kept in batches."""

from __future__ import annotations

from app.events import TokenUsage
from app.gateway.meter import Charge
from app.gateway.usage import UsageBook
from app.web.metrics import Metrics


async def test_what_is_to_be_charged_later_is_in_the_next_batch() -> None:
    metrics = Metrics()
    book = UsageBook(None, metrics)

    def charge() -> None:
        one = Charge(source_id="r", kind="response", usage=TokenUsage(output_audio=2), cost_usd=0.5)
        book.add("gws_1", key_name="app", model="m", channel="upstream", charge=one)

    for _ in range(50):
        book.charge_later(charge)
    await book.write()
    labels = {"key": "app", "model": "m", "class": "output_audio"}
    assert metrics.registry.get_sample_value("trunkline_gateway_usage_total", labels) == 100


async def test_charges_are_counted_once_where_nothing_is_kept() -> None:
    metrics = Metrics()
    book = UsageBook(None, metrics)
    for number in range(50):
        charge = Charge(
            source_id=f"resp_{number}",
            kind="response",
            usage=TokenUsage(output_audio=2),
            cost_usd=0.5,
        )
        book.add("gws_1", key_name="app", model="m", channel="upstream", charge=charge)
    await book.write()
    await book.write()
    labels = {"key": "app", "model": "m"}
    counted = metrics.registry.get_sample_value
    assert counted("trunkline_gateway_usage_total", labels | {"class": "output_audio"}) == 100
    assert counted("trunkline_gateway_cost_usd_total", labels | {"estimated": "false"}) == 25.0
