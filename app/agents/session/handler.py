"""`OpenAIRealtimeHandler`: talk with a Realtime model in ten lines, without a phone.

The public face that the seed system documented, over the same parts that calls use: callbacks or
`get_audio` for what the model says, `send_audio` and `send_text` for what it is told. Sound is
mono signed 16-bit little-endian PCM at 24 kHz both ways. It plays nothing, so it knows nothing of
what was heard: interrupting truncates nothing, it only drops the sound not yet fetched.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

from app.errors import VoiceClosed
from app.realtime.connecting import connect_with_retry
from app.realtime.connection import VoiceConnection, VoiceModel
from app.realtime.dialect import MAX_APPEND_BYTES
from app.realtime.events import (
    DEFAULT_TURN_DETECTION,
    AudioDelta,
    AudioTranscriptDelta,
    AudioTranscriptDone,
    ContentPart,
    ErrorEvent,
    InputAudioAppend,
    Item,
    ItemCreate,
    ResponseCreate,
    ResponseCreated,
    ResponseDone,
    ResponseStatus,
    ServerEvent,
    SessionConfig,
    SpeechStarted,
    SpeechStopped,
    Transcription,
    TranscriptionCompleted,
)
from app.realtime.protocol import Rejection, ResponseGate
from app.realtime.websocket import OPENAI_URL, WebSocketModel
from audio.format import PCM16_24K

__all__ = ["OpenAIRealtimeHandler"]


logger = logging.getLogger(__name__)

Callback = Callable[..., Awaitable[None] | None]

MAX_BATCH: Final = 10  # chunks in one append
UPLINK_LIMIT_BYTES: Final = PCM16_24K.ms_to_bytes(2_000)  # older sound is no use to anyone
DOWNLINK_LIMIT_BYTES: Final = PCM16_24K.ms_to_bytes(120_000)  # when nobody calls `get_audio`
CALLBACK_LIMIT: Final = 1_000  # calls waiting behind a slow callback
DISCONNECT_TIMEOUT_S: Final = 2.0
TICK_S: Final = 0.5

_HOOKS: Final = (
    "on_audio",
    "on_transcript",
    "on_user_transcript",
    "on_turn_complete",
    "on_user_turn_complete",
)


class _Chunks:
    """A queue of sound, bounded by bytes: the oldest is dropped and counted."""

    def __init__(self, limit_bytes: int, *, says_so: bool) -> None:
        self._says_so = says_so
        self._chunks: deque[bytes] = deque()
        self._held_bytes = 0
        self._limit_bytes = limit_bytes
        self._changed = asyncio.Event()
        self._ended = False
        self.dropped_bytes = 0

    async def room(self, chunk: bytes) -> None:
        """Wait until a chunk fits in, but for no longer than it lasts: sound goes on meanwhile."""
        if self._held_bytes + len(chunk) <= self._limit_bytes:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(len(chunk) / PCM16_24K.bytes_per_second):
                while self._chunks and self._held_bytes + len(chunk) > self._limit_bytes:
                    self._changed.clear()
                    await self._changed.wait()

    def put(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._held_bytes += len(chunk)
        while self._held_bytes > self._limit_bytes and len(self._chunks) > 1:
            dropped = self._chunks.popleft()
            self._held_bytes -= len(dropped)
            if self._says_so and not self.dropped_bytes:
                logger.warning("sound dropped, the model is slow")
            self.dropped_bytes += len(dropped)
        self._changed.set()

    def clear(self) -> None:
        self._chunks.clear()
        self._held_bytes = 0

    def end(self) -> None:
        self._ended = True
        self._changed.set()

    async def get(self, most: int = 1) -> bytes | None:
        """Up to `most` chunks joined, as soon as there is one; `None` after the end."""
        while not self._chunks:
            if self._ended:
                return None
            self._changed.clear()
            await self._changed.wait()
        taken = [self._chunks.popleft() for _ in range(min(most, len(self._chunks)))]
        self._held_bytes -= sum(map(len, taken))
        self._changed.set()
        return taken[0] if len(taken) == 1 else b"".join(taken)


class _Caller:
    """Calls the user's functions in order, in a task of their own; sync or async, both may fail."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Callback, tuple[Any, ...]]] = deque(maxlen=CALLBACK_LIMIT)
        self._changed = asyncio.Event()
        self._ended = False
        self.task: asyncio.Task[None] | None = None

    def call(self, callback: Callback | None, *arguments: Any) -> None:
        if callback is not None:
            self._waiting.append((callback, arguments))
            self._changed.set()

    def end(self) -> None:
        self._ended = True
        self._changed.set()

    async def run(self) -> None:
        while True:
            while not self._waiting:
                if self._ended:
                    return
                self._changed.clear()
                await self._changed.wait()
            callback, arguments = self._waiting.popleft()
            try:
                result = callback(*arguments)
                if inspect.isawaitable(result):
                    await result
            except Exception:  # the user's code: whatever it raises must not end the conversation
                logger.exception("callback failed")


class _Link:
    """One connection and the tasks around it."""

    def __init__(self, connection: VoiceConnection, callbacks: dict[str, Callback | None]) -> None:
        self.connection = connection
        self.uplink = _Chunks(UPLINK_LIMIT_BYTES, says_so=True)
        # Who has a callback for the sound may never fetch it.
        self.downlink = _Chunks(DOWNLINK_LIMIT_BYTES, says_so=False)
        self.ended: VoiceClosed | None = None
        self.task = asyncio.create_task(self._run(), name="realtime handler")
        self._callbacks = callbacks
        self._caller = _Caller()
        self._gate = ResponseGate()
        self._creates = 0
        self._reply_waits = False

    async def respond(self) -> None:
        """Ask for a response, now or when the one that runs is done."""
        self._reply_waits = True
        await self._go_on()

    async def _go_on(self) -> None:
        if not self._reply_waits or self._gate.busy:
            return
        self._reply_waits = False
        self._creates += 1
        event_id = f"create_{self._creates}"
        self._gate.request(event_id, _now_ms())  # before sending: its answer may overtake `send`
        await self.connection.send(ResponseCreate(event_id=event_id))

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._caller.task = group.create_task(self._caller.run())
            group.create_task(self._send_sound())
            ticker = group.create_task(self._tick())
            await self._read()
            ticker.cancel()

    async def _read(self) -> None:
        try:
            async for event in self.connection:
                await self._take(event)
        except VoiceClosed as closed:
            self.ended = self.ended or closed
        finally:  # what was received is still handed out; nothing more is taken
            self.uplink.end()
            self.downlink.end()
            self._caller.end()

    async def _send_sound(self) -> None:
        try:
            while (sound := await self.uplink.get(MAX_BATCH)) is not None:
                for start in range(0, len(sound), MAX_APPEND_BYTES):
                    piece = sound[start : start + MAX_APPEND_BYTES]
                    await self.connection.send(InputAudioAppend(piece))
        except VoiceClosed as closed:
            self.ended = closed
            await self.connection.close()  # the reader may not have noticed

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            expired = self._gate.on_tick(_now_ms())
            if expired is not None:
                self._reply_waits = False
                logger.warning("model did not answer", extra={"gate_state": expired.value})

    async def _take(self, event: ServerEvent) -> None:
        hooks = self._callbacks
        match event:
            case AudioDelta(audio=audio):
                self.downlink.put(audio)
                self._caller.call(hooks["on_audio"], audio)
            case AudioTranscriptDelta(delta=delta):
                self._caller.call(hooks["on_transcript"], delta, False)
            case AudioTranscriptDone(transcript=transcript):
                self._caller.call(hooks["on_transcript"], transcript, True)
            case TranscriptionCompleted(transcript=transcript) if transcript:
                self._caller.call(hooks["on_user_transcript"], transcript)
            case SpeechStarted():
                self.downlink.clear()
            case SpeechStopped():
                self._caller.call(hooks["on_user_turn_complete"])
            case ResponseCreated(response=response):
                self._gate.on_created(response.id)
            case ResponseDone(response=response):
                if response.status in {ResponseStatus.FAILED, ResponseStatus.INCOMPLETE}:
                    code = response.error.code if response.error else response.status_reason
                    facts = {"status": response.status.value, "code": code}
                    logger.warning("response not completed", extra=facts)
                self._caller.call(hooks["on_turn_complete"])
                self._gate.on_done(response.id)
                await self._go_on()
            case ErrorEvent(error=error):
                logger.warning("model reported an error", extra={"code": error.code})
                rejection = self._gate.on_error(error.client_event_id, error.code)
                self._reply_waits = self._reply_waits or rejection is Rejection.OVERTAKEN
                await self._go_on()
            case _:
                pass

    async def close(self) -> None:
        await self.connection.close()
        if asyncio.current_task() is self._caller.task:
            return  # asked for in a callback: the tasks end by themselves once it returns
        done, _ = await asyncio.wait({self.task}, timeout=DISCONNECT_TIMEOUT_S)
        if not done:  # a callback that does not return
            self.task.cancel()
            await asyncio.wait({self.task})


class OpenAIRealtimeHandler:
    """A conversation with a Realtime model.

    Args:
        api_key: OpenAI's, or that of the gateway at `url`.
        voice: one that Realtime has (`marin`, `cedar`, `alloy`, ...).
        url: another server than OpenAI's.
        voice_model: any voice model in place of key, model and url: a gateway's, the offline
            engine's, or a test's.
    """

    def __init__(
        self,
        api_key: str,
        model: str = "gpt-realtime-2.1",
        voice: str = "alloy",
        system_instruction: str = "You are a helpful AI assistant.",
        *,
        url: str = OPENAI_URL,
        voice_model: VoiceModel | None = None,
    ) -> None:
        self._model = voice_model or WebSocketModel.openai(api_key, model, url=url)
        self._session = SessionConfig(
            output_modalities=("audio",),
            instructions=system_instruction,
            voice=voice,
            input_format=PCM16_24K,
            output_format=PCM16_24K,
            transcription=Transcription(model="whisper-1"),
            turn_detection=DEFAULT_TURN_DETECTION,
        )
        self._callbacks: dict[str, Callback | None] = dict.fromkeys(_HOOKS)
        self._link: _Link | None = None

    def __repr__(self) -> str:
        return f"OpenAIRealtimeHandler({self._model.name!r})"

    def set_callbacks(
        self,
        on_audio: Callback | None = None,
        on_transcript: Callback | None = None,
        on_user_transcript: Callback | None = None,
        on_turn_complete: Callback | None = None,
        on_user_turn_complete: Callback | None = None,
    ) -> None:
        """Say what to call, plain functions or coroutine functions; replaces all that were set.

        They are called one after another, apart from the conversation: a slow one delays the
        next call and nothing else, one that raises is logged.

        Args:
            on_audio: `(sound: bytes)`, the model's speech as it is generated.
            on_transcript: `(text: str, is_final: bool)`, its words: pieces, then the whole.
            on_user_transcript: `(text: str)`, the user's words.
            on_turn_complete: `()`, the model has finished generating.
            on_user_turn_complete: `()`, the user has stopped speaking.
        """
        hooks = (
            on_audio,
            on_transcript,
            on_user_transcript,
            on_turn_complete,
            on_user_turn_complete,
        )
        self._callbacks.update(zip(_HOOKS, hooks, strict=True))

    async def connect(self, initial_prompt: str | None = None) -> None:
        """Connect and agree on the session; `initial_prompt` is text for the model to answer first.

        Raises:
            VoiceRefused: wrong key, model or settings.
            VoiceUnavailable: not reached within the budget, after retries.
        """
        await self.disconnect()
        connection = await connect_with_retry(self._model, self._session)
        self._link = _Link(connection, self._callbacks)
        if initial_prompt:
            await self.send_text(initial_prompt)

    async def send_audio(self, audio_data: bytes) -> None:
        """Queue sound for the model; at once while it keeps up.

        When 2 s wait already this takes as long as the sound lasts, at most, and then drops the
        oldest: a recording may be sent as fast as you can, a microphone is not held up for good.

        Raises:
            VoiceClosed: not connected, or not any more.
        """
        link = self._connected()
        if audio_data:
            await link.uplink.room(audio_data)
            link.uplink.put(audio_data)

    async def send_text(self, text: str, end_of_turn: bool = True) -> None:
        """Say something to the model in writing; at the end of a turn it answers.

        Raises:
            VoiceClosed: not connected, or not any more.
        """
        link = self._connected()
        part = ContentPart(type="input_text", text=text)
        await link.connection.send(ItemCreate(Item(type="message", role="user", content=(part,))))
        if end_of_turn:
            await link.respond()

    async def get_audio(self) -> bytes:
        """The next piece of the model's speech; waits for it. Cancelling it loses nothing.

        Raises:
            VoiceClosed: not connected, or the connection ended and all was handed out.
        """
        link = self._link
        if link is None:
            raise _not_connected()
        sound = await link.downlink.get()
        if sound is None:
            raise link.ended or _not_connected()
        return sound

    async def disconnect(self) -> None:
        """End the conversation; safe at any time, also twice."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    def _connected(self) -> _Link:
        link = self._link
        if link is None:
            raise _not_connected()
        if link.ended is not None or link.task.done():
            raise link.ended or _not_connected()
        return link


def _not_connected() -> VoiceClosed:
    return VoiceClosed("not connected: call connect() first", close_code=1000)


def _now_ms() -> int:
    return int(asyncio.get_running_loop().time() * 1000)
