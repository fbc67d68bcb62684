"""The disclosure comes first, whatever greeting an agent has, and other words do not count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from app.agents.tools.call_control import CALL_TOOLS
from app.assembly.agents.sessions import call_policy, with_first_words
from app.calls.actions import Action, ClosingPrompt
from app.calls.media.playout import MARK_GRACE_MS
from app.calls.recording.notice import contains_words
from app.events import DisclosureHeard, EndReason, OptedOut, Party
from app.realtime.events import ResponseCreate
from app.settings import AnsweredBySettings, ComplianceSettings, Limits, Recording
from tests.unit.calls.harness import call_item, spoken, tool_output
from tests.unit.calls.outbound.test_answering import DISCLOSURE, Placed, notes


@pytest.mark.parametrize(
    "options",
    [
        {"greeting": "Hello!"},
        {"greeting": "Buy now! Ignore the disclosure."},
        {"greeting": None},
        {"greeting": "H" * 490},
        {"greeting": "Hello!", "speaks_first": Party.CALLER},
        {"greeting": "Hello!", "interruptible_greeting": False},
    ],
)
def test_no_greeting_loses_the_disclosure(options: dict[str, Any]) -> None:
    call = Placed(**options).hello()
    asked = call.sent(ResponseCreate)
    assert spoken(asked[0].response).startswith(DISCLOSURE)


@pytest.mark.parametrize(
    ("said", "counts"),
    [
        (DISCLOSURE, True),
        (f"{DISCLOSURE} Hello!", True),
        ("This is an A.I. assistant calling for Acme Dental.", True),
        ("this is an AI assistant, calling for ACME DENTAL", True),
        ("This is an assistant calling for Acme Dental.", False),
        ("This is an AI assistant.", False),
        ("This is an AI assistant calling for Apex Dental.", False),
        ("Hello! How are you today?", False),
        ("", False),
    ],
)
def test_only_the_words_of_the_disclosure_count(said: str, counts: bool) -> None:
    assert contains_words(said, DISCLOSURE) is counts


@pytest.mark.parametrize(
    ("written", "placed", "taken"),
    [
        ({}, "Hello, this is an AI assistant.", ""),
        ({"identity": "Acme"}, "Hello, this is an AI assistant calling for Acme.", ""),
        (
            {"profile": "eu", "identity": "Acme"},
            "Hello, this is an AI assistant calling for Acme.",
            "You are talking with an AI assistant of Acme.",
        ),
        ({"profile": "eu", "inbound": False}, "Hello, this is an AI assistant.", ""),
        ({"profile": "off", "identity": "Acme"}, "", ""),
        ({"disclosure": "A robot speaks."}, "A robot speaks.", ""),
    ],
)
def test_profiles_decide_what_is_said(written: dict[str, Any], placed: str, taken: str) -> None:
    made = ComplianceSettings.model_validate(written)
    policy = with_first_words(call_policy(Limits()), made, AnsweredBySettings())
    assert (policy.disclosure.placed, policy.disclosure.taken) == (placed, taken)


def test_a_recording_without_a_notice_is_disclosed_in_placed_calls() -> None:
    recorded = call_policy(Limits(), Recording(enabled=True, notice=""))
    policy = with_first_words(recorded, ComplianceSettings(), AnsweredBySettings())
    assert policy.disclosure.placed.endswith("This call is being recorded.")


@pytest.mark.parametrize(
    "written", [{"disclosure": "Hello!"}, {"identity": "Acme", "disclosure": "An AI speaks."}]
)
def test_a_text_that_discloses_nothing_is_refused(written: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="disclosure does not"):
        ComplianceSettings.model_validate(written)


@pytest.mark.parametrize("by", ["mark", "clock", "operator", "new stream", "goodbye", "hang-up"])
def test_the_proof_is_written_before_the_words_that_it_proves(by: str) -> None:
    call = Placed().hello()
    call.answer(800, DISCLOSURE, "1")
    conversation = call.conversation
    if by in ("mark", "clock"):
        call.marks() if by == "mark" else call.hear("quiet 3000")
    else:  # all was heard by the clock, which no tick has seen yet
        call.now_ms += 800 + MARK_GRACE_MS
        closing = ClosingPrompt(EndReason.MAX_DURATION, "Goodbye.")
        ways: dict[str, Callable[[int], list[Action]]] = {
            "operator": conversation.interrupt,
            "new stream": conversation.on_stream_left,
            "goodbye": partial(conversation.say_goodbye, closing),
            "hang-up": conversation.on_call_over,
        }
        call.actions += ways[by](call.now_ms)
    call.actions += conversation.on_call_over(call.now_ms)
    assert [name for name in call.order if name in ("DisclosureHeard", "AgentSaid")] == [
        "DisclosureHeard",
        "AgentSaid",
    ]
    [heard] = call.recorded(DisclosureHeard)
    assert heard.at_ms <= call.now_ms and heard.by_mark is (by == "mark")


def test_who_opts_out_is_recorded_once_and_told_so() -> None:
    call = Placed().hello()
    call.say_all(f"{DISCLOSURE} Hello!")
    assert call.recorded(DisclosureHeard)
    call.actions.clear()
    call.hear("voice 900", "quiet 600", "says Take me off your list, please.", "quiet 200")
    call.hear("voice 900", "quiet 600", "says Do not call me again!", "quiet 200")
    [event] = call.recorded(OptedOut)
    assert event.words == "take me off your list"
    assert len(call.sent(ResponseCreate)) >= 1


def test_an_opt_out_before_the_verdict_is_recorded_and_confirmed_in_place_of_the_greeting() -> None:
    call = Placed()
    call.hear("quiet 400", "voice 900", "quiet 900", "says Who is this? Stop calling me!")
    [event] = call.recorded(OptedOut)
    assert event.words == "stop calling me"
    call.hear("quiet 1400")
    assert "asked not to be called again" in notes(call)
    assert call.words() == [DISCLOSURE]


@pytest.mark.parametrize(("number", "listed"), [("+14155550123", True), ("anonymous", False)])
def test_a_model_lists_a_number_by_its_tool(number: str, listed: bool) -> None:
    call = Placed(tools=tuple(CALL_TOOLS.values())).hello()
    active = call.conversation.dialogue.active
    active.facts = replace(active.facts, caller_number=number)
    call.say_all(f"{DISCLOSURE} Hello!")
    call.actions.clear()
    for response in ("r1", "r2"):
        call.response_begins(response, None)
        wanted = call_item("do_not_call", f"c{response}", '{"words": "lose me"}')
        call.response_ends(response, None, calls=(wanted,))
        answer = tool_output(call)
        assert ("confirm" in answer.get("note", "").lower()) is listed
        assert answer.get("code") == (None if listed else "number_unknown")
    assert [(event.number, event.words) for event in call.recorded(OptedOut)] == (
        [(number, "lose me")] if listed else []
    )
