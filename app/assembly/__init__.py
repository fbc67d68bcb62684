"""Who answers calls and what they can do: the settings' agents, tools and numbers as values."""

from app.assembly.agents import AgentParts
from app.assembly.build import Assembly, assemble
from app.assembly.destinations import DestinationBook
from app.assembly.python_functions import function_problems
from app.assembly.routing import Diversion, Route, RoutingTable
from app.assembly.sessions import call_policy, session_config

__all__ = [
    "AgentParts",
    "Assembly",
    "DestinationBook",
    "Diversion",
    "Route",
    "RoutingTable",
    "assemble",
    "call_policy",
    "function_problems",
    "session_config",
]
