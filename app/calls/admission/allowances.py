"""Limits of what callers and our numbers may use: calls, time and text messages. Pure.

A caller is the number that they call from, whether it comes as such or in a SIP address; callers
who withhold theirs cannot be told apart, and only count for the number that they called. Counts
are of this process, and begin anew with it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from app.carrier.base import IncomingCall
from app.carrier.number_policy import NumberKind, classify, countries_of
from app.errors import CapacityError
from app.events import CallId

__all__ = ["Allowance", "Allowances"]

REMEMBERED: Final = 10_000
"""Callers at a time. Beyond them the one who has not called for the longest time is forgotten."""
MINUTE_S: Final = 60
DAY_S: Final = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """The most that one caller, or one of our numbers, may use; 0 means no limit."""

    calls_per_minute: int = 0
    calls_per_day: int = 0
    seconds_per_day: int = 0
    sms_per_day: int = 0


@dataclass(slots=True)
class _Use:
    """The use in the minute before now, and in the day that began with the first of it."""

    began_s: float
    recent_s: list[float] = field(default_factory=list)  # a deque would take 700 bytes a caller
    calls: int = 0
    seconds: float = 0.0
    sms: int = 0
    live: dict[CallId, float] = field(default_factory=dict)

    def pass_to(self, now_s: float) -> None:
        past = bisect_right(self.recent_s, now_s - MINUTE_S)
        del self.recent_s[:past]
        if now_s - self.began_s >= DAY_S:
            self.began_s, self.calls, self.seconds, self.sms = now_s, 0, 0.0, 0

    def is_used_up(self, most: Allowance, now_s: float) -> bool:
        """True when there is no other call to have."""
        seconds = self.seconds + sum(now_s - began_s for began_s in self.live.values())
        return (
            0 < most.calls_per_minute <= len(self.recent_s)
            or 0 < most.calls_per_day <= self.calls
            or 0 < most.seconds_per_day <= seconds
        )


class Allowances:
    """The use of all callers and numbers, against what each of them may use."""

    def __init__(
        self, per_caller: Allowance | None = None, per_number: Allowance | None = None
    ) -> None:
        self._of_caller = per_caller or Allowance()
        self._of_number = per_number or Allowance()
        self._callers: dict[str, _Use] = {}
        self._numbers: dict[str, _Use] = {}
        self._live: dict[CallId, tuple[_Use, ...]] = {}

    def check_call(self, incoming: IncomingCall, now_s: float) -> None:
        """Raise CapacityError (`caller_limit`, `number_limit`) when another call is too much."""
        for use, most, code in self._uses(incoming, now_s):
            if use.is_used_up(most, now_s):
                raise CapacityError("a limit of calls is reached", code=code)

    def begin(self, incoming: IncomingCall, call_id: CallId | None, now_s: float) -> None:
        """Count a call; without an id it is put through, and not timed."""
        uses = tuple(use for use, _, _ in self._uses(incoming, now_s))
        for use in uses:
            use.recent_s.append(now_s)
            use.calls += 1
            if call_id is not None:
                use.live[call_id] = now_s
        if call_id is not None:
            self._live[call_id] = uses

    def end(self, call_id: CallId, now_s: float) -> None:
        """Count the seconds of a call that is over."""
        for use in self._live.pop(call_id, ()):
            use.seconds += now_s - use.live.pop(call_id)

    def add_seconds(self, incoming: IncomingCall, seconds: float, now_s: float) -> None:
        """Count the time of a call that was counted without an id."""
        for use, _, _ in self._uses(incoming, now_s):
            use.seconds += seconds

    def take_sms(self, incoming: IncomingCall, now_s: float) -> bool:
        """Count a text message; False when it is one too many, and not to be sent."""
        uses = list(self._uses(incoming, now_s))
        if any(0 < most.sms_per_day <= use.sms for use, most, _ in uses):
            return False
        for use, _, _ in uses:
            use.sms += 1
        return True

    def _uses(self, incoming: IncomingCall, now_s: float) -> Iterator[tuple[_Use, Allowance, str]]:
        home = countries_of([incoming.called_number])
        caller = classify(incoming.caller_number, home)
        if caller.kind is not NumberKind.WITHHELD:
            key = caller.number or incoming.caller_number.lower()
            yield _use(self._callers, key, now_s), self._of_caller, "caller_limit"
        # The user of a SIP address is the caller's choice: all without a number count as one.
        number = classify(incoming.called_number, home).number
        yield _use(self._numbers, number, now_s), self._of_number, "number_limit"


def _use(table: dict[str, _Use], key: str, now_s: float) -> _Use:
    use = table.pop(key, None) or _Use(now_s)
    use.pass_to(now_s)
    table[key] = use  # behind all others
    if len(table) > REMEMBERED:
        del table[next(iter(table))]
    return use
