"""Live calls over the API: which there are, and what an operator has them do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal, Protocol

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from app.credentials.api_keys import Scope
from app.errors import ActionRefused
from app.events import CallId
from app.web.api.guard import client_of, needs
from app.web.api.problem import Problem

__all__ = ["Live", "LiveCallId", "act", "add_live_routes"]

MAX_TEXT_CHARS: Final = 2_000

_STATUS_OF: Final = {
    "call_not_live": HTTPStatus.NOT_FOUND,
    "approval_not_found": HTTPStatus.NOT_FOUND,
    "destination_unknown": HTTPStatus.UNPROCESSABLE_ENTITY,
}
"""Every other refusal is a 409: the call cannot do that now."""

LiveCallId = Annotated[str, Path(max_length=64)]
Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT_CHARS, pattern=r"\S")]


class Live(Protocol):
    """The live calls, of this process or of all; `act` raises `ActionRefused`."""

    async def listed(self) -> list[dict[str, Any]]: ...
    async def approvals(self) -> list[dict[str, Any]]: ...
    async def act(self, call_id: CallId, action: Mapping[str, Any], by: str) -> dict[str, Any]: ...


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Say(_Body):
    """Words for the agent. `instruction` is told to the agent alone, which then speaks."""

    text: Text
    mode: Literal["exactly", "own_words", "instruction"] = "exactly"
    when: Literal["now", "after_turn", "idle"] = "after_turn"


class Whisper(_Body):
    """Words that the agent alone is told; it says nothing because of them."""

    text: Text


class HangUp(_Body):
    """`goodbye`: after the closing prompt, else at once."""

    goodbye: bool = False


class PauseRecording(_Body):
    """`paused`: silence is recorded of both sides from now on; false: sound again."""

    paused: bool


class Transfer(_Body):
    """The name of a destination of the configuration."""

    destination: Annotated[str, Field(min_length=1, max_length=200)]


class Decision(_Body):
    """An answer to a tool; `always`: for this tool until the call is over.

    A refusal gives `message` to the model.
    """

    approved: bool
    always: bool = False
    message: Annotated[str, Field(max_length=MAX_TEXT_CHARS)] = ""


async def act(request: Request, live: Live, call_id: str, action: Mapping[str, Any]) -> Any:
    """Have a live call do something.

    Raises:
        Problem: it does not.
    """
    try:
        return await live.act(CallId(call_id), action, client_of(request).name)
    except ActionRefused as error:
        status = _STATUS_OF.get(error.code, HTTPStatus.CONFLICT)
        raise Problem(status, error.code, error.message) from error


def add_live_routes(router: APIRouter, live: Live) -> None:
    """Add the routes of live calls and of approvals."""
    operator, viewer = needs(Scope.OPERATOR), needs(Scope.VIEWER)
    accepted = HTTPStatus.ACCEPTED

    @router.get("/live/calls", openapi_extra=viewer)
    async def live_calls() -> Response:
        """List the calls that are live now, oldest first."""
        # Every console asks again and again: FastAPI's own way to JSON takes five times as long.
        text = json.dumps({"calls": await live.listed()}, ensure_ascii=False)
        return Response(text, media_type="application/json")

    @router.post("/calls/{call_id}/say", openapi_extra=operator, status_code=accepted)
    async def say(request: Request, call_id: LiveCallId, body: Say) -> Any:
        """Have the agent say something. The answer does not wait until it was said."""
        return await act(request, live, call_id, {"action": "say", **body.model_dump()})

    @router.post("/calls/{call_id}/whisper", openapi_extra=operator, status_code=accepted)
    async def whisper(request: Request, call_id: LiveCallId, body: Whisper) -> Any:
        """Tell the agent something that the caller does not hear."""
        return await act(request, live, call_id, {"action": "whisper", **body.model_dump()})

    @router.post("/calls/{call_id}/interrupt", openapi_extra=operator, status_code=accepted)
    async def interrupt(request: Request, call_id: LiveCallId) -> Any:
        """Stop the agent, with everything that it was to say next."""
        return await act(request, live, call_id, {"action": "interrupt"})

    @router.post("/calls/{call_id}/pause_recording", openapi_extra=operator, status_code=accepted)
    async def pause_recording(request: Request, call_id: LiveCallId, body: PauseRecording) -> Any:
        """Pause the recording of the call, or let it go on."""
        return await act(request, live, call_id, {"action": "pause_recording", **body.model_dump()})

    @router.post("/calls/{call_id}/hang_up", openapi_extra=operator, status_code=accepted)
    async def hang_up(
        request: Request, call_id: LiveCallId, body: Annotated[HangUp, Depends(_hang_up_body)]
    ) -> Any:
        """End the call, with a goodbye if wanted."""
        return await act(request, live, call_id, {"action": "hang_up", **body.model_dump()})

    @router.post("/calls/{call_id}/transfer", openapi_extra=operator, status_code=accepted)
    async def transfer(request: Request, call_id: LiveCallId, body: Transfer) -> Any:
        """Begin to transfer the caller. The call's events tell how that goes on."""
        return await act(request, live, call_id, {"action": "transfer", **body.model_dump()})

    @router.get("/approvals", openapi_extra=operator)
    async def approvals() -> dict[str, Any]:
        """List the tools that wait for an operator. Arguments are what callers have said."""
        return {"approvals": await live.approvals()}

    @router.post("/approvals/{call_id}/{tool_call_id}", openapi_extra=operator)
    async def decide(
        request: Request, call_id: LiveCallId, tool_call_id: str, body: Decision
    ) -> dict[str, bool]:
        """Answer a tool that waits for an operator."""
        action = {"action": "approve", "tool_call_id": tool_call_id, **body.model_dump()}
        await act(request, live, call_id, action)
        return {"approved": body.approved}


def _hang_up_body(body: HangUp | None = None) -> HangUp:
    return body or HangUp()
