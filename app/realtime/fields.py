"""Checked reading of JSON objects: every getter names the field that is wrong.

A client's events are read strictly: a field of the wrong type is a `MalformedEvent`, which the
client is told of. A server's events are read leniently: such a field is noted in `oddities`
and takes its default, so that it never costs the event; only a field without a default is
malformed. Absent and null fields take their default either way. Numbers are bounded. Nothing but
`MalformedEvent` leaves a getter.
"""

from __future__ import annotations

import binascii
import contextlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from app.errors import RemoteProtocolError

__all__ = ["MAX_TEXT_CHARS", "REQUIRED", "Fields", "MalformedEvent"]

_T = TypeVar("_T")

MAX_COUNT: Final = 2**53  # beyond it JSON numbers are not exact (RFC 8259, section 6)
MAX_TEXT_CHARS: Final = 100_000
"""More than a model says in one breath, or takes as instructions. Words are looked at one by one,
between two frames of everybody's sound: a patient reader cuts longer texts."""
_BASE64_DIGITS: Final = re.compile(r"[A-Za-z0-9+/]*")


class MalformedEvent(RemoteProtocolError):
    """An event that breaks the protocol, with what an `error` reply needs.

    `code` is one of invalid_json, invalid_type, invalid_value, missing_required_parameter.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        param: str | None = None,
        event_type: str = "",
        event_id: str | None = None,
    ) -> None:
        super().__init__(message, code=code)
        self.param = param
        self.event_type = event_type
        self.event_id = event_id


class _Required:
    """Marks a field that has no default."""


REQUIRED: Final = _Required()


@dataclass(frozen=True, slots=True)
class Fields:
    """One JSON object on the wire and the path that leads to it; `oddities` None is strict."""

    data: Mapping[str, Any]
    path: str = ""
    oddities: list[str] | None = None

    def where(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def has(self, key: str) -> bool:
        """True if the field is there, null included."""
        return key in self.data

    def strict(self) -> Fields:
        """The same object, read strictly."""
        return Fields(self.data, self.path)

    def tolerate(self, error: MalformedEvent) -> None:
        """Note an error that a patient reader goes on from; a strict one raises it."""
        if self.oddities is None:
            raise error
        self.oddities.append(error.message)

    def wrong(self, key: str, expected: str, *, code: str = "invalid_type") -> MalformedEvent:
        param = self.where(key)
        return MalformedEvent(f"{param}: expected {expected}", code=code, param=param)

    def missing(self, key: str) -> MalformedEvent:
        param = self.where(key)
        return MalformedEvent(f"{param}: missing", code="missing_required_parameter", param=param)

    def text(self, key: str, default: str | _Required = REQUIRED) -> str:
        value = self.data.get(key)
        if isinstance(value, str):
            return value if len(value) <= MAX_TEXT_CHARS else self._cut(key, value)
        return self._default(key, default, "a string")

    def optional_text(self, key: str) -> str | None:
        value = self.data.get(key)
        if isinstance(value, str):
            return value if len(value) <= MAX_TEXT_CHARS else self._cut(key, value)
        return self._default(key, None, "a string")

    def _cut(self, key: str, text: str) -> str:
        if self.oddities is None:
            return text
        most = f"at most {MAX_TEXT_CHARS} characters"
        self.tolerate(self.wrong(key, most, code="invalid_value"))
        return text[:MAX_TEXT_CHARS]

    def number(self, key: str, default: float | _Required = REQUIRED) -> float:
        value = self.data.get(key)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            if -MAX_COUNT <= value <= MAX_COUNT:  # false for not-a-number too
                return float(value)
            return self._default(key, default, "a number in range", code="invalid_value")
        return self._default(key, default, "a number")

    def count(self, key: str, default: int | _Required = REQUIRED) -> int:
        """A whole number from 0; `12.0` and `12.7`, which some servers send, count as 12."""
        value = self.data.get(key)
        if type(value) is int and 0 <= value <= MAX_COUNT:  # the usual case, and quick
            return value
        if value is None and not isinstance(default, _Required):
            return default
        number = self.number(key, default)
        if number < 0:
            return self._default(key, default, "a number from 0", code="invalid_value")
        return math.floor(number)

    def flag(self, key: str, default: bool) -> bool:
        value = self.data.get(key)
        if isinstance(value, bool):
            return value
        return self._default(key, default, "true or false")

    def audio(self, key: str) -> bytes:
        """Bytes from base64 (RFC 4648, section 4); patient readers take it unpadded and broken
        into lines, too."""
        text = self.data.get(key)
        if not isinstance(text, str):
            text = self.text(key)  # says what is wrong with it
        with contextlib.suppress(ValueError):
            return binascii.a2b_base64(text, strict_mode=True)
        error = self.wrong(key, "base64", code="invalid_value")
        digits = "".join(text.split()).rstrip("=")
        if self.oddities is None or not _BASE64_DIGITS.fullmatch(digits):
            raise error
        with contextlib.suppress(ValueError):
            audio = binascii.a2b_base64(digits + "=" * (-len(digits) % 4), strict_mode=True)
            self.tolerate(error)
            return audio
        raise error

    def optional_audio(self, key: str) -> bytes | None:
        try:
            return None if self.data.get(key) is None else self.audio(key)
        except MalformedEvent as error:
            self.tolerate(error)
            return None

    def optional_child(self, key: str) -> Fields | None:
        value = self.data.get(key)
        if isinstance(value, dict):
            return Fields(value, self.where(key), self.oddities)
        return self._default(key, None, "an object")

    def child(self, key: str) -> Fields:
        value = self.data.get(key)
        if isinstance(value, dict):
            return Fields(value, self.where(key), self.oddities)
        raise self.missing(key) if value is None else self.wrong(key, "an object")

    def object(self, key: str) -> Fields:
        """An object; one that is missing or odd has no fields to a patient reader."""
        try:
            return self.child(key)
        except MalformedEvent as error:
            self.tolerate(error)
            return Fields({}, self.where(key), self.oddities)

    def children(self, key: str) -> tuple[Fields, ...]:
        """Objects of an array; none when it is absent."""
        return tuple(
            Fields(value, f"{self.where(key)}[{index}]", self.oddities)
            for index, value in self._entries(key, dict, "an array of objects")
        )

    def texts(self, key: str) -> tuple[str, ...]:
        return tuple(value for _, value in self._entries(key, str, "an array of strings"))

    def text_map(self, key: str) -> dict[str, str]:
        """An object of strings; empty when it is absent. Patient readers take numbers as text."""
        found = self.optional_child(key)
        if found is None:
            return {}
        if not all(isinstance(value, str) for value in found.data.values()):
            self.tolerate(self.wrong(key, "an object of strings"))
        return {
            name: str(value)
            for name, value in found.data.items()
            if isinstance(value, (str, int, float)) and not isinstance(value, bool)
        }

    def text_or_object(self, key: str) -> str | Mapping[str, Any]:
        value = self.data.get(key)
        if isinstance(value, (str, dict)):
            return value
        raise self.wrong(key, "a string or an object")

    def _entries(self, key: str, kind: type, expected: str) -> list[tuple[int, Any]]:
        value = self.data.get(key)
        if value is None:
            return []
        entries = value if isinstance(value, list) else []
        taken = [(at, entry) for at, entry in enumerate(entries) if isinstance(entry, kind)]
        if not isinstance(value, list) or len(taken) < len(entries):
            self.tolerate(self.wrong(key, expected))
        return taken

    def _default(
        self, key: str, default: _T | _Required, expected: str, *, code: str = "invalid_type"
    ) -> _T:
        """The default of an absent field, and of an odd one to a patient reader."""
        given = self.data.get(key) is not None
        if isinstance(default, _Required):
            raise self.wrong(key, expected, code=code) if given else self.missing(key)
        if given:
            self.tolerate(self.wrong(key, expected, code=code))
        return default
