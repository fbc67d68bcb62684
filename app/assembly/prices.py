"""The cost of calls: a model's prices, as the settings give them, applied to its tokens. Pure."""

from __future__ import annotations

from collections.abc import Callable

from app.events import TokenUsage
from app.settings.model import Price

__all__ = ["price_of"]


def price_of(
    price: Price | None, transcription: Price | None
) -> Callable[[TokenUsage], float | None]:
    """A function for the cost of a call in US dollars; `None` where the model has no price."""

    def cost(usage: TokenUsage) -> float | None:
        if price is None:
            return None
        # Cached tokens are part of the input tokens, and cheaper.
        per_million = (
            (usage.input_text - usage.cached_text) * price.text_in
            + usage.cached_text * price.text_cached
            + usage.output_text * price.text_out
            + (usage.input_audio - usage.cached_audio) * price.audio_in
            + usage.cached_audio * price.audio_cached
            + usage.output_audio * price.audio_out
        )
        per_minute = 0.0 if transcription is None else transcription.per_minute
        return round(per_million / 1_000_000 + usage.transcription_seconds / 60 * per_minute, 6)

    return cost
