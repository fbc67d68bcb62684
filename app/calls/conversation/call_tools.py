"""Tools that act on the call itself: which of them run here, and how they are answered.

`end_call` belongs to `app.calls.conversation.goodbye`, digits to `app.calls.keypad.keypad` and
messages to `app.calls.conversation.message_taking`; holding is only a matter of timers and stands
here. Their schemas are in `app.agents.tools.call_control`. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from app.agents.dialogue.actions import DialogueAction, Record, RunTool
from app.agents.dialogue.dialogue import Dialogue
from app.agents.tools.call_control import CALL_TOOLS, END_CALL, refused_call_tool
from app.calls.turns.timers import CallTimers
from app.errors import AppError
from app.events import CallId, ToolRan

__all__ = ["CallTools"]


HOLD_S: Final = 120


class CallTools:
    """The answers to tools that run beside the sound."""

    def __init__(self, call_id: CallId, dialogue: Dialogue, timers: CallTimers) -> None:
        self._call_id = call_id
        self._dialogue = dialogue
        self._timers = timers

    def runs(self, run: RunTool) -> bool:
        """True for a tool of the call that the agent was given: a model may name others."""
        return run.name == END_CALL or (
            run.name in CALL_TOOLS and self._dialogue.active.agent.has_session_tool(run.name)
        )

    def answer(
        self,
        run: RunTool,
        output: Mapping[str, Any],
        now_ms: int,
        *,
        since_ms: int | None = None,
        reply: bool = True,
    ) -> Sequence[DialogueAction]:
        """Give the model the output of a tool that was called now, or at `since_ms`."""
        text = json.dumps(dict(output), ensure_ascii=False)
        return self._done(run, text, now_ms if since_ms is None else since_ms, now_ms, reply=reply)

    def refuse(self, run: RunTool, error: AppError, now_ms: int) -> Sequence[DialogueAction]:
        """Tell the model why a tool did not run."""
        return self._done(run, refused_call_tool(error), now_ms, now_ms, error=error.code)

    def hold(
        self, run: RunTool, arguments: Mapping[str, Any], now_ms: int, spoken: bool
    ) -> Sequence[DialogueAction]:
        """Leave the caller alone for a while, after a phrase if there is one."""
        self._timers.hold(1_000 * arguments.get("seconds", HOLD_S), now_ms)
        phrase = arguments.get("phrase", "").strip()
        said = self._dialogue.say(phrase, now_ms) if phrase else []
        note = "You wait now. The caller speaks first."
        return [*said, *self.answer(run, {"ok": True, "note": note}, now_ms, reply=False)]

    def _done(
        self,
        run: RunTool,
        text: str,
        since_ms: int,
        now_ms: int,
        *,
        reply: bool = True,
        error: str = "",
    ) -> Sequence[DialogueAction]:
        event = ToolRan(
            call_id=self._call_id,
            at_ms=now_ms,
            name=run.name,
            duration_ms=now_ms - since_ms,
            error=error,
        )
        calls = self._dialogue.function_calls
        return [Record(event), *calls.on_tool_done(run.tool_call_id, text, now_ms, reply=reply)]
