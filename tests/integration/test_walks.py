"""The walks of docs/architecture.md are the ways that a call really takes."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from app.agents.tools.tool import tool
from app.events import AgentSaid
from tests.fakes.voice import Reply, ScriptedVoiceServer
from tests.integration.server import trunkline
from tests.integration.test_calls_tools import with_agents

ROOT = Path(__file__).parents[2]
WALKS = ("A media frame up", "A delta down", "A tool call and its answer")
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def steps(walk: str) -> list[tuple[str, str]]:
    """The files and functions of a walk, in order."""
    section = TEXT.split(f"\n### {walk}\n")[1].split("\n##")[0]
    return re.findall(r"^\| `([\w/.]+)` \| `([\w.]+)` \|", section, re.MULTILINE)


def missing(walk: list[tuple[str, str]], entered: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The steps that are not found in `entered` when they are looked for one after the other."""
    left = iter(entered)
    return [step for step in walk if step not in left]


async def test_a_call_with_a_tool_takes_each_walk() -> None:
    walks = {title: steps(title) for title in WALKS}
    wanted = {step for walk in walks.values() for step in walk}
    entered: list[tuple[str, str]] = []

    def note(frame: FrameType, event: str, _argument: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(str(ROOT / "app")):
            step = (str(Path(code.co_filename).relative_to(ROOT)), code.co_qualname)
            if step in wanted:
                entered.append(step)

    @tool
    def opening_hours(day: str) -> str:
        """Tell the opening hours."""
        return f"{day}: nine"

    replies = [
        Reply(text="Hello.", audio_ms=200),
        Reply(text="Let me look.", tool=("opening_hours", '{"day": "Monday"}')),
        Reply(text="At nine."),
    ]
    async with ScriptedVoiceServer(replies=replies) as voice, trunkline(voice) as app:
        with_agents(app, lambda agent: [replace(agent, tools=(opening_hours,))])
        async with app.twilio() as twilio:
            sys.setprofile(note)
            try:
                call = await twilio.call(app.url)
                await app.event(call, AgentSaid)
                await call.speak(0.6)
                await app.event(call, AgentSaid, lambda said: said.text == "At nine.")
                await call.hang_up()
            finally:
                sys.setprofile(None)
    assert {title: missing(walk, entered) for title, walk in walks.items()} == {
        title: [] for title in WALKS
    }
