"""The dial policy: two hundred numbers, and every other reason to refuse a call."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from typing import Any

import pytest

from app.calls.outbound.dial_policy import (
    CallingHours,
    OutboundPolicy,
    Purpose,
    Refusal,
    decide,
)
from app.carrier.number_policy import DialPolicy, NumberKind, classify
from app.store.outbound import CalleeFacts

POLICY = OutboundPolicy(
    enabled=True,
    numbers=DialPolicy(frozenset({"US", "CA", "GB", "DE"}), home=frozenset({"US"})),
    own_numbers=frozenset({"+14155550100"}),
    max_calls=10,
    hours=CallingHours(),
)
NOON = datetime(2026, 11, 30, 17, 30, tzinfo=UTC)
"""9:30 in Los Angeles, 12:30 in New York, 17:30 in London, 18:30 in Berlin."""

R = Refusal
# What may be dialed, and why all else may not. Countries are not country codes: +1 is the Caribbean
# as well. Numbers of ranges in use, not of people.


def _listed(numbers: str) -> list[str]:
    return numbers.split()


NUMBERS: dict[str, Refusal | None] = {
    **dict.fromkeys(
        _listed(
            "+14155550123 +12125550123 +13125550123 +17135550123 +13035550123 +16025550123 "
            "+12065550123 +14045550123 +16175550123 +12155550123 +13055550123 +17025550123 "
            "+15035550123 +15125550123 +14165550123 +16045550123 +15145550123 +14035550123 "
            "+12045550123 +19025550123 +442079460000 +441214960000 +441314960000 +441514960000 "
            "+441614960000 +442890180000 +447400123456 +447500123456 +4930123456 +498912345678 "
            "+494012345678 +4922112345678 +4969123456 +4915112345678 +4917112345678 +491601234567 "
        ),
        None,
    ),
    # The Caribbean and the Pacific, with the country code of the United States.
    **dict.fromkeys(
        _listed(
            "+18095551234 +18295551234 +18495551234 +18765551234 +16585551234 +12425551234 "
            "+12465551234 +12645551234 +12685551234 +12845551234 +13455551234 +14415551234 "
            "+14735551234 +16495551234 +16645551234 +17215551234 +17585551234 +17675551234 "
            "+17845551234 +18685551234 +18695551234 +16715551234 +16705551234 +16845551234 "
            "+17875551234 +19395551234 +13405551234 "
        ),
        R.COUNTRY,
    ),
    # Other countries, among them those that call fraud likes.
    **dict.fromkeys(
        _listed(
            "+33142685300 +33612345678 +390612345678 +34911234567 +41445550100 +41791234567 "
            "+431234567 +31201234567 +3221234567 +35312345678 +48221234567 +420221234567 "
            "+46812345678 +4721234567 +4532123456 +358912345678 +351211234567 +302101234567 "
            "+77012345678 +74951234567 +380441234567 +37041234567 +37120123456 +37123456789 "
            "+37041234567 +3725123456 +35796123456 +38162123456 +38761123456 +355672123456 "
            "+213661234567 +21620123456 +212612345678 +2250123456789 +2348021234567 +254712345678 "
            "+252711234567 +251911234567 +263712345678 +27821234567 +201001234567 +962790123456 "
            "+96171123456 +971501234567 +9647912345678 +93701234567 +923012345678 +919812345678 "
            "+8801812345678 +94712345678 +959212345678 +85291234567 +8613812345678 +819012345678 "
            "+821020000000 +84912345678 +6591234567 +60123456789 +62812345678 +639051234567 "
            "+61412345678 +64211234567 +6797012345 +6767715123 +67570123456 +525512345678 "
            "+50688123456 +5351234567 +5491123456789 +5511912345678 +56221234567 +573211234567 "
            "+584121234567 +298211234 +3546111234 +37761234567 +441481960194 +447781123456 "
            "+441534123456 +447797712345 +441624123456 +447911123456 +80012345678 "
        ),
        R.COUNTRY,
    ),
    **dict.fromkeys(
        _listed(
            "+19005550123 +19765550123 +449098790000 +448711234567 +499001234567 +499005123456 "
            "+491801234567 +491806123456 +447012345678 +4970012345678 +447640123456 +870773123456 "
            "+8816123456 +88161234567 +8821612345678 +883510001234567 +88812345678 "
            "+87812345678901 +979123456789 +8081234567 +447700900123 +19765550123 "
            "+15551234567 sip:anna@pbx.example.com sips:anna@pbx.example.com client:anna "
        ),
        R.NUMBER_KIND,
    ),
    **dict.fromkeys(
        _listed(
            "911 112 +1911 +44999 +44112 +49112 +49110 +61000 sip:911@pbx.example.com tel:911 "
        ),
        R.EMERGENCY,
    ),
    **dict.fromkeys(
        [
            *("", " ", "1234", "40404", "+1", "+14155", "+141555501234", "+0123456789"),
            "+9990000000",
            *("4155550123", "14155550123", "0014155550123", "01114155550123", "+1 415 555 0123"),
            *("+1-415-555-0123", "sip:+14155550123@trunk", "+14155550123,,9", "+14155550123w9"),
            "+14155550123;ext=1",
            *("+14155550123x12", "tel:+14155550123", "+14155550123\n", " +14155550123"),
            *("+1415555012\u0663", "+\uff11\uff14155550123", "++14155550123", "anonymous"),
            *("+14155550123 +19005550123", "hello", "'; drop table", "+8891234567"),
        ],
        R.NUMBER_INVALID,
    ),
    "+14155550100": R.OWN_NUMBER,
}  # fmt: skip


def test_the_table_has_two_hundred_numbers_of_each_kind_and_for_each_reason() -> None:
    assert len(NUMBERS) >= 200
    assert {refusal for refusal in NUMBERS.values() if refusal is not None} == ABOUT_THE_NUMBER
    kinds = {classify(number, ()).kind for number in NUMBERS}
    assert kinds == set(NumberKind)


ABOUT_THE_NUMBER = {R.COUNTRY, R.NUMBER_KIND, R.EMERGENCY, R.NUMBER_INVALID, R.OWN_NUMBER}
OTHERS = {
    *(R.DO_NOT_CALL, R.NO_CONSENT, R.CALLED_NOW, R.AT_CAPACITY, R.NUMBER_CAP, R.DAY_CAP, R.HOURS),
    *(R.NO_TIME_ZONE, R.NOT_ENABLED),
}


def test_every_refusal_is_in_a_table_of_this_file() -> None:
    assert set(Refusal) == ABOUT_THE_NUMBER | OTHERS


@pytest.mark.parametrize("number", NUMBERS)
def test_each_number_is_dialed_or_refused_for_its_reason(number: str) -> None:
    found = decide(number, Purpose.SERVICE, NOON, POLICY, CalleeFacts())
    assert found.code is NUMBERS[number], found
    assert found.allowed or (found.reason[0].isupper() and "\n" not in found.reason)


def test_a_kind_that_costs_is_dialed_where_it_was_allowed() -> None:
    numbers = replace(POLICY.numbers, costly=frozenset({NumberKind.SHARED_COST}))
    policy = replace(POLICY, numbers=numbers)
    found = decide("+491801234567", Purpose.SERVICE, NOON, policy, CalleeFacts())
    assert found.allowed


def test_no_country_means_nobody_unless_any_is_said() -> None:
    nowhere = replace(POLICY, numbers=DialPolicy())
    found = decide("+14155550123", Purpose.SERVICE, NOON, nowhere, CalleeFacts())
    assert found.code is Refusal.COUNTRY
    anywhere = replace(nowhere, any_country=True)
    assert decide("+33142685300", Purpose.SERVICE, NOON, anywhere, CalleeFacts()).allowed
    premium = decide("+19005550123", Purpose.SERVICE, NOON, anywhere, CalleeFacts())
    assert premium.code is Refusal.NUMBER_KIND


@pytest.mark.parametrize(
    ("changes", "purpose", "code"),
    [
        ({}, Purpose.SERVICE, None),
        ({"do_not_call": True}, Purpose.SERVICE, Refusal.DO_NOT_CALL),
        ({"do_not_call": True, "has_consent": True}, Purpose.MARKETING, Refusal.DO_NOT_CALL),
        ({}, Purpose.MARKETING, Refusal.NO_CONSENT),
        ({"has_consent": True}, Purpose.MARKETING, None),
        ({"live_calls": 1}, Purpose.SERVICE, Refusal.CALLED_NOW),
        ({"calls_today": 2}, Purpose.SERVICE, None),
        ({"calls_today": 3}, Purpose.SERVICE, Refusal.NUMBER_CAP),
        ({"all_calls_today": 499}, Purpose.SERVICE, None),
        ({"all_calls_today": 500}, Purpose.SERVICE, Refusal.DAY_CAP),
        ({"all_live_calls": 9}, Purpose.SERVICE, None),
        ({"all_live_calls": 10}, Purpose.SERVICE, Refusal.AT_CAPACITY),
    ],
)
def test_each_fact_about_a_callee(
    changes: dict[str, Any], purpose: Purpose, code: Refusal | None
) -> None:
    found = decide("+14155550123", purpose, NOON, POLICY, CalleeFacts(**changes))
    assert found.code is code


@pytest.mark.parametrize(
    ("number", "utc", "allowed"),
    [
        ("+14155550123", "15:59", False),  # Los Angeles: 7:59
        ("+14155550123", "16:00", True),
        ("+14155550123", "04:59", True),  # 20:59 of the day before
        ("+14155550123", "05:00", False),
        ("+12125550123", "13:00", True),  # New York: 8:00
        ("+12125550123", "02:00", False),
        ("+4930123456", "07:00", True),  # Berlin: 8:00
        ("+4930123456", "06:59", False),
        ("+4930123456", "20:00", False),
        # Mobile numbers of a country with several zones: inside in all of them.
        ("+5511912345678", "12:00", True),
        ("+61412345678", "22:15", False),  # Perth: 6:15, Sydney: 9:15
        # Freephone numbers of North America: from Guam to St. John's at once.
        ("+18005550123", "17:30", False),
    ],
)
def test_people_are_called_between_eight_and_nine_in_the_evening_where_they_are(
    number: str, utc: str, allowed: bool
) -> None:
    check_hours(number, f"2026-11-30T{utc}", allowed)


def check_hours(number: str, utc: str, allowed: bool) -> None:
    now = datetime.fromisoformat(utc).replace(tzinfo=UTC)
    anywhere = replace(POLICY, numbers=DialPolicy(), any_country=True)
    found = decide(number, Purpose.SERVICE, now, anywhere, CalleeFacts())
    assert found.allowed is allowed, found
    assert allowed or found.code is Refusal.HOURS
    if found.not_before is not None:
        later = decide(number, Purpose.SERVICE, found.not_before, anywhere, CalleeFacts())
        assert later.allowed
        assert found.not_before.minute % 15 == 0 and not found.not_before.second
        before = found.not_before - timedelta(minutes=15)
        if before > now:
            assert not decide(number, Purpose.SERVICE, before, anywhere, CalleeFacts()).allowed


LOS_ANGELES, BERLIN, SYDNEY, SAO_PAULO = (
    "+14155550123",
    "+4930123456",
    "+61291234567",
    "+551132345678",
)
KOLKATA, ST_JOHNS, KATHMANDU, ADELAIDE = (
    "+919812345678",
    "+17097221234",
    "+97715353535",
    "+61881234567",
)
TEHRAN, PHOENIX, MOBILE_IN_AUSTRALIA = "+982112345678", "+16025550123", "+61412345678"


@pytest.mark.parametrize(
    ("number", "utc", "allowed"),
    [
        # The clocks of Los Angeles go forward on 8 March, those of Berlin on 29 March.
        (LOS_ANGELES, "2026-03-07T15:30", False),
        (LOS_ANGELES, "2026-03-07T16:00", True),
        (LOS_ANGELES, "2026-03-08T14:59", False),
        (LOS_ANGELES, "2026-03-08T15:00", True),
        (LOS_ANGELES, "2026-03-09T03:59", True),
        (LOS_ANGELES, "2026-03-09T04:00", False),
        (BERLIN, "2026-03-28T06:59", False),
        (BERLIN, "2026-03-28T07:00", True),
        (BERLIN, "2026-03-29T05:59", False),
        (BERLIN, "2026-03-29T06:00", True),
        # And back on 1 November and 25 October: an hour comes twice, in the night.
        (LOS_ANGELES, "2026-10-31T15:00", True),
        (LOS_ANGELES, "2026-11-01T15:59", False),
        (LOS_ANGELES, "2026-11-01T16:00", True),
        (LOS_ANGELES, "2026-11-02T04:59", True),
        (LOS_ANGELES, "2026-11-02T05:00", False),
        (BERLIN, "2026-10-25T06:59", False),
        (BERLIN, "2026-10-25T07:00", True),
        # The southern summer begins on 4 October; Phoenix and São Paulo change nothing.
        (SYDNEY, "2026-10-03T22:00", True),
        (SYDNEY, "2026-10-02T21:59", False),
        (SYDNEY, "2026-10-03T21:00", True),
        (PHOENIX, "2026-03-08T14:59", False),
        (PHOENIX, "2026-03-08T15:00", True),
        (PHOENIX, "2026-03-07T15:00", True),
        (SAO_PAULO, "2026-01-15T10:59", False),
        (SAO_PAULO, "2026-01-15T11:00", True),
        # Zones that are a half or a quarter of an hour apart from the others.
        (KOLKATA, "2026-06-01T02:29", False),
        (KOLKATA, "2026-06-01T02:30", True),
        (KOLKATA, "2026-06-01T15:29", True),
        (KOLKATA, "2026-06-01T15:30", False),
        (KATHMANDU, "2026-06-01T02:14", False),
        (KATHMANDU, "2026-06-01T02:15", True),
        (TEHRAN, "2026-06-01T04:29", False),
        (TEHRAN, "2026-06-01T04:30", True),
        # Prefixes of several zones: within the hours in all of them. Halifax and St. John's, which
        # is half an hour ahead; Perth and Adelaide; and of mobiles in Australia eight, from Cocos
        # to Lord Howe.
        (ST_JOHNS, "2026-01-15T11:59", False),
        (ST_JOHNS, "2026-01-15T12:00", True),
        (ST_JOHNS, "2026-07-15T11:00", True),
        (ST_JOHNS, "2026-01-15T00:29", True),
        (ST_JOHNS, "2026-01-15T00:30", False),
        (ADELAIDE, "2026-07-15T23:59", False),
        (ADELAIDE, "2026-07-15T00:00", True),
        (ADELAIDE, "2026-07-15T11:29", True),
        (ADELAIDE, "2026-07-15T11:30", False),
        (ADELAIDE, "2026-01-15T10:30", False),
        (MOBILE_IN_AUSTRALIA, "2026-01-15T01:29", False),
        (MOBILE_IN_AUSTRALIA, "2026-01-15T01:30", True),
        (MOBILE_IN_AUSTRALIA, "2026-01-15T09:59", True),
        (MOBILE_IN_AUSTRALIA, "2026-01-15T10:00", False),
        (MOBILE_IN_AUSTRALIA, "2026-07-15T10:00", True),
    ],
)
def test_hours_follow_the_clocks_where_the_callee_is(number: str, utc: str, allowed: bool) -> None:
    check_hours(number, utc, allowed)


def test_a_zone_that_the_order_gives_outranks_the_prefix() -> None:
    early = datetime(2026, 11, 30, 14, 0, tzinfo=UTC)  # 6:00 in Los Angeles, 9:00 in New York
    moved = "America/New_York"
    facts = CalleeFacts()
    assert not decide("+14155550123", Purpose.SERVICE, early, POLICY, facts).allowed
    assert decide("+14155550123", Purpose.SERVICE, early, POLICY, facts, moved).allowed


def test_hours_may_end_with_the_day() -> None:
    late = datetime(2026, 11, 30, 22, 59, tzinfo=UTC)  # 23:59 in Berlin
    policy = replace(POLICY, hours=CallingHours(time(8), time.max))
    assert decide("+4930123456", Purpose.SERVICE, late, policy, CalleeFacts()).allowed


def test_a_server_that_was_not_enabled_says_how_to_enable_it() -> None:
    off = replace(POLICY, enabled=False)
    found = decide("+14155550123", Purpose.SERVICE, NOON, off, CalleeFacts())
    assert found.code is Refusal.NOT_ENABLED
    assert "outbound.enabled" in found.reason
