"""The price book, and the cost of calls by it."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from app.assembly.prices import CallPrices, PriceBook, load_book
from app.errors import ConfigError
from app.events import CarrierUsage, TokenUsage
from app.settings import CarrierPrices, Price

MILLION = 1_000_000
BOOK = load_book()


def prices(model: str = "gpt-realtime-2.1", **facts: Any) -> CallPrices:
    return CallPrices(book=BOOK, model=model, transcription="gpt-transcribe", **facts)


def test_every_entry_of_the_book_says_when_and_where_it_was_read() -> None:
    for entry in BOOK.entries:
        assert entry.price.checked is not None and entry.price.source, entry.model


@pytest.mark.parametrize(
    ("model", "usage", "dollars"),
    [
        ("gpt-realtime-2.1", {"input_text": MILLION}, 4.00),
        ("gpt-realtime-2.1", {"input_text": MILLION, "cached_text": MILLION}, 0.40),
        ("gpt-realtime-2.1", {"output_text": MILLION}, 24.00),
        ("gpt-realtime-2.1", {"input_audio": MILLION}, 32.00),
        ("gpt-realtime-2.1", {"input_audio": MILLION, "cached_audio": MILLION}, 0.40),
        ("gpt-realtime-2.1", {"input_audio": MILLION, "cached_audio": MILLION // 2}, 16.20),
        ("gpt-realtime-2.1", {"output_audio": MILLION}, 64.00),
        ("gpt-realtime-2.1-2027-01-01", {"output_audio": MILLION}, 64.00),
        ("gpt-realtime-2.1-mini", {"output_audio": MILLION}, 20.00),
        ("gpt-realtime", {"output_text": MILLION}, 16.00),
        ("gpt-realtime-2.1", {"transcription_seconds": 120.0}, 0.009),
        ("gpt-realtime-2.1", {"voice_seconds": 3_600.0}, 0.0),
        ("gpt-live-1", {"voice_seconds": 90.0, "output_audio": MILLION}, 0.075),
        # Cached tokens that nobody split are charged as text, and what is left of them as sound.
        ("gpt-realtime-2.1", {"input_text": MILLION, "cached_unsplit": MILLION}, 0.40),
        (
            "gpt-realtime-2.1",
            {"input_text": MILLION, "input_audio": MILLION, "cached_unsplit": 2 * MILLION},
            0.80,
        ),
        ("gpt-realtime-2.1", {}, 0.0),
    ],
)
def test_tokens_cost_what_their_class_costs(
    model: str, usage: dict[str, Any], dollars: float
) -> None:
    cost = prices(model)(TokenUsage(**usage))
    assert cost.total_usd == pytest.approx(dollars)
    assert sum(cost.classes.values()) == pytest.approx(dollars)
    assert not cost.unknown and not cost.estimated


@pytest.mark.parametrize("field", ["estimated_responses", "unsplit_responses"])
def test_a_cost_that_is_not_as_it_was_billed_says_so(field: str) -> None:
    assert prices()(TokenUsage(input_text=1, **{field: 1})).estimated


def test_a_model_without_a_price_has_no_cost_and_is_named() -> None:
    cost = prices("house-model")(TokenUsage(input_text=MILLION, transcription_seconds=60))
    assert cost.total_usd is None
    assert cost.unknown == ("prices.house-model",)
    assert cost.classes == {"transcription": 0.0045}


def test_a_class_without_a_price_makes_the_cost_unknown() -> None:
    book = PriceBook(given={"m": Price(audio_in=1.0, audio_out=2.0)})
    known = CallPrices(book=book, model="m")(TokenUsage(input_audio=MILLION))
    assert known.total_usd == 1.0
    cost = CallPrices(book=book, model="m")(TokenUsage(input_audio=MILLION, input_text=1))
    assert cost.total_usd is None and cost.unknown == ("prices.m.text_in",)
    assert cost.classes == {"audio_in": 1.0}


@pytest.mark.parametrize(
    ("speech", "dollars", "unknown", "estimated"),
    [
        ("", None, (), False),  # the model speaks itself
        ("own", 0.04, (), False),
        ("gpt-realtime-2.1-mini", 2 * 1_200 * 20.0 / MILLION, (), True),
        ("offline", 0.0, (), False),
        ("house-voice", None, ("house-voice",), False),
    ],
)
def test_the_voice_of_a_pipeline_is_priced_by_its_sound(
    speech: str, dollars: float | None, unknown: tuple[str, ...], estimated: bool
) -> None:
    book = BOOK.with_given({"own": Price(per_minute=0.02)})
    cost = CallPrices(book=book, model="gpt-realtime-2.1", speech=speech)(
        TokenUsage(speech_seconds=120.0)
    )
    assert cost.classes.get("speech") == (None if dollars is None else pytest.approx(dollars))
    assert (cost.unknown, cost.estimated) == (unknown, estimated)


def test_an_operators_price_comes_before_the_book() -> None:
    own = BOOK.with_given({"gpt-realtime-2.1": Price(text_in=1.0)})
    assert CallPrices(book=own, model="gpt-realtime-2.1")(
        TokenUsage(input_text=MILLION)
    ).classes == {"text_in": 1.0}


def test_our_own_engine_costs_nothing() -> None:
    cost = prices("whatever", own_engine=True)(TokenUsage(input_text=5, transcription_seconds=9))
    assert cost.total_usd == 0.0 and not cost.unknown


def test_a_transcription_in_tokens_with_a_price_by_the_minute_is_an_estimate() -> None:
    cost = prices()(TokenUsage(transcription_tokens=620, transcription_audio=600))
    assert cost.classes == {"transcription": 0.0045} and cost.estimated


def test_a_transcription_in_tokens_with_prices_of_tokens_is_exact() -> None:
    book = PriceBook(given={"m": Price(text_in=2.5, audio_in=6.0, text_out=10.0, per_minute=9.0)})
    usage = TokenUsage(
        transcription_tokens=130,
        transcription_audio=100,
        transcription_text=10,
        transcription_output=20,
    )
    cost = CallPrices(book=book, model="x", transcription="m")(usage)
    assert cost.classes["transcription"] == pytest.approx((10 * 2.5 + 100 * 6 + 20 * 10) / MILLION)
    assert not cost.estimated


@pytest.mark.parametrize(
    ("usage", "dollars"),
    [
        ({"seconds": 1}, 0.01),
        ({"seconds": 60}, 0.01),
        ({"seconds": 60.001}, 0.02),
        ({"seconds": 0}, 0.0),
        ({"seconds": 61, "direction": "outbound"}, 0.04),
        ({"seconds": 30, "legs": (61.0, 10.0)}, 0.01 + 3 * 0.03),
        ({"sms_segments": 3}, 0.03),
    ],
)
def test_a_carrier_bills_each_leg_by_the_minute_that_was_begun(
    usage: dict[str, Any], dollars: float
) -> None:
    carrier = CarrierPrices(
        inbound_per_minute=0.01, outbound_per_minute=0.02, transfer_per_minute=0.03, sms=0.01
    )
    cost = prices(carrier=carrier)(TokenUsage(), CarrierUsage(**usage))
    assert cost.total_usd == pytest.approx(dollars) and not cost.unknown


def test_a_carrier_without_prices_is_named_and_in_no_cost() -> None:
    cost = prices(carrier=CarrierPrices())(
        TokenUsage(input_text=MILLION), CarrierUsage(seconds=5, legs=(3.0,), sms_segments=1)
    )
    assert cost.total_usd == 4.0
    assert cost.unknown == (
        "twilio.prices.inbound_per_minute",
        "twilio.prices.transfer_per_minute",
        "twilio.prices.sms",
    )


def test_a_book_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text("models: [{model: x, price: {text_in: cheap}}]\n")
    with pytest.raises(ConfigError, match=r"prices\.yaml"):
        load_book(path)


@pytest.mark.parametrize(
    ("model", "today", "said"),
    [
        ("gpt-realtime-2.1", date(2027, 1, 1), []),
        ("house-model", date(2027, 1, 1), ["house-model has no price"]),
        (
            "gpt-realtime-2.1",
            date(2028, 1, 1),
            ["gpt-realtime-2.1 were read on 2026-11-30", "gpt-transcribe were read on"],
        ),
    ],
)
def test_missing_and_old_prices_are_told_of(model: str, today: date, said: list[str]) -> None:
    notices = list(prices(model).notices(today))
    assert len(notices) == len(said)
    assert all(words in notice for words, notice in zip(said, notices, strict=True))
    assert list(prices(model, own_engine=True).notices(today)) == []
