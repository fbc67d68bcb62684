"""The spelling of a session and of a response's overrides: nested in GA, flat in beta.

Part of `app.realtime.dialect`. Settings that a generation does not have (reasoning effort or
truncation in beta, for example) are left out when writing. An audio format is never guessed: an
unknown one is an error. Fields by OpenAI's `types/realtime` (GA) and
`types/beta/realtime` (beta).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from app.errors import LocalProtocolError
from app.realtime.events import UNSET, SemanticVad, ServerVad, SessionConfig, Transcription
from app.realtime.fields import Fields, MalformedEvent
from audio.format import PCM16_24K, PCMA_8K, PCMU_8K, AudioFormat, Encoding

__all__ = [
    "OTHER_SPELLING",
    "Generation",
    "read_format",
    "read_max_tokens",
    "read_modalities",
    "read_session",
    "read_voice",
    "write_format",
    "write_modalities",
    "write_session",
    "write_voice",
]

Json = dict[str, Any]


class Generation(StrEnum):
    """The two shapes of the protocol: before and after September 2025."""

    BETA = "beta"
    GA = "ga"

    @property
    def other(self) -> Generation:
        return Generation.BETA if self is Generation.GA else Generation.GA


OTHER_SPELLING: Final = "unknown_parameter"
_BETA_FORMATS: Final = {"pcm16": PCM16_24K, "g711_ulaw": PCMU_8K, "g711_alaw": PCMA_8K}
_GA_G711: Final = {"audio/pcmu": PCMU_8K, "audio/pcma": PCMA_8K}


# Values that both use ----------------------------------------------------------------------------


def write_format(value: AudioFormat, generation: Generation) -> str | Json:
    """GA `{"type": "audio/pcm", "rate": 24000}`, beta `pcm16`.

    Raises:
        LocalProtocolError: the generation has no name for this format.
    """
    if generation is Generation.BETA:
        for name, known in _BETA_FORMATS.items():
            if known == value:
                return name
        raise LocalProtocolError(f"the beta dialect has no name for {value}")
    for name, known in _GA_G711.items():
        if known == value:
            return {"type": name}
    if value.encoding is Encoding.PCM16:
        return {"type": "audio/pcm", "rate": value.rate_hz}
    raise LocalProtocolError(f"the GA dialect has no name for {value}")


def read_format(fields: Fields, key: str, generation: Generation) -> AudioFormat:
    """Read a format. It is never guessed: an odd one is malformed, for patient readers too."""
    if generation is Generation.BETA:
        known = _BETA_FORMATS.get(fields.text(key))
        if known is None:
            raise fields.wrong(key, "pcm16, g711_ulaw or g711_alaw", code="invalid_value")
        return known
    spelled = fields.strict().child(key)
    name = spelled.text("type")
    if name in _GA_G711:
        if spelled.count("rate", 8_000) != 8_000:
            raise spelled.wrong("rate", "8000 for G.711", code="invalid_value")
        return _GA_G711[name]
    if name == "audio/pcm":
        rate_hz = spelled.count("rate", 24_000)  # the only rate that OpenAI's GA schema allows
        if rate_hz == 0:
            raise spelled.wrong("rate", "a sample rate", code="invalid_value")
        return AudioFormat(Encoding.PCM16, rate_hz)
    raise spelled.wrong("type", "audio/pcm, audio/pcmu or audio/pcma", code="invalid_value")


def write_modalities(value: tuple[str, ...], generation: Generation) -> list[str]:
    """Beta has no audio alone: `["text", "audio"]` there is `["audio"]` in GA."""
    if generation is Generation.BETA and "audio" in value:
        return ["text", "audio"]
    return list(value)


def read_modalities(fields: Fields, key: str, generation: Generation) -> tuple[str, ...]:
    value = fields.texts(key)
    if generation is Generation.BETA and "audio" in value:
        return ("audio",)
    return value


def write_voice(value: str, generation: Generation) -> str | Json:
    """Custom voices (`voice_...`) are objects in GA."""
    if generation is Generation.GA and value.startswith("voice_"):
        return {"id": value}
    return value


def read_voice(fields: Fields, key: str, _: Generation) -> str:
    """Read a voice: its name, or an object with the `id` of a custom one."""
    value = fields.text_or_object(key)
    return value if isinstance(value, str) else fields.child(key).text("id")


def read_max_tokens(fields: Fields, key: str, _: Generation) -> int | str:
    return "inf" if fields.data.get(key) == "inf" else fields.count(key)


# Turn detection and transcription ----------------------------------------------------------------


def _write_turn_detection(
    value: ServerVad | SemanticVad | None, generation: Generation
) -> Json | None:
    if value is None:
        return None
    if isinstance(value, SemanticVad):
        spelled: Json = {"type": "semantic_vad", "eagerness": value.eagerness}
    else:
        spelled = {
            "type": "server_vad",
            "threshold": value.threshold,
            "prefix_padding_ms": value.prefix_padding_ms,
            "silence_duration_ms": value.silence_duration_ms,
        }
        if value.idle_timeout_ms is not None and generation is Generation.GA:
            spelled["idle_timeout_ms"] = value.idle_timeout_ms
    spelled["create_response"] = value.create_response
    spelled["interrupt_response"] = value.interrupt_response
    return spelled


def _read_turn_detection(fields: Fields, key: str, _: Generation) -> ServerVad | SemanticVad | None:
    """Read who takes turns, strictly; to a patient reader the rest of it may be odd.

    A type without a name here, such as Azure's `azure_semantic_vad`, detects turns all the same.
    """
    strict = fields.strict().child(key)
    kind = strict.text("type", "none")
    create = strict.flag("create_response", True)
    interrupt = strict.flag("interrupt_response", True)
    if kind == "none":  # how some compatible servers say null
        return None
    spelled = fields.child(key)
    if kind == "semantic_vad":
        return SemanticVad(
            eagerness=spelled.text("eagerness", "auto"),
            create_response=create,
            interrupt_response=interrupt,
        )
    if kind != "server_vad":
        spelled.tolerate(spelled.wrong("type", "server_vad or semantic_vad", code="invalid_value"))
    idle = spelled.count("idle_timeout_ms", 0)
    defaults = ServerVad()
    return ServerVad(
        threshold=spelled.number("threshold", defaults.threshold),
        prefix_padding_ms=spelled.count("prefix_padding_ms", defaults.prefix_padding_ms),
        silence_duration_ms=spelled.count("silence_duration_ms", defaults.silence_duration_ms),
        create_response=create,
        interrupt_response=interrupt,
        idle_timeout_ms=idle if spelled.data.get("idle_timeout_ms") is not None else None,
    )


def _write_transcription(value: Transcription | None, generation: Generation) -> Json | None:
    if value is None:
        return None
    spelled: Json = {"model": value.model} if value.model else {}
    if value.language is not None:
        spelled["language"] = value.language
    if value.prompt is not None:
        spelled["prompt"] = value.prompt
    if generation is Generation.GA:
        if value.languages:
            spelled["languages"] = list(value.languages)
        if value.keywords:
            spelled["keywords"] = list(value.keywords)
        if value.delay is not None:
            spelled["delay"] = value.delay
    return spelled


def _read_transcription(fields: Fields, key: str, _: Generation) -> Transcription:
    spelled = fields.child(key)
    return Transcription(
        model=spelled.text("model", ""),
        language=spelled.optional_text("language"),
        languages=spelled.texts("languages"),
        keywords=spelled.texts("keywords"),
        prompt=spelled.optional_text("prompt"),
        delay=spelled.optional_text("delay"),
    )


def _write_noise_reduction(value: str | None, _: Generation) -> Json | None:
    return None if value is None else {"type": value}


def _read_noise_reduction(fields: Fields, key: str, _: Generation) -> str | None:
    return fields.child(key).optional_text("type")


# Session ------------------------------------------------------------------------------------------


def _plain(value: Any, _: Generation) -> Any:
    """A value as JSON has it."""
    if isinstance(value, tuple):
        return [_plain(entry, _) for entry in value]
    return dict(value) if isinstance(value, Mapping) else value


def _read_text(fields: Fields, key: str, _: Generation) -> str:
    return fields.text(key)


def _read_texts(fields: Fields, key: str, _: Generation) -> tuple[str, ...]:
    return fields.texts(key)


def _read_text_or_object(fields: Fields, key: str, _: Generation) -> str | Mapping[str, Any]:
    return fields.text_or_object(key)


def _read_objects(fields: Fields, key: str, _: Generation) -> tuple[Mapping[str, Any], ...]:
    return tuple(child.data for child in fields.children(key))


@dataclass(frozen=True, slots=True)
class _Setting:
    """One setting: its place in each generation, and how its value is read and written.

    `may_be_off`: null turns it off, where for the others null means absent. `exact`: a server's
    odd value is malformed, since the call depends on it.
    """

    name: str
    ga: str
    beta: str | None  # None: beta does not have it
    read: Callable[[Fields, str, Generation], Any]
    write: Callable[[Any, Generation], Any] = _plain
    may_be_off: bool = False
    exact: bool = False


_SETTINGS: Final = (
    _Setting("instructions", "instructions", "instructions", _read_text),
    _Setting("tools", "tools", "tools", _read_objects),
    _Setting("tool_choice", "tool_choice", "tool_choice", _read_text_or_object),
    _Setting("tracing", "tracing", "tracing", _read_text_or_object, may_be_off=True),
    _Setting(
        "output_modalities", "output_modalities", "modalities", read_modalities, write_modalities
    ),
    _Setting(
        "parallel_tool_calls",
        "parallel_tool_calls",
        None,
        lambda fields, key, _: fields.flag(key, True),
    ),
    _Setting(
        "max_output_tokens", "max_output_tokens", "max_response_output_tokens", read_max_tokens
    ),
    _Setting("reasoning_effort", "reasoning.effort", None, _read_text),
    _Setting("truncation", "truncation", None, _read_text_or_object),
    _Setting("include", "include", None, _read_texts),
    _Setting(
        "input_format",
        "audio.input.format",
        "input_audio_format",
        read_format,
        write_format,
        exact=True,
    ),
    _Setting(
        "noise_reduction",
        "audio.input.noise_reduction",
        "input_audio_noise_reduction",
        _read_noise_reduction,
        _write_noise_reduction,
        may_be_off=True,
    ),
    _Setting(
        "transcription",
        "audio.input.transcription",
        "input_audio_transcription",
        _read_transcription,
        _write_transcription,
        may_be_off=True,
    ),
    _Setting(
        "turn_detection",
        "audio.input.turn_detection",
        "turn_detection",
        _read_turn_detection,
        _write_turn_detection,
        may_be_off=True,
        exact=True,
    ),
    _Setting(
        "output_format",
        "audio.output.format",
        "output_audio_format",
        read_format,
        write_format,
        exact=True,
    ),
    _Setting("voice", "audio.output.voice", "voice", read_voice, write_voice),
    _Setting("speed", "audio.output.speed", "speed", lambda fields, key, _: fields.number(key)),
)


_GA_KEYS: Final = frozenset(setting.ga.partition(".")[0] for setting in _SETTINGS) | {"type"}
_BETA_KEYS: Final = frozenset(setting.beta for setting in _SETTINGS if setting.beta is not None)


def _refuse_other_spelling(fields: Fields, generation: Generation) -> None:
    """Tell a client of settings that it spells as the other generation does.

    They would be left out in silence, and telephone sound be read as PCM.

    Raises:
        MalformedEvent: with the code `unknown_parameter`, where reading is strict.
    """
    beta = generation is Generation.BETA
    other = _GA_KEYS - _BETA_KEYS if beta else _BETA_KEYS - _GA_KEYS
    names = [fields.where(key) for key in fields.data if key in other]
    if names and fields.oddities is None:
        raise MalformedEvent(
            f"{', '.join(names)}: not in the {generation.value} dialect of this session",
            code=OTHER_SPELLING,
            param=names[0],
        )


def write_session(value: SessionConfig, generation: Generation) -> Json:
    """The session object of `session.update`, `.created` and `.updated`."""
    spelled: Json = {"type": value.type} if generation is Generation.GA else {}
    if value.id is not None:  # a server's, which has every key that OpenAI's has
        spelled.update(id=value.id, object="realtime.session")
        if generation is Generation.GA:
            spelled.update(include=None, prompt=None)
    if value.model is not None:
        spelled["model"] = value.model
    if value.expires_at is not None:
        spelled["expires_at"] = value.expires_at
    for setting in _SETTINGS:
        path = setting.ga if generation is Generation.GA else setting.beta
        given = getattr(value, setting.name)
        if given is UNSET or path is None:
            continue
        *parents, key = path.split(".")
        place = spelled
        for parent in parents:
            place = place.setdefault(parent, {})
        place[key] = setting.write(given, generation)
    return spelled


def read_session(fields: Fields, generation: Generation) -> SessionConfig:
    """A session object; fields that have no name here are ignored."""
    _refuse_other_spelling(fields, generation)
    expires_at = fields.count("expires_at", 0)
    values: Json = {
        "id": fields.optional_text("id"),
        "model": fields.optional_text("model"),
        "expires_at": expires_at or None,
        "type": fields.text("type", "realtime"),
    }
    for setting in _SETTINGS:
        strict = fields.strict() if setting.exact else fields
        spelling, exact = generation, setting.exact
        found = _find(setting, strict, spelling)
        if found is None and fields.oddities is not None:
            # Some servers take a session in one dialect and confirm it in the other.
            spelling, exact = generation.other, False
            found = _find(setting, fields, spelling)
            if found is not None:
                fields.oddities.append(f"{found[0].where(found[1])}: spelled as in {spelling}")
        if found is None:
            continue
        place, key = found
        if place.data[key] is None:
            if setting.may_be_off:
                values[setting.name] = None
            continue
        patient = Fields(place.data, place.path, fields.oddities)
        try:
            values[setting.name] = setting.read(patient, key, spelling)
        except MalformedEvent as error:
            if exact:
                raise
            fields.tolerate(error)
    return SessionConfig(**values)


def _find(setting: _Setting, fields: Fields, generation: Generation) -> tuple[Fields, str] | None:
    """The object and the key under which a session gives a setting."""
    path = setting.ga if generation is Generation.GA else setting.beta
    if path is None:
        return None
    *parents, key = path.split(".")
    place: Fields | None = fields
    for parent in parents:
        place = place and place.optional_child(parent)
    return (place, key) if place is not None and place.has(key) else None
