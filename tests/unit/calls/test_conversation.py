"""A conversation: greeting, turns, barge-in, a model in trouble, tools. No socket, no clock."""

from __future__ import annotations

from app.agents.dialogue.messages import SayMode, SayWhen
from app.agents.guardrails.rules import CheckGuardrail, GuardrailResult, Stop
from app.calls.media.downlink import LATE_SOUND_MS, MAX_AHEAD_MS
from app.calls.policy import CallPolicy
from app.calls.turns.turn_table import Turn
from app.carrier.base import MarkReached
from app.events import (
    AgentSaid,
    BargeIn,
    CallerSaid,
    EndReason,
    KeyPressed,
    Party,
    StreamOpened,
    VoiceTrouble,
)
from app.realtime.events import (
    AudioDelta,
    AudioTranscriptDelta,
    ErrorDetail,
    ErrorEvent,
    ItemCreate,
    ItemDelete,
    ItemTruncate,
    OutputItemDone,
    ResponseCancel,
    ResponseStatus,
    ServerVad,
    SessionConfig,
    SessionUpdated,
)
from audio.format import PCM16_24K, PCMU_8K
from tests.unit.calls.harness import (
    AppendAudio,
    CallHarness,
    Clear,
    End,
    GiveUp,
    PlayAudio,
    ResponseCreate,
    call_item,
    spoken,
    with_tool_running,
)

# Greeting -----------------------------------------------------------------------------------------


def test_the_agent_greets_with_the_configured_words() -> None:
    harness = CallHarness()
    (create,) = harness.sent(ResponseCreate)
    assert spoken(create.response) == "Hello!"
    assert harness.conversation.turns.turn is Turn.THINKING


def test_without_greeting_words_the_model_chooses_its_own() -> None:
    (create,) = CallHarness(greeting=None).sent(ResponseCreate)
    assert create.response is None


def test_a_caller_who_speaks_first_is_not_greeted() -> None:
    harness = CallHarness(speaks_first=Party.CALLER)
    assert harness.sent(ResponseCreate) == []
    harness.caller_turn()
    harness.answer()
    assert harness.conversation.turns.turn is Turn.AGENT


def test_a_greeting_generated_before_the_stream_opens_is_played_when_it_does() -> None:
    harness = CallHarness(live=False)
    harness.ready()
    harness.now_ms = 300
    harness.answer(400, "Hello!", "greeting")
    assert (
        sum(len(play.payload) for play in harness.actions if isinstance(play, PlayAudio)) == 3_200
    )
    harness.now_ms = 900
    harness.stream()
    assert harness.recorded(StreamOpened)
    assert harness.conversation.latency.answer_to_first_audio_ms == 0
    harness.marks()
    assert [said.heard_text for said in harness.recorded(AgentSaid)] == ["Hello!"]


# Turns and transcripts ----------------------------------------------------------------------------


def test_caller_audio_goes_to_the_model_at_once() -> None:
    harness = CallHarness()
    harness.frame(0)
    (append,) = harness.take(AppendAudio)
    assert append.audio == b"\x10" * 160


def test_a_turn_of_each_side_gives_two_lines_in_the_order_of_speaking() -> None:
    harness = CallHarness()
    harness.greeted()
    harness.caller_starts()
    harness.caller_stops(text=None)
    harness.answer(600, "We open at nine.")
    harness.marks()
    assert harness.recorded(AgentSaid) == []  # the caller's words are still being written down
    harness.caller_stops(text="When do you open?")
    lines = [
        (type(action.event).__name__, action.event.text)
        for action in harness.actions
        if hasattr(action, "event") and isinstance(action.event, CallerSaid | AgentSaid)
    ]
    assert lines == [("CallerSaid", "When do you open?"), ("AgentSaid", "We open at nine.")]
    assert harness.conversation.turns.turn is Turn.IDLE


def test_turn_latency_is_measured_from_the_end_of_speech_to_the_first_audio() -> None:
    harness = CallHarness()
    harness.greeted()
    harness.caller_turn()
    harness.now_ms += 250
    harness.response_begins()
    harness.speaks(200)
    assert harness.conversation.latency.turn_latency_ms(0.5) == 500 + 250  # with the pause


def test_a_noise_without_words_takes_no_turn() -> None:
    harness = CallHarness()
    harness.greeted()
    harness.caller_turn(text="")
    assert harness.conversation.turns.turn is Turn.IDLE
    assert harness.recorded(CallerSaid) == []


def test_a_model_that_does_not_answer_by_itself_is_asked() -> None:
    harness = CallHarness(vad=ServerVad(create_response=False))
    harness.greeted()
    harness.caller_turn()
    assert len(harness.sent(ResponseCreate)) == 1


def test_a_response_that_runs_far_ahead_of_its_playing_is_cut_and_played_out() -> None:
    harness = CallHarness()
    harness.greeted()
    harness.caller_turn()
    harness.response_begins()
    for _ in range(30):
        harness.speaks(10_000)
    assert len(harness.sent(ResponseCancel)) == 1
    played_ms = sum(len(play.payload) for play in harness.take(PlayAudio)) // 8
    assert MAX_AHEAD_MS <= played_ms <= MAX_AHEAD_MS + 10_000
    assert harness.conversation.counters.stale_audio_dropped_ms == 300_000 - played_ms
    harness.response_ends(status=ResponseStatus.CANCELLED)
    harness.wait(played_ms - 5_000)
    assert not harness.conversation.floor.heard_out(harness.now_ms)
    harness.wait(6_100)
    assert harness.conversation.turns.turn is Turn.IDLE


# Barge-in -----------------------------------------------------------------------------------------


def test_barge_in_discards_clears_and_truncates_at_what_was_heard() -> None:
    harness = CallHarness()
    harness.greeted()
    harness.caller_turn()
    harness.response_begins()
    harness.speaks(2_000, "one two three four")
    first_mark = next(
        play.mark for play in harness.actions if isinstance(play, PlayAudio) and play.mark
    )
    harness.now_ms += 220
    harness.phone(MarkReached(first_mark))
    harness.now_ms += 50
    harness.actions.clear()
    harness.caller_starts("u2")
    assert harness.order[:2] == ["Clear", "ItemTruncate"]
    assert harness.sent(ItemTruncate) == [ItemTruncate("a1", 0, 250)]
    assert harness.sent(ResponseCancel) == []  # the server's own VAD has cancelled
    (cut,) = harness.recorded(BargeIn)
    assert (cut.heard_ms, cut.sent_ms) == (250, 2_000)


def test_late_audio_of_an_interrupted_response_is_dropped() -> None:
    harness = CallHarness()
    harness.greeted()
    harness.response_begins()
    harness.speaks(500)
    harness.caller_starts()
    harness.take(PlayAudio)
    harness.voice(AudioDelta("r1", "a1", 0, 0, b"\x20" * 800))
    assert harness.take(PlayAudio) == []
    assert harness.conversation.counters.stale_audio_dropped_ms == 100


def test_barge_in_works_long_after_the_model_has_finished_generating() -> None:
    harness = CallHarness()
    harness.greeted()
    harness.caller_turn()
    harness.answer(10_000, "a very long answer indeed")
    harness.wait(3_000)
    harness.actions.clear()
    harness.caller_starts("u2")
    assert harness.take(Clear)
    (truncate,) = harness.sent(ItemTruncate)
    assert truncate.audio_end_ms == 2_000  # no mark came back: by the clock, less a second
    assert harness.sent(ResponseCancel) == []


def test_marks_that_return_because_of_the_clear_do_not_count_as_heard() -> None:
    harness = CallHarness()
    harness.greeted()
    harness.answer(1_000, "one two three four")
    played = harness.take(PlayAudio)
    harness.caller_starts()
    for play in played:
        if play.mark is not None:
            harness.phone(MarkReached(play.mark))
    (said,) = harness.recorded(AgentSaid)
    assert (said.heard_text, said.cut_off) == ("", True)


def test_two_barge_ins_in_a_row_each_cut_their_own_answer() -> None:
    harness = CallHarness()
    harness.greeted()
    for number in ("1", "2"):
        harness.caller_turn(f"u{number}")
        harness.response_begins(f"r{number}", f"a{number}")
        harness.speaks(800, "one two", f"r{number}", f"a{number}")
        harness.now_ms += 100
        harness.actions.clear()
        harness.caller_starts(f"v{number}")
        assert len(harness.take(Clear)) == 1
        assert [cut.item_id for cut in harness.sent(ItemTruncate)] == [f"a{number}"]
        harness.response_ends(f"r{number}", None, ResponseStatus.CANCELLED)
        harness.caller_stops(f"v{number}")
    assert harness.conversation.counters.barge_ins == 2


def test_every_item_that_was_not_heard_to_its_end_is_truncated() -> None:
    harness = CallHarness()
    harness.greeted()
    harness.response_begins("r1", "a1")
    harness.speaks(400, "one", "r1", "a1")
    harness.response_ends("r1", "a1", text="one")
    harness.response_begins("r2", "a2")
    harness.speaks(400, "two", "r2", "a2")
    harness.now_ms += 150
    harness.caller_starts()
    assert harness.sent(ItemTruncate) == [ItemTruncate("a1", 0, 150), ItemTruncate("a2", 0, 0)]


def test_a_server_that_does_not_interrupt_by_itself_is_told_to_cancel() -> None:
    harness = CallHarness(vad=ServerVad(interrupt_response=False))
    harness.greeted()
    harness.response_begins("r9")
    harness.speaks(500, response_id="r9")
    harness.caller_starts()
    assert harness.sent(ResponseCancel) == [ResponseCancel("r9")]


def test_a_reply_that_was_asked_for_before_the_caller_spoke_is_cancelled_when_it_begins() -> None:
    harness = CallHarness()  # the greeting is asked for, and has not begun
    harness.caller_starts()
    harness.response_begins("r1")
    assert harness.sent(ResponseCancel) == [ResponseCancel("r1")]
    harness.take(PlayAudio)
    harness.speaks(200)
    assert harness.take(PlayAudio) == []


def test_a_stream_that_sends_nothing_is_probed_and_then_lost() -> None:
    harness = CallHarness(policy=CallPolicy(inactivity_after_ms=0), returns_probes=False)
    harness.greeted()
    harness.wait(9_900)
    assert harness.take(PlayAudio) == []
    harness.wait(100)
    assert harness.take(PlayAudio) == [PlayAudio(b"", "probe")]
    harness.wait(19_900)
    assert harness.take(PlayAudio) == []
    assert harness.take(End) == []
    harness.wait(100)
    assert harness.take(End)[0] == End(EndReason.CARRIER_LOST, "stream_silent")


def test_a_quiet_stream_whose_carrier_returns_the_probe_goes_on() -> None:
    harness = CallHarness(policy=CallPolicy(inactivity_after_ms=0), returns_probes=False)
    harness.greeted()
    for _ in range(5):
        harness.wait(10_000)
        assert len(harness.take(PlayAudio)) == 1
        harness.phone(MarkReached("probe"))
    assert harness.take(End) == []


def test_a_caller_who_is_not_on_a_stream_is_not_probed() -> None:
    harness = CallHarness(policy=CallPolicy(inactivity_after_ms=0))
    harness.greeted()
    harness.actions += harness.conversation.on_stream_left(harness.now_ms)
    harness.actions.clear()
    harness.wait(40_000)
    assert harness.take(PlayAudio) == []
    assert harness.take(End) == []


def test_speech_over_sound_that_the_carrier_may_still_play_clears_it() -> None:
    harness = CallHarness()
    harness.greeted()
    harness.caller_turn()
    harness.answer(1_000)
    harness.wait(3_000)  # no mark came back: the line behind the carrier is slow
    assert harness.conversation.turns.turn is Turn.IDLE
    harness.caller_starts("u2")
    assert len(harness.take(Clear)) == 1
    assert harness.conversation.counters.barge_ins == 0  # as far as we know, all of it was heard
    harness.caller_stops("u2")
    harness.caller_starts("u3")
    assert harness.take(Clear) == []


def test_speech_over_silence_sends_the_carrier_nothing() -> None:
    harness = CallHarness()
    harness.greeted()
    harness.caller_starts()
    assert harness.take(Clear) == []
    assert harness.sent(ItemTruncate) == []


# Keypad -------------------------------------------------------------------------------------------


def test_a_key_stops_the_agent_and_is_given_to_the_model() -> None:
    harness = CallHarness()
    harness.greeted()
    harness.answer(2_000)
    harness.actions.clear()
    harness.key("5")
    assert harness.order[0] == "KeyPressed"
    assert harness.recorded(KeyPressed)
    assert harness.take(Clear)
    (create,) = harness.sent(ItemCreate)
    assert create.item.content[0].text == "[keypad] 5"
    assert len(harness.sent(ResponseCreate)) == 1


# The model in trouble -----------------------------------------------------------------------------


def test_a_failed_response_is_asked_for_again_and_then_given_up() -> None:
    harness = CallHarness()
    harness.greeted()
    harness.caller_turn()
    failure = ErrorDetail(type="server_error", code="server_error")
    harness.response_begins("r1", None)
    harness.response_ends("r1", None, ResponseStatus.FAILED, error=failure)
    assert len(harness.sent(ResponseCreate)) == 1
    harness.response_begins("r2", None)
    harness.response_ends("r2", None, ResponseStatus.FAILED, error=failure)
    assert harness.take(GiveUp) == [GiveUp(code="server_error", retryable=True, passes=True)]


def test_a_quota_failure_is_never_retried() -> None:
    harness = CallHarness()
    harness.greeted()
    harness.response_begins("r1", None)
    quota = ErrorDetail(type="insufficient_quota", code="insufficient_quota")
    harness.response_ends("r1", None, ResponseStatus.FAILED, error=quota)
    assert harness.take(GiveUp) == [GiveUp(code="insufficient_quota", retryable=False)]
    assert harness.sent(ResponseCreate) == []


def test_a_session_that_switches_the_sound_format_ends_the_call_before_static() -> None:
    harness = CallHarness()
    harness.greeted()
    harness.voice(SessionUpdated(SessionConfig(output_format=PCMU_8K)))
    assert harness.take(GiveUp) == []
    harness.voice(SessionUpdated(SessionConfig(output_format=PCM16_24K)))
    assert harness.take(GiveUp) == [GiveUp(code="format_mismatch", retryable=False)]


def test_an_empty_answer_is_not_left_as_silence() -> None:
    harness = CallHarness()
    harness.greeted()
    harness.caller_turn()
    harness.response_begins("r1", None)
    harness.response_ends("r1", None)
    assert len(harness.sent(ResponseCreate)) == 1


def silent_answer(harness: CallHarness, name: str, ms: int = 1_000) -> None:
    harness.response_begins(f"r{name}", f"a{name}")
    harness.voice(AudioDelta(f"r{name}", f"a{name}", 0, 0, b"\xff\x7f" * (4 * ms)))
    harness.response_ends(f"r{name}", f"a{name}", text="I said something.")


def test_an_answer_that_nobody_can_hear_is_taken_back_and_asked_for_again() -> None:
    harness = CallHarness()
    harness.greeted()
    harness.caller_turn()
    silent_answer(harness, "1")
    assert len(harness.sent(ResponseCreate)) == 1
    assert harness.sent(ItemDelete) == [ItemDelete("a1")]
    assert len(harness.take(Clear)) == 1
    assert harness.conversation.turns.turn is Turn.THINKING
    assert [trouble.code for trouble in harness.recorded(VoiceTrouble)] == ["inaudible_response"]
    harness.answer(name="2")
    harness.marks()
    assert [line.text for line in harness.recorded(AgentSaid)] == ["one two three four"]
    assert harness.conversation.counters.responses_failed == 1


def test_words_without_any_sound_are_taken_back_and_asked_for_again() -> None:
    harness = CallHarness()
    harness.greeted()
    harness.caller_turn()
    harness.response_begins()
    harness.response_ends(text="I wrote something.")
    assert harness.sent(ResponseCreate) == []  # sound may still come
    harness.wait(LATE_SOUND_MS)
    assert len(harness.sent(ResponseCreate)) == 1
    assert harness.sent(ItemDelete) == [ItemDelete("a1")]
    assert [trouble.code for trouble in harness.recorded(VoiceTrouble)] == ["inaudible_response"]


def test_sound_may_come_after_its_response_was_done() -> None:
    harness = CallHarness()
    harness.greeted()
    harness.caller_turn()
    harness.response_begins()
    harness.response_ends(text="one two")
    for _ in range(3):
        harness.wait(LATE_SOUND_MS - 100)
        harness.speaks(400)
    harness.wait(LATE_SOUND_MS)
    harness.marks()
    assert harness.sent(ResponseCreate) == []
    assert harness.recorded(VoiceTrouble) == []
    assert [(line.text, line.cut_off) for line in harness.recorded(AgentSaid)] == [
        ("one two", False)
    ]
    assert not harness.conversation.dialogue.gate.busy


def test_a_model_that_only_keeps_silent_is_given_up() -> None:
    harness = CallHarness()
    harness.greeted()
    harness.caller_turn()
    silent_answer(harness, "1")
    silent_answer(harness, "2")
    assert harness.take(GiveUp) == [GiveUp(code="inaudible_response", retryable=True)]


def test_a_silent_answer_does_not_cut_the_words_before_it() -> None:
    harness = CallHarness()
    harness.greeted()
    harness.caller_turn()
    harness.answer(2_000)
    harness.actions += harness.conversation.say(
        "Wait.", harness.now_ms, mode=SayMode.VERBATIM, when=SayWhen.AFTER_TURN
    )
    silent_answer(harness, "2")
    assert harness.take(Clear) == []
    assert len(harness.sent(ResponseCreate)) == 2


def test_a_silent_beginning_does_not_make_an_answer_inaudible() -> None:
    harness = CallHarness()
    harness.greeted()
    harness.caller_turn()
    harness.response_begins()
    harness.voice(AudioDelta("r1", "a1", 0, 0, b"\xff" * 4_000))
    harness.speaks(200)
    harness.response_ends()
    assert harness.sent(ResponseCreate) == []


def test_benign_errors_are_counted_and_nothing_else() -> None:
    harness = CallHarness()
    harness.greeted()
    harness.voice(ErrorEvent(ErrorDetail(code="response_cancel_not_active")))
    assert harness.conversation.counters.benign_errors == 1
    assert harness.take(GiveUp) == []


def test_a_reconnect_replays_the_conversation_and_greets_nobody() -> None:
    harness = CallHarness()
    harness.greeted()
    harness.caller_turn(text="When do you open?")
    harness.answer(400, "At nine.", "1")
    harness.marks()
    harness.actions.clear()
    harness.actions += harness.conversation.on_voice_lost(harness.now_ms)
    harness.ready()
    items = [create.item for create in harness.sent(ItemCreate)]
    assert [item.role for item in items] == ["assistant", "user", "assistant", "system"]
    assert harness.sent(ResponseCreate) == []


def test_whispers_are_told_again_to_another_connection_also_those_that_had_none() -> None:
    harness = CallHarness()
    harness.greeted()
    harness.actions += harness.conversation.whisper("Offer ten percent.")
    harness.actions += harness.conversation.on_voice_lost(harness.now_ms)
    harness.actions += harness.conversation.whisper("Not more.")
    harness.actions.clear()
    harness.ready()
    told = " ".join(str(create.item) for create in harness.sent(ItemCreate))
    assert told.index("Offer ten percent.") < told.index("Not more.")


def test_a_reconnect_in_mid_answer_has_the_model_go_on() -> None:
    harness = CallHarness()
    harness.greeted()
    harness.caller_turn(text="When do you open?")
    harness.response_begins()
    harness.speaks(300, "At")
    harness.actions.clear()
    harness.actions += harness.conversation.on_voice_lost(harness.now_ms)
    harness.ready()
    assert len(harness.sent(ResponseCreate)) == 1


def test_repeated_speech_events_of_the_model_are_harmless() -> None:
    harness = CallHarness()
    harness.greeted()
    harness.caller_starts()
    harness.caller_starts()
    harness.caller_stops()
    harness.caller_stops()
    assert harness.take(End) == []
    assert harness.conversation.counters.protocol_surprises > 0


# Tools and guardrails -----------------------------------------------------------------------------


def test_parallel_tools_get_one_reply_when_the_last_has_answered() -> None:
    harness = CallHarness()
    harness.greeted()
    harness.caller_turn()
    harness.response_begins("r1", None)
    harness.response_ends("r1", None, calls=(call_item("x", "c1"), call_item("y", "c2")))
    harness.actions += harness.conversation.on_tool_done("c1", "1", harness.now_ms)
    assert harness.sent(ResponseCreate) == []
    harness.actions += harness.conversation.on_tool_done("c2", "2", harness.now_ms)
    assert len(harness.sent(ResponseCreate)) == 1
    assert [create.item.call_id for create in harness.sent(ItemCreate)] == ["c1", "c2"]


def test_a_tool_that_answers_while_its_response_still_runs_waits_with_the_reply() -> None:
    harness = CallHarness()
    harness.greeted()
    harness.caller_turn()
    harness.response_begins("r1")
    harness.speaks(200)
    call = call_item("x")

    harness.voice(OutputItemDone("r1", 1, call))
    harness.actions += harness.conversation.on_tool_done("c1", "1", harness.now_ms)
    assert harness.sent(ResponseCreate) == []
    harness.response_ends("r1", calls=())
    assert len(harness.sent(ResponseCreate)) == 1


def test_a_filler_is_said_to_a_caller_who_waits_in_silence() -> None:
    harness = with_tool_running()
    harness.actions += harness.conversation.on_tool_slow("c1", "One moment.", harness.now_ms)
    (create,) = harness.sent(ResponseCreate)
    assert spoken(create.response) == "One moment."


def test_a_filler_is_not_said_to_a_caller_who_speaks_or_listens() -> None:
    harness = with_tool_running()
    harness.caller_starts("u2")
    assert harness.conversation.on_tool_slow("c1", "One moment.", harness.now_ms) == []
    harness = CallHarness()
    harness.greeted()
    harness.caller_turn()
    harness.response_begins()
    harness.speaks(2_000, "Let me see.")
    harness.response_ends(calls=(call_item("look_up"),))
    assert harness.conversation.on_tool_slow("c1", "One moment.", harness.now_ms) == []


def test_a_filler_waits_for_a_caller_who_is_not_on_a_stream() -> None:
    harness = with_tool_running()
    harness.conversation.on_stream_left(harness.now_ms)
    assert harness.conversation.on_tool_slow("c1", "One moment.", harness.now_ms) == []
    harness.stream()
    assert harness.conversation.on_tool_slow("c1", "One moment.", harness.now_ms)


def test_a_tool_that_wants_no_reply_gives_the_floor_back() -> None:
    harness = with_tool_running()
    harness.actions += harness.conversation.on_tool_done("c1", "{}", harness.now_ms, reply=False)
    assert harness.conversation.turns.turn is Turn.IDLE
    assert harness.sent(ResponseCreate) == []


def test_words_that_guardrails_stop_are_cut_at_what_was_heard() -> None:
    harness = CallHarness()
    harness.greeted()
    harness.caller_turn()
    harness.response_begins()
    harness.speaks(2_000, "one two three four ")
    mark = next(play.mark for play in harness.take(PlayAudio) if play.mark)
    harness.now_ms += 200
    harness.phone(MarkReached(mark))
    harness.actions.clear()
    check = CheckGuardrail(side=Party.AGENT, item_id="a1", text="x", final=False, agent="test")
    stop = GuardrailResult(verdict=Stop("I must not say that.", "secret"), rule="secrets")
    harness.actions += harness.conversation.on_guardrail_result(check, stop, harness.now_ms)
    assert harness.order[:2] == ["Clear", "ItemTruncate"]
    assert "ResponseCancel" in harness.order
    assert harness.recorded(BargeIn) == []
    (said,) = harness.recorded(AgentSaid)
    assert (said.text, said.cut_off) == ("one two three four", True)  # not as the next word began
    harness.response_ends("r1", "a1", ResponseStatus.CANCELLED)
    (create,) = harness.sent(ResponseCreate)
    assert spoken(create.response) == "I must not say that."


def test_something_to_say_in_a_quiet_moment_waits_until_all_is_heard() -> None:
    harness = CallHarness()
    harness.greeted()
    harness.answer(500, "Hello.", "2")
    harness.actions += harness.conversation.say(
        "By the way.", harness.now_ms, mode=SayMode.VERBATIM, when=SayWhen.IDLE
    )
    assert harness.sent(ResponseCreate) == []
    harness.marks()
    harness.wait(100)
    (create,) = harness.sent(ResponseCreate)
    assert spoken(create.response) == "By the way."


def test_words_that_never_became_sound_were_not_heard() -> None:
    harness = CallHarness(transcribed=True)
    harness.greeted()
    harness.caller_turn("u1", "When are you open?")
    harness.response_begins("r1", "a1")
    harness.voice(AudioTranscriptDelta("r1", "a1", 0, 0, "We are open from nine."))
    harness.caller_starts("u2")
    harness.response_ends("r1", "a1", ResponseStatus.CANCELLED)
    harness.caller_stops("u2", "On Friday, I mean.")
    harness.answer(500, "Until noon.", "2")
    harness.marks()
    harness.wait(200)
    said = [(line.text, line.heard_text, line.cut_off) for line in harness.recorded(AgentSaid)]
    assert said == [("We are open from nine.", "", True), ("Until noon.", "Until noon.", False)]
