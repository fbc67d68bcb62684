"""The transcript is in the order of the conversation, not of arrival."""

from __future__ import annotations

from app.agents.dialogue.item_history import LATE_TRANSCRIPT_MS, History
from app.realtime.events import ContentPart, Item


def message(item_id: str, role: str) -> Item:
    return Item(type="message", id=item_id, role=role)


def lines(history: History, now_ms: int = 0) -> list[str]:
    return [entry.text for entry in history.settled_lines(now_ms)]


def answered(history: History) -> None:
    """A caller's turn and the agent's answer; neither has a text yet."""
    history.expect_caller("u1", None, 0)
    history.add(message("a1", "assistant"), "u1", 100)


def test_a_late_caller_transcript_comes_before_the_answer() -> None:
    history = History()
    answered(history)
    answer = history.get("a1")
    assert answer is not None
    answer.on_text("We open at nine.", final=True)
    answer.on_heard(900, 900, cut_off=False)
    assert lines(history) == []
    caller = history.get("u1")
    assert caller is not None
    caller.on_text("When do you open?", final=True)
    assert lines(history) == ["When do you open?", "We open at nine."]
    assert lines(history) == []


def test_a_transcript_that_does_not_come_holds_the_others_back_only_for_a_while() -> None:
    history = History()
    answered(history)
    answer = history.get("a1")
    assert answer is not None
    answer.on_text("We open at nine.", final=True)
    answer.on_heard(900, 900, cut_off=False)
    assert lines(history, 1_000) == []
    assert lines(history, 1_000 + LATE_TRANSCRIPT_MS) == ["We open at nine."]
    caller = history.get("u1")
    assert caller is not None
    caller.on_text("When do you open?", final=True)
    assert lines(history, 9_000) == ["When do you open?"]


def test_an_item_is_placed_behind_the_one_that_the_model_names() -> None:
    history = History()
    history.add(message("a2", "assistant"), None, 0)
    history.add(message("a1", "assistant"), None, 0)
    history.expect_caller("u2", "a2", 0)
    assert [entry.item_id for entry in history] == ["a2", "u2", "a1"]


def test_a_cut_answer_keeps_the_share_of_words_that_was_heard() -> None:
    history = History()
    entry = history.add(message("a1", "assistant"), None, 0)
    entry.on_text("one two three four", final=False)
    entry.on_heard(500, 1_000, cut_off=True)
    assert (entry.heard_text, entry.cut_off) == ("one two", True)
    assert entry.settled
    entry.on_text("one two three four", final=True)
    assert entry.text == "one two three four"
    assert entry.heard_text == "one two"


def test_a_known_text_is_not_erased_by_an_empty_final_one() -> None:
    history = History()
    entry = history.add(message("a1", "assistant"), None, 0)
    entry.on_text("Hello", final=False)
    entry.on_text("", final=True)
    assert entry.text == "Hello"


def test_typed_words_of_the_caller_are_settled_at_once() -> None:
    history = History()
    part = ContentPart(type="input_text", text="hello")
    history.add(Item(type="message", id="t", role="user", content=(part,)), None, 0)
    assert lines(history) == ["hello"]


def test_keys_and_tools_are_not_in_the_transcript() -> None:
    history = History()
    history.add(message("k", "user"), None, 0).in_transcript = False
    history.add(Item(type="function_call", id="f", call_id="c", name="x"), None, 0)
    assert lines(history) == []
    assert len(history) == 2


def test_replay_holds_what_was_said_and_heard_with_the_right_content_types() -> None:
    history = History()
    answered(history)
    caller, answer = history.get("u1"), history.get("a1")
    assert caller is not None
    assert answer is not None
    caller.on_text("When do you open?", final=True)
    answer.on_text("one two three four", final=True)
    answer.on_heard(500, 1_000, cut_off=True)
    history.add(Item(type="function_call", id="f", call_id="c", name="x", arguments="{}"), None, 0)
    history.add(Item(type="function_call_output", id="o", call_id="c", output="1"), None, 0)
    history.add(Item(type="function_call", id="g", call_id="d", name="y"), None, 0)
    items = [create.item for create in history.replay("r_")]
    assert [item.type for item in items] == [
        "message",
        "message",
        "function_call",
        "function_call_output",
    ]
    assert items[0].content == (ContentPart(type="input_text", text="When do you open?"),)
    assert items[1].content == (ContentPart(type="output_text", text="one two"),)
    assert len({item.id for item in items}) == 4


def test_closing_settles_every_line() -> None:
    history = History()
    answered(history)
    answer = history.get("a1")
    assert answer is not None
    answer.on_text("Hello", final=False)
    history.close()
    assert lines(history) == ["", "Hello"]


def test_a_deleted_item_is_forgotten() -> None:
    history = History()
    answered(history)
    history.remove("u1")
    history.remove("unknown")
    assert [entry.item_id for entry in history] == ["a1"]


def test_the_oldest_items_of_an_endless_conversation_are_forgotten() -> None:
    history = History()
    for number in range(2_001):
        history.add(message(f"u{number}", "user"), None, 0)
    assert len(history) == 2_000
    assert history.get("u0") is None


def test_an_answer_that_never_ends_takes_bounded_memory() -> None:
    entry = History().add(message("a1", "assistant"), None, 0)
    for _ in range(1_000):
        entry.on_text("word " * 1_000, final=False)
    assert len(entry.text) == len(entry.heard_text) == 100_000
