"""`/v1/realtime` for any Realtime client: who may enter, and the upgrade of those who may.

A client proves itself by a bearer token, by the sub-protocol that browsers use, or where it is
configured by `?token=`. Everything that can be refused is refused before the upgrade, with a status
and a JSON reason in OpenAI's shape. Without any token, programs on this machine may enter where
the `AccessRule` says so (development). Pages of other sites may only with an ephemeral secret,
which such a page was given on purpose; else they would let others use a visitor's machine.

Follows the OpenAI Realtime websocket guide (2026-11) for paths, headers and sub-protocols.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Request, WebSocket
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import HTTPConnection

from app.gateway.access import Client, Refused
from app.gateway.gateway import UNKNOWN, Gateway, SecretRequest
from app.realtime.dialect import BETA, GA
from app.web.clients import AccessRule, bearer_token, is_foreign_site, same_secret
from app.web.metrics import AuthFailure, Metrics
from app.web.server.sockets import transport_of

__all__ = ["MAX_MESSAGE_BYTES", "REALTIME_PATH", "SECRETS_PATH", "realtime_router"]

REALTIME_PATH: Final = "/v1/realtime"
SECRETS_PATH: Final = f"{REALTIME_PATH}/client_secrets"

MAX_MESSAGE_BYTES: Final = 21 * 2**20
"""For this path only: one append holds 15 MiB of audio (OpenAI's limit), which is 20 in base64."""

_SUBPROTOCOL: Final = "realtime"
_BETA_SUBPROTOCOL: Final = "openai-beta.realtime-v1"
_KEY_SUBPROTOCOL: Final = "openai-insecure-api-key."
_OWN_TOKENS: Final = ("tk_", "ek_")
_SECRET: Final = "ek_"
_MAX_BODY_BYTES: Final = 65_536


class _Expiry(BaseModel):
    model_config = ConfigDict(extra="ignore")

    anchor: Literal["created_at"] = "created_at"
    seconds: int = Field(default=600, ge=10, le=7_200)


class _Limits(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    models: tuple[Annotated[str, Field(max_length=200)], ...] = Field(
        default=(), max_length=50, strict=False
    )
    max_session_s: int = Field(default=0, ge=0, le=86_400)
    max_usd: float = Field(default=0.0, ge=0, strict=False)
    sessions: int = Field(default=0, ge=0, le=1_000_000)


class _SecretBody(BaseModel):
    """OpenAI's fields, and `limits`, which is ours."""

    model_config = ConfigDict(extra="ignore")

    session: dict[str, Any] = Field(default_factory=dict)
    expires_after: _Expiry = Field(default_factory=_Expiry)
    limits: _Limits = Field(default_factory=_Limits)


def realtime_router(
    gateway: Gateway, metrics: Metrics, access: AccessRule, *, token_in_query: bool = False
) -> APIRouter:
    """The routes under `/v1/realtime`."""
    router = APIRouter()

    async def client_of(connection: HTTPConnection, offered: Sequence[str] = ()) -> Client:
        token = bearer_token(connection.headers) or _key_in(offered)
        if not token and token_in_query:
            token = connection.query_params.get("token", "")
        try:
            return await _client(connection, token, gateway, access)
        except Refused as refused:
            if refused.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
                origin = refused.code == "foreign_site"
                kind = AuthFailure.REALTIME_ORIGIN if origin else AuthFailure.REALTIME_TOKEN
                metrics.auth_failed(kind)
            raise

    @router.websocket(REALTIME_PATH)
    async def realtime(websocket: WebSocket) -> None:
        offered: Sequence[str] = websocket.scope.get("subprotocols", [])
        try:
            client = await client_of(websocket, offered)
            admission = gateway.admit(client, websocket.query_params.get("model", ""))
            with gateway.reserved(admission) as reservation:
                await websocket.accept(_echoed(offered))
                await gateway.serve(
                    admission,
                    reservation,
                    BETA if _speaks_beta(websocket, offered) else GA,
                    transport_of(websocket),
                )
        except Refused as refused:
            metrics.gateway_refused(refused.code)
            await websocket.send_denial_response(_answer(refused))

    @router.post(SECRETS_PATH)
    async def client_secrets(request: Request) -> JSONResponse:
        try:
            client = await client_of(request)
            body = _SecretBody.model_validate_json(await _body(request) or b"{}")
            limits = body.limits
            made = await gateway.make_secret(
                client,
                SecretRequest(
                    seconds=body.expires_after.seconds,
                    session=body.session,
                    models=limits.models,
                    max_session_s=limits.max_session_s,
                    max_usd=limits.max_usd,
                    sessions=limits.sessions,
                ),
            )
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            text = f"{place}: {first['msg']}" if place else first["msg"]
            return _answer(Refused(HTTPStatus.BAD_REQUEST, "invalid_request", text))
        except Refused as refused:
            return _answer(refused)
        return JSONResponse(made, headers={"cache-control": "no-store"})

    return router


async def _client(
    connection: HTTPConnection, token: str, gateway: Gateway, access: AccessRule
) -> Client:
    if is_foreign_site(connection.headers) and not token.startswith(_SECRET):
        raise Refused(
            HTTPStatus.FORBIDDEN,
            "foreign_site",
            "Pages of other sites need an ephemeral secret (POST /v1/realtime/client_secrets)",
        )
    if token.startswith(_OWN_TOKENS) and not same_secret(token, access.token):
        return await gateway.client(token)
    if same_secret(token, access.token):
        return Client(key_id="realtime_token", key_name="realtime_token")
    # On this machine, in development, clients may send any key: SDKs want one.
    if not access.token and access.admits(connection):
        return Client(key_id="this machine", key_name="this machine")
    raise UNKNOWN


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY_BYTES:
            text = f"The body has at most {_MAX_BODY_BYTES} bytes"
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body_too_large", text)
    return bytes(body)


def _answer(refused: Refused) -> JSONResponse:
    headers = {"cache-control": "no-store"}
    if refused.status is HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = "Bearer"
    if refused.status is HTTPStatus.TOO_MANY_REQUESTS:
        headers["retry-after"] = "30"
    return JSONResponse(refused.body, refused.status, headers=headers)


def _speaks_beta(connection: HTTPConnection, offered: Sequence[str]) -> bool:
    header = BETA.headers["OpenAI-Beta"] in connection.headers.get("OpenAI-Beta", "")
    return header or _BETA_SUBPROTOCOL in offered


def _echoed(offered: Sequence[str]) -> str | None:
    """One of the offered protocols, and never the one with the key (RFC 6455, 4.2.2)."""
    if _SUBPROTOCOL in offered:
        return _SUBPROTOCOL
    return next((name for name in offered if not name.startswith("openai-")), None)


def _key_in(subprotocols: Sequence[str]) -> str:
    for name in subprotocols:
        if name.startswith(_KEY_SUBPROTOCOL):
            return name.removeprefix(_KEY_SUBPROTOCOL)
    return ""
