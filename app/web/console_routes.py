"""The console under `/console`: its files, and the login that its pages have.

The files are few and small: they are read once, and only their names open anything. A login is a
cookie that scripts cannot read; what acts sends a token beside it (`app.web.api.guard`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from app.bus import Bus
from app.credentials.console_logins import Login, Logins, csrf_token
from app.errors import ConfigError
from app.json_text import parse_json
from app.web.api.guard import HTTPS_COOKIE, PLAIN_COOKIE, Guard, is_https, login_cookie
from app.web.app import error_response
from app.web.clients import is_foreign_site, is_local
from app.web.login_attempts import LoginAttempts
from app.web.metrics import AuthFailure, Metrics

__all__ = ["FILES", "HEADERS", "console_router"]

FILES: Final = Path(__file__).with_name("console")
HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' data:",
            "media-src 'self' blob:",
            "connect-src 'self'",
            "worker-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types line",
        )
    ),
    "permissions-policy": "microphone=(self), camera=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}
MAX_BODY_BYTES: Final = 4_096

_KINDS: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    kind: str
    tag: str


def console_router(
    guard: Guard, logins: Logins, metrics: Metrics, bus: Bus, *, local: bool
) -> APIRouter:
    """The routes of the console; `local`: it opens to browsers on this machine only."""
    console, router = _Console(guard, logins, metrics, bus, local=local), APIRouter()
    router.get("/console")(console.index)
    router.get("/console/session")(console.session)
    router.post("/console/login")(console.log_in)
    router.post("/console/logout")(console.log_out)
    router.get("/console/{name:path}")(console.part)
    return router


class _Console:
    """The routes of one server's console."""

    def __init__(
        self, guard: Guard, logins: Logins, metrics: Metrics, bus: Bus, *, local: bool
    ) -> None:
        self._guard = guard
        self._logins = logins
        self._metrics = metrics
        self._local = local
        self._files = _files()
        self._attempts = LoginAttempts(bus)

    def _refused(self, request: Request) -> Response | None:
        client = request.client
        if self._local and not is_local(client.host if client else None, request.headers):
            text = (
                "Without Twilio credentials the console opens on the server's own machine only. "
                "Set OPERATOR_TOKEN to log in from elsewhere."
            )
            return error_response(HTTPStatus.FORBIDDEN, "this_machine_only", text)
        return None

    def _file(self, request: Request, name: str) -> Response:
        if (refusal := self._refused(request)) is not None:
            return refusal
        found = self._files.get(name)
        if found is None:
            text = "There is no such page: the console is at /console"
            return error_response(HTTPStatus.NOT_FOUND, "not_found", text)
        headers = {**HEADERS, "etag": found.tag}
        if request.headers.get("if-none-match") == found.tag:
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        return Response(found.content, media_type=found.kind, headers=headers)

    async def index(self, request: Request) -> Response:
        """The one page."""
        return self._file(request, "index.html")

    async def session(self, request: Request) -> Response:
        """Tell the page who has logged in: nobody, or a name with a scope."""
        if (refusal := self._refused(request)) is not None:
            return refusal
        client = await self._guard.client(request)
        if client is None:
            return _private({"client": None})
        cookie = login_cookie(request)
        return _private(
            {
                "client": {"name": client.name, "scope": client.scope.value},
                "csrf": csrf_token(cookie) if cookie else "",
                "login": client.id.startswith("login_"),
            }
        )

    async def log_in(self, request: Request) -> Response:
        """Open a login with a one-time link's token, a key, or a name and its password."""
        if (refusal := self._refused(request) or await _not_ours(request)) is not None:
            return refusal
        given = await _body(request)
        name = given.get("name")
        if isinstance(name, str) and not self._attempts.may_guess(name):
            return _too_many()
        try:
            opened = await _opened(self._guard, given)
        except (ConfigError, OSError):
            text = "Logins cannot be kept: state_dir cannot be written"
            return error_response(HTTPStatus.SERVICE_UNAVAILABLE, "logins_unavailable", text)
        if opened is not None:
            if isinstance(name, str):
                self._attempts.was_right(name)
            return _logged_in(request, self._logins, *opened)
        self._metrics.auth_failed(AuthFailure.API)
        if not isinstance(name, str) and not self._attempts.may_go_on():
            return _too_many()
        text = "This link was used or is too old, or there is no such key or password"
        return error_response(HTTPStatus.UNAUTHORIZED, "login_wrong", text)

    async def log_out(self, request: Request) -> Response:
        """End the login of this browser, for everyone who has its cookie."""
        if (refusal := self._refused(request) or await _not_ours(request)) is not None:
            return refusal
        client = await self._guard.client(request)
        if client is not None and client.id.startswith("login_"):
            await self._guard.end_login(client.id)
        answer = _private({"client": None})
        for name in (HTTPS_COOKIE, PLAIN_COOKIE):
            answer.delete_cookie(name, secure=name == HTTPS_COOKIE, samesite="strict")
        return answer

    async def part(self, request: Request, name: str) -> Response:
        """A file of the page."""
        return self._file(request, name)


async def _opened(guard: Guard, given: Mapping[str, Any]) -> tuple[Login, str] | None:
    match given:
        case {"link": str(link)}:
            return await guard.follow_link(link)
        case {"key": str(key)}:
            return await guard.open_login(key.strip())
        case {"name": str(name), "password": str(password)}:
            return await guard.open_login_of(name, password)
        case _:
            return None


def _logged_in(request: Request, logins: Logins, login: Login, token: str) -> Response:
    answer = _private(
        {
            "client": {"name": login.name, "scope": login.scope.value},
            "csrf": csrf_token(token),
            "login": True,
        }
    )
    secure = is_https(request)
    answer.set_cookie(
        HTTPS_COOKIE if secure else PLAIN_COOKIE,
        token,
        max_age=int(logins.life_s),
        secure=secure,
        httponly=True,
        samesite="strict",
    )
    return answer


async def _not_ours(request: Request) -> Response | None:
    """A refusal for what no page of ours would send."""
    if is_foreign_site(request.headers):
        return error_response(HTTPStatus.FORBIDDEN, "foreign_site", "Forbidden")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        return error_response(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "json_required", "Send JSON")
    return None


async def _body(request: Request) -> Mapping[str, Any]:
    """The JSON object of a body; an empty one for anything else."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            return {}
    try:
        found = parse_json(bytes(body))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _private(content: Mapping[str, Any]) -> JSONResponse:
    return JSONResponse(content, headers={"cache-control": "no-store"})


def _files() -> Mapping[str, _File]:
    found = {}
    for path in FILES.rglob("*"):
        if path.suffix in _KINDS:
            content = path.read_bytes()
            tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            found[path.relative_to(FILES).as_posix()] = _File(content, _KINDS[path.suffix], tag)
    return found


def _too_many() -> Response:
    text = "Too many wrong logins: wait a minute"
    status = HTTPStatus.TOO_MANY_REQUESTS
    return error_response(status, "too_many_logins", text, headers={"retry-after": "60"})
