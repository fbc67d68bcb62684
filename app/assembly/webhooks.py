"""Receivers of messages about calls, made of the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from app.assembly.problems import Problems
from app.http.client import SafeHttp
from app.http.signed_webhook import Webhook, WebhookSpec
from app.settings import Settings
from app.settings.reader.names import no_such
from app.store.codec import EVENT_TYPES

if TYPE_CHECKING:
    from app.webhooks.deliverer import Receiver

__all__ = ["make_receivers"]

_FINISHED: Final = "call_finished"


def make_receivers(settings: Settings, http: SafeHttp, problems: Problems) -> dict[str, Receiver]:
    """The receivers by name."""
    if settings.webhooks and not settings.store.enabled:
        problems.add(("webhooks",), "webhooks need the history of calls, and store is off")
    found: dict[str, Receiver] = {}
    for name, written in settings.webhooks.items():
        # It brings SQLAlchemy along, a third of the start of a command that keeps no calls.
        from app.webhooks.deliverer import Receiver

        for at, kind in enumerate(written.events):
            if kind != _FINISHED and kind not in EVENT_TYPES:
                known = [_FINISHED, *EVENT_TYPES]
                problems.add(("webhooks", name, "events", at), no_such("event", kind, known))
        with problems.at("webhooks", name, prefix="webhook: "):
            spec = WebhookSpec(
                url=written.url,
                secret=written.secret.get_secret_value(),
                timeout_ms=written.timeout_ms,
                attempts=1,  # the outbox tries again, for longer than this process may live
                allow_private=written.allow_private,
            )
            found[name] = Receiver(Webhook(spec, http), frozenset(written.events))
    return found
