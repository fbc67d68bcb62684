"""The one entrance to the API: every route passes it, and names the scope that it needs.

In this order: the page of another site is refused, the key found, its scope compared, its rate
counted; of a request that acts, the kind of body is checked, and an idempotency key looked up.
Only then is anything parsed. A route that names no scope cannot be made.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from starlette.requests import HTTPConnection
from starlette.responses import Response

from app.bus import Bus, Message, Responder
from app.credentials.api_keys import ApiKeys, Scope
from app.credentials.console_logins import Login, Logins, csrf_token, token_hash
from app.credentials.passwords import Passwords, Person
from app.threads import in_thread
from app.web.api.problem import API_PREFIX, Problem
from app.web.api.replays import Replays
from app.web.clients import AccessRule, bearer_token, is_foreign_site, same_secret
from app.web.metrics import AuthFailure, Metrics
from app.web.token_bucket import TokenBuckets

__all__ = [
    "CSRF_HEADER",
    "HTTPS_COOKIE",
    "PLAIN_COOKIE",
    "V1",
    "Client",
    "Guard",
    "client_of",
    "guarded_router",
    "is_https",
    "login_cookie",
    "needs",
    "scope_of",
]

V1: Final = f"{API_PREFIX}/v1"
MAX_BODY_BYTES: Final = 65_536
MAX_FILE_BYTES: Final = 10_000_000
"""A body other than JSON, such as the contacts of a campaign."""
CSRF_HEADER: Final = "x-csrf-token"
HTTPS_COOKIE: Final = "__Host-trunkline"
"""Browsers take a cookie with this prefix from this very host only."""
PLAIN_COOKIE: Final = "trunkline_console"
_SCOPE: Final = "x-scope"
_JSON: Final = "application/json"
_PASSWORD: Final = "password:"
_BURST_S: Final = 3
"""A client that was quiet may send as much at once as it may send in this time."""
_WATCHED_CLIENTS: Final = 1_000
ASKED_PER_S: Final = 100
"""Requests a second for which other servers are asked for a login that is not known here."""
_LOGIN: Final = "console_login"
_LINK: Final = "console_link"
_LOGIN_OVER: Final = "console_login_over"

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


@dataclass(frozen=True, slots=True)
class Client:
    """The sender of a request.

    `id` is that of a key or of a login to the console, or `operator_token`, or `this machine`.
    """

    id: str
    name: str
    scope: Scope


def needs(scope: Scope, *, body: str = _JSON) -> dict[str, Any]:
    """The `openapi_extra` of a route that needs a scope; descriptions show it too.

    `body` is the media type of what the route takes. Only one that no form of a page can have is
    safe: a page of another site can have a browser post a form.
    """
    if body == _JSON:
        return {_SCOPE: scope.value}
    content = {body: {"schema": {"type": "string", "format": "binary"}}}
    return {_SCOPE: scope.value, "requestBody": {"required": True, "content": content}}


def scope_of(route: APIRoute) -> Scope:
    """The scope that a route needs.

    Raises:
        ValueError: it names none.
    """
    return Scope((route.openapi_extra or {}).get(_SCOPE, f"none for {route.path}"))


def _body_type_of(route: APIRoute) -> str:
    described = (route.openapi_extra or {}).get("requestBody", {"content": [_JSON]})
    return str(next(iter(described["content"])))


def client_of(request: Request) -> Client:
    """The client that the guard has let in."""
    client: Client = request.state.client
    return client


class Guard:
    """Finds clients and counts their requests."""

    def __init__(
        self,
        keys: ApiKeys,
        metrics: Metrics,
        *,
        access: AccessRule,
        operator_token: str,
        requests_per_s: int,
        bus: Bus,
        logins: Logins | None = None,
        passwords: Passwords | None = None,
    ) -> None:
        """`access` opens to programs on this machine; `operator_token` is a key with that scope.

        `logins` are those of the console, whose cookie serves in place of a key; `passwords` open
        some.
        """
        self._passwords = passwords
        self.logins = logins
        self.keys = keys
        self._metrics = metrics
        self._access = access
        self._operator_token = operator_token
        self._requests = TokenBuckets(requests_per_s * _BURST_S, requests_per_s, _WATCHED_CLIENTS)
        self._replays = Replays(bus)
        self._bus = bus
        # Strangers have nobody asked more often than this.
        self._asked = TokenBuckets(ASKED_PER_S * _BURST_S, ASKED_PER_S, _WATCHED_CLIENTS)
        if logins is not None:
            bus.respond(_LOGIN, self._on_login_asked)
            bus.respond(_LINK, self._on_link_asked)
            bus.respond(_LOGIN_OVER, self._on_login_over)

    async def handle(
        self, request: Request, needed: Scope, proceed: Handler, body_type: str = _JSON
    ) -> Response:
        """Let a request proceed; `body_type` is the media type of its body, if it has one.

        Raises:
            Problem: it may not.
        """
        client = await self.client(request)
        if client is None:
            self._metrics.auth_failed(AuthFailure.API)
            raise Problem(
                HTTPStatus.UNAUTHORIZED,
                "key_required",
                "Send Authorization: Bearer with a key of this server (trunkline keys create)",
                headers={"www-authenticate": "Bearer"},
            )
        _count(self._requests, client.id)
        if not client.scope.covers(needed):
            text = f"This needs the scope {needed.value}; the key {client.name} has {client.scope}"
            raise Problem(HTTPStatus.FORBIDDEN, "scope_too_small", text)
        request.state.client = client
        if request.method in ("GET", "HEAD"):
            return await proceed(request)
        return await self._act(request, client, proceed, body_type)

    async def client(self, request: HTTPConnection) -> Client | None:
        """The client of a request that comes from no page of another site; None for a stranger.

        Websockets can ask too; there a login counts only with an Origin, which browsers send.

        Raises:
            Problem: a login acts without the token of its page.
        """
        if is_foreign_site(request.headers):
            return None
        token = bearer_token(request.headers)
        if token:
            return await self.client_of_token(token)
        cookie = login_cookie(request)
        login = await self._login(request, cookie)
        if login is None:
            local = self._access.admits(request)
            return Client("this machine", "this machine", Scope.ADMIN) if local else None
        if request.scope.get("method", "GET") not in ("GET", "HEAD"):
            given = request.headers.get(CSRF_HEADER, "")
            if not same_secret(given, csrf_token(cookie)):
                text = f"A login of the console sends {CSRF_HEADER}, as /console/session tells it"
                raise Problem(HTTPStatus.FORBIDDEN, "csrf_token_wrong", text)
        return login

    async def client_of_token(self, token: str) -> Client | None:
        """The client of a key or of the operator's token."""
        if same_secret(token, self._operator_token):
            return Client("operator_token", "operator_token", Scope.OPERATOR)
        key = await self.keys.find(token)
        return None if key is None else Client(key.id, key.name, key.scope)

    async def open_login(self, token: str) -> tuple[Login, str] | None:
        """Open a login of the console with a key; None for no key of ours.

        Raises:
            ConfigError, OSError: logins cannot be kept.
        """
        client = await self.client_of_token(token)
        if client is None or self.logins is None:
            return None
        hashed = hashlib.sha256(token.encode()).hexdigest()
        opened = partial(
            self.logins.open, client.name, client.scope, key_id=client.id, key_sha256=hashed
        )
        return await in_thread(opened)

    async def open_login_of(self, name: str, password: str) -> tuple[Login, str] | None:
        """Open a login of the console with a password; None for a wrong one.

        Raises:
            ConfigError, OSError: logins cannot be kept.
        """
        if self._passwords is None or self.logins is None:
            return None
        person = await self._passwords.check(name, password)
        if person is None:
            return None
        key_id = f"{_PASSWORD}{person.name}"
        opened = partial(
            self.logins.open, person.name, person.scope, key_id=key_id, key_sha256=person.mark
        )
        return await in_thread(opened)

    async def follow_link(self, token: str) -> tuple[Login, str] | None:
        """Open an admin's login for a link's token, which is used up; None for any other token.

        Raises:
            ConfigError, OSError: logins cannot be kept.
            Problem: other servers have been asked too often.
        """
        hashed = token_hash(token)
        if hashed is None or self.logins is None:
            return None
        if await self._ask(_LINK, {"sha256": hashed}, self._on_link_asked) is None:
            return None
        return await in_thread(partial(self.logins.open, "console", Scope.ADMIN))

    async def end_login(self, login_id: str) -> None:
        """End a login, at whichever server it was opened."""
        await self._bus.request(_LOGIN_OVER, {"id": login_id})

    async def _login(self, request: HTTPConnection, cookie: str) -> Client | None:
        hashed = token_hash(cookie)
        if hashed is None or self.logins is None:
            return None
        if request.scope["type"] == "websocket" and "origin" not in request.headers:
            return None
        found = await self._ask(_LOGIN, {"sha256": hashed}, self._on_login_asked)
        if found is None:
            return None
        return Client(found["id"], found["name"], Scope(found["scope"]))

    async def _ask(self, topic: str, message: Message, own: Responder) -> Message | None:
        """This process's answer, or else that of another server."""
        answer = await own(message)
        if answer is not None or not self._bus.shared or self._bus.degraded:
            return answer
        _count(self._asked, topic)
        return await self._bus.request(topic, message)

    async def _on_login_asked(self, message: Message) -> Message | None:
        """A login is judged where it was opened: its key and its password are known there."""
        assert self.logins is not None
        login = await self.logins.find(message["sha256"])
        client = None if login is None else await self._client_of_login(login)
        return None if client is None else asdict(client)

    async def _on_link_asked(self, message: Message) -> Message | None:
        assert self.logins is not None
        used = await in_thread(partial(self.logins.use_link, message["sha256"]))
        return {"used": True} if used else None

    async def _on_login_over(self, message: Message) -> Message | None:
        assert self.logins is not None
        ended = await in_thread(partial(self.logins.close, message["id"]))
        return {"ended": ended} if ended else None

    async def _client_of_login(self, login: Login) -> Client | None:
        match login.key_id:
            case "":
                return Client(login.id, login.name, login.scope)
            case "operator_token":
                current = hashlib.sha256(self._operator_token.encode()).hexdigest()
                if not self._operator_token or not same_secret(login.key_sha256, current):
                    return None
                return Client(login.id, login.name, Scope.OPERATOR)
            case str(of) if of.startswith(_PASSWORD):
                person = await self._person(of.removeprefix(_PASSWORD))
                if person is None or not same_secret(login.key_sha256, person.mark):
                    return None
                return Client(login.id, person.name, person.scope)
            case _:
                key = await self.keys.by_id(login.key_id)
                if key is None or not same_secret(login.key_sha256, key.sha256):
                    return None
                return Client(login.id, key.name, key.scope)

    async def _person(self, name: str) -> Person | None:
        return None if self._passwords is None else await self._passwords.find(name)

    async def _act(
        self, request: Request, client: Client, proceed: Handler, body_type: str
    ) -> Response:
        is_json = body_type == _JSON
        body = await _body(request, MAX_BODY_BYTES if is_json else MAX_FILE_BYTES)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        # A page of another site can have a browser post a form, but not JSON.
        if body and kind != body_type:
            what = "JSON" if is_json else "the file"
            text = f"Send {what}, with Content-Type: {body_type}"
            code = "json_required" if is_json else "file_required"
            raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, code, text)
        key = request.headers.get("idempotency-key")
        if key is None:
            return await proceed(request)
        route = f"{request.method} {request.url.path}?{request.url.query}"
        return await self._replays.once(client.id, route, key, body, lambda: proceed(request))


def login_cookie(connection: HTTPConnection) -> str:
    """The token of a login that a browser has sent, or an empty string."""
    cookies = connection.cookies
    return cookies.get(HTTPS_COOKIE) or cookies.get(PLAIN_COOKIE, "")


def is_https(connection: HTTPConnection) -> bool:
    """True when a browser reaches us over https, perhaps through a proxy.

    Where the proxy says nothing, the Origin of a page does.
    """
    forwarded = connection.headers.get("x-forwarded-proto", "").partition(",")[0].strip().lower()
    origin = connection.headers.get("origin", "")
    return forwarded == "https" or origin.startswith("https://") or connection.url.is_secure


def guarded_router(guard: Guard) -> APIRouter:
    """A router under `/api/v1` whose routes all pass the guard."""

    class GuardedRoute(APIRoute):
        def get_route_handler(self) -> Handler:
            proceed, needed = super().get_route_handler(), scope_of(self)
            body_type = _body_type_of(self)

            async def handle(request: Request) -> Response:
                response = await guard.handle(request, needed, proceed, body_type)
                response.headers.setdefault("cache-control", "no-store")
                # Text may hold what callers have said: no browser is to take it for a page.
                response.headers["x-content-type-options"] = "nosniff"
                return response

            return handle

    return APIRouter(prefix=V1, route_class=GuardedRoute)


async def _body(request: Request, most_bytes: int) -> bytes:
    """The body, which the route then parses.

    Raises:
        Problem: it is too large.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most_bytes:
            text = f"The body has at most {most_bytes} bytes"
            raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body_too_large", text)
    request._body = bytes(body)  # Starlette's own limit answers in plain text
    return request._body


def _count(requests: TokenBuckets, client_id: str) -> None:
    """Count a request.

    Raises:
        Problem: one too many; says when to come back.
    """
    now_s = time.monotonic()
    bucket = requests.of(client_id, now_s)
    if not bucket.take(now_s):
        raise Problem(
            HTTPStatus.TOO_MANY_REQUESTS,
            "too_many_requests",
            f"A key may send {requests.per_s:g} requests a second (api.requests_per_s)",
            headers={"retry-after": str(max(1, math.ceil(bucket.wait_s)))},
        )
