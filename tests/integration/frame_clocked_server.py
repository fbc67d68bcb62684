"""A small server that speaks Twilio Media Streams: says something when spoken to.

For the tests of `trunkline dial`, with which it shares no code. Its time is the caller's frames,
20 ms each, so that it behaves the same at any speed. What it does wrong on purpose is named in
`CallTimers`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse
from twilio.request_validator import RequestValidator

from audio.g711 import decode_ulaw
from audio.level import level_dbfs
from tests.fakes.caller import tone

__all__ = ["AUTH_TOKEN", "CallTimers", "SpeakingServer", "serve"]

AUTH_TOKEN = "a-token-for-tests"
_TURN_OVER_FRAMES = 15


@dataclass(kw_only=True)
class CallTimers:
    """The behaviour of this server."""

    greeting_ms: int = 400
    answer_ms: int = 2_000
    goodbye_after: int = 99
    obeys_barge_in: bool = True
    cuts_its_goodbye: bool = False
    bad_messages: tuple[str | bytes, ...] = ()
    close_code_after_greeting: int | None = None
    transcript: bool = False
    twiml: str | None = None
    content_type: str = "text/xml"
    action_twiml: str | None = None
    status_code: int = 204
    gone_at_end: bool = False
    refuses_handshake: bool = False
    public_host: str | None = None


@dataclass
class SpeakingServer:
    """The server's observations; `url` is where it listens."""

    timers: CallTimers
    port: int = 0
    statuses: list[dict[str, str]] = field(default_factory=list)
    digits: list[str] = field(default_factory=list)
    marks: list[str] = field(default_factory=list)
    stopped: bool = False
    lines: list[dict[str, Any]] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    running: uvicorn.Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def host(self) -> str:
        return self.timers.public_host or f"127.0.0.1:{self.port}"

    def app(self) -> FastAPI:
        app = FastAPI()
        app.add_api_route("/twilio/voice", self.voice, methods=["POST"])
        app.add_api_route("/twilio/status", self.status, methods=["POST"])
        app.add_api_route("/after", self.after, methods=["POST"])
        app.add_api_route("/calls/{call_sid}/transcript", self.transcript, methods=["GET"])
        app.add_api_websocket_route("/media", self.media)
        return app

    async def _form(self, request: Request) -> dict[str, str] | None:
        form = {name: str(value) for name, value in (await request.form()).items()}
        scheme = "https" if self.timers.public_host else "http"
        url = f"{scheme}://{self.host}{request.url.path}"
        signature = request.headers.get("x-twilio-signature", "")
        return form if RequestValidator(AUTH_TOKEN).validate(url, form, signature) else None

    async def voice(self, request: Request) -> Response:
        if await self._form(request) is None:
            return Response(status_code=403)
        action = ' action="/after"' if self.timers.action_twiml is not None else ""
        scheme = "wss" if self.timers.public_host else "ws"
        twiml = self.timers.twiml or (
            f'<Response><Connect{action}><Stream url="{scheme}://{self.host}/media">'
            '<Parameter name="token" value="t0ken"/></Stream></Connect>'
            "<Say>We were cut off.</Say><Hangup/></Response>"
        )
        return Response(twiml, media_type=self.timers.content_type)

    async def after(self, request: Request) -> Response:
        signed = await self._form(request) is not None
        return Response(self.timers.action_twiml, 200 if signed else 403, media_type="text/xml")

    async def status(self, request: Request) -> Response:
        form = await self._form(request)
        if form is not None:
            self.statuses.append(form)
        if self.timers.gone_at_end and self.statuses[-1]["CallStatus"] == "completed":
            assert self.running is not None
            for connection in list(self.running.server_state.connections):
                connection.transport.abort()
        return Response(status_code=self.timers.status_code if form is not None else 403)

    async def transcript(self, request: Request) -> Response:
        url = f"http://{self.host}{request.url.path}"
        signature = request.headers.get("x-twilio-signature", "")
        if not RequestValidator(AUTH_TOKEN).validate(url, {}, signature):
            return Response(status_code=403)
        if not self.timers.transcript:
            return Response(status_code=404)

        async def rows() -> AsyncIterator[str]:
            await self.over.wait()
            for line in self.lines:
                yield json.dumps(line) + "\n"

        return StreamingResponse(rows(), media_type="application/x-ndjson")

    async def media(self, websocket: WebSocket) -> None:
        scheme = "wss" if self.timers.public_host else "ws"
        signature = websocket.headers.get("x-twilio-signature", "")
        good = RequestValidator(AUTH_TOKEN).compute_signature(f"{scheme}://{self.host}/media", {})
        if signature != good or self.timers.refuses_handshake:
            await websocket.close()
            return
        await websocket.accept()
        with contextlib.suppress(WebSocketDisconnect):
            await _Conversation(self, websocket).run()
        self.over.set()


class _Conversation:
    """Energy in, tones out."""

    def __init__(self, server: SpeakingServer, websocket: WebSocket) -> None:
        self.server = server
        self.timers = server.timers
        self.websocket = websocket
        self.stream_sid = ""
        self.turns = 0
        self.loud = 0
        self.quiet = 0
        self.unplayed: set[str] = set()

    async def run(self) -> None:
        assert json.loads(await self.websocket.receive_text())["event"] == "connected"
        start = json.loads(await self.websocket.receive_text())
        assert start["start"]["customParameters"] == {"token": "t0ken"}
        self.stream_sid = start["streamSid"]
        await self.say(self.timers.greeting_ms, "hello")
        for bad in self.timers.bad_messages:
            if isinstance(bad, bytes):
                await self.websocket.send_bytes(bad)
            else:
                await self.websocket.send_text(bad.replace("$SID", self.stream_sid))
        while True:
            message = json.loads(await self.websocket.receive_text())
            match message["event"]:
                case "media":
                    await self.on_frame(base64.b64decode(message["media"]["payload"]))
                case "mark":
                    if await self.on_mark(message["mark"]["name"]):
                        return
                case "dtmf":
                    self.server.digits.append(message["dtmf"]["digit"])
                case "stop":
                    self.server.stopped = True
                    return

    async def on_frame(self, ulaw: bytes) -> None:
        loud = level_dbfs(decode_ulaw(ulaw)) > -40
        self.loud, self.quiet = (self.loud + 1, 0) if loud else (self.loud, self.quiet + 1)
        if loud and self.loud == 5 and self.unplayed and self.timers.obeys_barge_in:
            await self.send({"event": "clear"})
        if self.loud >= 5 and self.quiet == _TURN_OVER_FRAMES:
            self.loud = 0
            await self.answer()

    async def answer(self) -> None:
        self.turns += 1
        last = self.turns >= self.timers.goodbye_after
        await self.say(self.timers.answer_ms, "goodbye" if last else f"answer-{self.turns}")
        if last and self.timers.cuts_its_goodbye:
            await self.websocket.close(1000)
            raise WebSocketDisconnect(1000)

    async def on_mark(self, name: str) -> bool:
        """True when the server is done with the call."""
        self.server.marks.append(name)
        self.unplayed.discard(name)
        code = self.timers.close_code_after_greeting
        if name == "hello" and code is not None:
            await self.websocket.close(code)
            return True
        if name == "goodbye":
            await self.websocket.close(1000)
        return name == "goodbye"

    async def say(self, ms: int, mark: str) -> None:
        sound = tone(ms)
        for at in range(0, len(sound), 1600):
            payload = base64.b64encode(sound[at : at + 1600]).decode()
            await self.send({"event": "media", "media": {"payload": payload}})
        self.unplayed.add(mark)
        await self.send({"event": "mark", "mark": {"name": mark}})
        line = {"at_ms": 100, "who": "agent", "text": mark, "heard_text": mark, "cut_off": False}
        self.server.lines.append(line)

    async def send(self, message: dict[str, Any]) -> None:
        await self.websocket.send_text(json.dumps({**message, "streamSid": self.stream_sid}))


@contextlib.asynccontextmanager
async def serve(timers: CallTimers | None = None) -> AsyncIterator[SpeakingServer]:
    """The server on a free port of the loopback, for as long as the block lasts."""
    server = SpeakingServer(timers or CallTimers())
    listener = socket.create_server(("127.0.0.1", 0))
    server.port = listener.getsockname()[1]
    config = uvicorn.Config(server.app(), log_config=None, lifespan="off", ws="websockets-sansio")
    server.running = running = uvicorn.Server(config)
    task = asyncio.create_task(running.serve(sockets=[listener]))
    try:
        yield server  # the listener is open: who connects before the start waits for it
    finally:
        running.should_exit = True
        await task
        listener.close()
