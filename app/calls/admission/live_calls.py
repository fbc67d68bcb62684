"""Live calls as operators see and steer them, in whichever process of the server they are.

Plain values go in and out, over the bus where another process holds the call. An action is a
mapping with its name under `action`. It is recorded in its call, with the name of the key that it
came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from app.agents.dialogue.messages import SayMode, SayWhen
from app.agents.tools.invocation import ApprovalRequest
from app.bus import Bus, Message
from app.calls.admission.switchboard import Switchboard
from app.calls.call import Call
from app.errors import ActionRefused, ToolError
from app.events import CallId, EndReason

__all__ = ["LiveCalls"]

MAX_LISTED: Final = 250
"""Live calls of one process that a message of the bus holds."""
ACTION_S: Final = 2.0

_STATUS: Final = "live_status"
_ACTION: Final = "live_action"
_MODES: Final = {"exactly": SayMode.VERBATIM, "own_words": SayMode.RELAY}


class LiveCalls:
    """The live calls of all processes."""

    def __init__(self, switchboard: Switchboard, bus: Bus) -> None:
        self._switchboard = switchboard
        self._bus = bus
        bus.respond(_STATUS, self._own_status)
        bus.respond(_ACTION, self._own_action)

    async def listed(self) -> list[dict[str, Any]]:
        """Every live call, oldest first."""
        found = [call for answer in await self._statuses() for call in answer["calls"]]
        return sorted(found, key=lambda call: str(call["started_at"]))

    async def approvals(self) -> list[dict[str, Any]]:
        """The tools of all calls that wait for an operator. Callers have said the arguments."""
        return [wanted for answer in await self._statuses() for wanted in answer["approvals"]]

    async def act(self, call_id: CallId, action: Mapping[str, Any], by: str) -> dict[str, Any]:
        """Perform an action in a live call.

        Raises:
            ActionRefused: the call is not live, or cannot do that now.
        """
        asked = {"call_id": call_id, "action": dict(action), "by": by}
        answer = await self._bus.request(_ACTION, asked, deadline_s=ACTION_S)
        if answer is None:
            raise ActionRefused("There is no such call, or it is over", code="call_not_live")
        if "code" in answer:
            raise ActionRefused(answer["message"], code=answer["code"])
        return {"call_id": call_id, "action": action["action"]}

    async def _statuses(self) -> list[Message]:
        return await self._bus.gather(_STATUS, {})

    # This process -------------------------------------------------------------------------------

    async def _own_status(self, _: Message) -> Message:
        return {
            "calls": [call.status() for call in self._switchboard.calls()[:MAX_LISTED]],
            "approvals": [_shown(wanted) for wanted in self._switchboard.approvals()],
        }

    async def _own_action(self, asked: Message) -> Message | None:
        call = self._switchboard.call(CallId(asked["call_id"]))
        if call is None or call.ending:
            return None
        try:
            self._perform(call, asked["action"], asked["by"])
        except ActionRefused as error:
            return {"code": error.code, "message": error.message}
        return {}

    def _perform(self, call: Call, action: Mapping[str, Any], by: str) -> None:
        match action:
            case {"action": "say", "text": str(text), "mode": str(mode), "when": str(when)}:
                call.note_operator("say", by, text)
                if mode == "instruction":
                    call.instruct(text)
                else:
                    call.say(text, mode=_MODES[mode], when=SayWhen(when))
            case {"action": "whisper", "text": str(text)}:
                call.note_operator("whisper", by, text)
                call.whisper(text)
            case {"action": "interrupt"}:
                call.note_operator("interrupt", by)
                call.interrupt()
            case {"action": "pause_recording", "paused": bool(paused)}:
                if call.recording is None or not call.recording.goes_on:
                    raise ActionRefused("This call is not being recorded", code="not_recorded")
                call.pause_recording(paused=paused)
                call.note_operator("pause_recording" if paused else "resume_recording", by)
            case {"action": "hang_up", "goodbye": bool(goodbye)}:
                call.note_operator("hang_up", by)
                if goodbye:
                    call.say_goodbye(EndReason.OPERATOR_HUNG_UP)
                else:
                    call.end(EndReason.OPERATOR_HUNG_UP)
            case {"action": "transfer", "destination": str(destination)}:
                try:
                    call.transfer(destination)
                except ToolError as error:
                    raise ActionRefused(error.message, code=error.code) from error
                call.note_operator("transfer", by, destination)
            case {"action": "approve", "tool_call_id": str(tool_call_id), "approved": bool(yes)}:
                if not self._switchboard.approve(
                    call.call_id,
                    tool_call_id,
                    approved=yes,
                    always=bool(action.get("always", False)),
                    message=str(action.get("message", "")),
                ):
                    text = "Nothing waits for approval there, or not any more"
                    raise ActionRefused(text, code="approval_not_found")
                call.note_operator("approve" if yes else "refuse", by, tool_call_id)
            case _:
                raise ActionRefused("There is no such action", code="action_unknown")


def _shown(wanted: ApprovalRequest) -> dict[str, Any]:
    context = wanted.context
    return {
        "call_id": context.call_id,
        "tool_call_id": context.tool_call_id,
        "agent": context.agent,
        "tool": wanted.tool.name,
        "arguments": dict(wanted.arguments),
        "caller_number": context.caller_number,
    }
