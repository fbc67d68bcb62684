"""Failures that are worth another try, and those that are not."""

from __future__ import annotations

import pytest

from app.errors import VoiceClosed, VoiceRefused, VoiceUnavailable
from app.realtime.events import ErrorDetail
from app.realtime.faults import (
    FaultClass,
    classify,
    find_code,
    refusal_for_close,
    refusal_for_error,
    refusal_for_status,
)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ErrorDetail(code="insufficient_quota"), FaultClass.FATAL),
        (ErrorDetail(type="insufficient_quota"), FaultClass.FATAL),
        (ErrorDetail(type="invalid_request_error", code="model_not_found"), FaultClass.FATAL),
        (ErrorDetail(type="server_error"), FaultClass.RETRY),
        (ErrorDetail(code="rate_limit_exceeded"), FaultClass.RETRY),
        (ErrorDetail(code="session_expired"), FaultClass.ROTATE),
        (ErrorDetail(code="response_cancel_not_active"), FaultClass.BENIGN),
        (
            ErrorDetail(
                code="invalid_value",
                message="Audio content of 900ms is already shorter than 1200ms",
            ),
            FaultClass.BENIGN,
        ),
        (ErrorDetail(type="invalid_request_error", code="invalid_value"), FaultClass.UNKNOWN),
        (ErrorDetail(), FaultClass.UNKNOWN),
    ],
)
def test_errors_have_a_class(error: ErrorDetail, expected: FaultClass) -> None:
    assert classify(error) is expected


@pytest.mark.parametrize("status", [400, 401, 403, 404, 200, 301])
def test_an_http_refusal_is_final(status: int) -> None:
    error = refusal_for_status(status)
    assert isinstance(error, VoiceRefused)
    assert error.code == f"http_{status}"


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503])
def test_an_http_failure_may_pass(status: int) -> None:
    error = refusal_for_status(status, retry_after_s=2.0)
    assert isinstance(error, VoiceUnavailable)
    assert error.retry_after_s == 2.0


def test_a_429_for_want_of_quota_is_final() -> None:
    error = refusal_for_status(429, code="insufficient_quota")
    assert isinstance(error, VoiceRefused)
    assert error.code == "insufficient_quota"


def test_a_500_in_the_handshake_hints_at_the_beta_interface() -> None:
    assert "beta" in refusal_for_status(500).message
    assert "beta" not in refusal_for_status(502).message


@pytest.mark.parametrize("code", [1000, 1001, 1005, 1006, 1011, 1012, 1013, 1015])
def test_a_close_in_setup_may_pass(code: int) -> None:
    assert isinstance(refusal_for_close(VoiceClosed("x", close_code=code)), VoiceUnavailable)


@pytest.mark.parametrize("code", [1002, 1003, 1007, 1008, 1009, 3000, 4001])
def test_a_close_for_cause_is_final(code: int) -> None:
    assert isinstance(refusal_for_close(VoiceClosed("x", close_code=code)), VoiceRefused)


def test_a_close_that_names_a_fatal_code_is_final() -> None:
    closed = VoiceClosed("x", close_code=1011)
    closed.code = "invalid_api_key"
    error = refusal_for_close(closed)
    assert isinstance(error, VoiceRefused)
    assert error.code == "invalid_api_key"


def test_settings_that_were_refused_are_not_tried_again() -> None:
    error = refusal_for_error(ErrorDetail(code="invalid_value", param="session.audio"))
    assert isinstance(error, VoiceRefused)
    assert "session.audio" in error.message


@pytest.mark.parametrize(
    ("param", "named"),
    [
        ("session.tools[1]", True),
        ("session.tools[1].parameters", True),
        ("tools[1].name", True),
        ("session.tools.1.parameters", True),
        ("session.tools[2]", False),
        ("session.tools", False),
        ("session.audio", False),
        (None, False),
    ],
)
def test_a_tool_that_was_refused_is_named(param: str | None, named: bool) -> None:
    tools = [{"type": "function", "name": "find_slot"}, {"type": "function", "name": "book"}]
    error = refusal_for_error(ErrorDetail(code="invalid_function_parameters", param=param), tools)
    assert ("(tool book)" in error.message) is named


def test_a_server_that_failed_on_the_settings_is_tried_again() -> None:
    error = refusal_for_error(ErrorDetail(type="server_error"))
    assert isinstance(error, VoiceUnavailable)
    assert error.code == "server_error"


def test_an_error_without_words_still_has_a_code() -> None:
    assert refusal_for_error(ErrorDetail()).code == "session_refused"


def test_a_code_is_found_in_a_close_reason() -> None:
    assert find_code("invalid_request_error.invalid_api_key") == "invalid_api_key"
    assert find_code("Your session hit the maximum duration of 60 minutes.") is None
