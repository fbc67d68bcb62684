"""Counters from call events, with labels that no stranger can make."""

from __future__ import annotations

import asyncio

from prometheus_client.parser import text_string_to_metric_families

from app.events import (
    CallAdmitted,
    CallCounters,
    CallEnded,
    CallId,
    CallSummary,
    EndReason,
    StagesTimed,
    TokenUsage,
    ToolRan,
    VoiceReady,
    VoiceTrouble,
)
from app.web.metrics import AuthFailure, Metrics, Refusal
from app.web.server.sockets import SocketCounts


def _value(metrics: Metrics, name: str, **labels: str) -> float:
    value = metrics.registry.get_sample_value(f"trunkline_{name}", labels)
    assert value is not None, name
    return value


def _admitted(call: str, number: str = "+15550100001") -> CallAdmitted:
    return CallAdmitted(
        call_id=CallId(call),
        carrier_call_id=f"CA{call}",
        caller_number=number,
        called_number="+15550100002",
        agent="reception",
    )


def _ended(call: str, reason: EndReason = EndReason.CALLER_HUNG_UP) -> CallEnded:
    summary = CallSummary(
        call_id=CallId(call),
        carrier_call_id=f"CA{call}",
        agent="reception",
        model="model",
        reason=reason,
        duration_ms=60_000,
        answer_to_first_audio_ms=420,
        turn_latency_p50_ms=700,
        turn_latency_p95_ms=1_400,
        barge_in_reaction_max_ms=12,
        counters=CallCounters(
            caller_frames=3_000,
            agent_frames=100,
            uplink_dropped_ms=250,
            barge_ins=2,
            turns=4,
            responses=5,
            responses_failed=1,
        ),
        usage=TokenUsage(input_audio=1_000, output_audio=500),
        cost_usd=0.25,
        costs={"audio_in": 0.1, "audio_out": 0.15},
        cost_unknown=("twilio.prices.sms",),
    )
    return CallEnded(call_id=CallId(call), at_ms=60_000, summary=summary)


def test_a_call_is_active_from_admission_to_its_end() -> None:
    metrics = Metrics()
    metrics.observe(_admitted("1"))
    metrics.observe(_admitted("2"))
    assert _value(metrics, "calls_active") == 2
    metrics.observe(_ended("1"))
    assert _value(metrics, "calls_active") == 1
    metrics.observe(_ended("2", EndReason.VOICE_LOST))
    assert _value(metrics, "calls_active") == 0
    assert _value(metrics, "calls_total", outcome="caller_hung_up") == 1
    assert _value(metrics, "calls_total", outcome="voice_lost") == 1


def test_an_ended_call_adds_what_it_measured_in_seconds() -> None:
    metrics = Metrics()
    metrics.observe(_ended("1"))
    assert _value(metrics, "first_audio_seconds_sum") == 0.42
    assert _value(metrics, "turn_latency_seconds_sum", of_call="median") == 0.7
    assert _value(metrics, "turn_latency_seconds_sum", of_call="p95") == 1.4
    assert _value(metrics, "barge_in_seconds_sum") == 0.012
    assert _value(metrics, "frames_total", party="caller") == 3_000
    assert _value(metrics, "queue_drop_seconds_total", queue="uplink") == 0.25
    assert _value(metrics, "barge_ins_total") == 2
    assert _value(metrics, "responses_total", result="ok") == 4
    assert _value(metrics, "responses_total", result="failed") == 1
    assert _value(metrics, "tokens_total", kind="input_audio") == 1_000
    assert _value(metrics, "cost_usd_total", **{"model": "model", "class": "audio_in"}) == 0.1
    assert _value(metrics, "cost_usd_total", **{"model": "model", "class": "audio_out"}) == 0.15
    assert _value(metrics, "cost_unknown_total", model="model") == 1


def test_connections_to_the_model_are_counted_by_how_they_went() -> None:
    metrics = Metrics()
    metrics.observe(VoiceReady(call_id=CallId("1"), at_ms=0, waited_ms=300))
    metrics.observe(VoiceReady(call_id=CallId("1"), at_ms=9, waited_ms=200, reconnected=True))
    metrics.observe(_ended("1", EndReason.VOICE_LOST))  # lost later: not a failed connect
    metrics.observe(_ended("2", EndReason.VOICE_LOST))  # never had it
    assert _value(metrics, "voice_connects_total", result="connected") == 1
    assert _value(metrics, "voice_connects_total", result="reconnected") == 1
    assert _value(metrics, "voice_connects_total", result="failed") == 1
    assert _value(metrics, "voice_ready_seconds_sum") == 0.3


def test_the_stages_of_a_pipeline_are_timed_one_by_one() -> None:
    metrics = Metrics()
    metrics.observe(
        StagesTimed(
            call_id=CallId("1"),
            at_ms=900,
            began_ms=100,
            response_id="r",
            stages_ms={"stt": 150, "llm": 300},
        )
    )
    assert _value(metrics, "stage_seconds_sum", stage="stt") == 0.15
    assert _value(metrics, "stage_seconds_sum", stage="llm") == 0.3


def test_every_refusal_and_failure_is_there_before_it_happens() -> None:
    metrics = Metrics()
    for reason in Refusal:
        assert _value(metrics, "refused_total", reason=reason.value) == 0
    for kind in AuthFailure:
        assert _value(metrics, "auth_failures_total", kind=kind.value) == 0
    for outcome in EndReason:
        assert _value(metrics, "calls_total", outcome=outcome.value) == 0


def test_the_counts_of_sockets_cut_off_are_shown_live() -> None:
    metrics, counts = Metrics(), SocketCounts()
    metrics.watch_sockets(counts)
    counts.flood_cuts += 3
    assert _value(metrics, "sockets_cut_total", cause="flood_cuts") == 3
    assert _value(metrics, "sockets_cut_total", cause="stalls") == 0


def test_strangers_cannot_add_labels() -> None:
    metrics = Metrics()
    metrics.observe(_admitted("0"))
    metrics.observe(_ended("0"))
    metrics.observe(VoiceTrouble(call_id=CallId("0"), at_ms=0, code="x", benign=True))
    metrics.observe(ToolRan(call_id=CallId("0"), at_ms=0, name="x", duration_ms=1, error="x"))
    metrics.refused("x")
    before = _series(metrics)
    for number in range(1_000):
        evil = f'x{number}"}} 1\nforged{{a="'
        metrics.observe(_admitted(str(number), evil))
        metrics.observe(VoiceTrouble(call_id=CallId("0"), at_ms=0, code=evil, benign=True))
        metrics.observe(ToolRan(call_id=CallId("0"), at_ms=0, name=evil, duration_ms=1, error=evil))
        metrics.observe(_ended(str(number)))
        metrics.refused(evil)
    assert _series(metrics) == before
    assert _value(metrics, "refused_total", reason="other") == 1_001
    assert _value(metrics, "calls_active") == 0


async def test_calls_get_the_loop_while_the_numbers_are_rendered() -> None:
    metrics = Metrics()
    turns = 0

    async def call() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    calls = asyncio.ensure_future(call())
    text = (await metrics.render()).decode()
    calls.cancel()
    assert turns >= text.count("# TYPE") // 2  # a counter has a family of its own for its creation


def _series(metrics: Metrics) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    families = text_string_to_metric_families(asyncio.run(metrics.render()).decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items())))
        for family in families
        for sample in family.samples
    }
