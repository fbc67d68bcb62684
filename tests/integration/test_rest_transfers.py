"""Whole transfers: our requests, Twilio's signed webhooks, our answers, over real sockets.

`Exchange` is the smallest shell there can be around `WarmTransfer`: it performs intents in their
order and answers webhooks with what `TwilioWebhooks` writes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import pytest

from app.calls.transfer.warm import (
    ACCEPT_KEY,
    BringBack,
    CancelLeg,
    Finished,
    Intent,
    MoveCaller,
    PlaceLeg,
    WarmTransfer,
)
from app.carrier.base import (
    CallControl,
    CarrierCallId,
    Destination,
    LegAnswer,
    LegOrder,
    TransferId,
    TransferOrder,
    TransferOutcome,
    TransferResult,
)
from app.carrier.destinations import destination
from app.carrier.twilio.control import TwilioControl
from app.carrier.twilio.phone_webhooks import TwilioWebhooks
from app.carrier.twilio.rest import TwilioRest
from app.carrier.twilio.transfer import Site
from app.carrier.twilio.transfer_reports import Screening, dial_result, read_dial
from app.errors import CarrierRefused, CarrierUnavailable, SignatureError
from tests.fakes.twilio_phones import Phones
from tests.fakes.twilio_rest import TwilioApi
from tests.fakes.waiting import until
from tests.fakes.web_service import Asked, WebService

OURS = "+15551230002"
CALL = CarrierCallId("CA" + "a" * 32)
ID = TransferId("transfer_1")
FRONT_DESK = destination("front_desk", "+14155550123", detect_voicemail=True)


@dataclass(slots=True)
class Exchange:
    """One call with one transfer at a time."""

    control: CallControl
    webhooks: TwilioWebhooks
    target: Destination = FRONT_DESK
    warm: WarmTransfer = field(default_factory=lambda: WarmTransfer(ring_s=20))
    screening: Screening | None = None
    cold: bool = False
    results: list[TransferResult] = field(default_factory=list)
    refused: int = 0
    _order: asyncio.Lock = field(default_factory=asyncio.Lock)

    # Requests of the call -------------------------------------------------------------------------

    async def transfer_warm(self) -> None:
        await self.perform(self.warm.start(0))

    async def transfer_cold(self) -> None:
        self.cold = True
        order = TransferOrder(
            transfer_id=ID,
            carrier_call_id=CALL,
            destination=self.target,
            caller_number="+14155550199",
            our_number=OURS,
        )
        await self.control.transfer(order)

    async def caller_hangs_up(self) -> None:
        await self.perform(self.warm.on_caller_gone(0))

    async def perform(self, intents: list[Intent]) -> None:
        async with self._order:
            todo = list(intents)
            while todo:
                todo += await self._one(todo.pop(0))

    async def _one(self, intent: Intent) -> list[Intent]:
        match intent:
            case PlaceLeg():
                order = LegOrder(
                    transfer_id=ID, destination=self.target, our_number=OURS, prompt="A booking."
                )
                try:
                    return self.warm.on_leg_placed(await self.control.place_leg(order))
                except (CarrierRefused, CarrierUnavailable) as error:
                    answered = isinstance(error, CarrierRefused)
                    return self.warm.on_leg_refused(error.code, 0, answered=answered)
            case MoveCaller():
                try:
                    await self.control.join(CALL, ID)
                    return self.warm.on_caller_moved(0)
                except CarrierRefused as error:
                    return self.warm.on_caller_not_moved(error.code, 0, answered=True)
                except CarrierUnavailable as error:
                    return self.warm.on_caller_not_moved(error.code, 0, answered=False)
            case BringBack():
                await self.control.redirect(CALL, "token-back")
            case CancelLeg(leg_id):
                await self.control.cancel_leg(leg_id)
            case Finished(result):
                self.results.append(result)
        return []

    # Requests of Twilio ---------------------------------------------------------------------------

    async def serve(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        address = urlsplit(asked.target)
        form = self.webhooks.parse_form(asked.body)
        try:
            self.webhooks.check_http(asked.target, form, asked.headers)
        except SignatureError:
            self.refused += 1
            writer.write(b"HTTP/1.1 403 x\r\nContent-Length: 0\r\n\r\n")
            return
        assert parse_qs(address.query) == {"transfer": [ID]}
        intents, text = self.answer(address.path.removeprefix("/twilio/"), form)
        head = f"HTTP/1.1 200 x\r\nContent-Type: {self.webhooks.content_type}\r\n"
        writer.write(f"{head}Content-Length: {len(text.encode())}\r\n\r\n{text}".encode())
        await writer.drain()
        await self.perform(intents)

    def answer(self, route: str, form: list[tuple[str, str]]) -> tuple[list[Intent], str]:
        webhooks = self.webhooks
        match route:
            case "leg-status":
                return self.warm.on_leg(webhooks.read_leg_status(form), 0), ""
            case "leg-machine":
                leg_id = webhooks.read_machine_answered(form)
                if leg_id is None:
                    return [], ""
                if self.cold:
                    self.screening = Screening.MACHINE
                    return [CancelLeg(leg_id)], ""
                return self.warm.on_machine(leg_id, 0), ""
            case "conference":
                joined = webhooks.read_caller_joined(form)
                return self.warm.on_caller_joined(0) if joined else [], ""
            case "transfer-keys":
                leg_id, digits = webhooks.read_person_keys(form)
                if self.cold:
                    return [], self._screened(digits)
                answer, intents = self.warm.on_keys(leg_id, digits, 0)
                return intents, webhooks.answer_person(answer, ID)
            case "transfer-screen":
                return [], webhooks.ask_person("A booking.", ID)
            case "queue-wait":
                return [], webhooks.queue_wait(webhooks.read_queue_wait(form), self.target.ring_s)
            case "after-transfer":
                return [], self._after(form)
        raise AssertionError(route)

    def _screened(self, digits: str) -> str:
        accepted = digits == ACCEPT_KEY
        declined = Screening.DECLINED if digits else Screening.NO_KEY
        self.screening = Screening.ACCEPTED if accepted else declined
        answer = LegAnswer.CONNECT if accepted else LegAnswer.DECLINE
        return self.webhooks.answer_person(answer, ID)

    def _after(self, form: list[tuple[str, str]]) -> str:
        report = read_dial(form, expect_account=self.webhooks._account_id)
        result = dial_result(report, self.screening)
        if self.cold:
            self.results.append(result)
        over = result.outcome is TransferOutcome.ANSWERED or report.caller_gone
        return self.webhooks.after_transfer(None if over else "token-back")


@dataclass(slots=True)
class World:
    api: TwilioApi
    phones: Phones
    exchange: Exchange

    @property
    def leg(self) -> str:
        """The one leg that was placed."""
        [leg] = [sid for sid in self.api.calls if sid != CALL]
        return leg

    def back_with_the_agent(self) -> bool:
        return "token-back" in self.api.calls[CALL].documents[-1]


@asynccontextmanager
async def world(
    target: Destination = FRONT_DESK, *, timeout_s: float = 5.0
) -> AsyncIterator[World]:
    async with TwilioApi(numbers=[{"phone_number": OURS}]) as api, Phones(api) as phones:
        api.add_call(CALL)
        rest = TwilioRest(
            api.account_sid,
            api.auth_token,
            base_url=api.url,
            timeout_s=timeout_s,
            first_delay_s=0.0,
        )

        async def serve(asked: Asked, writer: asyncio.StreamWriter) -> None:
            await exchange.serve(asked, writer)

        async with WebService(serve) as service:
            site = Site(
                base_url=service.url, stream_path="/twilio/media-stream", lost_message="Sorry."
            )
            webhooks = TwilioWebhooks(
                auth_tokens=(api.auth_token,), account_id=api.account_sid, site=lambda: site
            )
            control = TwilioControl(rest, lambda: site)
            exchange = Exchange(control, webhooks, target)
            try:
                yield World(api, phones, exchange)
            finally:
                await control.aclose()
        assert exchange.refused == 0
        assert all(posted.status == 200 for posted in phones.posted)


# Warm ---------------------------------------------------------------------------------------------


async def outcomes(world: World) -> list[TransferOutcome]:
    """The results of the transfer, once there is one."""
    await until(lambda: bool(world.exchange.results))
    return [result.outcome for result in world.exchange.results]


async def until_moved(world: World) -> None:
    await until(lambda: bool(world.api.calls[CALL].documents))


async def test_caller_and_person_meet_and_both_are_free_at_the_end() -> None:
    async with world() as w:
        await w.exchange.transfer_warm()
        await w.phones.ring(w.leg)
        await w.phones.pick_up(w.leg, answered_by="human")
        assert w.api.calls[CALL].documents == []  # the caller is still with the agent
        await w.phones.press(w.leg, "1")
        await until_moved(w)
        await w.phones.follow(CALL)
        [room] = w.api.conferences.values()
        assert room.status == "in-progress"
        assert set(room.participants) == {w.leg, CALL}
        assert await outcomes(w) == [TransferOutcome.ANSWERED]
        await w.phones.end(w.leg)
        assert room.status == "completed"
        assert w.api.calls[CALL].status == "completed"
        assert w.exchange.warm.over


async def test_the_person_is_let_go_when_the_caller_leaves_the_conversation() -> None:
    async with world() as w:
        await w.exchange.transfer_warm()
        await w.phones.pick_up(w.leg)
        await w.phones.press(w.leg, "1")
        await until_moved(w)
        await w.phones.follow(CALL)
        await w.phones.end(CALL)
        assert w.api.calls[w.leg].status == "completed"
        await w.exchange.caller_hangs_up()
        assert w.exchange.warm.over


@pytest.mark.parametrize(
    ("key", "outcome"), [("2", TransferOutcome.DECLINED), ("", TransferOutcome.VOICEMAIL)]
)
async def test_a_person_who_does_not_accept_is_hung_up_and_the_caller_never_left(
    key: str, outcome: TransferOutcome
) -> None:
    async with world() as w:
        await w.exchange.transfer_warm()
        await w.phones.pick_up(w.leg)
        if key:
            await w.phones.press(w.leg, key)
        else:
            await w.phones.keep_silent(w.leg)
        assert await outcomes(w) == [outcome]
        assert w.api.calls[w.leg].status == "completed"
        assert w.api.calls[CALL].documents == []


async def test_a_machine_is_hung_up_on() -> None:
    async with world() as w:
        await w.exchange.transfer_warm()
        leg = w.leg
        await w.phones.pick_up(leg, answered_by="machine_start")
        await until(lambda: w.api.calls[leg].status == "completed")
        await w.phones.report_end(leg)
        assert await outcomes(w) == [TransferOutcome.VOICEMAIL]


@pytest.mark.parametrize(
    ("status", "sip_code", "outcome"),
    [
        ("busy", None, TransferOutcome.BUSY),
        ("busy", 603, TransferOutcome.DECLINED),
        ("no-answer", None, TransferOutcome.NO_ANSWER),
        ("failed", 404, TransferOutcome.FAILED),
    ],
)
async def test_a_phone_that_nobody_picks_up_says_why(
    status: str, sip_code: int | None, outcome: TransferOutcome
) -> None:
    async with world() as w:
        await w.exchange.transfer_warm()
        await w.phones.ring(w.leg)
        await w.phones.end(w.leg, status, sip_code=sip_code)
        assert await outcomes(w) == [outcome]
        assert w.api.calls[CALL].documents == []


@pytest.mark.parametrize("picked_up", [False, True])
async def test_the_consult_leg_ends_when_the_caller_hangs_up(picked_up: bool) -> None:
    async with world() as w:
        await w.exchange.transfer_warm()
        await w.phones.ring(w.leg)
        if picked_up:
            await w.phones.pick_up(w.leg)
        w.api.calls[CALL].status = "completed"
        await w.exchange.caller_hangs_up()
        assert w.api.calls[w.leg].status in ("canceled", "completed")
        assert await outcomes(w) == [TransferOutcome.CANCELED]


async def test_a_person_who_accepts_a_caller_who_is_gone_is_hung_up() -> None:
    async with world() as w:
        await w.exchange.transfer_warm()
        await w.phones.pick_up(w.leg)
        w.api.calls[CALL].status = "completed"  # and nobody has told us yet
        await w.phones.press(w.leg, "1")
        await until(lambda: bool(w.exchange.results))
        assert w.api.calls[w.leg].status == "completed"
        [result] = w.exchange.results
        assert (result.outcome, result.evidence) == (TransferOutcome.FAILED, "move=twilio_21220")


async def test_a_number_that_we_may_not_call_from_fails_the_transfer_and_nothing_else() -> None:
    async with world() as w:
        w.api.numbers.clear()
        await w.exchange.transfer_warm()
        [result] = w.exchange.results
        assert (result.outcome, result.evidence) == (TransferOutcome.FAILED, "place=twilio_21210")
        assert list(w.api.calls) == [CALL]


async def test_a_move_whose_answer_is_lost_ends_with_the_caller_back_at_the_agent() -> None:
    async with world(timeout_s=0.3) as w:
        await w.exchange.transfer_warm()
        await w.phones.pick_up(w.leg)
        w.api.lose_answer()
        await w.phones.press(w.leg, "1")
        assert await outcomes(w) == [TransferOutcome.FAILED]
        assert w.back_with_the_agent()
        assert w.api.calls[w.leg].status == "completed"


# Cold ---------------------------------------------------------------------------------------------


async def test_after_an_answered_transfer_the_call_ends() -> None:
    async with world() as w:
        await w.exchange.transfer_cold()
        await w.phones.dial_ends(CALL, "completed", DialCallDuration="31", DialBridged="true")
        assert await outcomes(w) == [TransferOutcome.ANSWERED]
        assert w.api.calls[CALL].status == "completed"


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        ("busy", TransferOutcome.BUSY),
        ("no-answer", TransferOutcome.NO_ANSWER),
        ("failed", TransferOutcome.FAILED),
    ],
)
async def test_after_a_transfer_that_failed_the_caller_is_back_with_the_agent(
    status: str, outcome: TransferOutcome
) -> None:
    async with world() as w:
        await w.exchange.transfer_cold()
        await w.phones.dial_ends(CALL, status)
        assert await outcomes(w) == [outcome]
        assert w.back_with_the_agent()


@pytest.mark.parametrize(
    ("key", "outcome", "back"),
    [
        ("1", TransferOutcome.ANSWERED, False),
        ("2", TransferOutcome.DECLINED, True),
        ("", TransferOutcome.VOICEMAIL, True),
    ],
)
async def test_a_screened_person_decides_with_a_key(
    key: str, outcome: TransferOutcome, back: bool
) -> None:
    async with world(destination("front_desk", "+14155550123", screened=True)) as w:
        await w.exchange.transfer_cold()
        [dial] = w.api.calls[CALL].verbs
        [number] = dial.children
        child = w.api.add_call("CA" + "c" * 32)
        asked = await w.phones.post(child, number.attributes["url"], {})
        child.documents.append(asked.text)
        if key:
            await w.phones.press(child.sid, key)
        else:
            await w.phones.keep_silent(child.sid)
        connected = child.status == "in-progress"
        assert connected is not back
        await w.phones.dial_ends(CALL, "completed", DialBridged=str(connected).lower())
        assert await outcomes(w) == [outcome]
        assert w.back_with_the_agent() is back


async def test_a_cold_transfer_to_a_machine_comes_back() -> None:
    async with world() as w:
        await w.exchange.transfer_cold()
        [dial] = w.api.calls[CALL].verbs
        url = dial.children[0].attributes["amdStatusCallback"]
        child = w.api.add_call("CA" + "c" * 32)
        await w.phones.post(child, url, {"AnsweredBy": "machine_end_beep"})
        await until(lambda: child.status == "completed")
        await w.phones.dial_ends(CALL, "completed")
        assert await outcomes(w) == [TransferOutcome.VOICEMAIL]
        assert w.back_with_the_agent()


async def test_a_caller_who_hangs_up_while_it_rings_is_not_sent_back_to_the_agent() -> None:
    async with world() as w:
        await w.exchange.transfer_cold()
        w.api.calls[CALL].status = "completed"
        await w.phones.dial_ends(CALL, "canceled")
        assert await outcomes(w) == [TransferOutcome.CANCELED]
        assert not w.back_with_the_agent()


@pytest.mark.parametrize(
    ("result", "outcome", "back"),
    [
        ("bridged", TransferOutcome.ANSWERED, False),
        ("leave", TransferOutcome.NO_ANSWER, True),
        ("queue-full", TransferOutcome.BUSY, True),
        ("hangup", TransferOutcome.CANCELED, False),
        ("error", TransferOutcome.FAILED, True),
    ],
)
async def test_a_queue_ends_in_the_same_outcomes(
    result: str, outcome: TransferOutcome, back: bool
) -> None:
    async with world(destination("support", "queue:support", ring_s=60)) as w:
        await w.exchange.transfer_cold()
        [enqueue] = w.api.calls[CALL].verbs
        wait = enqueue.attributes["waitUrl"]
        waiting = await w.phones.post(w.api.calls[CALL], wait, {"QueueTime": "10"})
        assert "<Pause" in waiting.text
        enough = await w.phones.post(w.api.calls[CALL], wait, {"QueueTime": "60"})
        assert "<Leave" in enough.text
        await w.phones.queue_ends(CALL, result)
        assert await outcomes(w) == [outcome]
        assert w.back_with_the_agent() is back


async def test_webhooks_that_twilio_did_not_sign_change_nothing() -> None:
    async with world() as w:
        await w.exchange.transfer_warm()
        await w.phones.pick_up(w.leg)
        w.api.auth_token = "forged"
        call = w.api.calls[w.leg]
        url = call.verbs[0].attributes["action"]
        posted = await w.phones.post(call, url, {"Digits": "1"})
        assert posted.status == 403
        assert w.api.calls[CALL].documents == []
        w.exchange.refused = 0
        w.phones.posted.clear()
