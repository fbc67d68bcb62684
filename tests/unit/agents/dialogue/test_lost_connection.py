"""Requests that a connection lost are made once on the next one, with the right agent."""

from __future__ import annotations

from app.agents.dialogue.messages import SayMode, SayWhen
from app.realtime.events import ItemCreate, ResponseStatus, SessionUpdate
from tests.unit.agents.harness import DialogueHarness, agent_named, call_of, tool_named


def reconnect(harness: DialogueHarness) -> None:
    harness.dialogue.on_lost()
    harness.actions.clear()
    harness.do(harness.dialogue.on_reconnected(harness.now_ms))


def notes(harness: DialogueHarness) -> str:
    return " ".join(
        part.text or "" for create in harness.take(ItemCreate) for part in create.item.content
    )


def test_a_sentence_that_had_not_begun_is_said_on_the_next_connection() -> None:
    harness = DialogueHarness()
    harness.do(harness.dialogue.say("Your code is 4711.", 0))
    reconnect(harness)
    assert harness.requested() == ["Your code is 4711."]
    harness.answers("r2", says="Your code is 4711.")
    harness.do(harness.dialogue.responses.on_quiet(0))
    assert harness.requested() == []


def test_a_sentence_that_made_no_sound_yet_counts_as_not_begun() -> None:
    harness = DialogueHarness()
    harness.do(harness.dialogue.say("Your code is 4711.", 0))
    harness.begins(says="Your code is 4711.")
    reconnect(harness)
    assert harness.requested() == ["Your code is 4711."]


def test_a_sentence_that_was_cancelled_is_not_said_on_the_next_connection() -> None:
    harness = DialogueHarness()
    harness.do(harness.dialogue.say("Your code is 4711.", 0))
    harness.do(harness.dialogue.drop_response(server_cancels=False))
    reconnect(harness)
    harness.do(harness.dialogue.responses.on_quiet(0))
    assert harness.requested() == []


def test_the_reply_behind_a_sentence_that_had_not_begun_comes_behind_it_still() -> None:
    harness = DialogueHarness(agent_named(tools=(tool_named(),)))
    harness.begins()
    harness.calls(call_of("look_up"))
    harness.ends("r1", ResponseStatus.COMPLETED, call_of("look_up"))
    harness.do(harness.dialogue.say("One moment.", 0))
    harness.do(harness.dialogue.function_calls.on_tool_done("c1", "one", 0))
    reconnect(harness)
    assert harness.requested() == ["One moment."]
    harness.answers("r2", says="One moment.")
    assert harness.requested() == [""]


def test_information_that_waits_is_told_to_the_next_connection() -> None:
    for when in (SayWhen.AFTER_TURN, SayWhen.IDLE):
        harness = DialogueHarness()
        harness.begins()
        harness.do(harness.dialogue.say("The taxi comes at nine", 0, mode=SayMode.RELAY, when=when))
        reconnect(harness)
        harness.do(harness.dialogue.responses.on_quiet(0))
        assert notes(harness).count("The taxi comes at nine") == 1
        assert harness.requested() == ["The taxi comes at nine"]


def test_information_that_comes_between_two_connections_is_told_to_the_next() -> None:
    for when in (SayWhen.AFTER_TURN, SayWhen.IDLE):
        harness = DialogueHarness()
        harness.dialogue.on_lost()
        harness.do(harness.dialogue.say("The taxi comes at nine", 0, mode=SayMode.RELAY, when=when))
        harness.do(harness.dialogue.responses.on_quiet(0))
        harness.actions.clear()
        harness.do(harness.dialogue.on_reconnected(0))
        harness.do(harness.dialogue.responses.on_quiet(0))
        assert notes(harness).count("The taxi comes at nine") == 1
        assert harness.requested() == ["The taxi comes at nine"]


def test_what_a_tool_found_before_its_response_was_lost_is_told_in_one_reply() -> None:
    harness = DialogueHarness(agent_named(tools=(tool_named(),)))
    harness.begins()
    harness.calls(call_of("look_up"))
    harness.do(harness.dialogue.function_calls.on_tool_done("c1", "one", 0))
    reconnect(harness)
    assert harness.requested() == [""]
    harness.answers("r2")
    assert harness.requested() == []


def test_an_agent_who_takes_over_while_a_connection_opens_gets_their_settings_there() -> None:
    harness = DialogueHarness(
        agent_named("first", instructions="Be first."),
        agent_named("second", instructions="Be second."),
    )
    harness.answers()
    harness.dialogue.on_lost()
    assert harness.dialogue.active.opening().instructions == "Be first."
    harness.do(harness.dialogue.change_agent(harness.dialogue.active.roster["second"], 0))
    harness.actions.clear()
    harness.do(harness.dialogue.on_reconnected(0))
    assert harness.order[0] == "SessionUpdate"
    assert harness.last_update().session.instructions == "Be second."
    harness.dialogue.on_lost()
    assert harness.dialogue.active.opening().instructions == "Be second."
    harness.do(harness.dialogue.on_reconnected(0))
    assert harness.take(SessionUpdate) == []


def test_an_agent_who_takes_over_while_a_session_is_renewed_gets_their_settings_there() -> None:
    harness = DialogueHarness(
        agent_named("first"), agent_named("second", instructions="Be second.")
    )
    harness.answers()
    harness.dialogue.active.opening()
    harness.do(harness.dialogue.change_agent(harness.dialogue.active.roster["second"], 0))
    harness.actions.clear()
    harness.do(harness.dialogue.on_reconnected(0))
    assert harness.last_update().session.instructions == "Be second."
