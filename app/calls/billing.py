"""The bill of one call: its usage so far, at its model and its carrier, and the cost of it. Pure.

The lengths of carrier legs are by our own clock, from the admission of the call. The legs of
transfers count from when the person was called, which is a little more than they are billed for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from app.carrier.base import CallDirection
from app.events import CallEvent, CarrierUsage, Cost, TokenUsage, TransferEnded, TransferStarted

__all__ = ["CallBill", "sms_segments"]


_ANSWERED = ("answered", "unknown")
_GSM_7 = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    "ÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_GSM_7_TWICE = frozenset("^{}\\[~]|€")


def sms_segments(body: str) -> int:
    """The segments that a text message is sent, and billed, in (3GPP TS 23.038 and 23.040)."""
    if all(char in _GSM_7 or char in _GSM_7_TWICE for char in body):
        length, alone, each = len(body) + sum(char in _GSM_7_TWICE for char in body), 160, 153
    else:
        length, alone, each = len(body.encode("utf-16-le")) // 2, 70, 67
    return 1 if length <= alone else -(-length // each)


class CallBill:
    """The bill of one call, which can be asked for at any time."""

    def __init__(
        self,
        price: Callable[[TokenUsage, CarrierUsage | None], Cost],
        direction: CallDirection,
        *,
        carried: bool = True,
    ) -> None:
        """`carried`: as of an `IncomingCall`."""
        self._price = price
        self._carried = carried
        self._direction = direction
        self._legs: list[tuple[int, int | None]] = []  # the last of them may go on
        self._calling: TransferStarted | None = None
        self._connected_ms = 0
        self._connected_since_ms: int | None = None
        self._sms_segments = 0

    def on_sms(self, body: str) -> None:
        """A text message was sent, or may have been."""
        self._sms_segments += sms_segments(body)

    def on_event(self, event: CallEvent) -> None:
        """Take every event of the call."""
        if isinstance(event, TransferStarted):
            self._calling = event
        elif isinstance(event, TransferEnded) and self._calling is not None:
            begun, self._calling = self._calling, None
            if event.outcome in _ANSWERED:
                # A cold transfer is reported when the two have hung up, a warm one when they met.
                goes_on = begun.warm or event.outcome == "unknown"
                self._legs.append((begun.at_ms, None if goes_on else event.at_ms))

    def on_connected(self, now_ms: int) -> None:
        """A connection to the model is in use."""
        self.on_disconnected(now_ms)
        self._connected_since_ms = now_ms

    def on_disconnected(self, now_ms: int) -> None:
        """The connection is gone, or replaced."""
        if self._connected_since_ms is not None:
            self._connected_ms += now_ms - self._connected_since_ms
        self._connected_since_ms = None

    def usage(self, tokens: TokenUsage, now_ms: int) -> TokenUsage:
        """The usage of the model, with how long it was connected."""
        since_ms = self._connected_since_ms
        running_ms = 0 if since_ms is None else now_ms - since_ms
        return replace(tokens, voice_seconds=(self._connected_ms + running_ms) / 1000)

    def carrier(self, now_ms: int) -> CarrierUsage:
        """The usage of the carrier."""
        legs = tuple(((now_ms if end is None else end) - begin) / 1000 for begin, end in self._legs)
        return CarrierUsage(
            direction=self._direction.value,
            seconds=now_ms / 1000 if self._carried else 0.0,
            legs=legs,
            sms_segments=self._sms_segments,
            estimated=bool(legs),
        )

    def cost(self, tokens: TokenUsage, now_ms: int) -> Cost:
        """The cost so far."""
        return self._price(self.usage(tokens, now_ms), self.carrier(now_ms))
