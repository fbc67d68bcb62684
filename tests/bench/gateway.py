"""The cost of a relayed session: the gateway beside a copy of bytes, with 100 sessions at once.

    python -m tests.bench gateway
    python -m tests.bench.gateway 100 --seconds 4 --rounds 20

Each client speaks PCM16 at 24 kHz in pieces of 40 ms; the upstream answers without pause in deltas
of 200 ms, and ends a response, with its usage, every four seconds, each session at another moment.
The gateway meters, pins and keeps as it does for paying clients.

The bare relay knows no websocket, no HTTP and no session: it is less than any server could be. Both
run on uvloop, in processes of their own that live side by side, and move the same bytes: clients
mask, and nobody compresses. One is measured after the other, with its threads and what it does
while nothing comes; clients and upstreams run in this process and are not counted. On a busy
machine both meet several frames in one read, and cold caches. What counts is the ratio of two
neighbours, of which the median is taken: the goal is 1.3.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import random
import statistics
import sys
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from tests.bench.calls import in_loop
from tests.bench.servers import cpu_s, running_process, running_server
from tests.bench.wire import WireClient, WireServer
from tests.fakes.ports import free_port
from tests.fakes.waiting import until

__all__ = ["run"]

CONFIG: Final = """
voice_model: offline
gateway:
  max_sessions: 1000
  channels:
    upstream: {{url: "ws://127.0.0.1:{upstream_port}/v1/realtime", api_key: sk-bench-0123456789}}
  models:
    gpt-realtime-2.1: {{channels: [upstream], transcription: gpt-4o-transcribe}}
server: {{port: {port}}}
limits: {{max_calls: 2}}
logging: {{level: WARNING}}
"""
KINDS: Final = ("bytes", "gateway")
GOAL: Final = 1.3
WARM_UP_S: Final = 2.5
PIECE_S: Final = 0.04
DELTA_S: Final = 0.2
DELTAS_A_RESPONSE: Final = 20
PCM_BYTES_A_S: Final = 48_000


def run(count: int = 100, seconds: float = 4.0, rounds: int = 10) -> dict[str, Any]:
    """Measure both in turns; the median of the rounds' ratios counts."""
    costs = in_loop(_measure(count, seconds, rounds))
    ratios = [ours / bare for bare, ours in zip(*costs.values(), strict=True)]
    return {
        "sessions": count,
        "cpu_ratio": round(statistics.median(ratios), 3),
        "rounds": [round(one, 3) for one in ratios],
        "goal": GOAL,
    } | {kind: round(statistics.median(found), 3) for kind, found in costs.items()}


async def _measure(count: int, seconds: float, rounds: int) -> dict[str, list[float]]:
    """Each server's CPU in ms for each second of a session, round by round."""
    costs: dict[str, list[float]] = {kind: [] for kind in KINDS}
    async with contextlib.AsyncExitStack() as stack:
        loads = [await stack.enter_async_context(_load(kind, count)) for kind in KINDS]
        for _ in range(rounds):
            for load in loads:
                used = await load.cost(seconds)
                costs[load.kind].append(used)
                sys.stderr.write(f"{load.kind:10}{used:7.3f} ms/session-s\n")
    return costs


class _Load:
    """Sessions through one server, silent except while they are measured."""

    def __init__(
        self, kind: str, pid: int, clients: Sequence[_Client], ends: Sequence[_Client | _Upstream]
    ) -> None:
        self.kind = kind
        self._pid = pid
        self._clients = clients
        self._ends = ends

    async def cost(self, seconds: float) -> float:
        """The server's CPU in ms for each second of a session."""
        count = len(self._clients)
        for end in self._ends:
            end.begin()
        # The first pieces meet cold caches, and charges wait for their batch: it is as many of the
        # seconds before that are written while the cost is taken as are not written yet at its end.
        await asyncio.sleep(WARM_UP_S)
        heard, before_s, began = self._events, cpu_s(self._pid), time.perf_counter()
        await asyncio.sleep(seconds)
        used_s, lasted_s = cpu_s(self._pid) - before_s, time.perf_counter() - began
        came = self._events - heard
        for end in self._ends:
            end.stop()
        wanted = count * lasted_s / DELTA_S
        if not 0.9 * wanted < came < 1.1 * wanted:
            raise RuntimeError(f"{self.kind}: {came} events came, about {wanted:.0f} were sent")
        return used_s / (count * lasted_s) * 1_000

    @property
    def _events(self) -> int:
        return sum(client.events for client in self._clients)


@contextlib.asynccontextmanager
async def _load(kind: str, count: int) -> AsyncIterator[_Load]:
    upstreams: list[_Upstream] = []
    clients: list[_Client] = []
    ends: list[_Client | _Upstream] = []
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: _Upstream(upstreams), "127.0.0.1", 0)
    upstream_port = listening.sockets[0].getsockname()[1]
    async with listening, _server(kind, upstream_port) as (url, pid):
        try:
            for _ in range(count):
                client = _Client(url)
                await client.connect()
                clients.append(client)
            await until(lambda: len(upstreams) == count)
            ends += [*clients, *upstreams]
            yield _Load(kind, pid, clients, ends)
        finally:
            for end in ends:
                end.stop()
                end.transport.close()


@contextlib.asynccontextmanager
async def _server(kind: str, upstream_port: int) -> AsyncIterator[tuple[str, int]]:
    path = "/v1/realtime?model=gpt-realtime-2.1"
    if kind == "bytes":
        port = free_port()
        command = ["-m", "tests.bench.byte_copy", str(port), str(upstream_port)]
        async with running_process(command, port) as pid:
            yield f"ws://127.0.0.1:{port}{path}", pid
        return
    async with running_server(CONFIG, upstream_port=upstream_port) as server:
        yield f"{server.url.replace('http', 'ws', 1)}{path}", server.pid


class _Speaking:
    """Says something at a fixed pace, by absolute deadlines."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._at_s = 0.0
        self._next: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        loop = asyncio.get_running_loop()
        self._at_s = loop.time() + random.random() * self._every_s
        self._next = loop.call_at(self._at_s, self._tick)

    def stop(self) -> None:
        if self._next is not None:
            self._next.cancel()

    def _tick(self) -> None:
        self.speak()
        self._at_s += self._every_s
        self._next = asyncio.get_running_loop().call_at(self._at_s, self._tick)

    def speak(self) -> None:
        raise NotImplementedError


class _Client(_Speaking, WireClient):
    """A client that speaks without end."""

    def __init__(self, url: str) -> None:
        WireClient.__init__(self, url)
        _Speaking.__init__(self, PIECE_S)
        self.events = 0
        sound = base64.b64encode(os.urandom(round(PIECE_S * PCM_BYTES_A_S))).decode()
        self._piece = f'{{"type":"input_audio_buffer.append","audio":"{sound}"}}'.encode()

    def speak(self) -> None:
        self.send(self._piece)

    def on_text(self, text: bytes) -> None:
        self.events += 1


class _Upstream(_Speaking, WireServer):
    """A model that speaks without end; what it hears it drops."""

    def __init__(self, all_of_them: list[_Upstream]) -> None:
        WireServer.__init__(self)
        _Speaking.__init__(self, DELTA_S)
        self._all = all_of_them
        self._deltas = random.randrange(DELTAS_A_RESPONSE)  # or all responses would end together
        sound = base64.b64encode(os.urandom(round(DELTA_S * PCM_BYTES_A_S))).decode()
        self._delta = (
            '{"type":"response.output_audio.delta","event_id":"event_Cabcdefgh0123456789","response_id"'
            ':"resp_Cabcdefgh0123456789","item_id":"item_Cabcdefgh0123456789","output_index":0,'
            f'"content_index":0,"delta":"{sound}"}}'
        ).encode()

    def on_open(self) -> None:
        self._all.append(self)
        session = {"type": "realtime", "id": "sess_bench", "model": "gpt-realtime-2.1"}
        self.send(json.dumps({"type": "session.created", "session": session}).encode())

    def speak(self) -> None:
        self._deltas += 1
        if self._deltas % DELTAS_A_RESPONSE:
            self.send(self._delta)
            return
        usage = {
            "total_tokens": 120,
            "input_tokens": 40,
            "output_tokens": 80,
            "input_token_details": {"text_tokens": 10, "audio_tokens": 30, "cached_tokens": 0},
            "output_token_details": {"text_tokens": 20, "audio_tokens": 60},
        }
        response = {"id": f"resp_{id(self)}_{self._deltas}", "status": "completed", "usage": usage}
        self.send(json.dumps({"type": "response.done", "response": response}).encode())


def main() -> None:
    """`python -m tests.bench.gateway [COUNT]`"""
    parser = argparse.ArgumentParser()
    parser.add_argument("count", nargs="?", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=10)
    asked = parser.parse_args()
    found = run(asked.count, asked.seconds, asked.rounds)
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
