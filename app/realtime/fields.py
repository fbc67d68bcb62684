"""Checked reading of JSON objects: every getter names the field that is wrong.

Patient and strict at once: an absent or null field takes its default where it has one, a field
of the wrong type is malformed. Numbers are bounded, base64 is strict. Nothing but
`MalformedEvent` leaves a getter.
"""

from __future__ import annotations

import binascii
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from app.errors import RemoteProtocolError

__all__ = ["REQUIRED", "Fields", "MalformedEvent"]

MAX_COUNT: Final = 2**53  # beyond it JSON numbers are not exact (RFC 8259, section 6)


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
    """One JSON object on the wire and the path that leads to it."""

    data: Mapping[str, Any]
    path: str = ""

    def where(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def has(self, key: str) -> bool:
        """Whether the field is there, null included."""
        return key in self.data

    def wrong(self, key: str, expected: str, *, code: str = "invalid_type") -> MalformedEvent:
        param = self.where(key)
        return MalformedEvent(f"{param}: expected {expected}", code=code, param=param)

    def missing(self, key: str) -> MalformedEvent:
        param = self.where(key)
        return MalformedEvent(f"{param}: missing", code="missing_required_parameter", param=param)

    def text(self, key: str, default: str | _Required = REQUIRED) -> str:
        value = self.data.get(key)
        if isinstance(value, str):
            return value
        if value is not None:
            raise self.wrong(key, "a string")
        if isinstance(default, _Required):
            raise self.missing(key)
        return default

    def optional_text(self, key: str) -> str | None:
        value = self.data.get(key)
        if value is None or isinstance(value, str):
            return value
        raise self.wrong(key, "a string")

    def number(self, key: str, default: float | _Required = REQUIRED) -> float:
        value = self.data.get(key)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            if -MAX_COUNT <= value <= MAX_COUNT:  # false for not-a-number too
                return float(value)
            raise self.wrong(key, "a number in range", code="invalid_value")
        if value is not None:
            raise self.wrong(key, "a number")
        if isinstance(default, _Required):
            raise self.missing(key)
        return default

    def count(self, key: str, default: int | _Required = REQUIRED) -> int:
        """A whole number from 0; `12.0` and `12.7`, which some servers send, count as 12."""
        value = self.data.get(key)
        if type(value) is int and 0 <= value <= MAX_COUNT:  # the usual case, and quick
            return value
        if value is None and not isinstance(default, _Required):
            return default
        number = self.number(key)
        if number < 0:
            raise self.wrong(key, "a number from 0", code="invalid_value")
        return math.floor(number)

    def flag(self, key: str, default: bool) -> bool:
        value = self.data.get(key)
        if value is None:
            return default
        if isinstance(value, bool):
            return value
        raise self.wrong(key, "true or false")

    def audio(self, key: str) -> bytes:
        """Bytes from base64 (RFC 4648, section 4), padded and without foreign characters."""
        try:
            return binascii.a2b_base64(self.text(key), strict_mode=True)
        except ValueError:
            raise self.wrong(key, "base64", code="invalid_value") from None

    def optional_audio(self, key: str) -> bytes | None:
        return None if self.data.get(key) is None else self.audio(key)

    def optional_child(self, key: str) -> Fields | None:
        value = self.data.get(key)
        if value is None:
            return None
        if isinstance(value, dict):
            return Fields(value, self.where(key))
        raise self.wrong(key, "an object")

    def child(self, key: str) -> Fields:
        found = self.optional_child(key)
        if found is None:
            raise self.missing(key)
        return found

    def children(self, key: str) -> tuple[Fields, ...]:
        """Objects of an array; none when it is absent."""
        return tuple(
            Fields(value, f"{self.where(key)}[{index}]")
            for index, value in enumerate(self.array(key, dict, "an array of objects"))
        )

    def texts(self, key: str) -> tuple[str, ...]:
        return tuple(self.array(key, str, "an array of strings"))

    def array(self, key: str, kind: type, expected: str) -> list[Any]:
        value = self.data.get(key)
        if value is None:
            return []
        if isinstance(value, list) and all(isinstance(entry, kind) for entry in value):
            return value
        raise self.wrong(key, expected)

    def text_map(self, key: str) -> dict[str, str]:
        """An object of strings; empty when it is absent."""
        found = self.optional_child(key)
        if found is None:
            return {}
        if all(isinstance(value, str) for value in found.data.values()):
            return dict(found.data)
        raise self.wrong(key, "an object of strings")

    def text_or_object(self, key: str) -> str | Mapping[str, Any]:
        value = self.data.get(key)
        if isinstance(value, (str, dict)):
            return value
        raise self.wrong(key, "a string or an object")
