"""The agents that answer calls and what they can do, made of settings."""

from app.assembly.build import Assembly, assemble
from app.assembly.python_functions import function_problems
from app.assembly.sessions import call_policy, session_config

__all__ = [
    "Assembly",
    "assemble",
    "call_policy",
    "find_agents",
    "function_problems",
    "session_config",
]
