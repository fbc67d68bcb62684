"""Destinations that may be dialed, keyed and texted."""

from __future__ import annotations

import pytest

from app.carrier.base import CallerIdPolicy, Destination, DestinationKind
from app.carrier.destinations import (
    MAX_SMS_CHARS,
    TO_CALLER,
    DestinationOptions,
    Destinations,
    destination,
    digits_fault,
    sms_fault,
)
from app.carrier.number_policy import DialPolicy
from app.errors import CarrierRefused, ConfigError

NUMBER = "+14155550123"


def test_a_number_becomes_a_destination_with_a_name_to_say() -> None:
    assert destination("front_desk", f" {NUMBER} ") == Destination(
        name="front_desk", kind=DestinationKind.NUMBER, address=NUMBER, spoken="front desk"
    )


def test_sip_addresses_and_queues_are_destinations() -> None:
    sip = destination("anna", "SIP:anna@pbx.example.com:5061;transport=tls")
    assert (sip.kind, sip.address) == (
        DestinationKind.SIP,
        "sip:anna@pbx.example.com:5061;transport=tls",
    )
    queue = destination("support", "queue:Support line")
    assert (queue.kind, queue.address) == (DestinationKind.QUEUE, "Support line")


def test_options_are_kept() -> None:
    place = destination(
        "anna",
        NUMBER,
        spoken="Anna",
        caller_id=CallerIdPolicy.CALLER,
        ring_s=30,
        extension="ww12#",
        screened=True,
        detect_voicemail=True,
    )
    assert place.spoken == "Anna"
    assert place.caller_id is CallerIdPolicy.CALLER
    assert (place.ring_s, place.extension) == (30, "ww12#")
    assert place.screened
    assert place.detect_voicemail


@pytest.mark.parametrize(
    ("number", "why"),
    [
        ("+19005550100", "premium"),
        ("+448719000000", "premium"),
        ("+979123456789", "premium"),
        ("+8081234567", "shared-cost"),
        ("+870773123456", "satellite"),
        ("+88161234567", "satellite"),
        ("+8821612345678", "worldwide"),
        ("+883510001234567", "worldwide"),
        ("+447012345678", "personal"),
        ("+4970012345678", "personal"),
        ("911", "emergency"),
        ("4155550123", "whole number"),
        ("+1415555012x", "whole number"),
        ("+1415555", "too short"),
        ("+9990000000", "country code"),
        ("+", "withheld"),
        ("", "withheld"),
        (NUMBER + "\n+19005550100", "whole number"),
    ],
)
def test_costly_and_impossible_numbers_are_refused(number: str, why: str) -> None:
    fault = DialPolicy().fault(number)
    assert fault is not None
    assert why in fault


@pytest.mark.parametrize("number", [NUMBER, "+18005550123", "+15005550006", "+441632960123"])
def test_ordinary_numbers_may_be_called(number: str) -> None:
    assert DialPolicy().fault(number) is None


def test_a_policy_can_name_the_countries_and_the_caribbean_is_not_the_united_states() -> None:
    policy = DialPolicy(regions=frozenset({"US"}))
    assert policy.fault(NUMBER) is None
    assert policy.fault("+15551234567") is None
    assert "(GB)" in (policy.fault("+441632960123") or "")
    assert "(JM)" in (policy.fault("+18765550123") or "")


@pytest.mark.parametrize(
    "target",
    [
        "sip:anna",
        "sip:@pbx.example.com",
        "sip:anna@",
        "sip:anna@pbx.example.com?X-Header=1",
        "sip:anna@pbx.example.com\r\nX: 1",
        "sip:anna@-pbx",
        "sip:+19005550100@trunk.example.com",
        "sip:+19005550100;phone-context=x@trunk.example.com",
        "sip:a@" + "b" * 260,
        "queue:",
        "queue:<Dial>",
        "client:anna",
        "+19005550100",
        "",
    ],
)
def test_unsafe_targets_are_refused(target: str) -> None:
    with pytest.raises(ConfigError, match="destination 'anna'"):
        destination("anna", target)


@pytest.mark.parametrize("name", ["", "Anna", "an na", "a" * 65, "ann@", TO_CALLER, "ä"])
def test_names_are_plain_words(name: str) -> None:
    with pytest.raises(ConfigError):
        destination(name, NUMBER)


@pytest.mark.parametrize(
    ("target", "options"),
    [
        (NUMBER, DestinationOptions(ring_s=4)),
        (NUMBER, DestinationOptions(ring_s=601)),
        (NUMBER, DestinationOptions(extension="12,3")),
        ("sip:anna@pbx.example.com", DestinationOptions(extension="12")),
        ("queue:support", DestinationOptions(screened=True)),
        ("queue:support", DestinationOptions(detect_voicemail=True)),
    ],
)
def test_options_that_do_not_fit_are_refused(target: str, options: DestinationOptions) -> None:
    with pytest.raises(ConfigError):
        destination("anna", target, **options)


def test_all_faults_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        destination("Anna", "+19005550100", ring_s=1)
    for part in ("small letters", "premium", "5 to 600"):
        assert part in caught.value.message


def destinations() -> Destinations:
    return Destinations.of(
        [destination("anna", NUMBER), destination("support", "queue:support")],
    )


def test_a_model_chooses_from_the_names() -> None:
    assert destinations().names == ("anna", "support")
    assert destinations().resolve("anna").address == NUMBER


@pytest.mark.parametrize(
    "said",
    [
        "bob",
        NUMBER,
        "+19005550100",
        "sip:x@evil.example",
        "anna\n",
        "ANNA",
        "",
        None,
        7,
        ["anna"],
        {"name": "anna"},
    ],
)
def test_other_names_from_a_model_are_refused(said: object) -> None:
    with pytest.raises(CarrierRefused) as caught:
        destinations().resolve(said)
    assert caught.value.code == "destination_unknown"


def test_two_destinations_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="twice"):
        Destinations.of([destination("anna", NUMBER), destination("anna", "queue:anna")])


def test_messages_go_to_the_caller_or_to_a_named_number() -> None:
    assert destinations().sms_number(TO_CALLER, "+14155550199") == "+14155550199"
    assert destinations().sms_number("anna", "+14155550199") == NUMBER


def test_messages_go_to_the_number_of_a_caller_from_sip() -> None:
    for caller in ("sip:+14155550199@pbx.example.com", "sip:4155550199@pbx.example.com"):
        assert destinations().sms_number(TO_CALLER, caller, NUMBER) == "+14155550199"


def test_messages_stay_in_our_number_s_country_where_the_policy_names_none() -> None:
    assert destinations().sms_number(TO_CALLER, "+14155550199", NUMBER) == "+14155550199"
    for abroad in ("+447911123456", "+18765550123", "sip:+447911123456@pbx.example.com"):
        with pytest.raises(CarrierRefused, match="that may not be called"):
            destinations().sms_number(TO_CALLER, abroad, NUMBER)


@pytest.mark.parametrize(
    ("name", "caller"),
    [
        (TO_CALLER, "anonymous"),
        (TO_CALLER, "sip:x@evil.example"),
        (TO_CALLER, "+19005550100"),
        ("support", NUMBER),
        ("+19005550100", NUMBER),
    ],
)
def test_messages_go_only_to_callers_and_numbers(name: str, caller: str) -> None:
    with pytest.raises(CarrierRefused):
        destinations().sms_number(name, caller)


@pytest.mark.parametrize("digits", ["1", "0123456789*#", "ww12#WW3"])
def test_tones_are_keys_and_pauses(digits: str) -> None:
    assert digits_fault(digits) is None


@pytest.mark.parametrize(
    "digits", ["", "ww", "12a", "1 2", "1\n", "A", '1"/><Dial>', "1" * 65, "१"]
)
def test_nothing_else_is_a_tone(digits: str) -> None:
    assert digits_fault(digits) is not None


def test_messages_have_a_text_and_an_end() -> None:
    assert sms_fault("Your appointment: Monday at 9.") is None
    assert sms_fault("x" * MAX_SMS_CHARS) is None
    assert sms_fault(" \n") is not None
    assert sms_fault("x" * (MAX_SMS_CHARS + 1)) is not None
