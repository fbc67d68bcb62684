"""Listening presets, by where the callers are: quiet, office, street, speakerphone.

Starting points, not measurements: users of every phone agent end at other numbers, so each preset
is one value to begin with and to override per number, and calls count their false interruptions.
What is known: OpenAI's defaults (threshold 0.5, padding 300 ms, silence 500 ms), and that noise
reduction `near_field` is for microphones close to the mouth, `far_field` for those of rooms
(Realtime session reference, read in autumn 2026). A higher threshold wants louder speech; a longer
silence ends turns later, by exactly as much.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from app.errors import ConfigError
from app.realtime.events import ServerVad

__all__ = ["PRESETS", "ListeningPreset", "preset"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ListeningPreset:
    """Turn detection, noise reduction, and the limits of an interruption.

    `false_interruption_ms` and `echo_guard`: see `app.calls.policy`.
    """

    vad: ServerVad
    noise_reduction: str | None
    false_interruption_ms: int
    echo_guard: bool = False


PRESETS: Final[Mapping[str, ListeningPreset]] = {
    # A telephone in a quiet room: as quick as it gets, and every sound is the caller.
    "quiet": ListeningPreset(
        vad=ServerVad(threshold=0.5, prefix_padding_ms=200, silence_duration_ms=300),
        noise_reduction="near_field",
        false_interruption_ms=2_000,
    ),
    # Keyboards and other people's voices, further away than the caller's.
    "office": ListeningPreset(
        vad=ServerVad(threshold=0.6, prefix_padding_ms=200, silence_duration_ms=400),
        noise_reduction="near_field",
        false_interruption_ms=2_000,
    ),
    # Traffic and wind: loud, and seldom speech.
    "street": ListeningPreset(
        vad=ServerVad(threshold=0.75, prefix_padding_ms=300, silence_duration_ms=500),
        noise_reduction="near_field",
        false_interruption_ms=2_000,
    ),
    # The agent's own voice comes back through the room.
    "speakerphone": ListeningPreset(
        vad=ServerVad(threshold=0.7, prefix_padding_ms=300, silence_duration_ms=500),
        noise_reduction="far_field",
        false_interruption_ms=2_000,
        echo_guard=True,
    ),
}


def preset(name: str) -> ListeningPreset:
    """Raises ConfigError for a name that there is not."""
    found = PRESETS.get(name)
    if found is None:
        raise ConfigError(f"no listening preset is called {name!r}: {', '.join(PRESETS)}")
    return found
