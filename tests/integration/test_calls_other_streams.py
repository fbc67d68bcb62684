"""Streams that are not quite Twilio's: lean simulators, and carriers with wide sound."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from typing import Any, Final

import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from app.events import CallAdmitted, EndReason, StreamOpened
from audio.format import PCM16_8K, PCM16_16K, PCM16_24K, PCMA_8K, PCMU_8K, AudioFormat
from audio.level import level_dbfs
from audio.transcoder import Transcoder
from tests.fakes.carrier import Ringing
from tests.fakes.voice import Reply, ScriptedVoiceServer
from tests.fakes.waiting import until, within
from tests.integration.phases import caller_is_heard
from tests.integration.server import App, trunkline

STREAM: Final = "MZ" + "1" * 32
TONE_24K: Final = (
    (8_000 * np.sin(2 * np.pi * 440 * np.arange(24_000) / 24_000)).astype("<i2").tobytes()
)


class BarePhone:
    """A phone that sends what a call cannot go on without, and nothing else."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.heard = b""
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def start(
        cls, ringing: Ringing, *, begin: tuple[dict[str, Any], ...] = (), **start: Any
    ) -> BarePhone:
        """Open the stream; `begin` is sent before the start, and `start` joins its fields."""
        socket = await ringing.open_socket()
        order = ringing.order
        assert order is not None
        body = {
            "streamSid": STREAM,
            "callSid": ringing.caller.call_id,
            "customParameters": order.parameters,
            **start,
        }
        phone = cls(socket)
        for message in (*begin, {"event": "start", "start": body}):
            await phone.send(message)
        return phone

    async def send(self, message: dict[str, Any]) -> None:
        await self.socket.send(json.dumps(message))

    async def speak(self, sound: bytes, frame_bytes: int, **fields: Any) -> None:
        """Send sound in frames, as fast as they go."""
        for at in range(0, len(sound), frame_bytes):
            payload = base64.b64encode(sound[at : at + frame_bytes]).decode("ascii")
            await self.send({"event": "media", "media": {"payload": payload, **fields}})
            await asyncio.sleep(0.002)

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for text in self.socket:
                message = json.loads(text)
                if message["event"] == "media":
                    self.heard += base64.b64decode(message["media"]["payload"])
                elif message["event"] == "mark":
                    await self.send({"event": "mark", "mark": message["mark"]})

    async def close(self) -> None:
        await self.send({"event": "stop"})
        await self._reader
        await self.socket.close()


def is_tone(sound: bytes, carrier: AudioFormat) -> bool:
    """True if the sound that was heard is the model's tone, and not noise."""
    bridge = Transcoder(carrier, PCM16_24K)
    samples = np.frombuffer(bridge.push(sound) + bridge.flush(), "<i2").astype(float)
    samples = samples[2_400 : 2_400 + 12_000]
    spectrum = np.abs(np.fft.rfft(samples)) ** 2
    peak = int(spectrum.argmax())
    return bool(spectrum[max(0, peak - 20) : peak + 20].sum() > 0.9 * spectrum.sum())


async def hangs_up(app: App, ringing: Ringing, phone: BarePhone) -> None:
    await phone.close()
    assert (await app.ended(ringing)).reason is EndReason.CALLER_HUNG_UP


@pytest.mark.parametrize(
    "begin",
    [
        (),
        ({"event": "connected"},),
        ({"event": "media", "media": {"payload": "//8="}}, {"event": "dtmf", "dtmf": {}}),
    ],
)
@pytest.mark.parametrize("fields", [{}, {"timestamp": None, "chunk": "?"}, {"timestamp": "0"}])
async def test_a_simulator_that_leaves_everything_out_is_heard_and_answered(
    begin: tuple[dict[str, Any], ...], fields: dict[str, Any]
) -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=600)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        ringing = await twilio.ring(app.url)
        phone = await BarePhone.start(ringing, begin=begin)
        await until(lambda: len(phone.heard) >= PCMU_8K.ms_to_bytes(600))
        tone = Transcoder(PCM16_24K, PCMU_8K).push(TONE_24K)
        await phone.speak(tone, PCMU_8K.ms_to_bytes(20), **fields)
        await until(lambda: caller_is_heard(voice))
        await hangs_up(app, ringing, phone)


@pytest.mark.parametrize("greeted", ["before", "after"])
@pytest.mark.parametrize(
    ("encoding", "carrier"),
    [
        ("audio/x-l16", PCM16_8K),
        ("audio/x-l16", PCM16_16K),
        ("audio/x-l16", PCM16_24K),
        ("audio/x-alaw", PCMA_8K),
    ],
)
async def test_sound_goes_in_the_format_of_the_stream(
    encoding: str, carrier: AudioFormat, greeted: str
) -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=800)])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        ringing = await twilio.ring(app.url)
        if greeted == "before":  # the greeting was made for mu-law, and waits
            await voice.until(lambda: bool(voice.connections) and voice.created == 1)
            await asyncio.sleep(0.2)
        given = {"encoding": encoding, "sampleRate": carrier.rate_hz, "channels": 1}
        phone = await BarePhone.start(ringing, mediaFormat=given)
        await app.event(ringing, StreamOpened)
        await until(lambda: len(phone.heard) >= carrier.ms_to_bytes(790))
        assert is_tone(phone.heard, carrier)
        sound = Transcoder(PCM16_24K, carrier).push(TONE_24K)
        await phone.speak(sound, carrier.ms_to_bytes(20) + carrier.bytes_per_sample - 1)
        await until(lambda: caller_is_heard(voice))
        heard = np.frombuffer(bytes(voice.latest.audio[-24_000:]), "<i2")
        assert level_dbfs(heard) > -30
        await hangs_up(app, ringing, phone)


async def test_a_format_that_cannot_be_converted_is_refused_in_words(
    caplog: pytest.LogCaptureFixture,
) -> None:
    voice = ScriptedVoiceServer()
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        ringing = await twilio.ring(app.url)
        await app.event(ringing, CallAdmitted)
        phone = await BarePhone.start(ringing, mediaFormat={"encoding": "audio/opus"})
        await within(10, phone.socket.wait_closed())
        assert phone.socket.close_code == 1008
        await phone._reader
        await ringing.webhooks.report("completed")
    (refused,) = [r.__dict__ for r in caplog.records if r.message == "media stream refused"]
    assert refused["code"] == "media_format"
    assert "audio/opus" in refused["reason"]
    assert "L16 at 8000, 16000 or 24000 Hz" in refused["reason"]
