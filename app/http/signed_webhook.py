"""Signed webhooks: report what happened to other systems, and hand them tasks.

Headers and signature follow Standard Webhooks 1.0.0, and are made by its package: libraries in many
languages check them. The id is the same for every attempt, so that a receiver acts once. Deliveries
wait in memory: `app.background` bounds them.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import standardwebhooks

from app.background import BackgroundJobs
from app.errors import ConfigError, ToolError, ToolFailed
from app.http.addresses import check_url
from app.http.client import Fetched, Outgoing, SafeHttp
from app.json_text import whole_text
from app.retry import parse_retry_after, retry

__all__ = ["Message", "Outbox", "Webhook", "WebhookSpec"]


logger = logging.getLogger(__name__)

_WORTH_A_RETRY: Final = frozenset((408, 425, 429, 500, 502, 503, 504))
_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_MIN_SECRET_BYTES: Final = 24  # Standard Webhooks: 24 to 64 bytes
_MAX_SECRET_BYTES: Final = 64


# Signing ------------------------------------------------------------------------------------------


def read_secret(secret: str) -> bytes:
    """A secret's bytes: base64 behind `whsec_`, or the text itself.

    Raises:
        ConfigError: too short, too long, or not base64. The message does not hold the secret.
    """
    key = secret.encode()
    if secret.startswith("whsec_"):
        try:
            key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        except binascii.Error as error:
            raise ConfigError("webhook: the secret is not base64 after whsec_") from error
    if not _MIN_SECRET_BYTES <= len(key) <= _MAX_SECRET_BYTES:
        raise ConfigError("webhook: a secret has 24 to 64 bytes (openssl rand -base64 32)")
    return key


# Sending ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSpec:
    """A receiver. `attempts` counts the first; delays double from `first_delay_ms` on."""

    url: str
    secret: str = field(repr=False)
    timeout_ms: int = 10_000
    attempts: int = 5
    first_delay_ms: int = 1_000
    max_delay_ms: int = 60_000
    allow_private: bool = False
    key: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.timeout_ms <= 0:
            raise ConfigError("webhook: attempts and timeout_ms must be above zero")
        if not 0 < self.first_delay_ms <= self.max_delay_ms:
            raise ConfigError("webhook: 0 < first_delay_ms <= max_delay_ms")
        try:
            check_url(self.url, allow_private=self.allow_private)
        except ToolFailed as error:
            raise ConfigError(f"webhook: url: {error.message}") from error
        object.__setattr__(self, "key", read_secret(self.secret))


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message to a receiver: `key` is its id; `kind` has dots, such as `call.reviewed`."""

    key: str
    kind: str
    data: Mapping[str, Any] = field(repr=False)
    at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __post_init__(self) -> None:
        # No dot: it separates what is signed.
        if not _ID.fullmatch(self.key):
            raise ValueError("a message's key has letters, digits, _ and - only")

    def render(self) -> str:
        body = {
            "id": self.key,
            "type": self.kind,
            "timestamp": self.at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
            "data": dict(self.data),
        }
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
        return whole_text(text)


class Webhook:
    """One receiver of messages."""

    def __init__(self, spec: WebhookSpec, http: SafeHttp) -> None:
        self.spec = spec
        self._http = http
        self._signer = standardwebhooks.Webhook(spec.key)

    async def post(self, message: Message) -> Fetched:
        """Deliver a message, with retries where they may help, and return the receiver's answer.

        Raises:
            ToolError: it was not delivered; codes `webhook_refused`, `webhook_failed` and those of
                `SafeHttp.fetch`.
        """
        spec = self.spec
        body = message.render()
        return await retry(
            lambda: self._attempt(message.key, body),
            attempts=spec.attempts,
            first_delay_s=spec.first_delay_ms / 1000,
            max_delay_s=spec.max_delay_ms / 1000,
            may_retry=lambda error: error.retryable or error.code == "tool_timeout",
        )

    async def _attempt(self, message_id: str, body: str) -> Fetched:
        now = datetime.now(UTC)  # of the attempt, not of the event: receivers refuse old ones
        fetched = await self._http.fetch(
            Outgoing(
                method="POST",
                url=self.spec.url,
                headers={
                    "Content-Type": "application/json",
                    "Idempotency-Key": message_id,
                    "webhook-id": message_id,
                    "webhook-timestamp": str(int(now.timestamp())),
                    "webhook-signature": self._signer.sign(message_id, now, body),
                },
                content=body.encode(),
                timeout_ms=self.spec.timeout_ms,
                allow_private=self.spec.allow_private,
            )
        )
        if 200 <= fetched.status < 300:
            return fetched
        passing = fetched.status in _WORTH_A_RETRY
        raise ToolFailed(
            f"The webhook answered {fetched.status}.",
            code="webhook_failed" if passing else "webhook_refused",
            retryable=passing,
            retry_after_s=parse_retry_after(fetched.headers.get("retry-after")),
        )


class Outbox:
    """Delivers messages in the background, after the calls that they report."""

    def __init__(self, jobs: BackgroundJobs) -> None:
        self._jobs = jobs

    def put(self, webhook: Webhook, message: Message) -> bool:
        """Queue a message for delivery; False when too many wait."""
        return self._jobs.put(f"webhook {message.key}", partial(self._deliver, webhook, message))

    async def _deliver(self, webhook: Webhook, message: Message) -> None:
        try:
            await webhook.post(message)
        except ToolError as error:
            logger.error(
                "webhook was not delivered",
                extra={"message_id": message.key, "kind": message.kind, "error": error.code},
            )
