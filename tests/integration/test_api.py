"""The API's entrance on a real server: who may do what, and how it says no."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Iterator
from types import FrameType
from typing import Any

import httpx2
import pytest
from fastapi.routing import APIRoute

from app.credentials.api_keys import FRESH_S, ApiKeys, Scope
from app.web.api.guard import V1, scope_of
from tests.fakes.voice import ScriptedVoiceServer
from tests.fakes.waiting import TIME_LIMIT_S, until
from tests.integration.server import App, trunkline

OPERATORS = "a token of operators"
TOKEN = {"operator_token": OPERATORS}  # so that programs on this machine need a key too


@contextlib.asynccontextmanager
async def server(**sections: Any) -> AsyncIterator[App]:
    async with (
        ScriptedVoiceServer() as voice,
        trunkline(voice, **{"server": TOKEN, **sections}) as app,
    ):
        yield app


@contextlib.asynccontextmanager
async def client(app: App, token: str | None = None) -> AsyncIterator[httpx2.AsyncClient]:
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(
        trust_env=False, timeout=TIME_LIMIT_S, base_url=app.url + V1, headers=headers
    ) as found:
        yield found


def new_key(app: App, scope: Scope, name: str = "a test") -> str:
    return ApiKeys(app.settings.state_dir).create(name, scope)[1]


def all_routes(app: App) -> Iterator[Any]:
    """Every route of the application, however deep its router is included."""

    def under(found: Any) -> Iterator[Any]:
        for route in found:
            inner = getattr(route, "original_router", None)
            yield from under(inner.routes) if inner is not None else (route,)

    asgi: Any = app.trunkline.server.config.app
    yield from under(asgi.routes)


def routes(app: App) -> Iterator[APIRoute]:
    """Every route of the application under `/api`."""
    for route in all_routes(app):
        if str(getattr(route, "path", "")).startswith("/api"):
            assert isinstance(route, APIRoute), f"{route} passes no guard"
            yield route


def is_problem(answer: httpx2.Response, status: int, code: str) -> bool:
    body = answer.json()
    assert (answer.status_code, body.get("code")) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert {"type", "title", "status", "code", "detail"} <= set(body)
    assert body["status"] == status
    return True


async def test_every_route_is_open_to_its_scope_and_those_above_it_only() -> None:
    async with server(api={"requests_per_s": 1000}) as app:
        found = [*routes(app)]
        assert len(found) > 10
        tokens = {scope: new_key(app, scope) for scope in Scope}
        for route in found:
            needed = scope_of(route)  # raises where a route names none
            path = route.path.removeprefix(V1).replace("{", "").replace("}", "")
            for method in sorted(route.methods or ()):
                async with client(app) as stranger:
                    answer = await stranger.request(method, path)
                    assert is_problem(answer, 401, "key_required"), route
                for scope, token in tokens.items():
                    async with client(app, token) as known:
                        answer = await _head_of(known, method, path)
                    if scope.covers(needed):
                        assert answer.status_code not in (401, 403), (route, scope, answer)
                    else:
                        assert is_problem(answer, 403, "scope_too_small"), (route, scope)


OPEN_TO_STRANGERS = {
    "GET /healthz": 200,
    "HEAD /healthz": 200,
    "GET /readyz": 200,
    "HEAD /readyz": 200,
    "GET /metrics": 403,
    "GET /console": 200,  # pages that are the same for everybody: they ask the API
    "GET /console/{name:path}": 404,
    "GET /console/session": 200,
    "POST /console/login": 401,
    "POST /console/logout": 200,
    "GET /approvals": 403,
    "POST /approvals/{call_id}/{tool_call_id}": 403,
    "GET /calls/{carrier_call_id}/transcript": 403,
    "POST /v1/realtime/client_secrets": 401,
}
"""The answers outside of the API. Routes of the carrier are `test_web_phone`'s."""
SOCKETS = {"/twilio/media-stream", "/v1/realtime"}
UPSTREAM = {"url": "ws://127.0.0.1:9", "api_key": "a-key-of-tests"}


async def test_outside_of_the_api_strangers_get_pages_and_signs_of_life_only() -> None:
    sections = {
        "server": {**TOKEN, "metrics_token": "a token of metrics"},
        "gateway": {"channels": {"up": UPSTREAM}, "models": {"voice": {"channels": ["up"]}}},
        "offline": {"realtime_token": "a token of clients"},
    }
    async with server(**sections) as app:
        found = [
            (f"{method} {route.path}", method, route.path.replace("{", "").replace("}", ""))
            for route in all_routes(app)
            if not route.path.startswith(("/api", "/twilio"))
            for method in sorted(getattr(route, "methods", None) or ())
        ]
        async with client(app) as stranger:
            asked = {
                name: await stranger.request(method, f"{app.url}{path}", json={})
                for name, method, path in found
            }
        assert {name: answer.status_code for name, answer in asked.items()} == OPEN_TO_STRANGERS
        assert {r.path for r in all_routes(app) if not getattr(r, "methods", None)} == SOCKETS


async def _head_of(known: httpx2.AsyncClient, method: str, path: str) -> httpx2.Response:
    """An answer; of one that does not end, its head."""
    async with known.stream(method, path) as answer:
        if not answer.headers["content-type"].startswith("text/event-stream"):
            await answer.aread()
        return answer


async def test_the_first_request_holds_calls_up_no_longer_than_the_next() -> None:
    filled_in: list[object] = []

    def count(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and frame.f_code.co_name == "get_dependant":  # once for each route
            filled_in.append(frame.f_code)

    sys.setprofile(count)
    try:
        async with server() as app, client(app, new_key(app, Scope.VIEWER)) as reader:
            assert filled_in  # else it says nothing that there are no more
            filled_in.clear()
            assert (await reader.get("/live/calls")).status_code == 200
    finally:
        sys.setprofile(None)
    assert not filled_in


async def test_keys_are_made_listed_used_and_revoked() -> None:
    async with server() as app, client(app, new_key(app, Scope.ADMIN, "first")) as admin:
        made = await admin.post("/keys", json={"name": "dashboard", "scope": "viewer"})
        assert made.status_code == 201
        key = made.json()
        async with client(app, key["token"]) as viewer:
            assert (await viewer.get("/live/calls")).json() == {"calls": []}
            [first, second] = (await admin.get("/keys")).json()["keys"]
            assert (first["name"], second["name"]) == ("first", "dashboard")
            assert second["last_used_at"]
            assert second["id"] == key["id"]
            kept = (app.settings.state_dir / "api-keys.json").read_text()
            assert key["token"] not in kept
            assert key["token"].split("_", 2)[2] not in (await admin.get("/keys")).text + kept
            revoked = await admin.delete(f"/keys/{key['id']}")
            assert revoked.json()["revoked_at"]
            is_problem(await viewer.get("/live/calls"), 401, "key_required")
        assert (await admin.delete(f"/keys/{key['id']}")).status_code == 200  # removes it
        is_problem(await admin.delete(f"/keys/{key['id']}"), 404, "key_not_found")
        [first] = (await admin.get("/keys")).json()["keys"]


async def test_a_key_that_another_process_revokes_ends_within_a_second() -> None:
    async with server() as app:
        token = new_key(app, Scope.VIEWER)
        async with client(app, token) as viewer:
            assert (await viewer.get("/live/calls")).status_code == 200
            assert ApiKeys(app.settings.state_dir).revoke(token.split("_")[1])
            await asyncio.sleep(FRESH_S)
            is_problem(await viewer.get("/live/calls"), 401, "key_required")


async def test_keys_that_look_right_and_are_not_open_nothing() -> None:
    async with server() as app:
        token = new_key(app, Scope.ADMIN)
        wrong = [token[:-1], token + "a", token[:-1] + ("b" if token[-1] == "a" else "a")]
        wrong += ["tk_00000000_" + token[12:], token.upper(), "tk__", "x" * 60_000, "Bearer", "ü"]
        for bad in wrong:
            raw = [(b"authorization", f"Bearer {bad}".encode())]
            async with client(app) as stranger:
                is_problem(await stranger.get("/keys", headers=raw), 401, "key_required")
        broken = app.settings.state_dir / "api-keys.json"
        broken.write_text("[{}]")
        await asyncio.sleep(FRESH_S)
        async with client(app, token) as stranger:
            is_problem(await stranger.get("/keys"), 401, "key_required")
        async with client(app, OPERATORS) as operator:
            assert (await operator.get("/approvals")).json() == {"approvals": []}


async def test_this_machine_needs_no_key_while_there_is_no_account_and_no_token() -> None:
    async with server(server={}) as app, client(app) as local:
        assert (await local.get("/keys")).json() == {"keys": []}
        for headers in (
            {"X-Forwarded-For": "203.0.113.9"},
            {"Host": "voice.example.com"},
            {"Origin": "https://evil.example.com"},
        ):
            is_problem(await local.get("/keys", headers=headers), 401, "key_required")


async def test_errors_have_one_shape() -> None:
    async with server() as app, client(app, new_key(app, Scope.ADMIN)) as admin:
        is_problem(await admin.get("/nothing"), 404, "not_found")
        not_allowed = await admin.put("/live/calls")
        is_problem(not_allowed, 405, "method_not_allowed")
        assert not_allowed.headers["allow"] == "GET"
        for body in ({}, {"name": "x", "scope": "owner"}, {"name": "x", "scope": "viewer", "a": 1}):
            answer = await admin.post("/keys", json=body)
            is_problem(answer, 422, "request_invalid")
            assert answer.json()["errors"][0]["place"].startswith("body.")
        answer = await admin.post("/keys", json={"name": "a\nb", "scope": "viewer"})
        is_problem(answer, 422, "request_invalid")
        assert "a\\nb" not in answer.text  # what was sent is not repeated
        for kind, content, status, code in (
            ("application/json", "{", 422, "request_invalid"),
            ("application/json", "[" * 50_000, 400, "bad_request"),
            ("text/plain", "{}", 415, "json_required"),
            ("application/x-www-form-urlencoded", "name=a", 415, "json_required"),
            ("application/json", "x" * 70_000, 413, "body_too_large"),
        ):
            headers = {"content-type": kind}
            answer = await admin.post("/keys", content=content, headers=headers)
            is_problem(answer, status, code)
        answer = await admin.post("/calls/call_x/say", json={"text": "Hello."})
        is_problem(answer, 404, "call_not_live")
        async with client(app) as stranger:
            is_problem(await stranger.get("/nothing"), 404, "not_found")


async def test_a_bug_is_a_problem_too() -> None:
    async with server() as app, client(app, OPERATORS) as operator:

        def fails() -> list[Any]:
            raise RuntimeError("a bug with a secret in it")

        app.switchboard.calls = fails  # type: ignore[method-assign]
        answer = await operator.get("/live/calls")
        is_problem(answer, 500, "internal_error")
        assert "bug" not in answer.text


async def test_a_request_that_is_sent_again_gets_the_same_answer() -> None:
    async with server() as app, client(app, new_key(app, Scope.ADMIN)) as admin:
        body = {"name": "once", "scope": "viewer"}
        again = {"idempotency-key": "an-id-of-the-client"}
        both = await asyncio.gather(
            *(admin.post("/keys", json=body, headers=again) for _ in range(4))
        )
        assert {answer.status_code for answer in both} == {201}
        assert len({answer.text for answer in both}) == 1
        assert sum("idempotency-replayed" in answer.headers for answer in both) == 3
        names = [key["name"] for key in (await admin.get("/keys")).json()["keys"]]
        assert names.count("once") == 1
        other = await admin.post("/keys", json={**body, "name": "other"}, headers=again)
        is_problem(other, 409, "idempotency_key_reused")
        bad = {"idempotency-key": "with blank"}
        is_problem(
            await admin.post("/keys", json=body, headers=bad), 400, "idempotency_key_invalid"
        )
        # What was not done can be tried again under the same key.
        failed = {"idempotency-key": "fails"}
        assert (await admin.post("/keys", json={}, headers=failed)).status_code == 422
        assert (await admin.post("/keys", json=body, headers=failed)).status_code == 201
        # Two clients may choose the same one.
        async with client(app, new_key(app, Scope.ADMIN)) as another:
            made = await another.post("/keys", json=body, headers=again)
            assert "idempotency-replayed" not in made.headers


async def test_a_key_that_asks_too_often_is_told_when_to_come_back() -> None:
    async with server(api={"requests_per_s": 1}) as app, client(app, OPERATORS) as operator:
        answers = [await operator.get("/live/calls") for _ in range(8)]
        limited = [answer for answer in answers if answer.status_code == 429]
        assert limited
        is_problem(limited[0], 429, "too_many_requests")
        assert int(limited[0].headers["retry-after"]) >= 1
        async with client(app, new_key(app, Scope.VIEWER)) as other:
            assert (await other.get("/live/calls")).status_code == 200


async def test_the_description_names_every_route_with_its_scope() -> None:
    async with server() as app, client(app, new_key(app, Scope.VIEWER)) as viewer:
        described = (await viewer.get("/openapi.json")).json()
        found = {
            (path, method.upper()): operation["x-scope"]
            for path, operations in described["paths"].items()
            for method, operation in operations.items()
        }
        expected = {(r.path, m): scope_of(r).value for r in routes(app) for m in r.methods or ()}
        assert found == expected
        assert json.dumps(described).count("#/components/schemas/ProblemDetails") == len(found)
        assert "went_silent" in described["components"]["schemas"]["Problem"]["enum"]
        for operations in described["paths"].values():
            for operation in operations.values():
                assert operation["description"].endswith((".", ".\n"))


@pytest.mark.parametrize("path", ["/api", "/api/", "/api/v1", "/api/v1/", "/api/v2/calls"])
async def test_what_is_not_there_is_a_problem(path: str) -> None:
    async with server() as app:
        is_problem(await app.get(path), 404, "not_found")


async def test_strangers_are_counted() -> None:
    async with server() as app:
        metrics = app.trunkline.metrics
        async with client(app, "tk_unknown") as stranger:
            await stranger.get("/keys")
        await until(
            lambda: metrics.registry.get_sample_value(
                "trunkline_auth_failures_total", {"kind": "api"}
            )
        )
