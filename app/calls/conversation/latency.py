"""The times of one call that its caller would notice. Pure; milliseconds on the call's clock."""

from __future__ import annotations

import math

__all__ = ["TurnLatency"]


class TurnLatency:
    """Collects latencies; percentiles are read when the call is over."""

    def __init__(self) -> None:
        self.stream_ms: int | None = None
        self.first_audio_ms: int | None = None
        self.turn_latencies_ms: list[int] = []
        self.reactions_ms: list[int] = []
        self._caller_stopped_ms: int | None = None

    def on_stream(self, now_ms: int) -> None:
        if self.stream_ms is not None:  # a later stream of the same call
            return
        self.stream_ms = now_ms
        if self.first_audio_ms is not None:  # generated while the phone was still connecting
            self.first_audio_ms = now_ms

    def on_caller_stopped(self, now_ms: int) -> None:
        """The caller's last sound was at `now_ms`."""
        self._caller_stopped_ms = now_ms

    def forget_caller(self) -> None:
        """It was not the caller: what comes next answers nobody."""
        self._caller_stopped_ms = None

    def on_agent_audio(self, now_ms: int) -> None:
        """The first audio of an agent turn was sent."""
        if self.first_audio_ms is None:
            self.first_audio_ms = now_ms
        if self._caller_stopped_ms is not None:
            self.turn_latencies_ms.append(now_ms - self._caller_stopped_ms)
            self._caller_stopped_ms = None

    def on_barge_in(self, heard_ms: int, cleared_ms: int) -> None:
        """A barge-in: the model's word was taken at `heard_ms`, `clear` sent at `cleared_ms`."""
        self.reactions_ms.append(cleared_ms - heard_ms)

    @property
    def answer_to_first_audio_ms(self) -> int | None:
        if self.stream_ms is None or self.first_audio_ms is None:
            return None
        return self.first_audio_ms - self.stream_ms

    def turn_latency_ms(self, share: float) -> int | None:
        """The latency that `share` of the turns did not exceed (nearest rank)."""
        ordered = sorted(self.turn_latencies_ms)
        if not ordered:
            return None
        return ordered[max(math.ceil(share * len(ordered)), 1) - 1]
