"""The events of a pipeline's result, with the names of OpenAI's Agents SDK."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "VoiceStreamEvent",
    "VoiceStreamEventAudio",
    "VoiceStreamEventError",
    "VoiceStreamEventLifecycle",
]


@dataclass(frozen=True, slots=True)
class VoiceStreamEventAudio:
    """Sound to play: mono at 24 kHz, int16 of shape (n,), or float32 of shape (n, 1)."""

    data: NDArray[np.int16] | NDArray[np.float32] = field(repr=False)
    type: Literal["voice_stream_event_audio"] = "voice_stream_event_audio"


@dataclass(frozen=True, slots=True)
class VoiceStreamEventLifecycle:
    """A turn begins before its first sound and ends behind its last; then the session ends."""

    event: Literal["turn_started", "turn_ended", "session_ended"]
    type: Literal["voice_stream_event_lifecycle"] = "voice_stream_event_lifecycle"


@dataclass(frozen=True, slots=True)
class VoiceStreamEventError:
    """The pipeline failed; it is the last event."""

    error: Exception
    type: Literal["voice_stream_event_error"] = "voice_stream_event_error"


VoiceStreamEvent = VoiceStreamEventAudio | VoiceStreamEventLifecycle | VoiceStreamEventError
