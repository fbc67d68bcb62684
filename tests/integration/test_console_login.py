"""The console's entrance on a real server: links, keys, cookies, and pages of other sites."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.credentials.api_keys import ApiKeys, Scope
from app.credentials.console_logins import FRESH_S, Logins
from app.credentials.passwords import Passwords
from app.errors import ConfigError
from app.web.api.guard import HTTPS_COOKIE, PLAIN_COOKIE, V1
from app.web.console_routes import HEADERS
from app.web.login_attempts import WRONG_LOGINS, WRONG_PASSWORDS
from tests.fakes.voice import ScriptedVoiceServer
from tests.fakes.waiting import TIME_LIMIT_S
from tests.integration.server import App, trunkline
from tests.integration.test_api import routes

TOKEN = {"operator_token": "a token of operators"}  # so that this machine needs a login too


@contextlib.asynccontextmanager
async def server(**sections: Any) -> AsyncIterator[App]:
    async with (
        ScriptedVoiceServer() as voice,
        trunkline(voice, **{"server": TOKEN, "api": {"requests_per_s": 1000}, **sections}) as app,
    ):
        yield app


@contextlib.asynccontextmanager
async def browser(app: App, **headers: str) -> AsyncIterator[httpx2.AsyncClient]:
    sent = {"origin": app.url, "sec-fetch-site": "same-origin", **headers}
    async with httpx2.AsyncClient(
        trust_env=False, timeout=TIME_LIMIT_S, base_url=app.url, headers=sent
    ) as found:
        yield found


async def log_in(one: httpx2.AsyncClient, **given: str) -> str:
    """Log in; returns the token of the page, which is sent from now on."""
    answer = await one.post("/console/login", json=given)
    assert answer.status_code == 200, answer.text
    csrf: str = answer.json()["csrf"]
    return csrf


async def test_a_link_opens_the_console_once() -> None:
    async with server() as app, browser(app) as one, browser(app) as other:
        link = Logins(app.settings.state_dir).make_link()
        assert (await one.get("/console/session")).json() == {"client": None}
        csrf = await log_in(one, link=link)
        session = (await one.get("/console/session")).json()
        assert session == {
            "client": {"name": "console", "scope": "admin"},
            "csrf": csrf,
            "login": True,
        }
        again = await other.post("/console/login", json={"link": link})
        assert (again.status_code, again.json()["error"]["code"]) == (401, "login_wrong")
        cookie = one.cookies[PLAIN_COOKIE]
        kept = (app.settings.state_dir / "console-logins.json").read_text()
        assert link not in kept
        assert cookie not in kept


async def test_a_login_reads_and_acts_only_with_the_token_of_its_page() -> None:
    async with server() as app, browser(app) as one:
        csrf = await log_in(one, link=Logins(app.settings.state_dir).make_link())
        assert (await one.get(f"{V1}/keys")).json() == {"keys": []}
        new = {"name": "made", "scope": "viewer"}
        for wrong in ({}, {"x-csrf-token": ""}, {"x-csrf-token": csrf[:-1] + "x"}):
            answer = await one.post(f"{V1}/keys", json=new, headers=wrong)
            assert (answer.status_code, answer.json()["code"]) == (403, "csrf_token_wrong")
        answer = await one.post(f"{V1}/keys", json=new, headers={"x-csrf-token": csrf})
        assert answer.status_code == 201


@pytest.mark.parametrize(
    "foreign",
    [
        {"origin": "https://evil.example.com"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
    ids=str,
)
async def test_a_page_of_another_site_opens_nothing(foreign: dict[str, str]) -> None:
    async with server() as app, browser(app) as one:
        csrf = await log_in(one, link=Logins(app.settings.state_dir).make_link())
        headers = {"x-csrf-token": csrf, **foreign}
        assert (await one.get(f"{V1}/live/calls", headers=headers)).status_code == 401
        assert (await one.post(f"{V1}/erase", json={}, headers=headers)).status_code == 401
        key = ApiKeys(app.settings.state_dir).create("a key", Scope.ADMIN)[1]
        answer = await one.post("/console/login", json={"key": key}, headers=headers)
        assert answer.status_code == 403


async def test_no_route_opens_to_pages_of_others_old_cookies_or_without_the_pages_token() -> None:
    async with server() as app, browser(app) as one, browser(app) as stranger:
        logins = Logins(app.settings.state_dir)
        old = await log_in(one, link=logins.make_link())
        ended = one.cookies[PLAIN_COOKIE]
        await one.post("/console/logout", json={}, headers={"x-csrf-token": old})
        csrf = await log_in(one, link=logins.make_link())
        mine, url = f"{PLAIN_COOKIE}={one.cookies[PLAIN_COOKIE]}", app.url
        ours = {"x-csrf-token": csrf, "cookie": mine, "origin": url}
        odd = {
            "a page of another site": {**ours, "origin": "https://evil.example.com"},
            "a page without an address": {**ours, "origin": "null"},
            "another port of this host": {**ours, "origin": url[:-1] + "0"},
            "https in place of http to another host": {**ours, "origin": "https://127.0.0.2"},
            "a frame of another site": {**ours, "sec-fetch-site": "cross-site"},
            "an ended login": {**ours, "cookie": f"{PLAIN_COOKIE}={ended}", "x-csrf-token": old},
            "a made-up login": {**ours, "cookie": f"{PLAIN_COOKIE}={'a' * 43}"},
            "no login": {"origin": url},
        }
        unsafe = {
            "no token of the page": {"cookie": mine, "origin": url},
            "the token of another login": {**ours, "x-csrf-token": old},
        }
        for route in routes(app):
            path = route.path.replace("{", "").replace("}", "")
            for method in sorted(route.methods or ()):
                reads = method in ("GET", "HEAD")
                for kind, headers in (odd if reads else odd | unsafe).items():
                    body: dict[str, str] | None = None if reads else {}
                    answer = await stranger.request(method, path, headers=headers, json=body)
                    assert answer.status_code in (401, 403), (route.path, method, kind, answer)


async def test_a_login_ends_by_logging_out_by_its_key_and_by_the_command() -> None:
    async with server() as app:
        keys, logins = ApiKeys(app.settings.state_dir), Logins(app.settings.state_dir)

        async def opens(one: httpx2.AsyncClient) -> bool:
            return (await one.get(f"{V1}/live/calls")).status_code == 200

        async with browser(app) as one, browser(app) as thief:
            csrf = await log_in(one, link=logins.make_link())
            thief.cookies.set(PLAIN_COOKIE, one.cookies[PLAIN_COOKIE], domain="127.0.0.1")
            assert await opens(thief)
            left = await one.post("/console/logout", json={}, headers={"x-csrf-token": csrf})
            assert left.status_code == 200
            assert PLAIN_COOKIE not in one.cookies
            assert not await opens(thief)
        key, token = keys.create("desk", Scope.VIEWER)
        async with browser(app) as one:
            await log_in(one, key=token)
            assert (await one.get("/console/session")).json()["client"] == {
                "name": "desk",
                "scope": "viewer",
            }
            assert (await one.get(f"{V1}/keys")).status_code == 403
            keys.revoke(key.id)
            await asyncio.sleep(FRESH_S)  # then a process has noticed what another has written
            assert not await opens(one)
        async with browser(app) as one:
            await log_in(one, key=TOKEN["operator_token"])
            assert (await one.get(f"{V1}/approvals")).status_code == 200
            assert logins.close() >= 1
            await asyncio.sleep(FRESH_S)  # then a process has noticed what another has written
            assert not await opens(one)


async def test_wrong_logins_are_refused_and_counted() -> None:
    async with server() as app, browser(app) as one:
        for _ in range(WRONG_LOGINS):
            answer = await one.post("/console/login", json={"key": "tk_00000000_x"})
            assert answer.status_code == 401
        odd: list[Any] = [{"link": "x"}, {"key": 7}, {}, [], {"link": "a" * 43}]
        for bad in odd:
            answer = await one.post("/console/login", json=bad)
            assert answer.status_code == 429
        text = await one.post(
            "/console/login", content="{}", headers={"content-type": "text/plain"}
        )
        assert text.status_code == 415
        await log_in(one, link=Logins(app.settings.state_dir).make_link())


async def test_over_https_the_cookie_is_of_this_host_only() -> None:
    async with server() as app, browser(app, **{"x-forwarded-proto": "https"}) as one:
        link = Logins(app.settings.state_dir).make_link()
        answer = await one.post("/console/login", json={"link": link})
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith(f"{HTTPS_COOKIE}=")
        for part in ("HttpOnly", "Secure", "SameSite=strict", "Path=/"):
            assert part in cookie
        assert "domain" not in cookie.lower()


async def test_the_files_come_with_their_policy_and_nothing_else_does() -> None:
    async with server() as app, browser(app) as one:
        page = await one.get("/console")
        for path in re.findall(r'(?:src|href)="([^"]+)"', page.text):
            answer = await one.get(path)
            assert answer.status_code == 200, path
            assert HEADERS.items() <= dict(answer.headers).items()
            tag = {"if-none-match": answer.headers["etag"]}
            assert (await one.get(path, headers=tag)).status_code == 304
        for path in (
            "/console/../app.py",
            "/console/%2e%2e/app.py",
            "/console/..%2f..%2fapp.py",
            "/console/vendor/CHECKSUMS",
            "/console//etc/passwd",
            "/console/%00",
            "/console/",
        ):
            assert (await one.get(path)).status_code == 404, path


async def test_without_credentials_it_is_this_machine_only() -> None:
    async with server(server={}) as app, browser(app) as one:
        session = (await one.get("/console/session")).json()
        assert session["client"] == {"name": "this machine", "scope": "admin"}
        for headers in ({"x-forwarded-for": "203.0.113.9"}, {"host": "voice.example.com"}):
            for path in ("/console", "/console/main.js", "/console/session"):
                assert (await one.get(path, headers=headers)).status_code == 403
            link = {"link": Logins(app.settings.state_dir).make_link()}
            answer = await one.post("/console/login", json=link, headers=headers)
            assert answer.status_code == 403


async def test_a_console_that_is_turned_off_is_not_there() -> None:
    async with server(console={"enabled": False}) as app, browser(app) as one:
        assert (await one.get("/console")).status_code == 404


PASSWORD = "a long enough password"


async def test_a_password_logs_in_until_it_is_changed_or_removed() -> None:
    async with server() as app, browser(app) as one:
        passwords = Passwords(app.settings.state_dir)
        passwords.set("mo@desk", Scope.OPERATOR, PASSWORD)
        kept = app.settings.state_dir / "console-passwords.json"
        assert kept.stat().st_mode & 0o077 == 0
        assert PASSWORD not in kept.read_text()
        await log_in(one, name="mo@desk", password=PASSWORD)
        session = (await one.get("/console/session")).json()
        assert session["client"] == {"name": "mo@desk", "scope": "operator"}
        assert (await one.get(f"{V1}/keys")).status_code == 403
        passwords.set("mo@desk", Scope.OPERATOR, "another good password")
        await asyncio.sleep(FRESH_S)  # then a process has noticed what another has written
        assert (await one.get("/console/session")).json() == {"client": None}
        await log_in(one, name="mo@desk", password="another good password")
        assert passwords.remove("mo@desk")
        await asyncio.sleep(FRESH_S)
        assert (await one.get("/console/session")).json() == {"client": None}


async def test_passwords_are_guessed_a_few_times_and_then_not_even_the_right_one_enters() -> None:
    async with server() as app, browser(app) as one:
        Passwords(app.settings.state_dir).set("mo", Scope.VIEWER, PASSWORD)
        guesses = [{"name": "mo", "password": f"guess {n}"} for n in range(WRONG_PASSWORDS)]
        answers = await asyncio.gather(
            *(one.post("/console/login", json=guess) for guess in [*guesses, *guesses])
        )
        assert sorted(answer.status_code for answer in answers) == [401] * 10 + [429] * 10
        right = await one.post("/console/login", json={"name": "mo", "password": PASSWORD})
        assert right.status_code == 429
        for odd in ({"name": "nobody", "password": "x"}, {"name": "ann"}, {"name": "", "key": "k"}):
            assert (await one.post("/console/login", json=odd)).status_code == 401
        half = await one.post(
            "/console/login",
            content=rb'{"name": "\ud800", "password": "\ud800"}',
            headers={"content-type": "application/json"},
        )
        assert half.status_code == 401
        await log_in(one, link=Logins(app.settings.state_dir).make_link())  # which nobody guesses


@pytest.mark.parametrize(
    ("name", "scope", "password"),
    [
        ("", Scope.VIEWER, PASSWORD),
        ("a b", Scope.VIEWER, PASSWORD),
        ("mo", Scope.VIEWER, "too short"),
        ("mo", Scope.VIEWER, "x" * 1_001),
        ("mo", Scope.REALTIME, PASSWORD),
    ],
)
def test_a_password_that_will_not_do_is_not_set(
    tmp_path: Path, name: str, scope: Scope, password: str
) -> None:
    with pytest.raises(ConfigError):
        Passwords(tmp_path).set(name, scope, password)
    assert Passwords(tmp_path).listed() == []
