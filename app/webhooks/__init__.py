"""Webhooks about calls: delivered from the history of calls, until the receiver has them."""

from app.webhooks.deliverer import Receiver, WebhookDeliverer

__all__ = ["Receiver", "WebhookDeliverer"]
