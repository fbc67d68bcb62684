"""TwiML documents, webhook forms and status reports."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twilio.twiml.voice_response import VoiceResponse

from app.carrier.base import CallDirection, CallProgress, CarrierCallId, IncomingCall
from app.carrier.twilio.http import (
    MAX_FORM_BYTES,
    StatusReport,
    append_connect,
    parse_form,
    read_incoming,
    read_status,
    refusal_document,
)
from app.carrier.twilio.transfer import Site, return_document
from app.errors import LocalProtocolError, RemoteProtocolError, SignatureError

FORM = {
    "CallSid": "CA1",
    "AccountSid": "AC1",
    "From": "+15551230001",
    "To": "+15551230002",
    "CallStatus": "ringing",
    "Direction": "inbound",
}
SITE = Site(base_url="https://voice.example.com", stream_path="/media", lost_message="We lost you.")
NASTY = '"/><Dial>+19005550000</Dial><Say a="'


def tree(document: str) -> ET.Element:
    assert document.startswith('<?xml version="1.0" encoding="UTF-8"?>')
    return ET.fromstring(document)


def verbs(document: str) -> list[str]:
    return [element.tag for element in tree(document).iter()]


def test_connect_hands_the_call_over_and_always_ends_in_words() -> None:
    root = tree(return_document(SITE, "t.o-k_en"))
    assert [verb.tag for verb in root] == ["Connect", "Say", "Hangup"]
    stream = root.find("Connect/Stream")
    assert stream is not None
    assert stream.attrib == {"url": "wss://voice.example.com/media"}
    parameters = [parameter.attrib for parameter in stream]
    assert parameters == [{"name": "token", "value": "t.o-k_en"}]
    assert root.findtext("Say") == "We lost you."


def test_sentences_have_the_configured_voice() -> None:
    site = replace(SITE, voice="Polly.Joanna", language="en-GB")
    said = tree(return_document(site, "t")).find("Say")
    assert said is not None
    assert said.attrib == {"voice": "Polly.Joanna", "language": "en-GB"}


def test_connect_without_words_still_has_a_verb_after_it() -> None:
    assert verbs(return_document(replace(SITE, lost_message=""), "t")) == [
        "Response", "Connect", "Stream", "Parameter", "Hangup",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "url", ["https://h/m", "wss://", "h/m", "", "wss://h/m?token=x", "wss://h/m#x"]
)
def test_a_stream_address_that_twilio_would_not_call_is_our_error(url: str) -> None:
    with pytest.raises(LocalProtocolError):
        append_connect(VoiceResponse(), url, "t")


def test_a_parameter_longer_than_twilio_carries_is_our_error() -> None:
    return_document(SITE, "t" * 494)
    with pytest.raises(LocalProtocolError):
        return_document(SITE, "t" * 495)


def test_a_refusal_is_polite_or_a_busy_tone() -> None:
    assert verbs(refusal_document("All lines are taken.")) == ["Response", "Say", "Hangup"]
    busy = tree(refusal_document("not heard", busy=True))
    assert [(verb.tag, verb.attrib) for verb in busy] == [("Reject", {"reason": "busy"})]


def test_words_cannot_become_verbs() -> None:
    assert verbs(refusal_document(NASTY)) == ["Response", "Say", "Hangup"]
    assert tree(refusal_document(NASTY)).findtext("Say") == NASTY
    assert verbs(return_document(replace(SITE, lost_message=NASTY), NASTY)) == [
        "Response", "Connect", "Stream", "Parameter", "Say", "Hangup",
    ]  # fmt: skip


@given(st.text())
def test_any_words_make_a_document_that_parses(words: str) -> None:
    assert set(verbs(refusal_document(words))) <= {"Response", "Say", "Hangup"}
    document = return_document(replace(SITE, lost_message=words), words[:400])
    assert "Parameter" in verbs(document)


def test_a_form_keeps_order_repetition_and_empty_fields() -> None:
    assert parse_form(b"b=1&a=%2B2&b=&c") == [("b", "1"), ("a", "+2"), ("b", ""), ("c", "")]
    assert parse_form("q=%C3%A9") == [("q", "é")]
    assert parse_form(b"") == []


@pytest.mark.parametrize("body", [b"a=%ff", b"a=\xff", b"a" * (MAX_FORM_BYTES + 1), b"a=1&" * 301])
def test_a_form_that_cannot_be_read_is_refused(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_form(body)


@given(st.binary(max_size=200))
def test_any_body_is_read_or_refused(body: bytes) -> None:
    try:
        form = parse_form(body)
        read_incoming(form)
    except RemoteProtocolError:
        return
    raise AssertionError("random bytes became a call")


def test_an_incoming_call_is_read() -> None:
    assert read_incoming(FORM) == IncomingCall(
        carrier_call_id=CarrierCallId("CA1"),
        account_id="AC1",
        caller_number="+15551230001",
        called_number="+15551230002",
        ringing=True,
    )
    pairs = [*FORM.items(), ("ForwardedFrom", "+15551230003"), ("SipHeader_X-A", "a b\n")]
    assert read_incoming(pairs) == read_incoming(FORM)


@pytest.mark.parametrize(
    ("caller", "read"),
    [
        ("anonymous", "anonymous"),
        ("", "anonymous"),
        ("+266696687", "anonymous"),
        ("No Caller ID", "anonymous"),
        ("sip:alice@example.com;transport=tls", "sip:alice@example.com;transport=tls"),
        ("client:operator_1", "client:operator_1"),
        ("sip:Anonymous@anonymous.invalid", "anonymous"),
        ("Restricted", "anonymous"),
    ],
)
def test_callers_without_a_plain_number_are_calls_too(caller: str, read: str) -> None:
    assert read_incoming({**FORM, "From": caller}).caller_number == read


@pytest.mark.parametrize(
    ("level", "verified"),
    [
        ("TN-Validation-Passed-A", True),
        ("TN-Validation-Passed-B", False),
        ("TN-Validation-Passed-C", False),
        ("TN-Validation-Failed-A", False),
        ("No-TN-Validation", False),
        ("tn-validation-passed-a", False),
        ("", False),
        (None, False),
    ],
)
def test_a_number_is_verified_only_where_the_network_vouches_for_it(
    level: str | None, verified: bool
) -> None:
    form = FORM if level is None else {**FORM, "StirVerstat": level}
    assert read_incoming(form).caller_verified is verified


def test_a_call_of_an_unknown_direction_is_answered() -> None:
    for direction in ("", "trunking-terminating", "sideways"):
        call = read_incoming({**FORM, "Direction": direction})
        assert call.direction is CallDirection.INBOUND
        assert call.caller_number == FORM["From"]


def test_of_a_call_that_we_dialed_the_caller_is_whom_we_dialed() -> None:
    for direction in ("outbound-api", "outbound-dial"):
        form = {"Direction": direction, "From": FORM["To"], "To": FORM["From"]}
        vouched = {"StirVerstat": "TN-Validation-Passed-A"}
        call = read_incoming({**FORM, **form, **vouched})
        assert call.direction is CallDirection.OUTBOUND
        assert (call.caller_number, call.called_number) == (FORM["From"], FORM["To"])
        assert not call.caller_verified
        with pytest.raises(RemoteProtocolError, match="From"):
            read_incoming({**FORM, **form, "From": ""})


@pytest.mark.parametrize("name", ["CallSid", "AccountSid", "From", "To"])
def test_a_call_without_its_fields_is_refused(name: str) -> None:
    with pytest.raises(RemoteProtocolError, match=name):
        read_incoming({key: value for key, value in FORM.items() if key != name})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CallSid", ""),
        ("CallSid", "CA1/../Accounts"),
        ("CallSid", "CA1\nforged log line"),
        ("CallSid", "CA" + "0" * 63),
        ("AccountSid", "AC 1"),
        ("From", " 15551230001"),  # an unescaped plus
        ("From", "+1555\n{level: error}"),
        ("From", "+" + "1" * 255),
        ("From", "+1\u202e555"),
        ("To", ""),
        ("To", "\x00"),
    ],
)
def test_a_garbled_call_is_refused(name: str, value: str) -> None:
    with pytest.raises(RemoteProtocolError):
        read_incoming({**FORM, name: value})


def test_a_field_given_twice_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="two fields From"):
        read_incoming([*FORM.items(), ("From", "+15559990000")])


def test_a_call_of_another_account_is_not_ours() -> None:
    assert read_incoming(FORM, expect_account="AC1")
    for read in (read_incoming, read_status):
        with pytest.raises(SignatureError) as caught:
            read(FORM, expect_account="AC2")
        assert caught.value.code == "wrong_account"


def test_a_status_report_is_read() -> None:
    form = {**FORM, "CallStatus": "completed", "SequenceNumber": "3", "CallDuration": "61"}
    assert read_status(form) == StatusReport(
        carrier_call_id=CarrierCallId("CA1"),
        progress=CallProgress.COMPLETED,
        sequence=3,
        duration_s=61,
    )
    report = read_status(FORM)
    assert (report.progress, report.sequence, report.duration_s) == ("ringing", None, None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CallStatus", ""),
        ("CallStatus", "asleep"),
        ("SequenceNumber", "-1"),
        ("SequenceNumber", "1.0"),
        ("CallDuration", "\u0663"),
        ("CallDuration", "1" * 10),
        ("CallSid", "?"),
    ],
)
def test_a_garbled_status_report_is_refused(name: str, value: str) -> None:
    with pytest.raises(RemoteProtocolError):
        read_status({**FORM, name: value})
