"""Names retiring models and voices that Realtime does not have, from `models.yaml`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from app.errors import ConfigError
from app.settings.environment import Environment, read_text
from app.settings.interpolation import fill
from app.settings.model import Settings, VoiceChoice
from app.settings.names import nearest
from app.settings.realtime import OpenAIRealtime
from app.settings.strict_yaml import parse_yaml

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
    values = fill(parse_yaml(read_text(path), name=path.name), Environment({}, {})).values
    try:
        return TypeAdapter(ModelFacts).validate_python(values)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None


def notices(settings: Settings, today: date, facts: ModelFacts | None = None) -> tuple[str, ...]:
    """What an operator should know at start-up; empty when all is well.

    Silent where the offline engine talks, and about models of other vendors' servers.
    """
    model = settings.openai_realtime
    if settings.voice_choice is VoiceChoice.OFFLINE or not model.is_openai:
        return ()
    facts = facts or load_facts()
    named = {"openai_realtime.model": model.model}
    if model.transcription is not None:
        named["openai_realtime.transcription.model"] = model.transcription.model
    found = [_retirement(key, name, today, facts) for key, name in named.items()]
    return tuple(text for text in (*found, _voice(model, facts)) if text)


def _retirement(key: str, name: str, today: date, facts: ModelFacts) -> str:
    entry = next((r for r in facts.retirements if fnmatchcase(name, r.model)), None)
    if entry is None:
        return ""
    verb = "was retired" if entry.ends <= today else "will be retired"
    return f"{key}: {name} {verb} on {entry.ends.isoformat()}: use {entry.replacement}"


def _voice(model: OpenAIRealtime, facts: ModelFacts) -> str:
    name = model.voice
    if name in facts.realtime_voices or name.startswith(_CUSTOM_VOICE):
        return ""
    better = facts.speech_only_voices.get(name) or nearest(name, list(facts.realtime_voices))
    advice = f": use {better}" if better else ""
    valid = ", ".join(facts.realtime_voices)
    return f"openai_realtime.voice: Realtime has no voice {name}{advice} (it has {valid})"
