"""The console under `/console`: its files, and the login that its pages have.

The files are few and small: they are read once, and only their names open anything. A login is a
cookie that scripts cannot read; what acts sends a token beside it (`app.web.api.guard`).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from app.bus import Bus, Message
from app.console_logins import Login, Logins, csrf_token
from app.errors import ConfigError
from app.web.api.guard import HTTPS_COOKIE, PLAIN_COOKIE, Guard, is_https, login_cookie
from app.web.app import error_response
from app.web.clients import is_foreign_site, is_local
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
WRONG_LOGINS: Final = 20
WRONG_LOGINS_PER_S: Final = 0.2
WRONG_PASSWORDS: Final = 10
WRONG_PASSWORDS_PER_S: Final = 1 / 60
"""For one name. Passwords can be guessed: behind these, the right one does not enter either."""
MAX_NAMES: Final = 1_000
PASSWORDS: Final = 60
PASSWORDS_PER_S: Final = 2.0
"""For all names together, right ones too: each attempt costs 0.2 s of a processor."""

_GUESSED: Final = "password_guessed"
"""A topic of the bus: a password of somebody, by a hash of their name."""

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
    router, files, attempts = APIRouter(), _files(), _Attempts(bus)

    def refused(request: Request) -> Response | None:
        client = request.client
        if local and not is_local(client.host if client else None, request.headers):
            text = (
                "Without Twilio credentials the console opens on the server's own machine only. "
                "Set OPERATOR_TOKEN to log in from elsewhere."
            )
            return error_response(HTTPStatus.FORBIDDEN, "this_machine_only", text)
        return None

    def file(request: Request, name: str) -> Response:
        if (refusal := refused(request)) is not None:
            return refusal
        found = files.get(name)
        if found is None:
            text = "There is no such page: the console is at /console"
            return error_response(HTTPStatus.NOT_FOUND, "not_found", text)
        headers = {**HEADERS, "etag": found.tag}
        if request.headers.get("if-none-match") == found.tag:
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        return Response(found.content, media_type=found.kind, headers=headers)

    @router.get("/console")
    async def index(request: Request) -> Response:
        """The one page."""
        return file(request, "index.html")

    @router.get("/console/session")
    async def session(request: Request) -> Response:
        """Tell the page who has logged in: nobody, or a name with a scope."""
        if (refusal := refused(request)) is not None:
            return refusal
        client = await guard.client(request)
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

    @router.post("/console/login")
    async def log_in(request: Request) -> Response:
        """Open a login with a one-time link's token, a key, or a name and its password."""
        if (refusal := refused(request) or await _not_ours(request)) is not None:
            return refusal
        given = await _body(request)
        name = given.get("name")
        if isinstance(name, str) and not attempts.may_guess(name):
            return _too_many()
        try:
            opened = await _opened(guard, given)
        except (ConfigError, OSError):
            text = "Logins cannot be kept: state_dir cannot be written"
            return error_response(HTTPStatus.SERVICE_UNAVAILABLE, "logins_unavailable", text)
        if opened is not None:
            if isinstance(name, str):
                attempts.was_right(name)
            return _logged_in(request, logins, *opened)
        metrics.auth_failed(AuthFailure.API)
        if not isinstance(name, str) and not attempts.may_go_on():
            return _too_many()
        text = "This link was used or is too old, or there is no such key or password"
        return error_response(HTTPStatus.UNAUTHORIZED, "login_wrong", text)

    @router.post("/console/logout")
    async def log_out(request: Request) -> Response:
        """End the login of this browser, for everyone who has its cookie."""
        if (refusal := refused(request) or await _not_ours(request)) is not None:
            return refusal
        client = await guard.client(request)
        if client is not None and client.id.startswith("login_"):
            await guard.end_login(client.id)
        answer = _private({"client": None})
        for name in (HTTPS_COOKIE, PLAIN_COOKIE):
            answer.delete_cookie(name, secure=name == HTTPS_COOKIE, samesite="strict")
        return answer

    @router.get("/console/{name:path}")
    async def part(request: Request, name: str) -> Response:
        """A file of the page."""
        return file(request, name)

    return router


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
        found = json.loads(bytes(body))
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


class _Attempts:
    """The logins that may still be tried.

    Links and keys are too long to guess: only wrong ones count, and the right one always enters.
    Passwords are counted in all processes: a worker has no allowance of its own.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        bus.subscribe(_GUESSED, self._on_guessed)
        self._wrong = _Allowance(WRONG_LOGINS, WRONG_LOGINS_PER_S)
        self._passwords = _Allowance(PASSWORDS, PASSWORDS_PER_S)
        self._by_name: OrderedDict[str, _Allowance] = OrderedDict()

    def may_go_on(self) -> bool:
        """Count a wrong link or key; False after too many."""
        return self._wrong.take()

    def may_guess(self, name: str) -> bool:
        """Count a password before it is looked at: many at once are as slow as one by one."""
        who = _hash_of(name)
        allowed = self._take(who)
        self._tell(who, right=False)
        return allowed

    def was_right(self, name: str) -> None:
        """The password of a name was right: it does not count."""
        who = _hash_of(name)
        self._give_back(who)
        self._tell(who, right=True)

    def _tell(self, who: str, *, right: bool) -> None:
        self._bus.publish(_GUESSED, {"by": self._bus.name, "who": who, "right": right})

    def _on_guessed(self, message: Message) -> None:
        if message["by"] == self._bus.name:
            return
        if message["right"]:
            self._give_back(message["who"])
        else:
            self._take(message["who"])

    def _take(self, who: str) -> bool:
        found = self._by_name.pop(who, None)
        found = found or _Allowance(WRONG_PASSWORDS, WRONG_PASSWORDS_PER_S)
        if len(self._by_name) >= MAX_NAMES:
            self._by_name.popitem(last=False)
        self._by_name[who] = found
        return found.take() and self._passwords.take()

    def _give_back(self, who: str) -> None:
        if (found := self._by_name.get(who)) is not None:
            found.give_back()


def _hash_of(name: str) -> str:
    # Somebody types their password into the wrong field: it is sent nowhere as it is.
    return hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:16]


class _Allowance:
    """So many wrong logins at once, and then so many a second."""

    def __init__(self, most: int, per_s: float) -> None:
        self._most, self._per_s = float(most), per_s
        self._left, self._since_s = self._most, time.monotonic()

    def take(self) -> bool:
        now_s = time.monotonic()
        gained = (now_s - self._since_s) * self._per_s
        self._left, self._since_s = min(self._most, self._left + gained), now_s
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def give_back(self) -> None:
        self._left += 1
