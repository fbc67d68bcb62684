"""A client of one dialect on an upstream of the other: each event is read and written anew. Pure.

Events that the other dialect lacks are left out. The `usage` of a response stays as it came.
"""

from __future__ import annotations

from app.gateway.wire import parse, render
from app.realtime.dialect import Dialect
from app.realtime.events import ResponseDone, Unknown
from app.realtime.fields import MalformedEvent

__all__ = ["Bridge"]


class Bridge:
    """Translates between a client's dialect and an upstream's."""

    def __init__(self, client: Dialect, upstream: Dialect) -> None:
        self._client = client
        self._upstream = upstream
        self._count = 0

    def to_upstream(self, text: bytes) -> bytes | None:
        """A client's event in the upstream's dialect; None where it has none.

        Raises:
            MalformedEvent: it breaks the protocol.
        """
        event = self._client.decode_client(text.decode("utf-8", "replace"))
        if isinstance(event, Unknown):
            return text
        if not self._upstream.can_spell(type(event)):
            return None
        return self._upstream.encode_client(event, event.event_id).encode()

    def to_client(self, text: str) -> str | None:
        """An upstream's event in the client's dialect; None where it has none."""
        try:
            event = self._upstream.decode_server(text)
        except MalformedEvent:
            return None
        if isinstance(event, Unknown):
            return text
        if not self._client.can_spell(type(event)):
            return None
        spelled = self._client.encode_server(event, event.event_id)
        return _with_usage(spelled, text) if isinstance(event, ResponseDone) else spelled


def _with_usage(spelled: str, original: str) -> str:
    event, source = parse(spelled), parse(original)
    if event is None or source is None:
        return spelled
    usage = (source.get("response") or {}).get("usage")
    event["response"]["usage"] = usage
    return render(event).decode()
