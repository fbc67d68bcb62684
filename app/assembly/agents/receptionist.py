"""The offline receptionist's facts and tools, checked against the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.assembly.problems import agent_place
from app.errors import ConfigError
from app.settings import Mode, Settings, VoiceChoice

if TYPE_CHECKING:
    from app.agents.roster import Roster
    from app.engine.receptionist.script import Script

__all__ = ["given_facts", "missing_facts", "receptionist_notices"]


def given_facts(settings: Settings) -> dict[str, str]:
    """The facts that the settings give."""
    offline = settings.offline
    facts = {"business": offline.business, "hours": offline.hours, "address": offline.address}
    return {name: fact.rstrip(".") for name, fact in facts.items() if fact is not None}


def missing_facts(settings: Settings) -> list[str]:
    """Facts that callers would hear wrong: the demo office's on a live server, or none at all.

    Raises:
        ConfigError: the dialogue is wrong.
    """
    from app.engine.receptionist.script_file import own_facts

    script = _script(settings)
    known = own_facts(script) if settings.mode is Mode.LIVE else script.facts
    given = {*known, *given_facts(settings)}
    numbers = settings.all_numbers
    if numbers and all(n in settings.numbers and settings.numbers[n].hours for n in numbers):
        given.add("hours")
    return [
        f"{settings.origin.place('offline')}: {name} is missing: callers would hear of the demo"
        f" office. Set offline.{name}"
        for name in ("business", "hours", "address")
        if name in script.tells and name not in given
    ]


def receptionist_notices(settings: Settings, roster: Roster) -> list[str]:
    """Tools of agents that the offline dialogue never calls: callers cannot reach them."""
    if settings.voice_choice is not VoiceChoice.OFFLINE:
        return []
    try:
        reached = _script(settings).tools
    except ConfigError:  # which the start and `config check` report
        return []
    found = []
    for agent in roster:
        unreached = [name for name in roster.tool_names(agent) if name not in reached]
        if unreached and (agent.name in settings.agents or agent.tools):
            place, names = agent_place(settings, agent.name), ", ".join(unreached)
            found.append(
                f"{place}: the offline dialogue never calls {names}."
                " Write one that does, and set offline.receptionist"
            )
    return found


def _script(settings: Settings) -> Script:
    from app.engine.receptionist.script_file import DEFAULT_SCRIPT, load_script

    return load_script(settings.offline.receptionist or DEFAULT_SCRIPT)
