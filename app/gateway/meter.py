"""The usage of one session, charged event by event. Pure.

Tokens are read from `response.done`, transcription from its own event; each is charged once by its
id. A response that brings no usage is estimated from the sound that was passed on, and marked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from app.events import Cost, TokenUsage

__all__ = ["Charge", "SessionMeter"]

_IN_PER_S: Final = 10
"""Tokens of a caller's sound, as OpenAI counts it: one for each 100 ms."""
_OUT_PER_S: Final = 20
_FORMATS: Final = {"audio/pcmu": 8_000, "audio/pcma": 8_000, "g711_ulaw": 8_000, "g711_alaw": 8_000}
_PCM16: Final = 48_000
_BASE64: Final = 3 / 4
_MOST: Final = 2**31 - 1
"""Tokens or seconds of one charge; a peer may send any number, and no sum could hold it."""
_ADDED_UP: Final = 64
"""Charges that are added up at once: an addition makes an object of all classes."""

Price = Callable[[TokenUsage, str], Cost]
"""The cost of usage, given the name of the model that transcribes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """One thing to be paid for. `cost_usd` is None where a price is missing."""

    source_id: str
    kind: str
    usage: TokenUsage
    cost_usd: float | None
    estimated: bool = False


class SessionMeter:
    """Adds up one session. `transcription` is the pinned model; else the session names it.

    The sound of client and upstream is counted in characters of base64, since the last response
    that was charged.
    """

    def __init__(self, price: Price, transcription: str = "") -> None:
        self._price = price
        self._pinned = transcription
        self._transcription = transcription
        self._seen: set[tuple[str, str]] = set()
        self._in_chars = self._out_chars = 0
        self._in_per_s = self._out_per_s = _PCM16
        self._charged: list[TokenUsage] = []
        self.spent_usd = 0.0
        self.unpriced = False
        self.estimated = False

    @property
    def total(self) -> TokenUsage:
        """All that was charged."""
        return sum(self._charged, TokenUsage())

    def on_session(self, session: Any) -> None:
        """Take the session as the upstream has confirmed it, in either dialect."""
        if not isinstance(session, dict):
            return
        audio = _child(session, "audio")
        heard, spoken = _child(audio, "input"), _child(audio, "output")
        self._in_per_s = _rate(heard.get("format") or session.get("input_audio_format"))
        self._out_per_s = _rate(spoken.get("format") or session.get("output_audio_format"))
        if not self._pinned:
            named = _child(heard, "transcription") or _child(session, "input_audio_transcription")
            self._transcription = str(named.get("model") or "")

    def add_sound(self, in_chars: int, out_chars: int) -> None:
        """Count what has passed."""
        self._in_chars += in_chars
        self._out_chars += out_chars

    def on_response_done(self, response: Any) -> Charge | None:
        """Charge a response, unless it was charged already."""
        found = response if isinstance(response, dict) else {}
        source_id = _name(found.get("id")) or f"response_{len(self._seen)}"
        if not self._first("response", source_id):
            return None
        usage = found.get("usage")
        if isinstance(usage, dict) and usage.get("total_tokens") is not None:
            self._in_chars = self._out_chars = 0
            return self._charge("response", source_id, _tokens(usage))
        if found.get("status") == "failed":  # which is not billed
            self._out_chars = 0
            return None
        return self._estimate(source_id)

    def on_transcription(self, event: dict[str, Any]) -> Charge | None:
        """Charge a transcription, unless it was charged already."""
        source_id = f"{_name(event.get('item_id'))}/{_name(event.get('content_index')) or 0}"
        usage = event.get("usage")
        if not isinstance(usage, dict) or not self._first("transcription", source_id):
            return None
        return self._charge("transcription", source_id, _transcribed(usage))

    def at_end(self) -> Charge | None:
        """Charge a response that was cut by the end of the session."""
        return self._estimate("end") if self._out_chars else None

    def _first(self, kind: str, source_id: str) -> bool:
        key = (kind, source_id)
        new = key not in self._seen
        self._seen.add(key)
        return new

    def _estimate(self, source_id: str) -> Charge:
        heard_s = self._in_chars * _BASE64 / self._in_per_s
        spoken_s = self._out_chars * _BASE64 / self._out_per_s
        self._in_chars = self._out_chars = 0
        usage = TokenUsage(
            input_audio=round(heard_s * _IN_PER_S),
            output_audio=round(spoken_s * _OUT_PER_S),
            estimated_responses=1,
        )
        return self._charge("response", source_id, usage)

    def _charge(self, kind: str, source_id: str, usage: TokenUsage) -> Charge:
        cost = self._price(usage, self._transcription)
        usd = sum(cost.classes.values())
        self._charged.append(usage)
        if len(self._charged) == _ADDED_UP:
            self._charged = [self.total]
        self.spent_usd += usd
        self.unpriced |= bool(cost.unknown)
        self.estimated |= cost.estimated
        return Charge(
            source_id=source_id,
            kind=kind,
            usage=usage,
            cost_usd=None if cost.unknown else usd,
            estimated=cost.estimated or bool(usage.estimated_responses),
        )


def _tokens(usage: dict[str, Any]) -> TokenUsage:
    given = _child(usage, "input_token_details") or _child(usage, "input_tokens_details")
    made = _child(usage, "output_token_details") or _child(usage, "output_tokens_details")
    split = _child(given, "cached_tokens_details")
    cached_text, cached_audio = _count(split, "text_tokens"), _count(split, "audio_tokens")
    unsplit = max(0, _count(given, "cached_tokens") - cached_text - cached_audio)
    # Tokens without a class are charged as sound, the dearer one.
    all_in, all_out = _count(usage, "input_tokens"), _count(usage, "output_tokens")
    text_in, text_out = _count(given, "text_tokens"), _count(made, "text_tokens")
    audio_in = _count(given, "audio_tokens") if given else all_in
    audio_out = _count(made, "audio_tokens") if made else all_out
    return TokenUsage(
        input_text=text_in,
        input_audio=audio_in,
        cached_text=cached_text,
        cached_audio=cached_audio,
        cached_unsplit=unsplit,
        output_text=text_out,
        output_audio=audio_out,
        estimated_responses=1 if usage.get("estimated") is True else 0,
        unsplit_responses=1 if unsplit or not (given and made) else 0,
    )


def _transcribed(usage: dict[str, Any]) -> TokenUsage:
    seconds = usage.get("seconds")
    if isinstance(seconds, int | float) and not isinstance(seconds, bool):
        return TokenUsage(transcription_seconds=float(min(max(0, seconds), _MOST)))
    details = _child(usage, "input_token_details")
    return TokenUsage(
        transcription_tokens=_count(usage, "total_tokens"),
        transcription_text=_count(details, "text_tokens"),
        transcription_audio=_count(details, "audio_tokens"),
        transcription_output=_count(usage, "output_tokens"),
    )


def _child(value: dict[str, Any], key: str) -> dict[str, Any]:
    found = value.get(key)
    return found if isinstance(found, dict) else {}


def _name(value: Any) -> str:
    """An id; empty for anything else, of which some cannot even be printed."""
    return str(value) if value and isinstance(value, str | int) else ""


def _count(value: dict[str, Any], key: str) -> int:
    found = value.get(key)
    return min(found, _MOST) if type(found) is int and found > 0 else 0  # a bool is an int too


def _rate(form: Any) -> int:
    name = form.get("type") if isinstance(form, dict) else form
    return _FORMATS.get(name, _PCM16) if isinstance(name, str) else _PCM16
