"""Canaries: secrets and keyed digits come out nowhere, and an erased number is nowhere left.

Looked at are the log at DEBUG, standard output, all files of the state directory, metrics, and the
answers of every route of the API that reads. Documents for the carrier are `test_command`'s.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2

from app.api_keys import first_key_path
from tests.fakes.carrier import FakeTwilio
from tests.fakes.twilio_rest import TwilioApi
from tests.fakes.voice import Reply, ScriptedVoiceServer
from tests.fakes.waiting import TIME_LIMIT_S, time_limit, until
from tests.fakes.web_service import WebService, answer
from tests.integration.test_command import ACCOUNT, PUBLIC_URL, SECRETS, Served, served

PIN = "8675309124"
CALLER = "+15005550913"
WORDS = "A table for two on Friday."
HOOK_SECRET = "canary-of-the-webhooks-of-calls-6"
OPERATOR = "canary-of-the-operators-7"


def config(voice: ScriptedVoiceServer, api: TwilioApi, hook: WebService) -> dict[str, Any]:
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
        "agents": {"desk": {"tools": ["collect_digits"], "instructions": "Ask for the PIN."}},
        "recording": {"enabled": True, "notice": ""},
        "webhooks": {
            "crm": {"url": f"{hook.url}/hook", "secret": HOOK_SECRET, "allow_private": True}
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


async def read_all(client: httpx2.AsyncClient, call_id: str) -> list[str]:
    """Every answer of the API to a GET, and of the other routes that read."""
    described = (await client.get("/api/v1/openapi.json")).json()
    found = [str(described)]
    for path, operations in described["paths"].items():
        if "get" in operations and not path.endswith(("/live", "openapi.json")):
            got = await client.get(path.replace("{call_id}", call_id))
            found.append(f"{path} {got.headers} {got.content.decode('latin-1')}")
    found += [(await client.get(f"/api/v1/calls/{call_id}/explain?format=text")).text]
    metrics = {"authorization": f"Bearer {SECRETS['METRICS_TOKEN']}"}
    found += [(await client.get("/metrics", headers=metrics)).text]
    return found


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
        TwilioApi(account_sid=ACCOUNT, auth_token=token) as api,
        phone,
        served(tmp_path, config=config(voice, api, hook), **secrets) as server,
    ):
        key = first_key_path(tmp_path / "var").read_text().strip()
        await place_call(server, phone)
        async with httpx2.AsyncClient(
            trust_env=False,
            timeout=TIME_LIMIT_S,
            base_url=server.url,
            headers={"authorization": f"Bearer {key}"},
        ) as client:
            call_id = await kept(client)
            await until(lambda: hook.asked)
            before = await read_all(client, call_id)
            assert any(CALLER in text for text in before), "the API shows numbers to its keys"
            assert any(WORDS in text for text in before)
            written = dict(files(tmp_path))
            assert any(CALLER.encode() in content for content in written.values())
            texts = [*before, *server.banner, *server.log, *(str(a.body) for a in hook.asked)]
            refused = ("canary", PIN, key.rpartition("_")[2])
            for word in refused:
                assert [text for text in texts if word in text] == []
                assert [p for p, content in written.items() if word.encode() in content] == []
            assert not [line for line in server.log if CALLER.removeprefix("+") in line]

            erased = await client.post("/api/v1/erase", json={"number": CALLER})
            assert erased.json() == {"erased": [call_id], "still_live": []}
            for path, content in files(tmp_path):
                assert CALLER.removeprefix("+").encode() not in content, path
                assert WORDS.encode() not in content, path
            after = await read_all(client, call_id)
            assert not [text for text in after if CALLER.removeprefix("+") in text]
        server.process.send_signal(signal.SIGTERM)
        assert await server.ended() == 0
        for path, content in files(tmp_path):
            assert CALLER.removeprefix("+").encode() not in content, path


async def kept(client: httpx2.AsyncClient) -> str:
    """The id of the call, once the history has its end."""
    async with time_limit():
        while True:
            found = (await client.get("/api/v1/calls?outcome=answered")).json()["calls"]
            if found:
                return str(found[0]["call_id"])
            await asyncio.sleep(0.05)
