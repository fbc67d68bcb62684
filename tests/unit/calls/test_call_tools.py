"""Tools of the call: holding, and arguments that are refused."""

from __future__ import annotations

from typing import Any

import pytest

from app.agents.dialogue.messages import SayMode, SayWhen
from app.agents.tools.call_control import CALL_TOOLS
from app.calls.policy import CallPolicy, InactivityTexts
from app.events import ToolRan
from tests.unit.calls.harness import (
    CallHarness,
    End,
    ResponseCreate,
    RunTool,
    call_item,
    calls_tool,
    tool_output,
)


def test_on_hold_the_agent_waits_until_the_caller_speaks() -> None:
    policy = CallPolicy(
        inactivity_after_ms=3_000, inactivity_texts=InactivityTexts(prompts=("There?",))
    )
    arguments = {"phrase": "Take your time.", "seconds": 60}
    harness = calls_tool("hold", arguments, policy=policy, transcribed=True)
    assert harness.words() == ["Take your time."]
    assert tool_output(harness)["ok"] is True
    harness.answer(500, "Take your time.", "2")
    harness.marks()
    harness.wait(50_000)
    assert harness.words() == []
    harness.caller_turn("u1", "I have it here")
    harness.answer(500, "Good.", "3")
    harness.marks()
    harness.wait(3_200)
    assert harness.words() == ["There?"]


def test_words_for_a_quiet_moment_do_not_end_a_hold() -> None:
    harness = calls_tool("hold", {"seconds": 60}, speech="One moment then.", transcribed=True)
    harness.marks()
    harness.actions += harness.conversation.say(
        "It ships on Monday.", harness.now_ms, mode=SayMode.RELAY, when=SayWhen.IDLE
    )
    harness.wait(50_000)
    assert harness.words() == []
    harness.caller_turn("u1", "I have it here")
    harness.answer(500, "Good.", "3")
    harness.marks()
    harness.wait(200)
    (words,) = harness.words()
    assert "It ships on Monday." in words


def test_words_for_a_quiet_moment_are_said_when_the_hold_was_long_enough() -> None:
    harness = calls_tool("hold", {"seconds": 60}, speech="One moment then.")
    harness.marks()
    harness.actions += harness.conversation.say(
        "It ships on Monday.", harness.now_ms, mode=SayMode.VERBATIM, when=SayWhen.IDLE
    )
    harness.wait(58_000)
    assert harness.words() == []
    harness.wait(2_000)
    assert harness.words() == ["It ships on Monday."]


def test_holding_without_a_phrase_is_silent() -> None:
    harness = calls_tool("hold", {}, speech="One moment then.")
    harness.marks()
    harness.wait(100_000)
    assert harness.sent(ResponseCreate) == []


def test_a_tool_that_the_agent_was_not_given_does_not_run_here() -> None:
    harness = CallHarness()
    harness.greeted()
    harness.caller_turn()
    harness.response_begins("r1", None)
    harness.response_ends("r1", None, calls=(call_item("hold"),))
    assert [run.name for run in harness.take(RunTool)] == ["hold"]


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
    harness = calls_tool(name, arguments, transcribed=True)
    refused = tool_output(harness)
    assert refused["error"]
    assert refused["code"] == "tool_args_invalid"
    assert [(ran.name, ran.error) for ran in harness.recorded(ToolRan)] == [(name, refused["code"])]
    assert len(harness.sent(ResponseCreate)) == 1
    harness.wait(3_000)
    assert harness.take(End) == []


def test_arguments_that_are_not_json_are_refused() -> None:
    harness = CallHarness(tools=tuple(CALL_TOOLS.values()))
    harness.greeted()
    harness.caller_turn()
    harness.response_begins("r1", None)
    harness.response_ends("r1", None, calls=(call_item("hold", arguments="{"),))
    assert tool_output(harness)["error"]
