"""Servers that are killed in mid-campaign: nobody is dialed twice, and nobody is forgotten.

Whoever answers hears the disclosure first, to its end by the carrier's mark, also those who talk
over it. Some contacts are added when the killing is over: they must hear all of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import sqlite3
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest

from app.dial.carrier_http import Caller, Endpoints, Webhooks, http_client
from app.errors import DialError
from app.events import DisclosureHeard
from app.store.codec import of_fields
from tests.chaos.killed_server import start_server
from tests.fakes.carrier import FakeCall, FakeTwilio, Ringing
from tests.fakes.forked import ForkedProcess
from tests.fakes.stress import few_or
from tests.fakes.twilio_phones import Phones
from tests.fakes.twilio_rest import ApiCall, TwilioApi
from tests.fakes.voice import Reply, ScriptedVoiceServer
from tests.fakes.waiting import TIME_LIMIT_S, time_limit
from tests.integration.outbound_site import (
    IDENTITY,
    OPERATOR,
    OURS,
    PUBLIC_URL,
    check_disclosed,
)

pytestmark = pytest.mark.stress

KILLS: Final = int(os.environ.get("CAMPAIGN_KILLS", few_or(6, 52)))
SEED: Final = int(os.environ.get("CAMPAIGN_SEED", "0"))
"""Moments of the kills, and what callees do, follow from it."""
MACHINES: Final = few_or(3, 4)
CONTACTS: Final = 18 * max(12, KILLS) // 12
LATE: Final = [f"+1415555{number}" for number in range(9202, 9211, 3)]
"""Contacts who answer, of whom the campaign learns after the last kill."""
TRIES: Final = 2
"""Calls to each contact that does not answer."""
DISCLOSED_MS: Final = 900
"""The time that each response of the model takes to be said, so the disclosure too."""
FATES: Final = ("busy", "no-answer", "answer")


@dataclass
class Machine:
    """A server that is killed and started again, its carrier, and the phones of its callees."""

    config: Path
    api: TwilioApi
    twilio: FakeTwilio
    phones: Phones
    dice: random.Random
    tasks: asyncio.TaskGroup
    url: str = ""
    server: ForkedProcess | None = None
    dialed: Counter[str] = field(default_factory=Counter)

    async def start(self) -> None:
        self.server, port = await start_server(self.config)
        self.url = f"http://127.0.0.1:{port}"
        self.phones._addresses = (PUBLIC_URL, self.url)

    async def kill(self) -> None:
        assert self.server is not None
        self.server.kill()
        await self.server.wait()

    async def request(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"authorization": f"Bearer {OPERATOR}"}
        async with httpx2.AsyncClient(trust_env=False, timeout=TIME_LIMIT_S) as client:
            url = f"{self.url}/api/v1{path}"
            answer = await client.request(method, url, json=body, headers=headers)
        assert answer.is_success, answer.text
        return answer.json()

    def placed(self, ringing: ApiCall) -> None:
        """A phone rings: what its owner does, whether a server is there to be told or not."""
        self.dialed[ringing.to] += 1
        self.tasks.create_task(self._meet(ringing))

    async def _meet(self, ringing: ApiCall) -> None:
        status = fate_of(ringing.to)
        await self._pause()
        with contextlib.suppress(httpx2.HTTPError):
            await self.phones.ring(ringing.sid)
        await self._pause()
        if status == "answer":
            with contextlib.suppress(httpx2.HTTPError, DialError, OSError):
                await self._answer(ringing)
            status = "completed"
        if ringing.status in ("canceled", "completed"):
            return  # the server has given it up
        with contextlib.suppress(httpx2.HTTPError):
            await self.phones.end(ringing.sid, status)

    async def _pause(self) -> None:
        await asyncio.sleep(self.dice.uniform(0, 0.15))

    async def _answer(self, ringing: ApiCall) -> None:
        with contextlib.suppress(httpx2.HTTPError):
            await self.phones.pick_up(ringing.sid)
        caller = Caller(
            call_id=ringing.sid,
            account_id=self.api.account_sid,
            caller_number=ringing.from_,
            called_number=ringing.to,
        )
        endpoints = Endpoints.of(self.url, public_url=PUBLIC_URL)
        async with http_client() as client:
            webhooks = Webhooks(client, endpoints, self.api.auth_token, caller)
            url = endpoints.as_reached(ringing.option("Url"))
            answer = await webhooks.ask(url, "in-progress", {"Direction": "outbound-api"})
            picked_up = Ringing(self.twilio, caller, webhooks, answer)
            if picked_up.order is None:
                return  # the server knows of an end of this call already, and hangs up
            call = await picked_up.connect()
            if self.dice.random() < 0.5:
                call.say(1.5)  # over the disclosure
                call.press("12#")
            # Less 50 ms, for what is rounded off at its ends.
            least_ms = DISCLOSED_MS - 50 if ringing.to in LATE else 0
            if least_ms or self.dice.random() < 0.5:
                await call.wait_for(lambda: call.over or fell_silent(call, least_ms))
            else:
                await self._pause()
            await call.hang_up()


def fell_silent(call: FakeCall, least_ms: int) -> bool:
    """The agent has spoken for that long, and then not for 300 ms of the call.

    A busy machine may have it pause as long in the middle.
    """
    last_ms = call.stream.detector.last_audible_ms
    return last_ms is not None and call.heard_ms >= least_ms and call.now_ms - last_ms >= 300


def fate_of(number: str) -> str:
    return FATES[int(number[-2:]) % len(FATES)]


async def test_servers_that_are_killed_in_mid_campaign_dial_nobody_twice(tmp_path: Path) -> None:
    # Played at six times its speed: marks are back before all can have been heard by the clock.
    voice = ScriptedVoiceServer(replies=[Reply(text="Hello.", audio_ms=DISCLOSED_MS)] * 500)
    async with voice, asyncio.TaskGroup() as tasks:
        for nth in range(MACHINES):
            folder = tmp_path / str(nth)
            folder.mkdir()
            tasks.create_task(_kill_again_and_again(voice.url, folder, SEED + nth))
    fates = Counter[tuple[str, str]]()
    for nth in range(MACHINES):
        fates += attempts_of(tmp_path / str(nth) / "var" / "calls.db")
    assert {state for state, _ in fates} == {"ended"}
    taken_over = {code for _, code in fates} & {"lost", "server_ended", "never_sent"}
    assert taken_over, fates  # some servers were killed at a moment that matters


def attempts_of(path: Path) -> Counter[tuple[str, str]]:
    """The number of attempts with each state and code."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return Counter(connection.execute("SELECT state, code FROM outbound_attempts"))


async def _kill_again_and_again(voice_url: str, folder: Path, seed: int) -> None:
    dice = random.Random(seed)
    async with (
        TwilioApi(numbers=[{"phone_number": OURS}]) as api,
        FakeTwilio(
            auth_token=api.auth_token, account_sid=api.account_sid, speed=6, public_url=PUBLIC_URL
        ) as twilio,
        Phones(api) as phones,
        asyncio.TaskGroup() as tasks,
    ):
        config = _configured(folder, voice_url, api)
        machine = Machine(config, api, twilio, phones, dice, tasks)
        api.placed = machine.placed
        await machine.start()
        path = f"/campaigns/{await _begin(machine)}"
        for _ in range(KILLS // MACHINES):
            await asyncio.sleep(dice.uniform(0, 1.2))
            await machine.kill()
            await machine.start()
        await machine.request("POST", f"{path}/contacts", {"csv": "\n".join(["number", *LATE])})
        if (await machine.request("GET", path))["state"] == "done":
            await machine.request("POST", f"{path}/resume")
        async with time_limit():
            while True:
                if (await machine.request("GET", path))["state"] == "done":
                    break
                await asyncio.sleep(0.1)
        await _check(machine, path)
        await machine.kill()


async def _begin(machine: Machine) -> str:
    numbers = [f"+14155550{100 + nth}" for nth in range(CONTACTS)]
    outcomes = ("busy", "no_answer", "canceled", "failed", "unknown")
    campaign = {
        "name": "reminders",
        "agent": "caller",
        "attempts": TRIES,
        "retry_s": dict.fromkeys(outcomes, 0),
        "max_calls": 5,
        "calls_per_second": 500,
        "stop_after_failures": 0,
        "csv": "number\n" + "\n".join(numbers),
    }
    made = await machine.request("POST", "/campaigns", campaign)
    await machine.request("POST", f"/campaigns/{made['campaign_id']}/resume")
    return str(made["campaign_id"])


def _configured(folder: Path, voice_url: str, api: TwilioApi) -> Path:
    path = folder / "config.yaml"
    settings = {
        "voice_model": "openai",
        "server": {"port": 0, "public_url": PUBLIC_URL, "operator_token": OPERATOR},
        "api": {"requests_per_s": 1_000},
        "openai_realtime": {"url": voice_url, "api_key": "sk-scripted-model"},
        "twilio": {
            "account_sid": api.account_sid,
            "auth_token": api.auth_token,
            "rest_url": api.url,
            "from_number": OURS,
        },
        "agents": {"caller": {"greeting": "Hello!"}},
        "compliance": {"identity": IDENTITY},
        "outbound": {
            "enabled": True,
            "hours": "00:00-24:00",
            "calls_per_second": 30.0,  # some wait for their turn when the server is killed
            "per_number_per_day": 0,
            "answered_by": {"enabled": False},
        },
    }
    path.write_text(json.dumps(settings))
    return path


async def _check(machine: Machine, path: str) -> None:
    contacts = (await machine.request("GET", f"{path}/contacts"))["contacts"]
    assert {contact["state"] for contact in contacts} == {"done"}
    expected = {
        contact["number"]: 1 if fate_of(contact["number"]) == "answer" else TRIES
        for contact in contacts
    }
    assert machine.dialed == expected
    assert len(expected) == CONTACTS + len(LATE)
    async with time_limit():  # those whose process died are closed some time after
        while True:
            calls = (await machine.request("GET", "/calls?limit=500"))["calls"]
            if all(call["ended_at"] is not None for call in calls):
                break
            await asyncio.sleep(0.1)
    heard = set()
    for call in calls:
        call_id = call["call_id"]
        rows = (await machine.request("GET", f"/calls/{call_id}/events"))["events"]
        events = [of_fields(row["type"], {**row, "call_id": call_id}) for row in rows]
        known = [event for event in events if event is not None]
        assert call["caller_number"] in expected, (call, known)
        assert len(known) == len(rows), rows
        # A try that was cut off would be followed by another one.
        assert all(one.tries == 1 for one in known if isinstance(one, DisclosureHeard)), known
        if check_disclosed(known):
            heard.add(call["caller_number"])
    assert heard >= set(LATE), heard
