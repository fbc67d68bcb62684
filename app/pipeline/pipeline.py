"""`VoicePipeline`: speech to text, a workflow, text to speech, with events as they come.

    pipeline = VoicePipeline(SimpleWorkflow(lambda text: f"You said: {text}"), stt, tts)
    result = await pipeline.run(AudioInput(samples))
    async for event in result.stream():
        ...

The names are those of OpenAI's Agents SDK. One turn is answered after the other, in order; sound
that comes meanwhile waits, within a bound. The last turn is answered also when the input ends in
the middle of it. A failure of any part is the last event; nothing of the pipeline is left behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

import numpy as np

from app.engine.base import Hearing
from app.engine.host import SpeechDetector
from app.engine.items import Span, heard_of
from app.engine.speech.vad import VoiceActivity
from app.engine.stages.base import SpeechToText, TextToSpeech
from app.engine.stages.fallback import Recognizers, Voices
from app.engine.stages.markdown import SpokenPieces
from app.engine.turns import CallerInput, TurnAudio, TurnClosed, TurnOpened
from app.errors import AppError, ConfigError
from app.pipeline.events import (
    VoiceStreamEvent,
    VoiceStreamEventAudio,
    VoiceStreamEventError,
    VoiceStreamEventLifecycle,
)
from app.pipeline.inputs import AudioInput, StreamedAudioInput
from app.pipeline.openai import NO_SPEECH, STT_MODEL, openai_server, openai_speech
from app.pipeline.spans import span
from app.pipeline.workflows import VoiceWorkflow
from app.realtime.events import DEFAULT_TURN_DETECTION, ServerVad
from app.threads import in_thread
from audio.format import PCM16_24K

__all__ = ["StreamedAudioResult", "VoicePipeline", "VoicePipelineConfig"]

_EVENTS: Final = 64
"""Events that may wait for their reader; then the voice waits."""
_TURNS: Final = 8
_MAX_TURN_MS: Final = 60_000


def _silero(settings: ServerVad) -> SpeechDetector:
    return VoiceActivity(
        threshold=settings.threshold,
        silence_duration_ms=settings.silence_duration_ms,
        prefix_padding_ms=settings.prefix_padding_ms,
        max_turn_ms=_MAX_TURN_MS,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class VoicePipelineConfig:
    """The voice, and the detection of turns; `dtype` is that of the sound in events."""

    voice: str = "marin"
    speed: float = 1.0
    dtype: Literal["int16", "float32"] = "int16"
    turn_detection: ServerVad = DEFAULT_TURN_DETECTION
    make_detector: Callable[[ServerVad], SpeechDetector] = _silero


class VoicePipeline:
    """Answers sound with sound. It holds no state: each `run` is a session of its own."""

    def __init__(
        self,
        workflow: VoiceWorkflow,
        stt: SpeechToText | Sequence[SpeechToText] | None = None,
        tts: TextToSpeech | Sequence[TextToSpeech] | None = None,
        config: VoicePipelineConfig | None = None,
    ) -> None:
        """A stage that is not given is OpenAI's, with the key in `OPENAI_API_KEY`.

        Of several sides of a stage the next one takes over where one fails, or is silent for 1.5 s.

        Raises:
            ConfigError: a stage is not given, and there is no key.
        """
        self.workflow = workflow
        self.stt = Recognizers(stt) if isinstance(stt, Sequence) else stt
        self.tts = Voices(tts) if isinstance(tts, Sequence) else tts
        self.config = config or VoicePipelineConfig()
        if stt is None or tts is None:
            openai_server(STT_MODEL, NO_SPEECH)

    async def run(self, audio: AudioInput | StreamedAudioInput) -> StreamedAudioResult:
        """Begin to answer; the work goes on while `stream` of the result is read.

        Raises:
            ConfigError: `audio` is something else.
        """
        if not isinstance(audio, AudioInput | StreamedAudioInput):
            raise ConfigError(
                f"run takes an AudioInput or a StreamedAudioInput, and not {type(audio).__name__}: "
                "AudioInput.from_wav(content) makes one of a WAV file"
            )
        return StreamedAudioResult(self, audio)

    @asynccontextmanager
    async def stages(self) -> AsyncIterator[tuple[SpeechToText, TextToSpeech]]:
        """The stages of one session."""
        if self.stt is not None and self.tts is not None:
            yield self.stt, self.tts
            return
        async with openai_speech() as (stt, tts):
            yield self.stt or stt, self.tts or tts


class StreamedAudioResult:
    """The answer as it comes; `error` is what it failed by."""

    def __init__(self, pipeline: VoicePipeline, audio: AudioInput | StreamedAudioInput) -> None:
        self.error: Exception | None = None
        self._streamed = False
        self._pipeline = pipeline
        self._stt: SpeechToText
        self._tts: TextToSpeech
        self._events: asyncio.Queue[VoiceStreamEvent | None] = asyncio.Queue(_EVENTS)
        self._turn = _Turn()
        self._speaking: asyncio.Task[None] | None = None
        self._task = asyncio.create_task(self._run(audio), name="voice pipeline")

    async def stream(self) -> AsyncIterator[VoiceStreamEvent]:
        """Yield the events, once: of a second time there are none. Leaving early ends the work."""
        if self._streamed:
            return
        self._streamed = True
        try:
            while (event := await self._events.get()) is not None:
                if isinstance(event, VoiceStreamEventAudio):
                    self._turn.taken_samples += len(event.data)
                yield event
        finally:
            await self.close()

    async def interrupt(self, heard_ms: int | None = None) -> None:
        """Stop the turn that is being answered; the next one is answered as ever.

        Its sound that was not taken from `stream` is dropped. `heard_ms` is how much of the turn's
        sound was played; without it, all that was taken counts as played.
        """
        speaking, turn = self._speaking, self._turn
        if speaking is None or speaking.done():
            return
        speaking.cancel()
        await asyncio.wait([speaking])
        if turn.spans:
            self._drop_turn()
            await self._events.put(VoiceStreamEventLifecycle("turn_ended"))
        if (told := getattr(self._pipeline.workflow, "interrupted", None)) is not None:
            await told(turn.heard(heard_ms))
        turn.settled.set()

    async def close(self) -> None:
        """End the work."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def _drop_turn(self) -> None:
        """Take back the sound of the present turn; what was before it stays."""
        waiting = [self._events.get_nowait() for _ in range(self._events.qsize())]
        started = VoiceStreamEventLifecycle("turn_started")
        kept = len(waiting) - waiting[::-1].index(started) if started in waiting else 0
        for event in waiting[:kept]:
            self._events.put_nowait(event)

    async def _run(self, audio: AudioInput | StreamedAudioInput) -> None:
        try:
            try:
                async with self._pipeline.stages() as (self._stt, self._tts):
                    if isinstance(audio, AudioInput):
                        await self._answer_one(audio)
                    else:
                        await self._answer_turns(audio)
            finally:
                close = getattr(self._pipeline.workflow, "close", None)
                if close is not None:
                    await close()
            await self._events.put(VoiceStreamEventLifecycle("session_ended"))
        except Exception as error:  # the workflow is the user's code: whatever it raises is told
            self.error = error
            await self._events.put(VoiceStreamEventError(error))
        await self._events.put(None)

    async def _answer_one(self, audio: AudioInput) -> None:
        with span("stt"):
            text = await self._stt.transcribe(audio.pcm16_16k())
        if text.strip():
            await self._answer(self._pipeline.workflow.run(text))

    async def _answer_turns(self, audio: StreamedAudioInput) -> None:
        turns: asyncio.Queue[Hearing | None] = asyncio.Queue(_TURNS)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen(audio, turns))
                await self._answer(self._pipeline.workflow.on_start())
                while (turn := await turns.get()) is not None:
                    with span("stt"):
                        text = (await turn.finish()).transcript
                    turn.abandon()
                    if text.strip():
                        await self._answer(self._pipeline.workflow.run(text))
        except* Exception as failures:
            raise _first(failures) from None

    async def _listen(
        self, audio: StreamedAudioInput, turns: asyncio.Queue[Hearing | None]
    ) -> None:
        """Find the turns; one that the input's end cuts is a turn too."""
        config = self._pipeline.config
        detector = config.make_detector(config.turn_detection)
        caller = CallerInput(max_turn_ms=_MAX_TURN_MS)
        caller.detect(config.turn_detection)
        hearing: Hearing | None = None
        async with aclosing(audio.pcm16_16k()) as pieces:
            async for pcm16 in pieces:
                edges = await in_thread(partial(detector.push, pcm16))
                for step in caller.append(pcm16, edges):
                    match step:
                        case TurnOpened():
                            hearing = self._stt.open()
                        case TurnAudio(pcm16=sound):
                            assert hearing is not None
                            hearing.push(sound)
                        case TurnClosed():
                            await turns.put(hearing)
                            hearing = None
        if hearing is not None:
            await turns.put(hearing)
        await turns.put(None)

    async def _answer(self, words: AsyncIterator[str]) -> None:
        """Speak what a workflow says, unless the turn is interrupted."""
        turn = self._turn = _Turn()
        speaking = self._speaking = asyncio.create_task(self._speak(words), name="pipeline turn")
        try:
            await asyncio.wait([speaking])
            if speaking.cancelled():
                await turn.settled.wait()
            else:
                speaking.result()
        finally:
            self._speaking = None
            speaking.cancel()
            await asyncio.wait([speaking])

    async def _speak(self, words: AsyncIterator[str]) -> None:
        """Speak what a workflow says, a sentence at a time; without words there is no turn."""
        pieces = SpokenPieces()
        with span("workflow"):
            async with aclosing(words) if isinstance(words, AsyncGenerator) else nullcontext():
                async for more in words:
                    for piece in pieces.push(more):
                        await self._say(piece.spoken)
            for piece in pieces.flush():
                await self._say(piece.spoken)
        if self._turn.spans:
            await self._events.put(VoiceStreamEventLifecycle("turn_ended"))

    async def _say(self, sentence: str) -> None:
        with span("tts"):
            await self._pass_on(sentence)

    async def _pass_on(self, sentence: str) -> None:
        turn, begun = self._turn, False
        config = self._pipeline.config
        speech = self._tts.speak(sentence, voice=config.voice, speed=config.speed)
        async with aclosing(speech):
            async for chunk in speech:
                if not begun:
                    begun = True
                    if not turn.spans:
                        await self._events.put(VoiceStreamEventLifecycle("turn_started"))
                    turn.spans.append(Span(turn.made_ms, f" {sentence}", f" {sentence}"))
                samples = np.frombuffer(chunk, "<i2").astype(np.int16)
                if config.dtype == "float32":
                    scaled = (samples.astype(np.float32) / 32767.0).reshape(-1, 1)
                    await self._events.put(VoiceStreamEventAudio(scaled))
                else:
                    await self._events.put(VoiceStreamEventAudio(samples))
                turn.made_samples += len(samples)


class _Turn:
    """The sound of one turn: what was made, and taken by the reader of the events."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        """Each sentence, as it was spoken."""
        self.made_samples = 0
        self.taken_samples = 0
        self.settled = asyncio.Event()
        """An interruption of the turn has been told."""

    @property
    def made_ms(self) -> int:
        return self.made_samples * 1000 // PCM16_24K.rate_hz

    def heard(self, heard_ms: int | None) -> str:
        """The words in so much of its sound, by default in what was taken."""
        taken_ms = self.taken_samples * 1000 // PCM16_24K.rate_hz
        return heard_of(self.spans, taken_ms if heard_ms is None else heard_ms, self.made_ms)


def _first(failures: ExceptionGroup[Exception]) -> Exception:
    """The first failure; those of the library before those of anything else."""
    found: list[Exception] = []
    for failure in failures.exceptions:
        found.append(_first(failure) if isinstance(failure, ExceptionGroup) else failure)
    return next((one for one in found if isinstance(one, AppError)), found[0])
