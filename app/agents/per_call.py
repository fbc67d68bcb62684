"""What an operator's functions say of a call: its instructions, and whether something is offered.

They run in the middle of the conversation, between two frames of sound: nothing that waits belongs
into them. One that fails costs what it was asked about, and never the call.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

from app.agents.instructions import CallFacts
from app.errors import ConfigError

__all__ = ["InstructionsFunction", "Offer", "check_function", "is_offered", "takes", "written_for"]


logger = logging.getLogger(__name__)

InstructionsFunction = Callable[[CallFacts], str]
Offer = bool | Callable[[CallFacts], bool]


def check_function(function: object, place: str) -> None:
    """Raise ConfigError for what cannot be asked at once."""
    if isinstance(function, bool):
        return
    if not callable(function):
        raise ConfigError(f"{place} takes a function of the call's facts")
    if inspect.iscoroutinefunction(function):
        raise ConfigError(f"{place} is asked between two frames of sound: it cannot be async")
    if not takes(function, 1):
        raise ConfigError(f"{place} is called with one argument, the call's facts")


def is_offered(offer: Offer, facts: CallFacts, name: str) -> bool:
    """Whether a tool or handoff is there in this call; one that cannot be asked about is not."""
    if isinstance(offer, bool):
        return offer
    try:
        found: object = offer(facts)
    except Exception as error:
        _report("is_enabled failed", name, type(error).__name__, str(error))
        return False
    if not isinstance(found, bool):
        _report("is_enabled failed", name, "no bool")
        return False
    return found


def written_for(function: InstructionsFunction, facts: CallFacts, agent: str) -> str | None:
    """An agent's instructions in this call; `None` when the function has none to give."""
    try:
        found: object = function(facts)
    except Exception as error:
        _report("instructions failed", agent, type(error).__name__, str(error))
        return None
    if not isinstance(found, str):
        _report("instructions failed", agent, "no text")
        return None
    return found


def _report(message: str, name: str, error_type: str, detail: str = "") -> None:
    # The text of the error may hold what a caller said or who they are.
    extra = {"about": name, "error_type": error_type, "pii.detail": detail[:600]}
    logger.warning(message, extra=extra)


def takes(function: Callable[..., Any], count: int) -> bool:
    """Whether a function can be called with so many arguments, as far as it tells."""
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # written in C, without a signature
        return True
    return True
