"""The demo's scenario: the words of the scripted model, and what must have happened at the end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from app.events import (
    AgentSaid,
    CallEnded,
    CallEvent,
    EndReason,
    GuardrailTripped,
    HandedOff,
    KeyPressed,
    StreamOpened,
    ToolRan,
)
from tests.fakes.voice import Reply

__all__ = ["HEARD", "REPLIES", "Step", "steps"]

HEARD: Final = (
    "I would like to book an appointment.",
    "On Thursday, please.",
    "What can I take for a headache?",
    "Can I talk to the nurse, please?",
    "Okay, thank you. Goodbye.",
)

_PACE_S: Final = 0.03
"""Between chunks of 100 ms: the words come faster than they are spoken, as a model's do."""


def _says(text: str, tool: str = "", **arguments: Any) -> Reply:
    call = (tool, json.dumps(arguments)) if tool else None
    return Reply(text=text, tool=call, chunk_pause_s=_PACE_S)


_READS_ALOUD: Final = _says("")
"""The words are Trunkline's: a greeting, a question for a key, a guardrail's."""

REPLIES: Final = (
    _READS_ALOUD,
    _says("I am handing you over to our booking desk.", "transfer_to_booking"),
    _says("This is the booking desk. Which day suits you, Tuesday or Thursday?"),
    _says(
        "Thursday morning at half past nine is free. "
        "Please key in your patient number, four digits.",
        "collect_digits",
        min_digits=4,
        max_digits=4,
    ),
    _says("Thank you.", "book_appointment", day="Thursday", patient_number="4711"),
    _READS_ALOUD,
    _says("You are booked for Thursday morning at half past nine. Is there anything else?"),
    _says(
        "For a headache you can take something from the pharmacy, and I would say four hundred "
        "milligrams every six hours, but never more than that in a day."
    ),
    _READS_ALOUD,
    _says("I am putting you through to the nurse.", "transfer_call", destination="nurse"),
    _says("The nurse does not answer at the moment. What else can I do for you?"),
    _says("You are welcome. Goodbye.", "end_call", reason="caller_said_goodbye"),
)


@dataclass(frozen=True, slots=True)
class Step:
    """Something that the demo shows, and whether it was seen."""

    what: str
    seen: bool


def steps(events: Sequence[CallEvent], appointments: Sequence[dict[str, Any]]) -> list[Step]:
    """The steps of the scenario, from what the server recorded and the clinic's server took."""
    booked = [each for each in appointments if each["day"] == "Thursday"]
    tools = {event.name: event.error for event in events if isinstance(event, ToolRan)}
    handed = [event for event in events if isinstance(event, HandedOff)]
    tripped = [e for e in events if isinstance(e, GuardrailTripped) and e.stopped]
    spoken = [event for event in events if isinstance(event, AgentSaid)]
    heard = " ".join(line.heard_text if line.cut_off else line.text for line in spoken)
    keys = [event.digit for event in events if isinstance(event, KeyPressed)]
    streams = sum(isinstance(event, StreamOpened) for event in events)
    ends = [event.summary.reason for event in events if isinstance(event, CallEnded)]
    return [
        Step("handed over from the front desk to booking", bool(handed)),
        Step("keyed in a number, a dot for each digit in the records", keys[:4] == ["•"] * 4),
        Step("booked an appointment over HTTP, after a key for yes", len(booked) == 1),
        Step(
            "a guardrail cut off a dose before it was heard",
            bool(tripped) and "milligrams" not in heard,
        ),
        Step(
            "put through to the nurse, and back when nobody answered",
            tools.get("transfer_call") == "" and streams == 2,
        ),
        Step("said goodbye and hung up", ends == [EndReason.AGENT_HUNG_UP]),
    ]
