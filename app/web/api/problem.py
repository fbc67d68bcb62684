"""Errors of the HTTP API: RFC 9457 problem details, in one shape for every route under `/api/`.

`type` is always `about:blank`, so `title` is the phrase of the status; programs tell errors apart
by `code`, people read `detail`. Nothing of a request is repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from app.errors import CallNotFound, StoreError, StoreUnavailable

__all__ = [
    "ANSWER_S",
    "API_PREFIX",
    "Problem",
    "invalid_request",
    "is_api",
    "problem_response",
    "status_problem",
    "store_problems",
]

API_PREFIX: Final = "/api"
ANSWER_S: Final = 4.0
"""The wait for the database: a person looks at a page, or a program has a caller on the line."""
MEDIA_TYPE: Final = "application/problem+json"
_MAX_ERRORS: Final = 20
_CODES: Final = {413: "body_too_large", 416: "range_invalid", 422: "request_invalid"}
"""Codes of statuses whose phrase depends on the version of Python."""


class Problem(HTTPException):
    """Answers a request of the API with an error. `more` are members beside the standard ones."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(status, detail, dict(headers or {}))
        self.code = code
        self.more = more

    @property
    def response(self) -> JSONResponse:
        return problem_response(
            self.status_code, self.code, self.detail, headers=self.headers, **self.more
        )


def is_api(connection: HTTPConnection) -> bool:
    """True for a request whose errors have the API's shape."""
    path: str = connection.scope["path"]
    return path == API_PREFIX or path.startswith(f"{API_PREFIX}/")


def status_problem(error: HTTPException) -> JSONResponse:
    """An error that has no code but its status."""
    status = error.status_code
    code = _CODES.get(status) or HTTPStatus(status).phrase.lower().replace(" ", "_")
    return problem_response(status, code, str(error.detail), headers=error.headers)


@contextlib.asynccontextmanager
async def store_problems(answer_s: float | None = ANSWER_S) -> AsyncIterator[None]:
    """Answer with a problem where the store raises, or does not answer in time."""
    unavailable = HTTPStatus.SERVICE_UNAVAILABLE
    try:
        async with asyncio.timeout(answer_s):
            yield
    except CallNotFound as error:
        raise Problem(HTTPStatus.NOT_FOUND, error.code, "There is no such call") from error
    except StoreUnavailable as error:
        raise Problem(unavailable, error.code, error.message) from error
    except StoreError as error:
        raise Problem(HTTPStatus.BAD_REQUEST, error.code, error.message) from error
    except TimeoutError as error:
        text = "The database does not answer; calls go on, and are kept on disk until it does"
        raise Problem(unavailable, "store_unavailable", text) from error


def problem_response(
    status: int,
    code: str,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> JSONResponse:
    """An error as problem details."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
        **more,
    }
    return JSONResponse(
        body,
        status_code=status,
        media_type=MEDIA_TYPE,
        headers={"cache-control": "no-store", **(headers or {})},
    )


def invalid_request(error: RequestValidationError) -> JSONResponse:
    """The answer to a request that does not fit: the places, but not what was sent there."""
    found: Sequence[Mapping[str, Any]] = error.errors()[:_MAX_ERRORS]
    places = [".".join(map(str, each["loc"])) for each in found]
    errors = [
        {"place": place, "message": str(each["msg"])}
        for place, each in zip(places, found, strict=True)
    ]
    detail = "; ".join(f"{e['place']}: {e['message']}" for e in errors[:3])
    return problem_response(
        HTTPStatus.UNPROCESSABLE_ENTITY, "request_invalid", detail, errors=errors
    )
