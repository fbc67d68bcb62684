"""The transcript feed of one call: a line of JSON for every thing said, as it happens.

For development and `trunkline dial`: it is served only where the settings turn it on, and it is
signed like any other of the carrier's requests, since it holds what people say. A line has `at_ms`,
`who` (`caller`, `agent` or `event`) and `text`; an agent's line also what was heard of it, a
caller's whether it is `unverified`, as all are that the offline engine has written down.

A reader who is slow misses lines (the feed is bounded), a reader who stops reading is cut off by
the listener, and none of them is waited for by the call.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response, StreamingResponse

from app.carrier.base import CarrierCallId
from app.events import (
    AgentSaid,
    AnalysisFailed,
    AnswerJudged,
    BargeIn,
    CallEnded,
    CallerSaid,
    CallEvent,
    DisclosureHeard,
    GuardrailTripped,
    HandedOff,
    KeyPressed,
    MessageTaken,
    Party,
    SpeechResumed,
    StreamOpened,
    TaskAnswered,
    TaskStarted,
    ToolApprovalRequired,
    ToolRan,
    TurnAnalyzed,
    VoiceReady,
    VoiceReconnecting,
    VoiceTrouble,
)
from app.json_text import whole_text
from app.web.app import error_response

__all__ = ["TRANSCRIPT_PATH", "Follow", "add_transcript_feed", "transcript_line"]

TRANSCRIPT_PATH = "/calls/{carrier_call_id}/transcript"
MEDIA_TYPE = "application/x-ndjson"


Follow = Callable[[CarrierCallId], AsyncIterator[CallEvent]]
"""Gives the events of a call until its end; raises KeyError at once for an unknown call."""


def add_transcript_feed(router: APIRouter, follow: Follow) -> None:
    """Add the feed to a router whose routes are all signed."""

    @router.get(TRANSCRIPT_PATH)
    async def transcript(carrier_call_id: str) -> Response:
        try:
            events = follow(CarrierCallId(carrier_call_id))
        except KeyError:
            return error_response(404, "call_not_found", "There is no such call")
        return StreamingResponse(
            _lines(events),
            media_type=MEDIA_TYPE,
            headers={"cache-control": "no-store", "x-accel-buffering": "no"},
        )


async def _lines(events: AsyncIterator[CallEvent]) -> AsyncIterator[str]:
    async for event in events:
        line = transcript_line(event)
        if line is not None:
            yield whole_text(json.dumps(line, ensure_ascii=False)) + "\n"


def transcript_line(event: CallEvent) -> dict[str, Any] | None:
    """The feed's line about an event; None for the admission, which holds numbers only."""
    match event:
        case CallerSaid():
            return {
                "at_ms": event.at_ms,
                "who": Party.CALLER.value,
                "text": event.text or ("(not understood)" if event.failed else ""),
                "failed": event.failed,
                "unverified": event.unverified,
            }
        case AgentSaid():
            return {
                "at_ms": event.at_ms,
                "who": Party.AGENT.value,
                "text": event.text,
                "heard_text": event.heard_text,
                "cut_off": event.cut_off,
            }
        case StreamOpened():
            return _event(event.at_ms, "stream opened")
        case VoiceReady():
            what = "model reconnected" if event.reconnected else "model ready"
            return _event(event.at_ms, what)
        case AnswerJudged():
            found = list(event.evidence)
            return _event(event.at_ms, f"answered by {event.verdict}", evidence=found)
        case DisclosureHeard():
            return _event(event.at_ms, "disclosure heard", heard=event.text, by_mark=event.by_mark)
        case BargeIn():
            return _event(event.at_ms, "barge-in", heard_ms=event.heard_ms, sent_ms=event.sent_ms)
        case SpeechResumed():
            return _event(event.at_ms, "speech resumed", heard_ms=event.heard_ms)
        case KeyPressed():
            return _event(event.at_ms, "key pressed", digit=event.digit)
        case MessageTaken():
            taken = {"recipient": event.recipient, "message": event.text}
            return _event(event.at_ms, "message taken", **taken)
        case ToolRan():
            outcome = f"failed: {event.error}" if event.error else "ran"
            text = f"tool {event.name} {outcome}"
            return _event(event.at_ms, text, name=event.name, error=event.error)
        case HandedOff():
            return _event(
                event.at_ms,
                f"{event.from_agent} handed over to {event.to_agent}",
                from_agent=event.from_agent,
                to_agent=event.to_agent,
                kept_voice=event.kept_voice,
            )
        case GuardrailTripped():
            return _event(
                event.at_ms,
                f"guardrail {event.guardrail} {'stopped' if event.stopped else 'objected to'}"
                f" the {event.side.value}",
                name=event.guardrail,
                side=event.side.value,
                stopped=event.stopped,
            )
        case ToolApprovalRequired():
            text = f"tool {event.name} needs approval by {event.by}"
            return _event(event.at_ms, text, name=event.name, by=event.by)
        case TurnAnalyzed(analysis=analysis):
            text = f"analysis: {analysis.intent or 'no intent'}; {analysis.summary}"
            return _event(event.at_ms, text, intent=analysis.intent, summary=analysis.summary)
        case AnalysisFailed():
            return _event(event.at_ms, f"analysis failed: {event.code}", code=event.code)
        case TaskStarted(task=task):
            return _event(event.at_ms, f"task handed out: {task.text}", task=task.text)
        case TaskAnswered():
            text = f"task answered: {event.answer or event.error or 'nothing to say'}"
            return _event(event.at_ms, text, answer=event.answer, error=event.error)
        case VoiceReconnecting(at_ms=at_ms, code=code):
            return _event(at_ms, f"the model's connection was lost: {code}", code=code)
        case VoiceTrouble():
            text = f"model error {event.code}{event.where and f' at {event.where}'}"
            return _event(event.at_ms, text, code=event.code, benign=event.benign)
        case CallEnded():
            return _event(event.at_ms, "call ended", reason=event.summary.reason.value)
        case _:
            return None


def _event(at_ms: int, text: str, **facts: Any) -> dict[str, Any]:
    return {"at_ms": at_ms, "who": "event", "text": text, **facts}
