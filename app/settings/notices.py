"""Notices at the start: what was read oddly, looks wrong or does nothing, and models.

What is known of models and voices is in `models.yaml`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from app.errors import ConfigError
from app.settings.model import Settings, VoiceChoice
from app.settings.plausibility import implausible
from app.settings.reader.environment import Environment, read_text
from app.settings.reader.interpolation import fill
from app.settings.reader.names import did_you_mean, nearest
from app.settings.reader.origin import Place
from app.settings.reader.strict_yaml import parse_yaml
from app.settings.sections.realtime import OpenAIRealtime, SessionOverrides
from app.settings.values import is_openai
from app.settings.without_effect import without_effect

__all__ = ["ModelFacts", "Retirement", "load_facts", "notices"]

_BUILT_IN: Final = Path(__file__).with_name("models.yaml")
_CUSTOM_VOICE: Final = "voice_"  # prefix of a voice of one's own (OpenAI schema, session.voice)


@dataclass(frozen=True, slots=True)
class Retirement:
    """A model, or a family when it ends in `*`, that is or will be switched off."""

    model: str
    ends: date
    replacement: str


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Facts about OpenAI's models. `retirements`: the first line that matches counts."""

    retirements: tuple[Retirement, ...]
    realtime_voices: tuple[str, ...]
    speech_only_voices: dict[str, str]
    realtime_models: tuple[str, ...] = ()
    transcription_models: tuple[str, ...] = ()


@cache
def load_facts(path: Path = _BUILT_IN) -> ModelFacts:
    """The facts in `path`.

    Raises:
        ConfigError: the file was edited into something that cannot be read.
    """
    values = fill(parse_yaml(read_text(path), name=path.name), Environment()).values
    try:
        return TypeAdapter(ModelFacts).validate_python(values)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None


def notices(settings: Settings, today: date, facts: ModelFacts | None = None) -> tuple[str, ...]:
    """The notices for an operator at start-up, with file and line; empty when all is well.

    Nothing about models of calls where the offline engine was chosen, nor of another vendor's.
    """
    place = settings.origin.place
    found = [*implausible(settings), *without_effect(settings)]
    known = _Models(facts or load_facts(), today, settings)
    if settings.voice_choice is VoiceChoice.PIPELINE:
        found += known.pipeline()
    elif settings.voice_model != "offline" and settings.openai_realtime.is_openai:
        found += known.notices()
    found += known.others()
    by_line = sorted(found, key=lambda one: settings.origin.order(one[0]))
    return (*settings.origin.notices, *(f"{place(*path)}: {text}" for path, text in by_line))


class _Models:
    """Looks at each model and voice that settings name, where they name it."""

    def __init__(self, facts: ModelFacts, today: date, settings: Settings) -> None:
        self._facts = facts
        self._today = today
        self._settings = settings

    def notices(self) -> Iterator[tuple[Place, str]]:
        settings, known = self._settings, self._facts.realtime_models
        model = settings.openai_realtime
        yield from self._model(("openai_realtime", "model"), model.model, known)
        yield from self._session(("openai_realtime",), model)
        for name, agent in settings.agents.items():
            yield from self._session(("agents", name), agent)
        for number, there in settings.numbers.items():
            if there.model:
                yield from self._model(("numbers", number, "model"), there.model, known)
            yield from self._session(("numbers", number), there)

    def pipeline(self) -> Iterator[tuple[Place, str]]:
        """Notices on OpenAI's models among the stages; those of other servers are not known."""
        for stage, sides in self._settings.pipeline.stages().items():
            for side in sides:
                if side.is_openai and side.kind in ("openai", "realtime"):
                    yield from self._model(("pipeline", stage), side.model, ())

    def others(self) -> Iterator[tuple[Place, str]]:
        """Notices on OpenAI's models beside that of the calls; those of Azure have other dates."""
        gateway, analysis = self._settings.gateway, self._settings.analysis
        theirs = {name for name, one in gateway.channels.items() if one.url and is_openai(one.url)}
        for name, model in gateway.models.items():
            if theirs.intersection(model.channels):
                place: Place = ("gateway", "models", name)
                yield from self._model(place, model.upstream_model or name, ())
                yield from self._model((*place, "transcription"), model.transcription or "", ())
        if analysis is not None and (asked := analysis.endpoint) and is_openai(asked.base_url):
            yield from self._model(("analysis", "endpoint", "model"), asked.model, ())

    def _session(
        self, place: Place, section: OpenAIRealtime | SessionOverrides
    ) -> Iterator[tuple[Place, str]]:
        if section.voice:
            yield from self._voice((*place, "voice"), section.voice)
        writer, known = section.transcription, self._facts.transcription_models
        if writer is not None and (
            isinstance(section, OpenAIRealtime) or "model" in writer.model_fields_set
        ):
            yield from self._model((*place, "transcription", "model"), writer.model, known)
        detection = section.turn_detection
        if detection is not None and detection.type == "none":
            text = "with none nobody hears that a caller has finished"
            yield (*place, "turn_detection"), text

    def _model(
        self, place: Place, name: str, known: tuple[str, ...]
    ) -> Iterator[tuple[Place, str]]:
        retirements = self._facts.retirements
        entry = next((one for one in retirements if fnmatchcase(name, one.model)), None)
        if entry is not None:
            verb = "was retired" if entry.ends <= self._today else "will be retired"
            yield place, f"{name} {verb} on {entry.ends.isoformat()}: use {entry.replacement}"
        elif known and name not in known:
            yield place, f"{name[:64]} is not a model that is known here{_or(name, known)}"

    def _voice(self, place: Place, name: str) -> Iterator[tuple[Place, str]]:
        voices = self._facts.realtime_voices
        if name not in voices and not name.startswith(_CUSTOM_VOICE):
            better = self._facts.speech_only_voices.get(name) or nearest(name, voices)
            advice = f": use {better}" if better else ""
            yield place, f"Realtime has no voice {name}{advice} (it has {', '.join(voices)})"


def _or(name: str, known: tuple[str, ...]) -> str:
    return did_you_mean(name, known) or f" (known are {', '.join(known)})"
