"""Callers who withhold their number, in every spelling, and callers who do not."""

from __future__ import annotations

import phonenumbers
import pytest

from app.carrier.base import CallerIdPolicy, Destination, DestinationKind, Fallback
from app.carrier.destinations import TO_CALLER, Destinations
from app.carrier.twilio.forward import forward_document
from app.carrier.twilio.http import read_incoming
from app.carrier.withheld import ANONYMOUS, is_withheld
from app.errors import CarrierRefused

SPELLED = {
    "ANONYMOUS": "266696687",
    "RESTRICTED": "7378742833",
    "BLOCKED": "2562533",
    "UNKNOWN": "8656696",
    "UNAVAILABLE": "86282452253",
    "PRIVATE": "7748283",
    "WITHHELD": "94844353",
}
"""As Twilio lists them, and their like."""

SAID = [
    "",
    " ",
    "anonymous",
    "Anonymous",
    "ANONYMOUS",
    "unknown",
    "Unavailable",
    "restricted",
    "private",
    "Private Number",
    "private-number",
    "blocked",
    "No Caller ID",
    "sip:anonymous@anonymous.invalid",
    "sip:anonymous@198.51.100.7",
    "sips:Anonymous@example.com:5061;transport=tls",
    "sip:unknown@pbx.example.com",
    "sip:restricted@pbx.example.com;user=phone",
    "sip:c8oqz84zk7z@Anonymous.Invalid",
    "sip:+266696687@trunk.example.com",
    "tel:+266696687",
    "anonymous@anonymous.invalid",
    "client:anonymous",
    "client:Anonymous",
    *(
        prefix + number
        for number in SPELLED.values()
        for prefix in ("", "+", "1", "+1", "00", "001", "011")
    ),
]
TOLD = [
    "+15551230001",
    "15551230001",
    "+12665550123",
    "+4930123456",
    "+26622312345",  # Lesotho
    "+256414123456",  # Uganda
    "+862824522531",  # Chengdu
    "+17372345678",  # Austin
    "55123",
    "sip:alice@example.com",
    "sip:alice@anonymous.example.com",
    "sip:15551230001@pbx.example.com",
    "client:operator_1",
    "client:unknown_7",
]


@pytest.mark.parametrize("address", SAID)
def test_a_withheld_number_is_known_as_one_in_every_spelling(address: str) -> None:
    assert is_withheld(address)
    form = {"CallSid": "CA1", "AccountSid": "AC1", "From": address, "To": "+15550001111"}
    assert read_incoming(form).caller_number == ANONYMOUS


@pytest.mark.parametrize("address", TOLD)
def test_a_number_that_is_told_is_no_withheld_one(address: str) -> None:
    assert not is_withheld(address)


@pytest.mark.parametrize("number", SPELLED.values())
def test_what_is_spelled_is_the_number_of_nobody(number: str) -> None:
    parsed = phonenumbers.parse("+" + number, None)
    assert not phonenumbers.is_valid_number(parsed)


@pytest.mark.parametrize("address", SAID)
def test_a_withheld_number_is_neither_texted_nor_shown(address: str) -> None:
    form = {"CallSid": "CA1", "AccountSid": "AC1", "From": address, "To": "+15550001111"}
    caller = read_incoming(form).caller_number
    for number in (address, caller):
        with pytest.raises(CarrierRefused, match="withholds"):
            Destinations().sms_number(TO_CALLER, number)
    reception = Destination(
        name="reception",
        kind=DestinationKind.NUMBER,
        address="+14155550123",
        caller_id=CallerIdPolicy.CALLER,
    )
    fallback = Fallback(to=reception, caller_number=caller, our_number="+15550001111")
    assert 'callerId="+15550001111"' in forward_document(fallback, "", voice=None, language=None)
