"""The socket of a supervisor: hears both sides of one call, and may speak in the agent's place.

What is sent to it is text, as on a media stream: `media` with a `side`, `clear` when the caller's
carrier was told to drop the agent's sound, `state`, and `over`. The page plays each side as the
carrier does. It sends `take_over`, `media` and `hand_back`; who leaves has handed back.

Nothing is held back for a page that does not read: what waits for it is bounded in size and age,
and beyond either it is cut off.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, Final, Protocol

from websockets.frames import CloseCode

from app import logs
from app.calls.caller_leg import Monitor
from app.events import CallId
from app.web.server.sockets import MessageTransport
from app.web.token_bucket import TokenBucket
from audio.format import PCMU_8K, AudioFormat
from audio.transcoder import Transcoder

__all__ = ["SupervisedCall", "supervise"]

logger = logging.getLogger(__name__)

MAX_WAITING_BYTES: Final = 2**20
"""A minute and a half of both sides. An answer of the agent comes all at once."""
MAX_WAITING_S: Final = 5.0
MAX_PAYLOAD_BYTES: Final = 8_000
RATE_HZ: Final = 150
BURST_MESSAGES: Final = 600


class SupervisedCall(Protocol):
    """A live call, as its supervisor needs it."""

    @property
    def call_id(self) -> CallId: ...
    @property
    def ending(self) -> bool: ...
    def listen_in(self, monitor: Monitor) -> Callable[[], None]: ...
    def take_over(self) -> bool: ...
    def hand_back(self) -> None: ...
    def speak(self, audio: bytes) -> None: ...
    def note_operator(self, action: str, by: str, text: str = "") -> None: ...


async def supervise(call: SupervisedCall, by: str, transport: MessageTransport) -> None:
    """Serve a supervisor's socket until it or the call is over."""
    logs.call_id.set(call.call_id)
    if call.ending:
        transport.close(CloseCode.GOING_AWAY, "over")
        return
    socket = _Supervisor(call, by, transport)
    leave = call.listen_in(socket)
    try:
        call.note_operator("listen", by)
        transport.listen(socket)
        await socket.over
    finally:
        leave()
        socket.leave()
        transport.close()


class _Supervisor:
    """One supervisor: a listener of the call, and of the page's messages."""

    def __init__(self, call: SupervisedCall, by: str, transport: MessageTransport) -> None:
        self._call = call
        self._by = by
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self.over: asyncio.Future[None] = self._loop.create_future()
        self._context = copy_context()
        self._speaks = False
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._waits_since_s = 0.0
        self._converters: dict[str, Transcoder] = {}
        self._rate = TokenBucket(BURST_MESSAGES, RATE_HZ, self._loop.time())

    # The call -----------------------------------------------------------------------------------

    def on_caller(self, audio: bytes, audio_format: AudioFormat) -> None:
        self._send_sound("caller", self._ulaw("caller", audio, audio_format))

    def on_agent(self, audio: bytes, audio_format: AudioFormat) -> None:
        if not self._speaks:  # nobody needs to hear themselves
            self._send_sound("agent", self._ulaw("agent", audio, audio_format))

    def on_clear(self) -> None:
        self._send({"event": "clear"})

    def on_over(self) -> None:
        self._send({"event": "over"})
        self._finish()

    def _ulaw(self, side: str, audio: bytes, audio_format: AudioFormat) -> bytes:
        if audio_format == PCMU_8K:
            return audio
        if side not in self._converters:
            self._converters[side] = Transcoder(audio_format, PCMU_8K)
        return self._converters[side].push(audio)

    # Out ----------------------------------------------------------------------------------------

    def _send_sound(self, side: str, ulaw: bytes) -> None:
        payload = binascii.b2a_base64(ulaw, newline=False)
        self._put(b'{"event":"media","side":"%b","payload":"%b"}' % (side.encode(), payload))

    def _send(self, message: dict[str, Any]) -> None:
        self._put(json.dumps(message).encode())

    def _put(self, text: bytes) -> None:
        if not self._waiting and self._transport.send(text):
            return
        now_s = self._loop.time()
        if not self._waiting:
            self._waits_since_s = now_s
        self._waiting.append(text)
        self._waiting_bytes += len(text)
        too_old = now_s - self._waits_since_s > MAX_WAITING_S
        if (too_old or self._waiting_bytes > MAX_WAITING_BYTES) and not self.over.done():
            logger.warning("supervisor cut off: the page does not read", extra={"by": self._by})
            self._waiting.clear()
            self._finish()

    def on_writable(self) -> None:
        while self._waiting and self._transport.send(self._waiting[0]):
            self._waiting_bytes -= len(self._waiting.popleft())
            self._waits_since_s = self._loop.time()

    # In -----------------------------------------------------------------------------------------

    def on_text(self, text: bytes) -> None:
        if self.over.done():
            return
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict) or not self._rate.take(self._loop.time()):
            self._transport.close(CloseCode.POLICY_VIOLATION)
            self._finish()
            return
        self._context.run(self._on_message, message)

    def on_binary(self) -> None:
        self._transport.close(CloseCode.UNSUPPORTED_DATA)
        self._finish()

    def on_end(self) -> None:
        self._finish()

    def _on_message(self, message: dict[str, Any]) -> None:
        match message:
            case {"event": "media", "payload": str(payload)} if self._speaks:
                self._speak(payload)
            case {"event": "take_over"} if not self._speaks:
                self._speaks = self._call.take_over()
                if self._speaks:
                    self._call.note_operator("take_over", self._by)
                self._send({"event": "state", "speaks": self._speaks})
            case {"event": "hand_back"} if self._speaks:
                self._hand_back()
                self._send({"event": "state", "speaks": False})

    def _speak(self, payload: str) -> None:
        try:
            audio = base64.b64decode(payload, validate=True)
        except ValueError:
            return
        if 0 < len(audio) <= MAX_PAYLOAD_BYTES:
            self._call.speak(audio)

    def _hand_back(self) -> None:
        self._speaks = False
        if not self._call.ending:
            self._call.hand_back()
            self._call.note_operator("hand_back", self._by)

    # The end ------------------------------------------------------------------------------------

    def leave(self) -> None:
        """The supervisor is gone: the agent speaks again."""
        if self._speaks:
            self._hand_back()

    def _finish(self) -> None:
        if not self.over.done():
            self.over.set_result(None)
