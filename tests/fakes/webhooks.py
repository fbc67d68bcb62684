"""A receiver's side of Standard Webhooks 1.0.0."""

from __future__ import annotations

from collections.abc import Mapping

from standardwebhooks import Webhook, WebhookVerificationError

__all__ = ["is_signed"]


def is_signed(key: bytes, headers: Mapping[str, str], body: bytes) -> bool:
    """True for a message that was signed with the key not long ago; `headers` in lower case."""
    try:
        Webhook(key).verify(body, dict(headers))
    except WebhookVerificationError:
        return False
    return True
