"""Voices by name: Realtime's, mapped to local ones, and espeak-ng's own. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

__all__ = ["REALTIME_VOICES", "Voice", "is_spelled", "no_such_voice", "voice_of"]


@dataclass(frozen=True, slots=True)
class Voice:
    """The offline sound of a Realtime voice: an espeak variant and pitch, a flite voice."""

    variant: str
    pitch: int
    flite: str


_FEMALE: Final = Voice("en-us+f2", 45, "slt")
_MALE: Final = Voice("en-us+m3", 45, "rms")
REALTIME_VOICES: Final = {
    "alloy": _FEMALE,
    "ash": _MALE,
    "ballad": Voice("en-us+m7", 40, "rms"),
    "cedar": Voice("en-us+m3", 30, "rms"),
    "coral": Voice("en-us+f2", 55, "slt"),
    "echo": Voice("en-us+m3", 55, "awb"),
    "marin": Voice("en-us+f3", 50, "slt"),
    "sage": Voice("en-us+f3", 40, "slt"),
    "shimmer": Voice("en-us+f4", 50, "slt"),
    "verse": Voice("en-us+m7", 55, "awb"),
}
_ESPEAK_NAME: Final = re.compile(r"([a-z]{2,3}(?:-[a-z0-9]{1,8})*)((?:\+[A-Za-z0-9]{1,16})?)")
_ESPEAK_LANGUAGES: Final = {"en-gb": "en"}
_PITCH: Final = 50  # espeak's own


def is_spelled(name: str) -> bool:
    """True if the name may be one of espeak-ng's voices."""
    return _ESPEAK_NAME.fullmatch(name) is not None


def voice_of(name: str) -> Voice:
    """A Realtime voice, or one by its name at espeak-ng; the first one for any other name."""
    known = REALTIME_VOICES.get(name)
    spelled = _ESPEAK_NAME.fullmatch(name)
    if known is not None or spelled is None:
        return known or _FEMALE
    language, variant = spelled.groups()
    return Voice(_ESPEAK_LANGUAGES.get(language, language) + variant, _PITCH, _FEMALE.flite)


def no_such_voice(name: str, espeak: Collection[str]) -> str:
    """The sentence about a voice that is not there; `espeak` are the names of espeak-ng."""
    near = difflib.get_close_matches(name.lower(), [*REALTIME_VOICES, *espeak], n=1, cutoff=0.6)
    if near:
        return f'there is no voice {name[:64]!r}; did you mean "{near[0]}"?'
    names = ", ".join(REALTIME_VOICES)
    return f"there is no voice {name[:64]!r}; there is {names}, or one of espeak-ng, such as en-gb"
