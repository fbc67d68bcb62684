"""Tools that wait for an operator: which ones there are, and yes or no to each.

`GET /approvals` lists them, `POST /approvals/{call_id}/{tool_call_id}` decides one with a body of
`{"approved": true}`, maybe with `always`, or `message` for the model. Open to bearers of a token
when one is set, else to programs on this machine, and to nobody once the internet calls.
Arguments are what callers have said: the answers hold personal data.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from app.calls.admission.live_calls import LiveCalls
from app.errors import ActionRefused, SignatureError
from app.events import CallId
from app.json_text import parse_json
from app.web.app import error_response
from app.web.clients import AccessRule
from app.web.metrics import AuthFailure, Metrics

__all__ = ["APPROVALS_PATH", "Decision", "approvals_router"]

APPROVALS_PATH: Final = "/approvals"
MAX_BODY_BYTES: Final = 1_024
BY: Final = "operator token"
"""The name that a call records for its decisions."""

_NO_STORE: Final = {"cache-control": "no-store"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """An operator's decision; `always`: for this tool until the call is over.

    A refusal gives `message` to the model.
    """

    approved: bool
    always: bool = False
    message: str = ""


def approvals_router(live: LiveCalls, metrics: Metrics, access: AccessRule) -> APIRouter:
    """The two routes."""
    router = APIRouter()

    def check(request: Request) -> None:
        if not access.admits(request):
            metrics.auth_failed(AuthFailure.APPROVALS)
            raise SignatureError("approvals are not open to this client", code="approvals_closed")

    @router.get(APPROVALS_PATH)
    async def approvals(request: Request) -> Response:
        check(request)
        return JSONResponse({"approvals": await live.approvals()}, headers=_NO_STORE)

    @router.post(APPROVALS_PATH + "/{call_id}/{tool_call_id}")
    async def decide(request: Request, call_id: str, tool_call_id: str) -> Response:
        check(request)
        decision = await _read(request)
        if decision is None:
            message = (
                'The body is JSON such as {"approved": true}, and maybe "always": true '
                'or "message": "..."'
            )
            return error_response(HTTPStatus.BAD_REQUEST, "decision_invalid", message)
        action = {"action": "approve", "tool_call_id": tool_call_id, **asdict(decision)}
        try:
            await live.act(CallId(call_id), action, by=BY)
        except ActionRefused:
            message = "Nothing waits for approval there, or not any more"
            return error_response(HTTPStatus.NOT_FOUND, "approval_not_found", message)
        return JSONResponse({"approved": decision.approved}, headers=_NO_STORE)

    return router


async def _read(request: Request) -> Decision | None:
    # JSON only: a foreign page can make a browser post a form, but not JSON.
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            return None
    try:
        given = parse_json(bytes(body)) if kind == "application/json" else None
    except (ValueError, RecursionError):
        return None
    match given:
        case {"approved": bool(approved), **more} if set(more) <= {"always", "message"}:
            always, message = more.get("always", False), more.get("message", "")
            if isinstance(always, bool) and isinstance(message, str):
                return Decision(approved=approved, always=always, message=message)
    return None
