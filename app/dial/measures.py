"""Latencies and barge-in figures, computed from spans of sound.

Pure. All times come from the energy of the audio at the caller's end; nothing that the server
reports about itself is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.dial.speaking import Utterance
from app.dial.utterances import Span

__all__ = [
    "BargeInMeasure",
    "QueueCleared",
    "barge_ins",
    "first_audio_ms",
    "percentile",
    "turn_latencies",
]


@dataclass(frozen=True, slots=True)
class QueueCleared:
    """A `clear` of the server, which discarded `discarded_ms` of audio unheard."""

    at_ms: int
    discarded_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BargeInMeasure:
    """Caller speech that began while agent audio was playing.

    `reaction_ms` runs from the caller's first sound to the server's clear; None when no clear came
    before the caller had finished. `leaked_ms` is agent sound heard between that clear and the end
    of the caller's speech.
    """

    at_ms: int
    reaction_ms: int | None
    leaked_ms: int = 0


def first_audio_ms(spans: Sequence[Span], answered_ms: int) -> int | None:
    """Time from the answered call to the first audible agent sound."""
    return spans[0].start_ms - answered_ms if spans else None


def turn_latencies(utterances: Sequence[Utterance], spans: Sequence[Span]) -> list[int | None]:
    """Time from the end of each spoken utterance to the first agent sound after it.

    None where no answer came before the caller's next words, and where agent audio was still
    playing when the caller finished, since the sound after that is not an answer.
    """
    spoken = [u for u in utterances if u.onset_ms is not None and u.end_ms is not None]
    latencies: list[int | None] = []
    for index, utterance in enumerate(spoken):
        end_ms = utterance.end_ms or 0
        following = spoken[index + 1].onset_ms if index + 1 < len(spoken) else None
        answer = next((span.start_ms for span in spans if span.start_ms >= end_ms), None)
        came = answer is not None and (following is None or answer <= following)
        if utterance.agent_playing_at_end or not came or answer is None:
            latencies.append(None)
        else:
            latencies.append(answer - end_ms)
    return latencies


def barge_ins(
    utterances: Sequence[Utterance], spans: Sequence[Span], clears: Sequence[QueueCleared]
) -> list[BargeInMeasure]:
    """One measure for each utterance that began while the agent could be heard."""
    measures = []
    for utterance in utterances:
        onset_ms, end_ms = utterance.onset_ms, utterance.end_ms
        if onset_ms is None or end_ms is None or not utterance.agent_playing_at_onset:
            continue
        clear = next((c for c in clears if onset_ms <= c.at_ms <= end_ms), None)
        if clear is None:
            measures.append(BargeInMeasure(at_ms=onset_ms, reaction_ms=None))
            continue
        leaked_ms = sum(
            max(0, min(span.end_ms, end_ms) - max(span.start_ms, clear.at_ms)) for span in spans
        )
        reaction_ms = clear.at_ms - onset_ms
        measures.append(
            BargeInMeasure(at_ms=onset_ms, reaction_ms=reaction_ms, leaked_ms=leaked_ms)
        )
    return measures


def percentile(values: Sequence[int], percent: int) -> int | None:
    """Nearest-rank percentile, always one of the values; None of no values."""
    if not values:
        return None
    rank = -(-percent * len(values) // 100)
    return sorted(values)[max(rank, 1) - 1]
