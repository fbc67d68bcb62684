"""Traces of calls for OpenTelemetry: a span for the call, one for each turn, and its stages.

Spans are made when a call is over, of its events and with their times: nothing is added to a live
call but a list. They hold no word and no number of a person. The exporter sends them from a thread
of its own, in batches, and drops what it cannot send. Imported only where `otel.endpoint` is set:
the packages come with the extra `otel`.

Names follow OpenTelemetry's conventions of autumn 2026 where they have one (`gen_ai.*` is still in
development there); the others begin with `trunkline.`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Final

from app.errors import ConfigError
from app.events import (
    BargeIn,
    CallAdmitted,
    CallEnded,
    CallEvent,
    CallId,
    StagesTimed,
    ToolRan,
    TransferEnded,
    TransferStarted,
    TurnTimed,
    VoiceReady,
    VoiceTrouble,
)
from app.installation import install_command
from app.network import requests_session

try:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import Span, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
    from opentelemetry.trace import Status, StatusCode, set_span_in_context
except ImportError as error:
    raise ConfigError(f"otel: needs more packages: {install_command('otel')}") from error

__all__ = ["CallTraces", "otlp_exporter"]

MAX_EVENTS: Final = 2_000
"""Kept of one call; a longer one is traced without its latest turns."""
_TRACED: Final = (
    BargeIn,
    StagesTimed,
    ToolRan,
    TransferEnded,
    TransferStarted,
    TurnTimed,
    VoiceReady,
    VoiceTrouble,
)
_STAGES: Final = (
    ("turn detection", "turn_found_ms"),
    ("model begins", "response_ms"),
    ("model sound", "model_sound_ms"),
    ("sound sent", "sent_ms"),
    ("sound heard", "heard_ms"),
)
_BAD_ENDS: Final = frozenset({"voice_lost", "carrier_lost", "internal_error"})
Attributes = Mapping[str, str | int | float | bool]


def otlp_exporter(endpoint: str, headers: Mapping[str, str]) -> SpanExporter:
    """The exporter to a collector: OTLP over HTTP, to `/v1/traces` of the endpoint."""
    url = endpoint.rstrip("/")
    url = url if url.endswith("/v1/traces") else f"{url}/v1/traces"
    return OTLPSpanExporter(
        endpoint=url, headers=dict(headers), timeout=10, session=requests_session(url)
    )


class CallTraces:
    """Makes the trace of each call when it ends."""

    def __init__(self, exporter: SpanExporter, *, service: str) -> None:
        self._provider = TracerProvider(resource=Resource.create({"service.name": service}))
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("trunkline")
        self._live: dict[CallId, tuple[int, CallAdmitted, list[CallEvent]]] = {}

    def observe(self, event: CallEvent) -> None:
        """Take any event of any call; never waits."""
        if isinstance(event, CallAdmitted):
            self._live[event.call_id] = (time.time_ns(), event, [])
        elif isinstance(event, CallEnded):
            if (known := self._live.pop(event.call_id, None)) is not None:
                self._trace(*known, event)
        elif isinstance(event, _TRACED) and event.call_id in self._live:
            events = self._live[event.call_id][2]
            if len(events) < MAX_EVENTS:
                events.append(event)

    def close(self) -> None:
        """Send what waits, within the exporter's time limit. Blocks."""
        self._provider.shutdown()

    def _trace(
        self,
        began_ns: int,
        admitted: CallAdmitted,
        events: Sequence[CallEvent],
        ended: CallEnded,
    ) -> None:
        summary = ended.summary
        attributes: dict[str, str | int | float | bool] = {
            "trunkline.call_id": admitted.call_id,
            "trunkline.agent": summary.agent,
            "gen_ai.request.model": summary.model,
            "trunkline.end_reason": summary.reason.value,
            "trunkline.turns": summary.counters.turns,
            "trunkline.barge_ins": summary.counters.barge_ins,
            "gen_ai.usage.input_tokens": summary.usage.input_text + summary.usage.input_audio,
            "gen_ai.usage.output_tokens": summary.usage.output_text + summary.usage.output_audio,
        }
        if summary.cost_usd is not None:
            attributes["trunkline.cost_usd"] = summary.cost_usd
        spans = _Spans(self, began_ns)
        call = spans.open("call", None, 0, attributes)
        turns, transfer_ms = 0, 0
        for event in events:
            match event:
                case TurnTimed():
                    turns += 1
                    spans.turn(call, event, turns)
                case StagesTimed():
                    spans.stages(call, event)
                case ToolRan():
                    facts = {"gen_ai.tool.name": event.name, "error.type": event.error}
                    begin_ms = event.at_ms - event.duration_ms
                    spans.closed("tool", call, begin_ms, event.at_ms, facts, event.error)
                case TransferStarted():
                    transfer_ms = event.at_ms
                case TransferEnded():
                    facts = {
                        "trunkline.destination": event.destination,
                        "trunkline.outcome": event.outcome,
                    }
                    spans.closed("transfer", call, transfer_ms, event.at_ms, facts)
                case VoiceReady():
                    begin_ms = 0 if not event.reconnected else event.at_ms
                    spans.closed("model connects", call, begin_ms, event.at_ms, {})
                case VoiceTrouble():
                    facts = {"error.type": event.code}
                    call.add_event("model trouble", facts, spans.at(event.at_ms))
                case BargeIn():
                    facts_ms = {"trunkline.heard_ms": event.heard_ms}
                    call.add_event("barge-in", facts_ms, spans.at(event.at_ms))
        if summary.reason.value in _BAD_ENDS:
            call.set_status(Status(StatusCode.ERROR, summary.detail or summary.reason.value))
        call.end(spans.at(ended.at_ms))


class _Spans:
    """Spans of one call, by the call's clock."""

    def __init__(self, traces: CallTraces, began_ns: int) -> None:
        self._tracer = traces._tracer
        self._began_ns = began_ns

    def at(self, ms: int) -> int:
        """A time of the call in nanoseconds since 1970."""
        return self._began_ns + ms * 1_000_000

    def open(self, name: str, parent: Span | None, at_ms: int, facts: Attributes) -> Span:
        context = None if parent is None else set_span_in_context(parent)
        given = {key: value for key, value in facts.items() if value != ""}
        span = self._tracer.start_span(name, context, attributes=given, start_time=self.at(at_ms))
        assert isinstance(span, Span)
        return span

    def closed(
        self,
        name: str,
        parent: Span,
        begin_ms: int,
        end_ms: int,
        facts: Attributes,
        error: str = "",
    ) -> None:
        span = self.open(name, parent, begin_ms, facts)
        if error:
            span.set_status(Status(StatusCode.ERROR, error))
        span.end(self.at(max(begin_ms, end_ms)))

    def stages(self, call: Span, event: StagesTimed) -> None:
        """A pipeline's reply until it was all made, with a span up to each stage's first answer."""
        begin_ms = event.began_ms
        reply = self.open("pipeline reply", call, begin_ms, {})
        for name, ms in event.stages_ms.items():
            self.closed(f"pipeline {name}", reply, begin_ms, begin_ms + ms, {})
            begin_ms += ms
        reply.end(self.at(max(begin_ms, event.at_ms)))

    def turn(self, call: Span, event: TurnTimed, number: int) -> None:
        """A turn with a span for each stage that it came to."""
        reached = [(name, getattr(event, field)) for name, field in _STAGES]
        stages = [(name, at_ms) for name, at_ms in reached if at_ms is not None]
        end_ms = stages[-1][1]
        facts: Attributes = {
            "trunkline.turn": number,
            "trunkline.answered": event.heard_ms is not None or event.sent_ms is not None,
        }
        turn = self.open("turn", call, event.caller_stopped_ms, facts)
        begin_ms = event.caller_stopped_ms
        for name, at_ms in stages:
            self.closed(name, turn, begin_ms, at_ms, {})
            begin_ms = max(begin_ms, at_ms)
        turn.end(self.at(max(event.caller_stopped_ms, end_ms)))
