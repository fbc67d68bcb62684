"""`ResponseGate`: one response at a time, whatever the server does."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from app.realtime.events import ResponseConfig
from app.realtime.protocol import (
    ALREADY_ACTIVE,
    NOTHING,
    Expired,
    GateState,
    ResponseGate,
)

SAY_A = ResponseConfig(instructions="a")
SAY_B = ResponseConfig(instructions="b")


def _active(response_id: str = "r1") -> ResponseGate:
    gate = ResponseGate()
    gate.on_created(response_id)
    return gate


def test_a_request_goes_at_once_when_nothing_runs() -> None:
    gate = ResponseGate()
    assert gate.request(0)
    assert gate.state is GateState.REQUESTED
    assert gate.busy


def test_a_whole_response_leaves_the_gate_free() -> None:
    gate = ResponseGate()
    gate.request(0)
    gate.sent("e1", 0)
    assert gate.on_created("r1") is None
    assert gate.active_response_id == "r1"
    assert gate.on_done("r1") is NOTHING
    assert not gate.busy


def test_a_request_during_a_response_waits_for_its_end() -> None:
    gate = _active()
    assert not gate.request(0, SAY_A)
    assert gate.has_pending
    assert gate.on_done("r1") is SAY_A
    assert gate.state is GateState.REQUESTED
    assert not gate.has_pending


def test_a_plain_request_is_pending_as_none() -> None:
    gate = _active()
    gate.request(0)
    assert gate.on_done("r1") is None


def test_many_requests_become_one() -> None:
    gate = _active()
    for _ in range(3):
        assert not gate.request(0)
    assert gate.on_done("r1") is None
    gate.on_created("r2")
    assert gate.on_done("r2") is NOTHING


def test_the_latest_overrides_win() -> None:
    gate = _active()
    gate.request(0, SAY_A)
    gate.request(0, SAY_B)
    assert gate.on_done("r1") is SAY_B


def test_overrides_are_not_lost_to_a_plain_request() -> None:
    gate = _active()
    gate.request(0, SAY_A)
    gate.request(0)
    assert gate.on_done("r1") is SAY_A


def test_overrides_replace_a_plain_request() -> None:
    gate = _active()
    gate.request(0)
    gate.request(0, SAY_A)
    assert gate.on_done("r1") is SAY_A


def test_a_response_of_the_server_occupies_the_gate() -> None:
    gate = _active("by_vad")
    assert not gate.request(0)


def test_a_response_outside_the_conversation_does_not() -> None:
    gate = ResponseGate()
    gate.on_created("aside", out_of_band=True)
    assert gate.request(0)


def test_the_end_of_another_response_is_ignored() -> None:
    gate = _active()
    gate.request(0)
    assert gate.on_done("r0") is NOTHING
    assert gate.active_response_id == "r1"
    assert gate.has_pending


def test_an_end_with_nothing_running_is_ignored() -> None:
    gate = ResponseGate()
    assert gate.on_done("r1") is NOTHING
    gate.request(0)
    assert gate.on_done("r1") is NOTHING
    assert gate.state is GateState.REQUESTED


def test_a_repeated_end_is_ignored() -> None:
    gate = _active()
    gate.request(0)
    gate.on_done("r1")
    assert gate.on_done("r1") is NOTHING
    assert gate.state is GateState.REQUESTED


def test_a_repeated_created_changes_nothing() -> None:
    gate = _active()
    gate.cancel()
    gate.on_created("r1")
    assert gate.state is GateState.CANCELLING


def test_a_newer_response_takes_the_place_of_one_whose_end_was_lost() -> None:
    gate = _active("r1")
    gate.on_created("r2")
    assert gate.on_done("r1") is NOTHING
    assert gate.active_response_id == "r2"


def test_a_rejected_request_frees_the_gate() -> None:
    gate = ResponseGate()
    gate.request(0)
    gate.sent("e1", 0)
    assert gate.on_error("e1", "invalid_value") is NOTHING
    assert not gate.busy


def test_a_rejected_request_makes_way_for_the_one_behind_it() -> None:
    gate = ResponseGate()
    gate.request(0, SAY_A)
    gate.sent("e1", 0)
    gate.request(0, SAY_B)
    assert gate.on_error("e1", "invalid_value") is SAY_B
    assert gate.state is GateState.REQUESTED


def test_errors_about_other_events_change_nothing() -> None:
    gate = ResponseGate()
    assert gate.on_error("e1", "invalid_value") is NOTHING
    gate.request(0)
    gate.sent("e1", 0)
    assert gate.on_error("e0", "invalid_value") is NOTHING
    assert gate.on_error(None, "invalid_value") is NOTHING
    assert gate.on_error("e0", ALREADY_ACTIVE) is NOTHING
    assert gate.state is GateState.REQUESTED


def test_a_request_that_came_second_is_sent_again_after_the_first() -> None:
    gate = ResponseGate()
    gate.request(0, SAY_A)
    gate.sent("e1", 0)
    gate.on_created("by_vad")
    assert gate.on_error("e1", ALREADY_ACTIVE) is NOTHING
    assert gate.on_done("by_vad") is SAY_A


def test_a_rejection_for_another_reason_after_a_response_of_the_server_is_final() -> None:
    gate = ResponseGate()
    gate.request(0, SAY_A)
    gate.sent("e1", 0)
    gate.on_created("by_vad")
    assert gate.on_error("e1", "invalid_value") is NOTHING
    assert gate.on_done("by_vad") is NOTHING


def test_a_later_request_outlives_the_one_that_came_second() -> None:
    gate = ResponseGate()
    gate.request(0, SAY_A)
    gate.sent("e1", 0)
    gate.request(0, SAY_B)
    gate.on_error("e1", ALREADY_ACTIVE)
    assert gate.on_done("whichever") is SAY_B


def test_a_rejection_without_a_name_counts_when_its_code_can_mean_nothing_else() -> None:
    gate = ResponseGate()
    gate.request(0, SAY_A)
    gate.sent("e1", 0)
    gate.on_error(None, ALREADY_ACTIVE)
    assert gate.state is GateState.ACTIVE
    assert gate.active_response_id is None
    assert gate.on_done("whichever") is SAY_A


def test_a_rejection_may_come_after_the_end_of_an_earlier_response() -> None:
    gate = ResponseGate()
    gate.request(0, SAY_A)
    gate.sent("e1", 0)
    gate.on_created("by_vad_1")
    gate.on_done("by_vad_1")
    assert gate.on_error("e1", ALREADY_ACTIVE) is NOTHING
    gate.on_created("by_vad_2")
    assert gate.on_done("by_vad_2") is SAY_A


def test_a_rejection_without_a_name_is_not_about_an_answered_request() -> None:
    gate = ResponseGate()
    gate.request(0, SAY_A)
    gate.sent("e1", 0)
    gate.on_created("r1")
    gate.on_error(None, ALREADY_ACTIVE)
    assert gate.on_done("r1") is NOTHING


def test_cancelling_names_the_response_once() -> None:
    gate = _active()
    assert gate.cancel() == "r1"
    assert gate.state is GateState.CANCELLING
    assert gate.cancel() is None
    assert gate.on_done("r1") is NOTHING


def test_cancelling_keeps_the_request_that_waits() -> None:
    gate = _active()
    gate.request(0, SAY_A)
    gate.cancel()
    assert gate.on_done("r1") is SAY_A


def test_the_request_that_waits_can_be_dropped() -> None:
    gate = _active()
    gate.request(0, SAY_A)
    assert gate.drop_pending()
    assert not gate.drop_pending()
    assert gate.on_done("r1") is NOTHING


def test_there_is_nothing_to_cancel_when_nothing_runs() -> None:
    gate = ResponseGate()
    assert gate.cancel() is None
    assert not gate.busy


def test_a_response_cancelled_before_it_was_created_is_cancelled_then() -> None:
    gate = ResponseGate()
    gate.request(0)
    gate.sent("e1", 0)
    assert gate.cancel() is None
    assert gate.on_created("r1") == "r1"
    assert gate.state is GateState.CANCELLING


def test_a_cancel_before_creation_does_not_reach_the_next_response() -> None:
    gate = ResponseGate()
    gate.request(0)
    gate.sent("e1", 0)
    gate.cancel()
    gate.on_error("e1", "invalid_value")
    gate.request(0)
    assert gate.on_created("r2") is None


def test_an_unanswered_request_expires() -> None:
    gate = ResponseGate(watchdog_ms=4_000)
    gate.request(1_000, SAY_A)
    gate.sent("e1", 1_200)
    assert gate.on_tick(5_199) is NOTHING
    assert gate.on_tick(5_200) == Expired(state=GateState.REQUESTED, event_id="e1", wanted=SAY_A)
    assert not gate.busy
    assert gate.on_tick(60_000) is NOTHING


def test_what_waits_behind_an_unanswered_request_expires_with_it() -> None:
    gate = ResponseGate()
    gate.request(0)
    gate.request(0, SAY_B)
    expired = gate.on_tick(4_000)
    assert isinstance(expired, Expired)
    assert expired.wanted is SAY_B
    assert not gate.has_pending


def test_a_response_that_runs_does_not_expire() -> None:
    gate = _active()
    assert gate.on_tick(0) is NOTHING
    assert gate.on_tick(3_600_000) is NOTHING


def test_a_cancel_without_an_end_expires_without_asking_again() -> None:
    gate = ResponseGate()
    gate.request(0, SAY_A)
    gate.sent("e1", 0)
    gate.on_created("r1")
    gate.cancel()
    assert gate.on_tick(10_000) is NOTHING  # the first tick that sees it starts the clock
    expired = gate.on_tick(14_000)
    assert isinstance(expired, Expired)
    assert (expired.state, expired.wanted) == (GateState.CANCELLING, NOTHING)


def test_a_response_whose_id_was_missed_expires_with_the_request_behind_it() -> None:
    gate = ResponseGate()
    gate.request(0, SAY_A)
    gate.sent("e1", 0)
    gate.on_error("e1", ALREADY_ACTIVE)
    gate.on_tick(0)
    expired = gate.on_tick(4_000)
    assert isinstance(expired, Expired)
    assert expired.wanted is SAY_A


def test_a_late_answer_to_sending_does_not_disturb_a_response_that_runs() -> None:
    gate = ResponseGate()
    gate.request(0, SAY_A)
    gate.on_created("r1")
    gate.sent("e1", 5)
    assert gate.state is GateState.ACTIVE


def test_nothing_is_false_and_says_its_name() -> None:
    assert not NOTHING
    assert repr(NOTHING) == "NOTHING"


class _Server:
    """A server with the rules of the real one: rejects a create while a response runs."""

    def __init__(self) -> None:
        self.active: str | None = None
        self.count = 0
        self.answers: list[tuple[str, str]] = []

    def create(self, event_id: str) -> None:
        if self.active is not None:
            self.answers.append(("error", event_id))
        else:
            self.start()

    def start(self) -> None:
        self.count += 1
        self.active = f"r{self.count}"
        self.answers.append(("created", self.active))

    def finish(self) -> None:
        if self.active is not None:
            self.answers.append(("done", self.active))
            self.active = None


STEPS = ["request", "vad", "finish", "deliver", "cancel", "tick"]


@settings(max_examples=600, deadline=None, database=None)
@given(st.lists(st.sampled_from(STEPS), max_size=40))
def test_no_request_is_forgotten_in_any_order_of_events(steps: list[str]) -> None:
    gate, server = ResponseGate(), _Server()
    sent: list[str] = []
    started_before_last_request = -1

    def create(wanted: object) -> None:
        if wanted is not NOTHING:
            sent.append(f"e{len(sent)}")
            gate.sent(sent[-1], 0)
            server.create(sent[-1])

    def deliver() -> None:
        kind, name = server.answers.pop(0)
        if kind == "created":
            if gate.on_created(name):
                server.finish()
        elif kind == "done":
            create(gate.on_done(name))
        else:
            create(gate.on_error(name, ALREADY_ACTIVE))

    for step in steps:
        if step == "request":
            started_before_last_request = server.count
            if gate.request(0):
                create(None)
        elif step == "vad" and server.active is None:
            server.start()
        elif step == "finish":
            server.finish()
        elif step == "deliver" and server.answers:
            deliver()
        elif step == "cancel" and gate.cancel():
            server.finish()
        elif step == "tick":
            assert gate.on_tick(0) is NOTHING
    for _ in range(200):  # everything answered and finished: the gate must come to rest
        server.finish()
        while server.answers:
            deliver()
    assert not gate.has_pending
    assert gate.state is GateState.FREE
    assert server.count > started_before_last_request
