"""Settings that are allowed and do nothing beside the others: each is named at the start.

Only what was given and differs from its default counts: a file may show all defaults.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from app.settings.model import Settings, VoiceChoice
from app.settings.reader.origin import Place
from app.settings.sections.agents import AgentSettings
from app.settings.sections.realtime import OpenAIRealtime, SessionOverrides
from app.settings.values import Section

__all__ = ["KEY_HEADERS", "without_effect"]

Found = Iterator[tuple[Place, str]]

KEY_HEADERS: Final = frozenset(("authorization", "api-key"))
"""With one of these a server has a key of its own, and is not sent OpenAI's."""

_TRANSCRIPTION_KEYS: Final = {
    "languages": ("gpt-transcribe", "gpt-live-transcribe"),
    "keywords": ("gpt-transcribe", "gpt-live-transcribe"),
    "delay": ("gpt-realtime-whisper",),
}


def without_effect(settings: Settings) -> Found:
    """Each setting that does nothing: where it stands, and why."""
    yield from _of_the_other_model(settings)
    model = settings.openai_realtime
    yield from _of_speech(("openai_realtime",), model, model)
    for name, agent in settings.agents.items():
        yield from _of_speech(("agents", name), agent, model)
    for number, there in settings.numbers.items():
        yield from _of_transcription(("numbers", number), there, model)
    limits = settings.limits
    if limits.duration_warning_s == 0 and _given(limits, "duration_warning"):
        yield ("limits", "duration_warning"), "is not said: duration_warning_s is 0"
    for key in ("prompts", "goodbye"):
        if limits.inactivity.after_s == 0 and _given(limits.inactivity, key):
            yield ("limits", "inactivity", key), "is not said: after_s is 0"
    yield from _unused(settings)


def _given(section: Section, key: str) -> bool:
    default = type(section).model_fields[key].default
    return key in section.model_fields_set and getattr(section, key) not in (default, None, ())


def _of_the_other_model(settings: Settings) -> Found:
    model, offline = settings.openai_realtime, settings.offline
    if settings.voice_choice is VoiceChoice.OPENAI:
        for key in type(offline).model_fields:
            if key != "messages_dir" and _given(offline, key):
                yield ("offline", key), "does nothing: the engine does not run beside openai"
        if model.api_key and KEY_HEADERS & {name.lower() for name in model.headers}:
            yield ("openai_realtime", "api_key"), "is not sent: headers hold a key"
        return
    answers = (
        "the pipeline" if settings.voice_choice is VoiceChoice.PIPELINE else "the offline engine"
    )
    for number, there in settings.numbers.items():
        if there.model is not None:
            yield ("numbers", number, "model"), f"does nothing: {answers} answers"


def _of_speech(
    place: Place, section: OpenAIRealtime | AgentSettings, model: OpenAIRealtime
) -> Found:
    if (section.speaks_first or model.speaks_first) == "caller":
        if _given(section, "greeting"):
            yield (*place, "greeting"), "is not said: speaks_first is caller"
        if isinstance(section, AgentSettings) and section.menu is not None:
            yield (*place, "menu"), "is not spoken: speaks_first is caller"
    yield from _of_transcription(place, section, model)


def _of_transcription(
    place: Place, section: OpenAIRealtime | SessionOverrides, model: OpenAIRealtime
) -> Found:
    written = section.transcription
    if written is None or not model.is_openai:
        return
    named = written if "model" in written.model_fields_set else model.transcription or written
    for key, models in _TRANSCRIPTION_KEYS.items():
        if _given(written, key) and named.model not in models:
            yield (*place, "transcription", key), f"is for {' and '.join(models)} only"


def _unused(settings: Settings) -> Found:
    """Entries of tables that no call ever gets to."""
    agents = list(settings.agents.values())
    reached = _reached(settings)
    yield from (
        (("agents", name), "answers no call: no number, key or handoff leads to it")
        for name in settings.agents
        if name not in reached
    )
    tasks = settings.analysis.task_tool if settings.analysis else None
    of_servers = settings.mcp_servers if tasks and tasks not in settings.tools else ()
    calls_people = any({"transfer_call", "send_sms"} & {*agent.tools} for agent in agents)
    tables: tuple[tuple[str, Iterable[str], set[str | None]], ...] = (
        ("tools", settings.tools, {tasks, *(name for one in agents for name in one.tools)}),
        ("guardrails", settings.guardrails, {name for one in agents for name in one.guardrails}),
        (
            "mcp_servers",
            settings.mcp_servers,
            {*of_servers, *(name for one in agents for name in one.mcp_servers)},
        ),
        (
            "destinations",
            settings.destinations,
            {*(settings.destinations if calls_people else ()), *_led_to(settings, "transfer")},
        ),
    )
    for table, names, used in tables:
        yield from (((table, name), "is used by no agent") for name in names if name not in used)


def _reached(settings: Settings) -> set[str]:
    """The agents that a call can come to."""
    waiting = [*list(settings.agents)[:1], *(n.agent for n in settings.numbers.values())]
    waiting += [number.closed.agent for number in settings.numbers.values()]
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        agent = settings.agents.get(name or "")
        if name is None or agent is None or name in found:
            continue
        found.add(name)
        waiting += [*agent.handoffs, *_led_to_by(agent, "agent")]
    return found


def _led_to(settings: Settings, kind: str) -> Iterator[str | None]:
    for agent in settings.agents.values():
        yield from _led_to_by(agent, kind)
    for number in settings.numbers.values():
        yield number.fallback
        yield number.closed.transfer


def _led_to_by(agent: AgentSettings, kind: str) -> Iterator[str | None]:
    """The agents or places that an agent's keys lead to: `kind` is agent or transfer."""
    menu = (agent.menu.otherwise,) if agent.menu else ()
    for action in (*agent.keypad.values(), *menu):
        if not isinstance(action, str):
            yield getattr(action, kind)
