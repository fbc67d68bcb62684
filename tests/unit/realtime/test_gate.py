"""`ResponseGate`: one response at a time, whatever the server does."""

from __future__ import annotations

import pytest

from app.errors import LocalProtocolError
from app.realtime.protocol import ALREADY_ACTIVE, GateState, Rejection, ResponseGate


def _active(response_id: str = "r1") -> ResponseGate:
    gate = ResponseGate()
    gate.on_created(response_id)
    return gate


def _requested(event_id: str = "e1", now_ms: int = 0) -> ResponseGate:
    gate = ResponseGate()
    gate.request(event_id, now_ms)
    return gate


def test_a_request_occupies_the_gate() -> None:
    gate = _requested()
    assert gate.state is GateState.REQUESTED
    assert gate.busy


def test_a_whole_response_leaves_the_gate_free() -> None:
    gate = _requested()
    assert gate.on_created("r1") is None
    assert gate.active_response_id == "r1"
    gate.on_done("r1")
    assert not gate.busy


def test_a_request_during_a_response_is_a_mistake_of_ours() -> None:
    for gate in (_active(), _requested(), _active("by_vad")):
        with pytest.raises(LocalProtocolError):
            gate.request("e2", 0)


def test_a_response_outside_the_conversation_does_not_occupy_the_gate() -> None:
    gate = ResponseGate()
    gate.on_created("aside", out_of_band=True)
    assert not gate.busy


def test_the_end_of_another_response_is_ignored() -> None:
    gate = _active()
    gate.on_done("r0")
    assert gate.active_response_id == "r1"


def test_an_end_with_nothing_running_is_ignored() -> None:
    gate = ResponseGate()
    gate.on_done("r1")
    assert not gate.busy
    gate.request("e1", 0)
    gate.on_done("r1")
    assert gate.state is GateState.REQUESTED


def test_a_repeated_end_is_ignored() -> None:
    gate = _active()
    gate.on_done("r1")
    gate.request("e1", 0)
    gate.on_done("r1")
    assert gate.state is GateState.REQUESTED


def test_a_repeated_created_changes_nothing() -> None:
    gate = _active()
    gate.cancel()
    gate.on_created("r1")
    assert gate.state is GateState.CANCELLING


def test_a_newer_response_takes_the_place_of_one_whose_end_was_lost() -> None:
    gate = _active("r1")
    gate.on_created("r2")
    gate.on_done("r1")
    assert gate.active_response_id == "r2"


def test_a_rejected_request_frees_the_gate() -> None:
    gate = _requested()
    assert gate.on_error("e1", "invalid_value") is Rejection.REFUSED
    assert not gate.busy


def test_errors_about_other_events_change_nothing() -> None:
    gate = ResponseGate()
    assert gate.on_error("e1", "invalid_value") is None
    gate.request("e1", 0)
    assert gate.on_error("e0", "invalid_value") is None
    assert gate.on_error(None, "invalid_value") is None
    assert gate.on_error("e0", ALREADY_ACTIVE) is None
    assert gate.state is GateState.REQUESTED


def test_a_request_that_came_second_may_be_made_again_after_the_first() -> None:
    gate = _requested()
    gate.on_created("by_vad")
    assert gate.on_error("e1", ALREADY_ACTIVE) is Rejection.OVERTAKEN
    assert gate.active_response_id == "by_vad"
    assert gate.on_error("e1", ALREADY_ACTIVE) is None
    gate.on_done("by_vad")
    assert not gate.busy


def test_a_rejection_for_another_reason_after_a_response_of_the_server_is_final() -> None:
    gate = _requested()
    gate.on_created("by_vad")
    assert gate.on_error("e1", "invalid_value") is Rejection.REFUSED
    assert gate.active_response_id == "by_vad"


def test_a_rejection_without_a_name_counts_when_its_code_can_mean_nothing_else() -> None:
    gate = _requested()
    assert gate.on_error(None, ALREADY_ACTIVE) is Rejection.OVERTAKEN
    assert gate.state is GateState.ACTIVE
    assert gate.active_response_id is None
    gate.on_done("whichever")
    assert not gate.busy


def test_a_rejection_may_come_after_the_end_of_an_earlier_response() -> None:
    gate = _requested()
    gate.on_created("by_vad_1")
    gate.on_done("by_vad_1")
    assert gate.on_error("e1", ALREADY_ACTIVE) is Rejection.OVERTAKEN
    assert gate.busy  # with the response that it met
    gate.on_created("by_vad_2")
    gate.on_done("by_vad_2")
    assert not gate.busy


def test_a_rejection_without_a_name_is_not_about_an_answered_request() -> None:
    gate = _requested()
    gate.on_created("r1")
    assert gate.on_error(None, ALREADY_ACTIVE) is None


def test_cancelling_names_the_response_once() -> None:
    gate = _active()
    assert gate.cancel() == "r1"
    assert gate.state is GateState.CANCELLING
    assert gate.cancel() is None
    gate.on_done("r1")
    assert not gate.busy


def test_there_is_nothing_to_cancel_when_nothing_runs() -> None:
    gate = ResponseGate()
    assert gate.cancel() is None
    assert not gate.busy


def test_a_response_cancelled_before_it_was_created_is_cancelled_then() -> None:
    gate = _requested()
    assert gate.cancel() is None
    assert gate.cancels_next
    assert gate.on_created("r1") == "r1"
    assert gate.state is GateState.CANCELLING


def test_a_cancel_before_creation_does_not_reach_the_next_response() -> None:
    gate = _requested()
    gate.cancel()
    gate.on_error("e1", "invalid_value")
    gate.request("e2", 0)
    assert gate.on_created("r2") is None


def test_an_unanswered_request_expires() -> None:
    gate = ResponseGate(watchdog_ms=4_000)
    gate.request("e1", 1_200)
    assert gate.on_tick(5_199) is None
    assert gate.on_tick(5_200) is GateState.REQUESTED
    assert not gate.busy
    assert gate.on_tick(60_000) is None


def test_a_response_that_runs_does_not_expire() -> None:
    gate = _active()
    assert gate.on_tick(0) is None
    assert gate.on_tick(3_600_000) is None


def test_a_cancel_without_an_end_expires() -> None:
    gate = _requested()
    gate.on_created("r1")
    gate.cancel()
    assert gate.on_tick(10_000) is None  # the first tick that sees it starts the clock
    assert gate.on_tick(14_000) is GateState.CANCELLING


def test_a_response_whose_id_was_missed_expires() -> None:
    gate = _requested()
    gate.on_error("e1", ALREADY_ACTIVE)
    gate.on_tick(0)
    assert gate.on_tick(4_000) is GateState.ACTIVE


def test_a_gate_that_is_reset_knows_of_no_request() -> None:
    gate = _requested()
    gate.reset()
    assert not gate.busy
    assert gate.on_error("e1", ALREADY_ACTIVE) is None
