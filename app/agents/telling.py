"""What the model is told outside of a response, and the ids of what we make. Pure.

Without a connection nothing is sent: a fresh one is told what the history holds.
"""

from __future__ import annotations

from app.agents.actions import ToVoice
from app.realtime.events import ClientEvent

__all__ = ["Telling"]


class Telling:
    """`epoch` counts connections: an id that one of them has seen is never used on another."""

    def __init__(self) -> None:
        self.connected = True
        self.epoch = 0
        self._sequence = 0

    def tell(self, event: ClientEvent) -> list[ToVoice]:
        """Send an event, where there is somebody to hear it."""
        return [ToVoice(event)] if self.connected else []

    def new_id(self, kind: str) -> str:
        self._sequence += 1
        return f"{kind}_{self.epoch}_{self._sequence}"

    def on_reconnected(self) -> None:
        self.connected = True
        self.epoch += 1
