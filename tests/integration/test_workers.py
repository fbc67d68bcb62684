"""`trunkline serve --workers 2`: several processes that are one server to everybody else."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final, TypeAlias

import httpx2
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from app.errors import DialError
from app.web.login_attempts import WRONG_PASSWORDS
from tests.fakes.carrier import FakeCall, FakeTwilio, Ringing
from tests.fakes.twilio_rest import TwilioApi
from tests.fakes.voice import ScriptedVoiceServer
from tests.fakes.waiting import TIME_LIMIT_S, time_limit, until
from tests.integration.test_command import SECRETS, Served, live, outcome
from tests.integration.test_gateway import ASK, DEAR, rest

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="several workers need Linux"
)


Shared: TypeAlias = tuple[Served, FakeTwilio, TwilioApi]

PATIENT: Final = {"inactivity": {"after_s": 0}, "silence_s": 3600, "claim_s": 120}
"""Servers live in real time, and these callers in time of their own: none is to be given up."""


@contextlib.asynccontextmanager
async def workers(
    folder: Path,
    voice: ScriptedVoiceServer,
    count: int = 2,
    sections: dict[str, Any] | None = None,
    **limits: Any,
) -> AsyncIterator[Shared]:
    options = ("--workers", str(count))
    given = {**(sections or {}), "limits": {**PATIENT, **limits}}
    async with live(folder, voice, *options, **given) as (server, phone, api):
        try:
            yield server, phone, api
        finally:
            # Workers without a supervisor would let their calls finish, and the test wait for it.
            left = processes(server)
            await server.process.end()
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shared]:
    """Two workers, which take seconds to start, for tests that leave no call behind."""
    folder = tmp_path_factory.mktemp("workers")
    async with ScriptedVoiceServer() as voice, workers(folder, voice) as found:
        found[2].keeps_alive = False  # no test may leave a connection
        yield found


async def none_left(server: Served) -> None:
    """All calls of all workers are over."""
    async with time_limit():
        while await metric(server, "trunkline_calls_active"):  # noqa: ASYNC110 - of other processes
            await asyncio.sleep(0.05)


def worker_of(ringing: Ringing) -> str:
    """The worker that has a call: its stream's address names it."""
    assert ringing.order is not None
    return ringing.order.url.rpartition("/")[2]


async def heard(call: FakeCall) -> None:
    """The agent has spoken to this caller; it says one sentence."""
    await call.wait_for(lambda: call.heard_ms > 0)


def admitted(server: Served) -> int:
    """Calls that were admitted so far, by the log."""
    return sum(line["message"] == "call admitted" for line in server.lines())


def processes(server: Served) -> list[int]:
    """The workers' processes, in the order of their start."""
    pid = server.process.pid
    if not Path(f"/proc/{pid}/task/{pid}/children").exists():
        return []
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def read(server: Served, path: str) -> httpx2.Response:
    headers = {"authorization": f"Bearer {SECRETS['METRICS_TOKEN']}"}
    async with httpx2.AsyncClient(trust_env=False, timeout=TIME_LIMIT_S) as client:
        return await client.get(server.url + path, headers=headers)


async def metric(server: Served, name: str) -> float:
    lines = (await read(server, "/metrics")).text.splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])


@pytest.mark.asyncio(loop_scope="module")
async def test_calls_are_spread_evenly_and_every_request_finds_its_call(shared: Shared) -> None:
    server, phone, _api = shared
    before = admitted(server)
    calls = [await phone.call(server.url) for _ in range(6)]
    assert Counter(worker_of(call.ringing) for call in calls) == {"w1": 3, "w2": 3}
    for call in calls:
        await heard(call)
    for _ in range(4):  # whichever worker answers
        assert await metric(server, "trunkline_calls_active") == 6
        assert (await read(server, "/readyz")).json()["degraded"] == []
    # Asked again, from whichever worker: the same call, with a stream that takes its caller.
    again = [await phone.ring(server.url, call_sid=call.ringing.caller.call_id) for call in calls]
    for call, ringing in zip(calls, again, strict=True):
        assert worker_of(ringing) == worker_of(call.ringing)
    moved = await again[0].connect()
    await calls[0].ended()
    for call in (moved, *calls[1:]):
        await call.hang_up(report=True)
    await none_left(server)
    assert admitted(server) - before == 6


@pytest.mark.asyncio(loop_scope="module")
async def test_a_token_opens_one_stream_whichever_worker_it_is_brought_to(shared: Shared) -> None:
    server, phone, _api = shared
    for n in range(4):  # callers, each of whom may call ten times a minute
        ringing = await phone.ring(server.url, caller_number=f"+1500556{n:04}")
        streams = await asyncio.gather(*(ringing.connect() for _ in range(4)))
        await until(lambda: sum(one.over for one in streams) == 3)  # noqa: B023
        [taken] = [one for one in streams if not one.over]
        await taken.hang_up()
    foreign = await phone.ring(server.url, caller_number="+15005570000")
    assert foreign.order is not None
    with pytest.raises(DialError, match="31920"):
        await foreign.open_socket(auth_token="another")
    await foreign.webhooks.report("completed")
    await none_left(server)


@pytest.mark.asyncio(loop_scope="module")
async def test_the_capacity_is_that_of_all_workers_however_many_callers_come_at_once(
    shared: Shared,
) -> None:
    server, phone, _api = shared
    rings = await asyncio.gather(
        *(phone.ring(server.url, caller_number=f"+1500555{n:04}") for n in range(70))
    )
    answered = [ringing for ringing in rings if ringing.order is not None]
    assert len(answered) == 50  # limits.max_calls
    ready = await read(server, "/readyz")
    assert ready.status_code == 503
    assert ready.json()["reasons"] == ["at_capacity"]
    for ringing in answered:
        await ringing.webhooks.report("completed")
    await none_left(server)


async def test_what_a_caller_may_use_is_counted_by_all_workers(tmp_path: Path) -> None:
    a_day = {"calls_per_minute": 0, "calls_per_day": 6}  # a busy machine takes minutes for them
    async with (
        ScriptedVoiceServer() as voice,
        workers(tmp_path, voice, per_caller=a_day) as (server, phone, _api),
    ):
        rings = [await phone.ring(server.url) for _ in range(9)]
        answered = [ringing for ringing in rings if ringing.order is not None]
        assert len(answered) == 6
        assert len({worker_of(ringing) for ringing in answered}) == 2
        # The password of a name, guessed at both: one message may still be on its way.
        guessed = [await guess(server) for _ in range(WRONG_PASSWORDS + 6)]
        assert guessed.count(401) in (WRONG_PASSWORDS, WRONG_PASSWORDS + 1)
        assert set(guessed) == {401, 429}


async def guess(server: Served) -> int:
    async with httpx2.AsyncClient(trust_env=False, timeout=TIME_LIMIT_S) as client:
        given = {"name": "mo", "password": "a wrong one"}
        return (await client.post(f"{server.url}/console/login", json=given)).status_code


async def test_a_worker_that_dies_is_replaced_and_the_calls_of_the_other_go_on(
    tmp_path: Path,
) -> None:
    async with ScriptedVoiceServer() as voice, workers(tmp_path, voice) as (server, phone, _api):
        calls = [await phone.call(server.url) for _ in range(4)]
        for call in calls:
            await heard(call)
        os.kill(processes(server)[0], signal.SIGKILL)
        lost = [call for call in calls if worker_of(call.ringing) == "w1"]
        kept = [call for call in calls if worker_of(call.ringing) == "w2"]
        assert len(lost) == len(kept) == 2
        for call in lost:
            await call.ended()
        during = await phone.call(server.url)  # while one is missing
        assert worker_of(during.ringing) == "w2"
        await server.until_logged("worker ended, starting another")
        for call in kept:
            await call.speak(0.2)
            assert not call.over
        async with time_limit():
            for n in range(10_000):  # callers, each of whom may call ten times a minute
                ringing = await phone.ring(server.url, caller_number=f"+1500555{n:04}")
                if worker_of(ringing) == "w1":
                    break
                await ringing.webhooks.report("completed")  # it takes no room until then
                await asyncio.sleep(0.1)
        after = await ringing.connect()
        await heard(after)
        for call in (*kept, during, after):
            await call.hang_up()
        counted: Any = (await read(server, "/metrics")).text
        assert 'trunkline_calls_total{outcome="caller_hung_up"}' in counted


async def test_the_money_of_a_secret_is_spent_once_and_not_in_each_worker(tmp_path: Path) -> None:
    async with ScriptedVoiceServer() as voice:
        channels = {"up": {"url": voice.url, "api_key": "sk-upstream"}}
        gateway = {"channels": channels, "models": {"m": {"channels": ["up"]}}}
        sections = {"gateway": gateway, "prices": {"m": DEAR}}
        async with workers(tmp_path, voice, sections=sections) as (server, _phone, _api):
            await until(lambda: any(server.folder.rglob("api-key")))
            key = next(server.folder.rglob("api-key")).read_text().strip()
            headers = {"authorization": f"Bearer {key}", "connection": "close"}
            async with httpx2.AsyncClient(trust_env=False, timeout=TIME_LIMIT_S) as client:
                made = await client.post(
                    f"{server.url}/v1/realtime/client_secrets",
                    headers=headers,
                    json={"session": {"model": "m"}, "limits": {"max_usd": 0.01}},
                )
            url = f"{server.url.replace('http', 'ws', 1)}/v1/realtime?model=m"
            bearer = {"Authorization": f"Bearer {made.json()['value']}"}
            async with time_limit(), connect(url, additional_headers=bearer) as socket:
                await socket.send(json.dumps(ASK))
                await socket.send('{"type":"response.create"}')
                assert (await rest(socket))[-1]["error"]["code"] == "budget_spent"
            for _ in range(12):  # any worker may take them
                with pytest.raises(InvalidStatus) as refused:
                    async with connect(url, additional_headers=bearer):
                        pass
                assert refused.value.response.status_code == 429


async def test_a_drain_waits_for_the_calls_of_all_workers(tmp_path: Path) -> None:
    async with ScriptedVoiceServer() as voice, workers(tmp_path, voice) as (server, phone, _api):
        calls = [await phone.call(server.url) for _ in range(3)]
        late = await phone.ring(server.url)  # answered before, its stream comes during the drain
        server.process.send_signal(signal.SIGTERM)
        await server.until_logged("draining", times=2)
        assert (await read(server, "/readyz")).status_code == 503
        refused = await phone.ring(server.url)
        assert refused.order is None
        calls.append(await late.connect())
        for call in calls:
            await heard(call)
            await call.hang_up(report=call is not calls[-1])  # with the last call, the server ends
        assert await server.ended() == 0
    ended = [line["reason"] for line in server.lines() if line["message"] == "call ended"]
    assert ended == ["caller_hung_up"] * 4


async def test_a_second_signal_ends_all_workers(tmp_path: Path) -> None:
    async with ScriptedVoiceServer() as voice, workers(tmp_path, voice) as (server, phone, _api):
        calls = [await phone.call(server.url) for _ in range(2)]
        # As a service manager sends it: to every process, besides what the supervisor says.
        for pid in (server.process.pid, *processes(server)):
            os.kill(pid, signal.SIGTERM)
        await server.until_logged("draining", times=2)
        for call in calls:
            await heard(call)
        server.process.send_signal(signal.SIGTERM)
        assert await server.ended() == 1
        for call in calls:
            await call.ended()


async def test_workers_whose_supervisor_is_gone_let_their_calls_finish(tmp_path: Path) -> None:
    async with ScriptedVoiceServer() as voice, workers(tmp_path, voice) as (server, phone, _api):
        call = await phone.call(server.url)
        left = processes(server)
        server.process.kill()
        await server.until_logged("draining", times=2)
        await heard(call)
        await call.hang_up()
        await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in left))


async def test_what_is_wrong_for_all_workers_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("{}")
    arguments = ("serve", "nothing_here:desk", "--port", "0", "--workers", "2")
    code, out, errors = await outcome(*arguments, folder=tmp_path)
    assert (code, out) == (2, "")
    assert errors.count("nothing_here") == 1


@pytest.mark.parametrize("given", ["0", "many"])
async def test_a_number_of_workers_that_is_none_is_refused(tmp_path: Path, given: str) -> None:
    (tmp_path / "config.yaml").write_text("{}")
    code, _out, errors = await outcome("serve", f"--workers={given}", folder=tmp_path)
    assert code == 2
    assert errors == f"--workers: {given} is neither auto nor a number from 1 to 64\n"
