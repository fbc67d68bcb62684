"""The documents of transfers and what their webhooks mean."""

from __future__ import annotations

from dataclasses import replace
from typing import Unpack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.carrier.base import (
    CallerIdPolicy,
    CallProgress,
    CarrierCallId,
    Fallback,
    LegAnswer,
    TransferId,
    TransferOrder,
    TransferOutcome,
)
from app.carrier.destinations import DestinationOptions, destination
from app.carrier.twilio import transfer as documents
from app.carrier.twilio.transfer import Site
from app.carrier.twilio.transfer_reports import (
    AnsweredBy,
    ConferenceEvent,
    ConferenceReport,
    DialReport,
    LegReport,
    Screening,
    dial_result,
    leg_result,
    read_conference,
    read_dial,
    read_keys,
    read_leg,
    read_machine,
    read_queue_wait,
)
from app.dial.twiml import Verb, parse_twiml, stream_of
from app.errors import LocalProtocolError, RemoteProtocolError, SignatureError

SITE = Site(
    base_url="https://voice.example.com/a",
    stream_path="/twilio/media-stream",
    lost_message="Sorry.",
)
ID = TransferId("transfer_1")
OURS = "+15551230002"
CALLER = "+14155550199"
QUERY = "?transfer=transfer_1"
ROUTE = "https://voice.example.com/a/twilio/"


def verbs(document: str) -> tuple[Verb, ...]:
    return parse_twiml(document, "text/xml")


def order(target: str, **options: Unpack[DestinationOptions]) -> TransferOrder:
    place = destination("anna", target, **options)
    return TransferOrder(
        transfer_id=ID,
        carrier_call_id=CarrierCallId("CA1"),
        destination=place,
        caller_number=CALLER,
        our_number=OURS,
    )


def cold(target: str, **options: Unpack[DestinationOptions]) -> tuple[Verb, Verb]:
    [dial] = verbs(documents.transfer_document(order(target, **options), SITE))
    [noun] = dial.children
    return dial, noun


# Documents ----------------------------------------------------------------------------------------


def test_a_cold_transfer_rings_the_number_and_comes_back() -> None:
    dial, noun = cold("+14155550123", ring_s=25)
    assert dial.name == "Dial"
    assert dial.attributes == {
        "action": f"{ROUTE}after-transfer{QUERY}",
        "method": "POST",
        "timeout": "25",
        "callerId": OURS,
        "answerOnBridge": "true",
    }
    assert (noun.name, noun.text, noun.attributes) == ("Number", "+14155550123", {})


def test_the_caller_id_is_a_matter_of_policy() -> None:
    assert cold("+14155550123")[0].attributes["callerId"] == OURS
    shown = cold("+14155550123", caller_id=CallerIdPolicy.CALLER)[0].attributes["callerId"]
    assert shown == CALLER


@pytest.mark.parametrize("caller", ["anonymous", "sip:x@y.example", "client:x", ""])
def test_a_caller_without_a_number_is_shown_as_ours(caller: str) -> None:
    wanted = order("+14155550123", caller_id=CallerIdPolicy.CALLER)
    [dial] = verbs(documents.transfer_document(replace(wanted, caller_number=caller), SITE))
    assert dial.attributes["callerId"] == OURS


@pytest.mark.parametrize(
    ("caller", "shown"),
    [(CALLER, CALLER), ("anonymous", OURS), ("sip:x@y.example", OURS), ("", None)],
)
def test_a_fallback_shows_the_caller_where_there_is_a_number(
    caller: str, shown: str | None
) -> None:
    place = order("+14155550123", caller_id=CallerIdPolicy.CALLER).destination
    fallback = Fallback(to=place, caller_number=caller, our_number=OURS)
    dial = verbs(documents.return_document(SITE, "token", fallback))[2]
    assert dial.attributes.get("callerId") == shown


def test_an_extension_is_keyed_when_the_number_answers() -> None:
    _, noun = cold("+14155550123", extension="ww12")
    assert noun.attributes == {"sendDigits": "ww12"}


def test_a_sip_address_is_dialed_as_it_is() -> None:
    _, noun = cold("sip:anna@pbx.example.com;transport=tls")
    assert (noun.name, noun.text) == ("Sip", "sip:anna@pbx.example.com;transport=tls")


def test_a_screened_person_is_asked_and_a_machine_is_looked_for() -> None:
    for target in ("+14155550123", "sip:anna@pbx.example.com"):
        _, noun = cold(target, screened=True, detect_voicemail=True)
        assert noun.attributes == {
            "url": f"{ROUTE}transfer-screen{QUERY}",
            "method": "POST",
            "machineDetection": "Enable",
            "amdStatusCallback": f"{ROUTE}leg-machine{QUERY}",
            "amdStatusCallbackMethod": "POST",
        }


def test_a_queue_takes_the_caller_and_fetches_the_wait_document() -> None:
    [enqueue] = verbs(documents.transfer_document(order("queue:support"), SITE))
    assert (enqueue.name, enqueue.text) == ("Enqueue", "support")
    assert enqueue.attributes == {
        "action": f"{ROUTE}after-transfer{QUERY}",
        "method": "POST",
        "waitUrl": f"{ROUTE}queue-wait{QUERY}",
    }


def test_a_queue_is_left_when_the_caller_has_waited_long_enough() -> None:
    [pause] = verbs(documents.queue_wait_document(58, 60))
    assert (pause.name, pause.attributes) == ("Pause", {"length": "2"})
    [leave] = verbs(documents.queue_wait_document(60, 60))
    assert leave.name == "Leave"


def test_after_a_transfer_comes_the_agent_or_the_end() -> None:
    [connect, *_] = verbs(documents.after_transfer_document(SITE, "token-2"))
    stream = stream_of(connect)
    assert stream is not None
    assert stream.url == "wss://voice.example.com/a/twilio/media-stream"
    assert stream.parameters == {"token": "token-2"}
    [end] = verbs(documents.after_transfer_document(SITE, None))
    assert end.name == "Hangup"


def test_a_local_server_is_reached_without_tls() -> None:
    site = Site(base_url="http://127.0.0.1:8080/", stream_path="/m", lost_message="")
    assert site.stream_url == "ws://127.0.0.1:8080/m"


def test_tones_are_played_and_the_stream_comes_back() -> None:
    play, connect, say, hang_up = verbs(documents.digits_document("ww12#", SITE, "token-3"))
    assert (play.name, play.attributes) == ("Play", {"digits": "ww12#"})
    stream = stream_of(connect)
    assert stream is not None
    assert stream.parameters == {"token": "token-3"}
    assert (say.name, hang_up.name) == ("Say", "Hangup")


def test_nothing_is_said_after_tones_when_nothing_is_to_be_said() -> None:
    silent = replace(SITE, lost_message=" ")
    names = [verb.name for verb in verbs(documents.digits_document("1", silent, "token-3"))]
    assert names == ["Play", "Connect", "Hangup"]


@pytest.mark.parametrize("digits", ["", "w", "12a", '1"/><Dial>+19005550100</Dial>', "1" * 65])
def test_invalid_tones_make_no_document(digits: str) -> None:
    with pytest.raises(LocalProtocolError):
        documents.digits_document(digits, SITE, "token-3")


def test_a_person_is_asked_twice_and_silence_counts_the_second_time() -> None:
    first, second, end = verbs(documents.whisper_document("A call about a booking.", ID, SITE))
    for gather in (first, second):
        assert gather.name == "Gather"
        assert gather.attributes["action"] == f"{ROUTE}transfer-keys{QUERY}"
        assert gather.attributes["numDigits"] == "1"
        assert gather.attributes["input"] == "dtmf"
        [say] = gather.children
        assert say.text == f"A call about a booking. {SITE.keys_hint}"
    assert "actionOnEmptyResult" not in first.attributes
    assert second.attributes["actionOnEmptyResult"] == "true"
    assert end.name == "Hangup"


@given(st.text(max_size=9_000))
def test_any_summary_fits_into_a_request_and_stays_text(summary: str) -> None:
    document = documents.whisper_document(summary, ID, SITE)
    assert len(document) <= documents.MAX_TWIML_CHARS
    assert [verb.name for verb in verbs(document)] == ["Gather", "Gather", "Hangup"]
    assert SITE.keys_hint in document


def test_a_long_summary_is_cut_between_words() -> None:
    document = documents.whisper_document("wordy " * 2_000, ID, SITE)
    [say] = verbs(document)[0].children
    assert say.text.endswith(f"wordy {SITE.keys_hint}")
    assert len(document) > documents.MAX_TWIML_CHARS * 0.7


def test_a_question_that_fits_into_no_request_is_ours_to_mend() -> None:
    with pytest.raises(LocalProtocolError, match="fit"):
        documents.whisper_document("A call.", ID, replace(SITE, keys_hint="x" * 4_000))


def test_both_ends_of_a_warm_transfer_meet_in_one_room() -> None:
    [theirs] = verbs(documents.answer_document(LegAnswer.JOIN, ID, SITE))
    [ours] = verbs(documents.join_document(ID, SITE))
    [person], [caller] = theirs.children, ours.children
    assert person.text == caller.text == documents.conference_name(ID)
    assert "action" not in theirs.attributes
    assert ours.attributes["action"] == f"{ROUTE}after-transfer{QUERY}"
    assert (person.attributes["participantLabel"], caller.attributes["participantLabel"]) == (
        "person",
        "caller",
    )
    for noun in (person, caller):
        assert noun.attributes["startConferenceOnEnter"] == "true"
        assert noun.attributes["endConferenceOnExit"] == "true"
        assert noun.attributes["beep"] == "false"
        assert noun.attributes["waitUrl"] == ""
        assert noun.attributes["statusCallback"] == f"{ROUTE}conference{QUERY}"


def test_answers_to_keys() -> None:
    for answer in (LegAnswer.DECLINE, LegAnswer.TOO_LATE):
        [end] = verbs(documents.answer_document(answer, ID, SITE))
        assert end.name == "Hangup"
    # <Dial> may not stand in the document of a screened person: an empty one connects.
    assert verbs(documents.answer_document(LegAnswer.CONNECT, ID, SITE)) == ()


@pytest.mark.parametrize("bad", ["", "short", "x" * 65, "a&b=cdefgh", "transfer 1"])
def test_ids_that_do_not_fit_an_address_are_ours_to_mend(bad: str) -> None:
    with pytest.raises(LocalProtocolError):
        SITE.url("/x", TransferId(bad))


# Forms --------------------------------------------------------------------------------------------

BASE = [("AccountSid", "AC1"), ("CallSid", "CA1")]


def test_the_end_of_a_dial_is_read() -> None:
    form = [
        *BASE,
        ("CallStatus", "in-progress"),
        ("DialCallStatus", "busy"),
        ("DialCallDuration", "0"),
        ("DialSipResponseCode", "486"),
        ("DialCallSid", "CA2"),
    ]
    assert read_dial(form, expect_account="AC1") == DialReport(
        carrier_call_id=CarrierCallId("CA1"), status="busy", sip_code=486, duration_s=0
    )


def test_the_end_of_a_queue_is_read() -> None:
    form = [*BASE, ("CallStatus", "in-progress"), ("QueueResult", "leave"), ("QueueTime", "61")]
    assert read_dial(form) == DialReport(
        carrier_call_id=CarrierCallId("CA1"), status="leave", queued=True, duration_s=61
    )


@pytest.mark.parametrize("status", ["completed", "canceled", "no-answer"])
def test_a_caller_who_is_gone_is_seen(status: str) -> None:
    assert read_dial([*BASE, ("CallStatus", status), ("DialCallStatus", "canceled")]).caller_gone


def test_a_caller_who_hangs_up_in_the_queue_is_gone() -> None:
    assert read_dial([*BASE, ("QueueResult", "hangup")]).caller_gone


@pytest.mark.parametrize(
    "extra",
    [
        [],
        [("DialCallStatus", "")],
        [("DialCallStatus", "busy"), ("DialCallStatus", "completed")],
        [("DialCallStatus", "busy now")],
        [("DialCallStatus", "busy"), ("CallStatus", "asleep")],
        [("DialCallStatus", "busy"), ("DialSipResponseCode", "4x")],
        [("QueueResult", "<x>")],
    ],
)
def test_garbled_ends_are_refused(extra: list[tuple[str, str]]) -> None:
    with pytest.raises(RemoteProtocolError):
        read_dial([*BASE, *extra])


def test_reports_of_another_account_are_refused() -> None:
    for reader in (read_dial, read_leg, read_keys, read_machine, read_conference, read_queue_wait):
        with pytest.raises(SignatureError):
            reader([*BASE, ("DialCallStatus", "busy")], expect_account="AC2")


def test_a_legs_progress_is_read() -> None:
    form = [*BASE, ("CallStatus", "failed"), ("SipResponseCode", "404")]
    assert read_leg(form) == LegReport(
        leg_id=CarrierCallId("CA1"), progress=CallProgress.FAILED, sip_code=404
    )
    for bad in ([*BASE], [*BASE, ("CallStatus", "asleep")]):
        with pytest.raises(RemoteProtocolError):
            read_leg(bad)


def test_keys_are_read() -> None:
    assert read_keys([*BASE, ("Digits", "1")]).digits == "1"
    assert read_keys(BASE).digits == ""
    with pytest.raises(RemoteProtocolError):
        read_keys([*BASE, ("Digits", "one")])


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("human", AnsweredBy.HUMAN),
        ("machine_start", AnsweredBy.MACHINE),
        ("machine_end_beep", AnsweredBy.MACHINE),
        ("fax", AnsweredBy.MACHINE),
        ("unknown", AnsweredBy.UNKNOWN),
        ("", AnsweredBy.UNKNOWN),
    ],
)
def test_the_detectors_verdict_is_read(said: str, meant: AnsweredBy) -> None:
    assert read_machine([*BASE, ("AnsweredBy", said)]).answered_by is meant


def test_events_of_a_conference_are_read() -> None:
    form = [*BASE, ("StatusCallbackEvent", "participant-join"), ("ParticipantLabel", "caller")]
    assert read_conference(form) == ConferenceReport(
        event=ConferenceEvent.JOINED, label="caller", leg_id=CarrierCallId("CA1")
    )
    end = [("AccountSid", "AC1"), ("StatusCallbackEvent", "conference-end")]
    assert read_conference(end) == ConferenceReport(event=ConferenceEvent.ENDED)
    odd = [("AccountSid", "AC1"), ("StatusCallbackEvent", "x"), ("ParticipantLabel", "<x>")]
    assert read_conference(odd) == ConferenceReport(event=ConferenceEvent.OTHER)


def test_the_wait_in_a_queue_is_read() -> None:
    assert read_queue_wait([*BASE, ("QueueTime", "12")]) == 12
    assert read_queue_wait(BASE) == 0


# Outcomes -----------------------------------------------------------------------------------------


def dialed(
    status: str,
    *,
    queued: bool = False,
    bridged: bool = True,
    caller_gone: bool = False,
    sip_code: int | None = None,
) -> DialReport:
    return DialReport(
        carrier_call_id=CarrierCallId("CA1"),
        status=status,
        queued=queued,
        bridged=bridged,
        caller_gone=caller_gone,
        sip_code=sip_code,
    )


@pytest.mark.parametrize(
    ("report", "screening", "outcome"),
    [
        (dialed("completed"), None, TransferOutcome.ANSWERED),
        (dialed("answered"), None, TransferOutcome.ANSWERED),
        (dialed("completed"), Screening.ACCEPTED, TransferOutcome.ANSWERED),
        (dialed("completed", caller_gone=True), None, TransferOutcome.ANSWERED),
        (dialed("busy"), None, TransferOutcome.BUSY),
        (dialed("busy", sip_code=603), None, TransferOutcome.DECLINED),
        (dialed("no-answer"), None, TransferOutcome.NO_ANSWER),
        (dialed("failed"), None, TransferOutcome.FAILED),
        (dialed("failed", sip_code=480), None, TransferOutcome.NO_ANSWER),
        (dialed("failed", sip_code=500), None, TransferOutcome.FAILED),
        (dialed("canceled", caller_gone=True), None, TransferOutcome.CANCELED),
        (dialed("no-answer", caller_gone=True), None, TransferOutcome.CANCELED),
        (dialed("something-new"), None, TransferOutcome.FAILED),
        (dialed("completed", bridged=False), None, TransferOutcome.DECLINED),
        (dialed("completed", bridged=False), Screening.DECLINED, TransferOutcome.DECLINED),
        (dialed("no-answer"), Screening.DECLINED, TransferOutcome.DECLINED),
        (dialed("completed", bridged=False), Screening.NO_KEY, TransferOutcome.VOICEMAIL),
        (dialed("completed"), Screening.MACHINE, TransferOutcome.VOICEMAIL),
        (dialed("bridged", queued=True), None, TransferOutcome.ANSWERED),
        (dialed("leave", queued=True), None, TransferOutcome.NO_ANSWER),
        (dialed("queue-full", queued=True), None, TransferOutcome.BUSY),
        (dialed("hangup", queued=True, caller_gone=True), None, TransferOutcome.CANCELED),
        (dialed("system-error", queued=True), None, TransferOutcome.FAILED),
    ],
)
def test_a_cold_transfer_ends_in_one_of_the_typed_outcomes(
    report: DialReport, screening: Screening | None, outcome: TransferOutcome
) -> None:
    result = dial_result(report, screening)
    assert result.outcome is outcome
    assert report.status in result.evidence


@pytest.mark.parametrize(
    ("progress", "sip_code", "outcome"),
    [
        (CallProgress.BUSY, None, TransferOutcome.BUSY),
        (CallProgress.BUSY, 603, TransferOutcome.DECLINED),
        (CallProgress.NO_ANSWER, 487, TransferOutcome.NO_ANSWER),
        (CallProgress.FAILED, 404, TransferOutcome.FAILED),
        (CallProgress.COMPLETED, 200, TransferOutcome.DECLINED),
        (CallProgress.CANCELED, None, TransferOutcome.CANCELED),
    ],
)
def test_a_leg_that_ends_early_says_why(
    progress: CallProgress, sip_code: int | None, outcome: TransferOutcome
) -> None:
    report = LegReport(leg_id=CarrierCallId("CA2"), progress=progress, sip_code=sip_code)
    assert leg_result(report).outcome is outcome
