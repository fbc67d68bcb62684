"""The API of a server of several processes: whichever of them answers, it is one server."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.typing import Origin, Subprotocol

from app.carrier.twilio.signature import sign_http
from tests.fakes.carrier import Ringing
from tests.fakes.waiting import TIME_LIMIT_S, time_limit
from tests.integration.test_command import PUBLIC_URL, SECRETS, Served
from tests.integration.test_supervision import Page
from tests.integration.test_workers import Shared, none_left, shared, worker_of

__all__ = ["shared"]

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="several workers need Linux"),
]


@asynccontextmanager
async def admin(server: Served) -> AsyncIterator[httpx2.AsyncClient]:
    """The bearer of the first key; each of its requests comes to some worker."""
    key = next(server.folder.rglob("api-key")).read_text().strip()
    headers = {"authorization": f"Bearer {key}", "connection": "close"}
    async with httpx2.AsyncClient(
        trust_env=False, timeout=TIME_LIMIT_S, base_url=f"{server.url}/api/v1", headers=headers
    ) as found:
        yield found


async def test_any_worker_sees_and_steers_the_calls_of_all(shared: Shared) -> None:
    server, phone, _ = shared
    calls = [await phone.call(server.url) for _ in range(2)]
    assert {worker_of(call.ringing) for call in calls} == {"w1", "w2"}
    async with admin(server) as client:
        for _ in range(4):
            live = (await client.get("/live/calls")).json()["calls"]
            assert len(live) == 2
            shown = (await client.get("/status")).json()
            assert [one["live"] for one in shown["processes"]] == [1, 1]
        created = [
            await client.post(
                "/keys",
                json={"name": "once", "scope": "viewer"},
                headers={"idempotency-key": "once"},
            )
            for _ in range(6)
        ]
        assert len({answer.text for answer in created}) == 1
        reused = await client.post(
            "/keys",
            json={"name": "other", "scope": "viewer"},
            headers={"idempotency-key": "once"},
        )
        assert reused.status_code == 409

        config = server.folder / "config.yaml"
        text = json.loads(config.read_text())
        config.write_text(json.dumps({**text, "limits": {"silence_s": 77}}))
        answer = await client.post("/reload")
        assert answer.status_code == 200, answer.text
        for _ in range(4):
            shown = (await client.get("/settings")).json()
            assert shown["version"] == answer.json()["version"]

        config.write_text(json.dumps({**text, "limits": {"silence_s": 78}}))
        server.process.send_signal(signal.SIGHUP)
        await server.until_logged("configuration reloaded", times=4)
        versions = {(await client.get("/settings")).json()["version"] for _ in range(4)}
        assert len(versions | {answer.json()["version"]}) == 2

        transcripts = asyncio.gather(
            *[transcript(server, call.ringing) for call in calls for _ in range(4)]
        )
        follows = asyncio.Event()
        ended = asyncio.create_task(ends(client, {call["call_id"] for call in live}, follows))
        await follows.wait()
        for call in live:
            assert (await client.post(f"/calls/{call['call_id']}/hang_up")).status_code == 202
        async with time_limit():
            await ended
            for lines in await transcripts:
                assert {"stream opened", "model ready"} < set(lines)
                assert lines[-1] == "call ended"
    for call in calls:
        await call.ended()
    await none_left(server)


async def transcript(server: Served, ringing: Ringing) -> list[str]:
    """The lines of a call until its end, told by whichever worker is asked."""
    path = f"/calls/{ringing.caller.call_id}/transcript"
    token = SECRETS["TWILIO_AUTH_TOKEN"]
    headers = {"X-Twilio-Signature": sign_http(token, PUBLIC_URL + path), "connection": "close"}
    async with httpx2.AsyncClient(trust_env=False, timeout=TIME_LIMIT_S) as client:
        answer = await client.get(server.url + path, headers=headers)
        return [json.loads(line)["text"] for line in answer.text.splitlines()]


async def ends(client: httpx2.AsyncClient, call_ids: set[str], follows: asyncio.Event) -> None:
    """Follow the feed until all of these calls have ended."""
    async with client.stream("GET", "/live") as answer:
        follows.set()
        async for line in answer.aiter_lines():
            if line.startswith("data: ") and '"type":"call_ended"' in line:
                call_ids.discard(json.loads(line.removeprefix("data: "))["call_id"])
                if not call_ids:
                    return


async def test_any_worker_opens_a_call_of_another_to_a_supervisor(shared: Shared) -> None:
    server, phone, _ = shared
    calls = [await phone.call(server.url) for _ in range(2)]
    for call in calls:
        call.say(1.0)
    async with admin(server) as client, time_limit():
        for live in (await client.get("/live/calls")).json()["calls"]:
            for _ in range(3):
                given = (await client.post(f"/calls/{live['call_id']}/supervise")).json()
                opening = connect(
                    server.url.replace("http", "ws") + given["path"],
                    origin=Origin(server.url),
                    subprotocols=[Subprotocol(given[name]) for name in ("protocol", "ticket")],
                    proxy=None,
                    max_queue=None,
                )
                async with opening as opened:
                    await Page(opened).until(lambda page: page.heard["caller"])
    for call in calls:
        await call.hang_up()
    await none_left(server)
