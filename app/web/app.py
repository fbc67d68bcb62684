"""The HTTP application: routers put together, one shape for every error.

Under `/api/` that shape is RFC 9457's (`app.web.api.problem`), elsewhere our own. Interactive
documentation is off: strangers find the carrier's routes and the health checks, and no description
of the API. The listener is `serving.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from app.errors import (
    AppError,
    CapacityError,
    CarrierUnavailable,
    RemoteProtocolError,
    SignatureError,
)
from app.web.api.problem import (
    Problem,
    invalid_request,
    is_api,
    problem_response,
    status_problem,
)
from app.web.forwarding import Forwarded, on_forwarded

__all__ = ["error_response", "make_app"]

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]

_STATUS_OF: Mapping[type[AppError], HTTPStatus] = {
    SignatureError: HTTPStatus.FORBIDDEN,
    RemoteProtocolError: HTTPStatus.BAD_REQUEST,
    CapacityError: HTTPStatus.SERVICE_UNAVAILABLE,
    CarrierUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}


def make_app(routers: Sequence[APIRouter], *, lifespan: Lifespan | None = None) -> FastAPI:
    """The application over the given routers."""
    app = FastAPI(
        title="Trunkline",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        # A redirect would be built from the Host header, and its target would not be signed.
        redirect_slashes=False,
        lifespan=lifespan,
    )
    for router in routers:
        # `include_router` would make each route a second time, when the first request comes.
        app.router.routes.extend(router.routes)
    app.add_exception_handler(AppError, _on_app_error)
    app.add_exception_handler(Forwarded, on_forwarded)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(Exception, _on_bug)
    return app


def error_response(
    status: int, code: str, message: str, *, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """An error in the one shape that all routes use."""
    return JSONResponse(
        {"error": {"code": code, "message": message}},
        status_code=status,
        headers={"cache-control": "no-store", **(headers or {})},
    )


async def _on_app_error(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, SignatureError):
        # The same words for every refusal: a stranger must not learn what was missing.
        return error_response(HTTPStatus.FORBIDDEN, "forbidden", "Forbidden")
    for kind, status in _STATUS_OF.items():
        if isinstance(error, kind):
            answer = problem_response if is_api(request) else error_response
            return answer(status, error.code, error.message)
    return await _on_bug(request, error)


async def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if isinstance(error, Problem):
        return error.response
    if is_api(request):
        return status_problem(error)
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    return error_response(error.status_code, code, str(error.detail), headers=error.headers)


async def _on_invalid_request(request: Request, error: Exception) -> JSONResponse:
    if is_api(request):
        assert isinstance(error, RequestValidationError)
        return invalid_request(error)
    # Without the details: they repeat what was sent.
    return error_response(HTTPStatus.BAD_REQUEST, "bad_request", "The request is not valid")


async def _on_bug(request: Request, error: Exception) -> JSONResponse:
    # Starlette raises the error again after this answer, so that the listener logs it.
    answer = problem_response if is_api(request) else error_response
    return answer(
        HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", "Something went wrong on our side"
    )
