"""Campaigns: many people called, each until reached or tried often enough.

All state is in the store; a runner looks there every second for who is due. One process runs a
campaign at a time. A contact is claimed in the transaction that writes its attempt down, and let go
in the one that closes it, so that no death of a process leaves somebody called twice or forgotten.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, NamedTuple

from app.calls.outbound.contacts import parse_contacts
from app.calls.outbound.dial_policy import CallingHours, Purpose, Refusal
from app.calls.outbound.dialer import Dialer, PlaceOrder
from app.calls.outbound.placed_call import BY, NextForContact
from app.errors import PlacingRefused, StoreError
from app.store.outbound import (
    Campaign,
    CampaignState,
    Contact,
    ContactState,
    DialOutcome,
    OutboundStore,
)
from app.threads import in_thread

__all__ = ["AddedContacts", "CampaignOptions", "Campaigns", "next_for_contact"]

logger = logging.getLogger(__name__)

TICK_S: Final = 1.0
LEASE: Final = timedelta(seconds=10)
_SOON: Final = timedelta(minutes=5)
_AT_ONCE: Final = 20
_ADD_AT_ONCE: Final = 2_000

# Nobody is reached there, however often it is tried.
_NEVER: Final = frozenset(
    {
        *("twilio_21211", "twilio_21214", "twilio_21216", "twilio_21217", "twilio_21219"),
        *("twilio_13223", "twilio_13224", "twilio_13225", "sip_404", "sip_410", "sip_484"),
        *("sip_604", "sip_607"),
    }
)
_FAILURES: Final = frozenset({DialOutcome.FAILED, DialOutcome.UNKNOWN})
_NOT_THIS_CONTACT: Final = frozenset(
    {
        *(Refusal.NUMBER_INVALID, Refusal.NUMBER_KIND, Refusal.EMERGENCY, Refusal.COUNTRY),
        *(Refusal.OWN_NUMBER, Refusal.DO_NOT_CALL, Refusal.NO_CONSENT, Refusal.NO_TIME_ZONE),
        Refusal.HOURS,  # without a time at which waiting would help
    }
)
_NOT_THIS_CAMPAIGN: Final = frozenset(
    {"agent_unknown", "variable_unknown", "no_from_number", Refusal.NOT_ENABLED}
)
_ACTIONS: Final[Mapping[str, tuple[CampaignState, frozenset[CampaignState]]]] = {
    "pause": (CampaignState.PAUSED, frozenset({CampaignState.RUNNING, CampaignState.TRIPPED})),
    "resume": (
        CampaignState.RUNNING,  # one that is done may have got new contacts
        frozenset({CampaignState.PAUSED, CampaignState.TRIPPED, CampaignState.DONE}),
    ),
    "cancel": (
        CampaignState.CANCELED,
        frozenset({CampaignState.RUNNING, CampaignState.PAUSED, CampaignState.TRIPPED}),
    ),
}


Pauses = Mapping[str, int | None]


def _pauses() -> dict[str, int | None]:
    not_answered = {"busy": 900, "no_answer": 7_200, "canceled": 900}
    no_person = {"voicemail": 86_400, "screening": 7_200, "hold": 3_600, "nobody": 3_600}
    return {
        **not_answered,
        "failed": 3_600,
        "unknown": 3_600,
        **no_person,
        "ivr": None,
        "fax": None,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignOptions:
    """The way in which a campaign calls. `retry_s` is the pause after each outcome, None for never.

    `hours` (such as 10:00-18:00) narrow those of the server. After `stop_after_failures` failures
    one after the other the campaign pauses by itself.
    """

    attempts: int = 3
    retry_s: Pauses = field(default_factory=_pauses)
    max_calls: int = 5
    calls_per_second: float = 1.0
    hours: str = ""
    from_number: str = ""
    stop_after_failures: int = 10

    @classmethod
    def of(cls, campaign: Campaign) -> CampaignOptions:
        options: Mapping[str, Any] = campaign.options
        return cls(**{**options, "retry_s": {**_pauses(), **options.get("retry_s", {})}})

    def calling_hours(self) -> CallingHours | None:
        return CallingHours.parse(self.hours) if self.hours else None


def next_for_contact(outcome: DialOutcome, code: str, now: datetime) -> NextForContact:
    """The next state of a contact after an attempt."""

    def after(contact: Contact, campaign: Campaign) -> Contact:
        if outcome is DialOutcome.NOT_DIALED:
            return replace(contact, state=ContactState.WAITING, next_at=now)
        options = CampaignOptions.of(campaign)
        # Of a call that no person has answered, what has answered it.
        what = code.removeprefix(BY) if code.startswith(BY) else outcome.value
        tried = replace(contact, tries=contact.tries + 1, outcome=what, reason=code)
        pause_s = None if code in _NEVER else options.retry_s.get(what)
        if pause_s is None or tried.tries >= options.attempts:
            return replace(tried, state=ContactState.DONE)
        next_at = now + timedelta(seconds=pause_s)
        return replace(tried, state=ContactState.WAITING, next_at=next_at)

    return after


class AddedContacts(NamedTuple):
    """The numbers in a CSV: how many there were, were new, and stood there once more."""

    given: int
    added: int
    repeated: int


class Campaigns:
    """The campaigns of a server, and the runner of those that this process has."""

    def __init__(self, dialer: Dialer, *, tick_s: float = TICK_S, lease: timedelta = LEASE) -> None:
        self._dialer = dialer
        self._tick_s = tick_s
        self._lease = lease
        self._next_s: dict[str, float] = {}
        self._running_since: dict[str, datetime] = {}

    @property
    def _store(self) -> OutboundStore:
        return self._dialer.store

    # Asked for ----------------------------------------------------------------------------------

    async def create(
        self, name: str, agent: str, purpose: Purpose, options: CampaignOptions, contacts: str = ""
    ) -> Campaign:
        """Make a campaign, paused; `contacts` are a CSV.

        Raises:
            PlacingRefused: its agent is not known, or its hours or contacts are wrong. Then there
                is not a campaign.
            StoreError: the store does not answer.
        """
        self._dialer.check_agent(agent, {})
        try:
            hours = self._dialer.policy.hours.within(options.calling_hours())
        except ValueError as error:
            raise PlacingRefused(str(error), code="hours_invalid") from error
        if hours.start >= hours.end:
            text = f"The hours {options.hours} are not within those of the server (outbound.hours)"
            raise PlacingRefused(text, code="hours_invalid")
        campaign = Campaign(
            campaign_id=f"camp_{secrets.token_hex(8)}",
            name=name,
            agent=agent,
            purpose=purpose.value,
            created_at=self._dialer.now(),
            state=CampaignState.PAUSED,
            reason="not started",
            options=asdict(options),
        )
        found: Sequence[Contact] = ()
        if contacts:
            found = parse_contacts(contacts, campaign.campaign_id, campaign.created_at).contacts
        self._check_columns(campaign, found)
        await self._store.add_campaign(campaign)
        await self._store.add_contacts(found)
        return campaign

    async def add_contacts(
        self, campaign_id: str, content: str | bytes, encoding: str = ""
    ) -> AddedContacts:
        """Add the contacts of a CSV; a file is in Unicode, or in the encoding that is named.

        Raises:
            PlacingRefused: there is no such campaign, it was canceled, or the CSV does not fit it.
                Nobody was added.
        """
        campaign = await self.campaign(campaign_id)
        if campaign.state is CampaignState.CANCELED:
            raise PlacingRefused("The campaign is canceled", code="campaign_state")
        # In a thread: a large file takes a second of the processor.
        read = partial(parse_contacts, content, campaign_id, self._dialer.now(), encoding)
        found = await in_thread(read, name="contacts")
        self._check_columns(campaign, found.contacts)
        added = 0
        for at in range(0, len(found.contacts), _ADD_AT_ONCE):
            # In parts, between which others may write.
            added += await self._store.add_contacts(found.contacts[at : at + _ADD_AT_ONCE])
        return AddedContacts(len(found.contacts), added, len(found.repeated))

    def _check_columns(self, campaign: Campaign, contacts: Sequence[Contact]) -> None:
        for contact in contacts[:1]:  # all have the same columns
            self._dialer.check_agent(campaign.agent, contact.variables)

    async def campaign(self, campaign_id: str) -> Campaign:
        """One campaign. Raises PlacingRefused: there is none (`campaign_not_found`)."""
        found = await self._store.campaign(campaign_id)
        if found is None:
            raise PlacingRefused("There is no such campaign", code="campaign_not_found")
        return found

    async def act(self, campaign_id: str, action: str, by: str) -> Campaign:
        """Pause, resume or cancel. Calls that are under way go on.

        Raises:
            PlacingRefused: the campaign is in a state without that.
        """
        state, of = _ACTIONS[action]
        if action == "resume" and not self._dialer.policy.enabled:
            self._dialer.check_ready()
        if not await self._store.set_campaign(campaign_id, state, f"by {by}", of=of):
            found = await self.campaign(campaign_id)
            text = f"The campaign is {found.state.value}"
            raise PlacingRefused(text, code="campaign_state")
        return await self.campaign(campaign_id)

    # Running ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Call who is due, until cancelled."""
        while True:
            try:
                await self._round()
            except (StoreError, PlacingRefused) as error:
                logger.warning("campaigns wait", extra={"reason": error.message})
            await asyncio.sleep(self._tick_s)

    async def _round(self) -> None:
        for campaign in await self._store.campaigns():
            known = campaign.campaign_id
            if campaign.state is not CampaignState.RUNNING:
                self._running_since.pop(known, None)
                continue
            now = self._dialer.now()
            if await self._store.lease(known, self._dialer.owner, now, self._lease):
                self._running_since.setdefault(known, now)
                await self._serve(campaign, now)

    async def _serve(self, campaign: Campaign, now: datetime) -> None:
        options, campaign_id = CampaignOptions.of(campaign), campaign.campaign_id
        if await self._has_tripped(campaign, options):
            return
        counts = await self._store.counts(campaign_id)
        waiting = counts.get(ContactState.WAITING.value, 0)
        dialing = counts.get(ContactState.DIALING.value, 0)
        if not waiting:
            if not dialing:
                await self._change(campaign, CampaignState.DONE, "everybody was tried")
            return
        free = min(options.max_calls - dialing, _AT_ONCE)
        if free <= 0:
            return
        for contact in await self._store.due(campaign_id, now, free):
            if not self._may_go(campaign_id, options.calls_per_second):
                return
            if not await self._call(campaign, options, contact, now):
                return

    def _may_go(self, campaign_id: str, per_s: float) -> bool:
        now_s = asyncio.get_running_loop().time()
        # Starts that a pause left unused are not made up for, beyond the rounds of this runner.
        next_s = max(self._next_s.get(campaign_id, 0.0), now_s - self._tick_s)
        if next_s > now_s:
            return False
        self._next_s[campaign_id] = next_s + 1 / per_s
        return True

    async def _call(
        self, campaign: Campaign, options: CampaignOptions, contact: Contact, now: datetime
    ) -> bool:
        """Have a contact called; False when no other one need be tried now."""
        try:
            await self._dialer.place(
                PlaceOrder(
                    number=contact.number,
                    agent=campaign.agent,
                    variables=contact.variables,
                    purpose=Purpose(campaign.purpose),
                    from_number=options.from_number,
                    time_zone=contact.time_zone or None,
                    hours=options.calling_hours(),
                    campaign_id=campaign.campaign_id,
                    contact_id=contact.contact_id,
                )
            )
        except PlacingRefused as error:
            return await self._refused(campaign, contact, error, now)
        return True

    async def _refused(
        self, campaign: Campaign, contact: Contact, error: PlacingRefused, now: datetime
    ) -> bool:
        if error.code in _NOT_THIS_CAMPAIGN:
            await self._change(campaign, CampaignState.TRIPPED, error.message)
            return False
        if error.not_before is not None:
            later = datetime.fromisoformat(error.not_before)
            await self._store.postpone(replace(contact, next_at=later, reason=error.code))
            return error.code != Refusal.DAY_CAP
        if error.code in _NOT_THIS_CONTACT:
            refused = replace(contact, state=ContactState.REFUSED, reason=error.code)
            await self._store.postpone(refused)
            return True
        if error.code == Refusal.CALLED_NOW:
            await self._store.postpone(replace(contact, next_at=now + _SOON, reason=error.code))
            return True
        return False

    async def _has_tripped(self, campaign: Campaign, options: CampaignOptions) -> bool:
        limit, campaign_id = options.stop_after_failures, campaign.campaign_id
        since = self._running_since[campaign_id]
        last = await self._store.last_outcomes(campaign_id, since, limit) if limit else []
        if not last or len(last) < limit or not _FAILURES.issuperset(last):
            return False
        text = f"{limit} calls failed one after the other (stop_after_failures)"
        await self._change(campaign, CampaignState.TRIPPED, text)
        return True

    async def _change(self, campaign: Campaign, state: CampaignState, reason: str) -> None:
        running = (CampaignState.RUNNING,)
        if await self._store.set_campaign(campaign.campaign_id, state, reason, of=running):
            facts = {"campaign": campaign.campaign_id, "state": state.value, "reason": reason}
            logger.log(
                logging.WARNING if state is CampaignState.TRIPPED else logging.INFO,
                "campaign changed",
                extra=facts,
            )
