"""Messages that callers leave: what they say next, word for word."""

from __future__ import annotations

from app.events import MessageTaken
from app.realtime.events import TranscriptionCompleted
from tests.unit.calls.harness import PlayAudio, ResponseCreate, calls_tool, tool_output


def test_a_message_is_what_the_caller_says_next() -> None:
    harness = calls_tool(
        "take_message", {"recipient": "Ms. Lee"}, speech="Go on.", transcribed=True
    )
    assert tool_output(harness)["ok"] is True
    harness.marks()
    harness.caller_turn("u1", "mhm")
    harness.answer(500, "Yes?", "2")
    harness.marks()
    harness.wait(300)
    assert harness.recorded(MessageTaken) == []
    harness.caller_turn("u2", "Please call me back on Monday,")
    harness.caller_turn("u3", "that is Ada Byron,")
    harness.answer(2_000, "I will tell her that.", "3")
    harness.caller_turn("u4", "at extension seven.")
    assert harness.recorded(MessageTaken) == []
    harness.take(PlayAudio)
    harness.answer(500, "I will tell her.", "4")
    harness.marks()
    harness.wait(300)
    (taken,) = harness.recorded(MessageTaken)
    assert (taken.item_id, taken.recipient) == ("u2", "Ms. Lee")
    said = "Please call me back on Monday, that is Ada Byron, at extension seven."
    assert taken.text == said
    harness.caller_turn("u5", "Thank you")
    harness.answer(500, "Goodbye.", "5")
    harness.marks()
    harness.wait(300)
    assert harness.recorded(MessageTaken) == []


def test_words_that_are_transcribed_after_the_answer_belong_to_the_message() -> None:
    harness = calls_tool("take_message", {}, speech="Go on.", transcribed=True)
    harness.marks()
    harness.caller_turn("u1", "Please call me back,")
    harness.caller_starts("u2")
    harness.caller_stops("u2", None)
    harness.answer(500, "I will tell her.", "2")
    harness.marks()
    harness.wait(1_000)
    assert harness.recorded(MessageTaken) == []
    harness.voice(TranscriptionCompleted("u2", 0, "at extension seven."))
    harness.wait(300)
    (taken,) = harness.recorded(MessageTaken)
    assert taken.text == "Please call me back, at extension seven."


def test_words_that_are_never_transcribed_do_not_hold_up_a_message() -> None:
    harness = calls_tool("take_message", {}, speech="Go on.", transcribed=True)
    harness.marks()
    harness.caller_turn("u1", "Please call me back.")
    harness.caller_starts("u2")
    harness.caller_stops("u2", None)
    harness.answer(500, "I will tell her.", "2")
    harness.marks()
    harness.wait(4_900)
    assert harness.recorded(MessageTaken) == []
    harness.wait(300)
    (taken,) = harness.recorded(MessageTaken)
    assert taken.text == "Please call me back."


def test_a_message_is_kept_when_the_caller_hangs_up_after_it() -> None:
    harness = calls_tool("take_message", {}, speech="Go on.", transcribed=True)
    harness.marks()
    harness.caller_turn("u1", "Please call me back on Monday")
    harness.actions += harness.conversation.on_call_over(harness.now_ms)
    assert [taken.text for taken in harness.recorded(MessageTaken)] == [
        "Please call me back on Monday"
    ]


def test_a_message_that_was_not_asked_for_yet_is_asked_for() -> None:
    harness = calls_tool("take_message", {}, transcribed=True)
    assert len(harness.sent(ResponseCreate)) == 1


def test_without_transcripts_there_are_no_messages() -> None:
    assert "not written down" in tool_output(calls_tool("take_message", {}))["error"]


def test_where_messages_cannot_be_kept_the_agent_learns_it_and_keeps_none() -> None:
    harness = calls_tool("take_message", {}, speech="Go on.", transcribed=True, can_keep=False)
    answer = tool_output(harness)
    assert (answer["code"], "cannot be kept" in answer["error"]) == ("messages_not_kept", True)
    assert len(harness.sent(ResponseCreate)) == 1  # the caller is told
    harness.caller_turn("u1", "Please call me back.")
    harness.actions += harness.conversation.on_call_over(harness.now_ms)
    assert harness.recorded(MessageTaken) == []
