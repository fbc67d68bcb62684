"""Mixed calls: most end well, the others are reset, refused, left in silence or meet a bad model.

`Callers` places them against one server, and serves the model that all of them talk to. A caller's
number says how the model is to treat that call: it stands in the agent's instructions.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import re
from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final

import httpx2
import msgspec

from app.carrier.twilio.signature import sign_http
from tests.bench.call_load import ACCOUNT, FRAME_MS, Load, Phone
from tests.bench.wire import WireClient, WireServer

__all__ = ["SHARES", "Callers", "Kind"]

CALLERS: Final = 1_000
"""Numbers that the callers have: the server remembers each for a day."""
CALL_LIMIT_S: Final = 20.0
"""Longer than the server's own limits: a call that is not over by then has hung."""


class Kind(StrEnum):
    """The kinds of calls, in the shares of `SHARES`."""

    NORMAL = "normal"
    RESET = "reset"
    REFUSED = "refused"
    SILENT = "silent or aborted"
    MODEL_FAULT = "model fault"


SHARES: Final = {
    Kind.NORMAL: 60,
    Kind.RESET: 10,
    Kind.REFUSED: 10,
    Kind.SILENT: 10,
    Kind.MODEL_FAULT: 10,
}


class Fault(StrEnum):
    """The faults of a model, on the first connection of a call; the next one is well."""

    NOT_CONFIRMED = "closes before it confirms the session"
    GARBAGE = "sends what is not an event"
    FAILS = "fails its responses"
    CUT_OFF = "closes in the middle of an answer"
    BAD_TOOL = "calls a tool that is not there"
    MUTE = "never answers"


# The model ----------------------------------------------------------------------------------------

ANSWER_BYTES: Final = 1_600
"""Of an answer, 200 ms, as the phone gets it."""
_SOUND: Final = "AAAQAAAQ" * 1_600  # the same as PCM16 at 24 kHz, loud enough to be heard
_APPEND_CHARS: Final = 1_300
"""Of 20 ms of the caller; several may travel together."""
_NUMBER: Final = re.compile(r"caller (\+\d+)")
_SPEECH_FROM: Final = 5
_SPEECH_TO: Final = 12
"""The frames of the caller between which they speak, whatever is in them."""


class _Model(WireServer):
    """One connection of the model."""

    def __init__(self, fault_of: Callable[[str], Fault | None]) -> None:
        super().__init__()
        self._fault_of = fault_of
        self._fault: Fault | None = None
        self._ids = itertools.count(1)
        self._frames = 0
        self._configured = self._speaks = self._spoke = False

    def on_open(self) -> None:
        self._tell("session.created", session={"id": "sess_soak"})

    def on_text(self, text: bytes) -> None:
        if b"input_audio_buffer.append" in text[:80]:
            self._hear(text)
            return
        event = json.loads(text)
        if event["type"] == "session.update":
            self._configure(event["session"])
        elif event["type"] == "response.create":
            self._answer()

    def _configure(self, session: dict[str, Any]) -> None:
        caller = None if self._configured else _NUMBER.search(session.get("instructions", ""))
        self._configured = True
        if caller is not None:
            self._fault = self._fault_of(caller[1])
        if self._fault is Fault.NOT_CONFIRMED:
            self.close(1011)
            return
        self._tell("session.updated", session=session)
        if self._fault is Fault.GARBAGE:
            for text in (b"nonsense", b"{}", b"[]", b'{"type":"response.done"}', b'{"type":"x"}'):
                self.send(text)

    def _hear(self, text: bytes) -> None:
        self._frames += max(1, len(text) // _APPEND_CHARS)
        if self._frames >= _SPEECH_FROM and not self._speaks:
            self._speaks = True
            self._tell("input_audio_buffer.speech_started", item_id="user_1", audio_start_ms=0)
        if self._frames >= _SPEECH_TO and not self._spoke:
            self._spoke = True
            self._tell("input_audio_buffer.speech_stopped", item_id="user_1", audio_end_ms=9)
            self._tell("input_audio_buffer.committed", item_id="user_1")
            self._tell(
                "conversation.item.input_audio_transcription.completed",
                item_id="user_1",
                content_index=0,
                transcript="What time is it?",
            )
            self._answer()

    def _answer(self) -> None:
        if self._fault is Fault.MUTE:
            return
        number = next(self._ids)
        response: dict[str, Any] = {"id": f"resp_{number}", "output": []}
        self._tell("response.created", response={**response, "status": "in_progress"})
        if self._fault is Fault.FAILS:
            failed = {"type": "failed", "error": {"type": "server_error", "code": "server_error"}}
            response |= {"status": "failed", "status_details": failed}
            self._tell("response.done", response=response)
            return
        item = {"id": f"item_{number}", "type": "message", "role": "assistant"}
        place = {"response_id": response["id"], "output_index": 0}
        self._tell("response.output_item.added", **place, item={**item, "content": []})
        part = {**place, "item_id": item["id"], "content_index": 0}
        self._tell("response.output_audio.delta", **part, delta=_SOUND)
        if self._fault is Fault.CUT_OFF:
            self.transport.abort()
            return
        self._tell("response.output_audio_transcript.done", **part, transcript="It is nine.")
        self._tell("response.output_audio.done", **part)
        spoken = [{"type": "output_audio", "transcript": "It is nine."}]
        output = [{**item, "status": "completed", "content": spoken}]
        if self._fault is Fault.BAD_TOOL:
            self._fault = None
            names = {"id": f"tool_{number}", "call_id": f"call_{number}", "name": "nobody"}
            output.append({"type": "function_call", "arguments": "{}", **names})
        for at, each in enumerate(output):
            done = {"response_id": response["id"], "output_index": at, "item": each}
            self._tell("response.output_item.done", **done)
        self._tell("response.done", response={**response, "status": "completed", "output": output})

    def _tell(self, kind: str, **fields: Any) -> None:
        if not self.transport.is_closing():
            self.send(msgspec.json.encode({"type": kind, "event_id": "event_soak", **fields}))


# The callers --------------------------------------------------------------------------------------


class _SoakPhone(Phone):
    """A phone that waits for what it hears."""

    def __init__(self, load: Load, number: int, token: str) -> None:
        super().__init__(load, number, token)
        self._news = asyncio.Event()

    def on_text(self, text: bytes) -> None:
        super().on_text(text)
        self._news.set()

    def on_end(self) -> None:
        super().on_end()
        self._news.set()

    async def talk(self, seconds: float) -> None:
        """Speak for so long, a frame every 20 ms, or until the stream is over."""
        for _ in range(round(seconds * 1_000) // FRAME_MS):
            if self._gone:
                return
            self.speak()
            await asyncio.sleep(FRAME_MS / 1_000)

    async def hear(self, size_bytes: int) -> None:
        """Wait until so much sound has arrived, played or not, or the stream is over."""
        while self._heard_bytes < size_bytes and not self._gone:
            self._news.clear()
            await self._news.wait()


class SoakLoad(Load):
    """Both ends of the calls."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: dict[str, Fault] = {}
        self.bystanders = False
        """From here on the model speaks without pause, and measures: see `Load`."""

    def model_side(self) -> WireServer:
        return super().model_side() if self.bystanders else _Model(self._fault_of)

    async def renew_http(self) -> None:
        """Close the connections that are kept alive."""
        await self.http.aclose()
        self.http = httpx2.AsyncClient(timeout=10)

    async def open_flooder(self) -> asyncio.Transport:
        """Open one call more; gives its model's end of the connection."""
        await self.open_calls(1)
        model = self._phones[-1].model
        assert model is not None
        return model.transport

    def _fault_of(self, caller_number: str) -> Fault | None:
        fault = self.faults.get(caller_number)
        if fault is not Fault.MUTE:
            self.faults.pop(caller_number, None)
        return fault


class Callers:
    """Places calls of all kinds, so many at a time. `load` has both ends of them."""

    def __init__(self, seed: int) -> None:
        self.load = SoakLoad()
        self.placed: Counter[Kind] = Counter()
        self.oddities: Counter[str] = Counter()
        """Counts of events that the callers did not expect, by kind of call."""
        self._dice = random.Random(seed)
        self._numbers = itertools.count(1)

    async def place(self, calls: int, at_a_time: int) -> None:
        """Place so many calls and see all of them through."""
        kinds = self._dice.choices(list(SHARES), list(SHARES.values()), k=calls)

        async def caller() -> None:
            while kinds:
                kind = kinds.pop()
                try:
                    async with asyncio.timeout(CALL_LIMIT_S):
                        await self._call(kind)
                except (TimeoutError, OSError, httpx2.HTTPError) as error:
                    self.oddities[f"{kind}: {type(error).__name__}"] += 1
                self.placed[kind] += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(at_a_time):
                group.create_task(caller())

    async def _call(self, kind: Kind) -> None:
        match kind:
            case Kind.NORMAL:
                await self._talk()
            case Kind.MODEL_FAULT:
                await self._talk(self._dice.choice(list(Fault)))
            case Kind.RESET:
                phone = await self._open()
                await phone.talk(self._dice.random() * 0.4)
                phone.transport.abort()
                await phone.lost
            case Kind.REFUSED:
                await self._be_refused()
            case Kind.SILENT:
                await self._be_silent()

    async def _talk(self, fault: Fault | None = None) -> None:
        """Speak, hear the answer and hang up; the server may end the call before."""
        phone = await self._open(fault)
        await phone.talk(0.32)
        await phone.hear(2 * ANSWER_BYTES)
        phone.hang_up()
        await phone.lost

    async def _open(self, fault: Fault | None = None, token: str | None = None) -> _SoakPhone:
        number = self._dice.getrandbits(100)
        caller_number = f"+1202{2_000_000 + next(self._numbers) % CALLERS}"
        if fault is not None:
            self.load.faults[caller_number] = fault
        ours = await self.load.ring(f"CA{number:032x}", caller_number)
        phone = _SoakPhone(self.load, number, ours if token is None else token)
        await phone.connect()
        return phone

    async def _be_refused(self) -> None:
        match self._dice.randrange(3):
            case 0:
                form = {"CallSid": "CA" + "0" * 32, "AccountSid": ACCOUNT}
                url = f"{self.load.base_url}/twilio/voice"
                forged = {"X-Twilio-Signature": sign_http("forged", url, form)}
                answer = await self.load.http.post(url, data=form, headers=forged)
                self._note(answer.status_code == 403, "a forged webhook was answered")
            case 1:
                socket = self._silent_socket("forged")
                with contextlib.suppress(ConnectionError):
                    await socket.connect()
                    socket.transport.abort()
                    self._note(False, "a forged handshake was answered")
            case _:
                phone = await self._open(token="borrowed")
                await phone.lost
                self._note(phone.close_code == 1008, "a foreign token opened a stream")

    async def _be_silent(self) -> None:
        number = self._dice.getrandbits(100)
        match self._dice.randrange(4):
            case 0:
                await self.load.ring(f"CA{number:032x}")  # and never open the stream
            case 1:
                await self.load.ring(f"CA{number:032x}")
                socket = self._silent_socket(self.load.auth_token)
                await socket.connect()
                await socket.lost  # by the server's limit for a start
            case 2:
                phone = await self._open()
                phone.transport.close()  # neither a stop nor a close frame
                await phone.lost
            case _:
                host, port = self.load.base_url.removeprefix("http://").split(":")
                _, writer = await asyncio.open_connection(host, int(port))
                writer.write(b"POST /twilio/voice HTTP/1.1\r\nHost: ")
                await asyncio.sleep(0.2)
                writer.close()

    def _silent_socket(self, auth_token: str) -> WireClient:
        url = self.load.stream_url
        return WireClient(url, {"X-Twilio-Signature": sign_http(auth_token, url)})

    def _note(self, expected: bool, oddity: str) -> None:
        if not expected:
            self.oddities[oddity] += 1
