"""A free-running Realtime server session: hears speech by its energy, answers with a tone.

It behaves as the real thing and understands nothing: turns are found in the appended sound, speech
interrupts, one response at a time, sound is generated faster than it plays, truncating beyond the
end is an error. `tests.fakes.voice` puts it behind a websocket.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.realtime import events as ev
from app.realtime.events import ClientEvent, Item, Response, ResponseStatus, ServerEvent
from audio.format import PCM16_24K, AudioFormat, Encoding
from audio.g711 import decode_alaw, decode_ulaw, encode_alaw, encode_ulaw
from audio.level import level_dbfs

__all__ = ["FreeSession", "Reply", "Speech", "tone"]

Speech = Callable[[str], Awaitable[bytes]]
"""Says a text: PCM16 at 24 kHz."""

FRAME_MS: Final = 20
LOUD_DBFS: Final = -45.0
ONSET_FRAMES: Final = 3  # 60 ms of loud sound is speech
USAGE: Final = ev.Usage(
    total_tokens=300,
    input_tokens=200,
    output_tokens=100,
    input_text_tokens=120,
    input_audio_tokens=80,
    cached_tokens=64,
    cached_text_tokens=64,
    output_text_tokens=20,
    output_audio_tokens=80,
)


def _decode(sound: bytes, wire: AudioFormat) -> NDArray[np.int16]:
    if wire.encoding is Encoding.PCM16:
        return np.frombuffer(sound, dtype="<i2")
    return decode_ulaw(sound) if wire.encoding is Encoding.PCMU else decode_alaw(sound)


def tone(wire: AudioFormat, ms: int, *, hz: int = 440, dbfs: float = -20.0) -> bytes:
    """A sine in a wire format: what the fake says, and what a test may say to it."""
    count = wire.rate_hz * ms // 1000
    peak = 32767 * 10 ** (dbfs / 20) * math.sqrt(2)
    wave = peak * np.sin(2 * np.pi * hz / wire.rate_hz * np.arange(count))
    samples = wave.astype(np.int16)
    if wire.encoding is Encoding.PCM16:
        return bytes(samples.astype("<i2").tobytes())
    return encode_ulaw(samples) if wire.encoding is Encoding.PCMU else encode_alaw(samples)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The fake's answer to one turn.

    `chunk_pause_s` between chunks of `chunk_ms` paces the generation; `hold_after_ms` stops it
    there until the response is cancelled or `FreeSession.release` is called. `close_after_ms`
    closes the websocket at that point with `close_code`. `error_code` fails the response without
    a sound. `dbfs` is how loud it speaks. `never_starts` leaves the request unanswered. `reads` is
    what it says in place of a text that it is to say.
    """

    audio_ms: int = 600
    text: str = "This is the answer."
    reads: str = ""
    chunk_ms: int = 100
    chunk_pause_s: float = 0.0
    hold_after_ms: int | None = None
    close_after_ms: int | None = None
    close_code: int = 1011
    error_code: str | None = None
    tool: tuple[str, str] | None = None  # name, arguments; called after the speech
    never_starts: bool = False
    dbfs: float = -20.0


@dataclass(slots=True)
class _Running:
    """The response being generated."""

    id: str
    item_id: str
    metadata: Mapping[str, str]
    cancelled: str | None = None
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class _SpeechDetector:
    """Finds speech in the sound that was appended."""

    def __init__(self) -> None:
        self.heard_ms = 0
        self.speaking = False
        self._rest = b""
        self._loud = 0
        self._quiet_ms = 0

    def push(self, sound: bytes, wire: AudioFormat, silence_ms: int) -> list[str]:
        """`"started"` and `"stopped"` in the order in which they happen."""
        found = []
        step = wire.ms_to_bytes(FRAME_MS)
        self._rest += sound
        while len(self._rest) >= step:
            frame, self._rest = self._rest[:step], self._rest[step:]
            self.heard_ms += FRAME_MS
            loud = level_dbfs(_decode(frame, wire)) > LOUD_DBFS
            self._loud = self._loud + 1 if loud else 0
            self._quiet_ms = 0 if loud else self._quiet_ms + FRAME_MS
            if not self.speaking and self._loud >= ONSET_FRAMES:
                self.speaking = True
                found.append("started")
            elif self.speaking and self._quiet_ms >= silence_ms:
                self.speaking = False
                found.append("stopped")
        return found


class FreeSession:
    """One conversation. `emit` is handed every event in order; `close` ends the connection."""

    def __init__(
        self,
        replies: Sequence[Reply],
        emit: Callable[[ServerEvent], None],
        close: Callable[[int], None],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        *,
        confirm: Mapping[str, Any],
        heard: Sequence[str | None],
        speech: Speech | None = None,
        first_id: int = 1,
    ) -> None:
        self._speech = speech
        self.session = ev.SessionConfig(
            id="sess_fake",
            model="fake-realtime",
            output_modalities=("audio",),
            instructions="",
            input_format=PCM16_24K,
            output_format=PCM16_24K,
            voice="marin",
            turn_detection=ev.ServerVad(),
            transcription=None,
            tools=(),
        )
        self._replies = itertools.chain(replies, itertools.repeat(replies[-1]))
        self._heard = itertools.chain(heard, itertools.repeat(heard[-1]))
        self.asides: Iterator[str] = itertools.repeat("ALLOW")
        """The answer to what is asked out of band."""
        self._emit = emit
        self._close = close
        self._spawn = spawn
        self._confirm = confirm
        self._speech_detector = _SpeechDetector()
        self._ids = itertools.count(first_id)
        self._running: _Running | None = None
        self._spoken_ms: dict[str, int] = {}
        self._uncommitted = 0
        self._turn_item = ""
        self._answers_next = False

    def open(self) -> None:
        self._emit(ev.SessionCreated(self.session))
        self._emit(ev.ConversationCreated("conv_fake"))

    def release(self) -> None:
        """Let a response go on that `Reply.hold_after_ms` holds."""
        if self._running is not None:
            self._running.wake.set()

    def take(self, event: ClientEvent) -> None:
        """Do what the client asks."""
        match event:
            case ev.SessionUpdate(session=asked):
                self._update(asked)
            case ev.InputAudioAppend(audio=sound):
                self._hear(sound)
            case ev.InputAudioCommit():
                self._commit(event.event_id)
            case ev.InputAudioClear():
                self._uncommitted = 0
                self._emit(ev.InputAudioCleared())
            case ev.ItemCreate(item=item):
                made = replace(item, id=item.id or self._new("item"), status="completed")
                self._emit(ev.ItemAdded(made))
                self._emit(ev.ItemDone(made))
            case ev.ItemDelete(item_id=item_id):
                self._emit(ev.ItemDeleted(item_id))
            case ev.ItemTruncate():
                self._truncate(event)
            case ev.ResponseCreate(response=config):
                self._respond(config, event.event_id)
            case ev.ResponseCancel():
                if not self._cancel("client_cancelled"):
                    self._fail("response_cancel_not_active", event.event_id)
            case _:
                self._fail("unknown_event", getattr(event, "event_id", None))

    def _new(self, kind: str) -> str:
        return f"{kind}_{next(self._ids)}"

    def _fail(self, code: str, event_id: str | None, message: str = "") -> None:
        self._emit(
            ev.ErrorEvent(
                ev.ErrorDetail(
                    type="invalid_request_error",
                    code=code,
                    message=message or code,
                    client_event_id=event_id,
                )
            )
        )

    def _update(self, asked: ev.SessionConfig) -> None:
        changed = {**_settings(self.session), **_settings(asked), **self._confirm}
        self.session = ev.SessionConfig(**{**changed, "id": "sess_fake", "model": "fake-realtime"})
        self._emit(ev.SessionUpdated(self.session))

    # The caller's turn

    def _hear(self, sound: bytes) -> None:
        self._uncommitted += len(sound)
        wire = self.session.input_format
        detection = self.session.turn_detection
        assert isinstance(wire, AudioFormat)
        if not isinstance(detection, ev.ServerVad | ev.SemanticVad):
            return
        silence_ms = detection.silence_duration_ms if isinstance(detection, ev.ServerVad) else 500
        for found in self._speech_detector.push(sound, wire, silence_ms):
            if found == "started":
                self._turn_item = self._new("item")
                self._emit(ev.SpeechStarted(self._turn_item, self._speech_detector.heard_ms))
                if detection.interrupt_response:
                    self._cancel("turn_detected")
            else:
                self._emit(ev.SpeechStopped(self._turn_item, self._speech_detector.heard_ms))
                self._end_turn(self._turn_item)
                if detection.create_response:
                    self._respond(None, None)

    def _commit(self, event_id: str) -> None:
        if not self._uncommitted:
            self._fail("input_audio_buffer_commit_empty", event_id)
            return
        self._end_turn(self._new("item"))

    def _end_turn(self, item_id: str) -> None:
        self._uncommitted = 0
        self._emit(ev.InputAudioCommitted(item_id))
        item = Item(
            type="message",
            id=item_id,
            role="user",
            status="completed",
            content=(ev.ContentPart(type="input_audio"),),
        )
        self._emit(ev.ItemAdded(item))
        self._emit(ev.ItemDone(item))
        if not self.session.transcription:
            return
        text = next(self._heard)
        if text is None:
            error = ev.ErrorDetail(type="transcription_error", code="audio_unintelligible")
            self._emit(ev.TranscriptionFailed(item_id, 0, error))
            return
        self._emit(ev.TranscriptionDelta(item_id, 0, text))
        self._emit(ev.TranscriptionCompleted(item_id, 0, text, seconds=1.0))

    # The agent's turn

    def _respond(self, config: ev.ResponseConfig | None, event_id: str | None) -> None:
        if (
            config is not None
            and config.conversation == "none"
            and config.output_modalities != ("audio",)
        ):
            self._answer_beside(config)
            return
        if self._running is not None and self._running.cancelled is not None and not event_id:
            self._answers_next = True  # the turn ended before the interrupted response did
            return
        if self._running is not None:
            self._fail("conversation_already_has_active_response", event_id)
            return
        reply = next(self._replies)
        if reply.never_starts:
            return
        running = _Running(self._new("resp"), self._new("item"), dict(_metadata(config)))
        self._running = running
        self._spawn(self._generate(reply, running))

    def _answer_beside(self, config: ev.ResponseConfig) -> None:
        """A response out of band, in text: it may run beside another one."""
        part = ev.ContentPart(type="output_text", text=next(self.asides))
        item = Item(type="message", id=self._new("item"), role="assistant", content=(part,))
        beside = Response(
            id=self._new("resp"), status=ResponseStatus.IN_PROGRESS, metadata=_metadata(config)
        )
        self._emit(ev.ResponseCreated(beside))
        done = replace(beside, status=ResponseStatus.COMPLETED, output=(item,), usage=USAGE)
        self._emit(ev.ResponseDone(done))

    def _cancel(self, reason: str) -> bool:
        if self._running is None:
            return False
        self._running.cancelled = reason
        self._running.wake.set()
        return True

    async def _generate(self, reply: Reply, running: _Running) -> None:
        in_progress = Response(
            id=running.id,
            status=ResponseStatus.IN_PROGRESS,
            conversation_id="conv_fake",
            metadata=running.metadata,
        )
        self._emit(ev.ResponseCreated(in_progress))
        self._emit(ev.RateLimitsUpdated((ev.RateLimit("tokens", 40_000, 39_000, 0.5),)))
        if reply.error_code is not None:
            error = ev.ErrorDetail(type="server_error", code=reply.error_code)
            self._finish(replace(in_progress, status=ResponseStatus.FAILED, error=error))
            return
        speech = await self._speak(reply, running)
        if running.cancelled is not None:
            status, reason = ResponseStatus.CANCELLED, running.cancelled
            done = replace(in_progress, status=status, status_reason=reason, output=(speech,))
            self._finish(replace(done, usage=USAGE))
            return
        output = (speech, *self._call_tool(reply, running))
        done = replace(in_progress, status=ResponseStatus.COMPLETED, output=output, usage=USAGE)
        self._finish(done)

    def _finish(self, response: Response) -> None:
        self._running = None
        self._emit(ev.ResponseDone(response))
        if self._answers_next:
            self._answers_next = False
            self._respond(None, None)

    async def _speak(self, reply: Reply, running: _Running) -> Item:
        """Generate the spoken item: sound in chunks, and the words along with it."""
        place = (running.id, running.item_id, 0, 0)
        text = reply.reads or running.metadata.get(ev.SAY_METADATA_KEY, reply.text)
        item = Item(type="message", id=running.item_id, role="assistant", status="in_progress")
        self._emit(ev.OutputItemAdded(running.id, 0, item))
        self._emit(ev.ItemAdded(item))
        self._emit(ev.ContentPartAdded(*place, ev.ContentPart(type="audio", transcript="")))
        words = [word + " " for word in text.split()]
        wire = self.session.output_format
        assert isinstance(wire, AudioFormat)
        if self._speech is None:
            sound = tone(wire, reply.audio_ms, dbfs=reply.dbfs)
        else:
            assert wire == PCM16_24K
            sound = await self._speech(text)
        step = wire.ms_to_bytes(reply.chunk_ms)
        for start in range(0, len(sound), step):
            at_ms = start // wire.ms_to_bytes(1)
            if words:
                self._emit(ev.AudioTranscriptDelta(*place, words.pop(0)))
            self._emit(ev.AudioDelta(*place, sound[start : start + step]))
            self._spoken_ms[running.item_id] = at_ms + reply.chunk_ms
            await self._pace(reply, running, at_ms + reply.chunk_ms)
            if running.cancelled is not None:
                break
        if running.cancelled is None:
            for word in words:
                self._emit(ev.AudioTranscriptDelta(*place, word))
        self._emit(ev.AudioDone(*place))
        self._emit(ev.AudioTranscriptDone(*place, text))
        part = ev.ContentPart(type="output_audio", transcript=text)
        self._emit(ev.ContentPartDone(*place, ev.ContentPart(type="audio", transcript=text)))
        status = "completed" if running.cancelled is None else "incomplete"
        spoken = replace(item, status=status, content=(part,))
        self._emit(ev.OutputItemDone(running.id, 0, spoken))
        self._emit(ev.ItemDone(spoken))
        return spoken

    async def _pace(self, reply: Reply, running: _Running, at_ms: int) -> None:
        if at_ms == reply.close_after_ms:
            self._close(reply.close_code)
            await asyncio.Event().wait()  # until the connection's tasks are cancelled
        if at_ms == reply.hold_after_ms:
            await running.wake.wait()
        # Also without a pause others get their turn: a cancel has to arrive.
        await asyncio.sleep(reply.chunk_pause_s)

    def _call_tool(self, reply: Reply, running: _Running) -> tuple[Item, ...]:
        if reply.tool is None:
            return ()
        name, arguments = reply.tool
        item = Item(
            type="function_call",
            id=self._new("item"),
            status="completed",
            call_id=self._new("call"),
            name=name,
            arguments=arguments,
        )
        assert item.id is not None
        assert item.call_id is not None
        started = replace(item, status="in_progress", arguments="")
        self._emit(ev.OutputItemAdded(running.id, 1, started))
        self._emit(ev.ItemAdded(started))
        place = (running.id, item.id, 1, item.call_id)
        self._emit(ev.FunctionArgumentsDelta(*place, arguments))
        self._emit(ev.FunctionArgumentsDone(*place, name, arguments))
        self._emit(ev.OutputItemDone(running.id, 1, item))
        self._emit(ev.ItemDone(item))
        return (item,)

    def _truncate(self, event: ev.ItemTruncate) -> None:
        spoken_ms = self._spoken_ms.get(event.item_id)
        if spoken_ms is None:
            self._fail("item_truncate_invalid_item_id", event.event_id)
        elif event.audio_end_ms > spoken_ms:
            message = f"Audio content of {spoken_ms}ms is already shorter than {event.audio_end_ms}"
            self._fail("invalid_value", event.event_id, message)
        else:
            self._spoken_ms[event.item_id] = event.audio_end_ms
            self._emit(ev.ItemTruncated(event.item_id, 0, event.audio_end_ms))


def _settings(session: ev.SessionConfig) -> dict[str, Any]:
    values = {f.name: getattr(session, f.name) for f in fields(session)}
    return {name: value for name, value in values.items() if value is not ev.UNSET}


def _metadata(config: ev.ResponseConfig | None) -> Mapping[str, str]:
    if config is None or isinstance(config.metadata, ev.Unset):
        return {}
    return config.metadata
