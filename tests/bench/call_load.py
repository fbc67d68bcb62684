"""Both ends of many calls, in a process of their own: phones that speak, a model that answers.

One clock sees every sound go in at one end and come out at the other. Conversion keeps lengths
exact, so the n-th 20 ms of one side are the n-th 20 ms of the other, and the time between is the
latency that the server under test adds, and what this process adds itself. Phones send by absolute
deadlines; each call begins at a random point of the 20 ms, as real ones do. Both ends are raw
protocol objects, so that one core carries both ends of some hundred calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import secrets
import statistics
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import httpx2
import msgspec

from app.carrier.base import CarrierCallId, StreamId
from app.carrier.twilio.caller_side import (
    render_caller_media,
    render_connected,
    render_mark_reached,
    render_start,
    render_stop,
)
from app.carrier.twilio.signature import sign_http
from app.dial.twiml import parse_twiml, stream_of
from tests.bench.wire import WireClient, WireServer, frame

__all__ = ["Load", "LoadResult", "Phone", "spread"]

FRAME_MS: Final = 20
DELTA_MS: Final = 200
TOOL_EVERY_DELTAS: Final = 11
"""A tool is called every 2.2 s of the agent's speech; each call at another moment."""
FRAME_BYTES_MODEL: Final = 960  # 20 ms of PCM16 at 24 kHz
ACCOUNT: Final = "AC" + "0" * 32
_KEY: Final = bytes(4)


class _ClientEvent(msgspec.Struct):
    type: str
    audio: str = ""


class _Payload(msgspec.Struct):
    payload: str = ""
    name: str = ""


class _ToPhone(msgspec.Struct):
    event: str
    media: _Payload | None = None
    mark: _Payload | None = None


_read_client = msgspec.json.Decoder(_ClientEvent).decode
_read_server = msgspec.json.Decoder(_ToPhone).decode


@dataclass(slots=True)
class LoadResult:
    """Measurements of both ends. Latencies are seconds."""

    uplink_s: list[float] = field(default_factory=list)
    downlink_s: list[float] = field(default_factory=list)
    barge_in_s: list[float] = field(default_factory=list)
    frames_sent: int = 0
    appends: int = 0
    batched_appends: int = 0
    media_received: int = 0
    sockets_left: int = 0
    errors: int = 0

    def add(self, other: LoadResult) -> None:
        """Put what another stretch of the same load has shown to this one."""
        self.uplink_s += other.uplink_s
        self.downlink_s += other.downlink_s
        self.frames_sent += other.frames_sent
        self.appends += other.appends
        self.batched_appends += other.batched_appends
        self.media_received += other.media_received
        self.errors += other.errors

    def as_json(self) -> dict[str, Any]:
        return {
            "uplink_ms": spread(self.uplink_s),
            "downlink_ms": spread(self.downlink_s),
            "barge_in_ms": spread(self.barge_in_s),
            "frames_sent": self.frames_sent,
            "appends": self.appends,
            "batched_appends": self.batched_appends,
            "media_received": self.media_received,
            "model_sockets_left": self.sockets_left,
            "errors": self.errors,
        }


def spread(values_s: list[float]) -> dict[str, float] | None:
    if not values_s:
        return None
    ordered = sorted(values_s)
    return {
        "p50": round(statistics.median(ordered) * 1000, 3),
        "p99": round(ordered[int(len(ordered) * 0.99)] * 1000, 3),
        "max": round(ordered[-1] * 1000, 3),
    }


class _ModelSide(WireServer):
    """One model connection: answers the session, speaks without pause, counts what it hears."""

    def __init__(self, load: Load) -> None:
        super().__init__()
        self.load = load
        self.heard_bytes = 0
        self.told: list[float] = []
        self.speech_at: float | None = None
        self.place = 0
        self.phone: Phone | None = None
        self._began_s = 0.0
        self._next: asyncio.TimerHandle | None = None
        self._silent = False

    def on_open(self) -> None:
        self.place = self.load.on_answered(self)
        self._tell({"type": "session.created", "session": _session({})})

    def on_end(self) -> None:
        self._stop_talking()
        self.load.on_model_gone(self)

    def on_text(self, text: bytes) -> None:
        if b"input_audio_buffer.append" in text[:80]:
            self._hear(_read_client(text))
            self._start_talking()
        elif b'"function_call_output"' in text:
            self.load.tool_outputs += 1
        else:
            event = json.loads(text)
            if event["type"] == "session.update":
                self._tell({"type": "session.updated", "session": _session(event["session"])})
            elif event["type"] == "response.create":
                self._start_talking()

    def notice_caller(self) -> None:
        """The caller speaks over the agent: say so, and generate no more."""
        self._stop_talking()
        self.speech_at = time.perf_counter()
        self._tell(
            {"type": "input_audio_buffer.speech_started", "item_id": "u1", "audio_start_ms": 0}
        )

    def _hear(self, event: _ClientEvent) -> None:
        now = time.perf_counter()
        size = len(event.audio) * 3 // 4 - event.audio.count("=", -2)
        self.load.result.appends += 1
        if size > FRAME_BYTES_MODEL:
            self.load.result.batched_appends += 1
        first = self.heard_bytes // FRAME_BYTES_MODEL
        self.heard_bytes += size
        if self.phone is None:
            return
        sent = self.phone.sent_at
        for index in range(first, min(self.heard_bytes // FRAME_BYTES_MODEL, len(sent))):
            self.load.result.uplink_s.append(now - sent[index])

    def _start_talking(self) -> None:
        if self._next is not None or self._silent:
            return
        self._tell({"type": "response.created", "response": _response("in_progress")})
        item = {"id": "item_1", "type": "message", "role": "assistant", "content": []}
        self._tell({"type": "conversation.item.added", "item": item})
        self._began_s = asyncio.get_running_loop().time()
        self._talk(0)

    def _stop_talking(self) -> None:
        self._silent = True
        if self._next is not None:
            self._next.cancel()

    def _talk(self, number: int) -> None:
        self.told.append(time.perf_counter())
        self.transport.write(_DELTAS[number % len(_DELTAS)])
        number += 1
        if number % TOOL_EVERY_DELTAS == self.place % TOOL_EVERY_DELTAS:
            if self.load.tool:
                self._call_tool(number)
            if self.load.caller_words:
                self._write_down(number)
        due_s = self._began_s + number * DELTA_MS / 1000
        self._next = asyncio.get_running_loop().call_at(due_s, self._talk, number)

    def _call_tool(self, number: int) -> None:
        item = {
            "id": f"tool_item_{number}",
            "type": "function_call",
            "status": "completed",
            "call_id": f"tool_call_{number}",
            "name": self.load.tool,
            "arguments": "{}",
        }
        head = {"response_id": "resp_1", "output_index": number}
        self._tell({"type": "response.output_item.done", **head, "item": item})

    def _write_down(self, number: int) -> None:
        self._tell(
            {
                "type": "conversation.item.input_audio_transcription.completed",
                "item_id": f"said_{number}",
                "content_index": 0,
                "transcript": self.load.caller_words,
            }
        )

    def _tell(self, event: dict[str, Any]) -> None:
        event = {"event_id": f"event_{secrets.token_hex(4)}", **event}
        self.send(json.dumps(event, separators=(",", ":")).encode())


def _delta(level: int) -> bytes:
    return frame(
        msgspec.json.encode(
            {
                "type": "response.output_audio.delta",
                "event_id": "event_0123456789",
                "response_id": "resp_1",
                "item_id": "item_1",
                "output_index": 0,
                "content_index": 0,
                "delta": level.to_bytes(2, "little") * (24 * DELTA_MS),
            }
        )
    )


# As in speech, levels change all the time: those who watch them are sent what has changed.
_DELTAS: Final = [_delta(0x1000 >> step) for step in range(5)]
_QUIETER: Final = (0x00, 0x20, 0x40, 0x60)
"""Bits of mu-law that, once set, make noise some 12 dB quieter each."""
_LEVEL_FRAMES: Final = 15


def _session(asked: dict[str, Any]) -> dict[str, Any]:
    sound = {"type": "audio/pcm", "rate": 24000}
    base = {
        "type": "realtime",
        "object": "realtime.session",
        "id": "sess_bench",
        "model": "bench",
        "output_modalities": ["audio"],
        "audio": {"input": {"format": sound}, "output": {"format": sound, "voice": "marin"}},
    }
    return {**base, **asked}


def _response(status: str) -> dict[str, Any]:
    return {
        "object": "realtime.response",
        "id": "resp_1",
        "status": status,
        "output": [],
        "conversation_id": "conv_1",
        "output_modalities": ["audio"],
    }


class Phone(WireClient):
    """One caller: speaks noise in real time, hears, returns marks when they were played."""

    def __init__(self, load: Load, number: int, token: str) -> None:
        signed = load.auth_token and sign_http(load.auth_token, load.stream_url)
        super().__init__(load.stream_url, {"X-Twilio-Signature": signed} if signed else {})
        self.load = load
        self.call_sid = CarrierCallId(f"CA{number:032x}")
        self.stream_sid = StreamId(f"MZ{number:032x}")
        self.sent_at: list[float] = []
        self.model: _ModelSide | None = None
        self._token = token
        noise = random.randbytes(160)
        self._payloads = [bytes(byte | bits for byte in noise) for bits in _QUIETER]
        self._sequence = 1
        self._heard_bytes = 0
        self._played_at = 0.0
        self._gone = False
        self._hung_up = False

    def on_open(self) -> None:
        self._say(render_connected())
        self._say(
            render_start(
                self.stream_sid,
                self.call_sid,
                account_id=ACCOUNT,
                parameters={"token": self._token},
            )
        )

    def on_end(self) -> None:
        self._gone = True
        if not self._hung_up:
            self.load.result.errors += 1

    def hang_up(self) -> None:
        self._hung_up = True
        if not self._gone:
            self._say(
                render_stop(
                    self.stream_sid, self.call_sid, account_id=ACCOUNT, sequence=self._sequence
                )
            )
            self.close()

    def speak(self) -> None:
        """Send 20 ms of noise."""
        if self._gone:
            return
        self._sequence += 1
        count = len(self.sent_at)
        text = render_caller_media(
            self.stream_sid,
            self._payloads[count // _LEVEL_FRAMES % len(_QUIETER)],
            chunk=count + 1,
            timestamp_ms=count * FRAME_MS,
            sequence=self._sequence,
        )
        self.sent_at.append(time.perf_counter())
        self._say(text)
        self.load.result.frames_sent += 1

    def _say(self, text: str) -> None:
        self.transport.write(frame(text.encode(), _KEY))

    def on_text(self, text: bytes) -> None:
        message = _read_server(text)
        now = time.perf_counter()
        if message.media is not None:
            self.load.result.media_received += 1
            self._hear(message.media.payload, now)
        elif message.mark is not None:
            asyncio.get_running_loop().call_later(
                max(0.0, self._played_at - now), self._return_mark, message.mark.name
            )
        elif message.event == "clear":
            self._on_clear(now)

    def _on_clear(self, now: float) -> None:
        if self.model is not None and self.model.speech_at is not None:
            self.load.result.barge_in_s.append(now - self.model.speech_at)
            self.model.speech_at = None

    def _return_mark(self, name: str) -> None:
        if not self._gone:
            self._sequence += 1
            self._say(render_mark_reached(self.stream_sid, name, sequence=self._sequence))

    def _hear(self, payload: str, now: float) -> None:
        size = len(payload) * 3 // 4 - payload.count("=", -2)
        self._played_at = max(self._played_at, now) + size / 8000
        per_delta = DELTA_MS * 8
        # A delta's first half is enough to know that it came: conversion lags under 1 ms.
        before = (self._heard_bytes + per_delta // 2) // per_delta
        self._heard_bytes += size
        after = (self._heard_bytes + per_delta // 2) // per_delta
        told = self.model.told if self.model is not None else []
        for index in range(before, min(after, len(told))):
            self.load.result.downlink_s.append(now - told[index])


class Load:
    """Calls against one server. `auth_token` empty: a server without webhook or signature."""

    def __init__(self) -> None:
        self.base_url = ""
        self.stream_url = ""
        self.auth_token = ""
        self.state_dir = Path()
        self.tool = ""
        """The tool that all models call again and again; none when empty."""
        self.tool_outputs = 0
        self.caller_words = ""
        """The transcript of what callers say every 2.2 s; none when empty."""
        self.result = LoadResult()
        self.webhook_s: list[float] = []
        self.http: httpx2.AsyncClient
        self._phones: list[Phone] = []
        self._answered: asyncio.Queue[_ModelSide] = asyncio.Queue()
        self._open: set[_ModelSide] = set()

    @contextlib.asynccontextmanager
    async def model(self) -> AsyncIterator[int]:
        """Serve the model's side; gives its port."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(self.model_side, "127.0.0.1", 0, backlog=1024)
        async with httpx2.AsyncClient(timeout=10) as self.http, server:
            yield server.sockets[0].getsockname()[1]

    def model_side(self) -> WireServer:
        """The model's end of a connection that was opened just now."""
        return _ModelSide(self)

    def on_answered(self, side: _ModelSide) -> int:
        """A model's connection is open; the number of those before it."""
        self._open.add(side)
        self._answered.put_nowait(side)
        return len(self._open) - 1

    def on_model_gone(self, side: _ModelSide) -> None:
        self._open.discard(side)

    async def open_calls(self, count: int) -> None:
        """Open calls one after another, so that each phone is known to its model side."""
        while not self._answered.empty():
            self._answered.get_nowait()  # of a call that somebody else has opened meanwhile
        for _ in range(count):
            number = secrets.randbits(100)
            token = await self.ring(f"CA{number:032x}") if self.auth_token else ""
            phone = Phone(self, number, token)
            async with asyncio.timeout(10):
                await phone.connect()
                side = await self._answered.get()
            phone.model, side.phone = side, phone
            self._phones.append(phone)

    async def ring(self, call_sid: str, caller_number: str = "+15550100100") -> str:
        """Ring; the token of the stream that is to be opened."""
        form = {
            "CallSid": call_sid,
            "AccountSid": ACCOUNT,
            "From": caller_number,
            "To": "+15550100200",
            "CallStatus": "ringing",
            "Direction": "inbound",
        }
        url = f"{self.base_url}/twilio/voice"
        signature = sign_http(self.auth_token, url, form)
        asked = time.perf_counter()
        response = await self.http.post(url, data=form, headers={"X-Twilio-Signature": signature})
        self.webhook_s.append(time.perf_counter() - asked)
        verbs = parse_twiml(response.text, response.headers["content-type"])
        orders = [order for verb in verbs if (order := stream_of(verb)) is not None]
        # One of several workers has the call: the stream's path names it.
        self.stream_url = urljoin(self.stream_url, urlsplit(orders[0].url).path)
        return orders[0].parameters["token"]

    async def talk(self, seconds: float) -> LoadResult:
        """All phones speak for so long; what was measured meanwhile."""
        self.result = LoadResult()
        due: list[list[Phone]] = [[] for _ in range(FRAME_MS)]
        for phone in self._phones:
            random.choice(due).append(phone)
        clock = asyncio.get_running_loop().time
        began_s = clock()
        for slot in range(int(seconds * 1000)):
            late_s = clock() - began_s - slot / 1000
            if late_s < 0:
                await asyncio.sleep(-late_s)
            for phone in due[slot % FRAME_MS]:
                phone.speak()
        await asyncio.sleep(0.05)  # what is on its way counts
        return self.result

    async def barge_in(self) -> None:
        """Every model hears its caller speak over it."""
        for phone in self._phones:
            assert phone.model is not None
            phone.model.notice_caller()
        await asyncio.sleep(1.0)

    async def hang_up(self, wait_s: float = 2.5) -> None:
        """All phones hang up; what model sockets are open after `wait_s` were left behind."""
        for phone in self._phones:
            phone.hang_up()
        self._phones.clear()
        await asyncio.sleep(wait_s)
        self.result.sockets_left = len(self._open)
