"""Shared by the HTTP stages: an answer's status as an error, and JSON that may be anything."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx2

from app.engine.stages.base import StageError, StageSpec
from app.http.streaming import StreamingHttp
from app.json_text import parse_json

__all__ = ["as_json", "asked", "content_type", "refusal_code", "whole"]

_MAX_BYTES: Final = 4 * 1024 * 1024
_FIELDS: Final = {
    "stream_options": "stream_options",
    "reasoning_effort": "reasoning_effort",
    "reasoning.effort": "reasoning_effort",
    "response_format": "response_format",
    "max_tokens": "max_tokens",
}
"""Fields that a request can do without, by the words of a server that refuses them."""
_FIELD_REFUSED: Final = frozenset({400, 422})
_CODES: Final = {
    401: "stage_key_refused",
    403: "stage_key_refused",
    404: "stage_not_found",
    429: "stage_rate_limited",
}
_REFUSED: Final = {401: "key", 403: "key or region", 404: "model or address"}


@asynccontextmanager
async def asked(
    http: StreamingHttp, spec: StageSpec, path: str, **request: Any
) -> AsyncIterator[httpx2.Response]:
    """The answer to a request, of status 200.

    Raises:
        StageError: that of `refusal_code`, `stage_timeout`, `stage_cut`, `stage_unreachable`.
    """
    url = spec.url(path)
    try:
        async with http.post(
            url, headers=spec.headers(), timeout_s=spec.timeout_s, **request
        ) as response:
            if response.status_code != 200:
                raise _refusal(response.status_code, spec, (await response.aread())[:2000])
            yield response
    except httpx2.TimeoutException as error:
        message = f"{spec.model}: no answer within {spec.timeout_s:g} s"
        raise StageError(message, code="stage_timeout") from error
    except httpx2.ConnectError as error:
        raise StageError(f"{spec.model}: cannot be reached", code="stage_unreachable") from error
    except httpx2.HTTPError as error:
        raise StageError(f"{spec.model}: the answer was cut off", code="stage_cut") from error


def _refusal(status: int, spec: StageSpec, body: bytes) -> StageError:
    detail = as_json(body.decode(errors="replace"))
    code = _error_code(detail)
    if status == 429 and code == "insufficient_quota":
        return StageError(f"{spec.model}: the account has no credit", code="insufficient_quota",
                          retryable=False)  # fmt: skip
    what = f" (check the {_REFUSED[status]})" if status in _REFUSED else _named(detail)
    error = StageError(
        f"{spec.model}: the server answered {status}{what}",
        code=refusal_code(status),
        retryable=status == 429 or status >= 500,
    )
    if status in _FIELD_REFUSED:
        # Some servers repeat the whole request in their refusal: what they name counts for more.
        named = _param(detail)
        text = named if named in _FIELDS else body.decode(errors="replace")
        error.fields = frozenset(field for word, field in _FIELDS.items() if word in text)
    return error


def refusal_code(status: int) -> str:
    """The code of a stage whose server answers with an HTTP status other than success."""
    if status >= 500:
        return "stage_busy"
    return _CODES.get(status, "stage_refused")


def _error_code(body: Any) -> str:
    match body:
        case {"error": {"code": str(code)}} | {"error": {"type": str(code)}}:
            return code
    return ""


def _param(body: Mapping[str, Any]) -> str:
    match body:
        case {"error": {"param": str(name)}}:
            return name
    return ""


def _named(body: Mapping[str, Any]) -> str:
    """The field and code that a refusal names; its words may repeat what callers said."""
    names = ", ".join(filter(None, (_param(body), _error_code(body))))
    return f" ({names[:80]})" if names else ""


async def whole(response: httpx2.Response) -> bytes:
    """The whole body, within a limit.

    Raises:
        StageError: it is too large.
    """
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > _MAX_BYTES:
            raise StageError("an answer is too large", code="stage_invalid")
    return bytes(body)


def content_type(response: httpx2.Response) -> str:
    """The media type of an answer, without parameters, in lower case."""
    header: str = response.headers.get("content-type", "")
    return header.partition(";")[0].strip().lower()


def as_json(text: str) -> Mapping[str, Any]:
    """The JSON object in a text; an empty one when there is none."""
    try:
        value = parse_json(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
