"""What a call is made of besides itself: handed to it by the switchboard. Values only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from app.agents.book import AgentBook
from app.agents.thinking import BrainPlan
from app.calls.menu import KeypadMap
from app.calls.policy import CallPolicy
from app.carrier.base import CallControl, Fallback
from app.carrier.destinations import Destinations
from app.events import CallEvent, TokenUsage
from app.realtime.connecting import GuardedModel

__all__ = ["CallParts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallParts:
    """What a call is made of besides itself."""

    model: GuardedModel
    carrier: CallControl
    policy: CallPolicy
    record: Callable[[CallEvent], None]
    clock_ms: Callable[[], int]
    unix_s: Callable[[], float]
    price: Callable[[TokenUsage], float | None]
    book: AgentBook | None = None
    keypads: Mapping[str, KeypadMap] = field(default_factory=dict)
    destinations: Destinations = field(default_factory=Destinations)
    issue_token: Callable[[], str] = str
    """Makes the token that the call's next media stream brings."""
    fallback: Fallback | None = None
    brain: BrainPlan | None = None
