"""The price book, and the cost of a call by it. Pure.

One book for all: `prices.yaml` beside this file, with the date at which each entry was checked, and
over it what an operator has set under `prices` and `twilio.prices`. The formula for tokens is that
of OpenAI's bills: cached tokens are a part of the input tokens, and cheaper.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from app.errors import ConfigError
from app.events import CarrierUsage, Cost, TokenUsage
from app.settings import CarrierPrices, Price
from app.settings.reader.environment import Environment, read_text
from app.settings.reader.interpolation import fill
from app.settings.reader.strict_yaml import parse_yaml

__all__ = ["CallPrices", "PriceBook", "load_book"]

_BUILT_IN: Final = Path(__file__).with_name("prices.yaml")
OLD_DAYS: Final = 200
"""Prices that were read before that are worth another look: they change once or twice a year."""
_MILLION: Final = 1_000_000
_TOKENS_PER_MINUTE: Final = 600
"""Of a caller's sound, as OpenAI counts it: one for each 100 ms."""
_SPOKEN_TOKENS_PER_MINUTE: Final = 1_200
"""Of a model's own sound: one for each 50 ms."""


@dataclass(frozen=True, slots=True)
class _Entry:
    model: str
    price: Price


@dataclass(frozen=True, slots=True)
class PriceBook:
    """Prices by the names of models. `given` are the operator's, and come first."""

    entries: tuple[_Entry, ...] = ()
    given: Mapping[str, Price] = field(default_factory=dict)

    def price(self, model: str) -> Price | None:
        """The price of a model; None where it is not known."""
        if (own := self.given.get(model)) is not None:
            return own
        found = (entry.price for entry in self.entries if fnmatchcase(model, entry.model))
        return next(found, None)

    def with_given(self, given: Mapping[str, Price]) -> PriceBook:
        """The same book with an operator's prices over it."""
        return PriceBook(self.entries, given)


@cache
def load_book(path: Path = _BUILT_IN) -> PriceBook:
    """The book in a file.

    Raises:
        ConfigError: the file was edited into something that cannot be read.
    """
    try:
        values = fill(parse_yaml(read_text(path), name=path.name), Environment()).values
        return PriceBook(TypeAdapter(_Book).validate_python(values).models)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from None


@dataclass(frozen=True, slots=True)
class _Book:
    models: tuple[_Entry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPrices:
    """Everything that a call may have to pay for.

    `model`, `transcription` and `speech` are the names of models; of the latter two, empty where
    nothing is transcribed, or where the model itself speaks. `own_engine`: the voice model is our
    own, and free. `carrier` is None where no carrier sends a bill.
    """

    book: PriceBook
    model: str
    transcription: str = ""
    speech: str = ""
    own_engine: bool = False
    carrier: CarrierPrices | None = None

    def __call__(self, usage: TokenUsage, carrier: CarrierUsage | None = None) -> Cost:
        """The cost of what was used so far."""
        bill = _Bill()
        if not self.own_engine:
            self._charge_model(bill, usage)
            self._charge_transcription(bill, usage)
            self._charge_speech(bill, usage)
        if self.carrier is not None and carrier is not None:
            _charge_carrier(bill, self.carrier, carrier)
        return Cost(
            classes=bill.classes,
            unknown=tuple(bill.unknown),
            estimated=bill.estimated or bool(usage.estimated_responses or usage.unsplit_responses),
            model_known=bill.model_known,
        )

    @property
    def model_known(self) -> bool:
        """The voice model has prices, so that a limit in dollars can hold."""
        return self.own_engine or self.book.price(self.model) is not None

    def notices(self, today: date) -> Iterator[str]:
        """Notices about models without a price, and prices that are old."""
        for model in () if self.own_engine else (self.model, self.transcription, self.speech):
            price = self.book.price(model)
            if price is None and model:
                yield f"{model[:64]} has no price: what its calls cost is unknown. Add it to prices"
                continue
            checked = None if price is None else price.checked
            if price is not None and checked is not None and (today - checked).days > OLD_DAYS:
                source = f" ({price.source})" if price.source else ""
                yield f"the prices of {model} were read on {checked}{source}: check them"

    def _charge_model(self, bill: _Bill, usage: TokenUsage) -> None:
        price = self.book.price(self.model)
        if price is None:
            bill.model_known = False
            bill.unknown.append(f"prices.{self.model}")
            return
        if price.per_minute is not None:
            bill.charge(
                "voice_minutes", usage.voice_seconds / 60, price.per_minute, f"prices.{self.model}"
            )
            if price.text_in is None and price.audio_in is None:
                return  # its tokens are in the price of its minutes
        # Cached tokens that were not split are charged as text.
        cached_text = usage.cached_text + usage.cached_unsplit
        fresh_text = usage.input_text - cached_text
        # Tokens without a split may have been sound: more than the text there is cannot be text.
        fresh_audio = usage.input_audio - usage.cached_audio + min(0, fresh_text)
        for name, tokens, dollars in (
            ("text_in", max(0, fresh_text), price.text_in),
            ("text_cached", cached_text, price.text_cached),
            ("text_out", usage.output_text, price.text_out),
            ("audio_in", max(0, fresh_audio), price.audio_in),
            ("audio_cached", usage.cached_audio, price.audio_cached),
            ("audio_out", usage.output_audio, price.audio_out),
        ):
            if tokens and not bill.charge(
                name, tokens / _MILLION, dollars, f"prices.{self.model}.{name}"
            ):
                bill.model_known = False

    def _charge_transcription(self, bill: _Bill, usage: TokenUsage) -> None:
        used = usage.transcription_seconds or usage.transcription_tokens
        if not used:
            return
        price = self.book.price(self.transcription)
        if price is None:
            bill.unknown.append(f"prices.{self.transcription or 'TRANSCRIPTION_MODEL'}")
            return
        million, priced_as = _MILLION, f"prices.{self.transcription}.per_minute"
        if usage.transcription_tokens and price.text_out is not None:
            text, audio = usage.transcription_text, usage.transcription_audio
            dollars = (
                text * (price.text_in or 0.0)
                + audio * (price.audio_in if price.audio_in is not None else price.text_in or 0.0)
                + usage.transcription_output * price.text_out
            ) / million
            bill.charge("transcription", 1, dollars, priced_as)
        elif usage.transcription_tokens and price.per_minute is not None:
            # It counts in tokens what has a price by the minute.
            sound = usage.transcription_audio or usage.transcription_tokens
            minutes = sound / _TOKENS_PER_MINUTE
            bill.charge("transcription", minutes, price.per_minute, priced_as)
            bill.estimated = True
        if usage.transcription_seconds:
            minutes = usage.transcription_seconds / 60
            bill.charge("transcription", minutes, price.per_minute, priced_as)

    def _charge_speech(self, bill: _Bill, usage: TokenUsage) -> None:
        """The voice of a pipeline; one that reads in a Realtime session costs a little more."""
        minutes = usage.speech_seconds / 60
        price = self.book.price(self.speech) if self.speech else None
        if not self.speech or not minutes:
            return
        if price is None or (price.per_minute is None and price.audio_out is None):
            bill.unknown.append(self.speech)
        elif price.per_minute is not None:
            bill.charge("speech", minutes, price.per_minute, self.speech)
        else:
            millions = minutes * _SPOKEN_TOKENS_PER_MINUTE / _MILLION
            bill.charge("speech", millions, price.audio_out, self.speech)
            bill.estimated = True


class _Bill:
    """A cost that is being added up."""

    def __init__(self) -> None:
        self.classes: dict[str, float] = {}
        self.unknown: list[str] = []
        self.estimated = False
        self.model_known = True

    def charge(self, name: str, count: float, dollars: float | None, priced_as: str) -> bool:
        """Add one class; False when it was used and has no price."""
        if not count:
            return True
        if dollars is None:
            self.unknown.append(priced_as)
            return False
        self.classes[name] = round(self.classes.get(name, 0.0) + count * dollars, 9)
        return True


def _charge_carrier(bill: _Bill, prices: CarrierPrices, usage: CarrierUsage) -> None:
    def minutes(seconds: float) -> float:
        # Twilio bills each leg by the minute that was begun.
        return math.ceil(round(seconds, 3) / prices.billed_by_s) * prices.billed_by_s / 60

    inbound = usage.direction == "inbound"
    leg = prices.inbound_per_minute if inbound else prices.outbound_per_minute
    name = f"carrier_{usage.direction}"
    lasted = minutes(usage.seconds)
    bill.charge(name, lasted, leg, f"twilio.prices.{usage.direction}_per_minute")
    if prices.stream_per_minute is not None:
        bill.charge("carrier_stream", lasted, prices.stream_per_minute, "")
    transferred = sum(minutes(seconds) for seconds in usage.legs)
    bill.charge(
        "carrier_transfer",
        transferred,
        prices.transfer_per_minute,
        "twilio.prices.transfer_per_minute",
    )
    bill.charge("carrier_sms", usage.sms_segments, prices.sms, "twilio.prices.sms")
    bill.estimated = bill.estimated or usage.estimated
