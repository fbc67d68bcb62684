"""One event of each kind, with every field filled, and calls made of events."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Final

from app.events import (
    AgentSaid,
    CallAdmitted,
    CallCounters,
    CallEnded,
    CallerSaid,
    CallId,
    CallSummary,
    EndReason,
    StreamOpened,
)
from app.store.base import StoredEvent
from app.store.codec import Storable, encode

__all__ = ["BEGAN", "call_events", "filled", "recorded"]

BEGAN: Final = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)


def filled(kind: Any, text: str = "words") -> Any:
    """A value of a class, with every field set and every text of it being `text`."""
    hints = typing.get_type_hints(kind)
    return kind(**{one.name: _value(hints[one.name], text) for one in dataclasses.fields(kind)})


def _value(hint: Any, text: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, typing.NewType) or hint is str:
        return CallId("call_1") if isinstance(hint, typing.NewType) else text
    if hint is Any:
        return text
    if hint in (int, float, bool):
        return hint(1)
    if dataclasses.is_dataclass(hint):
        return filled(hint, text)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return next(iter(hint))
    if origin is typing.Literal:
        return arguments[0]
    if origin in (typing.Union, types.UnionType):
        return _value(arguments[0], text)
    if origin is tuple:
        return (_value(arguments[0], text),)
    assert origin is Mapping or issubclass(origin, Mapping), f"how to fill {hint}?"
    return {"key": _value(arguments[1], text)}


def call_events(
    call_id: str = "call_1",
    *,
    caller: str = "+15550001111",
    called: str = "+15552223333",
    said: Sequence[str] = ("When do you open?",),
    answer: str = "We open at nine.",
    ended: bool = True,
) -> list[Storable]:
    """A call in which the agent answers each thing that the caller says."""
    of = CallId(call_id)
    events: list[Storable] = [
        CallAdmitted(
            call_id=of,
            carrier_call_id=f"CA-{call_id}",
            caller_number=caller,
            called_number=called,
            agent="reception",
            configuration="3f2a",
        ),
        StreamOpened(call_id=of, at_ms=300),
    ]
    for number, text in enumerate(said):
        item = f"item_{call_id}_{number}"
        events.append(CallerSaid(call_id=of, at_ms=1_000, item_id=item, text=text))
        events.append(
            AgentSaid(call_id=of, at_ms=2_000, item_id=f"a{item}", text=answer, heard_text=answer)
        )
    if ended:
        summary = CallSummary(
            call_id=of,
            carrier_call_id=f"CA-{call_id}",
            agent="reception",
            model="scripted",
            reason=EndReason.CALLER_HUNG_UP,
            duration_ms=3_000,
            counters=CallCounters(turns=len(said)),
            cost_usd=0.25,
            costs={"model_audio": 0.2, "carrier": 0.05},
            cost_unknown=("sms",),
            cost_estimated=True,
            recording_file=f"{call_id}.wav",
            recording_end="call_over",
        )
        events.append(CallEnded(call_id=of, at_ms=3_000, summary=summary))
    return events


def recorded(events: Sequence[Storable], *, began: datetime = BEGAN) -> list[StoredEvent]:
    """The records of a call's events, a second apart."""
    records = [
        encode(event, seq=number, at=began + timedelta(seconds=number))
        for number, event in enumerate(events, start=1)
    ]
    return [replace(one, body=json.loads(json.dumps(one.body))) for one in records]
