"""Who answers calls and what they can do: the settings' agents, tools and numbers as values."""

from app.assembly.agents import Talents
from app.assembly.build import Staff, hire
from app.assembly.destinations import Places
from app.assembly.python_functions import function_problems
from app.assembly.routing import Elsewhere, NumberPlan, Seat
from app.assembly.sessions import call_policy, session_config

__all__ = [
    "Elsewhere",
    "NumberPlan",
    "Places",
    "Seat",
    "Staff",
    "Talents",
    "call_policy",
    "function_problems",
    "hire",
    "session_config",
]
