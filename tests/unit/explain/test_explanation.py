"""Explanations: every event has words, each code its cure, and the first problem stands on top."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from app.carrier.base import TransferOutcome
from app.engine import stages
from app.events import (
    AgentSaid,
    AnsweredBy,
    AnswerJudged,
    CallAdmitted,
    CallEnded,
    CallerSaid,
    CallId,
    CallLost,
    CallPlaced,
    CallSummary,
    CallTurnedAway,
    EndReason,
    FirstSound,
    StreamOpened,
    ToolRan,
    TransferEnded,
    TurnTimed,
    VoiceReady,
    VoiceReconnecting,
    VoiceTrouble,
)
from app.explain import Mark, explain, render
from app.explain.faults import end_fault, tool_fault, transfer_fault, voice_fault
from app.realtime import faults, websocket
from app.store.codec import EVENT_TYPES
from tests.fakes.call_events import filled

CALL = CallId("call_1")
ADMITTED = CallAdmitted(
    call_id=CALL,
    carrier_call_id="CA1",
    caller_number="+15005550006",
    called_number="+15005550001",
    agent="reception",
    tools=("end_call",),
)


def ended(reason: EndReason = EndReason.CALLER_HUNG_UP, at_ms: int = 9_000) -> CallEnded:
    summary = CallSummary(
        call_id=CALL,
        carrier_call_id="CA1",
        agent="reception",
        model="m",
        reason=reason,
        duration_ms=at_ms,
    )
    return CallEnded(call_id=CALL, at_ms=at_ms, summary=summary)


@pytest.mark.parametrize("reason", EndReason)
def test_every_end_has_words(reason: EndReason) -> None:
    headline = explain([ADMITTED, ended(reason)]).headline
    assert "_" not in headline and headline.endswith(" after 9.00 s")


def test_in_a_placed_call_the_wait_for_the_callee_is_no_problem() -> None:
    placed = CallPlaced(
        call_id=CALL,
        caller_number="+15005550006",
        called_number="+15005550001",
        agent="reception",
        purpose="service",
    )
    waited = FirstSound(call_id=CALL, at_ms=3_800, after_ms=3_780)
    said = CallerSaid(call_id=CALL, at_ms=450, item_id="i", text="Hello?")
    found = explain([placed, said, waited])
    assert found.problem is None
    text = " ".join(entry.text for entry in found.entries)
    assert 'callee: "Hello?"' in text and "after the callee could hear" in text
    assert explain([ADMITTED, waited]).problem is not None


@pytest.mark.parametrize("judged_ms, is_problem", [(4_000, False), (1_200, True)])
def test_silence_until_it_is_known_who_answered_is_no_slow_turn(
    judged_ms: int, is_problem: bool
) -> None:
    judged = AnswerJudged(
        call_id=CALL,
        at_ms=judged_ms,
        verdict=AnsweredBy.SCREENING,
        before=AnsweredBy.UNKNOWN,
        after_ms=judged_ms,
    )
    turn = TurnTimed(
        call_id=CALL,
        at_ms=4_500,
        item_id="i",
        caller_stopped_ms=1_000,
        turn_found_ms=1_500,
        response_ms=4_000,
        heard_ms=4_500,
    )
    assert (explain([judged, turn]).problem is not None) is is_problem


@pytest.mark.parametrize("kind", EVENT_TYPES)
def test_every_event_has_words(kind: str) -> None:
    assert explain([filled(EVENT_TYPES[kind])]).entries


@pytest.mark.parametrize(
    "code",
    [
        *sorted(faults._FATAL | faults._RETRY | faults._ROTATE),
        *(code for _, code, _ in websocket._UNAVAILABLE),
        "no_answer",
    ],
)
def test_every_code_of_a_model_has_words_and_a_cure(code: str) -> None:
    text, remedy = voice_fault(code)
    assert code not in text
    assert remedy
    assert "may know the code" not in remedy


def stage_codes() -> set[str]:
    """The codes that stages fail with, as their sources spell them."""
    sources = Path(stages.__path__[0]).glob("*.py")
    return {
        code
        for source in sources
        for code in re.findall(r'"(stage_[a-z_]+)"', source.read_text(encoding="utf-8"))
    }


@pytest.mark.parametrize("code", sorted(stage_codes()))
def test_every_code_of_a_stage_has_words_and_a_cure(code: str) -> None:
    trouble, remedy = voice_fault(code)
    assert code not in trouble and remedy


TOOL_CODES = re.findall(
    r"`(\w+)`",
    (Path(__file__).parents[3] / "docs" / "tools.md")
    .read_text(encoding="utf-8")
    .partition("Every function call is answered. Codes:")[2]
    .partition("\n\n")[0],
)


@pytest.mark.parametrize("code", sorted({*TOOL_CODES} - {"end_call"}))
def test_every_code_of_a_tool_has_words(code: str) -> None:
    text, remedy = tool_fault(code)
    assert code not in text
    assert "may know the code" not in remedy


@pytest.mark.parametrize(
    ("code", "is_problem", "cure"),
    [
        ("unreachable", True, "http tool got no answer"),
        ("tool_timeout", True, "timeout_ms"),
        ("tool_output_invalid", True, "tool result failed"),
        ("odd_thing", True, "docs/tools.md"),
        ("not_approved", False, ""),
        ("too_early", False, ""),
        ("input_refused", False, ""),
    ],
)
def test_a_tool_that_failed_is_a_problem_with_its_own_cure(
    code: str, is_problem: bool, cure: str
) -> None:
    ran = ToolRan(call_id=CALL, at_ms=900, name="book", duration_ms=5, error=code)
    found = explain([ADMITTED, ran])
    assert (found.problem is not None) is is_problem
    assert cure in found.entries[-1].remedy


def test_a_transfer_that_failed_is_one_problem() -> None:
    events = [
        TransferEnded(
            call_id=CALL,
            at_ms=800,
            destination="nurse",
            outcome="failed",
            evidence="no_carrier_account",
        ),
        ToolRan(
            call_id=CALL, at_ms=900, name="transfer_call", duration_ms=5, error="transfer_failed"
        ),
    ]
    problems = [one for one in explain(events).entries if one.mark is Mark.PROBLEM]
    assert len(problems) == 1
    assert "TWILIO_ACCOUNT_SID" in problems[0].remedy


def test_a_lost_connection_is_told_when_it_is_lost_and_when_it_is_back() -> None:
    lost = VoiceReconnecting(call_id=CALL, at_ms=2_000, code="voice_closed")
    back = VoiceReady(call_id=CALL, at_ms=2_730, waited_ms=2_700, reconnected=True)
    found = explain([ADMITTED, lost, back])
    assert found.problem is not None and found.problem.at_ms == 2_000
    assert "model reconnected after 0.73 s" in [one.text for one in found.entries]
    gone = VoiceTrouble(call_id=CALL, at_ms=8_000, code="connection_refused", benign=False)
    found = explain([ADMITTED, lost, gone, ended(EndReason.VOICE_LOST)])
    assert found.problem is not None and "was lost" in found.problem.text


def test_a_session_that_was_given_up_for_a_code_is_no_second_problem() -> None:
    old = VoiceTrouble(call_id=CALL, at_ms=2_000, code="session_expired", benign=False)
    lost = VoiceReconnecting(call_id=CALL, at_ms=2_000, code="session_expired")
    problems = [one for one in explain([old, lost]).entries if one.mark is Mark.PROBLEM]
    assert len(problems) == 1


def test_a_code_that_nobody_knows_is_named() -> None:
    trouble = VoiceTrouble(call_id=CALL, at_ms=5, code="odd_thing", benign=False)
    problem = explain([ADMITTED, trouble]).problem
    assert problem is not None
    assert "odd_thing" in problem.text


@pytest.mark.parametrize("outcome", TransferOutcome)
def test_every_outcome_of_a_transfer_is_a_problem_or_is_none(outcome: TransferOutcome) -> None:
    event = TransferEnded(
        call_id=CALL, at_ms=5, destination="sales", outcome=outcome.value, evidence="x"
    )
    problem = explain([ADMITTED, event]).problem
    good = outcome in (TransferOutcome.ANSWERED, TransferOutcome.UNKNOWN)
    assert (problem is None) is good
    if problem is not None:
        assert transfer_fault(outcome.value)[0] in problem.text
        assert "its outcome was" not in problem.text


@pytest.mark.parametrize("reason", EndReason)
def test_an_end_is_a_problem_where_it_is_one_for_the_caller(reason: EndReason) -> None:
    problem = explain([ADMITTED, ended(reason)]).problem
    wanted = {
        EndReason.CALLER_HUNG_UP,
        EndReason.AGENT_HUNG_UP,
        EndReason.TRANSFERRED,
        EndReason.OPERATOR_HUNG_UP,
    }
    assert (problem is None) is (reason in wanted)
    assert (end_fault(reason.value) is None) is (reason in wanted)


def test_the_first_problem_stands_on_top_whatever_the_order_of_the_events() -> None:
    first = TransferEnded(
        call_id=CALL, at_ms=2_000, destination="sales", outcome="busy", evidence=""
    )
    second = VoiceTrouble(call_id=CALL, at_ms=5_000, code="no_answer", benign=False)
    for events in ([ADMITTED, second, first], [ADMITTED, first, second]):
        problem = explain([*events, ended()]).problem
        assert problem is not None
        assert "sales" in problem.text


@pytest.mark.parametrize(
    ("event", "problem"),
    [
        (FirstSound(call_id=CALL, at_ms=900, after_ms=800), False),
        (FirstSound(call_id=CALL, at_ms=4_000, after_ms=3_900), True),
        (ToolRan(call_id=CALL, at_ms=900, name="x", duration_ms=20_000), False),
        (ToolRan(call_id=CALL, at_ms=900, name="x", duration_ms=5, error="interrupted"), False),
        (ToolRan(call_id=CALL, at_ms=900, name="x", duration_ms=5, error="tool_timeout"), True),
        (
            VoiceTrouble(call_id=CALL, at_ms=1, code="response_cancel_not_active", benign=True),
            False,
        ),
        (CallLost(call_id=CALL), True),
    ],
)
def test_what_a_caller_notices_is_a_problem(event: Any, problem: bool) -> None:
    assert (explain([ADMITTED, event]).problem is not None) is problem


@pytest.mark.parametrize(
    ("reason", "mark"), [("at_capacity", Mark.PROBLEM), ("closed", Mark.NOTICE)]
)
def test_a_call_that_no_agent_took_is_explained_too(reason: str, mark: Mark) -> None:
    event = CallTurnedAway(
        call_id=CALL,
        carrier_call_id="CA1",
        caller_number="+15005550006",
        called_number="+15005550001",
        reason=reason,
    )
    explanation = explain([event])
    [entry] = explanation.entries
    assert entry.mark is mark
    assert "+15005550006 called +15005550001: no agent took the call" in explanation.headline


def turn(**steps: int | None) -> TurnTimed:
    known = {"response_ms": 1_600, "model_sound_ms": 1_800, "sent_ms": 1_801, "heard_ms": 1_900}
    return TurnTimed(
        call_id=CALL,
        at_ms=2_000,
        item_id="i",
        caller_stopped_ms=1_000,
        turn_found_ms=1_500,
        **{**known, **steps},
    )


def test_a_turn_shows_each_step_and_stops_where_it_broke_off() -> None:
    [entry] = explain([turn()]).entries
    assert entry.text == "turn 1: the caller waited 0.90 s for the answer"
    assert [detail.split()[0] for detail in entry.details] == [
        "0.50",
        "0.10",
        "0.20",
        "0.00",
        "0.10",
    ]
    [slow] = explain([turn(model_sound_ms=7_000, sent_ms=7_001, heard_ms=7_100)]).entries
    assert slow.mark is Mark.PROBLEM
    nothing = {"response_ms": None, "model_sound_ms": None, "sent_ms": None, "heard_ms": None}
    [unanswered] = explain([turn(**nothing)]).entries
    assert unanswered.text == "turn 1: no answer was begun"
    assert unanswered.details[-1].endswith(
        "until the model began to answer: it did not come to that"
    )


def test_words_that_were_not_heard_are_told_apart() -> None:
    said = AgentSaid(
        call_id=CALL,
        at_ms=5,
        item_id="i",
        text="We open at nine on Mondays.",
        heard_text="We open at nine",
        cut_off=True,
    )
    [entry] = explain([said]).entries
    assert entry.text == 'agent, cut off: "We open at nine"'
    assert entry.details == ('not heard: "on Mondays."',)


@pytest.mark.parametrize("width", [40, 80, 132])
def test_the_text_keeps_to_the_width(width: int) -> None:
    events = [ADMITTED, StreamOpened(call_id=CALL, at_ms=5), turn(), ended(EndReason.SILENCE)]
    text = render(explain(events), width)
    assert max(map(len, text.splitlines())) <= width
    assert "First problem, 9.00 s into the call:" in text


def test_an_event_of_a_later_version_is_left_out() -> None:
    assert explain([ADMITTED, object(), None]).entries == explain([ADMITTED]).entries
