"""Caller audio on its way to the model: gaps filled, converted, bounded.

Carriers skip time: packets are lost, the far end suppresses silence, keypad tones are cut out.
A model that hears no silence never ends the turn, so a gap in the timestamps becomes silence, and
when media stalls while the caller speaks, silence is appended until the turn can end. Pure.

Figures: gap fill is capped at 10 s, and by real time; a stall is 750 ms without media in
mid-speech, answered by 1 s of silence, as in OpenAI's own Twilio transport (reference
twilio-media-streams, section 2). That is enough for a pause of the usual length; turn detection
that waits for longer ones gets more.
"""

from __future__ import annotations

from typing import Final

from app.calls.media.playout import AUDIBLE_PEAK_DBFS
from app.events import CallCounters
from audio.format import AudioFormat
from audio.level import peak_dbfs
from audio.transcoder import Transcoder

__all__ = ["Uplink"]


GAP_FILL_MAX_MS: Final = 10_000
STALL_MS: Final = 750
FLOWS_MS: Final = 50
STALL_FILL_MS: Final = 1_000
STALL_FILL_MAX_MS: Final = 15_000
"""Longer than the longest pause that can be configured; semantic turn detection waits for 8 s."""
FILL_AHEAD_MS: Final = 1_000
"""Silence that is made up never exceeds the time since the stream's first frame by more: timestamps
are the carrier's word, and one that leaps with each frame must not flood the model."""
JITTER_MS: Final = 20
"""Timestamps that are off by less than a frame are rounding, not loss."""


class Uplink:
    """One stream's caller audio, from carrier frames to the model's format."""

    def __init__(
        self, carrier_format: AudioFormat, model_format: AudioFormat, counters: CallCounters
    ) -> None:
        self._format = carrier_format
        self._bytes_per_ms = carrier_format.bytes_per_second // 1000
        self._transcoder = Transcoder(carrier_format, model_format)
        self._counters = counters
        self._next_ms: int | None = None
        self._last_audio_ms: int | None = None
        self._stall_filled_ms = 0
        self._first_audio_ms: int | None = None
        self._filled_ms = 0
        self._last_sign_ms: int | None = None
        self._probed = False
        self._last_frame = b""

    def on_sign_of_life(self, now_ms: int) -> None:
        """The carrier has sent something, whatever it was."""
        self._last_sign_ms = now_ms
        self._probed = False

    def quiet_ms(self, now_ms: int) -> int:
        """Time for which the carrier has sent nothing at all; 0 while no stream is open."""
        return 0 if self._last_sign_ms is None else now_ms - self._last_sign_ms

    def probe_due(self, now_ms: int, after_ms: int) -> bool:
        """True once in a silence: ask the carrier for a sign of life."""
        if self._probed or self.quiet_ms(now_ms) < after_ms:
            return False
        self._probed = True
        return True

    def flows(self, now_ms: int) -> bool:
        """The caller's frames arrive as they should: the last one is no older than some of them."""
        return self._last_audio_ms is not None and now_ms - self._last_audio_ms < FLOWS_MS

    @property
    def hushed(self) -> bool:
        """True while the caller's frames arrive and the last of them has nothing to hear."""
        frame = self._last_frame
        return bool(frame) and peak_dbfs(frame, self._format) <= AUDIBLE_PEAK_DBFS

    def push(self, payload: bytes, timestamp_ms: int, now_ms: int) -> bytes:
        """Convert caller audio; silence stands in for skipped time.

        Returns:
            Audio in the model's format, as long as the timeline says.
        """
        self._last_audio_ms = now_ms
        if self._first_audio_ms is None:
            self._first_audio_ms = now_ms
        self._last_frame = payload
        self._stall_filled_ms = 0
        counters = self._counters
        duration_ms = len(payload) // self._bytes_per_ms
        counters.caller_frames += 1
        counters.caller_audio_ms += duration_ms
        expected_ms = self._next_ms
        # A frame that is behind the others is late, and its time is not to be filled again.
        self._next_ms = max(timestamp_ms + duration_ms, expected_ms or 0)
        if expected_ms is not None and timestamp_ms - expected_ms >= JITTER_MS:
            passed_ms = now_ms - self._first_audio_ms + FILL_AHEAD_MS - self._filled_ms
            gap_ms = max(0, min(timestamp_ms - expected_ms, GAP_FILL_MAX_MS, passed_ms))
            counters.gap_filled_ms += gap_ms
            self._filled_ms += gap_ms
            return self._transcoder.push(self._format.silence(gap_ms) + payload)
        return self._transcoder.push(payload)

    def on_tick(self, now_ms: int, *, speaking: bool) -> bytes:
        """Silence for the model when the caller was speaking and media has stalled, else empty."""
        last_ms = self._last_audio_ms
        if not speaking or last_ms is None or now_ms - last_ms < STALL_MS:
            return b""
        wanted_ms = min(now_ms - last_ms - STALL_MS + STALL_FILL_MS, STALL_FILL_MAX_MS)
        fill_ms = wanted_ms - self._stall_filled_ms
        if fill_ms <= 0:
            return b""
        self._stall_filled_ms = wanted_ms
        self._counters.stall_filled_ms += fill_ms
        self._filled_ms += fill_ms
        # Sound that was made up must not be made up again when the timestamps skip it.
        self._next_ms = (self._next_ms or 0) + fill_ms
        return self._transcoder.push(self._format.silence(fill_ms))
