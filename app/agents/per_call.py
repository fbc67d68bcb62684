"""Functions of an operator that are called for each call: instructions, and `is_enabled`.

They run in the middle of the conversation, between two frames of sound, so they must not wait. One
that fails in whatever way, or takes longer than `app.threads.BRIEF_S`, costs the tool, the handoff
or its instructions, and never the call.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

from app.agents.instructions import CallFacts
from app.errors import ConfigError
from app.threads import briefly

__all__ = [
    "InstructionsFunction",
    "IsEnabled",
    "accepts",
    "check_function",
    "instructions_for",
    "is_offered",
]

logger = logging.getLogger(__name__)

InstructionsFunction = Callable[[CallFacts], str]
IsEnabled = bool | Callable[[CallFacts], bool]


def check_function(function: object, place: str) -> None:
    """Raise ConfigError for a function that cannot be called with a call's facts at once."""
    if isinstance(function, bool):
        return
    if not callable(function):
        raise ConfigError(f"{place} takes a function of the call's facts")
    if inspect.iscoroutinefunction(function):
        raise ConfigError(f"{place} is asked between two frames of sound: it cannot be async")
    if not accepts(function, 1):
        raise ConfigError(f"{place} is called with one argument, the call's facts")


def is_offered(is_enabled: IsEnabled, facts: CallFacts, name: str) -> bool:
    """Tell whether a tool or handoff is offered in this call; it is not where asking fails."""
    if isinstance(is_enabled, bool):
        return is_enabled
    try:
        enabled: object = briefly(is_enabled, facts)
    except BaseException as error:  # SystemExit in a task would end the whole process
        _report("is_enabled failed", name, type(error).__name__, str(error))
        return False
    if not isinstance(enabled, bool):
        _report("is_enabled failed", name, "no bool")
        return False
    return enabled


def instructions_for(function: InstructionsFunction, facts: CallFacts, agent: str) -> str | None:
    """An agent's instructions in this call; `None` where the function fails."""
    try:
        text: object = briefly(function, facts)
    except BaseException as error:  # SystemExit in a task would end the whole process
        _report("instructions failed", agent, type(error).__name__, str(error))
        return None
    if not isinstance(text, str):
        _report("instructions failed", agent, "no text")
        return None
    return text


def _report(message: str, name: str, error_type: str, detail: str = "") -> None:
    # The text of the error may hold what a caller said or who they are.
    extra = {"about": name, "error_type": error_type, "pii.detail": detail[:600]}
    logger.warning(message, extra=extra)


def accepts(function: Callable[..., Any], count: int) -> bool:
    """Tell whether a function can be called with `count` arguments, as far as it is known."""
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # written in C, without a signature
        return True
    return True
