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
from tests.unit.calls.outbound.test_answering import Placed
from tests.unit.calls.scene import (
    End,
    GiveUp,
    RunTool,
    Scene,
    call_item,
    calls_tool,
    with_tool_running,
)

TICK_MS: Final = 100
LIMIT_MS: Final = 2 * CallPolicy().answer_wait_ms + TICK_MS
QUIET: Final = CallPolicy(inactivity_after_ms=0)
"""Whoever is only heard of by the prompt to a silent caller has waited for longer."""


def silent_ms(scene: Scene, feed: Callable[[Scene], None], *, reconnects: bool) -> int:
    """The time until the caller hears something, or the call ends."""
    began_ms = scene.now_ms
    ready_ms: int | None = None
    completed = -1
    for _ in range(20_000 // TICK_MS):
        heard_ms = scene.conversation._downlink.last_audible_ms(scene.now_ms)
        if scene.take(End) or (heard_ms is not None and heard_ms > began_ms):
            break
        if given_up := scene.take(GiveUp):
            answered = scene.conversation.dialogue.failures.completed
            if completed == answered and not given_up[-1].passes:
                break  # the voice loop ends a call whose model has not answered since the last one
            completed = answered
            scene.actions += scene.conversation.on_voice_lost(scene.now_ms)
            ready_ms = scene.now_ms + 300 if reconnects else None
        if ready_ms is not None and scene.now_ms >= ready_ms:
            ready_ms = None
            scene.ready()
        scene.phone(CallerAudio(b"\xff" * 160, scene.now_ms))
        feed(scene)
        scene.wait(TICK_MS)
    return scene.now_ms - began_ms


def nothing(scene: Scene) -> None:
    """The model sends nothing at all."""


def noise_floor(scene: Scene) -> None:
    """Sound at the level of a quiet line, in a response without end, and words of white space."""
    sound = bytes(random.Random(scene.now_ms).choices(b"\xff\x7f\xfe\x7e", k=800))
    scene.voice(AudioDelta("r9", "a9", 0, 0, sound), AudioTranscriptDelta("r9", "a9", 0, 0, " \n"))


def empty_responses(scene: Scene) -> None:
    """Each response that is asked for is completed at once, with nothing in it."""
    if scene.conversation.dialogue.gate.busy:
        name = f"r{scene.now_ms}"
        scene.response_begins(name, None)
        scene.response_ends(name, None)


def failed_responses(scene: Scene) -> None:
    """Each response that is asked for fails at once, as in an outage of the model's server."""
    if scene.conversation.dialogue.gate.busy:
        name = f"r{scene.now_ms}"
        scene.response_begins(name, None)
        error = ErrorDetail(code="server_error")
        scene.response_ends(name, None, status=ResponseStatus.FAILED, error=error)


def silent_responses(scene: Scene) -> None:
    """Each response that is asked for begins, and is silence without end."""
    gate = scene.conversation.dialogue.gate
    if gate.busy and gate.active_response_id is None:
        scene.response_begins(f"r{scene.now_ms}", f"a{scene.now_ms}")
    if response_id := gate.active_response_id:
        scene.voice(AudioDelta(response_id, response_id.replace("r", "a"), 0, 0, b"\xff" * 800))


def tool_calls(scene: Scene) -> None:
    """Each response that is asked for calls a tool, which has its result at once."""
    if scene.conversation.dialogue.gate.busy:
        name = f"r{scene.now_ms}"
        scene.response_begins(name, None)
        scene.response_ends(name, None, calls=(call_item("look_up", f"c{name}"),))
        scene.actions += scene.conversation.on_tool_done(f"c{name}", "{}", scene.now_ms)


def slow_tool_calls(scene: Scene) -> None:
    """The same, with results that take a second."""
    for run in scene.take(RunTool):
        scene.later[scene.now_ms + 1_000] = run.tool_call_id
    if scene.conversation.dialogue.gate.busy:
        name = f"r{scene.now_ms}"
        scene.response_begins(name, None)
        scene.response_ends(name, None, calls=(call_item("look_up", f"c{name}"),))
    if tool_call_id := scene.later.pop(scene.now_ms, ""):
        scene.actions += scene.conversation.on_tool_done(tool_call_id, "{}", scene.now_ms)


FEEDS: Final = {
    "nothing": nothing,
    "tool calls": tool_calls,
    "slow tool calls": slow_tool_calls,
    "noise": noise_floor,
    "empty responses": empty_responses,
    "failed responses": failed_responses,
    "silent responses": silent_responses,
}


def greeted(**options: Any) -> Scene:
    scene = Scene(policy=QUIET, **options)
    scene.greeted()
    return scene


def the_greeting() -> Scene:
    return Scene(policy=QUIET)


def an_answer() -> Scene:
    scene = greeted(transcribed=True)
    scene.caller_turn()
    return scene


def an_answer_whose_words_cannot_be_written() -> Scene:
    scene = greeted(transcribed=True)
    scene.caller_starts()
    scene.caller_stops(text=None)
    scene.voice(TranscriptionFailed("u1", 0, ErrorDetail(code="x")))
    return scene


def the_rest_of_an_answer() -> Scene:
    scene = an_answer()
    scene.response_begins()
    scene.speaks(300, "Our hours")
    scene.marks()
    return scene


def an_answer_that_failed() -> Scene:
    scene = an_answer()
    scene.response_begins()
    scene.response_ends(status=ResponseStatus.FAILED, error=ErrorDetail(code="server_error"))
    return scene


def an_answer_that_was_empty() -> Scene:
    scene = an_answer()
    scene.response_begins("r1", None)
    scene.response_ends("r1", None)
    return scene


def an_answer_of_white_space() -> Scene:
    scene = an_answer()
    scene.response_begins()
    scene.response_ends(text=" \n ")
    return scene


def the_reply_after_a_tool() -> Scene:
    scene = with_tool_running()
    scene.actions += scene.conversation.on_tool_done("c1", "{}", scene.now_ms)
    return scene


def words_after_a_tool_that_answers_with_nothing() -> Scene:
    scene = with_tool_running()
    scene.actions += scene.conversation.on_tool_done("c1", "", scene.now_ms)
    return scene


def a_tool_and_a_lost_connection() -> Scene:
    scene = with_tool_running()
    scene.actions += scene.conversation.on_voice_lost(scene.now_ms)
    scene.wait(300)
    scene.ready()
    return scene


def the_reply_after_a_tool_and_a_lost_connection() -> Scene:
    scene = a_tool_and_a_lost_connection()
    scene.actions += scene.conversation.on_tool_done("c1", "{}", scene.now_ms)
    return scene


def a_connection_that_was_lost_while_nobody_spoke() -> Scene:
    scene = greeted()
    scene.actions += scene.conversation.on_voice_lost(scene.now_ms)
    return scene


def an_answer_after_a_lost_connection() -> Scene:
    scene = an_answer()
    scene.actions += scene.conversation.on_voice_lost(scene.now_ms)
    scene.wait(300)
    scene.ready()
    return scene


def the_agent_after_a_supervisor() -> Scene:
    scene = greeted()
    scene.actions += scene.conversation.take_over(scene.now_ms)
    scene.caller_turn()
    scene.wait(30_000)
    scene.actions += scene.conversation.hand_back(scene.now_ms)
    return scene


def an_operators_words() -> Scene:
    scene = greeted()
    say = scene.conversation.say
    scene.actions += say("Hi.", scene.now_ms, mode=SayMode.VERBATIM, when=SayWhen.AFTER_TURN)
    return scene


def an_operators_instruction() -> Scene:
    scene = greeted()
    scene.actions += scene.conversation.instruct("Offer a refund.", scene.now_ms)
    return scene


def words_after_an_operator_has_cut_off_an_answer() -> Scene:
    scene = the_rest_of_an_answer()
    scene.actions += scene.conversation.interrupt(scene.now_ms)
    scene.actions += scene.conversation.instruct("Offer a refund.", scene.now_ms)
    return scene


def an_answer_to_a_key() -> Scene:
    scene = greeted()
    scene.key("2")
    return scene


def the_text_of_a_key() -> Scene:
    scene = greeted(keypads={"test": KeypadMap({"1": Say("We open at nine.")})})
    scene.key("1")
    return scene


def a_menu() -> Scene:
    keys = KeypadMap(
        {"1": Say("We open at nine.")}, MenuPlan(prompt="Press 1.", otherwise=HangUp("Bye."))
    )
    return Scene(policy=QUIET, keypads={"test": keys})


def the_question_for_digits() -> Scene:
    return calls_tool("collect_digits", {"length": 4, "prompt": "Your number?"}, policy=QUIET)


def an_answer_to_digits() -> Scene:
    scene = calls_tool("collect_digits", {"length": 2}, speech="Your number?", policy=QUIET)
    scene.marks()
    scene.key("1")
    scene.key("2")
    return scene


def the_question_for_consent() -> Scene:
    scene = with_tool_running()
    scene.actions += scene.conversation.on_consent_wanted("c1", "Press 1.", scene.now_ms)
    return scene


def another_stream_of_the_call() -> Scene:
    scene = the_rest_of_an_answer()
    scene.speaks(3_000)
    scene.actions += scene.conversation.on_stream_left(scene.now_ms, resumes=True)
    scene.wait(300)
    scene.phone(
        StreamStarted(
            stream_id=StreamId("MZ2"), carrier_call_id=CarrierCallId("CA1"), account_id="AC1"
        )
    )
    return scene


def words_after_a_transfer_that_failed() -> Scene:
    scene = with_tool_running()
    scene.actions += scene.conversation.on_stream_left(scene.now_ms)
    scene.wait(20_000)
    scene.stream()
    scene.actions += scene.conversation.on_tool_done("c1", '{"error": "busy"}', scene.now_ms)
    return scene


def words_after_ringing_for_somebody() -> Scene:
    scene = with_tool_running()
    for _ in range(100):
        scene.now_ms += TICK_MS
        scene.actions += scene.conversation.on_tick(scene.now_ms, ringing=True)
    scene.conversation._ringback.stop()
    scene.actions += scene.conversation.on_tool_done("c1", '{"error": "busy"}', scene.now_ms)
    scene.now_ms += 4_000  # what rings is played a little ahead
    return scene


def stopped(side: Party, say: str | None, times: int = 1) -> Scene:
    """A guardrail that stops words, of either side, with or without other words."""
    scene = an_answer()
    for at in range(times):
        scene.response_begins(f"r{at}", f"a{at}")
        scene.speaks(200, "Buy gold now.", f"r{at}", f"a{at}")
        scene.now_ms += 300
        check = CheckGuardrail(
            side=side,
            item_id=f"a{at}" if side is Party.AGENT else "u1",
            text="gold",
            final=True,
            agent="test",
        )
        result = GuardrailResult(verdict=Stop(say, "gold"), rule="no gold")
        scene.actions += scene.conversation.on_guardrail_result(check, result, scene.now_ms)
        cancelled = Response(id=f"r{at}", status=ResponseStatus.CANCELLED)
        scene.voice(ResponseDone(cancelled))
    scene.now_ms += 300
    return scene


def other_words_after_a_guardrail() -> Scene:
    return stopped(Party.AGENT, "Let me put that differently.")


def another_try_after_a_guardrail() -> Scene:
    return stopped(Party.AGENT, None)


def words_after_a_guardrail_that_stops_all_tries() -> Scene:
    return stopped(Party.AGENT, None, times=MAX_STOPS_IN_A_ROW)


def words_after_a_guardrail_for_the_caller() -> Scene:
    return stopped(Party.CALLER, None)


def words_after_a_noise_that_cut_the_agent_off() -> Scene:
    scene = an_answer()
    scene.response_begins()
    scene.speaks(300, "Our hours are")
    scene.now_ms += 200
    scene.caller_starts("noise")
    scene.voice(SpeechStopped("noise", 0), TranscriptionCompleted("noise", 0, ""))
    scene.voice(ResponseDone(Response(id="r1", status=ResponseStatus.CANCELLED)))
    scene.now_ms += 4_000
    return scene


def words_after_a_noise_that_never_ends() -> Scene:
    scene = an_answer()
    scene.response_begins()
    scene.speaks(300, "Our hours are")
    scene.now_ms += 200
    scene.voice(SpeechStarted("noise", 0))
    return scene


def a_goodbye() -> Scene:
    return calls_tool("end_call", {"reason": "caller_said_goodbye"}, policy=QUIET)


def a_warning() -> Scene:
    scene = greeted()
    scene.actions += scene.conversation.warn_of_end(scene.now_ms)
    return scene


def an_inactivity_prompt() -> Scene:
    scene = Scene(policy=CallPolicy(inactivity_after_ms=3_000))
    scene.greeted()
    scene.wait(3_200)
    return scene


def the_answer_after_a_hold() -> Scene:
    scene = calls_tool("hold", {"seconds": 60}, speech="One moment.", policy=QUIET)
    scene.marks()
    scene.wait(20_000)
    scene.caller_turn("u5", "I am back.")
    return scene


def the_greeting_of_a_callee() -> Scene:
    return Placed().hello()


def the_greeting_of_a_callee_after_a_lost_connection() -> Scene:
    scene = Placed()
    scene.actions += scene.conversation.on_voice_lost(scene.now_ms)
    scene.now_ms += 300
    scene.ready()
    return scene.hello()


def a_confirmed_opt_out() -> Scene:
    scene = Placed().hello()
    scene.say_all("Hello, this is an AI assistant.")
    scene.caller_turn("u7", "Do not call me again.")
    return scene


WAITS: Final[dict[str, Callable[[], Scene]]] = {
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
    scene = WAITS[waits_for]()
    scene.take(End)
    assert silent_ms(scene, FEEDS[feed], reconnects=reconnects) <= LIMIT_MS
