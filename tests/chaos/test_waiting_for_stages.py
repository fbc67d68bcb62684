"""A chain with a faulty stage keeps nobody in silence: recognizer, text model and voice in turn.

All kinds at once on one server, each behind an engine and a stand-in server of its own, and as in
`test_waiting_callers` with a wait of one second in place of four. A faulty stage is faulty on every
request, and may take 20 s. A transcriber that hears nothing is not among them: it has found a
noise, which gets no answer, and a caller who goes on waiting is asked whether they are there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

from app.calls.call import LOST
from app.calls.route import Diversion, Route
from app.carrier.base import IncomingCall
from app.events import CallEnded
from app.realtime.connecting import GuardedModel
from tests.fakes.carrier import FakeCall, FakeTwilio
from tests.fakes.engine_parts import quiet, speech
from tests.fakes.stage_servers import chat_events, chat_stream, piecewise, silent, sse
from tests.fakes.voice import ScriptedVoiceServer
from tests.fakes.waiting import until
from tests.fakes.web_service import Asked, Script, answer
from tests.integration.chain_site import open_chain
from tests.integration.server import App, trunkline

WAIT_MS: Final = 1_000
LONGEST_MS: Final = 4 * WAIT_MS
"""Twice the wait is the promise, which `tests/unit/calls/test_never_silent.py` holds to the tick; a
machine that does other things as well takes longer."""

HEARD: Final = answer(b'{"text": "Are you open?"}')
WRITES: Final = chat_stream("We are open until five.")
SPEAKS: Final = piecewise(speech(400, 24_000), content_type="audio/pcm")


def endless(content_type: str, piece: bytes) -> Script:
    """An answer without end."""

    async def write(_: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 200 x\r\nContent-Type: {content_type}\r\n\r\n".encode())
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.05)

    return write


BLANK: Final = b'data: {"choices": [{"index": 0, "delta": {"content": " "}}]}\n\n'
FAULTS: Final[dict[str, dict[str, Script]]] = {
    "stt": {
        "silent": silent,
        "headers alone": endless("application/json", b""),
        "blanks without end": endless("application/json", b" "),
        "500": answer(status=500),
        "no JSON": answer(b"well"),
    },
    "llm": {
        "silent": silent,
        "headers alone": endless("text/event-stream", b""),
        "comments without end": endless("text/event-stream", b": still here\n\n"),
        "blanks without end": endless("text/event-stream", BLANK),
        "half a sentence": sse(*chat_events("We are")[:2], pause_s=60),
        "no words": chat_stream(),
        "429": answer(status=429),
        "500": answer(status=500),
        "cut off": sse(*chat_events("We are")[:2], cut=True),
    },
    "tts": {
        "silent": silent,
        "headers alone": endless("audio/pcm", b""),
        "silence without end": endless("audio/pcm", quiet(50, 24_000)),
        "no sound": answer(content_type="audio/pcm"),
        "500": answer(status=500),
        "cut off": piecewise(quiet(20, 24_000), content_type="audio/pcm", cut=True),
    },
}
Kind = tuple[str, str]
KINDS: Final[list[Kind]] = [(stage, fault) for stage, faults in FAULTS.items() for fault in faults]
NUMBERS: Final = {kind: f"+1500555{at:04}" for at, kind in enumerate(KINDS)}


class Switch:
    """A stage that is well until it is not."""

    def __init__(self, well: Script, faulty: Script) -> None:
        self._scripts = (well, faulty)
        self.faulty = False

    async def __call__(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        await self._scripts[self.faulty](asked, writer)


@asynccontextmanager
async def chains(kinds: Sequence[Kind], **limits: int) -> AsyncIterator[Site]:
    """A server whose numbers each lead to a chain of their own; its stages are well at first."""
    stages: dict[str, Script] = {"stt": HEARD, "llm": WRITES, "tts": SPEAKS}
    switches: dict[Kind, Switch] = {}
    models: dict[str, GuardedModel] = {}
    async with AsyncExitStack() as stack:
        voice = await stack.enter_async_context(ScriptedVoiceServer())
        policy = {"inactivity_after_ms": 0, **limits}
        app = await stack.enter_async_context(trunkline(voice, policy=policy))
        for kind in kinds:
            stage, fault = kind
            switch = switches[kind] = Switch(stages[stage], FAULTS[stage][fault])
            scripts: dict[str, Script] = {**stages, stage: switch}
            opened = open_chain(stt=scripts["stt"], llm=scripts["llm"], tts=scripts["tts"])
            chain = await stack.enter_async_context(opened)
            models[NUMBERS[kind]] = GuardedModel(chain.engine.model())
        twilio = await stack.enter_async_context(app.twilio(1.0))
        route = app.switchboard._route

        def found(incoming: IncomingCall) -> Route | Diversion:
            usual = route(incoming)
            assert isinstance(usual, Route)
            return replace(usual, model=models[incoming.called_number])

        app.switchboard._route = found
        yield Site(app, twilio, switches)


@dataclass(frozen=True, slots=True)
class Site:
    """The server, its callers, and the faulty stage of each kind."""

    app: App
    twilio: FakeTwilio
    switches: Mapping[Kind, Switch]

    async def call(self, kind: Kind) -> FakeCall:
        return await (await self.twilio.ring(self.app.url, called_number=NUMBERS[kind])).connect()

    async def over(self, call: FakeCall) -> None:
        if not call.over:
            await call.hang_up()
        await self.app.event(call, CallEnded)


async def silent_ms(call: FakeCall) -> int:
    """The time until a sentence is heard, the agent's or the carrier's."""
    began_ms, heard_ms = call.now_ms, call.heard_ms
    await until(lambda: call.over or call.heard_ms > heard_ms + 100, what=lambda: call.counters)
    if call.over:
        assert (await call.ended()).close_code == LOST
    return call.now_ms - began_ms


async def test_a_stage_that_is_faulty_for_good_keeps_nobody_in_silence() -> None:
    async with chains(KINDS, answer_wait_ms=WAIT_MS) as site:

        async def waited_ms(kind: Kind) -> int:
            call = await site.call(kind)
            await call.hear_quiet(ms=300)
            site.switches[kind].faulty = True
            await call.speak(0.4)
            waited = await silent_ms(call)
            await site.over(call)
            return waited

        waits = await asyncio.gather(*map(waited_ms, KINDS))
    assert {k: ms for k, ms in zip(KINDS, waits, strict=True) if ms > LONGEST_MS} == {}


async def test_a_greeting_that_cannot_be_spoken_keeps_nobody_in_silence() -> None:
    kinds = [kind for kind in KINDS if kind[0] == "tts"]
    async with chains(kinds, answer_wait_ms=WAIT_MS) as site:

        async def waited_ms(kind: Kind) -> int:
            site.switches[kind].faulty = True
            call = await site.call(kind)
            waited = await silent_ms(call)
            await site.over(call)
            return waited

        waits = await asyncio.gather(*map(waited_ms, kinds))
    assert {k: ms for k, ms in zip(kinds, waits, strict=True) if ms > LONGEST_MS} == {}


async def test_a_stage_that_fails_for_four_seconds_costs_no_call() -> None:
    """In real time: the pauses between the tries have to reach beyond the outage."""
    kinds = [(stage, fault) for stage, fault in KINDS if fault in ("500", "429", "cut off")]
    async with chains(kinds) as site:

        async def outlived(kind: Kind) -> None:
            call = await site.call(kind)
            await call.hear_quiet(ms=300)
            site.switches[kind].faulty = True
            await call.speak(0.4)
            heard_ms = call.heard_ms
            await asyncio.sleep(4)
            site.switches[kind].faulty = False
            await call.wait_for(lambda: call.heard_ms > heard_ms + 100)
            await site.over(call)

        await asyncio.gather(*map(outlived, kinds))
