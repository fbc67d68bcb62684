"""The clients of the gateway, and the limits that each of them has.

A client is the holder of an API key, of an ephemeral secret that a key has made, or of the token of
the offline engine. Amounts are kept per key: a secret spends its key's money, and its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final
from zoneinfo import ZoneInfo

from app.calls.admission.budget import Budget, DayBudget
from app.errors import AppError
from app.settings import GatewayKey

__all__ = ["Client", "Ledger", "Refused", "Reservation"]


_SECRETS: Final = 10_000
"""Secrets that are remembered: they expire within hours."""


class Refused(AppError):
    """A session that is refused before its upgrade; `status` is HTTP's."""

    def __init__(self, status: HTTPStatus, code: str, message: str) -> None:
        super().__init__(message, code=code)
        self.status = status

    @property
    def body(self) -> dict[str, Any]:
        """The answer, in the shape of OpenAI's errors, which their SDKs show."""
        kind = (
            "server_error"
            if self.status >= HTTPStatus.INTERNAL_SERVER_ERROR
            else ("invalid_request_error")
        )
        return {"error": {"message": self.message, "type": kind, "param": None, "code": self.code}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A client that has proved who it is. Empty and 0: no limit of its own.

    `secret_id` is that of an ephemeral secret; `session` are the settings that its sessions begin
    with, and `max_usd` is what its sessions may cost together.
    """

    key_id: str
    key_name: str
    models: frozenset[str] = frozenset()
    secret_id: str = ""
    session: Mapping[str, Any] = field(default_factory=dict)
    max_session_s: int = 0
    max_usd: float = 0.0


@dataclass(slots=True, eq=False)  # of two that are alike, each session ends its own
class Reservation:
    """Money that is set aside for a session before it can cost anything."""

    usd: float
    spent_usd: float = 0.0

    @property
    def open_usd(self) -> float:
        """The part that nothing has been charged against yet."""
        return max(0.0, self.usd - self.spent_usd)


class Ledger:
    """The money of keys and secrets, and the places of sessions of this process."""

    def __init__(
        self,
        day: Budget | None,
        keys: Mapping[str, GatewayKey],
        *,
        reserve_usd: float,
        max_sessions: int,
        time_zone: str = "UTC",
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._day = day
        self._limits = keys
        self._reserve_usd = reserve_usd
        self._max_sessions = max_sessions
        self._now = now
        self._spent = {
            name: DayBudget(one.per_day_usd, time_zone=time_zone) for name, one in keys.items()
        }
        self._zone = ZoneInfo(time_zone)
        self._secrets: dict[str, dict[str, float]] = {}
        self._open: dict[str, list[Reservation]] = {}
        self.sessions = 0
        self.process = ""
        """The name of this process among those that share the spending."""
        self.on_spent: Callable[[Client, float], None] = lambda client, usd: None
        """Is told of every amount that counts against a key's or a secret's money."""

    def limits(self, client: Client) -> GatewayKey:
        """The limits of a client's key."""
        return self._limits.get(client.key_name) or GatewayKey()

    def begin(self, client: Client, *, paid: bool) -> Reservation:
        """Count a session, and set its money aside.

        Raises:
            Refused: there is no money or no place left for it.
        """
        too_many = HTTPStatus.TOO_MANY_REQUESTS
        limits = self.limits(client)
        own = self._open.get(client.key_id, [])
        if self.sessions >= self._max_sessions:
            raise Refused(too_many, "too_many_sessions", "All places of the gateway are taken")
        if limits.max_sessions and len(own) >= limits.max_sessions:
            raise Refused(too_many, "too_many_sessions", "This key has no session left")
        reservation = Reservation(self._reserve_usd if paid else 0.0)
        if paid and self._short(client, own):
            raise Refused(too_many, "budget_spent", "The budget of this key or day is spent")
        self._open.setdefault(client.key_id, []).append(reservation)
        self.sessions += 1
        return reservation

    def limited(self, client: Client) -> bool:
        """True where a charge may end a session: each has to be settled at once then."""
        day, own = self._day, self._spent.get(client.key_name)
        return bool(
            (day is not None and day.per_day_usd)
            or (own is not None and own.per_day_usd)
            or (client.secret_id and client.max_usd)
        )

    def spend(self, client: Client, reservation: Reservation, usd: float) -> bool:
        """Settle an amount; False when the session may cost nothing more."""
        reservation.spent_usd += usd
        if self._day is not None:
            self._day.spend(usd)
        own = self._spent.get(client.key_name)
        if own is not None:
            own.spend(usd, self._now())
        if client.max_usd:
            before = self.spent_by(client.secret_id).get(self.process, 0.0)
            self.count_secret(client.secret_id, self.process, before + usd)
        if usd and (client.max_usd or (own is not None and own.per_day_usd)):
            self.on_spent(client, usd)
        if own is not None and own.exhausted(self._now()):
            return False
        if client.max_usd and self._secret_usd(client) >= client.max_usd:
            return False
        return self._day is None or not self._day.exhausted

    def count_key(self, key_name: str, usd: float) -> None:
        """Count what a key has spent in another process."""
        if key_name in self._spent:
            self._spent[key_name].spend(usd, self._now())

    def spent_by(self, secret_id: str) -> Mapping[str, float]:
        """The sums that a secret has spent, by process, as far as this one knows."""
        return self._secrets.get(secret_id, {})

    def count_secret(self, secret_id: str, process: str, usd: float) -> None:
        """Take what a secret has spent in a process so far."""
        spent = self._secrets.setdefault(secret_id, {})
        spent[process] = max(usd, spent.get(process, 0.0))
        if len(self._secrets) > _SECRETS:
            del self._secrets[next(iter(self._secrets))]

    def _secret_usd(self, client: Client) -> float:
        return sum(self.spent_by(client.secret_id).values())

    def end(self, client: Client, reservation: Reservation) -> None:
        """Release what is still set aside."""
        own = self._open[client.key_id]
        own.remove(reservation)
        if not own:
            del self._open[client.key_id]
        self.sessions -= 1

    @contextmanager
    def session(self, client: Client, *, paid: bool) -> Iterator[Reservation]:
        """As `begin` and `end`."""
        reservation = self.begin(client, paid=paid)
        try:
            yield reservation
        finally:
            self.end(client, reservation)

    @property
    def limited_keys(self) -> tuple[str, ...]:
        """The names of keys with a budget of their own."""
        return tuple(name for name, one in self._limits.items() if one.per_day_usd)

    def day_began(self) -> datetime:
        """The moment at which the day of the budgets has begun."""
        now = self._now().astimezone(self._zone)
        return now.replace(hour=0, minute=0, second=0, microsecond=0)

    def restore(self, spent_today: Mapping[str, float]) -> None:
        """Take over what keys have spent today before this process began."""
        for name, usd in spent_today.items():
            self.count_key(name, usd)

    def _short(self, client: Client, own: list[Reservation]) -> bool:
        everyone = sum(one.open_usd for each in self._open.values() for one in each)
        needed = self._reserve_usd
        day = self._day
        if (
            day is not None
            and day.per_day_usd
            and day.spent_usd + everyone + needed > day.per_day_usd
        ):
            return True
        kept = self._spent.get(client.key_name)
        if kept is not None and kept.per_day_usd:
            spent = kept.spent_usd(self._now()) + sum(one.open_usd for one in own)
            if spent + needed > kept.per_day_usd:
                return True
        return bool(client.max_usd) and self._secret_usd(client) >= client.max_usd
