"""Review of calls once they are over.

`CallReviews` observes all calls of a process: it keeps the transcript of those that go on and hands
it to the `Reviewer` with their last event.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from app.agents.analysis.analyzer import attempt
from app.agents.analysis.questions import ReviewSpec, TranscriptLine, review_question
from app.agents.llm.question import Ask
from app.background import BackgroundJobs
from app.errors import AppError
from app.events import (
    AgentSaid,
    Analysis,
    AnalysisFailed,
    CallAdmitted,
    CallEnded,
    CallerSaid,
    CallEvent,
    CallId,
    CallReviewed,
    MessageTaken,
    Party,
    TurnAnalyzed,
)
from app.http.signed_webhook import Message, Outbox, Webhook
from app.retry import retry

__all__ = ["CallReviews", "Reviewer"]


@dataclass(slots=True)
class _Notes:
    """Notes on a call that goes on."""

    admitted: CallAdmitted
    lines: list[TranscriptLine] = field(default_factory=list)
    messages: list[dict[str, str]] = field(default_factory=list)
    analysis: Analysis | None = None


class CallReviews:
    """Follows calls for a reviewer; `observe` is fed with every event of every call."""

    def __init__(self, reviewer: Reviewer) -> None:
        self._reviewer = reviewer
        self._live: dict[CallId, _Notes] = {}

    def observe(self, event: CallEvent) -> None:
        """Note an event; never waits."""
        if isinstance(event, CallAdmitted):
            self._live[event.call_id] = _Notes(event)
            return
        notes = self._live.get(event.call_id)
        if notes is None:
            return
        match event:
            case CallerSaid() if event.text:
                notes.lines.append(TranscriptLine(party=Party.CALLER, text=event.text))
            case AgentSaid() if event.heard_text:
                notes.lines.append(TranscriptLine(party=Party.AGENT, text=event.heard_text))
            case TurnAnalyzed():
                notes.analysis = event.analysis
            case MessageTaken():
                notes.messages.append({"recipient": event.recipient, "text": event.text})
            case CallEnded():
                del self._live[event.call_id]
                self._reviewer.on_call_over(event.call_id, notes.lines, _facts(notes, event))
            case _:
                pass


def _facts(notes: _Notes, ended: CallEnded) -> dict[str, Any]:
    """Facts about the call that go along with its review."""
    admitted, summary, analysis = notes.admitted, ended.summary, notes.analysis
    return {
        "carrier_call_id": admitted.carrier_call_id,
        "caller_number": admitted.caller_number,
        "called_number": admitted.called_number,
        "agent": summary.agent,
        "reason": summary.reason.value,
        "duration_ms": summary.duration_ms,
        "cost_usd": summary.cost_usd,
        "intent": "" if analysis is None else analysis.intent,
        "entities": {} if analysis is None else dict(analysis.entities),
        "messages": notes.messages,
    }


# After the call -----------------------------------------------------------------------------------


class Reviewer:
    """Summary and extraction of calls that are over, sent to a webhook.

    The webhook hears of every call, also of one that could not be reviewed: then `review` is null
    and `error` says why.
    """

    def __init__(
        self,
        spec: ReviewSpec,
        ask: Ask,
        jobs: BackgroundJobs,
        emit: Callable[[CallReviewed | AnalysisFailed], None],
        *,
        webhook: Webhook | None = None,
        attempts: int = 3,
        retry_delay_ms: int = 2_000,
        timeout_ms: int = 30_000,
    ) -> None:
        self._spec = spec
        self._ask = ask
        self._jobs = jobs
        self._emit = emit
        self.outbox = Outbox(jobs)
        self._webhook = webhook
        self._attempts = max(1, attempts)
        self._retry_delay_ms = retry_delay_ms
        self._timeout_ms = timeout_ms

    def on_call_over(
        self, call_id: CallId, lines: Sequence[TranscriptLine], facts: Mapping[str, Any]
    ) -> bool:
        """Review a call in the background; `facts` go along (numbers, duration, reason)."""
        work = partial(self._review, call_id, tuple(lines), dict(facts))
        return self._jobs.put(f"review {call_id}", work)

    async def _review(
        self, call_id: CallId, lines: tuple[TranscriptLine, ...], facts: dict[str, Any]
    ) -> None:
        review, code = (None, "nothing_said") if not lines else await self._ask_for(call_id, lines)
        if review is None:
            self._emit(AnalysisFailed(call_id=call_id, item_id="", code=code))
        else:
            self._emit(CallReviewed(call_id=call_id, review=review))
        if self._webhook is not None:
            digest = hashlib.sha256(str(call_id).encode()).hexdigest()[:32]
            data = {"call_id": call_id, "review": review, "error": code, "facts": facts}
            message = Message(key=f"review_{digest}", kind="call.reviewed", data=data)
            self.outbox.put(self._webhook, message)

    async def _ask_for(
        self, call_id: CallId, lines: tuple[TranscriptLine, ...]
    ) -> tuple[dict[str, Any] | None, str]:
        question = review_question(self._spec, lines)

        async def ask() -> dict[str, Any]:
            return self._spec.read(await self._ask(question))

        async def ask_once() -> dict[str, Any]:
            review, code = await attempt(ask, self._timeout_ms, "review", call_id)
            if review is None:
                # A model that answered badly may answer well; one that refuses us will not.
                raise AppError("no review", code=code, retryable=code != "chat_refused")
            return review

        try:
            first_delay_s = self._retry_delay_ms / 1000
            review = await retry(ask_once, attempts=self._attempts, first_delay_s=first_delay_s)
            return review, ""
        except AppError as error:
            return None, error.code
