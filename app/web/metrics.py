"""Numbers for Prometheus, derived from call events.

One registry per `Metrics`, so that tests and several servers in a process do not meet. Every label
takes its values from a closed set: nothing that a caller, a carrier or a model sends becomes a
label. Names follow the list in the operations guide; durations are seconds, as Prometheus wants.

Workers of one server count in files of a folder that they share (`PROMETHEUS_MULTIPROC_DIR`, set by
their supervisor before prometheus_client is imported). Any of them shows the sum, and what a worker
has counted stays when it is gone. The figures of single processes (`process_*`) are left out then.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from enum import StrEnum
from functools import cache
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from app.bus import Bus
from app.events import (
    AnswerJudged,
    CallAdmitted,
    CallEnded,
    CallEvent,
    CallId,
    CallNotAnswered,
    CallSummary,
    CallTurnedAway,
    DisclosureHeard,
    EndReason,
    StagesTimed,
    TokenUsage,
    ToolRan,
    VoiceReady,
    VoiceTrouble,
)
from app.threads import in_thread
from app.web.server.sockets import SocketCounts

__all__ = ["AuthFailure", "Metrics", "Refusal", "VoiceConnect"]

NAMESPACE = "trunkline"

PLACED_OUTCOMES = (
    *("answered", "busy", "no_answer", "canceled", "failed", "unknown", "not_dialed"),
)
_ANSWER_SECONDS = (0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 15.0)
_REACTION_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0)
_LAG_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_TOOL_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)


_TOKEN_CLASSES = (
    "input_text",
    "input_audio",
    "cached_text",
    "cached_audio",
    "cached_unsplit",
    "output_text",
    "output_audio",
    "transcription_seconds",
    "transcription_tokens",
)


class Refusal(StrEnum):
    """The reasons for turning a call away."""

    AT_CAPACITY = "at_capacity"
    DRAINING = "draining"
    CALLER_LIMIT = "caller_limit"
    NUMBER_LIMIT = "number_limit"
    SOCKETS = "sockets"
    OVER_BUDGET = "over_budget"
    OVERLOADED = "overloaded"
    OTHER = "other"


class TurnedAway(StrEnum):
    """The reasons why no agent answered a call."""

    AT_CAPACITY = "at_capacity"
    DRAINING = "draining"
    CLOSED = "closed"
    NOT_IN_PERCENT = "not_in_percent"
    CALLER_LIMIT = "caller_limit"
    NUMBER_LIMIT = "number_limit"
    OVER_BUDGET = "over_budget"
    OVERLOADED = "overloaded"
    OTHER = "other"


class AuthFailure(StrEnum):
    """The checks that a stranger can fail."""

    WEBHOOK_ACCOUNT = "webhook_account"
    WEBHOOK_FORM = "webhook_form"
    WEBHOOK_REPLAYED = "webhook_replayed"
    WEBHOOK_SIGNATURE = "webhook_signature"
    MEDIA_SIGNATURE = "media_signature"
    MEDIA_START = "media_start"
    MEDIA_TICKET = "media_ticket"
    MEDIA_TOKEN = "media_token"
    REALTIME_ORIGIN = "realtime_origin"
    REALTIME_TOKEN = "realtime_token"
    METRICS = "metrics"
    APPROVALS = "approvals"
    API = "api"


class VoiceConnect(StrEnum):
    """The outcomes of connecting to a call's voice model."""

    CONNECTED = "connected"
    RECONNECTED = "reconnected"
    FAILED = "failed"


class VoiceErrorClass(StrEnum):
    """The weight of a model's error for the call."""

    BENIGN = "benign"
    SERIOUS = "serious"


class Metrics:
    """The counters of one server; `observe` is fed with every event of every call."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self._shared = "PROMETHEUS_MULTIPROC_DIR" in os.environ
        if not self._shared:
            ProcessCollector(registry=self.registry)
        self._shared_counts: list[_SharedCounts] = []
        self._live: set[CallId] = set()
        self._voiced: set[CallId] = set()
        self._calls = _CallInstruments(self.registry)
        self._edge = _EdgeInstruments(self.registry)
        self._gateway = _GatewayInstruments(self.registry)
        # Every label value exists from the start: a rate over a series that appears with its
        # first event misses that event.
        self._edge.prepare()
        self._calls.prepare()

    async def render(self) -> bytes:
        """The text that Prometheus reads; the calls get the loop after each family of it."""
        families: Iterable[Metric] = self.registry.collect()
        if self._shared:
            families = await in_thread(_collect_shared, name="trunkline-metrics")
        parts = []
        for family in families:
            parts.append(generate_latest(_One(family)))
            await asyncio.sleep(0)
        return b"".join(parts)

    def refused(self, code: str) -> None:
        """A call or a socket was turned away for want of room."""
        known = code if code in Refusal._value2member_map_ else Refusal.OTHER
        self._edge.refused.labels(str(known)).inc()

    def auth_failed(self, kind: AuthFailure) -> None:
        """A request or a socket did not prove where it comes from."""
        self._edge.auth_failures.labels(kind.value).inc()

    def loop_lagged(self, lag_seconds: float) -> None:
        """The event loop woke up this much later than it was asked to."""
        self._edge.loop_lag.observe(lag_seconds)
        for counts in self._shared_counts:
            counts.add_up()

    def set_draining(self, draining: bool) -> None:
        """The server has begun to drain, or takes calls."""
        self._edge.draining.set(1 if draining else 0)

    def set_configuration(self, version: str) -> None:
        """Calls are routed by this version of the configuration from now on."""
        self._edge.configuration.info({"version": version})

    def watch_store(self, counts: Callable[[], Mapping[str, int]]) -> None:
        """Show what became of the events that the history of calls was given."""
        self._watch(_StoreCounts(counts))

    def webhook_settled(self, outcome: str) -> None:
        """An attempt to deliver a webhook has ended: delivered, retried or failed."""
        self._edge.webhooks.labels(outcome).inc()

    def gateway_refused(self, code: str) -> None:
        """A session of a Realtime client was refused before its upgrade."""
        self._gateway.refused.labels(code).inc()

    def gateway_connected(self, channel: str, waited_s: float) -> None:
        """A channel was reached for a session."""
        self._gateway.connect.labels(channel).observe(waited_s)

    def gateway_channel_failed(self, channel: str) -> None:
        """A channel was not reached."""
        self._gateway.failed.labels(channel).inc()

    def gateway_charged(
        self, key: str, model: str, usage: TokenUsage, cost_usd: float, *, estimated: bool
    ) -> None:
        """A response or a transcription is to be paid for."""
        for name in _TOKEN_CLASSES:
            count: float = getattr(usage, name)
            if count:
                self._gateway.tokens_of(key, model, name).inc(count)
        self._gateway.cost_of(key, model, str(estimated).lower()).inc(cost_usd)

    def watch_sockets(self, counts: SocketCounts) -> None:
        """Show the sockets that the listener's guards have cut off."""
        self._watch(_SocketCuts(counts))

    def _watch(self, counts: Collector, gauges: Literal["livesum", "livemax"] = "livesum") -> None:
        if self._shared:
            self._shared_counts.append(_SharedCounts(counts, gauges))
        else:
            self.registry.register(counts)

    def watch_bus(self, bus: Bus) -> None:
        """Show if other servers cannot be reached."""
        self._watch(_BusState(bus), gauges="livemax")

    def watch_budget(self, amounts: Callable[[], tuple[float, float]]) -> None:
        """Show what is spent of the budget of the day, and the budget; both in US dollars."""
        self._watch(_BudgetAmounts(amounts), gauges="livemax")  # each process knows the whole

    def observe(self, event: CallEvent) -> None:
        """Count one event of a call."""
        match event:
            case CallNotAnswered():
                self._calls.placed.labels(event.outcome).inc()
            case CallAdmitted():
                if event.direction == "outbound":
                    self._calls.placed.labels("answered").inc()
                self._live.add(event.call_id)
                self._calls.active.set(len(self._live))
            case CallTurnedAway():
                known = event.reason in TurnedAway._value2member_map_
                reason = event.reason if known else TurnedAway.OTHER.value
                self._calls.turned_away.labels(reason).inc()
            case VoiceReady():
                self._voiced.add(event.call_id)
                result = VoiceConnect.RECONNECTED if event.reconnected else VoiceConnect.CONNECTED
                self._calls.voice_connects.labels(result.value).inc()
                if not event.reconnected:
                    self._calls.voice_ready.observe(event.waited_ms / 1000)
            case AnswerJudged(verdict=verdict, after_ms=after_ms):
                self._calls.answers.labels(verdict.value).observe(after_ms / 1000)
            case DisclosureHeard(by_mark=by_mark):
                self._calls.disclosures.labels("mark" if by_mark else "clock").inc()
            case VoiceTrouble():
                kind = VoiceErrorClass.BENIGN if event.benign else VoiceErrorClass.SERIOUS
                self._calls.voice_errors.labels(kind.value).inc()
            case StagesTimed(stages_ms=stages_ms):
                for stage, ms in stages_ms.items():
                    self._calls.stages.labels(stage).observe(ms / 1000)
            case ToolRan():
                outcome = "error" if event.error else "ok"
                self._calls.tool.labels(outcome).observe(event.duration_ms / 1000)
            case CallEnded():
                self._on_ended(event)
            case _:
                pass  # Speech, keys and barge-ins are in the summary's counters.

    def _on_ended(self, event: CallEnded) -> None:
        if event.summary.reason is EndReason.VOICE_LOST and event.call_id not in self._voiced:
            self._calls.voice_connects.labels(VoiceConnect.FAILED.value).inc()
        self._live.discard(event.call_id)
        self._voiced.discard(event.call_id)
        self._calls.active.set(len(self._live))
        self._calls.count(event.summary)


def _collect_shared() -> list[Metric]:
    """The sums of all workers, out of their files."""
    of_all = CollectorRegistry()
    MultiProcessCollector(of_all)  # type: ignore[no-untyped-call]
    return list(of_all.collect())


class _One(Collector):
    """A family alone."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterable[Metric]:
        return [self._family]


class _GatewayInstruments:
    """Sessions of Realtime clients. Keys, models and channels are the operator's own names."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.refused = Counter(
            f"{NAMESPACE}_gateway_refused",
            "Sessions refused before their upgrade",
            ["code"],
            registry=registry,
        )
        self.failed = Counter(
            f"{NAMESPACE}_gateway_channel_failures",
            "Channels that were not reached",
            ["channel"],
            registry=registry,
        )
        self.connect = Histogram(
            f"{NAMESPACE}_gateway_connect_seconds",
            "Time until a channel was reached",
            ["channel"],
            buckets=_ANSWER_SECONDS,
            registry=registry,
        )
        tokens = Counter(
            f"{NAMESPACE}_gateway_usage",
            "Tokens, and seconds of transcription, by class",
            ["key", "model", "class"],
            registry=registry,
        )
        cost = Counter(
            f"{NAMESPACE}_gateway_cost_usd",
            "Cost of sessions by the price book",
            ["key", "model", "estimated"],
            registry=registry,
        )
        # For each response of each session: the library takes a lock to find a series.
        self.tokens_of = cache(tokens.labels)
        self.cost_of = cache(cost.labels)


class _SocketCuts(Collector):
    """The listener's own counts, read when they are asked for."""

    def __init__(self, counts: SocketCounts) -> None:
        self._counts = counts

    def collect(self) -> Iterable[Metric]:
        family = CounterMetricFamily(
            f"{NAMESPACE}_sockets_cut", "Sockets cut off by the listener", labels=["cause"]
        )
        for cause, count in asdict(self._counts).items():
            family.add_metric([cause], count)
        yield family


class _StoreCounts(Collector):
    """The writer's own counts of events, read when they are asked for."""

    def __init__(self, counts: Callable[[], Mapping[str, int]]) -> None:
        self._counts = counts

    def collect(self) -> Iterable[Metric]:
        counted = dict(self._counts())
        waiting = GaugeMetricFamily(
            f"{NAMESPACE}_history_waiting_events", "Events that the history has not taken yet"
        )
        waiting.add_metric([], counted.pop("waiting"))
        yield waiting
        family = CounterMetricFamily(
            f"{NAMESPACE}_history_events",
            "Events of calls, by what became of them",
            labels=["result"],
        )
        for result, count in counted.items():
            family.add_metric([result], count)
        yield family


class _BusState(Collector):
    """The state of the bus, read when it is asked for."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily(
            f"{NAMESPACE}_bus_degraded",
            "1 while other servers cannot be reached",
            value=1 if self._bus.degraded else 0,
        )


class _BudgetAmounts(Collector):
    """The budget of today, read when it is asked for."""

    def __init__(self, amounts: Callable[[], tuple[float, float]]) -> None:
        self._amounts = amounts

    def collect(self) -> Iterable[Metric]:
        spent, whole = self._amounts()
        yield GaugeMetricFamily(
            f"{NAMESPACE}_budget_spent_usd", "Spent of the budget of the day", value=spent
        )
        yield GaugeMetricFamily(f"{NAMESPACE}_budget_usd", "The budget of the day", value=whole)


class _SharedCounts:
    """The values of such a collector, kept up to date in metrics that the workers share."""

    def __init__(self, own: Collector, gauges: Literal["livesum", "livemax"]) -> None:
        self._own = own
        self._gauges = gauges
        self._shared: dict[str, Counter | Gauge] = {}
        self._counted: dict[tuple[str, tuple[str, ...]], float] = {}

    def add_up(self) -> None:
        """Count what has come since the last time."""
        for family in self._own.collect():
            for sample in family.samples:
                labels = tuple(sample.labels.values())
                shared = self._shared.get(family.name)
                if shared is None:
                    shared = self._shared[family.name] = self._metric(family, tuple(sample.labels))
                one = shared.labels(*labels) if labels else shared
                if isinstance(one, Gauge):
                    one.set(sample.value)
                else:
                    key = (family.name, labels)
                    one.inc(sample.value - self._counted.get(key, 0))
                    self._counted[key] = sample.value

    def _metric(self, family: Metric, labels: tuple[str, ...]) -> Counter | Gauge:
        if family.type == "gauge":
            return Gauge(
                family.name,
                family.documentation,
                labels,
                registry=None,
                multiprocess_mode=self._gauges,
            )
        return Counter(family.name, family.documentation, labels, registry=None)


class _EdgeInstruments:
    """The instruments of the HTTP edge."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.refused = Counter(
            "refused",
            "Calls and sockets turned away for want of room",
            ["reason"],
            namespace=NAMESPACE,
            registry=registry,
        )
        self.auth_failures = Counter(
            "auth_failures",
            "Requests and sockets that failed a check of their origin",
            ["kind"],
            namespace=NAMESPACE,
            registry=registry,
        )
        self.loop_lag = Histogram(
            "loop_lag_seconds",
            "How much later than asked the event loop woke up",
            namespace=NAMESPACE,
            registry=registry,
            buckets=_LAG_SECONDS,
        )
        self.webhooks = Counter(
            "webhook_deliveries",
            "Attempts to deliver messages about calls",
            ["result"],
            namespace=NAMESPACE,
            registry=registry,
        )
        self.configuration = Info(
            "configuration", "The configuration in force", namespace=NAMESPACE, registry=registry
        )
        self.draining = Gauge(
            "draining",
            "1 while the server drains",
            namespace=NAMESPACE,
            registry=registry,
            multiprocess_mode="livemax",
        )

    def prepare(self) -> None:
        for reason in Refusal:
            self.refused.labels(reason.value)
        for kind in AuthFailure:
            self.auth_failures.labels(kind.value)
        for result in ("delivered", "retried", "failed"):
            self.webhooks.labels(result)


class _CallInstruments:
    """The instruments of calls."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, namespace=NAMESPACE, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(
                name, text, labels, namespace=NAMESPACE, registry=registry, buckets=buckets
            )

        self.active = Gauge(
            "calls_active",
            "Calls admitted and not over",
            namespace=NAMESPACE,
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.ended = counter("calls", "Calls that ended, by reason", "outcome")
        self.turned_away = counter(
            "calls_turned_away", "Calls that no agent answered, by reason", "reason"
        )
        self.placed = counter("calls_placed", "Calls to people, by what came of them", "outcome")
        self.voice_connects = counter(
            "voice_connects", "Connections of calls to the voice model", "result"
        )
        self.voice_errors = counter("voice_errors", "Errors that the model reported", "class")
        self.voice_ready = histogram(
            "voice_ready_seconds", "From admission to a model that is ready", _ANSWER_SECONDS
        )
        self.first_audio = histogram(
            "first_audio_seconds", "From the stream's start to the first sound", _ANSWER_SECONDS
        )
        self.turn_latency = histogram(
            "turn_latency_seconds",
            "From the model's word that a turn ended to our sound: a call's median and its p95",
            _ANSWER_SECONDS,
            "of_call",
        )
        self.answers = histogram(
            "answered_by_seconds",
            "From the answer of a placed call to each verdict about who answered",
            _ANSWER_SECONDS,
            "verdict",
        )
        self.disclosures = counter(
            "disclosures_heard", "Disclosures and notices heard to their end, by proof", "proof"
        )
        self.stages = histogram(
            "stage_seconds",
            "From what a stage of the pipeline was asked to its first answer",
            _ANSWER_SECONDS,
            "stage",
        )
        self.barge_in = histogram(
            "barge_in_seconds", "Slowest reaction of a call to a barge-in", _REACTION_SECONDS
        )
        self.tool = histogram("tool_seconds", "Duration of tools", _TOOL_SECONDS, "result")
        self.frames = counter("frames", "Media messages", "party")
        self.audio = counter("audio_seconds", "Sound carried", "party")
        self.dropped = counter("queue_drop_seconds", "Sound dropped at a full queue", "queue")
        self.filled = counter("filled_seconds", "Silence put in for missing sound", "cause")
        self.barge_ins = counter("barge_ins", "Times a caller spoke over the agent")
        self.false_interruptions = counter(
            "false_interruptions", "Times that was a noise, and the agent went on"
        )
        self.turns = counter("turns", "Turns of callers")
        self.responses = counter("responses", "Responses of the model", "result")
        self.surprises = counter(
            "protocol_surprises", "Messages, or fields of the model's, ignored as out of place"
        )
        self.tokens = counter("tokens", "Tokens used", "kind")
        self.cost = counter(
            "cost_usd", "Cost of calls, as far as prices are known", "model", "class"
        )
        self.cost_unknown = counter("cost_unknown", "Calls with a part that has no price", "model")

    def prepare(self) -> None:
        for reason in EndReason:
            self.ended.labels(reason.value)
        for away in TurnedAway:
            self.turned_away.labels(away.value)
        for outcome in PLACED_OUTCOMES:
            self.placed.labels(outcome)
        for result in VoiceConnect:
            self.voice_connects.labels(result.value)
        for kind in VoiceErrorClass:
            self.voice_errors.labels(kind.value)

    def count(self, summary: CallSummary) -> None:
        """Add up one call that has ended."""
        self.ended.labels(summary.reason.value).inc()
        _observe_ms(self.first_audio, summary.answer_to_first_audio_ms)
        _observe_ms(self.turn_latency.labels("median"), summary.turn_latency_p50_ms)
        _observe_ms(self.turn_latency.labels("p95"), summary.turn_latency_p95_ms)
        _observe_ms(self.barge_in, summary.barge_in_reaction_max_ms)
        counted = summary.counters
        self.frames.labels("caller").inc(counted.caller_frames)
        self.frames.labels("agent").inc(counted.agent_frames)
        self.audio.labels("caller").inc(counted.caller_audio_ms / 1000)
        self.audio.labels("agent").inc(counted.agent_audio_ms / 1000)
        self.dropped.labels("uplink").inc(counted.uplink_dropped_ms / 1000)
        self.dropped.labels("stale").inc(counted.stale_audio_dropped_ms / 1000)
        self.filled.labels("gap").inc(counted.gap_filled_ms / 1000)
        self.filled.labels("stall").inc(counted.stall_filled_ms / 1000)
        self.barge_ins.inc(counted.barge_ins)
        self.false_interruptions.inc(counted.false_interruptions)
        self.turns.inc(counted.turns)
        self.responses.labels("failed").inc(counted.responses_failed)
        self.responses.labels("ok").inc(max(0, counted.responses - counted.responses_failed))
        self.surprises.inc(counted.protocol_surprises)
        self._count_usage(summary)

    def _count_usage(self, summary: CallSummary) -> None:
        usage = summary.usage
        self.tokens.labels("input_text").inc(usage.input_text)
        self.tokens.labels("input_audio").inc(usage.input_audio)
        self.tokens.labels("cached_text").inc(usage.cached_text)
        self.tokens.labels("cached_audio").inc(usage.cached_audio)
        self.tokens.labels("output_text").inc(usage.output_text)
        self.tokens.labels("output_audio").inc(usage.output_audio)
        self.tokens.labels("transcription").inc(usage.transcription_tokens)
        for name, dollars in summary.costs.items():
            self.cost.labels(summary.model, name).inc(dollars)
        if summary.cost_unknown:
            self.cost_unknown.labels(summary.model).inc()


def _observe_ms(histogram: Histogram, value_ms: int | None) -> None:
    if value_ms is not None:
        histogram.observe(value_ms / 1000)
