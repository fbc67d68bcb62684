"""`trunkline config check`: all mistakes of a configuration, in one run.

It makes no connection. It imports the Python that the configuration names, and asks the offline
engine's synthesizer for its voices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from app.assembly import assemble, function_problems
from app.assembly.agents.python_agents import find_agents
from app.assembly.voice_models import offline_problems, speech_problems
from app.errors import ConfigError
from app.network import use_network
from app.settings import Settings, check_deployment, load, named_functions, notices
from app.settings.reader.secrets import hide_secrets

__all__ = ["Checked", "check_config"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """Problems and notices of a configuration; `settings` is None where it could not be read."""

    settings: Settings | None = None
    problems: list[str]
    notices: tuple[str, ...] = ()


def check_config(path: Path, env: Mapping[str, str], agents: str | None = None) -> Checked:
    """Check that the server would start with the file at `path`.

    `agents` are written in Python, named as for `trunkline serve`.
    """
    try:
        settings = load(path, env)
    except ConfigError as error:
        # The rest needs all settings; but a function is a function whatever else is wrong.
        return Checked(problems=[*error.message.splitlines(), *_functions(path, env)])
    use_network(settings.network.rule)
    problems = [*offline_problems(settings), *speech_problems(settings)]
    surprises: list[str] = []
    try:
        written = find_agents(agents, Path.cwd()) if agents is not None else ()
        assembly = assemble(settings, agents=written)
        if not problems:  # the notices read the dialogue, too
            surprises = assembly.notices()
    except ConfigError as error:
        problems += error.message.splitlines()
    problems += check_deployment(settings)
    found = (*notices(settings, datetime.now(UTC).date()), *surprises)
    secrets = settings.secrets()
    return Checked(
        settings=settings,
        problems=[hide_secrets(text, secrets) for text in problems],
        notices=tuple(hide_secrets(text, secrets) for text in found),
    )


def _functions(path: Path, env: Mapping[str, str]) -> list[str]:
    try:
        origin, functions = named_functions(path, env)
    except ConfigError:  # the file cannot be read at all, which has been said
        return []
    return function_problems(origin, functions)
