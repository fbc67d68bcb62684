"""Strangers: forged, replayed and borrowed credentials reach neither a call nor the model."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from typing import Any

import httpx2
import pytest
from twilio.request_validator import RequestValidator
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from app.carrier.base import CarrierCallId, StreamId
from app.carrier.twilio.caller_side import render_connected, render_start
from app.dial.leg import EndedBy
from app.errors import DialError
from app.events import EndReason
from tests.fakes.carrier import FakeCall, FakeTwilio
from tests.fakes.voice import Reply, ScriptedVoiceServer
from tests.fakes.waiting import TIME_LIMIT_S, until, within
from tests.integration.server import App, trunkline
from tests.integration.transfer_site import CALLER, OURS, PUBLIC_URL, transfer_site


async def refused(call: FakeCall) -> None:
    """Assert that a stream was turned away, with nothing said on it."""
    end = await call.ended()
    assert (end.by, end.close_code) == (EndedBy.LOST, 1008)
    assert call.counters.media_received == 0


async def goes_on(app: App, call: FakeCall) -> None:
    """Assert that the rightful call is untouched, and end it."""
    await call.hear_quiet(ms=200)
    await call.speak(0.4)
    await call.hear(ms=200)
    await call.hang_up()
    call.assert_clean()
    assert (await app.ended(call)).reason is EndReason.CALLER_HUNG_UP
    assert app.voice.attempts == 1


async def test_a_forged_webhook_is_refused_and_charges_nothing() -> None:
    voice = ScriptedVoiceServer()
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        with pytest.raises(DialError) as error:
            await twilio.ring(app.url, auth_token="forged-token")
        assert error.value.code == "signature_refused"
        assert (app.switchboard.active, voice.attempts) == (0, 0)


@pytest.mark.parametrize("path", ["/twilio/voice", "/twilio/status"])
@pytest.mark.parametrize("signature", [None, "", "x", "\u00e9", "A" * 5000])
async def test_a_webhook_without_a_signature_is_refused(path: str, signature: str | None) -> None:
    voice = ScriptedVoiceServer()
    async with voice, trunkline(voice) as app:
        headers = {} if signature is None else {b"X-Twilio-Signature": signature.encode("latin-1")}
        async with httpx2.AsyncClient(trust_env=False, timeout=TIME_LIMIT_S) as client:
            for method in ("POST", "GET") if path.endswith("voice") else ("POST",):
                answer = await client.request(
                    method, app.url + path, headers=headers, data={"CallSid": "CA1"}
                )
                assert answer.status_code == 403
        assert (app.switchboard.active, voice.attempts) == (0, 0)


async def test_a_webhook_of_another_account_is_refused() -> None:
    voice = ScriptedVoiceServer()
    async with voice, trunkline(voice) as app:
        async with FakeTwilio(auth_token=app.auth_token, account_sid="AC" + "1" * 32) as twilio:
            with pytest.raises(DialError) as error:
                await twilio.ring(app.url)
        assert error.value.code == "signature_refused"
        assert voice.attempts == 0


@pytest.mark.parametrize("signature", [None, "", "forged"])
async def test_a_media_socket_without_a_signature_is_refused_before_it_opens(
    signature: str | None,
) -> None:
    voice = ScriptedVoiceServer()
    async with voice, trunkline(voice) as app:
        headers = {} if signature is None else {"X-Twilio-Signature": signature}
        url = app.url.replace("http", "ws", 1) + "/twilio/media-stream"
        with pytest.raises(InvalidStatus) as error:
            await connect(url, additional_headers=headers, proxy=None)
        assert error.value.response.status_code == 403
        assert voice.attempts == 0


async def test_a_forged_handshake_leaves_the_call_to_its_own_stream() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        ringing = await twilio.ring(app.url)
        with pytest.raises(DialError) as error:
            await ringing.connect(auth_token="forged-token")
        assert error.value.code == "31920"
        await goes_on(app, await ringing.connect())


@pytest.mark.parametrize(
    "parameters",
    [{}, {"token": ""}, {"token": "forged"}, {"token": "a.b.c.d"}, {"token": "x" * 400}],
    ids=["none", "empty", "forged", "dotted", "long"],
)
async def test_a_stream_without_its_token_is_refused(parameters: dict[str, str]) -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        ringing = await twilio.ring(app.url)
        await refused(await ringing.connect(parameters=parameters))
        await goes_on(app, await ringing.connect())


async def test_a_token_opens_no_other_call() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        ringing, stranger = await twilio.ring(app.url), await twilio.ring(app.url)
        assert ringing.order is not None
        await refused(await stranger.connect(parameters=dict(ringing.order.parameters)))
        call = await ringing.connect()
        other = await stranger.connect()
        await asyncio.gather(call.hear(ms=200), other.hear(ms=200))
        await asyncio.gather(call.hang_up(), other.hang_up())


async def test_a_signed_stream_of_a_call_that_never_rang_reaches_no_model() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        ringing = await twilio.ring(app.url)
        stranger = await twilio.ring(app.url)
        stranger.caller = dataclasses.replace(stranger.caller, call_id="CA" + "9" * 32)
        await refused(await stranger.connect())
        assert voice.attempts == 2  # of the two webhooks
        call = await ringing.connect()
        await call.hear(ms=100)
        await call.hang_up()
        await stranger.webhooks.report("completed")


@pytest.mark.parametrize("when", ["during the call", "after it"])
async def test_a_token_is_good_for_one_stream(when: str) -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear(ms=100)
        if when == "after it":
            await call.hang_up()
            await app.ended(call)
        await refused(await call.ringing.connect())
        if when == "during the call":
            await goes_on(app, call)
        assert voice.attempts == 1


async def test_a_clock_that_is_set_meanwhile_costs_no_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        ringing = await twilio.ring(app.url)
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + 3_600)
        call = await ringing.connect()
        await call.hear_quiet(ms=200)
        monkeypatch.setattr(time, "time", lambda: real() - 3_600)
        await goes_on(app, call)
        assert (await app.ended(call)).duration_ms < 60_000


async def test_of_two_streams_at_once_one_gets_the_call() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        ringing = await twilio.ring(app.url)
        calls = await asyncio.gather(*(ringing.connect() for _ in range(5)))
        await until(lambda: sum(call.over for call in calls) == 4)
        (rightful,) = [call for call in calls if not call.over]
        for call in calls:
            if call is not rightful:
                await refused(call)
        await goes_on(app, rightful)


@pytest.mark.parametrize(
    "changed",
    [
        {"streamSid": "not an id"},
        {"mediaFormat": {"encoding": "audio/opus", "sampleRate": 48000, "channels": 1}},
        {"mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 16000, "channels": 1}},
        {"tracks": ["outbound"]},
    ],
)
async def test_a_start_that_cannot_be_used_does_not_use_up_the_token(
    changed: dict[str, Any],
) -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        ringing = await twilio.ring(app.url)
        socket = await ringing.open_socket()
        await socket.send(render_connected())
        start = render_start(
            StreamId("MZ" + "1" * 32),
            CarrierCallId(ringing.caller.call_id),
            account_id=ringing.caller.account_id,
            parameters=ringing.order.parameters if ringing.order else {},
            sequence=1,
        )
        message = json.loads(start)
        message["start"] |= changed
        await socket.send(json.dumps(message))
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008
        await goes_on(app, await ringing.connect())


async def test_a_socket_that_never_starts_is_closed_and_its_call_can_still_be_had() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    limits = {"stream_start_s": 1}
    async with voice, trunkline(voice, limits=limits) as app, app.twilio() as twilio:
        ringing = await twilio.ring(app.url)
        socket = await ringing.open_socket()
        with pytest.raises(ConnectionClosed) as closed:
            await within(3, socket.recv())
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008
        await goes_on(app, await ringing.connect())


async def test_nobody_reads_a_transcript_without_a_signature() -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await call.hear(ms=100)
        answer = await app.get(f"/calls/{call.identity.call_id}/transcript")
        assert answer.status_code == 403
        await goes_on(app, call)


@pytest.mark.parametrize("algorithm", ["HMAC_SHA256", "HMAC_SHA1"])
async def test_a_call_may_be_signed_with_a_shared_key_of_its_own(algorithm: str) -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=300)])
    keys = {"shared_key": "another-key", "shared_key_secondary": "shared-key-of-its-own"}
    async with voice, transfer_site(voice, twilio=keys) as site:
        form = {
            "CallSid": "CA" + "5" * 32,
            "AccountSid": site.api.account_sid,
            "From": CALLER,
            "To": OURS,
            "CallStatus": "ringing",
        }
        url = PUBLIC_URL + "/twilio/voice"
        async with httpx2.AsyncClient(trust_env=False, timeout=TIME_LIMIT_S) as client:
            for secret, settings, status in (
                ("shared-key-of-its-own", f"key=webhooks_sharedkey_1,algorithm={algorithm}", 200),
                ("shared-key-of-its-own", "", 403),
                (site.api.auth_token, f"key=webhooks_sharedkey_1,algorithm={algorithm}", 403),
            ):
                signature = RequestValidator(secret).compute_signature(url, form, algorithm)
                headers = {"X-Twilio-Signature": signature}
                if settings:
                    headers["X-Twilio-Webhooks-Signature-Settings"] = settings
                answer = await client.post(
                    site.app.url + "/twilio/voice", data=form, headers=headers
                )
                assert answer.status_code == status
        report = {**form, "CallStatus": "completed"}
        signature = RequestValidator(site.api.auth_token).compute_signature(
            PUBLIC_URL + "/twilio/status", report
        )
        async with httpx2.AsyncClient(trust_env=False, timeout=TIME_LIMIT_S) as client:
            answer = await client.post(
                site.app.url + "/twilio/status",
                data=report,
                headers={"X-Twilio-Signature": signature},
            )
        assert answer.status_code == 200
