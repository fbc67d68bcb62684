"""Events of `app.events` as records of the store, and back.

A record keeps its event's fields under their names. A field that is added later needs a default,
which older records then have; a class that is renamed keeps the type of its records in `_RENAMED`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import UnionType
from typing import Any, Final, get_args

import msgspec

from app.events import AnalysisEvent, CallEvent, CallId, CallLost, CallReviewed, ModelInput
from app.store.base import StoredEvent

__all__ = ["EVENT_TYPES", "Storable", "decode", "encode", "of_fields", "type_of"]

Storable = CallEvent | CallReviewed | CallLost

_RENAMED: Final[dict[type[Any], str]] = {ModelInput: "model_told"}
"""The types of records, which programs read, of classes that have another name by now."""


def _classes(union: UnionType) -> list[type[Any]]:
    found: list[type[Any]] = []
    for member in get_args(union):
        found += _classes(member) if get_args(member) else [member]
    return found


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)[1:]


EVENT_TYPES: Final[dict[str, type[Any]]] = {
    _RENAMED.get(one) or _snake(one.__name__): one for one in _classes(Storable)
}
"""The class of each type of record."""

_TYPES: Final = {one: name for name, one in EVENT_TYPES.items()}


def type_of(event: Storable | AnalysisEvent) -> str:
    """The type that an event's record has."""
    return _TYPES[type(event)]


def encode(event: Storable, *, seq: int, at: datetime) -> StoredEvent:
    """The record of an event."""
    body: dict[str, Any] = msgspec.to_builtins(event)
    call_id = CallId(body.pop("call_id"))
    at_ms = body.pop("at_ms", 0)
    at = at.replace(microsecond=at.microsecond // 1000 * 1000)  # as the store keeps it
    return StoredEvent(call_id=call_id, seq=seq, at=at, type=type_of(event), body=body, at_ms=at_ms)


def decode(record: StoredEvent) -> Storable | None:
    """The event of a record; None for a type or a shape that this version does not know."""
    return of_fields(record.type, {"call_id": record.call_id, "at_ms": record.at_ms, **record.body})


def of_fields(kind: str, fields: Mapping[str, Any]) -> Storable | None:
    """The event of a type with these fields as JSON has them; None as for `decode`."""
    known = EVENT_TYPES.get(kind)
    if known is None:
        return None
    try:
        event: Storable = msgspec.convert(fields, known)
    except msgspec.ValidationError:
        return None
    return event
