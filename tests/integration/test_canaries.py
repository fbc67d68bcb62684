"""Canaries: secrets and keyed digits come out nowhere, and an erased number is nowhere left.

A call, a session of the gateway and a campaign leave their traces. Looked at are the log at DEBUG,
standard output, all files of the state directory, metrics, the answers of every route of the API
that reads, the live feed, the console's pages, webhooks and spans. Documents for the carrier are
`test_command`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
from websockets.asyncio.client import connect

from app.credentials.api_keys import first_key_path
from tests.fakes.carrier import FakeTwilio
from tests.fakes.twilio_rest import TwilioApi
from tests.fakes.voice import Reply, ScriptedVoiceServer
from tests.fakes.waiting import TIME_LIMIT_S, time_limit, until
from tests.fakes.web_service import WebService, answer
from tests.integration.test_command import ACCOUNT, PUBLIC_URL, ROOT, SECRETS, Served, served

PIN = "8675309124"
CALLER = "+15005550913"
WORDS = "A table for two on Friday."
HOOK_SECRET = "canary-of-the-webhooks-of-calls-6"
OPERATOR = "canary-of-the-operators-7"
UPSTREAM_KEY = "canary-of-an-upstream-8"
COLLECTOR_KEY = "canary-of-the-collector-9"


def config(
    voice: ScriptedVoiceServer, api: TwilioApi, hook: WebService, collector: WebService
) -> dict[str, Any]:
    return {
        "openai_realtime": {
            "url": voice.url,
            "api_key": "${OPENAI_API_KEY}",
            "headers": {"x-probe": "canary-of-a-header-5"},
        },
        "twilio": {
            "account_sid": ACCOUNT,
            "auth_token": "${TWILIO_AUTH_TOKEN}",
            "rest_url": api.url,
        },
        "server": {
            "public_url": PUBLIC_URL,
            "metrics_token": "${METRICS_TOKEN}",
            "operator_token": "${OPERATOR_TOKEN}",
        },
        "logging": {"level": "DEBUG"},
        "api": {"requests_per_s": 1_000},
        "agents": {
            "desk": {
                "tools": ["collect_digits"],
                "instructions": "Ask for the PIN.",
                "variables": {"note": ""},
            }
        },
        "recording": {"enabled": True, "notice": ""},
        "webhooks": {
            "crm": {"url": f"{hook.url}/hook", "secret": HOOK_SECRET, "allow_private": True}
        },
        "otel": {"endpoint": collector.url, "authorization": COLLECTOR_KEY},
        "gateway": {
            "record_sessions": True,
            "channels": {"up": {"url": voice.url, "api_key": UPSTREAM_KEY}},
            "models": {"voice": {"channels": ["up"]}},
        },
    }


def files(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Files that the server has written, but for the key that its user may read."""
    for path in sorted((folder / "var").rglob("*")):
        if path.is_file() and path.name != "api-key":
            yield path, path.read_bytes()


async def place_call(server: Served, phone: FakeTwilio) -> None:
    """A call in which digits are keyed, and something is said."""
    ringing = await phone.ring(server.url, caller_number=CALLER)
    call = await ringing.connect()
    await call.hear(ms=200)
    await call.hear_quiet(ms=300)
    await call.speak(0.5)
    await call.hear(ms=200)
    await call.hear_quiet(ms=300)
    call.press(PIN)
    await server.until_logged("tool ran")
    await call.hear(ms=200)
    await call.hang_up(report=True)
    await server.until_logged("call ended")


async def hold_session(server: Served, key: str) -> None:
    """A session of the gateway whose client tells the model numbers and digits."""
    url = server.url.replace("http", "ws", 1) + "/v1/realtime?model=voice"
    said = [{"type": "input_text", "text": f"{WORDS} I am {CALLER}, my PIN is {PIN}."}]
    item = {"type": "message", "role": "user", "content": said}
    bearer = {"Authorization": f"Bearer {key}"}
    async with connect(url, additional_headers=bearer, compression=None) as client:
        for event in (
            {"type": "conversation.item.create", "item": item},
            {"type": "response.create"},
        ):
            await client.send(json.dumps(event))
        async with time_limit():
            async for text in client:
                if json.loads(text)["type"] == "response.done":
                    break
    await server.until_logged("call ended", times=2)


async def begin_campaign(client: httpx2.AsyncClient) -> str:
    """A campaign and lists that know the number; the campaign's id."""
    made = await client.post(
        "/api/v1/campaigns",
        json={"name": "Recall", "agent": "desk", "csv": f"number,note\n{CALLER},{WORDS}\n"},
    )
    assert made.status_code == 201, made.text
    assert made.json()["contacts"], made.text
    consent = await client.post("/api/v1/consents", json={"number": CALLER, "reason": WORDS})
    assert consent.status_code == 200, consent.text
    return str(made.json()["campaign_id"])


async def read_all(client: httpx2.AsyncClient, call_id: str, campaign_id: str) -> list[str]:
    """Every answer of the API to a GET, of the other routes that read, and the console's pages."""
    described = (await client.get("/api/v1/openapi.json")).json()
    found = [str(described)]
    for path, operations in described["paths"].items():
        if "get" in operations and not path.endswith(("/live", "openapi.json")):
            filled = path.replace("{call_id}", call_id).replace("{campaign_id}", campaign_id)
            got = await client.get(filled)
            assert got.status_code < 500, got.text
            found.append(f"{path} {got.headers} {got.content.decode('latin-1')}")
    pages = ROOT / "app" / "web" / "console"
    for page in (path for path in pages.rglob("*") if path.suffix in {".html", ".js", ".css"}):
        if "vendor" not in page.parts:
            got = await client.get(f"/console/{page.relative_to(pages)}")
            assert got.status_code == 200, page
            found.append(got.text)
    found += [(await client.get(f"/api/v1/calls/{call_id}/explain?format=text")).text]
    metrics = {"authorization": f"Bearer {SECRETS['METRICS_TOKEN']}"}
    found += [(await client.get("/metrics", headers=metrics)).text]
    return found


@contextlib.asynccontextmanager
async def feed(client: httpx2.AsyncClient) -> AsyncIterator[list[str]]:
    """Collects what the live feed tells as long as the block lasts."""
    told: list[str] = []

    async def follow() -> None:
        async with client.stream("GET", "/api/v1/live") as stream:
            assert stream.status_code == 200
            async for line in stream.aiter_lines():
                told.append(line)

    following = asyncio.create_task(follow())
    try:
        yield told
    finally:
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following


def exported(collector: WebService) -> list[str]:
    """The bodies that the collector of spans got."""
    bodies = [
        gzip.decompress(asked.body)
        if asked.headers.get("content-encoding") == "gzip"
        else asked.body
        for asked in collector.asked
    ]
    return [body.decode("latin-1") for body in bodies]


async def test_secrets_and_digits_come_out_nowhere_and_an_erased_number_is_gone(
    tmp_path: Path,
) -> None:
    replies = [
        Reply(text="Hello.", audio_ms=200),
        Reply(text="Your PIN.", audio_ms=200, tool=("collect_digits", '{"max_digits": 10}')),
        Reply(text="Thank you.", audio_ms=300),
    ]
    secrets = {**SECRETS, "OPERATOR_TOKEN": OPERATOR}
    token = SECRETS["TWILIO_AUTH_TOKEN"]
    phone = FakeTwilio(auth_token=token, account_sid=ACCOUNT, speed=6, public_url=PUBLIC_URL)
    async with (
        ScriptedVoiceServer(replies=replies, heard=[WORDS]) as voice,
        WebService(answer(status=500)) as hook,
        WebService(answer(content_type="application/x-protobuf")) as collector,
        TwilioApi(account_sid=ACCOUNT, auth_token=token) as api,
        phone,
        served(tmp_path, config=config(voice, api, hook, collector), **secrets) as server,
    ):
        key = first_key_path(tmp_path / "var").read_text().strip()
        refused = ("canary", PIN, key.split("_", 2)[2])
        async with httpx2.AsyncClient(
            trust_env=False,
            timeout=TIME_LIMIT_S,
            base_url=server.url,
            headers={"authorization": f"Bearer {key}"},
        ) as client:
            async with feed(client) as told:
                await place_call(server, phone)
                call_id = await kept(client)
                await until(lambda: any("call_ended" in line for line in told))
            await hold_session(server, key)
            campaign_id = await begin_campaign(client)
            await until(lambda: hook.asked)
            before = await read_all(client, call_id, campaign_id)
            assert any(CALLER in text for text in before), "the API shows numbers to its keys"
            assert any(WORDS in text for text in before)
            [contacts] = [text for text in before if "{campaign_id}/contacts " in text]
            assert CALLER in contacts
            written = dict(files(tmp_path))
            assert any(CALLER.encode() in content for content in written.values())
            hooked = [str(asked.body) for asked in hook.asked]
            texts = [*before, *told, *server.banner, *server.log, *hooked]
            for word in refused:
                assert [text for text in texts if word in text] == []
                assert [p for p, content in written.items() if word.encode() in content] == []
            assert not [line for line in server.log if CALLER.removeprefix("+") in line]

            erased = await client.post("/api/v1/erase", json={"number": CALLER})
            assert erased.json() == {"erased": [call_id], "still_live": []}
            for path, content in files(tmp_path):
                assert CALLER.removeprefix("+").encode() not in content, path
                assert WORDS.encode() not in content, path
            after = await read_all(client, call_id, campaign_id)
            assert not [text for text in after if CALLER.removeprefix("+") in text]
        server.process.send_signal(signal.SIGTERM)
        assert await server.ended() == 0
        for path, content in files(tmp_path):
            assert CALLER.removeprefix("+").encode() not in content, path
        spans = exported(collector)
        assert spans
        for word in (*refused, CALLER.removeprefix("+"), WORDS):
            assert not [span for span in spans if word in span]


async def kept(client: httpx2.AsyncClient) -> str:
    """The id of the call, once the history has its end."""
    async with time_limit():
        while True:
            found = (await client.get("/api/v1/calls?outcome=answered")).json()["calls"]
            if found:
                return str(found[0]["call_id"])
            await asyncio.sleep(0.05)
