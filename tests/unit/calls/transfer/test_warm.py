"""The course of a warm transfer: outcomes, late and repeated reports, and nobody left behind."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.calls.transfer.warm import (
    BringBack,
    CancelLeg,
    Finished,
    Intent,
    MoveCaller,
    PlaceLeg,
    WarmState,
    WarmTransfer,
)
from app.carrier.base import (
    CallProgress,
    CarrierCallId,
    LegAnswer,
    LegStatus,
    TransferOutcome,
    TransferResult,
)
from app.carrier.twilio.transfer_reports import LegReport, leg_status

LEG = CarrierCallId("CA2")


def leg(progress: CallProgress, sip_code: int | None = None) -> LegStatus:
    return leg_status(LegReport(leg_id=LEG, progress=progress, sip_code=sip_code))


def dialing() -> WarmTransfer:
    transfer = WarmTransfer(ring_s=20)
    assert transfer.start(0) == [PlaceLeg()]
    assert transfer.on_leg_placed(LEG) == []
    return transfer


def offered() -> WarmTransfer:
    transfer = dialing()
    assert transfer.on_leg(leg(CallProgress.IN_PROGRESS), 5_000) == []
    assert transfer.state is WarmState.OFFERED
    return transfer


def moving() -> WarmTransfer:
    transfer = offered()
    assert transfer.on_keys(LEG, "1", 9_000) == (LegAnswer.JOIN, [MoveCaller()])
    return transfer


def moved() -> WarmTransfer:
    transfer = moving()
    assert transfer.on_caller_moved(9_500) == []
    return transfer


def joined() -> WarmTransfer:
    transfer = moved()
    assert outcome_of(transfer.on_caller_joined(9_700)) is TransferOutcome.ANSWERED
    return transfer


def outcome_of(intents: list[Intent]) -> TransferOutcome | None:
    results = [intent.result for intent in intents if isinstance(intent, Finished)]
    assert len(results) <= 1
    return results[0].outcome if results else None


def test_a_person_who_accepts_is_brought_together_with_the_caller() -> None:
    transfer = joined()
    assert transfer.state is WarmState.JOINED
    assert transfer.result == TransferResult(TransferOutcome.ANSWERED, "conference=caller-joined")
    assert not transfer.over
    assert transfer.on_leg(leg(CallProgress.COMPLETED), 60_000) == []
    assert transfer.over


def test_the_same_key_twice_is_answered_the_same_and_moves_the_caller_once() -> None:
    transfer = moving()
    assert transfer.on_keys(LEG, "1", 9_100) == (LegAnswer.JOIN, [])


def test_a_key_may_overtake_the_report_of_the_pick_up() -> None:
    transfer = WarmTransfer(ring_s=20)
    transfer.start(0)
    # Even before the answer to the request that placed the leg.
    assert transfer.on_keys(LEG, "1", 4_000) == (LegAnswer.JOIN, [MoveCaller()])
    assert transfer.on_leg_placed(LEG) == []
    assert transfer.on_leg(leg(CallProgress.IN_PROGRESS), 4_100) == []
    assert transfer.state is WarmState.MOVING


@pytest.mark.parametrize("key", ["2", "3", "0", "*", "#"])
def test_any_other_key_declines(key: str) -> None:
    answer, intents = offered().on_keys(LEG, key, 9_000)
    assert answer is LegAnswer.DECLINE
    assert intents[0] == CancelLeg(LEG)
    assert outcome_of(intents) is TransferOutcome.DECLINED


def test_silence_is_taken_for_a_voicemail() -> None:
    answer, intents = offered().on_keys(LEG, "", 20_000)
    assert answer is LegAnswer.DECLINE
    assert outcome_of(intents) is TransferOutcome.VOICEMAIL


def test_a_detected_machine_is_hung_up_on() -> None:
    transfer = offered()
    intents = transfer.on_machine(LEG, 7_000)
    assert intents[0] == CancelLeg(LEG)
    assert outcome_of(intents) is TransferOutcome.VOICEMAIL


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (leg(CallProgress.BUSY), TransferOutcome.BUSY),
        (leg(CallProgress.BUSY, 603), TransferOutcome.DECLINED),
        (leg(CallProgress.NO_ANSWER), TransferOutcome.NO_ANSWER),
        (leg(CallProgress.FAILED, 404), TransferOutcome.FAILED),
        (leg(CallProgress.COMPLETED), TransferOutcome.DECLINED),
    ],
)
def test_a_leg_that_ends_by_itself_tells_the_outcome(
    status: LegStatus, outcome: TransferOutcome
) -> None:
    transfer = dialing()
    intents = transfer.on_leg(status, 8_000)
    assert outcome_of(intents) is outcome
    assert not any(isinstance(intent, CancelLeg) for intent in intents)
    assert transfer.over


def test_a_leg_that_the_carrier_does_not_take_fails_with_its_code() -> None:
    transfer = WarmTransfer(ring_s=20)
    transfer.start(0)
    [finished] = transfer.on_leg_refused("twilio_21210", 500, answered=True)
    assert finished == Finished(TransferResult(TransferOutcome.FAILED, "place=twilio_21210"))


def test_a_phone_that_rings_for_too_long_is_given_up() -> None:
    transfer = dialing()
    assert transfer.on_tick(29_999) == []
    intents = transfer.on_tick(30_000)
    assert intents[0] == CancelLeg(LEG)
    assert outcome_of(intents) is TransferOutcome.NO_ANSWER
    assert transfer.on_tick(99_999) == []


def test_a_question_that_is_never_answered_is_given_up() -> None:
    transfer = offered()
    assert transfer.on_tick(94_999) == []
    assert outcome_of(transfer.on_tick(95_000)) is TransferOutcome.VOICEMAIL


# The caller hangs up ------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", [dialing, offered, moving, moved])
def test_the_consult_leg_is_canceled_when_the_caller_hangs_up(
    stage: Callable[[], WarmTransfer],
) -> None:
    transfer = stage()
    intents = transfer.on_caller_gone(10_000)
    assert intents[0] == CancelLeg(LEG)
    assert outcome_of(intents) is TransferOutcome.CANCELED
    assert transfer.over
    assert transfer.on_keys(LEG, "1", 10_100) == (LegAnswer.TOO_LATE, [])


def test_the_consult_leg_is_ended_when_the_caller_leaves_the_conversation() -> None:
    assert joined().on_caller_gone(60_000) == [CancelLeg(LEG)]


def test_a_leg_whose_request_is_under_way_is_canceled_as_soon_as_it_is_known() -> None:
    transfer = WarmTransfer(ring_s=20)
    transfer.start(0)
    assert outcome_of(transfer.on_caller_gone(100)) is TransferOutcome.CANCELED
    assert transfer.on_leg_placed(LEG) == [CancelLeg(LEG)]
    assert transfer.on_leg_placed(LEG) == []


# Moving the caller --------------------------------------------------------------------------------


def test_a_caller_who_cannot_be_moved_stays_with_the_agent() -> None:
    transfer = moving()
    intents = transfer.on_caller_not_moved("twilio_21220", 9_400, answered=True)
    assert intents == [
        CancelLeg(LEG),
        Finished(TransferResult(TransferOutcome.FAILED, "move=twilio_21220")),
    ]


def test_a_caller_who_was_perhaps_moved_is_brought_back() -> None:
    intents = moving().on_caller_not_moved("timeout", 9_400, answered=False)
    assert intents[:2] == [CancelLeg(LEG), BringBack()]
    assert outcome_of(intents) is TransferOutcome.FAILED


def test_a_person_who_hangs_up_while_the_caller_is_moved_leaves_nobody_alone() -> None:
    transfer = moving()
    assert transfer.on_leg(leg(CallProgress.COMPLETED), 9_200) == []
    assert transfer.on_keys(LEG, "1", 9_250) == (LegAnswer.TOO_LATE, [])
    intents = transfer.on_caller_moved(9_400)
    assert intents[0] == BringBack()
    assert outcome_of(intents) is TransferOutcome.DECLINED


def test_a_caller_who_was_not_moved_after_all_needs_not_be_brought_back() -> None:
    transfer = moving()
    transfer.on_leg(leg(CallProgress.COMPLETED), 9_200)
    intents = transfer.on_caller_not_moved("twilio_20429", 9_400, answered=True)
    assert BringBack() not in intents
    assert outcome_of(intents) is TransferOutcome.DECLINED


def test_a_person_who_leaves_before_the_caller_has_arrived_sends_the_caller_back() -> None:
    intents = moved().on_leg(leg(CallProgress.COMPLETED), 9_600)
    assert intents[0] == BringBack()
    assert outcome_of(intents) is TransferOutcome.DECLINED


def test_a_lost_report_of_the_callers_arrival_is_not_waited_for_for_ever() -> None:
    transfer = moved()
    assert transfer.on_tick(24_499) == []
    assert outcome_of(transfer.on_tick(24_500)) is TransferOutcome.ANSWERED
    assert transfer.state is WarmState.JOINED


def test_the_callers_arrival_may_overtake_the_answer_to_the_request() -> None:
    transfer = moving()
    assert outcome_of(transfer.on_caller_joined(9_300)) is TransferOutcome.ANSWERED
    assert transfer.on_caller_moved(9_400) == []
    assert transfer.state is WarmState.JOINED


def test_a_leg_that_rings_was_placed_even_if_its_request_failed() -> None:
    transfer = WarmTransfer(ring_s=20)
    transfer.start(0)
    assert transfer.on_leg(leg(CallProgress.RINGING), 900) == []
    assert transfer.on_leg_refused("timeout", 10_000, answered=False) == []
    assert transfer.state is WarmState.DIALING


def test_a_leg_of_which_nothing_is_known_has_failed() -> None:
    transfer = WarmTransfer(ring_s=20)
    transfer.start(0)
    assert outcome_of(transfer.on_leg_refused("timeout", 10_000, answered=False)) is (
        TransferOutcome.FAILED
    )


@pytest.mark.parametrize("state", [dialing, offered])
def test_a_transfer_can_be_stopped_until_the_person_has_accepted(
    state: Callable[[], WarmTransfer],
) -> None:
    transfer = state()
    assert transfer.asking
    intents = transfer.cancel(8_000)
    assert intents[0] == CancelLeg(LEG)
    assert outcome_of(intents) is TransferOutcome.CANCELED


@pytest.mark.parametrize("state", [moving, moved, joined])
def test_a_transfer_cannot_be_stopped_any_more_once_the_person_has_accepted(
    state: Callable[[], WarmTransfer],
) -> None:
    transfer = state()
    assert not transfer.asking
    assert transfer.cancel(12_000) == []


@pytest.mark.parametrize("state", [moving, moved])
def test_a_caller_who_cannot_be_brought_in_frees_the_person(
    state: Callable[[], WarmTransfer],
) -> None:
    intents = state().on_not_joined("dial=failed", 12_000)
    assert CancelLeg(LEG) in intents
    assert BringBack() not in intents  # whoever reports it brings them back
    assert outcome_of(intents) is TransferOutcome.FAILED


def test_reports_of_other_legs_are_ignored() -> None:
    transfer = offered()
    other = CarrierCallId("CA9")
    assert transfer.on_leg(LegStatus(leg_id=other, progress=CallProgress.RINGING), 6_000) == []
    assert transfer.on_machine(other, 6_000) == []
    assert transfer.on_keys(other, "1", 6_000) == (LegAnswer.TOO_LATE, [])
    assert transfer.state is WarmState.OFFERED


def test_nothing_happens_before_the_start_and_it_starts_once() -> None:
    transfer = WarmTransfer(ring_s=20)
    assert transfer.on_keys(LEG, "1", 0) == (LegAnswer.TOO_LATE, [])
    assert transfer.on_caller_gone(0) == []
    assert transfer.on_tick(1_000_000) == []
    transfer.start(0)
    assert transfer.start(1) == []


# Any order of events ------------------------------------------------------------------------------

EVENTS: dict[str, Callable[[WarmTransfer, int], list[Intent]]] = {
    "placed": lambda t, _now: t.on_leg_placed(LEG),
    "refused": lambda t, now: t.on_leg_refused("x", now, answered=True),
    "perhaps_placed": lambda t, now: t.on_leg_refused("x", now, answered=False),
    "ringing": lambda t, now: t.on_leg(leg(CallProgress.RINGING), now),
    "picked_up": lambda t, now: t.on_leg(leg(CallProgress.IN_PROGRESS), now),
    "busy": lambda t, now: t.on_leg(leg(CallProgress.BUSY), now),
    "ended": lambda t, now: t.on_leg(leg(CallProgress.COMPLETED), now),
    "machine": lambda t, now: t.on_machine(LEG, now),
    "accept": lambda t, now: t.on_keys(LEG, "1", now)[1],
    "decline": lambda t, now: t.on_keys(LEG, "2", now)[1],
    "silence": lambda t, now: t.on_keys(LEG, "", now)[1],
    "moved": lambda t, now: t.on_caller_moved(now),
    "not_moved": lambda t, now: t.on_caller_not_moved("x", now, answered=True),
    "perhaps_moved": lambda t, now: t.on_caller_not_moved("x", now, answered=False),
    "caller_in": lambda t, now: t.on_caller_joined(now),
    "not_joined": lambda t, now: t.on_not_joined("conference=failed", now),
    "caller_gone": lambda t, now: t.on_caller_gone(now),
    "cancel": lambda t, now: t.cancel(now),
    "tick": lambda t, now: t.on_tick(now),
}


@given(st.lists(st.tuples(st.sampled_from(sorted(EVENTS)), st.integers(0, 40_000)), max_size=25))
def test_events_in_any_order_give_one_outcome_and_one_move(
    events: list[tuple[str, int]],
) -> None:
    transfer = WarmTransfer(ring_s=20)
    intents = transfer.start(0)
    now_ms = 0
    for name, later_ms in events:
        now_ms += later_ms
        intents += EVENTS[name](transfer, now_ms)
    finished = [intent for intent in intents if isinstance(intent, Finished)]
    assert len(finished) <= 1
    assert intents.count(MoveCaller()) <= 1
    assert intents.count(BringBack()) <= 1
    assert (transfer.result is not None) == bool(finished)
    if transfer.over:
        assert finished
    if BringBack() in intents:
        assert MoveCaller() in intents
    answered = [f for f in finished if f.result.outcome is TransferOutcome.ANSWERED]
    if answered:
        assert MoveCaller() in intents
        assert BringBack() not in intents


@given(st.lists(st.sampled_from(sorted(EVENTS)), max_size=20))
def test_a_transfer_that_is_over_before_it_was_answered_leaves_no_leg_ringing(
    names: list[str],
) -> None:
    transfer = WarmTransfer(ring_s=20)
    transfer.start(0)
    intents = transfer.on_leg_placed(LEG)
    ended = False
    for name in names:
        if name in ("placed", "refused", "perhaps_placed"):
            continue
        ended = ended or name in ("busy", "ended")
        intents += EVENTS[name](transfer, 1_000)
    if transfer.over and not ended:
        assert CancelLeg(LEG) in intents
