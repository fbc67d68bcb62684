"""A call of a real server reaches a collector as one trace, over OTLP/HTTP."""

from __future__ import annotations

import gzip

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from app.events import AgentSaid
from tests.fakes.voice import Reply, ScriptedVoiceServer
from tests.fakes.waiting import until
from tests.fakes.web_service import WebService, answer
from tests.integration.server import trunkline


def spans_of(service: WebService) -> list[str]:
    """The names of the spans that the collector got."""
    names: list[str] = []
    for asked in service.asked:
        body = asked.body
        if asked.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            names += [span.name for scope in resource.scope_spans for span in scope.spans]
    return names


async def test_a_call_reaches_the_collector_at_the_latest_when_the_server_stops() -> None:
    replies = [Reply(text="Hello.", audio_ms=200), Reply(text="Booked.", audio_ms=200)]
    async with WebService(answer(content_type="application/x-protobuf")) as collector:
        otel = {"endpoint": collector.url, "authorization": "Basic canary-of-a-collector"}
        async with (
            ScriptedVoiceServer(replies=replies) as voice,
            trunkline(voice, otel=otel) as app,
            app.twilio() as twilio,
        ):
            call = await twilio.call(app.url)
            await app.event(call, AgentSaid)
            await call.speak(0.5)
            await app.event(call, AgentSaid, lambda said: said.text == "Booked.")
            await call.hang_up()
            await app.ended(call)
        await until(lambda: "call" in spans_of(collector))
        assert {"turn", "turn detection", "model sound"} <= set(spans_of(collector))
        [asked] = collector.asked
        assert asked.target == "/v1/traces"
        assert asked.headers["authorization"] == "Basic canary-of-a-collector"
