"""Failed responses and errors of the model: report them, ask again, or give the connection up.

A response that fails is asked for again once; a second failure in a row gives up, and so does any
error that no retry heals. A failure of the server itself may pass: its connection is replaced again
after growing pauses, as one that breaks is. Pure; the classes of errors are `app.realtime.faults`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from app.agents.dialogue.actions import GiveUp, Record
from app.events import CallCounters, CallId, VoiceTrouble
from app.realtime.events import ErrorDetail, Response, ResponseStatus
from app.realtime.faults import FaultClass, classify, place_of

__all__ = ["TOOL_LOOP", "ResponseFailure", "ResponseFailures"]


TOOL_LOOP: Final = "tool_loop"
_MAX_FAILURES: Final = 2


@dataclass(frozen=True, slots=True)
class ResponseFailure:
    """The actions that a failure or an error leads to.

    `goes_on`: the connection is kept, and a response that failed is asked for again. Otherwise the
    last action gives the connection up.
    """

    actions: tuple[Record | GiveUp, ...]
    goes_on: bool


class ResponseFailures:
    """Counts the failures of one conversation's model, and the responses it has completed."""

    def __init__(self, call_id: CallId, counters: CallCounters) -> None:
        self.completed = 0
        self.in_a_row = 0
        self.code = ""
        """The code of the last failure, until a response is completed."""
        self._call_id = call_id
        self._counters = counters

    def on_response(
        self, response: Response, now_ms: int, *, spoke: bool = False, began: bool = False
    ) -> ResponseFailure | None:
        """A response is over: it counts as failed where it leaves the caller in silence.

        `spoke`: words or sound of it have come; `began`: anything has, of which some servers repeat
        nothing at its end.
        """
        status = response.status
        empty = status is ResponseStatus.COMPLETED and not response.output and not began
        if status is ResponseStatus.INCOMPLETE:  # a filter stops it after its item has begun
            shown = any(item.type != "message" or item.content for item in response.output)
            empty = not shown and not spoke
        if status is not ResponseStatus.FAILED and not empty:
            if status is ResponseStatus.COMPLETED:
                self.in_a_row = 0
                self.code = ""
                self.completed += 1
            return None
        self._counters.responses_failed += 1
        error = response.error or ErrorDetail(code=response.status_reason or "empty_response")
        return self._failed(error.code or error.type, now_ms, classify(error))

    def on_timeout(self, now_ms: int, *, unanswered: bool) -> ResponseFailure:
        """The model did not answer in time; `unanswered`: it never began what it was asked for."""
        failures = 1 if unanswered else 0
        return self._failed("response_timeout", now_ms, FaultClass.UNKNOWN, failures=failures)

    def on_error(
        self, error: ErrorDetail, now_ms: int, tools: Sequence[Mapping[str, Any]] = ()
    ) -> ResponseFailure:
        """An `error` event; `tools` are those of the settings that it is about."""
        code = error.code or error.type or "unknown"
        kind = classify(error)
        benign = kind is FaultClass.BENIGN
        if benign:
            self._counters.benign_errors += 1
        else:
            self._counters.voice_errors += 1
        trouble = self._trouble(code, now_ms, benign=benign, where=place_of(error, tools))
        if kind in {FaultClass.FATAL, FaultClass.ROTATE}:
            give_up = GiveUp(code=code, retryable=kind is FaultClass.ROTATE)
            return ResponseFailure((trouble, give_up), goes_on=False)
        return ResponseFailure((trouble,), goes_on=True)

    def on_tool_loop(self, now_ms: int) -> list[Record]:
        """The model calls tools again and again, and the caller has not said a word meanwhile."""
        self._counters.voice_errors += 1
        return [self._trouble(TOOL_LOOP, now_ms, benign=False)]

    def _failed(
        self, code: str, now_ms: int, kind: FaultClass, *, failures: int = 1
    ) -> ResponseFailure:
        self.in_a_row += failures
        self.code = code
        trouble = self._trouble(code, now_ms, benign=False)
        fatal = kind is FaultClass.FATAL
        if fatal or self.in_a_row >= _MAX_FAILURES:
            give_up = GiveUp(code=code, retryable=not fatal, passes=kind is FaultClass.RETRY)
            return ResponseFailure((trouble, give_up), goes_on=False)
        return ResponseFailure((trouble,), goes_on=True)

    def _trouble(self, code: str, now_ms: int, *, benign: bool, where: str = "") -> Record:
        return Record(
            VoiceTrouble(call_id=self._call_id, at_ms=now_ms, code=code, benign=benign, where=where)
        )
