"""The seam to what is kept of placed calls: attempts, do-not-call list, consents, campaigns.

An attempt is written down before anything is dialed, and its fate after: a process that dies in
between leaves an open attempt, which another one takes over and asks the carrier about. Its `owner`
is the process that holds it, for as long as it says so every now and then.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol, TypeVar

from app.events import CallId

__all__ = [
    "Attempt",
    "AttemptState",
    "CalleeFacts",
    "Campaign",
    "CampaignState",
    "Contact",
    "ContactState",
    "DialOutcome",
    "ListedNumber",
    "OutboundStore",
]

T = TypeVar("T")


class AttemptState(StrEnum):
    """The states of an attempt, in their order."""

    WAITING = "waiting"
    """Allowed, and not yet sent to the carrier."""
    SENT = "sent"
    """The carrier may have it; from here on it may ring."""
    PLACED = "placed"
    ANSWERED = "answered"
    ENDED = "ended"


class DialOutcome(StrEnum):
    """The outcomes of an attempt."""

    ANSWERED = "answered"
    BUSY = "busy"
    NO_ANSWER = "no_answer"
    CANCELED = "canceled"
    FAILED = "failed"
    UNKNOWN = "unknown"
    """The carrier did not answer, and knows nothing of it when it is asked."""
    NOT_DIALED = "not_dialed"
    """It never left this server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CalleeFacts:
    """Facts about a number. `calls_today` are those of the last 24 hours.

    Those that begin with `all_` are about all numbers, whichever process calls them.
    """

    do_not_call: bool = False
    has_consent: bool = False
    live_calls: int = 0
    all_live_calls: int = 0
    calls_today: int = 0
    all_calls_today: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt to call somebody. `call_id` is the call's, and the reference in webhooks."""

    call_id: CallId
    number: str
    from_number: str
    agent: str
    variables: Mapping[str, str] = field(default_factory=dict)
    purpose: str = "service"
    created_at: datetime
    sent_at: datetime | None = None
    ended_at: datetime | None = None
    state: AttemptState = AttemptState.WAITING
    carrier_call_id: str = ""
    outcome: DialOutcome | None = None
    code: str = ""
    reason: str = ""
    owner: str = ""
    campaign_id: str = ""
    contact_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedNumber:
    """A number on the do-not-call list, or one that has consented; `source` says by whom."""

    number: str
    at: datetime
    reason: str = ""
    source: str = ""


class CampaignState(StrEnum):
    """The states of a campaign. `tripped`: paused by itself, since too many calls failed."""

    RUNNING = "running"
    PAUSED = "paused"
    TRIPPED = "tripped"
    CANCELED = "canceled"
    DONE = "done"


class ContactState(StrEnum):
    """The states of a contact of a campaign."""

    WAITING = "waiting"
    DIALING = "dialing"
    DONE = "done"
    """Reached, or tried as often as the campaign tries."""
    REFUSED = "refused"
    """The dial policy will not have it called, now or later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """A campaign. `options` are those of `app.calls.outbound.campaigns`, as JSON has them."""

    campaign_id: str
    name: str
    agent: str
    purpose: str = "service"
    created_at: datetime
    state: CampaignState = CampaignState.RUNNING
    reason: str = ""
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """A person whom a campaign calls; `tries` are the attempts that were dialed."""

    contact_id: int = 0
    campaign_id: str
    number: str
    variables: Mapping[str, str] = field(default_factory=dict)
    time_zone: str = ""
    state: ContactState = ContactState.WAITING
    tries: int = 0
    next_at: datetime
    outcome: str = ""
    reason: str = ""
    call_id: str = ""


class OutboundStore(Protocol):
    """Everything that placed calls need to remember.

    Each method raises `StoreUnavailable` when the store does not answer.
    """

    # Attempts
    async def begin(self, attempt: Attempt, check: Callable[[CalleeFacts], T | None]) -> T | None:
        """Write an attempt down unless `check` has an objection, which is returned.

        Nothing can come between the facts and the attempt. A contact of a campaign must be waiting,
        and is then dialing.

        Raises:
            StoreError: the contact is not waiting (`contact_not_waiting`).
        """
        ...

    async def sent(self, call_id: CallId, at: datetime, owner: str) -> bool:
        """Note that an attempt goes to the carrier; False if it is not its owner's any more."""
        ...

    async def placed(self, call_id: CallId, carrier_call_id: str) -> None: ...
    async def answered(self, call_id: CallId, carrier_call_id: str) -> None: ...

    async def ended(
        self,
        call_id: CallId,
        at: datetime,
        outcome: DialOutcome,
        code: str,
        reason: str,
        contact: Callable[[Contact, Campaign], Contact] | None = None,
    ) -> bool:
        """Close an attempt, and say what is next for its contact; False if it was closed before."""
        ...

    async def attempt(self, call_id: CallId) -> Attempt | None: ...
    async def recent(self, limit: int) -> Sequence[Attempt]:
        """The last attempts: those that are open, then the newest that have ended."""
        ...

    async def known_carrier_ids(self, number: str, since: datetime) -> Collection[str]: ...

    async def take_over(
        self, owner: str, *, held: Collection[CallId], unseen_since: datetime
    ) -> Sequence[Attempt]:
        """Become the owner of open attempts whose owner has not been seen since.

        Those of `owner` itself that it does not hold are among them.
        """
        ...

    async def take(self, call_id: CallId, owner: str) -> Attempt | None:
        """Become the owner of one open attempt, whoever has it; None where there is none."""
        ...

    async def renew(self, owner: str, at: datetime) -> None: ...
    async def leave(self, owner: str) -> None: ...

    # Lists
    async def list_number(self, number: str, at: datetime, reason: str, source: str) -> None:
        """Put a number on the do-not-call list; one that is there stays as it is."""
        ...

    async def unlist_number(self, number: str) -> bool: ...
    async def listed(self, *, after: str = "", limit: int = 100) -> Sequence[ListedNumber]: ...
    async def add_consent(self, number: str, at: datetime, source: str) -> None: ...
    async def remove_consent(self, number: str) -> bool: ...

    # Campaigns
    async def add_campaign(self, campaign: Campaign) -> None: ...
    async def add_contacts(self, contacts: Sequence[Contact]) -> int:
        """Add contacts; returns how many are new to their campaign."""
        ...

    async def campaigns(self) -> Sequence[Campaign]: ...
    async def campaign(self, campaign_id: str) -> Campaign | None: ...

    async def set_campaign(
        self,
        campaign_id: str,
        state: CampaignState,
        reason: str = "",
        *,
        of: Collection[CampaignState] | None = None,
    ) -> bool:
        """Change a campaign's state, from one of `of`; False if it was in none of them."""
        ...

    async def lease(self, campaign_id: str, runner: str, now: datetime, life: timedelta) -> bool:
        """Be the one process that runs a campaign; False while another one is."""
        ...

    async def due(self, campaign_id: str, now: datetime, limit: int) -> Sequence[Contact]: ...
    async def postpone(self, contact: Contact) -> None:
        """Write a waiting contact as it is given, unless it is waiting no longer."""
        ...

    async def counts(self, campaign_id: str) -> Mapping[str, int]:
        """Contacts by state and, with `outcome.` before it, by their last outcome."""
        ...

    async def contacts(
        self, campaign_id: str, *, after: int = 0, limit: int = 100
    ) -> Sequence[Contact]: ...
    async def last_outcomes(
        self, campaign_id: str, since: datetime, limit: int
    ) -> Sequence[DialOutcome]:
        """The outcomes of the latest attempts that ended since, the newest first."""
        ...
