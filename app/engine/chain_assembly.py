"""Construction of a chained engine from its stages, and of the local ones among them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.engine.chain import Chain
from app.engine.engine_session import SessionLimits
from app.engine.generation import ModelResponder
from app.engine.host import EngineParts, SpeechDetector, Startable
from app.engine.receptionist.script_file import DEFAULT_SCRIPT, load_script
from app.engine.server import Engine
from app.engine.speech.recognizer import PocketsphinxRecognizer
from app.engine.speech.synthesizer import WorkerSynthesizer
from app.engine.speech.vad import VoiceActivity
from app.engine.stages.base import SpeechToText, TextModel, TextToSpeech
from app.engine.stages.fallback import SWITCH_S, Recognizers, TextModels, Voices
from app.engine.stages.local import LocalTranscriber, LocalVoice
from app.realtime.events import ServerVad

__all__ = [
    "ChainStages",
    "make_chain_engine",
    "offline_speech",
    "offline_transcriber",
    "offline_voice",
]

_MIN_SPEECH_MS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainStages:
    """The servers of each stage, the first one tried first; `owned` parts live with the engine.

    The next one takes over from one that is silent for `switch_s`.
    """

    stt: Sequence[SpeechToText]
    llm: Sequence[TextModel]
    tts: Sequence[TextToSpeech]
    owned: Sequence[object] = ()
    switch_s: float = SWITCH_S


def make_chain_engine(
    stages: ChainStages,
    *,
    filler: str = "",
    filler_after_s: float = 1.5,
    min_speech_ms: int = _MIN_SPEECH_MS,
    likely_end_ms: int = 0,
    max_sessions: int = 50,
    make_detector: Callable[[ServerVad], SpeechDetector] | None = None,
) -> Engine:
    """Make an engine, not started yet. Its voice activity is Silero, unless one is given."""
    limits = SessionLimits()

    def silero(settings: ServerVad) -> VoiceActivity:
        return VoiceActivity(
            threshold=settings.threshold,
            silence_duration_ms=settings.silence_duration_ms,
            prefix_padding_ms=settings.prefix_padding_ms,
            min_speech_ms=min_speech_ms,
            max_turn_ms=limits.max_turn_ms,
        )

    voices = Voices(stages.tts, switch_s=stages.switch_s)
    chain = Chain(
        TextModels(stages.llm, switch_s=stages.switch_s),
        voices,
        filler=filler,
        filler_after_s=filler_after_s,
    )
    parts = EngineParts(
        recognizer=Recognizers(stages.stt, switch_s=stages.switch_s),
        synthesizer=voices,
        make_responder=lambda _hours: ModelResponder(),
        make_vad=make_detector or silero,
        chain=chain,
        likely_end_ms=likely_end_ms,
        owned=tuple(part for part in stages.owned if isinstance(part, Startable)),
    )
    return Engine(parts, max_sessions=max_sessions, limits=limits)


@asynccontextmanager
async def offline_speech(
    *, voice: str = "alloy", receptionist: Path | None = None
) -> AsyncIterator[tuple[LocalTranscriber, LocalVoice]]:
    """The offline recognizer and synthesizer as stages, for as long as the context lasts.

    The recognizer knows the words of the offline dialogue only.

    Raises:
        ConfigError: speech parts are not installed.
        VoiceUnavailable: they are not ready in time.
    """
    recognizer, transcriber = offline_transcriber(receptionist, workers=1)
    synthesizer, local = offline_voice(voice)
    async with AsyncExitStack() as stack:
        await recognizer.start()
        stack.push_async_callback(recognizer.close)
        await synthesizer.start()
        stack.push_async_callback(synthesizer.close)
        yield transcriber, local


def offline_transcriber(
    receptionist: Path | None, *, workers: int
) -> tuple[PocketsphinxRecognizer, LocalTranscriber]:
    """The offline recognizer, to be started, and its stage of the chain.

    Raises:
        ConfigError: the receptionist's file is wrong.
    """
    script = load_script(receptionist or DEFAULT_SCRIPT)
    recognizer = PocketsphinxRecognizer(
        script.grammar, pronunciations=script.pronunciations, workers=workers
    )
    return recognizer, LocalTranscriber(recognizer, script.start)


def offline_voice(voice: str) -> tuple[WorkerSynthesizer, LocalVoice]:
    """The offline synthesizer, to be started, and its stage of the chain."""
    synthesizer = WorkerSynthesizer(voices={voice: "pipeline.tts.voice"})
    return synthesizer, LocalVoice(synthesizer, voice=voice)
