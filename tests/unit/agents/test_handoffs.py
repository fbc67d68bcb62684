"""From agent to agent in one call: settings, the tool's output, then the floor."""

from __future__ import annotations

import json

from app.agents.dialogue.actions import RunTool
from app.events import HandedOff
from app.realtime.events import (
    UNSET,
    ItemCreate,
    ResponseStatus,
    SessionUpdate,
)
from tests.unit.agents.stage import Stage, agent_named, call_of, tool_named

TRANSFER = "transfer_to_billing"


def stage_of_two(**billing: object) -> Stage:
    return Stage(
        agent_named(instructions="Greet.", voice="marin", handoffs=("billing",)),
        agent_named("billing", instructions="Bill.", tools=(tool_named(),), **billing),
    )


def asked(stage: Stage, tool_call_id: str = "c1") -> None:
    stage.begins()
    stage.speaks("One moment, I will put you through.")
    stage.calls(call_of(TRANSFER, tool_call_id))


def test_settings_come_first_then_the_output_then_the_reply() -> None:
    stage = stage_of_two()
    asked(stage)
    assert stage.order == ["SessionUpdate"]
    stage.ends()
    assert stage.order == ["SessionUpdate"]
    stage.confirms()
    assert stage.order == ["SessionUpdate", "HandedOff", "ItemCreate", "ResponseCreate"]
    session = stage.last_update().session
    assert isinstance(session.instructions, str)
    assert session.instructions.startswith("Bill.")
    assert isinstance(session.tools, tuple)
    assert [named["name"] for named in session.tools] == ["look_up"]
    ((_, output),) = stage.outputs()
    assert json.loads(output or "")["agent"] == "billing"
    assert stage.dialogue.active.agent.name == "billing"
    assert stage.take(RunTool) == []


def test_a_reply_waits_for_the_end_of_the_speech_that_hands_over() -> None:
    stage = stage_of_two()
    asked(stage)
    stage.confirms()
    assert stage.said() == []
    stage.ends()
    assert stage.said() == [""]


def test_the_voice_stays_once_there_was_sound_and_the_event_says_so() -> None:
    stage = stage_of_two(voice="cedar")
    asked(stage)
    assert stage.last_update().session.voice is UNSET
    stage.confirms()
    (event,) = stage.take(HandedOff)
    assert (event.from_agent, event.to_agent, event.kept_voice) == ("greeter", "billing", "marin")
    assert stage.dialogue.active.session.voice == "marin"  # also on a fresh connection


def test_the_voice_changes_before_the_first_sound() -> None:
    stage = stage_of_two(voice="cedar")
    stage.begins()
    stage.calls(call_of(TRANSFER))
    assert stage.last_update().session.voice == "cedar"
    stage.confirms()
    assert stage.take(HandedOff)[0].kept_voice == ""


def test_a_refused_change_leaves_the_first_agent_in_charge() -> None:
    stage = stage_of_two()
    asked(stage)
    stage.ends()
    stage.refuses(stage.last_update().event_id)
    assert stage.dialogue.active.agent.name == "greeter"
    assert stage.take(HandedOff) == []
    ((_, output),) = stage.outputs()
    assert json.loads(output or "")["code"] == "invalid_value"
    assert stage.said() == [""]


def test_a_model_that_confirms_nothing_has_agreed_after_a_while() -> None:
    stage = stage_of_two()
    asked(stage)
    stage.ends()
    stage.wait(2_999)
    assert stage.take(HandedOff) == []
    stage.wait(1)
    assert stage.take(HandedOff)[0].to_agent == "billing"
    assert stage.said() == [""]


def test_a_second_handoff_at_the_same_time_is_refused() -> None:
    stage = Stage(
        agent_named(handoffs=("billing", "repairs")), agent_named("billing"), agent_named("repairs")
    )
    stage.begins()
    stage.calls(call_of(TRANSFER, "c1"), call_of("transfer_to_repairs", "c2"))
    stage.ends()
    assert len(stage.take(SessionUpdate)) == 1
    stage.confirms()
    assert stage.dialogue.active.agent.name == "billing"
    outputs = dict(stage.outputs())
    assert "error" in json.loads(outputs["c2"] or "")
    assert stage.said() == [""]


def test_a_name_that_the_agent_does_not_have_is_a_tool_like_any_other() -> None:
    stage = stage_of_two()
    stage.begins()
    stage.calls(call_of("transfer_to_nobody"))
    assert [run.name for run in stage.take(RunTool)] == ["transfer_to_nobody"]


def test_a_handoff_that_the_connection_broke_is_done_on_the_next_one() -> None:
    stage = stage_of_two()
    asked(stage)
    stage.dialogue.on_lost()
    assert stage.dialogue.active.session.instructions != "Greet."
    stage.actions.clear()
    stage.do(stage.dialogue.on_reconnected(0))
    assert stage.take(HandedOff)[0].to_agent == "billing"
    items = [create.item.type for create in stage.take(ItemCreate)]
    assert items[-2:] == ["function_call", "function_call_output"]
    assert stage.said() == [""]


def test_a_caller_who_interrupts_the_announcement_is_answered_by_the_new_agent() -> None:
    stage = stage_of_two()
    asked(stage)
    stage.caller_starts()
    stage.do(stage.dialogue.drop_response(server_cancels=True))
    stage.confirms()
    stage.ends("r1", ResponseStatus.CANCELLED)
    assert stage.said() == []
    stage.caller_stops("No, wait!")
    stage.answers("r2")
    assert stage.dialogue.active.agent.name == "billing"
    assert stage.said() == []


def test_an_agent_is_changed_from_outside_without_a_word() -> None:
    stage = stage_of_two()
    billing = stage.dialogue.active.roster["billing"]
    stage.do(stage.dialogue.change_agent(billing, 0))
    assert stage.order == ["SessionUpdate", "HandedOff"]
    stage.confirms()
    assert stage.order == ["SessionUpdate", "HandedOff"]
    assert stage.dialogue.active.agent is billing
