"""Who answers calls and what they can do: the settings' agents, tools and numbers as values."""

from app.staff.agents import Talents
from app.staff.functions import function_problems
from app.staff.hiring import Staff, hire
from app.staff.numbers import Elsewhere, NumberPlan, Seat
from app.staff.places import Places
from app.staff.sessions import call_policy, session_config

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
