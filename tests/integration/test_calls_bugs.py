"""A bug of the server meets one call: that call is over, and no other notices."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from app.calls.call import Call
from app.carrier.base import CallControl, CarrierCallId
from app.events import CallAdmitted, CallEvent, CallId, EndReason
from tests.fakes.carrier import FakeCall
from tests.fakes.voice import Reply, ScriptedVoiceServer
from tests.fakes.waiting import until
from tests.integration.server import App, trunkline


class Bug(RuntimeError):
    """An error that nobody has thought of."""


def fail(*_: object, **__: object) -> Any:
    raise Bug


class BrokenCarrier:
    """A carrier whose hang-up fails in a way that its contract does not know."""

    async def hang_up(self, carrier_call_id: CarrierCallId) -> None:
        raise Bug


def call_of(app: App, call: FakeCall) -> Call:
    admission = app.switchboard._admissions[call.identity.call_id]
    assert isinstance(admission.call, Call)
    return admission.call


async def hung_up_beside_another(app: App, broken: FakeCall, other: FakeCall) -> None:
    """One call is ended, the other one goes on."""
    assert app.switchboard.hang_up(call_of(app, broken).call_id)
    await broken.ended()
    assert (await app.ended(broken)).reason is EndReason.OPERATOR_HUNG_UP
    await other.hear_quiet(ms=300)
    await other.speak(0.4)
    await other.hear(ms=300)
    await other.hang_up()
    assert (await app.ended(other)).reason is EndReason.CALLER_HUNG_UP


async def test_a_carrier_that_fails_in_an_unknown_way_costs_no_other_call() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        board = app.switchboard
        board._carrier = cast(CallControl, BrokenCarrier())
        broken, other = await twilio.call(app.url), await twilio.call(app.url)
        await broken.hear_quiet(ms=300)
        await hung_up_beside_another(app, broken, other)


@pytest.mark.parametrize("part", ["transcript", "price"])
async def test_a_call_whose_end_fails_takes_no_other_with_it(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        broken, other = await twilio.call(app.url), await twilio.call(app.url)
        await broken.hear_quiet(ms=300)
        call = call_of(app, broken)
        if part == "price":
            monkeypatch.setattr(call, "_route", replace(call._route, price=fail))
        else:
            monkeypatch.setattr(call._conversation, "on_call_over", fail)
        await hung_up_beside_another(app, broken, other)


PARTS = (
    "_conversation.on_tick",
    "_conversation.on_voice",
    "_conversation.on_stream",
    "_conversation.on_caller_audio",
    "_timer.on_voice",
    "_work.on_voice",
    "_voice.connection.append_at_once",
    "_caller_leg.outbox.put",
    "_perform",
)


async def test_a_call_that_fails_in_any_part_is_over_and_no_other_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        other = await twilio.call(app.url)
        for part in PARTS:
            broken = await twilio.call(app.url)
            await broken.hear_quiet(ms=300)
            owner: Any = call_of(app, broken)
            *path, name = part.split(".")
            for attribute in path:
                owner = getattr(owner, attribute)
            monkeypatch.setattr(owner, name, fail)
            broken.say(5.0)
            await broken.ended()
            summary = await app.ended(broken)
            assert (summary.reason, summary.detail) == (EndReason.INTERNAL_ERROR, "Bug"), part
        await other.speak(0.4)
        await other.hear(ms=100)
        await other.hang_up()
        assert (await app.ended(other)).reason is EndReason.CALLER_HUNG_UP


async def test_a_goodbye_that_fails_does_not_stop_the_drain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    limits = {"drain_timeout_s": 0}
    async with voice, trunkline(voice, limits=limits) as app, app.twilio() as twilio:
        broken, other = await twilio.call(app.url), await twilio.call(app.url)
        await broken.hear_quiet(ms=300)
        await other.hear_quiet(ms=300)
        monkeypatch.setattr(call_of(app, broken)._conversation, "say_goodbye", fail)
        app.trunkline.server.stop()
        assert (await app.ended(broken)).reason is EndReason.INTERNAL_ERROR
        assert (await app.ended(other, within_s=8)).reason is EndReason.DRAINED
    assert other.counters.agent_audio_ms == 600  # its greeting and its goodbye


async def test_an_observer_that_fails_costs_no_call() -> None:
    seen: list[CallId] = []

    def observe(event: CallEvent) -> None:
        if isinstance(event, CallAdmitted):
            seen.append(event.call_id)
        raise Bug

    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        app.switchboard._observers = (observe, *app.switchboard._observers)
        call = await twilio.call(app.url)
        await call.hear_quiet(ms=300)
        await call.hang_up()
        assert (await app.ended(call)).reason is EndReason.CALLER_HUNG_UP
    assert len(seen) == 1


async def test_a_switchboard_that_ends_by_itself_ends_the_server(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def bug() -> None:
        raise RuntimeError("a bug")

    async with ScriptedVoiceServer() as voice, trunkline(voice) as app:
        tasks = app.switchboard._tasks
        assert tasks is not None
        tasks.create_task(bug())
        await until(lambda: app.trunkline.server.stopping)
        assert app.trunkline.server.failed
    assert "server failed" in caplog.text
