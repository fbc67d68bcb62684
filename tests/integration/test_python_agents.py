"""Agents written in Python answer the phone: with the settings around them, and HandoffTo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.agents.agent import Agent
from app.agents.handoffs import HandoffTo
from app.agents.tools.tool import ToolContext
from app.assembly import assemble
from app.assembly.agents.python_agents import find_agents
from app.errors import ConfigError
from app.events import AgentSaid, HandedOff, ToolRan
from app.realtime.events import SAY_METADATA_KEY, ResponseCreate, SessionUpdate
from app.settings import load
from audio.format import PCMU_8K
from tests.fakes.voice import Reply, ScriptedVoiceServer
from tests.integration.server import GREETING, trunkline

NUMBER = "+15005550002"


def opening_hours(day: str) -> str:
    """Tell the opening hours of a day."""
    return f"{day}: nine to five"


async def test_agents_written_in_python_answer_use_tools_and_hand_over() -> None:
    told: list[str] = []

    def note(context: ToolContext) -> None:
        told.append(context.agent)

    billing = Agent("billing", instructions="Answer about bills.")
    reception = Agent(
        "reception",
        instructions="Be brief.",
        voice="cedar",
        tools=[opening_hours],
        handoffs=[HandoffTo(agent="billing", on_handoff=note)],
    )
    replies = [
        Reply(text=GREETING),
        Reply(text="Let me look.", tool=("opening_hours", '{"day": "Monday"}')),
        Reply(text="Nine to five.", tool=("transfer_to_billing", "{}")),
        Reply(text="Billing here."),
    ]
    async with (
        ScriptedVoiceServer(replies=replies) as voice,
        trunkline(voice, written=[reception, billing]) as app,
        app.twilio() as twilio,
    ):
        call = await twilio.call(app.url)
        await app.event(call, AgentSaid)
        await call.speak(0.6)
        handed = await app.event(call, HandedOff)
        assert (handed.from_agent, handed.to_agent) == ("reception", "billing")
        await app.event(call, AgentSaid, lambda said: said.text == "Billing here.")
        await call.hang_up()
        ran = [event.name for event in await app.events(call) if isinstance(event, ToolRan)]
        assert ran == ["opening_hours", "transfer_to_billing"]
        assert told == ["reception"]
        session = voice.latest.of(SessionUpdate)[0].session
        assert session.instructions.startswith("Be brief.")
        assert session.voice == "cedar"
        assert session.output_format is not None
        assert {"end_call", "opening_hours"} <= {one["name"] for one in session.tools}
        asked: ResponseCreate = voice.latest.of(ResponseCreate)[0]
        assert asked.response is not None
        assert asked.response.metadata == {SAY_METADATA_KEY: GREETING}


def assembled(folder: Path, written: str, *agents: Agent) -> Any:
    (folder / "config.yaml").write_text(written)
    return assemble(
        load(folder / "config.yaml", {"OPENAI_API_KEY": "sk-for-a-test"}), agents=agents
    )


SECTION = """
openai_realtime: {voice: marin, greeting: "Good day.", audio: {format: pcmu}}
destinations: {office: {number: "+15551230000"}}
agents:
  reception: {tools: [transfer_call], limits: {silence_s: 45}, description: "The reception"}
  night: {instructions: "We are closed."}
numbers:
  "+15005550002":
    agent: reception
    voice: cedar
    languages: [de]
    greeting: "Guten Tag."
    variables: {company: "the salon"}
"""


def test_the_settings_complete_an_agent_of_their_section_s_name(tmp_path: Path) -> None:
    reception = Agent(
        "reception",
        instructions="Be brief at {company}.",
        voice="alloy",
        variables={"company": "ours"},
        tools=[opening_hours],
        handoffs=["night"],
    )
    assembly = assembled(tmp_path, SECTION, reception)
    everywhere = assembly.route_of().agent
    assert everywhere.session.voice == "alloy"
    assert everywhere.greeting == "Good day."
    assert everywhere.input_format == PCMU_8K
    assert everywhere.description == "The reception"
    assert [one.name for one in everywhere.tools][:2] == ["opening_hours", "transfer_call"]
    assert assembly.route_of().policy.silence_ms == 45_000
    assert [one.name for one in assembly.roster] == ["reception", "night"]
    there = assembly.route_of(NUMBER).agent
    assert there.session.voice == "cedar"
    assert there.greeting == "Guten Tag."
    assert there.variables == {"company": "the salon"}
    assert there.instructions.startswith("Be brief at {company}.\n\nSpeak de")


def test_an_agent_without_a_section_has_the_settings_of_all(tmp_path: Path) -> None:
    written = 'openai_realtime: {voice: marin, system_instruction: "Be kind."}'
    clerk = Agent("clerk", instructions=lambda facts: "Short.")
    assembly = assembled(tmp_path, written, clerk)
    agent = assembly.route_of().agent
    assert agent.name == "clerk"
    assert (agent.voice, agent.instructions) == ("marin", "Be kind.")
    assert agent.instructions_for is clerk.instructions_for


def test_notices_about_agents_name_their_place_or_the_agent(tmp_path: Path) -> None:
    reception = Agent("reception", voice="ash", handoffs=["night", "billing"])
    night, billing = (
        Agent("night", voice="cedar"),
        Agent("billing", voice="ash", handoffs=["night"]),
    )
    written = "agents:\n  reception: {limits: {silence_s: 45}}\n"
    notices = assembled(tmp_path, written, reception, night, billing).notices()
    about_voices = [one.partition(", whose voice")[0] for one in notices if "whose voice" in one]
    assert about_voices == [
        "config.yaml:2: agents.reception: hands over to 'night'",
        "agent 'billing': hands over to 'night'",
    ]


AGENTS = """
from trunkline import Agent, Roster

reception = Agent(name="reception")
roster = Roster([reception, Agent(name="billing")])
several = [reception]
nothing = []
number = 5
lost = [Agent(name="reception", handoffs=["nobody"])]
"""


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("reception", ["reception"]),
        ("roster", ["reception", "billing"]),
        ("several", ["reception"]),
    ],
)
def test_agents_are_found_by_their_path(name: str, names: list[str], tmp_path: Path) -> None:
    (tmp_path / "agents_that_are_found.py").write_text(AGENTS)
    found = find_agents(f"agents_that_are_found:{name}", tmp_path)
    assert [agent.name for agent in found] == names


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "{m}",
            "{m}: name the agents in it, as {m}:NAME; there are: reception, roster, several, lost",
        ),
        ("{m}:rooster", "in {m}, there is no agent or roster 'rooster'; did you mean \"roster\"?"),
        ("{m}:number", "{m}:number is of the type int: name an Agent, a Roster or a list of"),
        ("{m}:nothing", "{m}:nothing is of the type list: name an Agent, a Roster or a list of"),
        ("{m}:lost", "{m}:lost: agent 'reception': hands over to 'nobody'"),
        ("no_such_module:x", "there is no module 'no_such_module', neither installed nor in "),
        ("{m}.py:roster", "'{m}.py' is not the name of a Python module: write {m}"),
        ("./{m}.py:roster", "'./{m}.py' is not the name of a Python module: write {m}"),
        (":roster", "'' is not the name of a Python module"),
        ("", "'' is not the name of a Python module"),
        ("broken_agents:roster", "broken_agents cannot be imported: "),
    ],
)
def test_a_path_without_agents_is_told_what_is_there(
    path: str, message: str, tmp_path: Path
) -> None:
    module = "agents_that_are_there"
    (tmp_path / f"{module}.py").write_text(AGENTS)
    (tmp_path / "broken_agents.py").write_text("from trunkline import Agent\nAgent(nam='x')\n")
    with pytest.raises(ConfigError) as raised:
        find_agents(path.format(m=module), tmp_path)
    assert raised.value.message.startswith(message.format(m=module))
