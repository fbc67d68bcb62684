"""One question to a voice model outside of any call: it answers, or the cause has a class.

A session opens with a key that has no credit, and with a model that may not be used: only an answer
shows what a caller would meet. The answer is a line of text, which costs next to nothing. No retry
and no breaker are between the model and the result.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from app.errors import VoiceError, VoiceRefused, VoiceUnavailable
from app.realtime.connection import VoiceConnection, VoiceModel
from app.realtime.events import (
    ContentPart,
    ErrorDetail,
    ErrorEvent,
    Item,
    Response,
    ResponseConfig,
    ResponseCreate,
    ResponseDone,
    ResponseStatus,
    SessionConfig,
)
from app.realtime.faults import FaultClass, classify, find_code

__all__ = ["ProbeOutcome", "ProbeResult", "probe"]

READY: Final = "Answer with the one word: ready"
_ANSWER_TOKENS: Final = 200  # a reasoning model thinks first


class ProbeOutcome(StrEnum):
    """The outcome of a probe, as a class of causes."""

    OK = "ok"
    AUTH = "auth"
    QUOTA = "quota"
    MODEL_NOT_FOUND = "model_not_found"
    PROTOCOL_INCOMPATIBLE = "protocol_incompatible"
    UPSTREAM_SERVER_ERROR = "upstream_server_error"
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"


_BY_CODE: Final = {
    ProbeOutcome.AUTH: (
        "account_deactivated",
        "authentication_error",
        "http_401",
        "http_403",
        "invalid_api_key",
        "invalid_organization",
        "permission_denied",
        "permission_error",
        "stage_key_refused",
        "unsupported_country_region_territory",
    ),
    ProbeOutcome.QUOTA: (
        "billing_hard_limit_reached",
        "credit_balance_exhausted",
        "http_429",
        "inference_rate_limit_exceeded",
        "insufficient_quota",
        "rate_limit_error",
        "rate_limit_exceeded",
        "stage_rate_limited",
    ),
    ProbeOutcome.MODEL_NOT_FOUND: (
        "deployment_not_found",
        "http_404",
        "invalid_model",
        "model_not_found",
        "stage_not_found",
        "unsupported_model",
    ),
    ProbeOutcome.UPSTREAM_SERVER_ERROR: ("response_cancelled", "response_failed"),
    ProbeOutcome.TIMEOUT: ("connect_timeout", "http_408", "session_timeout", "stage_timeout"),
    ProbeOutcome.UNREACHABLE: (
        "connection_failed",
        "connection_refused",
        "dns_failed",
        "invalid_proxy",
        "stage_unreachable",
        "tls_failed",
    ),
    ProbeOutcome.PROTOCOL_INCOMPATIBLE: (
        "beta_api_shape_disabled",
        "format_mismatch",
        "handshake_failed",
        "protocol_mismatch",
    ),
}
_OUTCOMES: Final = {code: outcome for outcome, codes in _BY_CODE.items() for code in codes}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """The result of a probe.

    Args:
        model: the model's name.
        connected: True if the session was agreed on.
        session_id: the upstream's own id of the session, for its support; empty without one.
        code: of the failure; empty for `OK`.
        message: the failure in words without a secret.
        retryable: True if the failure may pass by itself.
        answer: the model's line.
        differences: settings that the model took another value for.
    """

    outcome: ProbeOutcome
    model: str = ""
    connected: bool = False
    session_id: str = ""
    code: str = ""
    message: str = ""
    retryable: bool = False
    answer: str = ""
    differences: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return self.outcome is ProbeOutcome.OK

    def __str__(self) -> str:
        where = f", session {self.session_id}" if self.session_id else ""
        if self.ok:
            return f"{self.model}: ok{where}"
        return f"{self.model}: {self.outcome}: {self.message} ({self.code}{where})"


async def probe(
    model: VoiceModel,
    timeout_ms: int = 8_000,
    *,
    say: str = READY,
    session: SessionConfig | None = None,
) -> ProbeResult:
    """Ask the model for one line of text; whatever goes wrong is in the result.

    `say` is what it is told; `session` are the settings to ask for, such as those of a
    call. `timeout_ms` is for everything together.

    Raises:
        ConfigError: this program's own settings cannot be used.
    """
    found = _Probe(model)
    try:
        async with asyncio.timeout(timeout_ms / 1000):
            return await found.ask(session or SessionConfig(output_modalities=("text",)), say)
    except TimeoutError:
        did = "took the session, and did not answer" if found.connected else "did not answer"
        late = VoiceUnavailable(
            f"the model {did} within {timeout_ms / 1000:g} s", code="connect_timeout"
        )
        return found.failed(late)
    except VoiceError as error:
        return found.failed(error)


class _Probe:
    """One probe, and what is known when it fails."""

    def __init__(self, model: VoiceModel) -> None:
        self._model = model
        self._connection: VoiceConnection | None = None

    @property
    def connected(self) -> bool:
        return self._connection is not None

    async def ask(self, session: SessionConfig, say: str) -> ProbeResult:
        connection = self._connection = await self._model.connect(session)
        try:
            return await self._answer(connection, say)
        finally:
            await connection.close()

    def failed(self, error: VoiceError) -> ProbeResult:
        connection = self._connection
        session_id = error.session_id if connection is None else connection.session.id
        return ProbeResult(
            outcome=_outcome_of(error),
            model=self._model.name,
            connected=self.connected,
            session_id=session_id or "",
            code=error.code,
            message=error.message,
            retryable=error.retryable and find_code(error.code) is None,
            differences=() if connection is None else connection.differences,
        )

    async def _answer(self, connection: VoiceConnection, say: str) -> ProbeResult:
        words_in = ContentPart(type="input_text", text=say)
        wanted = ResponseConfig(
            output_modalities=("text",),
            input=(Item(type="message", role="user", content=(words_in,)),),
            tools=(),
            tool_choice="none",
            max_output_tokens=_ANSWER_TOKENS,
        )
        request = await connection.send(ResponseCreate(wanted))
        async for event in connection:
            match event:
                case ResponseDone(response):
                    if (error := _unanswered(response)) is not None:
                        return self.failed(error)
                    return ProbeResult(
                        outcome=ProbeOutcome.OK,
                        model=self._model.name,
                        connected=True,
                        session_id=connection.session.id or "",
                        answer=" ".join(_words(response)),
                        differences=connection.differences,
                    )
                case ErrorEvent(error) if error.client_event_id in (None, request):
                    return self.failed(_failure(error))
                case _:
                    pass
        return self.failed(
            VoiceUnavailable("the connection was closed before an answer", code="voice_closed")
        )


def _words(response: Response) -> Iterator[str]:
    for item in response.output:
        yield from (text.strip() for part in item.content if (text := part.text or part.transcript))


def _unanswered(response: Response) -> VoiceError | None:
    # An answer that is cut at its length is one: the model may have thought about it.
    if response.status in (ResponseStatus.COMPLETED, ResponseStatus.INCOMPLETE):
        return None
    return _failure(response.error or ErrorDetail(type=f"response_{response.status}", message=""))


def _failure(error: ErrorDetail) -> VoiceError:
    code = error.code or error.type or "response_failed"
    if classify(error) in (FaultClass.RETRY, FaultClass.ROTATE):
        return VoiceUnavailable("the model could not answer now", code=code)
    return VoiceRefused("the model refuses to answer", code=code)


def _outcome_of(error: VoiceError) -> ProbeOutcome:
    """The class of a failure; a code that we do not know is the server's where it may pass."""
    known = _OUTCOMES.get(error.code)
    if known is not None or not error.retryable:
        return known or ProbeOutcome.PROTOCOL_INCOMPATIBLE
    return ProbeOutcome.UPSTREAM_SERVER_ERROR
