"""Each REST request against a stand-in that takes what Twilio's own document takes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx2
import pytest
from twilio.http.http_client import TwilioHttpClient

from app.carrier.base import CarrierCallId, LegOrder, TransferId, TransferOrder
from app.carrier.destinations import destination
from app.carrier.twilio.control import TwilioControl
from app.carrier.twilio.rest import TwilioRest
from app.carrier.twilio.transfer import (
    MAX_TWIML_CHARS,
    Site,
    digits_document,
    join_document,
    return_document,
    transfer_document,
    whisper_document,
)
from app.errors import CarrierRefused, CarrierUnavailable
from tests.fakes.twilio_rest import ApiRequest, TwilioApi

SITE = Site(base_url="https://voice.example.com", stream_path="/m", lost_message="Sorry.")
OURS = "+15551230002"
CALL = CarrierCallId("CA" + "a" * 32)
GONE = CarrierCallId("CA" + "b" * 32)
ID = TransferId("transfer_1")
ANNA = destination("anna", "+14155550123", extension="w1", detect_voicemail=True, ring_s=15)
COLD = TransferOrder(
    transfer_id=ID,
    carrier_call_id=CALL,
    destination=ANNA,
    caller_number="+14155550199",
    our_number=OURS,
)
WARM = LegOrder(transfer_id=ID, destination=ANNA, our_number=OURS, prompt="A call.")


@asynccontextmanager
async def account(
    site: Site = SITE, *, timeout_s: float = 5.0, first_delay_s: float = 0.0
) -> AsyncIterator[tuple[TwilioApi, TwilioControl]]:
    async with TwilioApi(numbers=[{"phone_number": OURS}]) as api:
        api.add_call(CALL)
        rest = TwilioRest(
            api.account_sid,
            api.auth_token,
            base_url=api.url,
            timeout_s=timeout_s,
            first_delay_s=first_delay_s,
        )
        control = TwilioControl(rest, lambda: site)
        try:
            yield api, control
        finally:
            await control.aclose()


def only(api: TwilioApi) -> ApiRequest:
    [request] = api.requests
    return request


# Exact parameters ---------------------------------------------------------------------------------


async def test_a_cold_transfer_gives_the_call_a_new_document() -> None:
    async with account() as (api, control):
        await control.transfer(COLD)
    assert only(api) == ApiRequest(
        method="POST", path=f"/Calls/{CALL}", form=[("Twiml", transfer_document(COLD, SITE))]
    )
    assert [verb.name for verb in api.calls[CALL].verbs] == ["Dial"]


async def test_a_leg_is_placed_with_its_document_reports_and_detector() -> None:
    async with account() as (api, control):
        leg_id = await control.place_leg(WARM)
        assert api.calls[leg_id].status == "queued"
    request = only(api)
    assert (request.method, request.path) == ("POST", "/Calls")
    assert request.fields == {
        "To": "+14155550123",
        "From": OURS,
        "Twiml": whisper_document("A call.", ID, SITE),
        "Timeout": "15",
        "SendDigits": "w1",
        "StatusCallback": SITE.url(SITE.paths.leg, ID),
        "StatusCallbackMethod": "POST",
        "StatusCallbackEvent": ["initiated", "ringing", "answered", "completed"],
        "MachineDetection": "Enable",
        "AsyncAmd": "true",
        "AsyncAmdStatusCallback": SITE.url(SITE.paths.machine, ID),
        "AsyncAmdStatusCallbackMethod": "POST",
    }


async def test_a_leg_without_detector_and_extension_says_nothing_of_them() -> None:
    plain = LegOrder(
        transfer_id=ID,
        destination=destination("pbx", "sip:anna@pbx.example.com"),
        our_number=OURS,
        prompt="x" * 10_000,
    )
    async with account() as (api, control):
        await control.place_leg(plain)
    fields = only(api).fields
    assert fields["To"] == "sip:anna@pbx.example.com"
    assert not {"MachineDetection", "AsyncAmd", "SendDigits"} & fields.keys()
    assert len(fields["Twiml"]) <= MAX_TWIML_CHARS


async def test_the_caller_is_moved_by_a_new_document() -> None:
    async with account() as (api, control):
        await control.join(CALL, ID)
    assert only(api).form == [("Twiml", join_document(ID, SITE))]


async def test_the_call_is_put_on_a_new_stream_by_a_new_document() -> None:
    async with account() as (api, control):
        await control.redirect(CALL, "token-2")
    assert only(api).form == [("Twiml", return_document(SITE, "token-2"))]


async def test_tones_go_out_by_a_document_that_brings_the_stream_back() -> None:
    async with account() as (api, control):
        await control.send_digits(CALL, "ww12#", "token-3")
    assert only(api).form == [("Twiml", digits_document("ww12#", SITE, "token-3"))]


async def test_a_message_goes_out_from_our_number() -> None:
    async with account() as (api, control):
        sms_id = await control.send_sms(
            to_number="+14155550199", our_number=OURS, body="Monday at 9 & ten minutes early: ✓"
        )
    assert only(api) == ApiRequest(
        method="POST",
        path="/Messages",
        form=[
            ("To", "+14155550199"),
            ("From", OURS),
            ("Body", "Monday at 9 & ten minutes early: ✓"),
        ],
    )
    assert api.messages[0]["sid"] == sms_id


@pytest.mark.parametrize("status", ["queued", "ringing", "in-progress"])
async def test_a_leg_is_canceled_in_every_state(status: str) -> None:
    async with account() as (api, control):
        leg_id = await control.place_leg(WARM)
        api.calls[leg_id].status = status
        await control.cancel_leg(leg_id)
        assert api.calls[leg_id].status in ("completed", "canceled")
    assert api.requests[-1].form == [("Status", "completed")]


async def test_a_leg_that_cannot_be_completed_is_canceled() -> None:
    async with account() as (api, control):
        leg_id = await control.place_leg(WARM)
        api.fail(400, 21220)
        await control.cancel_leg(leg_id)
        assert api.calls[leg_id].status == "canceled"
    assert api.requests[-1].form == [("Status", "canceled")]


async def test_a_leg_that_is_gone_or_over_is_canceled() -> None:
    async with account() as (api, control):
        await control.cancel_leg(GONE)
        leg_id = await control.place_leg(WARM)
        api.calls[leg_id].status = "no-answer"
        await control.cancel_leg(leg_id)
        assert api.calls[leg_id].status == "no-answer"


# Over SIP ----------------------------------------------------------------------------------------

OVER_SIP = "sip:office@acme.sip.twilio.com"


async def test_legs_for_a_caller_over_sip_come_from_one_of_our_numbers() -> None:
    async with account(replace(SITE, own_number=OURS)) as (api, control):
        await control.place_leg(replace(WARM, our_number=OVER_SIP))
        await control.send_sms(to_number="+14155550199", our_number=OVER_SIP, body="x")
        await control.transfer(replace(COLD, our_number=OVER_SIP))
    leg, message, cold = api.requests
    assert [leg.fields["From"], message.fields["From"]] == [OURS, OURS]
    assert f'callerId="{OURS}"' in cold.fields["Twiml"]


async def test_over_sip_and_without_a_number_no_leg_can_be_placed() -> None:
    async with account() as (api, control):
        with pytest.raises(CarrierRefused, match=r"set twilio\.from_number") as caught:
            await control.place_leg(replace(WARM, our_number=OVER_SIP))
    assert caught.value.code == "no_own_number"
    assert api.requests == []


# Failures -----------------------------------------------------------------------------------------

Action = Callable[[TwilioControl], Awaitable[object]]
ONCE: dict[str, Action] = {
    "transfer": lambda control: control.transfer(COLD),
    "place_leg": lambda control: control.place_leg(WARM),
    "join": lambda control: control.join(CALL, ID),
    "redirect": lambda control: control.redirect(CALL, "t"),
    "send_digits": lambda control: control.send_digits(CALL, "1", "t"),
    "send_sms": lambda control: control.send_sms(
        to_number="+14155550199", our_number=OURS, body="x"
    ),
}
OFTEN: dict[str, Action] = {
    "cancel_leg": lambda control: control.cancel_leg(CALL),
    "hang_up": lambda control: control.hang_up(CALL),
}
once = pytest.mark.parametrize("action", ONCE.values(), ids=ONCE)
often = pytest.mark.parametrize("action", OFTEN.values(), ids=OFTEN)
all_actions = pytest.mark.parametrize("action", [*ONCE.values(), *OFTEN.values()])


@all_actions
async def test_too_many_requests_are_waited_out(action: Action) -> None:
    async with account() as (api, control):
        api.fail(429, 20429, times=2)
        await action(control)
        assert len(api.requests) == 3
        api.fail(429, 20429, times=3)
        with pytest.raises(CarrierUnavailable, match="fewer requests") as caught:
            await action(control)
    assert caught.value.code == "twilio_20429"


@once
async def test_requests_that_must_not_happen_twice_are_sent_once(action: Action) -> None:
    """After a server's error, or without an answer, nobody knows whether it has happened."""
    async with account(timeout_s=0.3) as (api, control):
        api.fail(500, 20500)
        with pytest.raises(CarrierUnavailable):
            await action(control)
        assert len(api.requests) == 1
        api.fail(None)
        with pytest.raises(CarrierUnavailable) as caught:
            await action(control)
        assert caught.value.code == "timeout"
        assert len(api.requests) == 2


async def test_a_lost_answer_does_not_ring_a_phone_or_send_a_message_twice() -> None:
    async with account(timeout_s=0.3) as (api, control):
        for name in ("place_leg", "send_sms"):
            api.lose_answer()
            with pytest.raises(CarrierUnavailable):
                await ONCE[name](control)
        assert len(api.calls) == 2  # the caller's, and one leg
        assert len(api.messages) == 1


@often
async def test_ends_of_calls_are_tried_again_after_errors_and_silence(action: Action) -> None:
    async with account(timeout_s=0.3) as (api, control):
        api.fail(500, 20500)
        api.fail(None)
        await action(control)
        assert len(api.requests) == 3


@once
async def test_a_server_that_refuses_connections_is_tried_again(action: Action) -> None:
    async with account() as (api, _):
        url = api.url
    rest = TwilioRest("AC1", "secret", base_url=url, first_delay_s=0.0)
    tried: list[str] = []
    original = TwilioHttpClient.request

    def counted(client: TwilioHttpClient, method: str, *args: object, **more: object) -> object:
        tried.append(method)
        return original(client, method, *args, **more)

    control = TwilioControl(rest, lambda: SITE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TwilioHttpClient, "request", counted)
        with pytest.raises(CarrierUnavailable) as caught:
            await action(control)
    await control.aclose()
    assert caught.value.code == "unreachable"
    assert len(tried) == 3


@pytest.mark.parametrize("name", ["transfer", "join", "redirect", "send_digits"])
async def test_a_call_that_is_gone_is_said_to_be_gone(name: str) -> None:
    async with account() as (api, control):
        api.calls[CALL].status = "completed"
        with pytest.raises(CarrierRefused, match="not in progress") as caught:
            await ONCE[name](control)
        assert caught.value.code == "twilio_21220"
        del api.calls[CALL]
        with pytest.raises(CarrierRefused, match="no such call") as caught:
            await ONCE[name](control)
        assert caught.value.code == "twilio_20404"
        assert len(api.requests) == 2


async def test_a_number_that_is_not_ours_can_neither_call_nor_write() -> None:
    other = LegOrder(transfer_id=ID, destination=ANNA, our_number="+14155550000", prompt="")
    async with account() as (_, control):
        with pytest.raises(CarrierRefused, match="neither the account's nor verified") as caught:
            await control.place_leg(other)
        assert caught.value.code == "twilio_21210"
        with pytest.raises(CarrierRefused, match="write from") as caught:
            await control.send_sms(to_number="+14155550199", our_number="+14155550000", body="x")
        assert caught.value.code == "twilio_21606"


async def test_wrong_credentials_are_final() -> None:
    async with account() as (api, control):
        api.auth_token = "another"
        for action in (*ONCE.values(), *OFTEN.values()):
            with pytest.raises(CarrierRefused, match="credentials") as caught:
                await action(control)
            assert caught.value.code == "twilio_20003"
        assert len(api.requests) == len(ONCE) + len(OFTEN)


async def test_invalid_orders_make_no_request() -> None:
    queue = LegOrder(
        transfer_id=ID,
        destination=destination("support", "queue:support"),
        our_number=OURS,
        prompt="",
    )
    async with account() as (api, control):
        for refused in (
            control.place_leg(queue),
            control.send_digits(CALL, '1"/><Dial>+19005550100</Dial>', "t"),
            control.send_digits(CALL, "", "t"),
            control.send_sms(to_number="+14155550199", our_number=OURS, body=""),
            control.send_sms(to_number="+14155550199", our_number=OURS, body="x" * 481),
        ):
            with pytest.raises(CarrierRefused):
                await refused
        assert api.requests == []


async def test_without_an_account_nothing_but_hanging_up_can_be_asked_for() -> None:
    control = TwilioControl(None, lambda: SITE)
    for action in ONCE.values():
        with pytest.raises(CarrierRefused) as caught:
            await action(control)
        assert caught.value.code == "no_carrier_account"
    await control.hang_up(CALL)


# The stand-in itself ------------------------------------------------------------------------------


def misspelled(verb: str, attribute: str) -> str:
    return f'<Response><{verb} {attribute}="true"/></Response>'


@pytest.mark.parametrize(
    ("path", "form", "fault"),
    [
        ("/Calls.json", {"To": "+14155550123", "From": OURS}, "Url, Twiml"),
        ("/Calls.json", {"From": OURS, "Url": "https://x"}, "To is missing"),
        ("/Calls.json", {"To": "+14155550123", "From": OURS, "Ring": "5"}, "no parameter Ring"),
        ("/Calls.json", {"To": "+14155550123", "From": OURS, "Timeout": "5s"}, "not an integer"),
        ("/Calls.json", {"To": "+14155550123", "From": OURS, "Record": "yes"}, "true or false"),
        ("/Calls.json", {"To": "+14155550123", "From": OURS, "Twiml": "<Response>"}, "not XML"),
        ("/Calls.json", {"To": "5550123", "From": OURS, "Url": "https://x"}, "Invalid 'To'"),
        (f"/Calls/{CALL}.json", {"Status": "paused"}, "not one of"),
        (f"/Calls/{CALL}.json", {"Url": "https://x", "Method": "PSOT"}, "not one of"),
        (f"/Calls/{CALL}.json", {"Twiml": misspelled("Dial", "answerOnBridg")}, "has no answerO"),
        (f"/Calls/{CALL}.json", {"Twiml": misspelled("Number", "url")}, "no <Number> in a"),
        ("/Messages.json", {"From": OURS, "Body": "x"}, "To is missing"),
        ("/Conferences/CF1.json", {"Status": "completed"}, "not found"),
    ],
)
async def test_the_stand_in_refuses_what_twilios_document_does_not_allow(
    path: str, form: dict[str, str], fault: str
) -> None:
    async with account() as (api, control):
        await control.hang_up(GONE)  # proves that the same address and credentials are served
        async with httpx2.AsyncClient(auth=(api.account_sid, api.auth_token)) as client:
            address = f"{api.url}/2010-04-01/Accounts/{api.account_sid}{path}"
            answer = await client.post(address, data=form)
    assert answer.status_code in (400, 404)
    assert fault in answer.json()["message"]
