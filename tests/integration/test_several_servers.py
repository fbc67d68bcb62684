"""Two servers behind one address, with a Redis between them.

The proxy in front is a function here: a webhook goes to either server, a stream to the one that its
path names.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.credentials.api_keys import ApiKeys, Scope
from app.credentials.console_logins import Logins
from app.credentials.passwords import Passwords
from app.dial.carrier_http import Endpoints
from app.errors import DialError
from app.redis_link import RedisLink
from tests.fakes.carrier import FakeCall, FakeTwilio, Ringing
from tests.fakes.redis_server import RedisServer, redis_server
from tests.fakes.voice import ScriptedVoiceServer
from tests.fakes.waiting import TIME_LIMIT_S, time_limit, until
from tests.integration.test_command import ACCOUNT, PUBLIC_URL, SECRETS, Served, served
from tests.integration.test_workers import PATIENT, heard

PASSWORD = "a long password of mo"

pytest.importorskip("redis", reason="the extra redis is not installed")


@dataclass
class Servers:
    """Two servers, and the proxy in front of them."""

    by_name: dict[str, Served]
    phone: FakeTwilio
    redis: RedisServer

    async def ring(self, at: str, call_sid: str | None = None) -> Ringing:
        """The webhook of a call comes to one of the two; its stream goes where its path says."""
        ringing = await self.phone.ring(
            self.by_name[at].url,
            call_sid=call_sid,
            caller_number=f"+1500555{len(self.phone.calls):04}",
        )
        if ringing.order is not None:
            there = self.by_name[owner(ringing)].url
            ringing.webhooks._endpoints = Endpoints.of(there, public_url=PUBLIC_URL)
        return ringing

    async def call(self, at: str) -> FakeCall:
        return await (await self.ring(at)).connect()

    async def report(self, call: FakeCall, at: str) -> None:
        """The status callback comes to the server `at`."""
        there = Endpoints.of(self.by_name[at].url, public_url=PUBLIC_URL)
        call.ringing.webhooks._endpoints = there
        assert await call.ringing.webhooks.report("completed", duration_s=1) == 200

    async def ready(self, name: str) -> dict[str, object]:
        headers = {"authorization": f"Bearer {SECRETS['METRICS_TOKEN']}"}
        async with httpx2.AsyncClient(trust_env=False, timeout=TIME_LIMIT_S) as client:
            answer = await client.get(self.by_name[name].url + "/readyz", headers=headers)
        return {"status": answer.status_code, **answer.json()}


def owner(ringing: Ringing) -> str:
    assert ringing.order is not None
    return ringing.order.url.rpartition("/")[2]


@contextlib.asynccontextmanager
async def two_servers(
    folder: Path, voice: ScriptedVoiceServer, **limits: int
) -> AsyncIterator[Servers]:
    token = SECRETS["TWILIO_AUTH_TOKEN"]
    async with contextlib.AsyncExitStack() as stack:
        redis = await stack.enter_async_context(redis_server())
        phone = await stack.enter_async_context(
            FakeTwilio(auth_token=token, account_sid=ACCOUNT, speed=6, public_url=PUBLIC_URL)
        )
        running = {}
        for name in ("one", "two"):
            (folder / name).mkdir()
            config = {
                "openai_realtime": {"url": voice.url, "api_key": "${OPENAI_API_KEY}"},
                "twilio": {
                    "account_sid": ACCOUNT,
                    "auth_token": "${TWILIO_AUTH_TOKEN}",
                    "rest_url": "http://127.0.0.1:9",
                },
                "server": {"public_url": PUBLIC_URL, "metrics_token": "${METRICS_TOKEN}"},
                "bus": {"url": redis.url, "server": name},
                "limits": {**PATIENT, **limits},
            }
            running[name] = await stack.enter_async_context(
                served(folder / name, config=config, **SECRETS)
            )
        servers = Servers(running, phone, redis)
        for name in running:
            await until_degraded(servers, name, [])
        yield servers


async def until_degraded(servers: Servers, name: str, parts: list[str]) -> None:
    async with time_limit():
        while (await servers.ready(name)).get("degraded") != parts:  # noqa: ASYNC110 - over HTTP
            await asyncio.sleep(0.05)


async def test_each_server_answers_for_the_calls_of_both(tmp_path: Path) -> None:
    async with ScriptedVoiceServer() as voice, two_servers(tmp_path, voice) as servers:
        calls = {name: await servers.call(name) for name in ("one", "two")}
        for name, other in (("one", "two"), ("two", "one")):
            call = calls[name]
            assert owner(call.ringing) == name
            await heard(call)
            # Asked again at the other server: the same call, which takes its caller's new stream.
            again = await servers.ring(other, call.ringing.caller.call_id)
            assert owner(again) == name
            moved = await again.connect()
            await call.ended()
            await moved.hang_up()
            await servers.report(moved, other)
            await servers.by_name[name].until_logged("call ended")
        # A stream that the proxy sends to the wrong server is refused, and the log says why.
        stray = await servers.ring("one")
        stray.webhooks._endpoints = Endpoints.of(servers.by_name["two"].url, public_url=PUBLIC_URL)
        with pytest.raises(DialError, match="31920"):
            await stray.open_socket()
        await servers.by_name["two"].until_logged("send streams there by their path")
        for name, count in (("one", 2), ("two", 1)):
            server = servers.by_name[name]
            await server.until_logged("call admitted", times=count)
            admitted = [line for line in server.lines() if line["message"] == "call admitted"]
            assert len(admitted) == count


async def test_a_server_that_is_killed_takes_no_call_of_the_other_along(tmp_path: Path) -> None:
    async with ScriptedVoiceServer() as voice, two_servers(tmp_path, voice) as servers:
        lost, kept = [[await servers.call(name) for _ in range(10)] for name in ("one", "two")]
        for call in (*lost, *kept):
            await heard(call)
        servers.by_name["one"].process.kill()
        for call in lost:
            await call.ended()
        during = [await servers.call("two") for _ in range(3)]
        for call in (*kept, *during):
            call.say(0.2)
        for call in (*kept, *during):
            await call.speak(0.1)
            assert not call.over
            call.assert_clean()
            await call.hang_up()
        await servers.by_name["two"].until_logged("call ended", times=13)
    ended = [
        line["reason"] for line in servers.by_name["two"].lines() if line["message"] == "call ended"
    ]
    assert ended == ["caller_hung_up"] * 13


async def test_calls_are_answered_while_redis_hangs_and_both_meet_again_afterwards(
    tmp_path: Path,
) -> None:
    async with ScriptedVoiceServer() as voice, two_servers(tmp_path, voice) as servers:
        servers.redis.freeze()
        calls = [await servers.call(name) for name in ("one", "two", "one")]
        assert [owner(call.ringing) for call in calls] == ["one", "two", "one"]
        for name in ("one", "two"):
            await until_degraded(servers, name, ["bus"])
            assert (await servers.ready(name))["status"] == 200
        for call in calls:
            await heard(call)
        servers.redis.thaw()
        for name in ("one", "two"):
            await until_degraded(servers, name, [])
        again = await servers.ring("two", calls[0].ringing.caller.call_id)
        assert owner(again) == "one"
        for call in calls:
            await call.hang_up()
        await until(lambda: all(call.over for call in calls))


async def test_a_server_that_drains_gives_new_callers_to_the_other(tmp_path: Path) -> None:
    async with ScriptedVoiceServer() as voice, two_servers(tmp_path, voice) as servers:
        call = await servers.call("one")
        one = servers.by_name["one"]
        one.process.send_signal(signal.SIGTERM)
        await one.until_logged("draining")
        ringing = await servers.ring("one")
        assert owner(ringing) == "two"
        await heard(await ringing.connect())
        await heard(call)
        await call.hang_up()
        assert await one.ended() == 0
        assert "call turned away" not in {line["message"] for line in one.lines()}


async def test_a_server_that_is_full_gives_new_callers_to_the_other_while_it_has_room(
    tmp_path: Path,
) -> None:
    async with (
        ScriptedVoiceServer() as voice,
        two_servers(tmp_path, voice, max_calls=2) as servers,
    ):
        owners = [owner((await servers.call("one")).ringing) for _ in range(4)]
        assert owners == ["one", "one", "two", "two"]
        assert (await servers.ring("one")).order is None  # all lines are busy
        assert (await servers.ring("two")).order is None


@pytest.mark.parametrize(
    ("user", "host", "reason"),
    [
        ("", "localhost:1", "Error 111 connecting to localhost:1"),
        ("", "redis.invalid", "connecting to redis.invalid:6379"),
        ("nobody:secret@", "", "invalid username-password pair"),
        ("", None, "Timeout reading from"),
    ],
    ids=["closed port", "unknown name", "wrong password", "hangs"],
)
async def test_a_redis_that_is_not_there_at_the_start_is_told_once_with_its_reason(
    user: str, host: str | None, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with redis_server() as redis:
        if host is None:
            redis.freeze()
        link = RedisLink(f"redis://{user}{host or f'127.0.0.1:{redis.port}'}/0")
        async with link.open("one", lambda frame: None):
            await until(lambda: caplog.records)
            link.post(b"{}")
            await asyncio.sleep(0.6)  # it is tried again, and says nothing more
        (record,) = caplog.records
        assert record.message == "other servers are not reached"
        assert reason in record.__dict__["reason"]
        assert "secret" not in record.__dict__["reason"]


# The console --------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def browser(servers: Servers, name: str, cookie: str = "") -> AsyncIterator[Browser]:
    """A browser whose requests the proxy brings to one of the servers."""
    url = servers.by_name[name].url
    headers = {"origin": url, **({"cookie": cookie} if cookie else {})}
    async with httpx2.AsyncClient(
        base_url=url, trust_env=False, timeout=TIME_LIMIT_S, headers=headers
    ) as client:
        yield Browser(client)


@dataclass
class Browser:
    client: httpx2.AsyncClient

    async def log_in(self, **given: str) -> str:
        """The cookie of a login."""
        answer = await self.client.post("/console/login", json=given)
        assert answer.status_code == 200, answer.text
        cookie, _, _ = answer.headers["set-cookie"].partition(";")
        return cookie

    async def session(self) -> dict[str, Any]:
        found: dict[str, Any] = (await self.client.get("/console/session")).json()
        return found


@pytest.mark.parametrize("way", ["link", "key", "password"])
async def test_a_login_is_known_at_every_server_until_it_ends(tmp_path: Path, way: str) -> None:
    async with ScriptedVoiceServer() as voice, two_servers(tmp_path, voice) as servers:
        state_dir = servers.by_name["one"].folder / "var"
        given = {}
        match way:
            case "link":
                given = {"link": Logins(state_dir).make_link()}
            case "key":
                given = {"key": ApiKeys(state_dir).create("mo", Scope.OPERATOR)[1]}
            case _:
                Passwords(state_dir).set("mo", Scope.OPERATOR, PASSWORD)
                given = {"name": "mo", "password": PASSWORD}
        # A link opens the console at any server. Keys and passwords are those of their own.
        async with browser(servers, "two" if way == "link" else "one") as first:
            cookie = await first.log_in(**given)
            again = await first.client.post("/console/login", json={"link": given.get("link", "")})
            assert again.status_code == 401
        for name in ("two", "one"):
            async with browser(servers, name, cookie) as other:
                found = await other.session()
                scope = "admin" if way == "link" else "operator"
                assert found["client"]["scope"] == scope, found
                assert (await other.client.get("/api/v1/status")).status_code == 200
                acts = {"x-csrf-token": found["csrf"]}
                refused = await other.client.post("/api/v1/doctor", json={})
                assert refused.status_code == 403  # without the token of its page
        async with browser(servers, "two", cookie) as other:
            await other.client.post("/console/logout", json={}, headers=acts)
        for name in ("one", "two"):
            async with browser(servers, name, cookie) as other:
                assert (await other.session())["client"] is None


async def test_without_redis_a_login_counts_where_it_was_opened(tmp_path: Path) -> None:
    async with ScriptedVoiceServer() as voice, two_servers(tmp_path, voice) as servers:
        link = Logins(servers.by_name["one"].folder / "var").make_link()
        async with browser(servers, "one") as first:
            cookie = await first.log_in(link=link)
        servers.redis.freeze()
        for name, known in (("one", True), ("two", False)):
            await until_degraded(servers, name, ["bus"])
            async with browser(servers, name, cookie) as other:
                assert ((await other.session())["client"] is not None) is known
