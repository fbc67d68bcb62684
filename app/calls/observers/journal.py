"""A call in the log: a line when it is admitted, and one wide line when it ends.

Between them stand its milestones (model ready, first sound, tools, handoffs, transfers), and what
goes wrong. Speech and numbers go under `pii.` keys, which `app.logs` masks.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Final

from app import logs
from app.events import (
    AgentSaid,
    AnalysisFailed,
    AnswerJudged,
    CallAdmitted,
    CallEnded,
    CallerSaid,
    CallEvent,
    CallNotAnswered,
    CallPlaced,
    CallReviewed,
    CallRinging,
    CallSummary,
    CallTurnedAway,
    CarrierVerdict,
    DisclosureHeard,
    FirstSound,
    GuardrailTripped,
    HandedOff,
    OptedOut,
    RecordingStarted,
    RecordingStopped,
    TaskAnswered,
    TaskStarted,
    ToolApprovalRequired,
    ToolRan,
    TransferEnded,
    TurnAnalyzed,
    VoiceReady,
    VoiceTrouble,
)

__all__ = ["log_event", "log_review"]


logger = logging.getLogger("trunkline.call")

MAX_NAME_CHARS: Final = 64


def log_event(event: CallEvent) -> None:
    """Write what an operator wants to read of an event, if anything, under its call's id."""
    outer = logs.call_id.set(event.call_id)
    try:
        _write(event)
    finally:
        logs.call_id.reset(outer)


def _write(event: CallEvent) -> None:
    match event:
        case CallAdmitted():
            logger.info(
                "call admitted",
                extra={
                    "carrier_call_id": event.carrier_call_id,
                    "agent": event.agent,
                    "tools": ", ".join(event.tools),
                    "pii.caller": event.caller_number,
                    "pii.called": event.called_number,
                },
            )
        case CallTurnedAway():
            _write_turned_away(event)
        case CallEnded(summary=summary):
            _write_ended(summary)
        case CallPlaced() | CallRinging() | CallNotAnswered() | CarrierVerdict():
            _write_placed(event)
        case VoiceTrouble(benign=False):
            evidence = {"session_id": event.session_id, "where": event.where}
            given = {name: value for name, value in evidence.items() if value}
            logger.warning("voice model trouble", extra={"code": event.code, **given})
        case VoiceReady():
            _write_ready(event)
        case FirstSound():
            logger.info("first sound", extra={"after_ms": event.after_ms})
        case AnswerJudged() | DisclosureHeard() | OptedOut():
            _write_answer(event)
        case ToolApprovalRequired() | ToolRan() | HandedOff() | TransferEnded():
            _write_tool(event)
        case RecordingStarted() | RecordingStopped():
            _write_recording(event)
        case GuardrailTripped():
            logger.warning(
                "guardrail tripped",
                extra={
                    "guardrail": event.guardrail,
                    "side": event.side.value,
                    "stopped": event.stopped,
                    "pii.reason": event.reason,
                },
            )
        case TaskStarted() | TaskAnswered() | TurnAnalyzed():
            _write_analysis(event)
        case CallerSaid() | AgentSaid():
            logger.debug(
                "transcript",
                extra={"who": type(event).__name__, "pii.text": event.text},
            )
        case _:
            return


def _write_ended(summary: CallSummary) -> None:
    facts = asdict(summary)
    del facts["call_id"]  # stands in every line of the call
    counters = facts.pop("counters")
    usage = facts.pop("usage")
    costs = {f"cost_{name}": round(usd, 6) for name, usd in facts.pop("costs").items()}
    costs["cost_unknown"] = ", ".join(facts.pop("cost_unknown"))
    costs["cost_estimated"] = facts.pop("cost_estimated")
    del facts["carrier"]  # its seconds are those of the call
    counted = {key: value for key, value in (counters | usage | costs).items() if value}
    given = {key: value for key, value in facts.items() if value not in (None, "")}
    logger.info("call ended", extra={**given, "reason": summary.reason.value, **counted})


def _write_tool(event: ToolApprovalRequired | ToolRan | HandedOff | TransferEnded) -> None:
    match event:
        case ToolApprovalRequired(by="operator"):
            logger.info(
                "tool waits for an operator",
                extra={
                    "tool": event.name,
                    "tool_call_id": event.tool_call_id,
                    "pii.arguments": event.arguments,
                },
            )
        case ToolRan():
            error = {"error": event.error} if event.error else {}
            outcome = {"": "ok", "interrupted": "cancelled", "call_over": "cancelled"}
            facts = {
                "tool": event.name[:MAX_NAME_CHARS],  # as the model wrote it, known or not
                "outcome": outcome.get(event.error, "failed"),
                "duration_ms": event.duration_ms,
            }
            logger.info("tool ran", extra={**facts, **error})
        case HandedOff():
            agents = {"from_agent": event.from_agent, "to_agent": event.to_agent}
            logger.info("handed over", extra=agents)
            if event.kept_voice:
                logger.warning(
                    "voice not changed: a session keeps the voice of its first sound",
                    extra={"agent": event.to_agent, "voice": event.kept_voice},
                )
        case TransferEnded():
            logger.info(
                "transfer ended",
                extra={
                    "destination": event.destination,
                    "outcome": event.outcome,
                    "evidence": event.evidence,
                },
            )


def _write_analysis(event: TaskStarted | TaskAnswered | TurnAnalyzed) -> None:
    match event:
        case TaskStarted(task=task):
            logger.info("task handed out", extra={"task": task.key, "pii.task": task.text})
        case TaskAnswered():
            failure = {"error": event.error} if event.error else {}
            logger.info(
                "task answered",
                extra={
                    "task": event.key,
                    "duration_ms": event.duration_ms,
                    "pii.answer": event.answer,
                    **failure,
                },
            )
        case TurnAnalyzed():
            logger.debug("turn analyzed", extra={"pii.analysis": asdict(event.analysis)})


def _write_placed(event: CallPlaced | CallRinging | CallNotAnswered | CarrierVerdict) -> None:
    match event:
        case CallPlaced(taken_over=True):
            pass  # the dialer has said so
        case CallPlaced():
            campaign = {"campaign": event.campaign} if event.campaign else {}
            logger.info(
                "call placed",
                extra={"agent": event.agent, "pii.callee": event.caller_number, **campaign},
            )
        case CallRinging():
            facts = {"carrier_call_id": event.carrier_call_id, "after_ms": event.after_ms}
            logger.debug("call rings", extra=facts)
        case CallNotAnswered():
            logger.info(
                "call not answered",
                extra={"outcome": event.outcome, "code": event.code, "after_ms": event.after_ms},
            )
        case CarrierVerdict():
            logger.info("carrier verdict", extra={"answered_by": event.answered_by})


def _write_turned_away(event: CallTurnedAway) -> None:
    logger.info(
        "call turned away",
        extra={
            "carrier_call_id": event.carrier_call_id,
            "code": event.reason,
            "put_through_to": event.put_through_to,
            "pii.caller": event.caller_number,
            "pii.called": event.called_number,
        },
    )


def _write_ready(event: VoiceReady) -> None:
    session = {"session_id": event.session_id} if event.session_id else {}
    if event.reconnected:
        logger.info("model reconnected", extra=session)
        return
    logger.info("model ready", extra={"waited_ms": event.waited_ms, **session})
    if event.differing:
        logger.warning(
            "voice model took other settings", extra={"settings": ", ".join(event.differing)}
        )


def _write_answer(event: AnswerJudged | DisclosureHeard | OptedOut) -> None:
    if isinstance(event, OptedOut):
        logger.info("callee opted out", extra={"pii.number": event.number})
        return
    if isinstance(event, AnswerJudged):
        facts = {
            "verdict": event.verdict.value,
            "before": event.before.value,
            "after_ms": event.after_ms,
            "pii.evidence": "; ".join(event.evidence),
        }
        logger.info("answer judged", extra=facts)
    else:
        extra = {"by_mark": event.by_mark, "tries": event.tries}
        logger.info("disclosure heard", extra=extra)


def _write_recording(event: RecordingStarted | RecordingStopped) -> None:
    if isinstance(event, RecordingStarted):
        logger.info("recording started", extra={"file": event.file})
    elif event.reason != "call_over" or event.lost_ms:
        logger.warning(
            "recording is not complete",
            extra={"reason": event.reason, "lost_ms": event.lost_ms, "file": event.file},
        )


def log_review(event: CallReviewed | AnalysisFailed) -> None:
    """Write that a call was reviewed, or why it was not."""
    if isinstance(event, CallReviewed):
        extra = {"call_id": event.call_id, "pii.review": dict(event.review)}
        logger.info("call reviewed", extra=extra)
    else:
        logger.info("call not reviewed", extra={"call_id": event.call_id, "code": event.code})
