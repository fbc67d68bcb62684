"""The response queue keeps to its table for each kind, and loses nothing in any order of events."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.agents.dialogue.actions import ToVoice
from app.agents.dialogue.messages import ModelMessages, SayMode, spoken
from app.agents.dialogue.response_kinds import REPLY, RULES, Kind, Moment, OnLoss, ResponseRequest
from app.agents.dialogue.response_queue import ResponseQueue
from app.realtime.events import (
    SAY_METADATA_KEY,
    UNSET,
    Response,
    ResponseCreate,
    ResponseStatus,
    Unset,
)
from app.realtime.protocol import ALREADY_ACTIVE, GateState, ResponseGate
from tests.fakes.stress import few_or

DEFERRED = ResponseRequest(kind=Kind.DEFERRED_REPLY)
WORDS = [kind for kind in Kind if kind not in (Kind.REPLY, Kind.DEFERRED_REPLY)]
MESSAGES = [kind for kind in WORDS if kind is not Kind.FILLER]


def request(kind: Kind, text: str = "") -> ResponseRequest:
    if kind not in WORDS:
        return ResponseRequest(kind=kind)
    return spoken(text or kind.value, SayMode.VERBATIM, kind)


class QueueHarness:
    """A queue with a gate, and what it sent."""

    def __init__(self) -> None:
        self.gate = ResponseGate()
        self.queue = ResponseQueue(self.gate, ModelMessages())
        self.event_ids: list[str] = []
        self.said: list[str] = []
        self.responses = 0

    def do(self, actions: list[ToVoice]) -> list[str]:
        """The sentences that were asked for, and `reply` for replies to what was said."""
        sent: list[str] = []
        for action in actions:
            assert isinstance(action.event, ResponseCreate)
            self.event_ids.append(action.event.event_id)
            config = action.event.response
            metadata = UNSET if config is None else config.metadata
            sent.append("reply" if isinstance(metadata, Unset) else metadata[SAY_METADATA_KEY])
        self.said += sent
        return sent

    def ask(self, *requests: ResponseRequest) -> list[str]:
        return [said for one in requests for said in self.do(self.queue.ask(0, one))]

    def begins(self, says: str = "") -> str:
        self.responses += 1
        metadata = {SAY_METADATA_KEY: says} if says and says != "reply" else {}
        response_id = f"r{self.responses}"
        self.queue.on_created(
            Response(id=response_id, status=ResponseStatus.IN_PROGRESS, metadata=metadata)
        )
        return response_id

    def ends(self) -> list[str]:
        return self.do(self.queue.on_done(self.gate.active_response_id or "", 0))

    def says_all(self) -> list[str]:
        """Let everything be said that follows by itself, one response after the other."""
        while self.gate.busy:
            if self.gate.state is GateState.REQUESTED:
                self.begins(self.said[-1])
            self.ends()
        return self.said


def busy() -> QueueHarness:
    harness = QueueHarness()
    harness.begins()
    return harness


def test_every_kind_has_its_rules() -> None:
    assert set(RULES) == set(Kind)


def test_what_waits_is_said_in_the_order_of_the_kinds() -> None:
    harness = busy()
    kinds = [Kind.RESUMED, Kind.REPLY, Kind.URGENT, Kind.MESSAGE]
    harness.ask(*(request(kind) for kind in reversed(kinds)))
    harness.ends()
    assert harness.says_all() == kinds


@pytest.mark.parametrize("kind", Kind)
def test_two_of_a_kind_are_joined_where_the_table_says_so(kind: Kind) -> None:
    harness = busy()
    harness.ask(request(kind, "one"), request(kind, "two"))
    harness.ends()
    harness.says_all()
    for _ in range(2):
        harness.do(harness.queue.on_quiet(0))
        harness.says_all()
    expected = ["reply"] if RULES[kind].joined else ["one", "two"]
    assert harness.said == ([] if RULES[kind].optional else expected)


@pytest.mark.parametrize("kind", Kind)
def test_a_kind_waits_for_its_moment(kind: Kind) -> None:
    rules = RULES[kind]
    if rules.optional:
        return
    harness = QueueHarness()
    harness.queue.on_caller_speech()
    asked = harness.ask(request(kind))
    assert bool(asked) is (rules.begins_when <= Moment.FREE)
    harness.queue.on_caller_turn()
    asked += harness.ends()
    assert bool(asked) is (rules.begins_when <= Moment.CALLER_SILENT)
    asked += harness.do(harness.queue.on_quiet(0, on_hold=True))
    assert bool(asked) is (rules.begins_when <= Moment.QUIET)
    asked += harness.do(harness.queue.on_quiet(0))
    assert len(asked) == 1


@pytest.mark.parametrize("kind", Kind)
def test_the_caller_drops_what_the_table_says(kind: Kind) -> None:
    harness = busy()
    harness.ask(request(kind))
    harness.queue.on_caller_speech()
    harness.ends()
    harness.do(harness.queue.on_quiet(0))
    rules = RULES[kind]
    assert bool(harness.said) is not (rules.dropped_by_speech or rules.optional)


@pytest.mark.parametrize("kind", Kind)
def test_a_lost_connection_keeps_what_the_table_says(kind: Kind) -> None:
    harness = busy()
    harness.ask(request(kind))
    harness.queue.on_lost(begun=True)
    at_once = harness.do(harness.queue.on_reconnected(0))
    assert bool(at_once) is (RULES[kind].on_loss is OnLoss.SENT_FIRST)
    at_once += harness.do(harness.queue.on_quiet(0))
    assert bool(at_once) is (RULES[kind].on_loss is not OnLoss.DROPPED)


@pytest.mark.parametrize("kind", Kind)
def test_what_met_another_response_is_asked_for_again_unless_it_is_optional(kind: Kind) -> None:
    harness = QueueHarness()
    harness.ask(request(kind))
    harness.do(harness.queue.on_quiet(0))
    assert len(harness.said) == 1
    harness.do(harness.queue.on_error(harness.event_ids[-1], ALREADY_ACTIVE, 0))
    assert harness.queue.sentence == ""
    harness.begins()
    assert bool(harness.ends()) is not RULES[kind].optional


@pytest.mark.parametrize("kind", Kind)
def test_what_was_not_answered_is_asked_for_again_unless_it_is_optional(kind: Kind) -> None:
    harness = QueueHarness()
    harness.ask(request(kind))
    harness.do(harness.queue.on_quiet(0))
    stuck = harness.gate.on_tick(4_000)
    assert stuck is GateState.REQUESTED
    again = harness.do(harness.queue.after_timeout(stuck, 4_000))
    assert bool(again) is not RULES[kind].optional


@pytest.mark.parametrize("kind", MESSAGES)
def test_a_message_that_was_not_begun_is_said_first_on_the_next_connection(kind: Kind) -> None:
    harness = QueueHarness()
    harness.ask(request(kind))
    harness.do(harness.queue.on_quiet(0))
    harness.ask(REPLY, request(Kind.MESSAGE, "later"))
    harness.queue.on_lost(begun=False)
    harness.do(harness.queue.on_reconnected(0))
    assert harness.says_all() == [kind.value, kind.value, "reply", "later"]


def test_a_cancel_that_never_ended_is_not_asked_for_again() -> None:
    harness = busy()
    harness.ask(request(Kind.MESSAGE))
    harness.gate.cancel()
    harness.gate.on_tick(0)
    stuck = harness.gate.on_tick(4_000)
    assert stuck is GateState.CANCELLING
    assert harness.do(harness.queue.after_timeout(stuck, 4_000)) == ["message"]


def test_a_request_that_was_refused_makes_way_for_the_one_behind_it() -> None:
    harness = QueueHarness()
    harness.ask(request(Kind.MESSAGE, "one"), request(Kind.MESSAGE, "two"))
    refused = harness.queue.on_error(harness.event_ids[-1], "invalid_value", 0)
    assert harness.do(refused) == ["two"]


def test_an_error_about_something_else_changes_nothing() -> None:
    harness = QueueHarness()
    harness.ask(request(Kind.MESSAGE))
    assert harness.queue.on_error("another", "invalid_value", 0) == []
    assert harness.gate.state is GateState.REQUESTED


def test_the_answer_to_the_callers_turn_stands_in_for_a_deferred_reply() -> None:
    harness = QueueHarness()
    harness.queue.on_caller_speech()
    assert harness.queue.ask_after_tools(0) == []
    harness.queue.on_caller_turn()
    harness.begins()
    harness.ends()
    assert harness.do(harness.queue.on_quiet(0)) == []


def test_a_sentence_is_known_by_its_metadata_once_the_server_has_sent_any() -> None:
    harness = QueueHarness()
    harness.ask(request(Kind.MESSAGE, "one"))
    harness.begins()  # a server that echoes nothing: believed to be ours
    assert (harness.queue.running, harness.queue.sentence) == (None, "one")
    harness.ends()
    harness.ask(request(Kind.MESSAGE, "two"))
    harness.begins("two")
    assert harness.queue.sentence == "two"
    harness.ends()
    harness.ask(request(Kind.MESSAGE, "three"))
    harness.begins()
    assert harness.queue.sentence == ""


def test_only_an_idle_message_waits_for_a_quiet_moment() -> None:
    harness = busy()
    harness.ask(request(Kind.MESSAGE))
    assert not harness.queue.waits_for_quiet
    harness.ask(request(Kind.IDLE_MESSAGE))
    assert harness.queue.waits_for_quiet


def test_an_idle_message_hurries_nothing_that_waits_before_it() -> None:
    harness = QueueHarness()
    harness.queue.on_lost(begun=False)
    harness.ask(request(Kind.MESSAGE))
    harness.do(harness.queue.on_reconnected(0))
    assert harness.ask(request(Kind.IDLE_MESSAGE)) == []
    assert harness.do(harness.queue.on_quiet(0)) == ["message"]


STEPS = ["reply", "message", "vad", "finish", "deliver", "cancel"]


class _Server:
    """A server with the rules of the real one: rejects a create while a response runs."""

    def __init__(self) -> None:
        self.active: str | None = None
        self.count = 0
        self.answers: list[tuple[str, str, str]] = []

    def create(self, event_id: str, says: str) -> None:
        if self.active is not None:
            self.answers.append(("error", event_id, ""))
        else:
            self.start(says)

    def start(self, says: str = "") -> None:
        self.count += 1
        self.active = f"r{self.count}"
        self.answers.append(("created", self.active, says))

    def finish(self) -> None:
        if self.active is not None:
            self.answers.append(("done", self.active, ""))
            self.active = None


@settings(max_examples=few_or(150, 600), deadline=None, database=None)
@given(st.lists(st.sampled_from(STEPS), max_size=40))
def test_no_request_is_forgotten_in_any_order_of_events(steps: list[str]) -> None:
    harness, server = QueueHarness(), _Server()
    started_before_last_request = -1
    asked: list[str] = []
    begun: list[str] = []

    def send(actions: list[ToVoice]) -> None:
        for says in harness.do(actions):
            server.create(harness.event_ids[-1], says)

    def deliver() -> None:
        kind, name, says = server.answers.pop(0)
        if kind == "created":
            metadata = {SAY_METADATA_KEY: says} if says in asked else {}
            begun.extend([says] if says in asked else [])
            status = ResponseStatus.IN_PROGRESS
            if harness.queue.on_created(Response(id=name, status=status, metadata=metadata)):
                server.finish()
        elif kind == "done":
            send(harness.queue.on_done(name, 0))
        else:
            send(harness.queue.on_error(name, ALREADY_ACTIVE, 0))

    for step in steps:
        if step == "reply":
            started_before_last_request = server.count
            send(harness.queue.ask(0))
        elif step == "message":
            started_before_last_request = server.count
            asked.append(f"message {len(asked):02}")
            send(harness.queue.ask(0, request(Kind.MESSAGE, asked[-1])))
        elif step == "vad" and server.active is None:
            server.start()
        elif step == "finish":
            server.finish()
        elif step == "deliver" and server.answers:
            deliver()
        elif step == "cancel" and harness.gate.cancel():
            server.finish()
    for _ in range(60):  # everything answered and finished: the queue must come to rest
        server.finish()
        while server.answers:
            deliver()
    assert harness.gate.state is GateState.FREE
    assert server.count > started_before_last_request
    assert begun == sorted(set(begun))
