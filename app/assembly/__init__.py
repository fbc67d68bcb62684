"""The agents that answer calls and what they can do, made of settings."""

from app.assembly.agents.python_functions import function_problems
from app.assembly.agents.sessions import call_policy, session_config
from app.assembly.build import Assembly, assemble

__all__ = [
    "Assembly",
    "assemble",
    "call_policy",
    "find_agents",
    "function_problems",
    "session_config",
]
