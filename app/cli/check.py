"""`trunkline config check`: everything that is wrong with a configuration, in one run.

Nothing is connected to. Python that the configuration names is imported, and the offline engine's
synthesizer is asked for its voices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from app.assembly import assemble, function_problems
from app.assembly.answering import offline_problems, speech_problems
from app.errors import ConfigError
from app.settings import Settings, check_deployment, load, named_functions, notices

__all__ = ["Checked", "check_config"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What is wrong, and what may surprise. `settings` are absent where they could not be read."""

    settings: Settings | None = None
    problems: list[str]
    notices: tuple[str, ...] = ()


def check_config(path: Path, env: Mapping[str, str]) -> Checked:
    """Whether the server would start with the file at `path`, and why not."""
    try:
        settings = load(path, env)
    except ConfigError as error:
        # What follows needs all settings; but a function is a function whatever else is wrong.
        return Checked(problems=[*error.message.splitlines(), *_functions(path, env)])
    problems = [*offline_problems(settings), *speech_problems(settings)]
    surprises: list[str] = []
    try:
        surprises = assemble(settings).notices()
    except ConfigError as error:
        problems += error.message.splitlines()
    return Checked(
        settings=settings,
        problems=[*problems, *check_deployment(settings)],
        notices=(*notices(settings, datetime.now(UTC).date()), *surprises),
    )


def _functions(path: Path, env: Mapping[str, str]) -> list[str]:
    try:
        origin, functions = named_functions(path, env)
    except ConfigError:  # the file cannot be read at all, which has been said
        return []
    return function_problems(origin, functions)
