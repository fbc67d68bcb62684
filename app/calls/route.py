"""A call's route: the agent who answers it, with everything that holds for it; or a diversion."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from app.agents.agent import Agent
from app.agents.analysis.live_analysis import AnalysisPlan
from app.agents.roster import Roster
from app.calls.keypad.menu import KeypadMap
from app.calls.policy import CallPolicy
from app.carrier.base import Destination, Fallback, IncomingCall
from app.carrier.destinations import Destinations
from app.events import CarrierUsage, Cost, TokenUsage
from app.realtime.connecting import GuardedModel

__all__ = ["Diversion", "Route"]


def _unknown_cost(_usage: TokenUsage, _carrier: CarrierUsage | None) -> Cost:
    return Cost(model_known=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """The agent that answers a call, and everything that holds for the call.

    `roster` holds the agents that may take over, `keypads` what keys do beside each of them,
    `destinations` where they may transfer callers to. Callers go to `fallback` when no agent
    can answer. `price` says what was spent so far. `variables` are the call's own values of its
    agents' variables. `configuration` is the version that routed it. `can_keep_messages` says
    whether messages of callers can be written where they are kept.
    """

    agent: Agent
    roster: Roster
    model: GuardedModel
    policy: CallPolicy = field(default_factory=CallPolicy)
    keypads: Mapping[str, KeypadMap] = field(default_factory=dict)
    destinations: Destinations = field(default_factory=Destinations)
    fallback: Destination | None = None
    price: Callable[[TokenUsage, CarrierUsage | None], Cost] = field(default=_unknown_cost)
    analysis: AnalysisPlan | None = None
    configuration: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    can_keep_messages: Callable[[], Awaitable[bool]] | None = None

    def fallback_of(self, incoming: IncomingCall) -> Fallback | None:
        """The way to the fallback for one caller."""
        if self.fallback is None:
            return None
        return Fallback(
            to=self.fallback,
            caller_number=incoming.caller_number,
            our_number=incoming.called_number,
        )


@dataclass(frozen=True, slots=True)
class Diversion:
    """No agent answers the call: something is said, or it is put through, or both.

    With nothing to say and nowhere to go, the carrier says that all lines are busy.
    """

    code: str
    say: str | None = None
    to: Destination | None = None
