"""One client of the engine: an `EngineSession` over a transport, with the work that it asks for.

One task owns the session and is the only one to touch it; the reader, the speech and the hearing
tasks hand it their results through one bounded queue. All of them live in one `TaskGroup`, and
nothing of a connection is left when `run` returns.

Speech is made as fast as it can be, as on OpenAI's server, until `SPEECH_MARK_BYTES` wait to be
sent; then it pauses. A client that does not read at all stops being read at `READ_MARK_BYTES`.

Voice activity runs in a small pool of threads that all sessions share. Measured with 8 sessions of
20 ms frames on two cores: the event loop's p99 gap is 1-3 ms with the pool and 4-5 ms without,
for a tenth more CPU (the detector lets go of the GIL).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, assert_never, runtime_checkable

from app.engine.actions import (
    AbandonHearing,
    Action,
    FeedTurn,
    FinishHearing,
    Generate,
    KeepAudio,
    KeepText,
    Listen,
    Note,
    Prepare,
    ResetVad,
    Send,
    Speak,
    StopSpeaking,
    TakeAudio,
)
from app.engine.base import Heard, Hearing, PartialHearing, Recognizer, Responder, Synthesizer
from app.engine.chain import Chain, Filler
from app.engine.engine_session import EngineSession
from app.engine.speculation import Speculation
from app.engine.stages.base import TextUsage, ToolCall
from app.engine.turns import Edge
from app.errors import VoiceClosed, VoiceUnavailable
from app.realtime.connection import Transport
from app.realtime.dialect import GA, Dialect
from app.realtime.events import STAGES_METADATA_KEY, ServerVad
from app.realtime.fields import MalformedEvent
from app.realtime.protocol import RealtimeProtocol, Side
from app.threads import in_thread
from audio.format import PCM16_16K
from audio.transcoder import Transcoder

__all__ = ["EngineParts", "SessionHost", "SpeechDetector", "Startable"]

logger = logging.getLogger(__name__)

SPEECH_MARK_BYTES: Final = 256 * 1024
"""About 4 s of PCM16 at 24 kHz as base64."""
READ_MARK_BYTES: Final = 4 * 1024 * 1024
SLICE_MS: Final = 100
"""Appended audio is looked at in pieces: one large append must not hold up the session's peers."""
INBOX_STEPS: Final = 32
_LIKELY_ENDS: Final = 3
"""Of one turn: each costs a transcript, and often the beginning of an answer."""


@runtime_checkable
class Startable(Protocol):
    """A part that owns processes, connections or other resources."""

    async def start(self) -> None: ...
    async def close(self) -> None: ...


class SpeechDetector(Protocol):
    """Finds where speech starts and ends: int16 mono PCM at 16 kHz in, edges out."""

    @property
    def quiet_ms(self) -> int:
        """The silence so far in the turn that goes on; 0 while the caller speaks, and between."""
        ...

    def push(self, pcm16: bytes) -> Iterable[Edge]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineParts:
    """The parts of a session. `keep_message` blocks and is called in a thread.

    `make_responder` is given the opening hours of the number that was called, in words, or "".
    `chain` writes and speaks the replies of sessions whose responder is a `ModelResponder`. After
    `likely_end_ms` of silence it begins with a reply that is dropped when the caller goes on; 0:
    never.
    """

    recognizer: Recognizer
    synthesizer: Synthesizer
    make_responder: Callable[[str], Responder]
    make_vad: Callable[[ServerVad], SpeechDetector]
    keep_message: Callable[[str, bytes | str], Path] | None = None
    chain: Chain | None = None
    likely_end_ms: int = 0
    owned: tuple[Startable, ...] = ()
    """Parts behind the others that have to be started and closed."""


Step = Callable[[], list[Action]]
"""Something that happened, as a call of the session."""


class SessionHost:
    """Runs one session until its client leaves or `stop` is called."""

    def __init__(
        self,
        session: EngineSession,
        parts: EngineParts,
        transport: Transport,
        threads: Executor,
        dialect: Dialect = GA,
        model: str = "",
    ) -> None:
        self._session = session
        self._model = model
        self._parts = parts
        self._threads = threads
        self._outbox = _Outbox(transport)
        self._transport = transport
        self._protocol = RealtimeProtocol(Side.SERVER, dialect)
        self._inbox: asyncio.Queue[Step] = asyncio.Queue(INBOX_STEPS)
        self._over = asyncio.Event()
        self._input = _SpeechInput(parts)
        self._speech: dict[str, asyncio.Task[None]] = {}
        self._reports: list[asyncio.Task[None]] = []
        self._noted: set[str] = set()
        self._stt_ms: int | None = None
        self._ahead = _Ahead(self, parts)
        filler = None if parts.chain is None else parts.chain.filler
        self._cover = None if filler is None else _Cover(filler, session, self._inbox)

    async def run(self) -> None:
        """Serve the client until it leaves."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._read()),
                    group.create_task(self._own(group)),
                    group.create_task(self._write()),
                ]
                await self._over.wait()
                working = [*self._input.tasks(), *self._ahead.tasks(), *self._reports]
                working += [] if self._cover is None else self._cover.tasks()
                for task in (*tasks, *self._speech.values(), *working):
                    task.cancel()
        finally:
            self._input.close()

    def stop(self) -> None:
        """End the session from outside."""
        self._over.set()

    async def _read(self) -> None:
        with contextlib.suppress(VoiceClosed):
            while True:
                text = await self._transport.receive()
                await self._inbox.put(self._read_step(text))
                await self._outbox.below(READ_MARK_BYTES)
        self._over.set()

    def _read_step(self, text: str) -> Step:
        try:
            event = self._protocol.receive(text)
        except MalformedEvent as error:
            wrong = error
            return lambda: self._session.on_malformed(
                wrong.code, wrong.message, param=wrong.param, event_id=wrong.event_id or ""
            )
        return lambda: self._session.on_client(event)

    async def _write(self) -> None:
        with contextlib.suppress(VoiceClosed):
            await self._outbox.drain()
        self._over.set()

    async def _own(self, group: asyncio.TaskGroup) -> None:
        await self._perform(self._session.start(self._model), group)
        while True:
            step = await self._inbox.get()
            await self._perform(step(), group)
            # A queue that is never empty never waits, and other calls share this loop.
            await asyncio.sleep(0)

    async def _perform(self, actions: list[Action], group: asyncio.TaskGroup) -> None:
        for action in actions:
            match action:
                case Send(event=event):
                    if self._protocol.dialect.can_spell(type(event)):  # beta lacks some
                        self._outbox.put(self._protocol.send(event))
                case TakeAudio(audio=audio):
                    await self._take_audio(audio, group)
                case ResetVad(settings=settings):
                    self._input.detect(settings)
                case Listen():
                    self._ahead.begin()
                    self._input.listen(action)
                    if self._cover is not None:
                        self._cover.on_turn(group)
                case FeedTurn(item_id=item_id, pcm16=pcm16):
                    self._input.feed(item_id, pcm16)
                case FinishHearing(item_id=item_id):
                    self._input.finish(item_id, group.create_task(self._hear(item_id)))
                    if self._cover is not None:
                        self._cover.on_turn_end(group)
                case AbandonHearing(item_id=item_id):
                    self._input.abandon(item_id)
                case Speak(response_id=response_id):
                    self._speech[response_id] = group.create_task(self._speak(action, group))
                case Generate(response_id=response_id):
                    self._speech[response_id] = group.create_task(self._generate(action))
                    if self._cover is not None and action.speaks:
                        self._cover.on_reply(group)
                case Prepare(generate=generate):
                    self._ahead.prepare(generate, group)
                case StopSpeaking(response_id=response_id):
                    task = self._speech.pop(response_id, None)
                    if task is not None:
                        task.cancel()
                case KeepAudio(item_id=item_id, pcm16=message) | KeepText(item_id, message):
                    group.create_task(self._keep(item_id, message, group))
                case Note():
                    self._note(action)
                case _:
                    assert_never(action)

    async def _take_audio(self, audio: bytes, group: asyncio.TaskGroup) -> None:
        step_bytes = self._session.input_format.ms_to_bytes(SLICE_MS)
        for start in range(0, len(audio), step_bytes):
            piece = audio[start : start + step_bytes]
            pcm16 = self._input.transcode(piece, self._session)
            edges = await self._input.look(pcm16, self._threads)
            await self._perform(self._session.on_audio(pcm16, edges), group)
            self._ahead.look(self._input, group)

    async def _hear(self, item_id: str) -> None:
        session = self._session
        began_s = asyncio.get_running_loop().time()
        try:
            heard = await self._input.heard(item_id)
            self._stt_ms = round((asyncio.get_running_loop().time() - began_s) * 1000)
        except VoiceUnavailable as error:
            failed = error
            logger.warning("turn not recognized", extra={"code": failed.code})
            await self._inbox.put(
                lambda: session.on_hearing_failed(item_id, failed.code, failed.message)
            )
        else:
            await self._inbox.put(lambda: session.on_heard(item_id, heard))

    async def hear_so_far(self, item_id: str) -> None:
        """Tell the session the words of a turn that may be about to end."""
        try:
            heard = await self._input.so_far(item_id)
        except VoiceUnavailable:
            return  # the end of the turn asks again, and says so
        if heard is not None:
            words = heard.transcript
            await self._inbox.put(lambda: self._session.on_heard_so_far(item_id, words))

    def drop(self, speculation: Speculation) -> list[Action]:
        """Tell the session of a reply that nobody will hear; by the owner of the session."""
        return self._session.on_dropped(speculation.usage)

    async def report_dropped(self, speculation: Speculation) -> None:
        """As `drop`, by another task."""
        await self._inbox.put(lambda: self.drop(speculation))

    async def _speak(self, speak: Speak, group: asyncio.TaskGroup) -> None:
        session, response_id = self._session, speak.response_id
        speech = self._parts.synthesizer.speak(speak.text, voice=speak.voice, speed=speak.speed)
        try:
            async with contextlib.aclosing(speech):
                async for chunk in speech:
                    await self._outbox.below(SPEECH_MARK_BYTES)
                    await self._inbox.put(_speech_step(session, response_id, chunk))
        except VoiceUnavailable as error:
            failed = error
            logger.warning("speech not made", extra={"code": failed.code})
            await self._inbox.put(
                lambda: session.on_speech_failed(response_id, failed.code, failed.message)
            )
        else:
            await self._inbox.put(lambda: session.on_speech_end(response_id))
            if self._cover is not None:
                self._cover.prepare(group)  # behind the greeting, which comes first
        self._speech.pop(response_id, None)

    async def _generate(self, generate: Generate) -> None:
        session, response_id = self._session, generate.response_id
        assert self._parts.chain is not None, "a session of a text model without a chain"
        stt_ms, self._stt_ms = self._stt_ms, None
        reports = _ReplyReports(session, response_id, self._inbox, self._outbox, stt_ms)
        try:
            if not await self._ahead.release(generate, reports):
                await self._parts.chain.run(generate, reports)
        except VoiceUnavailable as error:
            failed = error
            logger.warning("reply not made", extra={"code": failed.code, "reason": failed.message})
            await self._inbox.put(
                lambda: session.on_speech_failed(response_id, failed.code, failed.message)
            )
        self._speech.pop(response_id, None)

    async def _keep(self, item_id: str, message: bytes | str, group: asyncio.TaskGroup) -> None:
        kept = self._parts.keep_message is not None and await self._kept(item_id, message)
        # The message outlives the session; the word of it does not.
        if not self._over.is_set():
            report = self._inbox.put(lambda: self._session.on_kept(item_id, kept))
            self._reports.append(group.create_task(report))

    async def _kept(self, item_id: str, message: bytes | str) -> bool:
        assert self._parts.keep_message is not None
        try:
            path = await in_thread(partial(self._parts.keep_message, item_id, message))
        except OSError as error:
            logger.error("message not kept", extra={"item_id": item_id, "errno": error.errno})
            return False
        ms = PCM16_16K.bytes_to_ms(len(message)) if isinstance(message, bytes) else 0
        logger.info("message kept", extra={"path": str(path), "duration_ms": ms})
        return True

    def _note(self, note: Note) -> None:
        if note.kind in self._noted:
            return
        self._noted.add(note.kind)
        # The banner says it once; at INFO it would stand in every call's log.
        logger.debug(
            "offline demo cannot do what the session asks", extra={"what": note.kind.value}
        )


class _Ahead:
    """The work that a likely end of the open turn begins: its words, and the reply to them."""

    def __init__(self, host: SessionHost, parts: EngineParts) -> None:
        self._host = host
        self._parts = parts
        self._hearing: asyncio.Task[None] | None = None
        self._speculation: Speculation | None = None
        self._reply: asyncio.Task[VoiceUnavailable | None] | None = None
        self._tries = 0

    def tasks(self) -> list[asyncio.Task[Any]]:
        return [task for task in (self._hearing, self._reply) if task is not None]

    def begin(self) -> None:
        """Another turn begins."""
        self._drop()
        self._tries = 0

    def look(self, speech: _SpeechInput, group: asyncio.TaskGroup) -> None:
        """Begin when the caller falls silent, and drop what was begun when they go on."""
        item_id, after_ms = speech.open, self._parts.likely_end_ms
        if item_id is None or not after_ms:
            return
        if speech.quiet_ms == 0:
            if self._hearing is not None:
                speech.go_on(item_id)
            self._drop()
        elif speech.quiet_ms >= after_ms and self._hearing is None and self._tries < _LIKELY_ENDS:
            self._tries += 1
            self._hearing = group.create_task(self._host.hear_so_far(item_id))

    def prepare(self, generate: Generate, group: asyncio.TaskGroup) -> None:
        """Begin the reply; the caller may have gone on meanwhile."""
        chain = self._parts.chain
        if self._hearing is not None and self._speculation is None and chain is not None:
            self._speculation = Speculation(chain, generate)
            self._reply = group.create_task(self._speculation.run())

    async def release(self, generate: Generate, reports: _ReplyReports) -> bool:
        """Report the reply that was begun, to its end; False where there is none that fits.

        Raises:
            VoiceUnavailable: the model or the voice failed.
        """
        speculation, reply = self._speculation, self._reply
        self._speculation = self._reply = None
        if speculation is None or reply is None:
            return False
        try:
            failed = reply.done() and reply.result() is not None
            if not speculation.fits(generate) or failed:
                await self._host.report_dropped(speculation)
                return False
            await speculation.release(reports)
            if (error := await reply) is not None:
                raise error
            return True
        finally:
            reply.cancel()

    def _drop(self) -> None:
        for task in self.tasks():
            task.cancel()
        if self._speculation is not None:
            self._host.drop(self._speculation)
        self._hearing = self._speculation = self._reply = None


class _Cover:
    """The clock of a filler, from the end of the caller's turn to the sound of the answer."""

    def __init__(self, filler: Filler, session: EngineSession, inbox: asyncio.Queue[Step]) -> None:
        self._filler = filler
        self._session = session
        self._inbox = inbox
        self._due_s: float | None = None
        self._making: asyncio.Task[Sequence[bytes]] | None = None
        self._saying: asyncio.Task[None] | None = None

    def tasks(self) -> list[asyncio.Task[Any]]:
        return [task for task in (self._making, self._saying) if task is not None]

    def prepare(self, group: asyncio.TaskGroup) -> None:
        """Have the sound made, so that it is there when the voice is late."""
        if self._making is None or self._making.done():
            self._making = group.create_task(self._make())

    def on_turn(self, group: asyncio.TaskGroup) -> None:
        """The caller speaks."""
        self._due_s = None
        if self._saying is not None:
            self._saying.cancel()
        self.prepare(group)

    def on_turn_end(self, group: asyncio.TaskGroup) -> None:
        """The caller waits from now on."""
        self._due_s = self._after()
        self._begin(self._due_s, group)

    def on_reply(self, group: asyncio.TaskGroup) -> None:
        """A reply begins: to a turn that has just ended, or the wait for it begins here."""
        due_s, self._due_s = self._due_s, None
        self._begin(self._after() if due_s is None else due_s, group)

    def _after(self) -> float:
        return asyncio.get_running_loop().time() + self._filler.after_s

    def _begin(self, due_s: float, group: asyncio.TaskGroup) -> None:
        if self._saying is not None:
            self._saying.cancel()
        self._saying = group.create_task(self._say(due_s))

    async def _say(self, due_s: float) -> None:
        await asyncio.sleep(due_s - asyncio.get_running_loop().time())
        text, chunks = self._filler.text, await self._make()
        await self._inbox.put(lambda: self._session.on_late(text, chunks))

    async def _make(self) -> Sequence[bytes]:
        config = self._session.config
        assert isinstance(config.voice, str) and isinstance(config.speed, (int, float))
        try:
            return await self._filler.sound(voice=config.voice, speed=config.speed)
        except VoiceUnavailable:
            return ()  # the answer meets the same, and says so


class _SpeechInput:
    """The path from the client's bytes to recognized speech: transcoder, detector, hearings."""

    def __init__(self, parts: EngineParts) -> None:
        self._parts = parts
        self._transcoder: Transcoder | None = None
        self._detector: SpeechDetector | None = None
        self._hearings: dict[str, Hearing] = {}
        self.open: str | None = None
        """The turn that the caller is speaking."""
        self._finishing: dict[str, asyncio.Task[None]] = {}

    def tasks(self) -> list[asyncio.Task[None]]:
        return list(self._finishing.values())

    def transcode(self, audio: bytes, session: EngineSession) -> bytes:
        if self._transcoder is None or self._transcoder.src != session.input_format:
            self._transcoder = Transcoder(session.input_format, PCM16_16K)
        return self._transcoder.push(audio)

    def detect(self, settings: ServerVad | None) -> None:
        self._detector = None if settings is None else self._parts.make_vad(settings)

    @property
    def quiet_ms(self) -> int:
        return 0 if self._detector is None else self._detector.quiet_ms

    async def look(self, pcm16: bytes, threads: Executor) -> Iterable[Edge]:
        detector = self._detector
        if detector is None or not pcm16:
            return ()
        return await asyncio.get_running_loop().run_in_executor(threads, detector.push, pcm16)

    def listen(self, turn: Listen) -> None:
        hearing = self._parts.recognizer.listen(turn.context, turn.languages)
        self._hearings[turn.item_id] = hearing
        self.open = turn.item_id

    def feed(self, item_id: str, pcm16: bytes) -> None:
        self._hearings[item_id].push(pcm16)

    def finish(self, item_id: str, task: asyncio.Task[None]) -> None:
        self._finishing[item_id] = task
        self.open = None

    async def so_far(self, item_id: str) -> Heard | None:
        hearing = self._hearings[item_id]
        return await hearing.so_far() if isinstance(hearing, PartialHearing) else None

    def go_on(self, item_id: str) -> None:
        hearing = self._hearings[item_id]
        if isinstance(hearing, PartialHearing):
            hearing.go_on()

    async def heard(self, item_id: str) -> Heard:
        try:
            return await self._hearings[item_id].finish()
        finally:
            self._hearings.pop(item_id).abandon()
            self._finishing.pop(item_id, None)

    def abandon(self, item_id: str) -> None:
        self.open = None
        self._hearings.pop(item_id).abandon()

    def close(self) -> None:
        for hearing in self._hearings.values():
            hearing.abandon()
        self._hearings.clear()


class _Outbox:
    """Texts on their way to the client, counted."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._texts: deque[str] = deque()
        self._waiting_bytes = 0
        self._changed = asyncio.Event()

    def put(self, text: str) -> None:
        self._texts.append(text)
        self._waiting_bytes += len(text)
        self._changed.set()

    async def below(self, mark_bytes: int) -> None:
        """Wait while more than this is unsent."""
        while self._waiting_bytes > mark_bytes:
            self._changed.clear()
            await self._changed.wait()

    async def drain(self) -> None:
        """Send whatever comes, for ever.

        Raises:
            VoiceClosed: the client is gone.
        """
        while True:
            while not self._texts:
                self._changed.clear()
                await self._changed.wait()
            text = self._texts.popleft()
            await self._transport.send(text)
            self._waiting_bytes -= len(text)
            self._changed.set()


class _ReplyReports:
    """Hands what a chain makes to the session."""

    def __init__(
        self,
        session: EngineSession,
        response_id: str,
        inbox: asyncio.Queue[Step],
        outbox: _Outbox,
        stt_ms: int | None,
    ) -> None:
        self._session = session
        self._response_id = response_id
        self._inbox = inbox
        self._outbox = outbox
        self._stt_ms = stt_ms

    async def words(self, text: str) -> None:
        await self._inbox.put(lambda: self._session.on_words(self._response_id, text))

    async def spoken(self, text: str, written: str) -> None:
        await self._inbox.put(lambda: self._session.on_words(self._response_id, text, written))

    async def sound(self, pcm16: bytes) -> None:
        await self._outbox.below(SPEECH_MARK_BYTES)
        await self._inbox.put(_speech_step(self._session, self._response_id, pcm16))

    async def used(self, usage: TextUsage) -> None:
        await self._inbox.put(lambda: self._session.on_used(self._response_id, usage))

    async def done(self, calls: Sequence[ToolCall], stages: Mapping[str, int]) -> None:
        heard = {} if self._stt_ms is None else {"stt": self._stt_ms}
        times = " ".join(f"{stage}={ms}" for stage, ms in {**heard, **stages}.items())
        metadata = {STAGES_METADATA_KEY: times} if times else {}
        await self._inbox.put(
            lambda: self._session.on_generated(self._response_id, calls, metadata)
        )


def _speech_step(session: EngineSession, response_id: str, chunk: bytes) -> Step:
    return lambda: session.on_speech(response_id, chunk)
