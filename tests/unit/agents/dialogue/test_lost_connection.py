"""What was asked for when the connection broke: said once on the next one, by whom it was meant."""

from __future__ import annotations

from app.agents.dialogue.messages import (
    SayMode,
    SayWhen,
)
from app.realtime.events import (
    ItemCreate,
    ResponseStatus,
    SessionUpdate,
)
from tests.unit.agents.stage import Stage, agent_named, call_of, tool_named


def reconnect(stage: Stage) -> None:
    stage.dialogue.on_lost()
    stage.actions.clear()
    stage.do(stage.dialogue.on_reconnected(stage.now_ms))


def told(stage: Stage) -> str:
    return " ".join(
        part.text or "" for create in stage.take(ItemCreate) for part in create.item.content
    )


def test_a_sentence_that_had_not_begun_is_said_on_the_next_connection() -> None:
    stage = Stage()
    stage.do(stage.dialogue.say("Your code is 4711.", 0))
    reconnect(stage)
    assert stage.said() == ["Your code is 4711."]
    stage.answers("r2", says="Your code is 4711.")
    stage.do(stage.dialogue.responses.on_quiet(0))
    assert stage.said() == []


def test_a_sentence_that_made_no_sound_yet_counts_as_not_begun() -> None:
    stage = Stage()
    stage.do(stage.dialogue.say("Your code is 4711.", 0))
    stage.begins(says="Your code is 4711.")
    reconnect(stage)
    assert stage.said() == ["Your code is 4711."]


def test_a_sentence_that_was_taken_back_is_not_said_on_the_next_connection() -> None:
    stage = Stage()
    stage.do(stage.dialogue.say("Your code is 4711.", 0))
    stage.do(stage.dialogue.drop_response(server_cancels=False))
    reconnect(stage)
    stage.do(stage.dialogue.responses.on_quiet(0))
    assert stage.said() == []


def test_the_reply_behind_a_sentence_that_had_not_begun_comes_behind_it_still() -> None:
    stage = Stage(agent_named(tools=(tool_named(),)))
    stage.begins()
    stage.calls(call_of("look_up"))
    stage.ends("r1", ResponseStatus.COMPLETED, call_of("look_up"))
    stage.do(stage.dialogue.say("One moment.", 0))
    stage.do(stage.dialogue.function_calls.on_tool_done("c1", "one", 0))
    reconnect(stage)
    assert stage.said() == ["One moment."]
    stage.answers("r2", says="One moment.")
    assert stage.said() == [""]


def test_information_that_waits_is_told_to_the_next_connection() -> None:
    for when in (SayWhen.AFTER_TURN, SayWhen.IDLE):
        stage = Stage()
        stage.begins()
        stage.do(stage.dialogue.say("The taxi comes at nine", 0, mode=SayMode.RELAY, when=when))
        reconnect(stage)
        stage.do(stage.dialogue.responses.on_quiet(0))
        assert told(stage).count("The taxi comes at nine") == 1
        assert stage.said() == ["The taxi comes at nine"]


def test_information_that_comes_between_two_connections_is_told_to_the_next() -> None:
    for when in (SayWhen.AFTER_TURN, SayWhen.IDLE):
        stage = Stage()
        stage.dialogue.on_lost()
        stage.do(stage.dialogue.say("The taxi comes at nine", 0, mode=SayMode.RELAY, when=when))
        stage.do(stage.dialogue.responses.on_quiet(0))
        stage.actions.clear()
        stage.do(stage.dialogue.on_reconnected(0))
        stage.do(stage.dialogue.responses.on_quiet(0))
        assert told(stage).count("The taxi comes at nine") == 1
        assert stage.said() == ["The taxi comes at nine"]


def test_what_a_tool_found_before_its_response_was_lost_is_told_in_one_reply() -> None:
    stage = Stage(agent_named(tools=(tool_named(),)))
    stage.begins()
    stage.calls(call_of("look_up"))
    stage.do(stage.dialogue.function_calls.on_tool_done("c1", "one", 0))
    reconnect(stage)
    assert stage.said() == [""]
    stage.answers("r2")
    assert stage.said() == []


def test_an_agent_who_takes_over_while_a_connection_opens_gets_their_settings_there() -> None:
    stage = Stage(
        agent_named("first", instructions="Be first."),
        agent_named("second", instructions="Be second."),
    )
    stage.answers()
    stage.dialogue.on_lost()
    assert stage.dialogue.active.opening().instructions == "Be first."
    stage.do(stage.dialogue.change_agent(stage.dialogue.active.roster["second"], 0))
    stage.actions.clear()
    stage.do(stage.dialogue.on_reconnected(0))
    assert stage.order[0] == "SessionUpdate"
    assert stage.last_update().session.instructions == "Be second."
    stage.dialogue.on_lost()
    assert stage.dialogue.active.opening().instructions == "Be second."
    stage.do(stage.dialogue.on_reconnected(0))
    assert stage.take(SessionUpdate) == []


def test_an_agent_who_takes_over_while_a_session_is_renewed_gets_their_settings_there() -> None:
    stage = Stage(agent_named("first"), agent_named("second", instructions="Be second."))
    stage.answers()
    stage.dialogue.active.opening()
    stage.do(stage.dialogue.change_agent(stage.dialogue.active.roster["second"], 0))
    stage.actions.clear()
    stage.do(stage.dialogue.on_reconnected(0))
    assert stage.last_update().session.instructions == "Be second."
