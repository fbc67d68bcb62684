"""A Realtime websocket of the engine, for any Realtime client.

Speaks no event itself: `Engine.serve` gets a transport and does the rest. Open to these: with a
token set, its bearer (header `Authorization: Bearer`, or the subprotocol that browsers use); with
none set, only programs on this machine, and only where its `Door` says so (development). Pages
of other sites are refused in either case, since a browser would let them use a visitor's machine.

Follows the OpenAI Realtime websocket guide (2026-11) for the path, the header and the subprotocols.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect, WebSocketState
from websockets.frames import CloseCode

from app.errors import VoiceClosed
from app.realtime.connection import Transport
from app.realtime.dialect import BETA, GA, Dialect
from app.web.access import Door, bearer_token, is_foreign_site
from app.web.metrics import AuthFailure, Metrics

__all__ = [
    "MAX_MESSAGE_BYTES",
    "REALTIME_PATH",
    "RealtimeService",
    "WebSocketTransport",
    "realtime_router",
]

REALTIME_PATH = "/v1/realtime"

MAX_MESSAGE_BYTES = 21 * 2**20
"""For this path only: one append holds 15 MiB of audio (OpenAI's limit), which is 20 in base64."""

_SUBPROTOCOL = "realtime"
_BETA_SUBPROTOCOL = "openai-beta.realtime-v1"
_KEY_SUBPROTOCOL = "openai-insecure-api-key."


class RealtimeService(Protocol):
    """The server side of the Realtime protocol: the engine."""

    async def serve(self, transport: Transport, dialect: Dialect, model: str) -> None: ...


class WebSocketTransport:
    """A transport over an accepted websocket."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket

    async def send(self, text: str) -> None:
        """Send one event.

        Raises:
            VoiceClosed: the socket is gone.
        """
        try:
            await self._websocket.send_text(text)
        except WebSocketDisconnect as error:
            raise _closed(error.code) from error
        except RuntimeError as error:
            raise _closed(CloseCode.ABNORMAL_CLOSURE) from error

    async def receive(self) -> str:
        """The next event's text.

        Raises:
            VoiceClosed: the client left, or sent a binary message.
        """
        try:
            message = await self._websocket.receive()
        except RuntimeError as error:
            raise _closed(CloseCode.ABNORMAL_CLOSURE) from error
        if message["type"] == "websocket.disconnect":
            raise _closed(int(message.get("code") or CloseCode.NO_STATUS_RCVD))
        text = message.get("text")
        if not isinstance(text, str):
            await self.close(CloseCode.UNSUPPORTED_DATA)
            raise _closed(CloseCode.UNSUPPORTED_DATA)
        return text

    async def close(self, code: int = 1000) -> None:
        """Close the socket; closing twice is nothing."""
        if self._websocket.application_state is not WebSocketState.CONNECTED:
            return
        try:
            await self._websocket.close(code)
        except (WebSocketDisconnect, RuntimeError):
            return  # The client was faster.


def realtime_router(service: RealtimeService, metrics: Metrics, door: Door) -> APIRouter:
    """The route `/v1/realtime`."""
    router = APIRouter()

    @router.websocket(REALTIME_PATH)
    async def realtime(websocket: WebSocket) -> None:
        failure = _check(websocket, door)
        if failure is not None:
            metrics.auth_failed(failure)
            await websocket.close()  # Before accept: HTTP 403.
            return
        offered = websocket.scope.get("subprotocols", [])
        await websocket.accept(_SUBPROTOCOL if _SUBPROTOCOL in offered else None)
        transport = WebSocketTransport(websocket)
        try:
            dialect = BETA if _speaks_beta(websocket) else GA
            await service.serve(transport, dialect, websocket.query_params.get("model", ""))
        except VoiceClosed:
            pass  # The client hung up.
        finally:
            await transport.close()

    return router


def _check(websocket: WebSocket, door: Door) -> AuthFailure | None:
    if is_foreign_site(websocket.headers):
        return AuthFailure.REALTIME_ORIGIN
    given = bearer_token(websocket.headers) or _key_in(websocket.scope.get("subprotocols", []))
    return None if door.admits(websocket, token=given) else AuthFailure.REALTIME_TOKEN


def _speaks_beta(websocket: WebSocket) -> bool:
    header = BETA.headers["OpenAI-Beta"] in websocket.headers.get("OpenAI-Beta", "")
    return header or _BETA_SUBPROTOCOL in websocket.scope.get("subprotocols", [])


def _key_in(subprotocols: Sequence[str]) -> str:
    for name in subprotocols:
        if name.startswith(_KEY_SUBPROTOCOL):
            return name.removeprefix(_KEY_SUBPROTOCOL)
    return ""


def _closed(code: int) -> VoiceClosed:
    return VoiceClosed("the realtime client closed the connection", close_code=int(code))
