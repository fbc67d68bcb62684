"""A chained engine over one stand-in server, with a loudness detector."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from app.engine.chain import Chain
from app.engine.generation import ModelResponder
from app.engine.host import EngineParts
from app.engine.server import Engine
from app.engine.stages.base import StageSpec
from app.engine.stages.fallback import Recognizers, TextModels, Voices
from app.engine.stages.text_models import ChatCompletions
from app.engine.stages.text_to_speech import HttpVoice
from app.engine.stages.transcriptions import HttpTranscriber
from app.http.streaming import StreamingHttp
from tests.fakes.engine_parts import LevelDetector
from tests.fakes.stage_servers import routed
from tests.fakes.web_service import Script, WebService

__all__ = ["ChainSite", "open_chain"]


class ChainSite:
    """The engine, and the server behind its stages."""

    def __init__(self, engine: Engine, server: WebService) -> None:
        self.engine = engine
        self.server = server

    def asked(self, path: str) -> list[Any]:
        """The requests to one endpoint."""
        return [asked for asked in self.server.asked if asked.target.endswith(path)]


@contextlib.asynccontextmanager
async def open_chain(
    *, stt: Script, llm: Script, tts: Script, likely_end_ms: int = 0, **options: Any
) -> AsyncIterator[ChainSite]:
    """An engine whose stages are one server; `options` are those of `Chain`."""
    http = StreamingHttp()
    async with WebService(routed(stt=stt, llm=llm, tts=tts)) as server:
        spec = StageSpec(base_url=server.url, model="stand-in", timeout_s=20)
        voices = Voices([HttpVoice(spec, http)])
        parts = EngineParts(
            recognizer=Recognizers([HttpTranscriber(spec, http)]),
            synthesizer=voices,
            make_responder=lambda _hours: ModelResponder(),
            make_vad=LevelDetector,
            likely_end_ms=likely_end_ms,
            chain=Chain(TextModels([ChatCompletions(spec, http)]), voices, **options),
        )
        engine = Engine(parts, max_sessions=50)
        await engine.start()
        try:
            yield ChainSite(engine, server)
        finally:
            await engine.close()
            await http.close()
