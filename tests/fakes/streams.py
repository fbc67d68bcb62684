"""A media stream's events, one after the other, for tests that read them as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from app.carrier.base import CallerAudio, MediaStream, StreamEvent, StreamStopped

__all__ = ["Events"]


class Events:
    """Listens to a stream; iterating gives what it tells, up to `StreamStopped`."""

    def __init__(self, stream: MediaStream) -> None:
        self.writable = asyncio.Event()
        self._stream = stream
        self._told: asyncio.Queue[StreamEvent | None] = asyncio.Queue()

    def on_audio(self, payload: bytes, timestamp_ms: int) -> None:
        self._told.put_nowait(CallerAudio(payload, timestamp_ms))

    def on_event(self, event: StreamEvent) -> None:
        self._told.put_nowait(event)

    def on_writable(self) -> None:
        self.writable.set()

    async def __aiter__(self) -> AsyncIterator[StreamEvent]:
        delivery = asyncio.ensure_future(self._stream.deliver(self))
        delivery.add_done_callback(lambda _: self._told.put_nowait(None))
        try:
            while (event := await self._told.get()) is not None:
                yield event
                if isinstance(event, StreamStopped):
                    break
            await delivery  # raises what ended it
        finally:
            delivery.cancel()
