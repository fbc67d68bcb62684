"""`place_call`: have a running server call somebody, from a Python program."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Final

import httpx2

from app.errors import CarrierUnavailable, PlacingRefused
from app.http.routed import open_client
from app.retry import retry

__all__ = ["place_call"]

ANSWER_S: Final = 30.0
_TRIES: Final = 3
_PAUSE_S: Final = 0.2


async def place_call(  # noqa: PLR0913 - what a call may need, by name
    to: str,
    *,
    agent: str,
    variables: Mapping[str, str] | None = None,
    purpose: str = "service",
    from_number: str = "",
    time_zone: str | None = None,
    server: str = "http://127.0.0.1:8080",
    key: str | None = None,
    idempotency_key: str | None = None,
) -> str:
    """Have somebody called by an agent of a server; the id of the call.

    `from_number` is one of the server's numbers, `time_zone` the callee's, where it is known better
    than by the number. Returns as soon as the call is allowed: the server's API tells what comes of
    it. A request whose answer is lost is repeated under the same idempotency key, and calls nobody
    twice.

    Raises:
        PlacingRefused: the call is not placed; the message says why.
        CarrierUnavailable: the server does not answer (`server_unreachable`).
    """
    body = {
        "to": to,
        "agent": agent,
        "variables": dict(variables or {}),
        "purpose": purpose,
        "from_number": from_number,
        "time_zone": time_zone,
    }
    headers = {"idempotency-key": idempotency_key or secrets.token_hex(16)}
    if key is not None:
        headers["authorization"] = f"Bearer {key}"

    async def ask() -> httpx2.Response:
        try:
            return await client.post("/api/v1/calls", json=body, headers=headers)
        except httpx2.HTTPError as error:
            text = f"the server at {server} does not answer"
            raise CarrierUnavailable(text, code="server_unreachable") from error

    async with open_client(base_url=server, timeout=ANSWER_S) as client:
        return _call_id(await retry(ask, attempts=_TRIES, first_delay_s=_PAUSE_S))


def _call_id(answer: httpx2.Response) -> str:
    try:
        found = answer.json()
        if answer.is_success:
            return str(found["call_id"])
        raise PlacingRefused(
            str(found["detail"]), code=str(found["code"]), not_before=found.get("not_before")
        )
    except (ValueError, KeyError, TypeError) as error:
        text = f"HTTP {answer.status_code}: this is not a Trunkline server"
        raise PlacingRefused(text, code="no_trunkline") from error
