"""The caller leg: one media stream after another, and the times between them.

It listens to the stream that is open: what comes is given to the conversation, and the actions that
follow are performed, in the turn of the event loop that read it.

A carrier that dials another party, or keys tones, takes the caller off our stream: the socket
closes, the call goes on. `CallerState` says where the caller is; `app.calls.transfer.transfers`
decides why they leave and what follows. A stream that ends without such a request ends the call,
unless the carrier was given a document with another one: that takes the caller over.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from app.calls.actions import Action, Clear, PlayAudio
from app.calls.conversation.conversation import Conversation
from app.calls.media.outbox import CarrierOutbox
from app.calls.turn_timer import TurnTimer
from app.carrier.base import MarkReached, MediaStream, NullListener, StreamEvent, StreamStopped
from app.errors import CarrierError
from app.events import EndReason
from app.tasks import CancellableGroup, Event, pass_cancellation_on
from audio.format import AudioFormat

__all__ = ["CLOSE_S", "LOST", "CallerLeg", "CallerState", "Monitor"]


CLOSE_S: Final = 1.5
"""Limit for closing a socket, within the 2 s in which a call ends."""
BURST_MS: Final = 2
BURST_FRAMES: Final = 4
"""Frames that come closer together than this have waited for each other; from so many on they are
a burst, as after a network that stalled, and no longer the jitter that any line has."""
LOST: Final = 1011
"""Websocket close code for "internal error" (RFC 6455): the call goes on without us."""


class CallerState(StrEnum):
    """The caller's place in the call."""

    EXPECTED = "expected"  # a stream opens soon
    ATTACHED = "attached"
    LEAVING = "leaving"  # the carrier is being asked to take them away
    AWAY = "away"  # with another party, for an unknown time


class Monitor(Protocol):
    """Listens in to both sides of a call. Waits for nothing, and raises nothing."""

    def on_caller(self, audio: bytes, audio_format: AudioFormat) -> None:
        """A frame of the caller has come."""
        ...

    def on_agent(self, audio: bytes, audio_format: AudioFormat) -> None:
        """Sound for the caller has left, which the carrier plays behind what left before."""
        ...

    def on_clear(self) -> None:
        """The carrier was told to drop what it has not played."""
        ...

    def on_over(self) -> None:
        """The call is over; perhaps told more than once."""
        ...


_NOT_OPENED: Final = (EndReason.CARRIER_LOST, "stream_not_opened")


class _Left(Exception):
    """Leaves the TaskGroup of one stream that the caller has left."""


@dataclass(frozen=True, slots=True)
class _Held:
    """A stream, and whether its socket may go."""

    stream: MediaStream
    done: asyncio.Event = field(default_factory=Event)


class CallerLeg:
    """Reads and writes the streams of one call."""

    def __init__(
        self,
        conversation: Conversation,
        timer: TurnTimer,
        *,
        max_ms: int,
        perform: Callable[[Sequence[Action]], None],
        append: Callable[[bytes, bool], None],
        end: Callable[[EndReason, str], None],
        now_ms: Callable[[], int],
        claim_ms: int,
    ) -> None:
        """`max_ms`: agent audio that may wait for a peer that is behind.

        `append` takes audio for the model, and True with each frame of a burst.
        """
        self.outbox = CarrierOutbox(max_ms, self._on_sent)
        self.on_writable = self.outbox.on_writable
        self._append = append
        self._audio_ms = self._together = 0
        self.monitors: tuple[Monitor, ...] = ()
        self.state = CallerState.EXPECTED
        self._conversation = conversation
        self._timer = timer
        self._perform = perform
        self._end = end
        self._now_ms = now_ms
        self._held: _Held | None = None
        self._next: asyncio.Future[_Held] = asyncio.get_running_loop().create_future()
        self._due_s: float | None = asyncio.get_running_loop().time() + claim_ms / 1000
        self._successor_due_s: float | None = None  # of a stream that may replace the open one
        self._if_not_opened = _NOT_OPENED
        self._deadline: asyncio.Timeout | None = None
        self._moved = Event()
        self._cleared_ms: int | None = None

    # Where the caller is ------------------------------------------------------------------------

    @property
    def away(self) -> bool:
        """True while the carrier has the caller, for an unknown time."""
        return self.state is CallerState.AWAY

    def leave(self) -> None:
        """The carrier is being asked to take the caller: the stream may end without the call."""
        self._move(CallerState.LEAVING)

    def stay(self) -> None:
        """The carrier did not take the caller, who is here or has hung up."""
        if self.state is not CallerState.LEAVING:
            return
        if self._held is None:
            self._end(EndReason.CALLER_HUNG_UP, "while_leaving")
        self._move(CallerState.ATTACHED)

    def gone(self) -> None:
        """The carrier has the caller; `come_back` follows if they return."""
        if self.state is CallerState.LEAVING:
            self._move(CallerState.AWAY)

    def come_back(self, within_ms: int) -> None:
        """The carrier was told to put the caller on a new stream."""
        if self.state is CallerState.ATTACHED:  # they were faster
            return
        self._due_s = asyncio.get_running_loop().time() + within_ms / 1000
        self._move(CallerState.EXPECTED)
        if self._deadline is not None:
            self._deadline.reschedule(self._due_s)

    def expect_successor(self, within_ms: int) -> None:
        """The carrier was given a document with a stream of its own, wherever the caller is.

        It may never open: the stream that is open stays until it does.
        """
        if self.state is CallerState.ATTACHED:
            self._successor_due_s = asyncio.get_running_loop().time() + within_ms / 1000
        else:
            self.come_back(within_ms)

    @property
    def _successor_due(self) -> bool:
        due_s = self._successor_due_s
        return due_s is not None and asyncio.get_running_loop().time() < due_s

    async def until(self, *states: CallerState) -> None:
        """Wait until the caller is in one of these states."""
        while self.state not in states:
            self._moved.clear()
            await self._moved.wait()

    async def left(self, within_s: float) -> bool:
        """True once the carrier takes the caller, within a time and whatever it has answered."""
        if self.state is not CallerState.LEAVING:
            return True  # they are on the way back, or here again
        held = self._held
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                if held is not None:
                    await held.done.wait()
        return self._held is None

    async def until_stream_gone(self) -> None:
        """Wait until the stream that the caller leaves is gone: what is said before is lost."""
        if self._held is not None and self.state is not CallerState.ATTACHED:
            await self._held.done.wait()

    def _move(self, state: CallerState) -> None:
        self.state = state
        self._moved.set()

    # Streams ------------------------------------------------------------------------------------

    async def attach(self, stream: MediaStream) -> None:
        """Take a stream; return when its socket may go: the caller left it, or the call is over.

        Its token was checked, so it takes the caller from any stream that opened before it.
        """
        held = _Held(stream)
        overtaken = self._next.result() if self._next.done() else None  # not yet talked on
        if overtaken is not None:
            self._next = asyncio.get_running_loop().create_future()
        self._next.set_result(held)
        if overtaken is not None:
            overtaken.stream.close()
            overtaken.done.set()
        try:
            await held.done.wait()
        finally:
            if not held.done.is_set():  # the server is being stopped under us
                self._end(EndReason.CARRIER_LOST, "server_stopped")

    async def run(self) -> None:
        """Hold one stream after another, for as long as the call lasts."""
        while (held := await self._next_stream()) is not None:
            self._held = held
            self._next = asyncio.get_running_loop().create_future()
            self._due_s = self._successor_due_s = None
            self._if_not_opened = _NOT_OPENED
            self._move(CallerState.ATTACHED)
            self.outbox.on_stream(held.stream.started.audio_format)
            self._perform(self._conversation.on_stream(held.stream.started, self._now_ms()))
            if not await self._talk(held.stream):
                return
            self._held = None
            taken_over = self.state is CallerState.ATTACHED
            if taken_over:
                self._due_s = self._successor_due_s
                self._move(CallerState.EXPECTED)
            self._perform(self._conversation.on_stream_left(self._now_ms(), resumes=taken_over))
            self.outbox.forget()
            self._cleared_ms = None
            held.stream.close()
            held.done.set()

    async def _next_stream(self) -> _Held | None:
        try:
            async with asyncio.timeout_at(self._due_s) as self._deadline:
                await asyncio.shield(self._next)
        except TimeoutError:
            self._end(*self._if_not_opened)
            return None
        finally:
            self._deadline = None
        return self._next.result()  # perhaps a later one than the one that woke us

    async def _talk(self, stream: MediaStream) -> bool:
        """Use a stream to its end; True when the call goes on without it."""
        lost = False
        try:
            async with CancellableGroup() as group:
                group.create_task(self._end_for_next_stream())
                self.outbox.open(stream)
                # Events wait for nothing: a slow model, tool or log must not make us discard
                # caller audio (Twilio warning 31930).
                await stream.deliver(self)
        except* _Left:
            pass
        except* CarrierError:
            lost = not self._may_leave()
        pass_cancellation_on()
        if lost:
            self._end(EndReason.CARRIER_LOST, "")
        return not lost

    def on_audio(self, payload: bytes, timestamp_ms: int) -> None:
        """Caller audio on the open stream."""
        if self.monitors:
            for monitor in self.monitors:
                monitor.on_caller(payload, self._audio_format)
        now_ms = self._now_ms()
        audio = self._conversation.on_caller_audio(payload, timestamp_ms, now_ms)
        self._together = self._together + 1 if now_ms - self._audio_ms < BURST_MS else 1
        self._audio_ms = now_ms
        if audio:
            self._append(audio, self._together > BURST_FRAMES)

    def on_event(self, event: StreamEvent) -> None:
        """Anything else on the open stream.

        Raises:
            _Left: it ends without the call.
        """
        if isinstance(event, StreamStopped) and self._may_leave():
            if event.hung_up and self.state is CallerState.ATTACHED:
                self._if_not_opened = (EndReason.CALLER_HUNG_UP, "")
            raise _Left
        now_ms = self._now_ms()
        if isinstance(event, MarkReached):
            self._timer.on_mark(event.name, now_ms)
        self._perform(self._conversation.on_stream(event, now_ms))

    def _may_leave(self) -> bool:
        """The call goes on without the open stream."""
        return self.state is not CallerState.ATTACHED or self._successor_due or self._next.done()

    async def _end_for_next_stream(self) -> None:
        """A new stream of the call ends the old one, should the carrier be late to end it."""
        await asyncio.shield(self._next)
        raise _Left

    def clear(self, action: Clear) -> None:
        """Purge what has not left, and have the carrier do the same."""
        self._cleared_ms = self._now_ms()
        self.outbox.clear(action)

    @property
    def _audio_format(self) -> AudioFormat:
        assert self._held is not None
        return self._held.stream.started.audio_format

    def _on_sent(self, action: PlayAudio | Clear) -> None:
        for monitor in self.monitors:
            if isinstance(action, Clear):
                monitor.on_clear()
            elif action.payload:
                monitor.on_agent(action.payload, self._audio_format)
        if isinstance(action, Clear):
            if self._cleared_ms is not None:
                self._conversation.latency.on_barge_in(self._cleared_ms, self._now_ms())
                self._cleared_ms = None
        elif self._timer.waits and self._held is not None:
            carrier = self._held.stream.started.audio_format
            self._timer.on_sent(action.payload, action.mark, carrier, self._now_ms())

    # The end ------------------------------------------------------------------------------------

    async def caller_leaves(self) -> None:
        """Wait until the open stream ends. For a call that is over: nothing else is heard."""
        if self._held is not None:
            await self._held.stream.deliver(NullListener())

    def close(self, code: int, reason: str = "") -> None:
        """Close the stream that is open, and one that has come in the last moment."""
        if self._held is not None:
            self._held.stream.close(code, reason)
        if self._next.done():
            self._next.result().stream.close(code, reason)

    def release(self) -> None:
        """The call is over: its sockets may go."""
        if self._held is not None:
            self._held.done.set()
        if self._next.done():
            self._next.result().done.set()
        self.outbox.on_over()
        for monitor in self.monitors:
            monitor.on_over()
