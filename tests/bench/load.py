"""Both ends of many calls, in a process of their own: phones that speak, a model that answers.

One clock sees every sound go in at one end and come out at the other. Conversion keeps lengths
exact, so the n-th 20 ms of one side are the n-th 20 ms of the other, and the time between is the
latency that the server under test adds. Phones send by absolute deadlines; each call begins at a
random point of the 20 ms, as real ones do.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import random
import secrets
import statistics
import time
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

import httpx2
import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

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

__all__ = ["Load", "LoadResult", "spread"]

FRAME_S: Final = 0.02
DELTA_MS: Final = 200
TOOL_EVERY_DELTAS: Final = 11
"""A tool is called every 2.2 s of the agent's speech; each call at another moment."""
FRAME_BYTES_MODEL: Final = 960  # 20 ms of PCM16 at 24 kHz
ACCOUNT: Final = "AC" + "0" * 32


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


class _ModelSide:
    """One model connection: answers the session, speaks without pause, counts what it hears."""

    def __init__(self, load: Load, socket: ServerConnection) -> None:
        self.load = load
        self.socket = socket
        self.heard_bytes = 0
        self.told: list[float] = []
        self.speech_at: float | None = None
        self.place = len(load._open)
        self.phone: _Phone | None = None
        self._talking: asyncio.Task[None] | None = None

    async def run(self) -> None:
        await self._send({"type": "session.created", "session": _session({})})
        try:
            async for text in self.socket:
                assert isinstance(text, str)
                if "input_audio_buffer.append" in text[:80]:
                    self._hear(_read_client(text))
                    if self._talking is None:
                        self._talking = asyncio.create_task(self._talk())
                    continue
                if '"function_call_output"' in text:
                    self.load.tool_outputs += 1
                    continue
                event = json.loads(text)
                if event["type"] == "session.update":
                    await self._send(
                        {"type": "session.updated", "session": _session(event["session"])}
                    )
                elif event["type"] == "response.create" and self._talking is None:
                    self._talking = asyncio.create_task(self._talk())
        except ConnectionClosed:
            pass
        finally:
            if self._talking is not None:
                self._talking.cancel()

    async def notice_caller(self) -> None:
        """The caller speaks over the agent: say so, and generate no more."""
        if self._talking is not None:
            self._talking.cancel()
        self.speech_at = time.perf_counter()
        await self._send(
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

    async def _talk(self) -> None:
        delta = base64.b64encode(b"\x00\x10" * (24 * DELTA_MS)).decode("ascii")
        head = {"response_id": "resp_1", "item_id": "item_1", "output_index": 0, "content_index": 0}
        await self._send({"type": "response.created", "response": _response("in_progress")})
        item = {"id": "item_1", "type": "message", "role": "assistant", "content": []}
        await self._send({"type": "conversation.item.added", "item": item})
        begin = time.perf_counter()
        number = 0
        while True:
            await asyncio.sleep(max(0.0, begin + number * DELTA_MS / 1000 - time.perf_counter()))
            self.told.append(time.perf_counter())
            await self._send({"type": "response.output_audio.delta", **head, "delta": delta})
            number += 1
            if self.load.tool and number % TOOL_EVERY_DELTAS == self.place % TOOL_EVERY_DELTAS:
                await self._call_tool(number)

    async def _call_tool(self, number: int) -> None:
        item = {
            "id": f"tool_item_{number}",
            "type": "function_call",
            "status": "completed",
            "call_id": f"tool_call_{number}",
            "name": self.load.tool,
            "arguments": "{}",
        }
        head = {"response_id": "resp_1", "output_index": number}
        await self._send({"type": "response.output_item.done", **head, "item": item})

    async def _send(self, event: dict[str, Any]) -> None:
        event = {"event_id": f"event_{secrets.token_hex(4)}", **event}
        await self.socket.send(json.dumps(event, separators=(",", ":")))


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


class _Phone:
    """One caller: speaks noise in real time, hears, returns marks when they were played."""

    def __init__(self, load: Load, number: int) -> None:
        self.load = load
        self.call_sid = CarrierCallId(f"CA{number:032x}")
        self.stream_sid = StreamId(f"MZ{number:032x}")
        self.sent_at: list[float] = []
        self.model: _ModelSide | None = None
        self.socket: ClientConnection
        self._listening: asyncio.Task[None]
        self._sequence = 1
        self._heard_bytes = 0
        self._played_at = 0.0

    async def open(self) -> None:
        """Ring and open the media stream."""
        token = await self._ring() if self.load.auth_token else ""
        headers = {}
        if self.load.auth_token:
            headers["X-Twilio-Signature"] = sign_http(self.load.auth_token, self.load.stream_url)
        self.socket = await connect(
            self.load.stream_url, additional_headers=headers, compression=None
        )
        await self.socket.send(render_connected())
        await self.socket.send(
            render_start(
                self.stream_sid, self.call_sid, account_id=ACCOUNT, parameters={"token": token}
            )
        )
        self._listening = asyncio.create_task(self._listen(self.socket))

    async def hang_up(self) -> None:
        try:
            await self.socket.send(
                render_stop(
                    self.stream_sid, self.call_sid, account_id=ACCOUNT, sequence=self._sequence
                )
            )
            await self.socket.close()
        except ConnectionClosed:
            self.load.result.errors += 1
        self._listening.cancel()

    async def _ring(self) -> str:
        form = {
            "CallSid": self.call_sid,
            "AccountSid": ACCOUNT,
            "From": "+15550100100",
            "To": "+15550100200",
            "CallStatus": "ringing",
            "Direction": "inbound",
        }
        url = f"{self.load.base_url}/twilio/voice"
        signature = sign_http(self.load.auth_token, url, form)
        asked = time.perf_counter()
        response = await self.load.http.post(
            url, data=form, headers={"X-Twilio-Signature": signature}
        )
        self.load.webhook_s.append(time.perf_counter() - asked)
        verbs = parse_twiml(response.text, response.headers["content-type"])
        orders = [order for verb in verbs if (order := stream_of(verb)) is not None]
        return orders[0].parameters["token"]

    async def speak(self, seconds: float) -> None:
        """Send noise for so long, a frame every 20 ms by absolute deadlines."""
        await asyncio.sleep(random.random() * FRAME_S)
        begin = time.perf_counter()
        frame = bytes(random.randrange(256) for _ in range(160))
        for number in range(int(seconds / FRAME_S)):
            wait = begin + number * FRAME_S - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            self._sequence += 1
            count = len(self.sent_at)
            text = render_caller_media(
                self.stream_sid,
                frame,
                chunk=count + 1,
                timestamp_ms=count * 20,
                sequence=self._sequence,
            )
            self.sent_at.append(time.perf_counter())
            try:
                await self.socket.send(text)
            except ConnectionClosed:
                self.load.result.errors += 1
                return
            self.load.result.frames_sent += 1

    async def _listen(self, socket: ClientConnection) -> None:
        async for text in socket:
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
        self._sequence += 1
        mark = render_mark_reached(self.stream_sid, name, sequence=self._sequence)
        self.load.keep(_send_quietly(self.socket, mark))

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


async def _send_quietly(socket: ClientConnection, text: str) -> None:
    try:
        await socket.send(text)
    except ConnectionClosed:
        return


class Load:
    """Calls against one server. `auth_token` empty: a server without webhook or signature."""

    def __init__(self) -> None:
        self.base_url = ""
        self.stream_url = ""
        self.auth_token = ""
        self.tool = ""
        """The tool that all models call again and again; none when empty."""
        self.tool_outputs = 0
        self.result = LoadResult()
        self.webhook_s: list[float] = []
        self.http: httpx2.AsyncClient
        self._phones: list[_Phone] = []
        self._answered: asyncio.Queue[_ModelSide] = asyncio.Queue()
        self._open: set[_ModelSide] = set()
        self._kept: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def model(self) -> AsyncIterator[int]:
        """Serve the model's side; gives its port."""
        async with (
            httpx2.AsyncClient(timeout=10) as self.http,
            serve(self._serve_model, "127.0.0.1", 0, compression=None, max_size=2**24) as server,
        ):
            yield next(iter(server.sockets)).getsockname()[1]

    async def _serve_model(self, socket: ServerConnection) -> None:
        side = _ModelSide(self, socket)
        self._open.add(side)
        self._answered.put_nowait(side)
        try:
            await side.run()
        finally:
            self._open.discard(side)

    def keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something on the side, referenced until it is done."""
        task = asyncio.ensure_future(work)
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)

    async def open_calls(self, count: int) -> None:
        """Open calls one after another, so that each phone is known to its model side."""
        for _ in range(count):
            phone = _Phone(self, secrets.randbits(100))
            await phone.open()
            async with asyncio.timeout(10):
                side = await self._answered.get()
            phone.model, side.phone = side, phone
            self._phones.append(phone)

    async def talk(self, seconds: float) -> LoadResult:
        """All phones speak for so long; what was measured meanwhile."""
        self.result = LoadResult()
        async with asyncio.TaskGroup() as speaking:
            for phone in self._phones:
                speaking.create_task(phone.speak(seconds))
        return self.result

    async def barge_in(self) -> None:
        """Every model hears its caller speak over it."""
        for phone in self._phones:
            assert phone.model is not None
            await phone.model.notice_caller()
        await asyncio.sleep(1.0)

    async def hang_up(self, wait_s: float = 2.5) -> None:
        """All phones hang up; what model sockets are open after `wait_s` were left behind."""
        for phone in self._phones:
            await phone.hang_up()
        self._phones.clear()
        await asyncio.sleep(wait_s)
        self.result.sockets_left = len(self._open)
