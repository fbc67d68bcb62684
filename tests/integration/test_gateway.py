"""The gateway over real sockets: who enters, which way, how sessions end, what they cost."""
# ruff: noqa: SIM117 - a site and its client are two things, and read better on two lines

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from openai import AsyncOpenAI
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from app.assembly.gateway import make_gateway
from app.calls.admission.budget import Budget
from app.calls.recording.recorder import Recorder
from app.credentials.api_keys import ApiKeys, Scope
from app.events import (
    AgentSaid,
    CallEnded,
    CallEvent,
    EndReason,
    RecordingStopped,
    VoiceTrouble,
)
from app.explain import explain
from app.gateway.access import Client
from app.gateway.channels import RealtimeService
from app.gateway.gateway import Gateway, SecretRequest
from app.gateway.reports import Reports
from app.gateway.session import MOST_UNCHARGED
from app.gateway.usage import UsageBook
from app.parts import Parts
from app.realtime.dialect import BETA, GA, Dialect
from app.settings import Settings
from app.store.files import CallFiles
from app.store.sql.gateway import GatewayStore
from app.web.app import make_app
from app.web.clients import AccessRule
from app.web.metrics import Metrics
from app.web.realtime import MAX_MESSAGE_BYTES, realtime_router
from app.web.server.serving import make_server, running
from audio.format import PCM16_24K, PCMU_8K
from audio.g711 import decode_ulaw
from tests.fakes.voice import Reply, ScriptedVoiceServer, Trouble, tone
from tests.fakes.waiting import TIME_LIMIT_S, time_limit, until
from tests.integration.store_site import opened
from tests.integration.test_recordings import channels as channels_of

MODEL = "gpt-realtime-2.1"
ASK = {"type": "conversation.item.create", "item": {
    "type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello?"}]
}}  # fmt: skip


@dataclass
class Site:
    """A gateway behind the real HTTP edge, and the means to look into it."""

    url: str
    gateway: Gateway
    metrics: Metrics
    keys: ApiKeys
    store: GatewayStore | None
    budget: Budget
    book: UsageBook
    events: list[CallEvent] = field(default_factory=list)

    def key(self, name: str = "app", scope: Scope = Scope.REALTIME) -> str:
        return self.keys.create(name, scope)[1]

    def client(self, token: str = "", *, model: str = MODEL, **headers: str) -> connect:
        if token:
            headers["Authorization"] = f"Bearer {token}"
        return connect(
            f"{self.url}?model={model}",
            additional_headers=headers,
            compression=None,
            close_timeout=1,
        )

    async def refused(self, opening: connect) -> tuple[int, str]:
        with pytest.raises(InvalidStatus) as refused:
            await opening
        response = refused.value.response
        return response.status_code, json.loads(response.body)["error"]["code"]

    @property
    def ended(self) -> CallEnded:
        (one,) = [event for event in self.events if isinstance(event, CallEnded)]
        return one


@contextlib.asynccontextmanager
async def site(
    folder: Path,
    gateway: Mapping[str, Any],
    *,
    store: bool = False,
    per_day_usd: float = 0.0,
    open_to_local: bool = False,
    engine: RealtimeService | None = None,
    **settings: Any,
) -> AsyncIterator[Site]:
    made = Settings.model_validate({"gateway": gateway, **settings}, strict=False)
    async with contextlib.AsyncExitStack() as stack:
        kept = None
        if store:
            database = (await stack.enter_async_context(opened(folder / "calls.db"))).database
            kept = GatewayStore(database)
        metrics, events = Metrics(), list[CallEvent]()
        recorder = Recorder(CallFiles(folder / "recordings", folder / "messages"))
        await stack.enter_async_context(recorder.open())
        budget, book, keys = (
            Budget(per_day_usd, folder / "b.json"),
            UsageBook(kept, metrics),
            ApiKeys(folder),
        )
        found = make_gateway(
            made,
            engine,
            budget=budget,
            keys=keys,
            store=kept,
            report=Reports([events.append], metrics, book),
            book=book,
            recorder=recorder,
        )
        assert found is not None
        await stack.enter_async_context(found.open())
        access = AccessRule(open_to_local=open_to_local)
        query = made.gateway.token_in_query
        server = make_server(
            make_app([realtime_router(found, metrics, access, token_in_query=query)]),
            host="127.0.0.1",
            port=0,
            drain=lambda: found.drain(0.0),
            own_signals=False,
        )
        await stack.enter_async_context(running(server))
        url = f"ws://127.0.0.1:{server.port}/v1/realtime"
        yield Site(url, found, metrics, keys, kept, budget, book, events)


def channels(*upstreams: ScriptedVoiceServer | str, **more: Any) -> dict[str, Any]:
    """One model over these upstreams, in their order."""
    named = {
        f"up{number}": {
            "url": one if isinstance(one, str) else one.url,
            "api_key": "sk-upstream-secret",
            "dialect": "beta" if not isinstance(one, str) and one.dialect is BETA else "ga",
        }
        for number, one in enumerate(upstreams)
    }
    return {"channels": named, "models": {MODEL: {"channels": list(named), **more}}}


async def told(socket: ClientConnection, kind: str) -> dict[str, Any]:
    """The next event of a kind."""
    async with time_limit():
        while True:
            event: dict[str, Any] = json.loads(await socket.recv())
            if event["type"] == kind:
                return event


async def rest(socket: ClientConnection) -> list[dict[str, Any]]:
    """All events until the socket is closed."""
    events = []
    async with time_limit():
        with contextlib.suppress(ConnectionClosed):
            while True:
                events.append(json.loads(await socket.recv()))
    return events


async def ask(socket: ClientConnection) -> dict[str, Any]:
    await socket.send(json.dumps(ASK))
    await socket.send('{"type":"response.create"}')
    return await told(socket, "response.done")


# Who enters ---------------------------------------------------------------------------------------


async def test_refusals_come_before_the_upgrade_with_a_reason(tmp_path: Path) -> None:
    async with (
        ScriptedVoiceServer() as upstream,
        site(
            tmp_path,
            {**channels(upstream), "keys": {"other": {"models": ["another"]}}},
        ) as found,
    ):
        key = found.key()
        table = [
            (found.client(), (401, "invalid_api_key")),
            (found.client("tk_00000000_" + "x" * 43), (401, "invalid_api_key")),
            (found.client("sk-anything"), (401, "invalid_api_key")),
            (found.client(found.key("v", Scope.VIEWER)), (403, "scope_too_small")),
            (found.client(key, Origin="https://elsewhere.example"), (403, "foreign_site")),
            (found.client(found.key("other")), (403, "model_not_allowed")),
            (found.client(key, model="gpt-unknown"), (404, "model_not_found")),
            (found.client(key, model=""), (404, "model_not_found")),
            (connect(f"{found.url}?model={MODEL}&token={key}"), (401, "invalid_api_key")),
        ]
        for opening, expected in table:
            assert await found.refused(opening) == expected
        assert upstream.attempts == 0  # and nothing was spent on them
        for scope in (Scope.OPERATOR, Scope.ADMIN):
            async with found.client(found.key(scope, scope)) as socket:
                await told(socket, "session.created")


async def test_a_browsers_key_is_not_echoed(tmp_path: Path) -> None:
    async with ScriptedVoiceServer() as upstream, site(tmp_path, channels(upstream)) as found:
        key = Subprotocol(f"openai-insecure-api-key.{found.key()}")
        for offered in ([Subprotocol("realtime"), key], [key, Subprotocol("realtime")]):
            async with connect(f"{found.url}?model={MODEL}", subprotocols=offered) as socket:
                assert socket.subprotocol == "realtime"
                await told(socket, "session.created")


async def test_a_key_in_the_query_opens_only_where_it_is_allowed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    async with (
        ScriptedVoiceServer() as upstream,
        site(tmp_path, {**channels(upstream), "token_in_query": True}) as found,
    ):
        key = found.key()
        async with connect(f"{found.url}?model={MODEL}&token={key}") as socket:
            await told(socket, "session.created")
        own = [r for r in caplog.records if not r.name.startswith("websockets.client")]
        assert not [r for r in own if key in r.getMessage() or key in str(r.__dict__)]


async def test_an_ephemeral_secret_is_made_and_limited(tmp_path: Path) -> None:
    async with (
        ScriptedVoiceServer() as upstream,
        site(tmp_path, channels(upstream), store=True) as found,
    ):
        key = found.key()
        http = found.url.replace("ws://", "http://")
        async with AsyncOpenAI(api_key=key, base_url=http.removesuffix("/realtime")) as client:
            made = await client.realtime.client_secrets.create(
                expires_after={"anchor": "created_at", "seconds": 60},
                session={"type": "realtime", "model": MODEL, "instructions": "Be brief."},
                extra_body={"limits": {"sessions": 1}},
            )
        assert made.value.startswith("ek_")
        left_s = made.expires_at - datetime.now(UTC).timestamp()
        assert 0 < left_s <= 61
        # A page of another site holds the secret that it was given.
        async with found.client(made.value, Origin="https://shop.example") as socket:
            updated = await told(socket, "session.updated")
            assert updated["session"]["instructions"] == "Be brief."
        assert await found.refused(found.client(made.value)) == (401, "invalid_api_key")
        assert made.value not in (tmp_path / "calls.db").read_bytes().decode("latin-1")


DEAR = dict.fromkeys(
    ("text_in", "text_cached", "text_out", "audio_in", "audio_cached", "audio_out"), 1e6
)


async def test_a_secret_has_no_more_models_seconds_and_money_than_it_was_given(
    tmp_path: Path,
) -> None:
    async with ScriptedVoiceServer() as upstream:
        routed = channels(upstream)
        routed["models"]["other"] = routed["models"][MODEL]
        async with (
            site(tmp_path, routed, store=True, prices={MODEL: DEAR}) as found,
            httpx2.AsyncClient(headers={"Authorization": f"Bearer {found.key()}"}) as http,
        ):
            url = found.url.replace("ws://", "http://") + "/client_secrets"

            async def secret(**limits: object) -> str:
                body = {"session": {"type": "realtime", "model": MODEL}, "limits": limits}
                return str((await http.post(url, json=body)).json()["value"])

            other = found.client(await secret(), model="other")
            assert await found.refused(other) == (403, "model_not_allowed")
            both = await secret(models=[MODEL, "other"])
            async with found.client(both, model="other") as socket:
                await told(socket, "session.created")
            async with found.client(await secret(max_session_s=1)) as socket:
                assert (await rest(socket))[-1]["error"]["code"] == "session_time_up"
                assert socket.close_code == 4408
            poor = await secret(max_usd=0.01)
            async with found.client(poor) as socket:
                await socket.send(json.dumps(ASK))
                await socket.send('{"type":"response.create"}')
                assert (await rest(socket))[-1]["error"]["code"] == "budget_spent"
                assert socket.close_code == 4402
            assert await found.refused(found.client(poor)) == (429, "budget_spent")
            async with found.client(await secret(max_usd=0.01)) as socket:
                await told(socket, "session.created")  # the money of one is not that of another


async def test_what_a_key_has_spent_today_outlives_a_restart(tmp_path: Path) -> None:
    async with ScriptedVoiceServer(replies=[Reply(audio_ms=4_000)] * 2) as upstream:
        limited = {**channels(upstream), "keys": {"app": {"per_day_usd": 1.0}}}
        async with site(tmp_path, limited, store=True, prices={MODEL: DEAR}) as found:
            token = found.key()
            async with found.client(token) as socket:
                await socket.send(json.dumps(ASK))
                await socket.send('{"type":"response.create"}')
                await rest(socket)
                assert socket.close_code == 4402
        async with site(tmp_path, limited, store=True, prices={MODEL: DEAR}) as found:
            assert await found.refused(found.client(token)) == (429, "budget_spent")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"session": {"type": "realtime", "model": "gpt-unknown"}}, 404, "model_not_found"),
        ({"expires_after": {"seconds": 9}}, 400, "invalid_request"),
        ({"expires_after": {"seconds": 7_201}}, 400, "invalid_request"),
        ({"limits": {"sesions": 1}}, 400, "invalid_request"),
        ([], 400, "invalid_request"),
    ],
)
async def test_a_secret_is_refused_with_a_reason(
    tmp_path: Path, body: Any, status: int, code: str
) -> None:
    async with (
        ScriptedVoiceServer() as upstream,
        site(tmp_path, channels(upstream), store=True) as found,
        httpx2.AsyncClient() as client,
    ):
        url = found.url.replace("ws://", "http://") + "/client_secrets"
        key = {"Authorization": f"Bearer {found.key()}"}
        answer = await client.post(url, json=body, headers=key)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert (await client.post(url, json={})).status_code == 401


# The way ------------------------------------------------------------------------------------------


async def test_a_turn_passes_and_its_usage_is_unchanged_charged_and_kept(tmp_path: Path) -> None:
    async with (
        ScriptedVoiceServer(replies=[Reply(text="Hi.")]) as upstream,
        site(tmp_path, channels(upstream), store=True) as found,
    ):
        sent: list[dict[str, Any]] = []
        upstream.trouble = Trouble(rewrite=lambda event: sent.append(event) or event)  # type: ignore[func-returns-value]
        async with found.client(found.key()) as socket:
            done = await ask(socket)
            original = [event for event in sent if event["type"] == "response.done"]
            assert original == [done]
            assert upstream.latest.headers["Authorization"] == "Bearer sk-upstream-secret"
            assert f"model={MODEL}" in upstream.latest.path
            await socket.send(json.dumps({"type": "input_audio_buffer.append",
                "audio": base64.b64encode(bytes(4_800)).decode()}))  # fmt: skip
            await until(lambda: upstream.audio == bytes(4_800))
        await until(lambda: any(isinstance(event, CallEnded) for event in found.events))
        summary = found.ended.summary
        usage = done["response"]["usage"]
        assert summary.usage.output_audio == usage["output_token_details"]["audio_tokens"] > 0
        assert summary.cost_usd == pytest.approx(found.budget.spent_usd) and summary.cost_usd
        assert (summary.reason, summary.agent, summary.model) == (
            EndReason.CALLER_HUNG_UP,
            "app",
            MODEL,
        )
        said = [event for event in found.events if isinstance(event, AgentSaid)]
        assert [event.text for event in said] == ["Hi."]
        explained = explain(found.events)
        assert explained.headline.startswith("session of app: the client hung up")
        assert explained.entries[0].text == "session admitted for key app"
        store = found.store
        assert store is not None

        await found.book.write()
        counted = found.metrics.registry.get_sample_value(
            "trunkline_gateway_usage_total",
            {"key": "app", "model": MODEL, "class": "output_audio"},
        )
        assert counted == summary.usage.output_audio
        (row,) = await store.used(datetime(2020, 1, 1, tzinfo=UTC))
        assert row["output_audio"] == summary.usage.output_audio
        assert row["cost_usd"] == pytest.approx(summary.cost_usd)


@pytest.mark.parametrize("per_day_usd", [0.0, 1_000.0], ids=["unlimited", "limited"])
async def test_the_same_response_is_charged_once(tmp_path: Path, per_day_usd: float) -> None:
    async with ScriptedVoiceServer() as upstream, site(
        tmp_path, channels(upstream), per_day_usd=per_day_usd
    ) as found:  # fmt: skip
        async with found.client(found.key()) as socket:
            done = await ask(socket)
            if not per_day_usd:
                await found.book.write()
            once = found.budget.spent_usd
            for _ in range(3):
                upstream.latest.emit_text(json.dumps(done))
                await told(socket, "response.done")
            await found.book.write()
            assert found.budget.spent_usd == once > 0
        await until(lambda: any(isinstance(event, CallEnded) for event in found.events))
        assert found.ended.summary.counters.responses == 4
        assert found.ended.summary.cost_usd == pytest.approx(once)


def _response(source_id: str, **more: Any) -> str:
    response = {"id": source_id, "status": "completed", **more}
    return json.dumps({"type": "response.done", "event_id": "e", "response": response})


@pytest.mark.parametrize("limit", ["", "day", "key", "secret"])
async def test_only_without_a_limit_in_dollars_a_charge_waits_for_its_batch(
    tmp_path: Path, limit: str
) -> None:
    usage = {"total_tokens": 5, "output_tokens": 5, "output_token_details": {"audio_tokens": 5}}
    keys = {"app": {"per_day_usd": 1_000.0}} if limit == "key" else {}
    async with ScriptedVoiceServer() as upstream, site(
        tmp_path,
        {**channels(upstream), "keys": keys},
        store=True,
        per_day_usd=1_000.0 if limit == "day" else 0.0,
    ) as found:  # fmt: skip
        token = found.key()
        if limit == "secret":
            asked = SecretRequest(session={"model": MODEL}, max_usd=1_000.0)
            token = (await found.gateway.make_secret(Client(key_id="k", key_name="app"), asked))[
                "value"
            ]
        async with found.client(token) as socket:
            await told(socket, "session.created")
            for number in range(MOST_UNCHARGED - 1):
                upstream.latest.emit_text(_response(f"resp_{number}", usage=usage))
                await told(socket, "response.done")
            assert bool(found.budget.spent_usd) is bool(limit)
            upstream.latest.emit_text(_response("resp_last", usage=usage))
            await told(socket, "response.done")
            spent = found.budget.spent_usd
            assert spent > 0  # no more of them wait
        await until(lambda: any(isinstance(event, CallEnded) for event in found.events))
        assert found.ended.summary.cost_usd == pytest.approx(spent)
        assert found.ended.summary.usage.output_audio == 5 * MOST_UNCHARGED


async def test_responses_that_wait_are_charged_each_by_its_own_sound_and_format(
    tmp_path: Path,
) -> None:
    """A second, two seconds, and one in half of the bytes; none of them brings its usage."""

    def delta(size: int) -> str:
        sound = base64.b64encode(bytes(size)).decode()
        return json.dumps({"type": "response.output_audio.delta", "event_id": "e", "delta": sound})

    mu_law = {"audio": {"output": {"format": {"type": "audio/pcmu"}}}}
    async with ScriptedVoiceServer() as upstream, site(
        tmp_path, channels(upstream), store=True
    ) as found:  # fmt: skip
        async with found.client(found.key()) as socket:
            await told(socket, "session.created")
            for text in (
                delta(48_000),
                _response("resp_1"),
                delta(48_000),
                delta(48_000),
                _response("resp_2"),
                json.dumps({"type": "session.updated", "session": mu_law}),
                delta(8_000),
                _response("resp_3"),
                delta(16_000),  # cut off by the end of the session
            ):
                upstream.latest.emit_text(text)
                await told(socket, json.loads(text)["type"])
        await until(lambda: any(isinstance(event, CallEnded) for event in found.events))
        assert found.ended.summary.usage.output_audio == pytest.approx(20 * 6, abs=1)
        assert found.ended.summary.usage.estimated_responses == 4
        await found.book.write()
        assert found.store is not None
        (row,) = await found.store.used(datetime(2020, 1, 1, tzinfo=UTC))
        assert row["output_audio"] == found.ended.summary.usage.output_audio


async def test_a_response_without_usage_is_estimated_and_marked(tmp_path: Path) -> None:
    def without_usage(event: dict[str, Any]) -> dict[str, Any]:
        if event["type"] == "response.done":
            event["response"]["usage"] = None
        return event

    async with (
        ScriptedVoiceServer(
            replies=[Reply(audio_ms=2_000)], trouble=Trouble(rewrite=without_usage)
        ) as upstream,
        site(tmp_path, channels(upstream)) as found,
    ):
        async with found.client(found.key()) as socket:
            await ask(socket)
        await until(lambda: any(isinstance(event, CallEnded) for event in found.events))
        summary = found.ended.summary
        assert summary.cost_estimated
        assert summary.usage.output_audio == pytest.approx(40, rel=0.2)  # 20 a second


async def test_channels_are_tried_in_their_order(tmp_path: Path) -> None:
    busy = Trouble(http_status=429)
    async with ScriptedVoiceServer(trouble=busy) as first, ScriptedVoiceServer() as second:
        gone = "ws://127.0.0.1:9/v1/realtime"
        async with site(tmp_path, channels(gone, first, second)) as found:
            async with found.client(found.key()) as socket:
                await told(socket, "session.created")
            assert (first.attempts, second.attempts) == (1, 1)


async def test_the_model_and_the_transcription_are_pinned(tmp_path: Path) -> None:
    async with (
        ScriptedVoiceServer() as upstream,
        site(
            tmp_path, channels(upstream, upstream_model="deployed", transcription="pinned")
        ) as found,
    ):
        async with found.client(found.key()) as socket:
            await told(socket, "session.created")
            assert "model=deployed" in upstream.latest.path
            heard = '"audio":{"input":{"transcription":{"model":"dear"}}}'
            update = f'"session":{{"type":"realtime","model":"dear",{heard}}}'
            for text in (
                f'{{"type":"session.update",{update}}}',
                f'{{"type":"input_audio_buffer.append",{update},"type":"session.update"}}',
                f'{{"type":"input_audio_buffer.append","audio":"",{update},"t\\u0079pe":"session.update"}}',
            ):
                await socket.send(text)
                updated = await told(socket, "session.updated")
                session = updated["session"]
                assert session["audio"]["input"]["transcription"]["model"] == "pinned"
                assert "dear" not in json.dumps(session)


@pytest.mark.parametrize("theirs", [GA, BETA], ids=["ga upstream", "beta upstream"])
@pytest.mark.parametrize("ours", [GA, BETA], ids=["ga client", "beta client"])
async def test_each_dialect_is_served_on_either_upstream(
    tmp_path: Path, ours: Dialect, theirs: Dialect
) -> None:
    flat = {"modalities": ["audio", "text"], "voice": "sage", "input_audio_format": "g711_ulaw"}
    audio = {"output": {"voice": "sage"}, "input": {"format": {"type": "audio/pcmu"}}}
    nested = {"type": "realtime", "audio": audio}
    async with (
        ScriptedVoiceServer(dialect=theirs, replies=[Reply(text="Hi.")]) as upstream,
        site(tmp_path, channels(upstream)) as found,
    ):
        async with found.client(found.key(), **ours.headers) as socket:
            await told(socket, "session.created")
            settings = nested if ours is GA else flat
            await socket.send(json.dumps({"type": "session.update", "session": settings}))
            session = (await told(socket, "session.updated"))["session"]
            if ours is GA:
                assert session["audio"]["output"]["voice"] == "sage"
                assert session["audio"]["input"]["format"] == {"type": "audio/pcmu"}
            else:
                assert (session["voice"], session["input_audio_format"]) == ("sage", "g711_ulaw")
            await socket.send(json.dumps(ASK))
            await socket.send('{"type":"response.create"}')
            name = "response.output_audio.delta" if ours is GA else "response.audio.delta"
            assert base64.b64decode((await told(socket, name))["delta"])
            done = await told(socket, "response.done")
            assert done["response"]["usage"]["total_tokens"] > 0
        assert not upstream.latest.malformed


@pytest.mark.parametrize("theirs", [GA, BETA], ids=["ga upstream", "beta upstream"])
async def test_the_first_update_of_a_client_without_headers_shows_its_dialect(
    tmp_path: Path, theirs: Dialect
) -> None:
    """A page cannot send headers."""
    flat = {"modalities": ["audio", "text"], "voice": "sage", "input_audio_format": "g711_ulaw"}
    async with (
        ScriptedVoiceServer(dialect=theirs, replies=[Reply(text="Hi.")]) as upstream,
        site(tmp_path, {**channels(upstream), "token_in_query": True}) as found,
        connect(f"{found.url}?model={MODEL}&token={found.key()}") as socket,
    ):
        await told(socket, "session.created")
        sound = base64.b64encode(bytes(300)).decode()
        await socket.send(f'{{"type":"input_audio_buffer.append","audio":"{sound}"}}')
        await socket.send(json.dumps({"type": "session.update", "session": flat}))
        session = (await told(socket, "session.updated"))["session"]
        assert (session["voice"], session["input_audio_format"]) == ("sage", "g711_ulaw")
        await socket.send(json.dumps(ASK))
        await socket.send('{"type":"response.create"}')
        assert base64.b64decode((await told(socket, "response.audio.delta"))["delta"])
        assert (await told(socket, "response.done"))["response"]["usage"]["total_tokens"] > 0
        if theirs is GA:  # else the upstream judges
            other = {"type": "realtime", "audio": {"output": {"voice": "sage"}}}
            await socket.send(json.dumps({"type": "session.update", "session": other}))
            assert (await told(socket, "error"))["error"]["code"] == "unknown_parameter"
    assert not upstream.latest.malformed


MU_LAW = {"type": "audio/pcmu"}
PCM = {"type": "audio/pcm", "rate": 24_000}
MS = {"pcmu": 8, "pcm16": 48}
"""Bytes of a millisecond."""


@pytest.mark.parametrize("theirs", [GA, BETA], ids=["ga upstream", "beta upstream"])
@pytest.mark.parametrize("ours", [GA, BETA], ids=["ga client", "beta client"])
@pytest.mark.parametrize(("wanted", "has"), [("pcmu", "pcm16"), ("pcm16", "pcmu")])
async def test_sound_is_converted_where_the_upstream_lacks_a_format(
    tmp_path: Path, ours: Dialect, theirs: Dialect, wanted: str, has: str
) -> None:
    spelled, flat = (MU_LAW, "g711_ulaw") if wanted == "pcmu" else (PCM, "pcm16")
    nested = {"audio": {"input": {"format": spelled}, "output": {"format": spelled}}}
    settings: dict[str, Any] = {"type": "realtime", **nested}
    if ours is BETA:
        settings = {"input_audio_format": flat, "output_audio_format": flat}
    replies = [Reply(text="Hi.", audio_ms=400)]
    async with ScriptedVoiceServer(dialect=theirs, replies=replies) as upstream:
        routed = channels(upstream)
        routed["channels"]["up0"]["audio_formats"] = [has]
        async with site(tmp_path, routed) as found:
            async with found.client(found.key(), **ours.headers) as socket:
                await told(socket, "session.created")
                if wanted == "pcmu":  # the other one is what a client has without asking
                    await socket.send(json.dumps({"type": "session.update", "session": settings}))
                session = (await told(socket, "session.updated"))["session"]
                if ours is GA:
                    for side in ("input", "output"):
                        assert session["audio"][side]["format"] == spelled
                else:
                    assert session["input_audio_format"] == session["output_audio_format"] == flat
                sound = base64.b64encode(bytes(100 * MS[wanted])).decode()
                await socket.send(f'{{"type":"input_audio_buffer.append","audio":"{sound}"}}')
                await upstream.until(lambda: upstream.latest.appends == [100 * MS[has]])
                await socket.send(json.dumps(ASK))
                await socket.send('{"type":"response.create"}')
                events: list[dict[str, Any]] = []
                async with time_limit():
                    while not events or events[-1]["type"] != "response.done":
                        events.append(json.loads(await socket.recv()))
        heard = b"".join(
            base64.b64decode(event["delta"])
            for event in events
            if event["type"] in ("response.output_audio.delta", "response.audio.delta")
        )
        assert len(heard) == 400 * MS[wanted]
        assert not upstream.latest.malformed


@pytest.mark.parametrize("form", ["pcm16", "pcmu"])
async def test_the_sound_of_both_sides_is_recorded_where_that_is_on(
    tmp_path: Path, form: str
) -> None:
    wire = PCMU_8K if form == "pcmu" else PCM16_24K
    async with ScriptedVoiceServer(replies=[Reply(text="Hi.", audio_ms=600)]) as upstream:
        routed = {**channels(upstream), "record_sessions": True}
        async with site(tmp_path, routed) as found:
            async with found.client(found.key()) as socket:
                await told(socket, "session.created")
                if form == "pcmu":
                    audio = {"input": {"format": MU_LAW}, "output": {"format": MU_LAW}}
                    session = {"type": "realtime", "audio": audio}
                    await socket.send(json.dumps({"type": "session.update", "session": session}))
                    await told(socket, "session.updated")
                spoken = tone(wire, 400, hz=300)
                for start in range(0, len(spoken), wire.ms_to_bytes(40)):
                    piece = base64.b64encode(spoken[start : start + wire.ms_to_bytes(40)]).decode()
                    await socket.send(f'{{"type":"input_audio_buffer.append","audio":"{piece}"}}')
                await ask(socket)
                await asyncio.sleep(1)  # the time in which a client would play it
            await until(lambda: any(isinstance(event, CallEnded) for event in found.events))
            summary = found.ended.summary
            assert summary.recording_end == "call_over"
            (stopped,) = [one for one in found.events if isinstance(one, RecordingStopped)]
    path = Path(summary.recording_file)
    await until(lambda: path.stat().st_size >= 58 + 2 * 8 * stopped.duration_ms)
    sides = [decode_ulaw(side).astype(float) for side in channels_of(path)]
    for side, hz, ms in zip(sides, (300, 440), (400, 600), strict=True):
        assert abs(np.argmax(np.abs(np.fft.rfft(side))) / len(side) * 8_000 - hz) < 10
        assert abs(np.count_nonzero(np.abs(side) > 300) / 8 - ms) < 120


async def test_azure_has_its_own_addresses_and_keys(tmp_path: Path) -> None:
    token = tmp_path / "entra"
    token.write_text("eyJ-entra\n")
    ga_path = "/openai/v1/realtime?model=mine"
    old = "/openai/realtime?api-version=2024-10-01-preview&deployment=mine"
    key, by_key = {"api_key": "azure-key-1"}, ("api-key", "azure-key-1")
    entra = {"entra_token_file": str(token)}
    kinds: dict[str, tuple[dict[str, str], str, tuple[str, str]]] = {
        "key": (key, ga_path, by_key),
        "entra": (entra, ga_path, ("Authorization", "Bearer eyJ-entra")),
        "preview": ({**key, "azure_preview": "2024-10-01-preview"}, old, by_key),
    }
    async with ScriptedVoiceServer() as ga, ScriptedVoiceServer(dialect=BETA) as beta:
        for name, (settings, path, (header, value)) in kinds.items():
            upstream = beta if name == "preview" else ga
            resource = upstream.url.replace("ws://", "http://").removesuffix("/v1/realtime")
            gateway = {
                "channels": {"azure": {"azure": resource, **settings}},
                "models": {MODEL: {"channels": ["azure"], "upstream_model": "mine"}},
            }
            async with site(tmp_path / f"of_{name}", gateway) as found:
                async with found.client(found.key()) as socket:
                    await told(socket, "session.created")
            assert upstream.latest.path == path
            assert upstream.latest.headers.get(header) == value
            other = {"api-key", "Authorization"} - {header}
            assert not other & set(upstream.latest.headers)


# How sessions end ---------------------------------------------------------------------------------


FAILURES: dict[str, tuple[Trouble, int, str]] = {
    "key refused": (Trouble(http_status=401, http_code="invalid_api_key"), 1008, "invalid_api_key"),
    "forbidden": (Trouble(http_status=403), 1008, "http_403"),
    "no model": (Trouble(http_status=404, http_code="model_not_found"), 1008, "model_not_found"),
    "busy": (Trouble(http_status=429), 1013, "http_429"),
    "quota": (Trouble(http_status=429, http_code="insufficient_quota"), 1013, "insufficient_quota"),
    "broken": (Trouble(http_status=500), 1011, "http_500"),
    "closed with a code": (Trouble(close_first=4_001), 4_001, "voice_closed"),
    "closed for policy": (Trouble(close_first=1_008, close_reason="x" * 120), 1008, "voice_closed"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FAILURES)
async def test_an_upstreams_refusal_or_death_reaches_the_client(tmp_path: Path, kind: str) -> None:
    trouble, close_code, error_code = FAILURES[kind]
    async with (
        ScriptedVoiceServer(trouble=trouble) as upstream,
        site(tmp_path, channels(upstream)) as found,
    ):
        async with found.client(found.key()) as socket:
            (error,) = await rest(socket)
            assert (error["type"], error["error"]["code"]) == ("error", error_code)
            assert socket.close_code == close_code
            assert 0 < len((socket.close_reason or "").encode()) <= 123
        assert found.ended.summary.reason is EndReason.VOICE_LOST
        assert found.budget.spent_usd == 0


async def test_an_upstream_that_vanishes_is_1011_and_the_cut_response_is_estimated(
    tmp_path: Path,
) -> None:
    async with (
        ScriptedVoiceServer(replies=[Reply(audio_ms=20_000)]) as upstream,
        site(tmp_path, channels(upstream)) as found,
    ):
        async with found.client(found.key()) as socket:
            await socket.send(json.dumps(ASK))
            await socket.send('{"type":"response.create"}')
            await told(socket, "response.output_audio.delta")
            upstream.latest.drop()
            events = await rest(socket)
            assert events[-1]["type"] == "error"
            assert socket.close_code == 1011
        assert found.ended.summary.cost_estimated and found.ended.summary.cost_usd


async def test_an_upstream_that_cannot_be_reached_is_1011(tmp_path: Path) -> None:
    async with site(tmp_path, channels("ws://127.0.0.1:9/v1/realtime")) as found:
        async with found.client(found.key()) as socket:
            (error,) = await rest(socket)
            assert error["error"]["code"] == "connection_refused"
            assert socket.close_code == 1011


async def test_keys_and_hosts_do_not_leave_in_errors(tmp_path: Path) -> None:
    async with ScriptedVoiceServer() as upstream, site(tmp_path, channels(upstream)) as found:
        async with found.client(found.key()) as socket:
            await told(socket, "session.created")
            message = (
                "Incorrect key sk-abcd****wxyz at https://inner.example/x, node-7.svc, 10.1.2.3:80"
            )
            error = {"type": "invalid_request_error", "code": "odd", "message": message}
            upstream.latest.emit_text(
                json.dumps({"event_id": "e", "type": "error", "error": error})
            )
            text = (await told(socket, "error"))["error"]["message"]
            for hidden in ("sk-abcd", "wxyz", "inner.example", "node-7", "10.1.2.3"):
                assert hidden not in text
            assert text.startswith("Incorrect key [redacted] at [redacted]")
        (trouble,) = [event for event in found.events if isinstance(event, VoiceTrouble)]
        assert (trouble.code, trouble.session_id) == ("odd", "sess_fake")


async def test_money_is_reserved_and_sessions_end_when_it_is_spent(tmp_path: Path) -> None:
    async with ScriptedVoiceServer(replies=[Reply(audio_ms=4_000)]) as upstream, site(
        tmp_path,
        {**channels(upstream), "reserve_usd": 1.0, "keys": {"poor": {"per_day_usd": 1.5}}},
        prices={MODEL: DEAR},
    ) as found:  # fmt: skip
        key = found.key("poor")
        async with found.client(key) as first:
            await told(first, "session.created")
            attempts = upstream.attempts
            assert await found.refused(found.client(key)) == (429, "budget_spent")
            assert upstream.attempts == attempts
            await first.send(json.dumps(ASK))
            await first.send('{"type":"response.create"}')
            events = await rest(first)
            assert first.close_code == 4402
            assert [e["error"]["code"] for e in events if e["type"] == "error"] == ["budget_spent"]
        assert found.ended.summary.reason is EndReason.MAX_COST
        await until(lambda: upstream.open_connections == 0)
        assert await found.refused(found.client(key)) == (429, "budget_spent")


async def test_places_are_counted_and_given_back(tmp_path: Path) -> None:
    async with (
        ScriptedVoiceServer() as upstream,
        site(
            tmp_path,
            {**channels(upstream), "max_sessions": 2, "keys": {"one": {"max_sessions": 1}}},
        ) as found,
    ):
        one, other = found.key("one"), found.key("other")
        async with found.client(one) as first:
            await told(first, "session.created")
            assert await found.refused(found.client(one)) == (429, "too_many_sessions")
            async with found.client(other) as second:
                await told(second, "session.created")
                assert await found.refused(found.client(other)) == (429, "too_many_sessions")
        await until(lambda: upstream.open_connections == 0)
        async with found.client(one) as again:
            await told(again, "session.created")


async def test_a_session_has_a_longest_time(tmp_path: Path) -> None:
    async with (
        ScriptedVoiceServer() as upstream,
        site(tmp_path, {**channels(upstream), "max_session_s": 1}) as found,
        found.client(found.key()) as socket,
    ):
        events = await rest(socket)
        assert events[-1]["error"]["code"] == "session_time_up"
        assert socket.close_code == 4408


async def test_a_server_that_stops_closes_sessions_and_refuses_others(tmp_path: Path) -> None:
    async with ScriptedVoiceServer() as upstream, site(tmp_path, channels(upstream)) as found:
        key = found.key()
        async with found.client(key) as socket:
            await told(socket, "session.created")
            await found.gateway.drain(0.0)
            assert await found.refused(found.client(key)) == (503, "server_draining")
            events = await rest(socket)
            assert events[-1]["error"]["code"] == "server_draining"
            assert socket.close_code == 1001


async def test_a_client_that_does_not_read_holds_the_upstream(tmp_path: Path) -> None:
    async with ScriptedVoiceServer() as upstream, site(tmp_path, channels(upstream)) as found:
        async with found.client(found.key()) as socket:
            await told(socket, "session.created")
            socket.transport.pause_reading()
            delta = json.dumps({"type": "response.output_audio.delta", "response_id": "r",
                "item_id": "i", "output_index": 0, "content_index": 0, "event_id": "e",
                "delta": base64.b64encode(bytes(48_000)).decode()})  # fmt: skip
            for _ in range(600):  # 38 MB, far beyond the sockets' buffers
                upstream.latest.emit_text(delta)
            (session,) = found.gateway._sessions
            await until(lambda: session._duplex._down)
            assert len(session._duplex._down) <= 32  # one read's worth
            socket.transport.resume_reading()
            for _ in range(600):
                await told(socket, "response.output_audio.delta")


async def test_openais_own_client_holds_a_turn_with_a_key_or_a_secret(tmp_path: Path) -> None:
    async with (
        ScriptedVoiceServer(replies=[Reply(text="Hi.")]) as upstream,
        site(tmp_path, channels(upstream), store=True) as found,
    ):
        base = found.url.removesuffix("/realtime")
        async with AsyncOpenAI(
            api_key=found.key(), base_url=base.replace("ws://", "http://")
        ) as client:
            made = await client.realtime.client_secrets.create(session={"type": "realtime"})
            secret = made.value
            for key in (client.api_key, secret):
                async with (
                    AsyncOpenAI(api_key=key, websocket_base_url=base) as one,
                    one.realtime.connect(model=MODEL) as connection,
                    time_limit(),
                ):
                    await connection.response.create()
                    async for event in connection:
                        if event.type == "response.done":
                            assert event.response.usage is not None
                            break
        assert len(upstream.connections) == 2


@pytest.mark.offline_speech
async def test_the_live_feed_tells_of_sessions(tmp_path: Path) -> None:
    async with ScriptedVoiceServer(replies=[Reply(text="Hi.")]) as upstream:
        settings = Settings.model_validate(
            {
                "gateway": channels(upstream),
                "state_dir": str(tmp_path),
                "store": {"enabled": False},
            },
            strict=False,
        )
        parts = Parts(settings, port=lambda: 0)
        reader, gateway = parts.live_feed.reader(None), parts.gateway
        assert gateway is not None
        server = make_server(
            make_app([realtime_router(gateway, parts.metrics, AccessRule(open_to_local=False))]),
            host="127.0.0.1",
            port=0,
            drain=lambda: gateway.drain(0.0),
            own_signals=False,
        )
        token = ApiKeys(tmp_path).create("app", Scope.REALTIME)[1]
        async with running(server):
            url = f"ws://127.0.0.1:{server.port}/v1/realtime?model={MODEL}"
            async with connect(url, additional_headers={"Authorization": f"Bearer {token}"}) as one:
                await ask(one)
            events: list[Mapping[str, Any]] = []
            while not events or events[-1]["type"] != "call_ended":
                entry = await reader.next(TIME_LIMIT_S)
                assert entry is not None and entry.event is not None
                events.append(entry.event)
    assert [event["type"] for event in events] == [
        "call_admitted",
        "stream_opened",
        "voice_ready",
        "agent_said",
        "call_ended",
    ]
    assert {event["call_id"][:4] for event in events} == {"gws_"}
    assert events[2]["session_id"] == events[-1]["summary"]["session_id"] == "sess_fake"
    assert events[-1]["summary"]["cost_usd"] > 0


async def test_a_refused_session_gives_back_what_was_reserved_for_it(tmp_path: Path) -> None:
    async with (
        ScriptedVoiceServer(trouble=Trouble(http_status=500)) as upstream,
        site(tmp_path, {**channels(upstream), "reserve_usd": 1.0}, per_day_usd=1.5) as found,
    ):
        key = found.key()
        for _ in range(3):  # of which the budget has room for one at a time
            async with found.client(key) as socket:
                assert [event["type"] for event in await rest(socket)] == ["error"]
        assert upstream.attempts == 3


async def test_a_transcription_is_charged_once_at_the_price_of_the_pinned_model(
    tmp_path: Path,
) -> None:
    completed = json.dumps(
        {
            "type": "conversation.item.input_audio_transcription.completed",
            "event_id": "e",
            "item_id": "i",
            "content_index": 0,
            "transcript": "Hello.",
            "usage": {"type": "duration", "seconds": 60},
        }
    )
    prices = {"ours": {"per_minute": 0.25}, "theirs": {"per_minute": 100.0}}
    async with (
        ScriptedVoiceServer() as upstream,
        site(tmp_path, channels(upstream, transcription="ours"), prices=prices) as found,
        found.client(found.key()) as socket,
    ):
        await told(socket, "session.created")
        heard = {"input": {"transcription": {"model": "theirs"}}}
        session = {"type": "realtime", "audio": heard}
        await socket.send(json.dumps({"type": "session.update", "session": session}))
        await told(socket, "session.updated")
        for _ in range(2):
            upstream.latest.emit_text(completed)
            await told(socket, "conversation.item.input_audio_transcription.completed")
        assert found.budget.spent_usd == pytest.approx(0.25)


async def test_a_client_that_leaves_in_an_answer_pays_for_what_it_got(tmp_path: Path) -> None:
    async with (
        ScriptedVoiceServer(replies=[Reply(audio_ms=20_000)]) as upstream,
        site(tmp_path, channels(upstream)) as found,
    ):
        async with found.client(found.key()) as socket:
            await socket.send(json.dumps(ASK))
            await socket.send('{"type":"response.create"}')
            await told(socket, "response.output_audio.delta")
        await until(lambda: any(isinstance(event, CallEnded) for event in found.events))
        assert found.ended.summary.cost_estimated
        assert found.budget.spent_usd > 0


async def test_an_upstream_that_does_not_read_holds_the_client(tmp_path: Path) -> None:
    async with ScriptedVoiceServer() as upstream, site(tmp_path, channels(upstream)) as found:
        async with found.client(found.key()) as socket:
            await told(socket, "session.created")
            (session,) = found.gateway._sessions
            upstream.latest._socket.transport.pause_reading()
            sound = base64.b64encode(bytes(24_000)).decode()
            piece = f'{{"type":"input_audio_buffer.append","audio":"{sound}"}}'
            speaking = asyncio.create_task(_say(socket, piece, 800))  # 26 MB
            await until(lambda: session._duplex._up)
            assert len(session._duplex._up) <= 2  # and the client waits
            assert not speaking.done()
            upstream.latest._socket.transport.resume_reading()
            async with time_limit():
                await speaking
            await until(lambda: len(upstream.audio) == 800 * 24_000)


async def _say(socket: ClientConnection, piece: str, times: int) -> None:
    for _ in range(times):
        await socket.send(piece)


async def test_an_event_of_megabytes_passes_down(tmp_path: Path) -> None:
    async with ScriptedVoiceServer() as upstream, site(tmp_path, channels(upstream)) as found:
        key = {"Authorization": f"Bearer {found.key()}"}
        async with connect(
            f"{found.url}?model={MODEL}", additional_headers=key, max_size=None
        ) as socket:
            await told(socket, "session.created")
            event = {"type": "conversation.item.retrieved", "event_id": "e", "item": "x" * 2**22}
            upstream.latest.emit_text(json.dumps(event))
            assert await told(socket, "conversation.item.retrieved") == event


BAD_MESSAGES: dict[str, tuple[bytes | str, bool | None, int]] = {
    "binary": (b"sound", None, 1003),
    "not UTF-8": (b'{"type":"\xff"}', True, 1007),
    "sound that is not UTF-8": (
        b'{"type":"input_audio_buffer.append","audio":"' + b"\xff" * 200 + b'"}',
        True,
        1007,
    ),
    "too large": ("x" * (MAX_MESSAGE_BYTES + 1), None, 1009),
}


@pytest.mark.parametrize("kind", BAD_MESSAGES)
async def test_a_message_that_breaks_the_protocol_ends_the_session_with_its_code(
    tmp_path: Path, kind: str
) -> None:
    message, as_text, code = BAD_MESSAGES[kind]
    async with ScriptedVoiceServer() as upstream, site(tmp_path, channels(upstream)) as found:
        async with found.client(found.key()) as socket:
            await told(socket, "session.created")
            with contextlib.suppress(ConnectionClosed):  # cut off in mid-message
                await socket.send(message, text=as_text)
            assert "error" not in {event["type"] for event in await rest(socket)}
            assert socket.close_code == code
        await until(lambda: upstream.open_connections == 0)


async def test_an_upstream_that_ends_in_good_order_is_no_error(tmp_path: Path) -> None:
    async with ScriptedVoiceServer() as upstream, site(tmp_path, channels(upstream)) as found:
        async with found.client(found.key()) as socket:
            await told(socket, "session.created")
            upstream.latest.close()
            assert "error" not in {event["type"] for event in await rest(socket)}
            assert socket.close_code == 1000
        assert found.ended.summary.reason is EndReason.AGENT_HUNG_UP
