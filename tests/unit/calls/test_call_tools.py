"""Tools of the call: holding, and arguments that are refused."""

from __future__ import annotations

from typing import Any

import pytest

from app.agents.dialogue.messages import SayMode, SayWhen
from app.agents.tools.call_control import CALL_TOOLS
from app.calls.policy import CallPolicy, InactivityTexts
from app.events import ToolRan
from tests.unit.calls.scene import (
    End,
    ResponseCreate,
    RunTool,
    Scene,
    call_item,
    calls_tool,
    tool_output,
)


def test_on_hold_the_agent_waits_until_the_caller_speaks() -> None:
    policy = CallPolicy(
        inactivity_after_ms=3_000, inactivity_texts=InactivityTexts(prompts=("There?",))
    )
    arguments = {"phrase": "Take your time.", "seconds": 60}
    scene = calls_tool("hold", arguments, policy=policy, transcribed=True)
    assert scene.words() == ["Take your time."]
    assert tool_output(scene)["ok"] is True
    scene.answer(500, "Take your time.", "2")
    scene.marks()
    scene.wait(50_000)
    assert scene.words() == []
    scene.caller_turn("u1", "I have it here")
    scene.answer(500, "Good.", "3")
    scene.marks()
    scene.wait(3_200)
    assert scene.words() == ["There?"]


def test_words_for_a_quiet_moment_do_not_end_a_hold() -> None:
    scene = calls_tool("hold", {"seconds": 60}, speech="One moment then.", transcribed=True)
    scene.marks()
    scene.actions += scene.conversation.say(
        "It ships on Monday.", scene.now_ms, mode=SayMode.RELAY, when=SayWhen.IDLE
    )
    scene.wait(50_000)
    assert scene.words() == []
    scene.caller_turn("u1", "I have it here")
    scene.answer(500, "Good.", "3")
    scene.marks()
    scene.wait(200)
    (words,) = scene.words()
    assert "It ships on Monday." in words


def test_words_for_a_quiet_moment_are_said_when_the_hold_was_long_enough() -> None:
    scene = calls_tool("hold", {"seconds": 60}, speech="One moment then.")
    scene.marks()
    scene.actions += scene.conversation.say(
        "It ships on Monday.", scene.now_ms, mode=SayMode.VERBATIM, when=SayWhen.IDLE
    )
    scene.wait(58_000)
    assert scene.words() == []
    scene.wait(2_000)
    assert scene.words() == ["It ships on Monday."]


def test_holding_without_a_phrase_is_silent() -> None:
    scene = calls_tool("hold", {}, speech="One moment then.")
    scene.marks()
    scene.wait(100_000)
    assert scene.sent(ResponseCreate) == []


def test_a_tool_that_the_agent_was_not_given_does_not_run_here() -> None:
    scene = Scene()
    scene.greeted()
    scene.caller_turn()
    scene.response_begins("r1", None)
    scene.response_ends("r1", None, calls=(call_item("hold"),))
    assert [run.name for run in scene.take(RunTool)] == ["hold"]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("collect_digits", {}),
        ("collect_digits", {"max_digits": 65}),
        ("collect_digits", {"max_digits": 4, "min_digits": 6}),
        ("collect_digits", {"max_digits": 4, "min_digits": 0}),
        ("collect_digits", {"max_digits": 4, "terminator": "9"}),
        ("hold", {"seconds": 100_000}),
        ("hold", {"phrase": "x" * 201}),
        ("take_message", {"recipient": 3}),
        ("take_message", {"recipient": "a", "to": "+15551234567"}),
        ("end_call", {}),
        ("end_call", {"reason": "the caller did not respond"}),
        ("end_call", {"reason": "task_complete", "now": True}),
    ],
)
def test_arguments_that_the_schema_does_not_allow_are_refused(
    name: str, arguments: dict[str, Any]
) -> None:
    scene = calls_tool(name, arguments, transcribed=True)
    refused = tool_output(scene)
    assert refused["error"]
    assert refused["code"] == "tool_args_invalid"
    assert [(ran.name, ran.error) for ran in scene.recorded(ToolRan)] == [(name, refused["code"])]
    assert len(scene.sent(ResponseCreate)) == 1
    scene.wait(3_000)
    assert scene.take(End) == []


def test_arguments_that_are_not_json_are_refused() -> None:
    scene = Scene(tools=tuple(CALL_TOOLS.values()))
    scene.greeted()
    scene.caller_turn()
    scene.response_begins("r1", None)
    scene.response_ends("r1", None, calls=(call_item("hold", arguments="{"),))
    assert tool_output(scene)["error"]
