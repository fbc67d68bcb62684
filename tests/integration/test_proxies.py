"""Operators' routes behind real proxies, in front of a server with carrier credentials.

nginx and Caddy are installed by `.ci/run`; the tests of one that is not there are skipped.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest

from tests.fakes.ports import free_port
from tests.fakes.voice import Reply, ScriptedVoiceServer
from tests.fakes.waiting import TIME_LIMIT_S, time_limit
from tests.integration.server import trunkline
from tests.integration.test_api import all_routes

TOKENS: Final = {"metrics_token": "token-of-metrics", "operator_token": "token-of-operators"}
TWILIO: Final = {"account_sid": "AC" + "1" * 32, "auth_token": "c" * 32}
PUBLIC: Final = {"public_url": "https://voice.example.com"}

NGINX: Final = """
daemon off; pid {folder}/pid; error_log stderr; worker_processes 1;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://{host}:{server}; {headers} }}
    }}
}}
"""

CADDY: Final = """
{{
    admin off
    auto_https off
}}
:{port} {{
    bind 127.0.0.1
    reverse_proxy {host}:{server} {{
        {headers}
    }}
}}
"""

PROXIES: Final[dict[str, tuple[str, str, str, str]]] = {
    "plain nginx": ("nginx", NGINX, "127.0.0.1", ""),
    "nginx that passes Host on": ("nginx", NGINX, "127.0.0.1", "proxy_set_header Host $http_host;"),
    "nginx that says localhost": ("nginx", NGINX, "127.0.0.1", "proxy_set_header Host localhost;"),
    "plain Caddy": ("caddy", CADDY, "127.0.0.1", ""),
    "Caddy without a mark": (
        "caddy",
        CADDY,
        "127.0.0.1",
        "header_up Host localhost\nheader_up -X-Forwarded-For\nheader_up -X-Forwarded-Host\n"
        "header_up -X-Forwarded-Proto",
    ),
}


@contextlib.asynccontextmanager
async def proxied(kind: str, folder: Path, server: int) -> AsyncIterator[str]:
    """A proxy in front of a port of this machine; its address."""
    name, template, host, headers = PROXIES[kind]
    program = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if program is None:
        pytest.skip(f"{name} is not installed: apt-get install {name}")
    port = free_port()
    config = folder / name
    config.write_text(
        template.format(folder=folder, port=port, host=host, server=server, headers=headers)
    )
    nginx = ["-c", str(config), "-p", str(folder)]
    caddy = ["run", "--adapter", "caddyfile", "--config", str(config)]
    environment = {"HOME": str(folder), "PATH": "/usr/sbin:/usr/bin:/bin"}
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            program,
            *(nginx if name == "nginx" else caddy),
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        async with time_limit(), httpx2.AsyncClient(trust_env=False) as client:
            url = f"http://127.0.0.1:{port}"
            while True:
                assert process.returncode is None, (folder / "log").read_text()
                with contextlib.suppress(httpx2.HTTPError):
                    assert (await client.get(url + "/healthz")).status_code == 200
                    break
                await asyncio.sleep(0.02)
        yield url
    finally:
        process.terminate()
        await process.wait()


def documented_caddy() -> str:
    """The block of docs/operations.md, at an address of this machine."""
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```\nvoice\.example\.com \{\n(.*?)```", text, re.DOTALL)
    site = block.replace("{", "{{").replace("}", "}}").replace("127.0.0.1:8080", "{host}:{server}")
    # Health is asked for by these tests alone: the block passes on what a carrier needs.
    healthz = "handle /healthz {{ reverse_proxy {host}:{server} }}"
    begin = "{{\n    admin off\n    auto_https off\n}}\n:{port} {{\n    bind 127.0.0.1\n"
    return f"{begin}{healthz.replace('{{ ', '{{' + chr(10)).replace(' }}', chr(10) + '}}')}\n{site}"


PROXIES["the documented Caddy"] = ("caddy", documented_caddy(), "127.0.0.1", "")


async def test_a_call_comes_through_the_documented_proxy(tmp_path: Path) -> None:
    voice = ScriptedVoiceServer(replies=[Reply(audio_ms=600)])
    async with (
        voice,
        trunkline(voice, server=dict(PUBLIC), twilio=TWILIO) as app,
        proxied("the documented Caddy", tmp_path, app.trunkline.server.port) as url,
        app.twilio() as twilio,
        httpx2.AsyncClient(trust_env=False, timeout=TIME_LIMIT_S) as client,
    ):
        call = await twilio.call(url)
        await call.hear(ms=500)
        await call.speak(0.4)
        await voice.until(lambda: bool(voice.latest.audio))
        await call.hang_up()
        call.assert_clean()
        assert (await client.get(url + "/metrics")).text == ""  # Caddy's own answer, not ours


OPEN: Final = {"/healthz", "/readyz", "/console", "/console/session"}
"""Paths that answer strangers: health, the page that asks for a key, and who is logged in."""
CLAIMS: Final = (
    {"host": "localhost"},
    {"host": "[::1]", "x-forwarded-for": "127.0.0.1", "x-forwarded-host": "localhost"},
    {"forwarded": "for=127.0.0.1;host=localhost", "x-real-ip": "127.0.0.1"},
    {"authorization": "Bearer null", "cookie": "__Host-trunkline=x; trunkline_console=x"},
)


async def test_every_other_route_is_closed_to_strangers_whatever_they_claim() -> None:
    voice = ScriptedVoiceServer()
    async with voice, trunkline(voice, server=dict(PUBLIC), twilio=TWILIO) as app:
        found = {
            (method, re.sub(r"\{[^}]+\}", "x", route.path))
            for route in all_routes(app)
            for method in getattr(route, "methods", None) or ()
        }
        assert len(found) > 50
        async with httpx2.AsyncClient(trust_env=False, base_url=app.url) as client:
            answers = [
                (path, (await client.request(method, path, headers=claim)).status_code)
                for method, path in found
                for claim in CLAIMS
            ]
    assert {path for path, status in answers if status < 400} == OPEN
    assert not [path for path, status in answers if status >= 500]


@pytest.mark.parametrize("kind", [kind for kind in PROXIES if "documented" not in kind])
async def test_operators_routes_behind_a_proxy_want_a_token(kind: str, tmp_path: Path) -> None:
    async with ScriptedVoiceServer() as voice:
        await _check(kind, tmp_path, voice, {})
        await _check(kind, tmp_path, voice, TOKENS)


async def _check(
    kind: str, folder: Path, voice: ScriptedVoiceServer, tokens: dict[str, str]
) -> None:
    server: dict[str, Any] = {**PUBLIC, **tokens}
    async with (
        trunkline(voice, server=server, twilio=TWILIO) as app,
        proxied(kind, folder, app.trunkline.server.port) as url,
        httpx2.AsyncClient(trust_env=False, timeout=TIME_LIMIT_S) as client,
    ):

        async def status(path: str, **headers: str) -> int:
            return (await client.get(url + path, headers=headers)).status_code

        decision = await client.post(f"{url}/approvals/call/tool", json={"approved": True})
        assert decision.status_code == 403
        assert "degraded" not in (await client.get(url + "/readyz")).json()
        for path, token in (("/metrics", "metrics_token"), ("/approvals", "operator_token")):
            assert await status(path) == 403
            assert await status(path, Host="localhost") == 403
            assert await status(path, Authorization="Basic x") == 403
            given = tokens.get(token, "any")
            expected = 200 if tokens else 403
            assert await status(path, Authorization=f"Bearer {given}") == expected
