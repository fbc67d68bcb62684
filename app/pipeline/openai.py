"""OpenAI's stages, for programs that name none of their own.

As with OpenAI's own packages, the key is `OPENAI_API_KEY`, and `OPENAI_BASE_URL` leads to another
server of the same endpoints. The models are the defaults of `config.yaml`'s `pipeline`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from app.engine.stages.base import SpeechToText, StageSpec, TextModel, TextToSpeech
from app.engine.stages.realtime_voice import RealtimeVoice
from app.engine.stages.text_models import ChatCompletions, Responses
from app.engine.stages.transcriptions import HttpTranscriber
from app.errors import ConfigError
from app.http.streaming import StreamingHttp
from app.realtime.websocket import WebSocketModel

__all__ = ["NO_SPEECH", "STT_MODEL", "TEXT_MODEL", "TTS_MODEL", "openai_server", "openai_speech",
           "text_model"]  # fmt: skip

STT_MODEL: Final = "gpt-transcribe"
TEXT_MODEL: Final = "gpt-6-luna"
TTS_MODEL: Final = "gpt-realtime-2.1-mini"
NO_TEXT_MODEL: Final = (
    "AgentWorkflow has no text model: give it one, such as "
    'ChatCompletions(StageSpec(base_url="http://127.0.0.1:11434/v1", model="llama3.2"), http)'
)
NO_SPEECH: Final = "VoicePipeline lacks stt or tts: give it both, such as those of offline_speech()"
_URL: Final = "https://api.openai.com/v1"


def openai_server(model: str, missing: str) -> StageSpec:
    """The server that the environment names; `missing` is what a program lacks without it.

    Raises:
        ConfigError: there is no key for OpenAI.
    """
    url = os.environ.get("OPENAI_BASE_URL", "").strip() or _URL
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    server = StageSpec(base_url=url, model=model, api_key=key)
    if not key and server.is_openai:
        raise ConfigError(f"{missing}; or set OPENAI_API_KEY, and OpenAI's is used")
    return server


def text_model(name: str, http: StreamingHttp) -> TextModel:
    """A text model of that server, which does not think before it answers.

    Raises:
        ConfigError: there is no key for OpenAI.
    """
    server = openai_server(name, NO_TEXT_MODEL)
    # OpenAI's models use tools and think at the one endpoint only; the other one is everybody's.
    if server.is_openai:
        return Responses(server, http, reasoning_effort="none")
    return ChatCompletions(server, http)


@asynccontextmanager
async def openai_speech() -> AsyncIterator[tuple[SpeechToText, TextToSpeech]]:
    """Speech to text, and text to speech by a Realtime session that reads.

    Raises:
        ConfigError: there is no key for OpenAI.
    """
    server = openai_server(STT_MODEL, NO_SPEECH)
    scheme, *rest = urlsplit(server.url("/realtime"))
    url = urlunsplit(("ws" if scheme == "http" else "wss", *rest))
    voice = RealtimeVoice(WebSocketModel(url, model=TTS_MODEL, headers=server.headers()))
    async with StreamingHttp() as http:
        try:
            yield HttpTranscriber(server, http), voice
        finally:
            await voice.close()
