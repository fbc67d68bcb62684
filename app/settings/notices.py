"""Notices about old keys, retiring models and unknown voices (`models.yaml`)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from app.errors import ConfigError
from app.settings.model import Settings, VoiceChoice
from app.settings.reader.environment import Environment, read_text
from app.settings.reader.interpolation import fill
from app.settings.reader.names import nearest
from app.settings.reader.strict_yaml import parse_yaml
from app.settings.realtime import OpenAIRealtime, SessionOverrides

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
    retirements: tuple[Retirement, ...]
    realtime_voices: tuple[str, ...]
    speech_only_voices: dict[str, str]


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
    """The notices for an operator at start-up; empty when all is well.

    Nothing about models where the offline engine talks, or another vendor's server.
    """
    model = settings.openai_realtime
    if settings.voice_choice is VoiceChoice.OFFLINE or not model.is_openai:
        return settings.origin.notices
    facts = facts or load_facts()
    found = [
        _retirement("openai_realtime.model", model.model, today, facts),
        *_session("openai_realtime", model, today, facts),
    ]
    for name, agent in settings.agents.items():
        found += _session(f"agents.{name}", agent, today, facts)
    for number, there in settings.numbers.items():
        found.append(_retirement(f"numbers.{number}.model", there.model or "", today, facts))
        found += _session(f"numbers.{number}", there, today, facts)
    return (*settings.origin.notices, *(text for text in found if text))


def _session(
    key: str, section: OpenAIRealtime | SessionOverrides, today: date, facts: ModelFacts
) -> list[str]:
    """The models and voices that a section names, where it is the one that names them."""
    found = [_voice(f"{key}.voice", section.voice, facts)] if section.voice else []
    writer = section.transcription
    if writer is not None and (
        isinstance(section, OpenAIRealtime) or "model" in writer.model_fields_set
    ):
        found.append(_retirement(f"{key}.transcription.model", writer.model, today, facts))
    detection = section.turn_detection
    if detection is not None and detection.type == "none":
        found.append(f"{key}.turn_detection: with none nobody hears that a caller has finished")
    return found


def _retirement(key: str, name: str, today: date, facts: ModelFacts) -> str:
    entry = next((r for r in facts.retirements if fnmatchcase(name, r.model)), None)
    if entry is None:
        return ""
    verb = "was retired" if entry.ends <= today else "will be retired"
    return f"{key}: {name} {verb} on {entry.ends.isoformat()}: use {entry.replacement}"


def _voice(key: str, name: str, facts: ModelFacts) -> str:
    if name in facts.realtime_voices or name.startswith(_CUSTOM_VOICE):
        return ""
    better = facts.speech_only_voices.get(name) or nearest(name, list(facts.realtime_voices))
    advice = f": use {better}" if better else ""
    valid = ", ".join(facts.realtime_voices)
    return f"{key}: Realtime has no voice {name}{advice} (it has {valid})"
