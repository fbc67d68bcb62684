"""Options of a handoff: input, preparation, `is_enabled`."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import pytest

from app.agents.dialogue.actions import RunTool
from app.agents.handoffs import HandoffTo
from app.agents.instructions import CallFacts
from app.agents.roster import Roster
from app.agents.tools.call_control import CALL_TOOLS
from app.agents.tools.invocation import ToolInvoker
from app.agents.tools.tool import ToolContext, ToolResult
from app.errors import ConfigError, ToolFailed
from app.events import CallId, HandedOff
from app.realtime.events import ItemCreate, SessionConfig, SessionUpdate
from tests.unit.agents.harness import DialogueHarness, agent_named, call_of, tool_named

FACTS = CallFacts(call_id=CallId("c1"), caller_number="+15005550006")
TRANSFER = "transfer_to_billing"


@dataclass
class Complaint:
    about: str
    since: date


def harness_with(**options: Any) -> DialogueHarness:
    way = HandoffTo(agent="billing", **options)
    greeter = agent_named(instructions="Greet.", handoffs=(way, "repairs"))
    return DialogueHarness(
        greeter, agent_named("billing", instructions="Bill."), agent_named("repairs")
    )


def asked(harness: DialogueHarness, arguments: str = "{}") -> RunTool:
    """The model wants to hand over; what is to be done first."""
    harness.begins()
    harness.calls(call_of(TRANSFER, "c1", arguments))
    harness.ends()
    (run,) = harness.take(RunTool)
    return run


async def prepared(harness: DialogueHarness, run: RunTool) -> ToolResult:
    active = harness.dialogue.active
    agent = active.roster[run.agent]
    context = ToolContext(call_id=CallId("call"), tool_call_id=run.tool_call_id, agent=run.agent)
    box = ToolInvoker(active.roster.tools(agent, active.facts))
    result = await box.invoke(run.name, run.arguments, context)
    harness.do(
        harness.dialogue.function_calls.on_tool_done(
            run.tool_call_id, result.output, 0, reply=result.reply
        )
    )
    return result


def tools_of(session: SessionConfig) -> list[Mapping[str, Any]]:
    assert isinstance(session.tools, tuple)
    return list(session.tools)


async def test_on_handoff_is_called_before_the_handoff() -> None:
    seen: list[tuple[str, Complaint]] = []

    def told(context: ToolContext, complaint: Complaint) -> None:
        seen.append((context.agent, complaint))

    harness = harness_with(input_type=Complaint, on_handoff=told)
    run = asked(harness, '{"about": "invoice", "since": "2026-11-02"}')
    assert harness.order == []
    await prepared(harness, run)
    assert seen == [("greeter", Complaint("invoice", date(2026, 11, 2)))]
    assert harness.order == ["SessionUpdate"]
    harness.confirms()
    assert harness.order == ["SessionUpdate", "HandedOff", "ItemCreate", "ResponseCreate"]
    ((_, output),) = harness.outputs()
    assert json.loads(output or "")["given"] == {"about": "invoice", "since": "2026-11-02"}


async def test_input_without_a_function_is_checked_and_passed_on() -> None:
    schema = {"type": "object", "properties": {"about": {"type": "string"}}, "required": ["about"]}
    harness = harness_with(input_type=schema)
    result = await prepared(harness, asked(harness))
    assert result.error == "tool_args_invalid"
    assert harness.take(SessionUpdate) == []
    assert harness.dialogue.active.agent.name == "greeter"
    assert len(harness.outputs()) == 1
    assert harness.requested() == [""]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_function_that_raises_prevents_the_handoff(asynchronous: bool) -> None:
    def refuse(context: ToolContext) -> None:
        raise ToolFailed("Billing has gone home.")

    async def refuse_later(context: ToolContext) -> None:
        refuse(context)

    harness = harness_with(on_handoff=refuse_later if asynchronous else refuse)
    await prepared(harness, asked(harness))
    assert harness.take(SessionUpdate) == []
    ((_, output),) = harness.outputs()
    assert json.loads(output or "")["error"] == "Billing has gone home."
    assert harness.requested() == [""]
    # And the next one is not held up by it.
    harness.begins("r2")
    harness.calls(call_of("transfer_to_repairs", "c2"), response_id="r2")
    assert len(harness.take(SessionUpdate)) == 1


async def test_a_second_handoff_while_the_first_is_prepared_is_refused() -> None:
    harness = harness_with(on_handoff=lambda _context: None)
    harness.begins()
    harness.calls(call_of(TRANSFER, "c1"), call_of("transfer_to_repairs", "c2"))
    harness.ends()
    (run,) = harness.take(RunTool)
    await prepared(harness, run)
    harness.confirms()
    outputs = dict(harness.outputs())
    assert "error" in json.loads(outputs["c2"] or "")
    assert harness.dialogue.active.agent.name == "billing"
    assert harness.requested() == [""]


async def test_a_handoff_that_is_ready_without_a_connection_is_done_on_the_next_one() -> None:
    harness = harness_with(on_handoff=lambda _context: None)
    run = asked(harness)
    harness.dialogue.on_lost()
    await prepared(harness, run)
    assert harness.dialogue.active.agent.name == "greeter"
    harness.actions.clear()
    harness.do(harness.dialogue.on_reconnected(0))
    assert len(harness.take(SessionUpdate)) == 1
    harness.take(ItemCreate)
    harness.confirms()
    assert harness.take(HandedOff)[0].to_agent == "billing"
    items = [create.item.type for create in harness.take(ItemCreate)]
    assert items == ["function_call", "function_call_output"]


async def test_a_handoff_of_an_agent_who_was_replaced_meanwhile_is_refused() -> None:
    harness = harness_with(on_handoff=lambda _context: None)
    run = asked(harness)
    harness.do(harness.dialogue.change_agent(harness.dialogue.active.roster["repairs"], 0))
    harness.take(SessionUpdate)
    await prepared(harness, run)
    assert harness.take(SessionUpdate) == []
    assert harness.dialogue.active.agent.name == "repairs"
    assert harness.requested() == [""]


def test_the_model_is_shown_the_name_the_words_and_the_input() -> None:
    way = HandoffTo(
        agent="billing", tool_name="to_money", description="For refunds.", input_type=Complaint
    )
    roster = Roster([agent_named(handoffs=(way,)), agent_named("billing")])
    (shown,) = tools_of(roster.session(roster.first, FACTS))
    assert shown["name"] == "to_money"
    assert shown["description"].endswith("For refunds.")
    assert shown["parameters"]["required"] == ["about", "since"]
    assert shown["parameters"]["additionalProperties"] is False


def test_what_is_not_enabled_is_not_offered_and_cannot_be_called() -> None:
    asked_with: list[CallFacts] = []

    def for_members(facts: CallFacts) -> bool:
        asked_with.append(facts)
        return facts.variables["tier"] == "member"

    way = HandoffTo(agent="billing", is_enabled=for_members)
    refund = tool_named("refund", is_enabled=for_members)
    never = tool_named("never", is_enabled=False)
    greeter = agent_named(
        handoffs=(way,), tools=(tool_named(), refund, never), variables={"tier": "guest"}
    )
    roster = Roster([greeter, agent_named("billing")])
    assert [t["name"] for t in tools_of(roster.session(greeter, FACTS))] == ["look_up"]
    assert [t.name for t in roster.tools(greeter, FACTS)] == ["look_up"]
    assert roster.handoff(greeter, TRANSFER, FACTS) is None
    assert asked_with[0].caller_number == "+15005550006"
    member = CallFacts(call_id=CallId("c2"), variables={"tier": "member"})
    offered = [t["name"] for t in tools_of(roster.session(greeter, member))]
    assert offered == ["look_up", "refund", TRANSFER]
    assert roster.handoff(greeter, TRANSFER, member) is way


def test_an_is_enabled_that_fails_disables_its_tool(caplog: pytest.LogCaptureFixture) -> None:
    def broken(facts: CallFacts) -> bool:
        raise KeyError(facts.caller_number)

    refund = tool_named("refund", is_enabled=broken)
    vague: Any = lambda _facts: "yes"  # noqa: E731
    roster = Roster([agent_named(tools=(refund, tool_named("pay", is_enabled=vague)))])
    with caplog.at_level(logging.WARNING):
        assert roster.tools(roster.first, FACTS) == []
    assert {record.message for record in caplog.records} == {"is_enabled failed"}


async def nothing(facts: CallFacts) -> bool:
    await asyncio.sleep(0)
    return True


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"is_enabled": nothing}, "is_enabled .* cannot be async"),
        ({"is_enabled": "yes"}, "is_enabled takes a function"),
        ({"is_enabled": lambda: True}, "is_enabled is called with one argument"),
        ({"on_handoff": "call me"}, "on_handoff is not a function"),
        ({"on_handoff": lambda: None}, "on_handoff is called with the context"),
        (
            {"on_handoff": lambda _context: None, "input_type": Complaint},
            "on_handoff is called with the context and the input",
        ),
        ({"input_type": int}, "must be a JSON schema of type object"),
        ({"input_type": {"type": "string"}}, "must be a JSON schema of type object"),
        ({"tool_name": "to billing"}, "a name is up to 64 letters"),
        ({"tool_name": "look_up"}, "two tools are named 'look_up'"),
        ({"tool_name": next(iter(CALL_TOOLS))}, "a handoff has the name of the tool"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], complaint: str) -> None:
    way = HandoffTo(agent="billing", **options)
    with pytest.raises(ConfigError, match=complaint):
        Roster([agent_named(handoffs=(way,), tools=(tool_named(),)), agent_named("billing")])


# Instructions -------------------------------------------------------------------------------------


def test_instructions_are_written_for_each_call() -> None:
    def written(facts: CallFacts) -> str:
        return f"You serve {facts.variables['shop']}. {{caller}} is {facts.caller_number}."

    roster = Roster([agent_named(instructions_for=written, variables={"shop": "North"})])
    text = roster.session(roster.first, FACTS).instructions
    # What a function wrote is not a template.
    assert text == "You serve North. {caller} is +15005550006."


@pytest.mark.parametrize("answer", [KeyError("+15005550006"), None])
def test_instructions_that_fail_leave_those_of_the_session(
    answer: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    def written(facts: CallFacts) -> Any:
        if answer is not None:
            raise answer

    agent = agent_named(instructions="Serve {caller}.", instructions_for=written)
    roster = Roster([agent])
    with caplog.at_level(logging.WARNING):
        assert roster.session(agent, FACTS).instructions == "Serve +15005550006."
    assert [record.message for record in caplog.records] == ["instructions failed"]


def test_instructions_are_a_function_of_one_argument() -> None:
    with pytest.raises(ConfigError, match="instructions_for is called with one argument"):
        Roster([agent_named(instructions_for=lambda _facts, _agent: "")])


def test_instructions_cannot_be_awaited() -> None:
    with pytest.raises(ConfigError, match=r"instructions_for .* cannot be async"):
        Roster([agent_named(instructions_for=nothing)])
