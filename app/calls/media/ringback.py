"""The ringing that a caller hears while somebody is called for them and nobody speaks.

Pure. The tone of North America: 440 and 480 Hz at -19 dBm0 each, two seconds in six (Telcordia
GR-506). It is sent just ahead of the time in which it is heard, so that the next speaker has to
wait for next to nothing of it.
"""

from __future__ import annotations

from typing import Final

from audio.format import PCMU_8K, AudioFormat
from audio.tones import dual_tone
from audio.transcoder import Transcoder

__all__ = ["Ringback"]


AHEAD_MS: Final = 300
_TONE_MS: Final = 2_000
_CYCLE_MS: Final = 6_000
_FRAME_MS: Final = 20
_TONE: Final = dual_tone(440, 480, ms=_TONE_MS, level_dbm0=-19.0)


class Ringback:
    """The tone of one call, in the carrier's format."""

    def __init__(self) -> None:
        self._began_ms: int | None = None
        self._sent_ms = 0

    def on_tick(self, now_ms: int, carrier_format: AudioFormat) -> bytes:
        """The sound that is due by now; ask a few times a second, as long as nobody speaks."""
        if self._began_ms is None:
            self._began_ms = now_ms
            self._sent_ms = 0
        position_ms = now_ms - self._began_ms
        begin_ms = max(self._sent_ms, position_ms - position_ms % _FRAME_MS)
        self._sent_ms = position_ms + AHEAD_MS - (position_ms + AHEAD_MS) % _FRAME_MS
        sound = b"".join(
            _TONE[8 * at_ms : 8 * (at_ms + _FRAME_MS)]
            for at_ms in (at % _CYCLE_MS for at in range(begin_ms, self._sent_ms, _FRAME_MS))
            if at_ms < _TONE_MS
        )
        return (
            sound if carrier_format == PCMU_8K else Transcoder(PCMU_8K, carrier_format).push(sound)
        )

    def stop(self) -> None:
        """Somebody speaks, or nobody is called any more: it begins anew the next time."""
        self._began_ms = None
