"""The recording of one call, from its first media stream to its end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any, Final

from app.calls.recording.recorder import LiveRecording, Recorder
from app.calls.recording.tape import Tape
from app.events import CallEvent, CallId, RecordingStarted, RecordingStopped
from app.tasks import Event

__all__ = ["CallRecording"]


HAND_OVER_MS: Final = 2_300
"""Each time costs a write of each file; a kill costs the sound since then."""
LAST_WRITE_S: Final = 1.0
"""Time for the last write at the end of a call, which says whether the recording is whole."""


class CallRecording:
    """Hands the tape of one call to the recorder, and records how that goes."""

    def __init__(
        self,
        call_id: CallId,
        tape: Tape,
        recorder: Recorder,
        *,
        facts: Mapping[str, Any],
        record: Callable[[CallEvent], None],
        now_ms: Callable[[], int],
    ) -> None:
        """`facts` are kept with the recording, `record` takes its events."""
        self._call_id = call_id
        self._tape = tape
        self._recorder = recorder
        self._facts = facts
        self._record = record
        self._now_ms = now_ms
        self._live: LiveRecording | None = None
        self._taken_ms = 0
        self._written = Event()
        self._over_ms = 0
        self.file = ""
        self.end = ""
        """The reason why it ended; empty while it goes on, or was never begun."""

    @property
    def goes_on(self) -> bool:
        """It was begun, and has not ended."""
        return self._live is not None

    @property
    def paused(self) -> bool:
        return self._tape.paused

    def begin(self) -> None:
        """A media stream of the call is open."""
        if self._live is not None or self.end:
            return
        self._live = self._recorder.begin(
            self._call_id,
            {"call_id": self._call_id, **self._facts},
            self._on_ended,
        )
        self.file = str(self._live.path)
        self._record(RecordingStarted(call_id=self._call_id, at_ms=self._now_ms(), file=self.file))

    def on_tick(self) -> None:
        """Hand over what has come, where that is due; call it once a second at least."""
        now_ms = self._now_ms()
        if now_ms - self._taken_ms >= HAND_OVER_MS:
            self._hand_over(now_ms)

    def _hand_over(self, now_ms: int) -> None:
        self._taken_ms = now_ms
        batch = self._tape.take(now_ms)
        if self._live is None:
            return
        self._live.put(batch)
        if self._tape.notice.given_up:
            self._live.close(batch.until_ms)
            self._stop("notice_not_heard", batch.until_ms)

    def close(self) -> None:
        """The call is over: `closed` or `settle` follows."""
        self._over_ms = self._now_ms()
        self._hand_over(self._over_ms)
        if self._live is not None:
            self._live.close(self._over_ms)

    async def closed(self) -> None:
        """Wait for the last write, for a moment."""
        if self._live is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_WRITE_S):
                    await self._written.wait()

    def settle(self) -> None:
        """Record the end, as far as it is known by now."""
        self._stop("call_over", self._over_ms)

    def _on_ended(self, reason: str) -> None:
        self._written.set()
        if reason:
            self._stop(reason, self._over_ms or self._now_ms())

    def _stop(self, reason: str, now_ms: int) -> None:
        live, self._live = self._live, None
        if live is None:
            return
        self.end = reason
        self._record(
            RecordingStopped(
                call_id=self._call_id,
                at_ms=now_ms,
                file=self.file,
                reason=reason,
                duration_ms=now_ms,
                lost_ms=live.lost_ms,
            )
        )
