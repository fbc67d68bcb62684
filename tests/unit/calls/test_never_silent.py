"""Whatever a caller waits for, a dead model leaves nobody in silence for longer than the limit.

Each row of the table is a way to come to wait. From then on the model says nothing that can be
heard, on this connection and on every other one: something is heard or the call ends, in which case
the carrier speaks, within twice `answer_wait_ms`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

import pytest

from app.agents.dialogue.messages import SayMode, SayWhen
from app.agents.guardrails.checks import MAX_STOPS_IN_A_ROW
from app.agents.guardrails.rules import CheckGuardrail, GuardrailResult, Stop
from app.calls.keypad.menu import HangUp, KeypadMap, MenuPlan, Say
from app.calls.policy import CallPolicy
from app.carrier.base import CallerAudio, CarrierCallId, StreamId, StreamStarted
from app.events import Party
from app.realtime.events import (
    AudioDelta,
    AudioTranscriptDelta,
    ErrorDetail,
    Response,
    ResponseDone,
    ResponseStatus,
    SpeechStarted,
    SpeechStopped,
    TranscriptionCompleted,
    TranscriptionFailed,
)
from tests.unit.calls.harness import (
    CallHarness,
    End,
    GiveUp,
    RunTool,
    call_item,
    calls_tool,
    with_tool_running,
)
from tests.unit.calls.outbound.test_answering import Placed

TICK_MS: Final = 100
LIMIT_MS: Final = 2 * CallPolicy().answer_wait_ms + TICK_MS
QUIET: Final = CallPolicy(inactivity_after_ms=0)
"""Whoever is only heard of by the prompt to a silent caller has waited for longer."""


def silent_ms(
    harness: CallHarness, feed: Callable[[CallHarness], None], *, reconnects: bool
) -> int:
    """The time until the caller hears something, or the call ends."""
    began_ms = harness.now_ms
    ready_ms: int | None = None
    completed = -1
    for _ in range(20_000 // TICK_MS):
        heard_ms = harness.conversation._downlink.last_audible_ms(harness.now_ms)
        if harness.take(End) or (heard_ms is not None and heard_ms > began_ms):
            break
        if given_up := harness.take(GiveUp):
            answered = harness.conversation.dialogue.failures.completed
            if completed == answered and not given_up[-1].passes:
                break  # the voice loop ends a call whose model has not answered since the last one
            completed = answered
            harness.actions += harness.conversation.on_voice_lost(harness.now_ms)
            ready_ms = harness.now_ms + 300 if reconnects else None
        if ready_ms is not None and harness.now_ms >= ready_ms:
            ready_ms = None
            harness.ready()
        harness.phone(CallerAudio(b"\xff" * 160, harness.now_ms))
        feed(harness)
        harness.wait(TICK_MS)
    return harness.now_ms - began_ms


def nothing(harness: CallHarness) -> None:
    """The model sends nothing at all."""


def noise_floor(harness: CallHarness) -> None:
    """Sound at the level of a quiet line, in a response without end, and words of white space."""
    sound = bytes(random.Random(harness.now_ms).choices(b"\xff\x7f\xfe\x7e", k=800))
    harness.voice(
        AudioDelta("r9", "a9", 0, 0, sound), AudioTranscriptDelta("r9", "a9", 0, 0, " \n")
    )


def empty_responses(harness: CallHarness) -> None:
    """Each response that is asked for is completed at once, with nothing in it."""
    if harness.conversation.dialogue.gate.busy:
        name = f"r{harness.now_ms}"
        harness.response_begins(name, None)
        harness.response_ends(name, None)


def failed_responses(harness: CallHarness) -> None:
    """Each response that is asked for fails at once, as in an outage of the model's server."""
    if harness.conversation.dialogue.gate.busy:
        name = f"r{harness.now_ms}"
        harness.response_begins(name, None)
        error = ErrorDetail(code="server_error")
        harness.response_ends(name, None, status=ResponseStatus.FAILED, error=error)


def silent_responses(harness: CallHarness) -> None:
    """Each response that is asked for begins, and is silence without end."""
    gate = harness.conversation.dialogue.gate
    if gate.busy and gate.active_response_id is None:
        harness.response_begins(f"r{harness.now_ms}", f"a{harness.now_ms}")
    if response_id := gate.active_response_id:
        harness.voice(AudioDelta(response_id, response_id.replace("r", "a"), 0, 0, b"\xff" * 800))


def tool_calls(harness: CallHarness) -> None:
    """Each response that is asked for calls a tool, which has its result at once."""
    if harness.conversation.dialogue.gate.busy:
        name = f"r{harness.now_ms}"
        harness.response_begins(name, None)
        harness.response_ends(name, None, calls=(call_item("look_up", f"c{name}"),))
        harness.actions += harness.conversation.on_tool_done(f"c{name}", "{}", harness.now_ms)


def slow_tool_calls(harness: CallHarness) -> None:
    """The same, with results that take a second."""
    for run in harness.take(RunTool):
        harness.later[harness.now_ms + 1_000] = run.tool_call_id
    if harness.conversation.dialogue.gate.busy:
        name = f"r{harness.now_ms}"
        harness.response_begins(name, None)
        harness.response_ends(name, None, calls=(call_item("look_up", f"c{name}"),))
    if tool_call_id := harness.later.pop(harness.now_ms, ""):
        harness.actions += harness.conversation.on_tool_done(tool_call_id, "{}", harness.now_ms)


FEEDS: Final = {
    "nothing": nothing,
    "tool calls": tool_calls,
    "slow tool calls": slow_tool_calls,
    "noise": noise_floor,
    "empty responses": empty_responses,
    "failed responses": failed_responses,
    "silent responses": silent_responses,
}


def greeted(**options: Any) -> CallHarness:
    harness = CallHarness(policy=QUIET, **options)
    harness.greeted()
    return harness


def the_greeting() -> CallHarness:
    return CallHarness(policy=QUIET)


def an_answer() -> CallHarness:
    harness = greeted(transcribed=True)
    harness.caller_turn()
    return harness


def an_answer_whose_words_cannot_be_written() -> CallHarness:
    harness = greeted(transcribed=True)
    harness.caller_starts()
    harness.caller_stops(text=None)
    harness.voice(TranscriptionFailed("u1", 0, ErrorDetail(code="x")))
    return harness


def the_rest_of_an_answer() -> CallHarness:
    harness = an_answer()
    harness.response_begins()
    harness.speaks(300, "Our hours")
    harness.marks()
    return harness


def an_answer_that_failed() -> CallHarness:
    harness = an_answer()
    harness.response_begins()
    harness.response_ends(status=ResponseStatus.FAILED, error=ErrorDetail(code="server_error"))
    return harness


def an_answer_that_was_empty() -> CallHarness:
    harness = an_answer()
    harness.response_begins("r1", None)
    harness.response_ends("r1", None)
    return harness


def an_answer_of_white_space() -> CallHarness:
    harness = an_answer()
    harness.response_begins()
    harness.response_ends(text=" \n ")
    return harness


def the_reply_after_a_tool() -> CallHarness:
    harness = with_tool_running()
    harness.actions += harness.conversation.on_tool_done("c1", "{}", harness.now_ms)
    return harness


def words_after_a_tool_that_answers_with_nothing() -> CallHarness:
    harness = with_tool_running()
    harness.actions += harness.conversation.on_tool_done("c1", "", harness.now_ms)
    return harness


def a_tool_and_a_lost_connection() -> CallHarness:
    harness = with_tool_running()
    harness.actions += harness.conversation.on_voice_lost(harness.now_ms)
    harness.wait(300)
    harness.ready()
    return harness


def the_reply_after_a_tool_and_a_lost_connection() -> CallHarness:
    harness = a_tool_and_a_lost_connection()
    harness.actions += harness.conversation.on_tool_done("c1", "{}", harness.now_ms)
    return harness


def a_connection_that_was_lost_while_nobody_spoke() -> CallHarness:
    harness = greeted()
    harness.actions += harness.conversation.on_voice_lost(harness.now_ms)
    return harness


def an_answer_after_a_lost_connection() -> CallHarness:
    harness = an_answer()
    harness.actions += harness.conversation.on_voice_lost(harness.now_ms)
    harness.wait(300)
    harness.ready()
    return harness


def the_agent_after_a_supervisor() -> CallHarness:
    harness = greeted()
    harness.actions += harness.conversation.take_over(harness.now_ms)
    harness.caller_turn()
    harness.wait(30_000)
    harness.actions += harness.conversation.hand_back(harness.now_ms)
    return harness


def an_operators_words() -> CallHarness:
    harness = greeted()
    say = harness.conversation.say
    harness.actions += say("Hi.", harness.now_ms, mode=SayMode.VERBATIM, when=SayWhen.AFTER_TURN)
    return harness


def an_operators_instruction() -> CallHarness:
    harness = greeted()
    harness.actions += harness.conversation.instruct("Offer a refund.", harness.now_ms)
    return harness


def words_after_an_operator_has_cut_off_an_answer() -> CallHarness:
    harness = the_rest_of_an_answer()
    harness.actions += harness.conversation.interrupt(harness.now_ms)
    harness.actions += harness.conversation.instruct("Offer a refund.", harness.now_ms)
    return harness


def an_answer_to_a_key() -> CallHarness:
    harness = greeted()
    harness.key("2")
    return harness


def the_text_of_a_key() -> CallHarness:
    harness = greeted(keypads={"test": KeypadMap({"1": Say("We open at nine.")})})
    harness.key("1")
    return harness


def a_menu() -> CallHarness:
    keys = KeypadMap(
        {"1": Say("We open at nine.")}, MenuPlan(prompt="Press 1.", otherwise=HangUp("Bye."))
    )
    return CallHarness(policy=QUIET, keypads={"test": keys})


def the_question_for_digits() -> CallHarness:
    return calls_tool("collect_digits", {"length": 4, "prompt": "Your number?"}, policy=QUIET)


def an_answer_to_digits() -> CallHarness:
    harness = calls_tool("collect_digits", {"length": 2}, speech="Your number?", policy=QUIET)
    harness.marks()
    harness.key("1")
    harness.key("2")
    return harness


def the_question_for_consent() -> CallHarness:
    harness = with_tool_running()
    harness.actions += harness.conversation.on_consent_wanted("c1", "Press 1.", harness.now_ms)
    return harness


def another_stream_of_the_call() -> CallHarness:
    harness = the_rest_of_an_answer()
    harness.speaks(3_000)
    harness.actions += harness.conversation.on_stream_left(harness.now_ms, resumes=True)
    harness.wait(300)
    harness.phone(
        StreamStarted(
            stream_id=StreamId("MZ2"), carrier_call_id=CarrierCallId("CA1"), account_id="AC1"
        )
    )
    return harness


def words_after_a_transfer_that_failed() -> CallHarness:
    harness = with_tool_running()
    harness.actions += harness.conversation.on_stream_left(harness.now_ms)
    harness.wait(20_000)
    harness.stream()
    harness.actions += harness.conversation.on_tool_done("c1", '{"error": "busy"}', harness.now_ms)
    return harness


def words_after_ringing_for_somebody() -> CallHarness:
    harness = with_tool_running()
    for _ in range(100):
        harness.now_ms += TICK_MS
        harness.actions += harness.conversation.on_tick(harness.now_ms, ringing=True)
    harness.conversation._ringback.stop()
    harness.actions += harness.conversation.on_tool_done("c1", '{"error": "busy"}', harness.now_ms)
    harness.now_ms += 4_000  # what rings is played a little ahead
    return harness


def stopped(side: Party, say: str | None, times: int = 1) -> CallHarness:
    """A guardrail that stops words, of either side, with or without other words."""
    harness = an_answer()
    for at in range(times):
        harness.response_begins(f"r{at}", f"a{at}")
        harness.speaks(200, "Buy gold now.", f"r{at}", f"a{at}")
        harness.now_ms += 300
        check = CheckGuardrail(
            side=side,
            item_id=f"a{at}" if side is Party.AGENT else "u1",
            text="gold",
            final=True,
            agent="test",
        )
        result = GuardrailResult(verdict=Stop(say, "gold"), rule="no gold")
        harness.actions += harness.conversation.on_guardrail_result(check, result, harness.now_ms)
        cancelled = Response(id=f"r{at}", status=ResponseStatus.CANCELLED)
        harness.voice(ResponseDone(cancelled))
    harness.now_ms += 300
    return harness


def other_words_after_a_guardrail() -> CallHarness:
    return stopped(Party.AGENT, "Let me put that differently.")


def another_try_after_a_guardrail() -> CallHarness:
    return stopped(Party.AGENT, None)


def words_after_a_guardrail_that_stops_all_tries() -> CallHarness:
    return stopped(Party.AGENT, None, times=MAX_STOPS_IN_A_ROW)


def words_after_a_guardrail_for_the_caller() -> CallHarness:
    return stopped(Party.CALLER, None)


def words_after_a_noise_that_cut_the_agent_off() -> CallHarness:
    harness = an_answer()
    harness.response_begins()
    harness.speaks(300, "Our hours are")
    harness.now_ms += 200
    harness.caller_starts("noise")
    harness.voice(SpeechStopped("noise", 0), TranscriptionCompleted("noise", 0, ""))
    harness.voice(ResponseDone(Response(id="r1", status=ResponseStatus.CANCELLED)))
    harness.now_ms += 4_000
    return harness


def words_after_a_noise_that_never_ends() -> CallHarness:
    harness = an_answer()
    harness.response_begins()
    harness.speaks(300, "Our hours are")
    harness.now_ms += 200
    harness.voice(SpeechStarted("noise", 0))
    return harness


def a_goodbye() -> CallHarness:
    return calls_tool("end_call", {"reason": "caller_said_goodbye"}, policy=QUIET)


def a_warning() -> CallHarness:
    harness = greeted()
    harness.actions += harness.conversation.warn_of_end(harness.now_ms)
    return harness


def an_inactivity_prompt() -> CallHarness:
    harness = CallHarness(policy=CallPolicy(inactivity_after_ms=3_000))
    harness.greeted()
    harness.wait(3_200)
    return harness


def the_answer_after_a_hold() -> CallHarness:
    harness = calls_tool("hold", {"seconds": 60}, speech="One moment.", policy=QUIET)
    harness.marks()
    harness.wait(20_000)
    harness.caller_turn("u5", "I am back.")
    return harness


def the_greeting_of_a_callee() -> CallHarness:
    return Placed().hello()


def the_greeting_of_a_callee_after_a_lost_connection() -> CallHarness:
    harness = Placed()
    harness.actions += harness.conversation.on_voice_lost(harness.now_ms)
    harness.now_ms += 300
    harness.ready()
    return harness.hello()


def a_confirmed_opt_out() -> CallHarness:
    harness = Placed().hello()
    harness.say_all("Hello, this is an AI assistant.")
    harness.caller_turn("u7", "Do not call me again.")
    return harness


WAITS: Final[dict[str, Callable[[], CallHarness]]] = {
    function.__name__.replace("_", " "): function
    for function in (
        the_greeting,
        an_answer,
        an_answer_whose_words_cannot_be_written,
        the_rest_of_an_answer,
        an_answer_that_failed,
        an_answer_that_was_empty,
        an_answer_of_white_space,
        the_reply_after_a_tool,
        words_after_a_tool_that_answers_with_nothing,
        a_tool_and_a_lost_connection,
        the_reply_after_a_tool_and_a_lost_connection,
        a_connection_that_was_lost_while_nobody_spoke,
        an_answer_after_a_lost_connection,
        the_agent_after_a_supervisor,
        an_operators_words,
        an_operators_instruction,
        words_after_an_operator_has_cut_off_an_answer,
        an_answer_to_a_key,
        the_text_of_a_key,
        a_menu,
        the_question_for_digits,
        an_answer_to_digits,
        the_question_for_consent,
        another_stream_of_the_call,
        words_after_a_transfer_that_failed,
        words_after_ringing_for_somebody,
        other_words_after_a_guardrail,
        another_try_after_a_guardrail,
        words_after_a_guardrail_that_stops_all_tries,
        words_after_a_guardrail_for_the_caller,
        words_after_a_noise_that_cut_the_agent_off,
        words_after_a_noise_that_never_ends,
        a_goodbye,
        a_warning,
        an_inactivity_prompt,
        the_answer_after_a_hold,
        the_greeting_of_a_callee,
        the_greeting_of_a_callee_after_a_lost_connection,
        a_confirmed_opt_out,
    )
}


@pytest.mark.parametrize("feed", FEEDS)
@pytest.mark.parametrize("reconnects", [True, False], ids=["reconnects", "is gone"])
@pytest.mark.parametrize("waits_for", WAITS)
def test_nobody_waits_in_silence_for_longer_than_twice_the_limit(
    waits_for: str, feed: str, reconnects: bool
) -> None:
    harness = WAITS[waits_for]()
    harness.take(End)
    assert silent_ms(harness, FEEDS[feed], reconnects=reconnects) <= LIMIT_MS
