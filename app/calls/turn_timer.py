"""Times the course of each turn: from the caller's last sound to the agent's first one. Pure.

Fed with what passes through a call; milliseconds on the call's clock. Each turn of the caller gives
one `TurnTimed`, when its answer was heard or will not be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from app.events import BargeIn, CallEvent, CallId, SpeechResumed, StagesTimed, TurnTimed
from app.realtime.events import (
    STAGES_METADATA_KEY,
    AudioDelta,
    ResponseCreated,
    ResponseDone,
    ServerEvent,
    SpeechStopped,
    TranscriptionCompleted,
)
from audio.format import AudioFormat

__all__ = ["TurnTimer"]


class TurnTimer:
    """Times the turn that waits for its answer."""

    def __init__(self, call_id: CallId, record: Callable[[CallEvent], None]) -> None:
        self._call_id = call_id
        self._record = record
        self._turn: _Turn | None = None
        self._created_ms = 0

    def on_voice(self, event: ServerEvent, now_ms: int, pause_ms: Callable[[], int]) -> None:
        """Take an event of the model; `pause_ms`: the silence that proves a turn's end."""
        turn = self._turn
        match event:
            case AudioDelta(audio=audio):  # most events are this one
                # Sound before `response_ms` is of a response that began before the turn ended.
                if turn and turn.model_sound_ms is None and turn.response_ms is not None and audio:
                    turn.model_sound_ms = now_ms
            case SpeechStopped(item_id=item_id):
                self.settle(now_ms)
                self._turn = _Turn(item_id, now_ms - pause_ms(), now_ms)
            case TranscriptionCompleted(item_id=item_id) if turn and turn.item_id == item_id:
                turn.transcript_ms = now_ms
            case ResponseCreated():
                self._created_ms = now_ms
                if turn and turn.response_ms is None:
                    turn.response_ms = now_ms
            case ResponseDone(response=response) if STAGES_METADATA_KEY in response.metadata:
                stages_ms = _stages(response.metadata[STAGES_METADATA_KEY])
                if stages_ms:
                    self._record(
                        StagesTimed(
                            call_id=self._call_id,
                            at_ms=now_ms,
                            # A response is created once its turn has been transcribed.
                            began_ms=max(0, self._created_ms - stages_ms.get("stt", 0)),
                            response_id=response.id,
                            stages_ms=stages_ms,
                        )
                    )
            case _:
                pass

    def on_event(self, event: CallEvent) -> None:
        """Take an event of the call: an interruption ends the wait, a false one undoes the turn."""
        if isinstance(event, SpeechResumed):
            self._turn = None
        elif isinstance(event, BargeIn):
            self.settle(event.at_ms)

    @property
    def waits(self) -> bool:
        """The model's sound is there, and has not been heard yet."""
        return self._turn is not None and self._turn.model_sound_ms is not None

    def on_sent(self, payload: bytes, mark: str | None, carrier: AudioFormat, now_ms: int) -> None:
        """Take what was written to the carrier's socket; of interest while `waits`."""
        turn = self._turn
        if turn is None or turn.model_sound_ms is None or turn.mark is not None:
            return
        if turn.sent_ms is None:
            turn.sent_ms = now_ms
        turn.before_mark_ms += carrier.bytes_to_ms(len(payload))
        turn.mark = mark

    def on_mark(self, mark: str, now_ms: int) -> None:
        """The carrier has played everything before a mark."""
        turn = self._turn
        if turn is None or turn.sent_ms is None or mark != turn.mark:
            return
        turn.heard_ms = max(turn.sent_ms, now_ms - turn.before_mark_ms)
        self.settle(now_ms)

    def settle(self, now_ms: int) -> None:
        """Record the turn as far as it has come."""
        turn, self._turn = self._turn, None
        if turn is not None:
            self._record(turn.timed(self._call_id, now_ms))


def _stages(text: str) -> dict[str, int]:
    """The times in `stt=120 llm=300 tts=90`, as the chained engine writes them."""
    pairs = (part.partition("=") for part in text.split())
    return {name: int(ms) for name, _, ms in pairs if name in _STAGES and ms.isdecimal()}


_STAGES: Final = frozenset({"stt", "llm", "tts"})


class _Turn:
    """One turn of the caller, and the answer's way to them."""

    __slots__ = (
        "before_mark_ms",
        "found_ms",
        "heard_ms",
        "item_id",
        "mark",
        "model_sound_ms",
        "response_ms",
        "sent_ms",
        "stopped_ms",
        "transcript_ms",
    )

    def __init__(self, item_id: str, stopped_ms: int, found_ms: int) -> None:
        self.item_id = item_id
        self.stopped_ms = stopped_ms
        self.found_ms = found_ms
        self.transcript_ms: int | None = None
        self.response_ms: int | None = None
        self.model_sound_ms: int | None = None
        self.sent_ms: int | None = None
        self.mark: str | None = None
        self.before_mark_ms = 0
        self.heard_ms: int | None = None

    def timed(self, call_id: CallId, now_ms: int) -> TurnTimed:
        return TurnTimed(
            call_id=call_id,
            at_ms=now_ms,
            item_id=self.item_id,
            caller_stopped_ms=max(0, self.stopped_ms),
            turn_found_ms=self.found_ms,
            transcript_ms=self.transcript_ms,
            response_ms=self.response_ms,
            model_sound_ms=self.model_sound_ms,
            sent_ms=self.sent_ms,
            heard_ms=self.heard_ms,
        )
