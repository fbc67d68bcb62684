"""Twilio's errors and the network's, as ours."""

from __future__ import annotations

import socket

import pytest
from twilio.base.exceptions import TwilioException, TwilioRestException
from twilio.http.response import Response

from app.carrier.twilio.faults import NEVER_DONE, as_ours, network_failure
from app.errors import CarrierRefused, CarrierUnavailable


def answered(status: int, code: int | None) -> TwilioException:
    return TwilioRestException(status=status, uri="/x", msg="+14155550123 is bad", code=code)


@pytest.mark.parametrize(
    ("status", "number", "code", "words"),
    [
        (404, 20404, "twilio_20404", "no such call or number"),
        (400, 21210, "twilio_21210", "neither the account's nor verified"),
        (400, 21220, "twilio_21220", "not in progress"),
        (400, 21999, "twilio_21999", "HTTP 400"),
        (401, 20003, "twilio_20003", "credentials"),
        (403, None, "http_403", "credentials"),
        (404, None, "http_404", "HTTP 404"),
    ],
)
def test_refusals_have_words_of_their_own_and_not_twilios(
    status: int, number: int | None, code: str, words: str
) -> None:
    error = as_ours(answered(status, number))
    assert isinstance(error, CarrierRefused)
    assert not error.retryable
    assert error.code == code
    assert words in error.message
    assert "4155550123" not in error.message


@pytest.mark.parametrize(
    ("status", "number", "code"),
    [
        (429, 20429, "twilio_20429"),
        (429, None, "http_429"),
        (500, 20500, "twilio_20500"),
        (503, None, "http_503"),
        (408, None, "http_408"),
    ],
)
def test_passing_faults_are_retryable(status: int, number: int | None, code: str) -> None:
    error = as_ours(answered(status, number))
    assert isinstance(error, CarrierUnavailable)
    assert error.code == code
    assert (code in NEVER_DONE) is (status == 429)


@pytest.mark.parametrize(
    ("status", "text", "kind", "code"),
    [
        (401, '{"code": 20003}', CarrierRefused, "twilio_20003"),
        (429, '{"code": 20429}', CarrierUnavailable, "twilio_20429"),
        (503, "<html>", CarrierUnavailable, "http_503"),
        (400, "[]", CarrierRefused, "http_400"),
    ],
)
def test_failed_lists_are_distinguished_although_the_library_does_not(
    status: int, text: str, kind: type[Exception], code: str
) -> None:
    error = as_ours(TwilioException("Unable to fetch page", Response(status, text)))
    assert isinstance(error, kind)
    assert error.code == code


def test_a_failure_of_the_library_itself_is_not_final() -> None:
    assert as_ours(TwilioException("odd")).code == "client_failed"


def test_only_a_request_that_cannot_have_been_sent_may_be_repeated_by_anyone() -> None:
    refused = OSError("Max retries exceeded")
    refused.__cause__ = ConnectionRefusedError(111, "refused")
    unknown = OSError("Max retries exceeded")
    unknown.__context__ = socket.gaierror(-2, "unknown")
    late = OSError("read timed out")
    late.__context__ = TimeoutError("timed out")
    lost = OSError("aborted")
    lost.__cause__ = ConnectionResetError(104, "reset")
    assert network_failure(refused).code in NEVER_DONE
    assert network_failure(unknown).code in NEVER_DONE
    assert network_failure(late).code == "timeout"
    assert network_failure(lost).code == "connection_lost"
    assert "connection_lost" not in NEVER_DONE


def test_the_cause_is_found_where_the_http_library_keeps_it() -> None:
    inner = OSError("new connection")
    inner.__cause__ = ConnectionRefusedError(111, "refused")
    retried = Exception("Max retries exceeded")
    retried.reason = inner  # type: ignore[attr-defined]
    assert network_failure(OSError(retried)).code == "unreachable"


def test_causes_that_go_in_circles_end() -> None:
    first, second = OSError("a"), OSError("b")
    first.__cause__, second.__cause__ = second, first
    assert network_failure(first).code == "connection_lost"
