"""What a conversation reports of itself: transcript lines as events, usage by billing class."""

from __future__ import annotations

from collections.abc import Iterable

from app.agents.analysis import TranscriptLine
from app.agents.history import Entry
from app.events import AgentSaid, CallerSaid, CallId, Party, TokenUsage
from app.realtime.events import Usage

__all__ = ["billed", "line_of", "said_until"]


def line_of(
    entry: Entry, call_id: CallId, now_ms: int, *, unverified: bool = False
) -> AgentSaid | CallerSaid:
    """A settled transcript line as an event; `unverified` is what is known of a caller's words."""
    at_ms = min(entry.at_ms, now_ms)
    if entry.party is Party.AGENT:
        return AgentSaid(
            call_id=call_id,
            at_ms=at_ms,
            item_id=entry.item_id,
            text=entry.text,
            heard_text=entry.heard_text,
            cut_off=entry.cut_off,
        )
    return CallerSaid(
        call_id=call_id,
        at_ms=at_ms,
        item_id=entry.item_id,
        text=entry.text,
        failed=entry.failed,
        unverified=unverified,
    )


def said_until(item_id: str, entries: Iterable[Entry]) -> list[TranscriptLine]:
    """What was said up to an item and in it; of the agent's words, those that were heard."""
    lines = []
    for entry in entries:
        text = entry.heard_text if entry.party is Party.AGENT else entry.text
        if entry.party is not None and text:
            lines.append(TranscriptLine(party=entry.party, text=text, item_id=entry.item_id))
        if entry.item_id == item_id:
            break
    return lines


def billed(usage: Usage) -> TokenUsage:
    """Response usage by billing class."""
    return TokenUsage(
        input_text=usage.input_text_tokens,
        input_audio=usage.input_audio_tokens,
        cached_text=usage.cached_text_tokens,
        cached_audio=usage.cached_audio_tokens,
        output_text=usage.output_text_tokens,
        output_audio=usage.output_audio_tokens,
    )
