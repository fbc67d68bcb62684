"""A transcription session over the Realtime socket: the turn is sent while it is spoken.

Wire: OpenAI, "Realtime transcription": `?intent=transcription` without a model in the URL, a
session of type `transcription` with PCM at 24 kHz, and no turn detection, which its streaming
models refuse: each `input_audio_buffer.commit` makes an item, whose transcript comes later. Items
may be transcribed out of order. One socket for each turn, opened when the caller begins to speak.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, Final

import numpy as np

from app.engine.base import Heard
from app.engine.stages.base import StageError, StageSpec, language_fields, primary_tags
from app.engine.stages.http_responses import as_json
from app.engine.stages.socket_transcriber import SocketTranscriber, drop
from app.errors import VoiceError
from app.realtime.faults import find_code
from app.realtime.websocket import WebSocketModel, WebSocketTransport
from audio.resample import Resampler

__all__ = ["RealtimeTranscriber"]

_LEAST_BYTES: Final = 100 * 48
"""A commit of less than 100 ms is refused."""
_UPDATED: Final = ("session.updated", "transcription_session.updated")  # Together: the old name


class RealtimeTranscriber(SocketTranscriber):
    """A server of transcription sessions; `base_url` is the Realtime URL."""

    def __init__(self, spec: StageSpec, *, language: str = "", prompt: str = "") -> None:
        super().__init__(spec)
        self._model = WebSocketModel(
            spec.base_url,
            headers=spec.headers(),
            query={"intent": "transcription"},
            name=spec.model,
            timeout_s=spec.timeout_s,
        )
        self._prompt = prompt
        self._languages: tuple[str, ...] = (language,) if language else ()

    @property
    def transcription(self) -> dict[str, Any]:
        """The settings of the session's transcription."""
        model = self._spec.model
        hints = language_fields(model, self._languages)
        return self._spec.body({"model": model, **hints, "prompt": self._prompt or None})

    def in_languages(self, languages: Sequence[str]) -> RealtimeTranscriber:
        """As `LanguageHints.in_languages`."""
        other = copy(self)
        other._languages = primary_tags(languages)
        return other

    def open(self) -> _Turn:
        """Begin an utterance."""
        return _Turn(self)

    async def connect(self) -> WebSocketTransport:
        """Open a socket whose session is agreed on.

        Raises:
            VoiceError: it cannot be had.
        """
        transport = await self._model.open()
        audio = {
            "format": {"type": "audio/pcm", "rate": 24_000},
            "transcription": self.transcription,
            "turn_detection": None,
        }
        session = {"type": "transcription", "audio": {"input": audio}}
        agreed = False
        try:
            await transport.send(json.dumps({"type": "session.update", "session": session}))
            while not agreed:
                event = self.checked(await transport.receive())
                agreed = event.get("type") in _UPDATED
            return transport
        finally:
            if not agreed:
                await transport.close()

    def checked(self, text: str) -> Mapping[str, Any]:
        """An event of the server.

        Raises:
            StageError: it is an error.
        """
        event = as_json(text)
        if event.get("type") == "error":
            error = event.get("error")
            message = str(error.get("message", "")) if isinstance(error, dict) else ""
            code = find_code(str(error.get("code"))) if isinstance(error, dict) else None
            raise StageError(f"{self.name}: {message[:200]}", code=code or "stage_refused")
        return event


class _Turn:
    """One utterance on a socket of its own."""

    def __init__(self, stage: RealtimeTranscriber) -> None:
        self._stage = stage
        self._to_24k = Resampler(3, 2)
        self._outbox: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._uncommitted_bytes = 0
        self._commits = 0
        self._items: list[str] = []
        self._texts: dict[str, str] = {}
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name="transcription session")
        self._task.add_done_callback(lambda _: self._changed.set())

    def push(self, pcm16: bytes) -> None:
        samples = self._to_24k.push(np.frombuffer(pcm16, "<i2"))
        sound = samples.astype("<i2").tobytes()
        self._uncommitted_bytes += len(sound)
        self._outbox.put_nowait(sound)

    async def so_far(self) -> Heard:
        """Return the words up to now."""
        return await self.finish()

    def go_on(self) -> None:
        """Nothing: what was committed stays, and what follows is another item."""

    async def finish(self) -> Heard:
        """Return the words.

        Raises:
            StageError: the stage failed.
        """
        if self._uncommitted_bytes >= _LEAST_BYTES:
            self._uncommitted_bytes = 0
            self._commits += 1
            self._outbox.put_nowait(None)
        wanted = self._commits
        try:
            async with asyncio.timeout(self._stage.timeout_s):
                while len(self._texts) < wanted and not self._task.done():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise self._stage.late() from None
        if len(self._texts) < wanted:
            self._task.result()
        texts = (self._texts.get(item_id, "") for item_id in self._items)
        return Heard(transcript=" ".join(filter(None, texts)))

    def abandon(self) -> None:
        drop(self._task)

    async def _run(self) -> None:
        """Carry sound and transcripts until the turn is abandoned.

        Raises:
            StageError: the session cannot be had, or has ended.
        """
        transport: WebSocketTransport | None = None
        try:
            transport = await self._stage.connect()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._send(transport))
                group.create_task(self._read(transport))
        except* VoiceError as errors:
            error = errors.exceptions[0]
            if isinstance(error, StageError):
                raise error from None
            code = error.code if isinstance(error, VoiceError) else "stage_failed"
            raise StageError(f"{self._stage.name}: {error}", code=code) from None
        finally:
            if transport is not None:
                await transport.close()

    async def _send(self, transport: WebSocketTransport) -> None:
        while True:
            sound = await self._outbox.get()
            if sound is None:
                await transport.send('{"type":"input_audio_buffer.commit"}')
            elif sound:
                audio = base64.b64encode(sound).decode()
                event = {"type": "input_audio_buffer.append", "audio": audio}
                await transport.send(json.dumps(event))

    async def _read(self, transport: WebSocketTransport) -> None:
        while True:
            event = self._stage.checked(await transport.receive())
            match event:
                case {"type": "input_audio_buffer.committed", "item_id": str(item_id)}:
                    self._items.append(item_id)
                case {"type": str(kind), "item_id": str(item_id)} if "transcription" in kind:
                    if kind.endswith("failed"):
                        message = f"{self._stage.name}: the turn was not transcribed"
                        raise StageError(message, code="stage_failed")
                    if kind.endswith("completed"):
                        if item_id not in self._items:  # a server that does not tell of commits
                            self._items.append(item_id)
                        self._texts[item_id] = str(event.get("transcript") or "").strip()
                        self._changed.set()
