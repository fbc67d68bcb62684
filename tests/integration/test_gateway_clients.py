"""Clients that others wrote, over each kind of channel: real sockets, and a turn at each.

`make test` fetches them; a client that is not there is left out, since a machine may have no node,
or no network.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI

from app.credentials.api_keys import Scope
from app.realtime.dialect import BETA
from tests.fakes.engine_parts import speech
from tests.fakes.fetched import FETCHED, JAVASCRIPT, command_of
from tests.fakes.stage_servers import chat_stream, piecewise
from tests.fakes.voice import Reply, ScriptedVoiceServer
from tests.fakes.waiting import time_limit
from tests.fakes.web_service import answer
from tests.integration.chain_site import open_chain
from tests.integration.engine_site import open_site
from tests.integration.test_gateway import site

SCRIPTS = Path(__file__).parents[1] / "fakes" / "clients"
KINDS = ("openai", "azure", "beta", "offline", "pipeline")
UPSTREAM = "gpt-realtime-2.1"


@contextlib.asynccontextmanager
async def places(tmp_path: Path) -> AsyncIterator[tuple[str, list[str]]]:
    """A key, and the urls of a model over each kind of channel."""
    replies = [Reply(text="Hi.")] * 20
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        ga = await enter(ScriptedVoiceServer(replies=replies))
        beta = await enter(ScriptedVoiceServer(replies=replies, dialect=BETA))
        offline = await enter(open_site())
        spoken = piecewise(speech(400, 24_000), content_type="audio/pcm")
        heard = answer(b'{"text": "Hello?"}')
        chain = await enter(open_chain(stt=heard, llm=chat_stream("Hi."), tts=spoken))
        resource = ga.url.replace("ws://", "http://").removesuffix("/v1/realtime")
        remote = {
            "openai": {"url": ga.url, "api_key": "sk-upstream"},
            "azure": {"azure": resource, "api_key": "azure-key"},
            "beta": {"url": beta.url, "api_key": "sk-upstream", "dialect": "beta"},
        }
        gateway = {
            "channels": remote,
            "models": {
                **{kind: {"channels": [kind], "upstream_model": UPSTREAM} for kind in remote},
                "offline": {"channels": ["engine"], "upstream_model": UPSTREAM},
            },
        }
        chained = {"models": {"pipeline": {"channels": ["engine"], "upstream_model": UPSTREAM}}}
        one = await enter(site(tmp_path, gateway, engine=offline.engine))
        other = await enter(site(tmp_path, chained, engine=chain.engine))
        urls = [f"{(other if kind == 'pipeline' else one).url}?model={kind}" for kind in KINDS]
        yield one.key("clients", Scope.REALTIME), urls


async def run(*command: str, **variables: str) -> list[dict[str, Any]]:
    """Run a client, which prints what it has heard and read at each url."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, **variables},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with time_limit():
        out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()[-2_000:]
    found: list[dict[str, Any]] = json.loads(out)
    return found


def check(found: Sequence[dict[str, Any]]) -> None:
    for kind, one in zip(KINDS, found, strict=True):
        assert one["problem"] is None, kind
        assert one["heard"] > 1_000, kind
        assert one["said"], kind
        assert kind == "offline" or one["said"].strip() == "Hi.", kind


async def test_openai_for_python(tmp_path: Path) -> None:
    found = []
    async with places(tmp_path) as (key, urls), time_limit():
        for url in urls:
            base, _, model = url.partition("/realtime?model=")
            result: dict[str, Any] = {"heard": 0, "said": "", "problem": None}
            async with (
                AsyncOpenAI(api_key=key, websocket_base_url=base) as client,
                client.realtime.connect(model=model) as connection,
            ):
                content: Any = [{"type": "input_text", "text": "Hello?"}]
                item: Any = {"type": "message", "role": "user", "content": content}
                await connection.conversation.item.create(item=item)
                await connection.response.create()
                async for event in connection:
                    if event.type == "response.output_audio.delta":
                        result["heard"] += len(base64.b64decode(event.delta))
                    elif event.type == "response.output_audio_transcript.delta":
                        result["said"] += event.delta
                    elif event.type == "error":
                        result["problem"] = event.error.message
                    elif event.type == "response.done":
                        break
            found.append(result)
    check(found)


FETCHED_CLIENTS = {
    "agents_client.py": FETCHED / "agents",
    "openai_client.mjs": FETCHED / "node_modules" / "openai",
    "agents_client.mjs": JAVASCRIPT,
}


@pytest.mark.parametrize("script", FETCHED_CLIENTS)
async def test_a_client_that_others_wrote_holds_a_turn_over_each_channel(
    tmp_path: Path, script: str
) -> None:
    command = command_of(SCRIPTS / script, FETCHED_CLIENTS[script])
    if script.endswith(".mjs"):
        command.append(str(FETCHED))
    async with places(tmp_path) as (key, urls):
        check(await run(*command, key, *urls, PYTHONPATH=str(FETCHED)))
