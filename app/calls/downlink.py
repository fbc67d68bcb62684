"""Agent audio on its way to the caller: converted, framed, marked, and kept for a second try.

One item at a time comes from the model, in its format; what leaves is in the carrier's, in whole
frames. What of it was heard is `Playout`'s to know; when to cut it, the conversation's. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from app.calls.actions import Action, PlayAudio
from app.calls.playout import Chunk, Interruption, Playout, Rest
from app.events import CallCounters
from app.realtime.events import AudioDelta
from audio.bridge import Transcoder
from audio.format import AudioFormat
from audio.level import peak_dbfs

__all__ = ["Downlink"]

AUDIBLE_PEAK_DBFS: Final = -40.0
"""The peaks of the quietest speech on a line are some 15 dB above it, a line's noise is below."""


class Downlink:
    """The sound of one call's agent."""

    def __init__(
        self,
        model_format: AudioFormat,
        carrier_format: AudioFormat,
        counters: CallCounters,
        *,
        keep_ms: int = 0,
    ) -> None:
        """`keep_ms`: how much unheard audio an interruption may give back, see `Playout`."""
        self.playout = Playout(carrier_format, keep_ms=keep_ms)
        self._model_format = model_format
        self._carrier_format = carrier_format
        self._frame_bytes = carrier_format.ms_to_bytes(20)
        self._counters = counters
        self._transcoder: tuple[str, Transcoder] | None = None
        self._audible = ("", False)  # the last response that had sound, and whether one can hear it

    def push(self, event: AudioDelta, now_ms: int) -> list[Action]:
        """Take audio of the model; give what to send."""
        item_id = event.item_id
        if self._transcoder is None or self._transcoder[0] != item_id:
            self._transcoder = (item_id, Transcoder(self._model_format, self._carrier_format))
        audio = self._transcoder[1].push(event.audio)
        if self._audible != (event.response_id, True):
            loud = peak_dbfs(audio, self._carrier_format) > AUDIBLE_PEAK_DBFS
            self._audible = (event.response_id, loud)
        return self._play(self.playout.push(item_id, event.content_index, audio, now_ms))

    def was_inaudible(self, response_id: str) -> bool:
        """Whether a response that is over had no sound, or nothing but silence."""
        return self._audible != (response_id, True)

    def finish(self, item_id: str, now_ms: int) -> list[Action]:
        """The item has no more audio."""
        chunks: list[Chunk] = []
        if self._transcoder is not None and self._transcoder[0] == item_id:
            tail = self._transcoder[1].flush()
            self._transcoder = None
            chunks = self.playout.push(item_id, 0, tail, now_ms) if tail else []
        return self._play(chunks + self.playout.finish(item_id, now_ms))

    def finish_all(self, now_ms: int) -> list[Action]:
        """No item has more audio: the model is gone."""
        self._transcoder = None
        return self._play(self.playout.finish_all(now_ms))

    def interrupt(self, now_ms: int) -> Interruption:
        """Forget what is queued and begin a new generation."""
        self._transcoder = None
        return self.playout.interrupt(now_ms)

    def resume(self, rest: Iterable[Rest], now_ms: int) -> list[Action]:
        """Play what an interruption cut off, from what was heard on."""
        chunks: list[Chunk] = []
        for piece in rest:
            chunks += self.playout.push(piece.item_id, piece.content_index, piece.audio, now_ms)
            chunks += self.playout.finish(piece.item_id, now_ms)
        return self._play(chunks)

    def _play(self, chunks: list[Chunk]) -> list[Action]:
        for chunk in chunks:
            self._counters.agent_frames += len(chunk.payload) // self._frame_bytes
            self._counters.agent_audio_ms += self._carrier_format.bytes_to_ms(len(chunk.payload))
        return [PlayAudio(chunk.payload, chunk.mark) for chunk in chunks]
