"""The settings of our phone numbers and of the destinations of transfers."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from app.settings.sections.agents import Variables, only_one_of
from app.settings.sections.limits import CallLimits, RecordingOverrides
from app.settings.sections.realtime import SessionOverrides
from app.settings.values import Blank, Language, Name, PhoneNumber, Section, Spoken, Text, TimeZone

__all__ = [
    "ClosedSettings",
    "DestinationName",
    "DestinationSettings",
    "HoursSettings",
    "NumberSettings",
    "Region",
]


def _destination_name(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", name) or name == "caller":
        raise ValueError(
            f"{name[:80]!r}: a destination's name is small letters, digits, - and _, up to 64, and "
            "not caller"
        )
    return name


def _region(code: str) -> str:
    if not re.fullmatch(r"[A-Z]{2}", code):
        raise ValueError(f"{code[:20]!r} is not a country such as US (ISO 3166)")
    return code


def _sip_address(text: str) -> str:
    """With its scheme; the rest is checked where destinations are made."""
    if re.match(r"sips?:(?!//)[^?<>\s]*$", text, re.IGNORECASE):
        return text
    if re.fullmatch(r"(tel:)?\+?[0-9 ()/.-]+", text):
        raise ValueError("a phone number stands under number")
    bare = re.sub(r"^<|(\?.*)?>?$", "", text.strip())
    bare = re.sub(r"^(sips?:)?/*", r"\1", bare, flags=re.IGNORECASE)
    near = bare if re.match(r"sips?:", bare, re.IGNORECASE) else f"sip:{bare}"
    expected = "expected a SIP address such as sip:anna@pbx.example.com, without headers"
    if re.fullmatch(r"sips?:[^@\s]+@[A-Za-z0-9.:;=_-]+", near, re.IGNORECASE):
        raise ValueError(f'{expected}; did you mean "{near}"?')
    raise ValueError(expected)


def _closed_text(text: str) -> str:
    unknown = [name for name in re.findall(r"\{(\w*)\}", text) if name != "next_opening"]
    if unknown:
        raise ValueError(f"there is no {{{unknown[0]}}}; known is {{next_opening}}")
    return text


DestinationName = Annotated[str, AfterValidator(_destination_name)]
Region = Annotated[str, AfterValidator(_region)]
Spans = Text | tuple[Text, ...]


class DestinationSettings(Section):
    """A destination of transfers: a phone number, a SIP address or a queue."""

    number: PhoneNumber | None = None
    sip: Annotated[Text, AfterValidator(_sip_address)] | None = None
    queue: Text | None = None
    spoken: str = Field(default="", max_length=100)
    announcement: Annotated[Spoken | None, Blank] = None
    description: str = Field(default="", max_length=500)
    mode: Literal["cold", "warm"] = "cold"
    ring_s: int = Field(default=20, ge=5, le=600)
    caller_id: Literal["ours", "caller"] = "ours"
    extension: str = ""
    screened: bool = False
    detect_voicemail: bool = False

    @model_validator(mode="after")
    def _one_address(self) -> Self:
        only_one_of(self, "number", "sip", "queue")
        if self.queue is not None and self.mode == "warm":
            raise ValueError("nobody is called for a queue: mode must be cold")
        return self


class HoursSettings(Section):
    """The opening hours of a number, in its own time zone."""

    time_zone: TimeZone
    open: dict[str, Spans]
    closed: tuple[Text, ...] = ()
    special: dict[str, Spans] = Field(default_factory=dict)


class ClosedSettings(Section):
    """The answer outside of the hours; a built-in sentence is said where nothing is set."""

    say: Annotated[Annotated[Spoken, AfterValidator(_closed_text)] | None, Blank] = None
    agent: Name | None = None
    transfer: Name | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.agent is not None and self.transfer is not None:
            raise ValueError("agent and transfer exclude each other: keep one")
        return self


class NumberSettings(SessionOverrides):
    """One of our numbers. Settings that are absent are those of its agent."""

    agent: Name | None = None
    model: Name | None = None
    greeting: Annotated[Spoken | None, Blank] = None
    interruptible_greeting: bool | None = None
    variables: Variables = Field(default_factory=dict)
    languages: tuple[Language, ...] = ()
    hours: HoursSettings | None = None
    closed: ClosedSettings = Field(default_factory=ClosedSettings)
    fallback: Name | None = None
    percent: int = Field(default=100, ge=0, le=100)
    limits: CallLimits = Field(default_factory=CallLimits)
    recording: RecordingOverrides = Field(default_factory=RecordingOverrides)

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if "closed" in self.model_fields_set and self.hours is None:
            raise ValueError("closed does nothing without hours: add them, or remove it")
        if self.percent < 100 and self.fallback is None:
            raise ValueError("percent needs a fallback, where the other calls go")
        return self
