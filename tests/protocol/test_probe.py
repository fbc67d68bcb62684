"""The probe of a voice model: each class of cause, over real sockets, with the session's id."""

from __future__ import annotations

from typing import Any

import pytest

from app.realtime.events import ErrorDetail, ErrorEvent, ResponseCreate
from app.realtime.probe import ProbeOutcome, probe
from app.realtime.websocket import WebSocketModel
from tests.fakes.voice import Close, Emit, Expect, Reply, ScriptedVoiceServer, Step, Trouble

KEY = "sk-test-0123456789"
SESSION = "sess_fake"


def refused(code: str) -> list[Step]:
    detail = ErrorDetail(type="invalid_request_error", code=code, message=f"no {KEY}")
    return [Expect(ResponseCreate), Emit(ErrorEvent(detail))]


CASES: dict[str, tuple[ProbeOutcome, str, str, dict[str, Any]]] = {
    "answers": (ProbeOutcome.OK, "", SESSION, {"replies": [Reply(text="Ready.")]}),
    "no key": (ProbeOutcome.AUTH, "http_401", "", {"trouble": Trouble(http_status=401)}),
    "a key that was revoked": (
        ProbeOutcome.AUTH,
        "invalid_api_key",
        SESSION,
        {"trouble": Trouble(update_error="invalid_api_key")},
    ),
    "no credit, at the answer": (
        ProbeOutcome.QUOTA,
        "insufficient_quota",
        SESSION,
        {"replies": [Reply(error_code="insufficient_quota")]},
    ),
    "no credit, by a close": (
        ProbeOutcome.QUOTA,
        "insufficient_quota",
        SESSION,
        {"script": [Expect(ResponseCreate), Close(1008, "insufficient_quota")]},
    ),
    "too much asked": (ProbeOutcome.QUOTA, "http_429", "", {"trouble": Trouble(http_status=429)}),
    "no such model": (
        ProbeOutcome.MODEL_NOT_FOUND,
        "model_not_found",
        "",
        {"trouble": Trouble(http_status=403, http_code="model_not_found")},
    ),
    "a field that it does not know": (
        ProbeOutcome.PROTOCOL_INCOMPATIBLE,
        "unknown_parameter",
        SESSION,
        {"script": refused("unknown_parameter")},
    ),
    "settings that it does not know": (
        ProbeOutcome.PROTOCOL_INCOMPATIBLE,
        "unknown_parameter",
        SESSION,
        {"trouble": Trouble(update_error="unknown_parameter")},
    ),
    "a failed answer": (
        ProbeOutcome.UPSTREAM_SERVER_ERROR,
        "server_error",
        SESSION,
        {"replies": [Reply(error_code="server_error")]},
    ),
    "a crash": (
        ProbeOutcome.UPSTREAM_SERVER_ERROR,
        "voice_closed",
        SESSION,
        {"script": [Expect(ResponseCreate), Close(1011)]},
    ),
    "an outage": (
        ProbeOutcome.UPSTREAM_SERVER_ERROR,
        "http_503",
        "",
        {"trouble": Trouble(http_status=503)},
    ),
    "no answer": (
        ProbeOutcome.TIMEOUT,
        "connect_timeout",
        SESSION,
        {"replies": [Reply(never_starts=True)]},
    ),
    "no session": (ProbeOutcome.TIMEOUT, "connect_timeout", "", {"trouble": Trouble(silent=True)}),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_each_cause_has_its_class_and_its_evidence(
    case: tuple[ProbeOutcome, str, str, dict[str, Any]],
) -> None:
    outcome, code, session_id, server_options = case
    async with ScriptedVoiceServer(**server_options) as server:
        model = WebSocketModel.openai(KEY, "gpt-test", url=server.url)
        found = await probe(model, timeout_ms=2_000)
    assert (found.outcome, found.code, found.session_id) == (outcome, code, session_id)
    assert found.ok is (outcome is ProbeOutcome.OK)
    assert found.answer == ("Ready." if found.ok else "")
    assert str(found).startswith(f"gpt-test: {outcome}")
    assert session_id in str(found)
    assert KEY not in str(found)


async def test_a_server_that_is_not_there_is_unreachable() -> None:
    async with ScriptedVoiceServer() as gone:
        left = gone.url
    for url in (left, "ws://no-such-host.invalid/"):
        found = await probe(WebSocketModel(url))
        assert found.outcome is ProbeOutcome.UNREACHABLE
        assert not found.connected
