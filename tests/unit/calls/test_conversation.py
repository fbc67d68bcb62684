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
from tests.unit.calls.scene import (
    AppendAudio,
    Clear,
    End,
    GiveUp,
    PlayAudio,
    ResponseCreate,
    Scene,
    call_item,
    spoken,
    with_tool_running,
)

# Greeting -----------------------------------------------------------------------------------------


def test_the_agent_greets_with_the_configured_words() -> None:
    scene = Scene()
    (create,) = scene.sent(ResponseCreate)
    assert spoken(create.response) == "Hello!"
    assert scene.conversation.turns.turn is Turn.THINKING


def test_without_greeting_words_the_model_chooses_its_own() -> None:
    (create,) = Scene(greeting=None).sent(ResponseCreate)
    assert create.response is None


def test_a_caller_who_speaks_first_is_not_greeted() -> None:
    scene = Scene(speaks_first=Party.CALLER)
    assert scene.sent(ResponseCreate) == []
    scene.caller_turn()
    scene.answer()
    assert scene.conversation.turns.turn is Turn.AGENT


def test_a_greeting_generated_before_the_stream_opens_is_played_when_it_does() -> None:
    scene = Scene(live=False)
    scene.ready()
    scene.now_ms = 300
    scene.answer(400, "Hello!", "greeting")
    assert sum(len(play.payload) for play in scene.actions if isinstance(play, PlayAudio)) == 3_200
    scene.now_ms = 900
    scene.stream()
    assert scene.recorded(StreamOpened)
    assert scene.conversation.latency.answer_to_first_audio_ms == 0
    scene.marks()
    assert [said.heard_text for said in scene.recorded(AgentSaid)] == ["Hello!"]


# Turns and transcripts ----------------------------------------------------------------------------


def test_caller_audio_goes_to_the_model_at_once() -> None:
    scene = Scene()
    scene.frame(0)
    (append,) = scene.take(AppendAudio)
    assert append.audio == b"\x10" * 160


def test_a_turn_of_each_side_gives_two_lines_in_the_order_of_speaking() -> None:
    scene = Scene()
    scene.greeted()
    scene.caller_starts()
    scene.caller_stops(text=None)
    scene.answer(600, "We open at nine.")
    scene.marks()
    assert scene.recorded(AgentSaid) == []  # the caller's words are still being written down
    scene.caller_stops(text="When do you open?")
    lines = [
        (type(action.event).__name__, action.event.text)
        for action in scene.actions
        if hasattr(action, "event") and isinstance(action.event, CallerSaid | AgentSaid)
    ]
    assert lines == [("CallerSaid", "When do you open?"), ("AgentSaid", "We open at nine.")]
    assert scene.conversation.turns.turn is Turn.IDLE


def test_turn_latency_is_measured_from_the_end_of_speech_to_the_first_audio() -> None:
    scene = Scene()
    scene.greeted()
    scene.caller_turn()
    scene.now_ms += 250
    scene.response_begins()
    scene.speaks(200)
    assert scene.conversation.latency.turn_latency_ms(0.5) == 500 + 250  # with the pause


def test_a_noise_without_words_takes_no_turn() -> None:
    scene = Scene()
    scene.greeted()
    scene.caller_turn(text="")
    assert scene.conversation.turns.turn is Turn.IDLE
    assert scene.recorded(CallerSaid) == []


def test_a_model_that_does_not_answer_by_itself_is_asked() -> None:
    scene = Scene(vad=ServerVad(create_response=False))
    scene.greeted()
    scene.caller_turn()
    assert len(scene.sent(ResponseCreate)) == 1


def test_a_response_that_runs_far_ahead_of_its_playing_is_cut_and_played_out() -> None:
    scene = Scene()
    scene.greeted()
    scene.caller_turn()
    scene.response_begins()
    for _ in range(30):
        scene.speaks(10_000)
    assert len(scene.sent(ResponseCancel)) == 1
    played_ms = sum(len(play.payload) for play in scene.take(PlayAudio)) // 8
    assert MAX_AHEAD_MS <= played_ms <= MAX_AHEAD_MS + 10_000
    assert scene.conversation.counters.stale_audio_dropped_ms == 300_000 - played_ms
    scene.response_ends(status=ResponseStatus.CANCELLED)
    scene.wait(played_ms - 5_000)
    assert not scene.conversation.floor.heard_out(scene.now_ms)
    scene.wait(6_100)
    assert scene.conversation.turns.turn is Turn.IDLE


# Barge-in -----------------------------------------------------------------------------------------


def test_barge_in_discards_clears_and_truncates_at_what_was_heard() -> None:
    scene = Scene()
    scene.greeted()
    scene.caller_turn()
    scene.response_begins()
    scene.speaks(2_000, "one two three four")
    first_mark = next(
        play.mark for play in scene.actions if isinstance(play, PlayAudio) and play.mark
    )
    scene.now_ms += 220
    scene.phone(MarkReached(first_mark))
    scene.now_ms += 50
    scene.actions.clear()
    scene.caller_starts("u2")
    assert scene.order[:2] == ["Clear", "ItemTruncate"]
    assert scene.sent(ItemTruncate) == [ItemTruncate("a1", 0, 250)]
    assert scene.sent(ResponseCancel) == []  # the server's own VAD has cancelled
    (cut,) = scene.recorded(BargeIn)
    assert (cut.heard_ms, cut.sent_ms) == (250, 2_000)


def test_late_audio_of_an_interrupted_response_is_dropped() -> None:
    scene = Scene()
    scene.greeted()
    scene.response_begins()
    scene.speaks(500)
    scene.caller_starts()
    scene.take(PlayAudio)
    scene.voice(AudioDelta("r1", "a1", 0, 0, b"\x20" * 800))
    assert scene.take(PlayAudio) == []
    assert scene.conversation.counters.stale_audio_dropped_ms == 100


def test_barge_in_works_long_after_the_model_has_finished_generating() -> None:
    scene = Scene()
    scene.greeted()
    scene.caller_turn()
    scene.answer(10_000, "a very long answer indeed")
    scene.wait(3_000)
    scene.actions.clear()
    scene.caller_starts("u2")
    assert scene.take(Clear)
    (truncate,) = scene.sent(ItemTruncate)
    assert truncate.audio_end_ms == 2_000  # no mark came back: by the clock, less a second
    assert scene.sent(ResponseCancel) == []


def test_marks_that_return_because_of_the_clear_do_not_count_as_heard() -> None:
    scene = Scene()
    scene.greeted()
    scene.answer(1_000, "one two three four")
    played = scene.take(PlayAudio)
    scene.caller_starts()
    for play in played:
        if play.mark is not None:
            scene.phone(MarkReached(play.mark))
    (said,) = scene.recorded(AgentSaid)
    assert (said.heard_text, said.cut_off) == ("", True)


def test_two_barge_ins_in_a_row_each_cut_their_own_answer() -> None:
    scene = Scene()
    scene.greeted()
    for number in ("1", "2"):
        scene.caller_turn(f"u{number}")
        scene.response_begins(f"r{number}", f"a{number}")
        scene.speaks(800, "one two", f"r{number}", f"a{number}")
        scene.now_ms += 100
        scene.actions.clear()
        scene.caller_starts(f"v{number}")
        assert len(scene.take(Clear)) == 1
        assert [cut.item_id for cut in scene.sent(ItemTruncate)] == [f"a{number}"]
        scene.response_ends(f"r{number}", None, ResponseStatus.CANCELLED)
        scene.caller_stops(f"v{number}")
    assert scene.conversation.counters.barge_ins == 2


def test_every_item_that_was_not_heard_to_its_end_is_truncated() -> None:
    scene = Scene()
    scene.greeted()
    scene.response_begins("r1", "a1")
    scene.speaks(400, "one", "r1", "a1")
    scene.response_ends("r1", "a1", text="one")
    scene.response_begins("r2", "a2")
    scene.speaks(400, "two", "r2", "a2")
    scene.now_ms += 150
    scene.caller_starts()
    assert scene.sent(ItemTruncate) == [ItemTruncate("a1", 0, 150), ItemTruncate("a2", 0, 0)]


def test_a_server_that_does_not_interrupt_by_itself_is_told_to_cancel() -> None:
    scene = Scene(vad=ServerVad(interrupt_response=False))
    scene.greeted()
    scene.response_begins("r9")
    scene.speaks(500, response_id="r9")
    scene.caller_starts()
    assert scene.sent(ResponseCancel) == [ResponseCancel("r9")]


def test_a_reply_that_was_asked_for_before_the_caller_spoke_is_cancelled_when_it_begins() -> None:
    scene = Scene()  # the greeting is asked for, and has not begun
    scene.caller_starts()
    scene.response_begins("r1")
    assert scene.sent(ResponseCancel) == [ResponseCancel("r1")]
    scene.take(PlayAudio)
    scene.speaks(200)
    assert scene.take(PlayAudio) == []


def test_a_stream_that_sends_nothing_is_probed_and_then_lost() -> None:
    scene = Scene(policy=CallPolicy(inactivity_after_ms=0), returns_probes=False)
    scene.greeted()
    scene.wait(9_900)
    assert scene.take(PlayAudio) == []
    scene.wait(100)
    assert scene.take(PlayAudio) == [PlayAudio(b"", "probe")]
    scene.wait(19_900)
    assert scene.take(PlayAudio) == []
    assert scene.take(End) == []
    scene.wait(100)
    assert scene.take(End)[0] == End(EndReason.CARRIER_LOST, "stream_silent")


def test_a_quiet_stream_whose_carrier_returns_the_probe_goes_on() -> None:
    scene = Scene(policy=CallPolicy(inactivity_after_ms=0), returns_probes=False)
    scene.greeted()
    for _ in range(5):
        scene.wait(10_000)
        assert len(scene.take(PlayAudio)) == 1
        scene.phone(MarkReached("probe"))
    assert scene.take(End) == []


def test_a_caller_who_is_not_on_a_stream_is_not_probed() -> None:
    scene = Scene(policy=CallPolicy(inactivity_after_ms=0))
    scene.greeted()
    scene.actions += scene.conversation.on_stream_left(scene.now_ms)
    scene.actions.clear()
    scene.wait(40_000)
    assert scene.take(PlayAudio) == []
    assert scene.take(End) == []


def test_speech_over_sound_that_the_carrier_may_still_play_clears_it() -> None:
    scene = Scene()
    scene.greeted()
    scene.caller_turn()
    scene.answer(1_000)
    scene.wait(3_000)  # no mark came back: the line behind the carrier is slow
    assert scene.conversation.turns.turn is Turn.IDLE
    scene.caller_starts("u2")
    assert len(scene.take(Clear)) == 1
    assert scene.conversation.counters.barge_ins == 0  # as far as we know, all of it was heard
    scene.caller_stops("u2")
    scene.caller_starts("u3")
    assert scene.take(Clear) == []


def test_speech_over_silence_sends_the_carrier_nothing() -> None:
    scene = Scene()
    scene.greeted()
    scene.caller_starts()
    assert scene.take(Clear) == []
    assert scene.sent(ItemTruncate) == []


# Keypad -------------------------------------------------------------------------------------------


def test_a_key_stops_the_agent_and_is_given_to_the_model() -> None:
    scene = Scene()
    scene.greeted()
    scene.answer(2_000)
    scene.actions.clear()
    scene.key("5")
    assert scene.order[0] == "KeyPressed"
    assert scene.recorded(KeyPressed)
    assert scene.take(Clear)
    (create,) = scene.sent(ItemCreate)
    assert create.item.content[0].text == "[keypad] 5"
    assert len(scene.sent(ResponseCreate)) == 1


# The model in trouble -----------------------------------------------------------------------------


def test_a_failed_response_is_asked_for_again_and_then_given_up() -> None:
    scene = Scene()
    scene.greeted()
    scene.caller_turn()
    failure = ErrorDetail(type="server_error", code="server_error")
    scene.response_begins("r1", None)
    scene.response_ends("r1", None, ResponseStatus.FAILED, error=failure)
    assert len(scene.sent(ResponseCreate)) == 1
    scene.response_begins("r2", None)
    scene.response_ends("r2", None, ResponseStatus.FAILED, error=failure)
    assert scene.take(GiveUp) == [GiveUp(code="server_error", retryable=True, passes=True)]


def test_a_quota_failure_is_never_retried() -> None:
    scene = Scene()
    scene.greeted()
    scene.response_begins("r1", None)
    quota = ErrorDetail(type="insufficient_quota", code="insufficient_quota")
    scene.response_ends("r1", None, ResponseStatus.FAILED, error=quota)
    assert scene.take(GiveUp) == [GiveUp(code="insufficient_quota", retryable=False)]
    assert scene.sent(ResponseCreate) == []


def test_a_session_that_switches_the_sound_format_ends_the_call_before_static() -> None:
    scene = Scene()
    scene.greeted()
    scene.voice(SessionUpdated(SessionConfig(output_format=PCMU_8K)))
    assert scene.take(GiveUp) == []
    scene.voice(SessionUpdated(SessionConfig(output_format=PCM16_24K)))
    assert scene.take(GiveUp) == [GiveUp(code="format_mismatch", retryable=False)]


def test_an_empty_answer_is_not_left_as_silence() -> None:
    scene = Scene()
    scene.greeted()
    scene.caller_turn()
    scene.response_begins("r1", None)
    scene.response_ends("r1", None)
    assert len(scene.sent(ResponseCreate)) == 1


def silent_answer(scene: Scene, name: str, ms: int = 1_000) -> None:
    scene.response_begins(f"r{name}", f"a{name}")
    scene.voice(AudioDelta(f"r{name}", f"a{name}", 0, 0, b"\xff\x7f" * (4 * ms)))
    scene.response_ends(f"r{name}", f"a{name}", text="I said something.")


def test_an_answer_that_nobody_can_hear_is_taken_back_and_asked_for_again() -> None:
    scene = Scene()
    scene.greeted()
    scene.caller_turn()
    silent_answer(scene, "1")
    assert len(scene.sent(ResponseCreate)) == 1
    assert scene.sent(ItemDelete) == [ItemDelete("a1")]
    assert len(scene.take(Clear)) == 1
    assert scene.conversation.turns.turn is Turn.THINKING
    assert [trouble.code for trouble in scene.recorded(VoiceTrouble)] == ["inaudible_response"]
    scene.answer(name="2")
    scene.marks()
    assert [line.text for line in scene.recorded(AgentSaid)] == ["one two three four"]
    assert scene.conversation.counters.responses_failed == 1


def test_words_without_any_sound_are_taken_back_and_asked_for_again() -> None:
    scene = Scene()
    scene.greeted()
    scene.caller_turn()
    scene.response_begins()
    scene.response_ends(text="I wrote something.")
    assert scene.sent(ResponseCreate) == []  # sound may still come
    scene.wait(LATE_SOUND_MS)
    assert len(scene.sent(ResponseCreate)) == 1
    assert scene.sent(ItemDelete) == [ItemDelete("a1")]
    assert [trouble.code for trouble in scene.recorded(VoiceTrouble)] == ["inaudible_response"]


def test_sound_may_come_after_its_response_was_done() -> None:
    scene = Scene()
    scene.greeted()
    scene.caller_turn()
    scene.response_begins()
    scene.response_ends(text="one two")
    for _ in range(3):
        scene.wait(LATE_SOUND_MS - 100)
        scene.speaks(400)
    scene.wait(LATE_SOUND_MS)
    scene.marks()
    assert scene.sent(ResponseCreate) == []
    assert scene.recorded(VoiceTrouble) == []
    assert [(line.text, line.cut_off) for line in scene.recorded(AgentSaid)] == [("one two", False)]
    assert not scene.conversation.dialogue.gate.busy


def test_a_model_that_only_keeps_silent_is_given_up() -> None:
    scene = Scene()
    scene.greeted()
    scene.caller_turn()
    silent_answer(scene, "1")
    silent_answer(scene, "2")
    assert scene.take(GiveUp) == [GiveUp(code="inaudible_response", retryable=True)]


def test_a_silent_answer_does_not_cut_the_words_before_it() -> None:
    scene = Scene()
    scene.greeted()
    scene.caller_turn()
    scene.answer(2_000)
    scene.actions += scene.conversation.say(
        "Wait.", scene.now_ms, mode=SayMode.VERBATIM, when=SayWhen.AFTER_TURN
    )
    silent_answer(scene, "2")
    assert scene.take(Clear) == []
    assert len(scene.sent(ResponseCreate)) == 2


def test_a_silent_beginning_does_not_make_an_answer_inaudible() -> None:
    scene = Scene()
    scene.greeted()
    scene.caller_turn()
    scene.response_begins()
    scene.voice(AudioDelta("r1", "a1", 0, 0, b"\xff" * 4_000))
    scene.speaks(200)
    scene.response_ends()
    assert scene.sent(ResponseCreate) == []


def test_benign_errors_are_counted_and_nothing_else() -> None:
    scene = Scene()
    scene.greeted()
    scene.voice(ErrorEvent(ErrorDetail(code="response_cancel_not_active")))
    assert scene.conversation.counters.benign_errors == 1
    assert scene.take(GiveUp) == []


def test_a_reconnect_replays_the_conversation_and_greets_nobody() -> None:
    scene = Scene()
    scene.greeted()
    scene.caller_turn(text="When do you open?")
    scene.answer(400, "At nine.", "1")
    scene.marks()
    scene.actions.clear()
    scene.actions += scene.conversation.on_voice_lost(scene.now_ms)
    scene.ready()
    items = [create.item for create in scene.sent(ItemCreate)]
    assert [item.role for item in items] == ["assistant", "user", "assistant", "system"]
    assert scene.sent(ResponseCreate) == []


def test_whispers_are_told_again_to_another_connection_also_those_that_had_none() -> None:
    scene = Scene()
    scene.greeted()
    scene.actions += scene.conversation.whisper("Offer ten percent.")
    scene.actions += scene.conversation.on_voice_lost(scene.now_ms)
    scene.actions += scene.conversation.whisper("Not more.")
    scene.actions.clear()
    scene.ready()
    told = " ".join(str(create.item) for create in scene.sent(ItemCreate))
    assert told.index("Offer ten percent.") < told.index("Not more.")


def test_a_reconnect_in_mid_answer_has_the_model_go_on() -> None:
    scene = Scene()
    scene.greeted()
    scene.caller_turn(text="When do you open?")
    scene.response_begins()
    scene.speaks(300, "At")
    scene.actions.clear()
    scene.actions += scene.conversation.on_voice_lost(scene.now_ms)
    scene.ready()
    assert len(scene.sent(ResponseCreate)) == 1


def test_repeated_speech_events_of_the_model_are_harmless() -> None:
    scene = Scene()
    scene.greeted()
    scene.caller_starts()
    scene.caller_starts()
    scene.caller_stops()
    scene.caller_stops()
    assert scene.take(End) == []
    assert scene.conversation.counters.protocol_surprises > 0


# Tools and guardrails -----------------------------------------------------------------------------


def test_parallel_tools_get_one_reply_when_the_last_has_answered() -> None:
    scene = Scene()
    scene.greeted()
    scene.caller_turn()
    scene.response_begins("r1", None)
    scene.response_ends("r1", None, calls=(call_item("x", "c1"), call_item("y", "c2")))
    scene.actions += scene.conversation.on_tool_done("c1", "1", scene.now_ms)
    assert scene.sent(ResponseCreate) == []
    scene.actions += scene.conversation.on_tool_done("c2", "2", scene.now_ms)
    assert len(scene.sent(ResponseCreate)) == 1
    assert [create.item.call_id for create in scene.sent(ItemCreate)] == ["c1", "c2"]


def test_a_tool_that_answers_while_its_response_still_runs_waits_with_the_reply() -> None:
    scene = Scene()
    scene.greeted()
    scene.caller_turn()
    scene.response_begins("r1")
    scene.speaks(200)
    call = call_item("x")

    scene.voice(OutputItemDone("r1", 1, call))
    scene.actions += scene.conversation.on_tool_done("c1", "1", scene.now_ms)
    assert scene.sent(ResponseCreate) == []
    scene.response_ends("r1", calls=())
    assert len(scene.sent(ResponseCreate)) == 1


def test_a_filler_is_said_to_a_caller_who_waits_in_silence() -> None:
    scene = with_tool_running()
    scene.actions += scene.conversation.on_tool_slow("c1", "One moment.", scene.now_ms)
    (create,) = scene.sent(ResponseCreate)
    assert spoken(create.response) == "One moment."


def test_a_filler_is_not_said_to_a_caller_who_speaks_or_listens() -> None:
    scene = with_tool_running()
    scene.caller_starts("u2")
    assert scene.conversation.on_tool_slow("c1", "One moment.", scene.now_ms) == []
    scene = Scene()
    scene.greeted()
    scene.caller_turn()
    scene.response_begins()
    scene.speaks(2_000, "Let me see.")
    scene.response_ends(calls=(call_item("look_up"),))
    assert scene.conversation.on_tool_slow("c1", "One moment.", scene.now_ms) == []


def test_a_filler_waits_for_a_caller_who_is_not_on_a_stream() -> None:
    scene = with_tool_running()
    scene.conversation.on_stream_left(scene.now_ms)
    assert scene.conversation.on_tool_slow("c1", "One moment.", scene.now_ms) == []
    scene.stream()
    assert scene.conversation.on_tool_slow("c1", "One moment.", scene.now_ms)


def test_a_tool_that_wants_no_reply_gives_the_floor_back() -> None:
    scene = with_tool_running()
    scene.actions += scene.conversation.on_tool_done("c1", "{}", scene.now_ms, reply=False)
    assert scene.conversation.turns.turn is Turn.IDLE
    assert scene.sent(ResponseCreate) == []


def test_words_that_guardrails_stop_are_cut_at_what_was_heard() -> None:
    scene = Scene()
    scene.greeted()
    scene.caller_turn()
    scene.response_begins()
    scene.speaks(2_000, "one two three four ")
    mark = next(play.mark for play in scene.take(PlayAudio) if play.mark)
    scene.now_ms += 200
    scene.phone(MarkReached(mark))
    scene.actions.clear()
    check = CheckGuardrail(side=Party.AGENT, item_id="a1", text="x", final=False, agent="test")
    stop = GuardrailResult(verdict=Stop("I must not say that.", "secret"), rule="secrets")
    scene.actions += scene.conversation.on_guardrail_result(check, stop, scene.now_ms)
    assert scene.order[:2] == ["Clear", "ItemTruncate"]
    assert "ResponseCancel" in scene.order
    assert scene.recorded(BargeIn) == []
    (said,) = scene.recorded(AgentSaid)
    assert (said.text, said.cut_off) == ("one two three four", True)  # not as the next word began
    scene.response_ends("r1", "a1", ResponseStatus.CANCELLED)
    (create,) = scene.sent(ResponseCreate)
    assert spoken(create.response) == "I must not say that."


def test_something_to_say_in_a_quiet_moment_waits_until_all_is_heard() -> None:
    scene = Scene()
    scene.greeted()
    scene.answer(500, "Hello.", "2")
    scene.actions += scene.conversation.say(
        "By the way.", scene.now_ms, mode=SayMode.VERBATIM, when=SayWhen.IDLE
    )
    assert scene.sent(ResponseCreate) == []
    scene.marks()
    scene.wait(100)
    (create,) = scene.sent(ResponseCreate)
    assert spoken(create.response) == "By the way."


def test_words_that_never_became_sound_were_not_heard() -> None:
    scene = Scene(transcribed=True)
    scene.greeted()
    scene.caller_turn("u1", "When are you open?")
    scene.response_begins("r1", "a1")
    scene.voice(AudioTranscriptDelta("r1", "a1", 0, 0, "We are open from nine."))
    scene.caller_starts("u2")
    scene.response_ends("r1", "a1", ResponseStatus.CANCELLED)
    scene.caller_stops("u2", "On Friday, I mean.")
    scene.answer(500, "Until noon.", "2")
    scene.marks()
    scene.wait(200)
    said = [(line.text, line.heard_text, line.cut_off) for line in scene.recorded(AgentSaid)]
    assert said == [("We are open from nine.", "", True), ("Until noon.", "Until noon.", False)]
