"""Deepgram's streaming socket as speech to text: the turn is transcribed while it is spoken.

Wire: Deepgram, "Live audio" (`/v1/listen`): binary int16 PCM out; `Results` in, of which those with
`is_final` count; `Finalize` asks for the rest, whose result says `from_finalize`. Where no rest is
left that result may not come: `CloseStream` brings a summary (`Metadata`) in any case. One socket
for each turn, opened when the caller begins to speak, so that its handshake costs no time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Sequence
from copy import copy
from typing import Any, Final
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, WebSocketException

from app.engine.base import Heard
from app.engine.stages.base import StageError, StageSpec
from app.engine.stages.http_responses import as_json, refusal_code
from app.engine.stages.socket_transcriber import SocketTranscriber, drop
from app.network import websocket_options

__all__ = ["DEEPGRAM_URL", "DeepgramTranscriber"]

DEEPGRAM_URL: Final = "wss://api.deepgram.com/v1"
_PIECE_BYTES: Final = 3_200


class DeepgramTranscriber(SocketTranscriber):
    """A server of `/v1/listen`."""

    def __init__(self, spec: StageSpec, *, language: str = "") -> None:
        super().__init__(spec)
        self._languages: tuple[str, ...] = (language,) if language else ()

    @property
    def url(self) -> str:
        """The address of a turn's socket."""
        fields = {
            "model": self._spec.model,
            "encoding": "linear16",
            "sample_rate": 16_000,
            "channels": 1,
            "interim_results": "false",
            "endpointing": "false",  # turns end by our own voice activity
            "smart_format": "true",
            **self._hints(),
        }
        query = urlencode(self._spec.body(fields), doseq=True)
        return f"{self._spec.url('/listen')}?{query}"

    def _hints(self) -> dict[str, Any]:
        """The languages: Deepgram hears English where it is told none, and nova-3 takes several.

        Wire: Deepgram, "Nova-3 Language Prompting" (October 2026).
        """
        languages = self._languages
        if len(languages) > 1 and self._spec.model.startswith("nova-3"):
            return {"language": "multi", "language_hint": languages}
        return {"language": languages[0]} if languages else {}

    def in_languages(self, languages: Sequence[str]) -> DeepgramTranscriber:
        """As `LanguageHints.in_languages`."""
        other = copy(self)
        other._languages = tuple(languages)
        return other

    def headers(self) -> dict[str, str]:
        """The key, as Deepgram wants it, and the extra headers."""
        key = {"Authorization": f"Token {self._spec.api_key}"} if self._spec.api_key else {}
        return {**key, **self._spec.extra_headers}

    def open(self) -> _Turn:
        """Begin an utterance."""
        return _Turn(self)


class _Turn:
    """One utterance on a socket of its own."""

    def __init__(self, stage: DeepgramTranscriber) -> None:
        self._stage = stage
        self._audio: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._task = asyncio.create_task(self._run(), name="deepgram turn")

    def push(self, pcm16: bytes) -> None:
        for at in range(0, len(pcm16), _PIECE_BYTES):
            self._audio.put_nowait(pcm16[at : at + _PIECE_BYTES])

    async def finish(self) -> Heard:
        """Return the words.

        Raises:
            StageError: the stage failed.
        """
        self._audio.put_nowait(None)
        try:
            async with asyncio.timeout(self._stage.timeout_s):
                return Heard(transcript=await asyncio.shield(self._task))
        except TimeoutError:
            raise self._stage.late() from None

    def abandon(self) -> None:
        drop(self._task)

    async def _run(self) -> str:
        try:
            async with connect(
                self._stage.url,
                additional_headers=self._stage.headers(),
                compression=None,
                **websocket_options(self._stage.url),
                open_timeout=self._stage.timeout_s,
                close_timeout=0.5,
            ) as socket:
                return await self._exchange(socket)
        except InvalidStatus as error:
            status = error.response.status_code
            message = f"{self._stage.name}: the server answered {status}"
            raise StageError(message, code=refusal_code(status)) from error
        except (OSError, TimeoutError) as error:
            message = f"{self._stage.name}: cannot be reached"
            raise StageError(message, code="stage_unreachable") from error
        except WebSocketException as error:
            raise StageError(f"{self._stage.name}: the socket broke", code="stage_cut") from error

    async def _exchange(self, socket: ClientConnection) -> str:
        sender = asyncio.create_task(self._send(socket), name="deepgram sound")
        try:
            return await self._read(socket)
        finally:
            sender.cancel()
            with contextlib.suppress(asyncio.CancelledError, WebSocketException):
                await sender

    async def _send(self, socket: ClientConnection) -> None:
        while (piece := await self._audio.get()) is not None:
            await socket.send(piece)
        await socket.send(json.dumps({"type": "Finalize"}))
        await socket.send(json.dumps({"type": "CloseStream"}))

    async def _read(self, socket: ClientConnection) -> str:
        words: list[str] = []
        async for message in socket:
            event = as_json(message if isinstance(message, str) else "")
            match event:
                case {"channel": {"alternatives": [{"transcript": str(text)}, *_]}}:
                    if event.get("is_final", True) and text.strip():
                        words.append(text.strip())
                    if event.get("from_finalize"):
                        return " ".join(words)
                case {"type": "Metadata", "duration": _}:
                    return " ".join(words)
                case {"type": "Error"}:
                    raise StageError(f"{self._stage.name}: refused the sound", code="stage_failed")
        raise StageError(f"{self._stage.name}: the socket closed early", code="stage_cut")
