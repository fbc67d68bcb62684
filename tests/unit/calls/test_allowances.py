"""Limits per caller and per number of ours."""

from __future__ import annotations

import pytest

from app.calls.admission.allowances import Allowance, Allowances
from app.carrier.base import CarrierCallId, IncomingCall
from app.errors import CapacityError
from app.events import CallId

OURS = "+14155550100"
CALLER = "+14155550199"


def incoming(caller: str = CALLER, called: str = OURS) -> IncomingCall:
    return IncomingCall(
        carrier_call_id=CarrierCallId("CA1"),
        account_id="AC1",
        caller_number=caller,
        called_number=called,
    )


def refusal(allowances: Allowances, call: IncomingCall, now_s: float) -> str:
    """The code with which a call is refused, or empty; one that is not is counted, and is over."""
    try:
        allowances.check_call(call, now_s)
    except CapacityError as error:
        return error.code
    allowances.begin(call, CallId("c"), now_s)
    allowances.end(CallId("c"), now_s)
    return ""


def test_without_limits_every_call_is_taken() -> None:
    allowances = Allowances()
    assert [refusal(allowances, incoming(), 0) for _ in range(1000)] == [""] * 1000
    assert all(allowances.take_sms(incoming(), 0) for _ in range(1000))


@pytest.mark.parametrize(
    ("limit", "free_again_s"),
    [(Allowance(calls_per_minute=3), 60), (Allowance(calls_per_day=3), 86_400)],
)
@pytest.mark.parametrize("of_number", [False, True])
def test_calls_are_limited_for_a_time(limit: Allowance, free_again_s: int, of_number: bool) -> None:
    allowances = Allowances(None, limit) if of_number else Allowances(limit)
    code = "number_limit" if of_number else "caller_limit"
    assert [refusal(allowances, incoming(), 1_000) for _ in range(5)] == ["", "", "", code, code]
    assert refusal(allowances, incoming(), 1_000 + free_again_s - 1) == code
    # Another caller is only held back by the number's limit, and another number by neither.
    assert refusal(allowances, incoming("+14155550198"), 1_001) == (code if of_number else "")
    assert refusal(allowances, incoming("+14155550197", "+14155550101"), 1_001) == ""
    assert refusal(allowances, incoming(), 1_000 + free_again_s) == ""


def test_a_minute_is_the_one_before_the_call() -> None:
    allowances = Allowances(Allowance(calls_per_minute=2))
    at = {0: "", 30: "", 59: "caller_limit", 60: "", 61: "caller_limit", 90: ""}
    assert {now_s: refusal(allowances, incoming(), now_s) for now_s in at} == at


def test_seconds_count_while_a_call_goes_on_and_after_it() -> None:
    allowances = Allowances(Allowance(seconds_per_day=100))
    allowances.begin(incoming(), CallId("a"), 0)
    allowances.begin(incoming(), CallId("b"), 0)
    allowances.check_call(incoming(), 49)
    with pytest.raises(CapacityError):
        allowances.check_call(incoming(), 50)  # of both together
    allowances.end(CallId("a"), 60)
    allowances.end(CallId("b"), 60)
    allowances.end(CallId("b"), 600)  # that a call has ended is said once
    with pytest.raises(CapacityError):
        allowances.check_call(incoming(), 86_399)
    allowances.check_call(incoming(), 86_400)


def test_a_call_that_is_put_through_counts_and_is_not_timed() -> None:
    allowances = Allowances(Allowance(calls_per_day=1, seconds_per_day=1))
    allowances.begin(incoming(), None, 0)
    with pytest.raises(CapacityError):
        allowances.check_call(incoming(), 0)


def test_messages_are_limited_by_the_day_over_all_calls() -> None:
    allowances = Allowances(Allowance(sms_per_day=2), Allowance(sms_per_day=3))
    assert [allowances.take_sms(incoming(), 0) for _ in range(3)] == [True, True, False]
    other = incoming("+14155550198")
    assert [allowances.take_sms(other, 0) for _ in range(2)] == [True, False]  # the number's limit
    assert allowances.take_sms(incoming(), 86_400)


@pytest.mark.parametrize(
    "same",
    ["sip:+14155550199@a.example.com", "sip:4155550199@b.example.com", "tel:+1-415-555-0199"],
)
def test_a_caller_is_the_number_that_their_address_names(same: str) -> None:
    allowances = Allowances(Allowance(calls_per_minute=1))
    assert refusal(allowances, incoming(), 0) == ""
    assert refusal(allowances, incoming(same), 0) == "caller_limit"


def test_withheld_callers_are_limited_by_the_number_they_call_only() -> None:
    limit = Allowance(calls_per_minute=2)
    allowances = Allowances(Allowance(calls_per_minute=1), limit)
    withheld = [incoming("anonymous"), incoming("+266696687"), incoming("anonymous")]
    assert [refusal(allowances, call, 0) for call in withheld] == ["", "", "number_limit"]


def test_sip_users_without_a_number_share_the_limit_of_numbers() -> None:
    allowances = Allowances(None, Allowance(calls_per_minute=2))
    found = [
        refusal(allowances, incoming(called=f"sip:user{n}@ours.example.com"), 0) for n in range(3)
    ]
    assert found == ["", "", "number_limit"]


def test_callers_are_forgotten_in_the_order_in_which_they_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.calls.admission.allowances.REMEMBERED", 200)
    allowances = Allowances(Allowance(calls_per_day=1))
    for number in range(200):
        assert refusal(allowances, incoming(f"sip:caller-{number}@example.com"), 0) == ""
    assert refusal(allowances, incoming("sip:caller-0@example.com"), 0) == "caller_limit"
    assert refusal(allowances, incoming("sip:another@example.com"), 0) == ""
    # caller-0 has called again meanwhile: the one after it was forgotten.
    assert refusal(allowances, incoming("sip:caller-0@example.com"), 0) == "caller_limit"
    assert refusal(allowances, incoming("sip:caller-1@example.com"), 0) == ""
