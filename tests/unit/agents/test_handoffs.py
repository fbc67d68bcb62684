"""From agent to agent in one call: settings, the tool's output, then the floor."""

from __future__ import annotations

import json

from app.agents.dialogue.actions import RunTool
from app.events import HandedOff
from app.realtime.events import UNSET, ItemCreate, ResponseStatus, SessionUpdate
from tests.unit.agents.harness import DialogueHarness, agent_named, call_of, tool_named

TRANSFER = "transfer_to_billing"


def harness_of_two(**billing: object) -> DialogueHarness:
    return DialogueHarness(
        agent_named(instructions="Greet.", voice="marin", handoffs=("billing",)),
        agent_named("billing", instructions="Bill.", tools=(tool_named(),), **billing),
    )


def asked(harness: DialogueHarness, tool_call_id: str = "c1") -> None:
    harness.begins()
    harness.speaks("One moment, I will put you through.")
    harness.calls(call_of(TRANSFER, tool_call_id))


def test_settings_come_first_then_the_output_then_the_reply() -> None:
    harness = harness_of_two()
    asked(harness)
    assert harness.order == ["SessionUpdate"]
    harness.ends()
    assert harness.order == ["SessionUpdate"]
    harness.confirms()
    assert harness.order == ["SessionUpdate", "HandedOff", "ItemCreate", "ResponseCreate"]
    session = harness.last_update().session
    assert isinstance(session.instructions, str)
    assert session.instructions.startswith("Bill.")
    assert isinstance(session.tools, tuple)
    assert [named["name"] for named in session.tools] == ["look_up"]
    ((_, output),) = harness.outputs()
    assert json.loads(output or "")["agent"] == "billing"
    assert harness.dialogue.active.agent.name == "billing"
    assert harness.take(RunTool) == []


def test_a_reply_waits_for_the_end_of_the_speech_that_hands_over() -> None:
    harness = harness_of_two()
    asked(harness)
    harness.confirms()
    assert harness.requested() == []
    harness.ends()
    assert harness.requested() == [""]


def test_the_voice_stays_once_there_was_sound_and_the_event_says_so() -> None:
    harness = harness_of_two(voice="cedar")
    asked(harness)
    assert harness.last_update().session.voice is UNSET
    harness.confirms()
    (event,) = harness.take(HandedOff)
    assert (event.from_agent, event.to_agent, event.kept_voice) == ("greeter", "billing", "marin")
    assert harness.dialogue.active.session.voice == "marin"  # also on a fresh connection


def test_the_voice_changes_before_the_first_sound() -> None:
    harness = harness_of_two(voice="cedar")
    harness.begins()
    harness.calls(call_of(TRANSFER))
    assert harness.last_update().session.voice == "cedar"
    harness.confirms()
    assert harness.take(HandedOff)[0].kept_voice == ""


def test_a_refused_change_leaves_the_first_agent_in_charge() -> None:
    harness = harness_of_two()
    asked(harness)
    harness.ends()
    harness.refuses(harness.last_update().event_id)
    assert harness.dialogue.active.agent.name == "greeter"
    assert harness.take(HandedOff) == []
    ((_, output),) = harness.outputs()
    assert json.loads(output or "")["code"] == "invalid_value"
    assert harness.requested() == [""]


def test_a_model_that_never_confirms_its_settings_counts_as_agreed_after_a_while() -> None:
    harness = harness_of_two()
    asked(harness)
    harness.ends()
    harness.wait(2_999)
    assert harness.take(HandedOff) == []
    harness.wait(1)
    assert harness.take(HandedOff)[0].to_agent == "billing"
    assert harness.requested() == [""]


def test_a_second_handoff_at_the_same_time_is_refused() -> None:
    harness = DialogueHarness(
        agent_named(handoffs=("billing", "repairs")), agent_named("billing"), agent_named("repairs")
    )
    harness.begins()
    harness.calls(call_of(TRANSFER, "c1"), call_of("transfer_to_repairs", "c2"))
    harness.ends()
    assert len(harness.take(SessionUpdate)) == 1
    harness.confirms()
    assert harness.dialogue.active.agent.name == "billing"
    outputs = dict(harness.outputs())
    assert "error" in json.loads(outputs["c2"] or "")
    assert harness.requested() == [""]


def test_a_name_that_the_agent_does_not_have_is_a_tool_like_any_other() -> None:
    harness = harness_of_two()
    harness.begins()
    harness.calls(call_of("transfer_to_nobody"))
    assert [run.name for run in harness.take(RunTool)] == ["transfer_to_nobody"]


def test_a_handoff_that_the_connection_broke_is_done_on_the_next_one() -> None:
    harness = harness_of_two()
    asked(harness)
    harness.dialogue.on_lost()
    assert harness.dialogue.active.session.instructions != "Greet."
    harness.actions.clear()
    harness.do(harness.dialogue.on_reconnected(0))
    assert harness.take(HandedOff)[0].to_agent == "billing"
    items = [create.item.type for create in harness.take(ItemCreate)]
    assert items[-2:] == ["function_call", "function_call_output"]
    assert harness.requested() == [""]


def test_a_caller_who_interrupts_the_announcement_is_answered_by_the_new_agent() -> None:
    harness = harness_of_two()
    asked(harness)
    harness.caller_starts()
    harness.do(harness.dialogue.drop_response(server_cancels=True))
    harness.confirms()
    harness.ends("r1", ResponseStatus.CANCELLED)
    assert harness.requested() == []
    harness.caller_stops("No, wait!")
    harness.answers("r2")
    assert harness.dialogue.active.agent.name == "billing"
    assert harness.requested() == []


def test_an_agent_is_changed_from_outside_without_a_word() -> None:
    harness = harness_of_two()
    billing = harness.dialogue.active.roster["billing"]
    harness.do(harness.dialogue.change_agent(billing, 0))
    assert harness.order == ["SessionUpdate", "HandedOff"]
    harness.confirms()
    assert harness.order == ["SessionUpdate", "HandedOff"]
    assert harness.dialogue.active.agent is billing
