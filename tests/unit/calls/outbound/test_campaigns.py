"""The next state of a contact of a campaign, after each outcome of a call."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from app.calls.outbound.campaigns import next_for_contact
from app.store.outbound import Campaign, Contact, ContactState, DialOutcome

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
ANSWERED, FAILED = DialOutcome.ANSWERED, DialOutcome.FAILED

# An outcome, its code, how it is shown, and the hours until the next attempt; None: never.
AFTER: list[tuple[DialOutcome, str, str, float | None]] = [
    (ANSWERED, "caller_hung_up", "answered", None),
    (ANSWERED, "lost", "answered", None),
    (ANSWERED, "answered_by_voicemail", "voicemail", 24),
    (ANSWERED, "answered_by_screening", "screening", 2),
    (ANSWERED, "answered_by_hold", "hold", 1),
    (ANSWERED, "answered_by_nobody", "nobody", 1),
    (ANSWERED, "answered_by_ivr", "ivr", None),
    (ANSWERED, "answered_by_fax", "fax", None),
    (DialOutcome.BUSY, "sip_486", "busy", 0.25),
    (DialOutcome.NO_ANSWER, "no_answer", "no_answer", 2),
    (DialOutcome.CANCELED, "draining", "canceled", 0.25),
    (DialOutcome.UNKNOWN, "carrier_timeout", "unknown", 1),
    (FAILED, "sip_503", "failed", 1),
    (FAILED, "twilio_21217", "failed", None),
]


def after(outcome: DialOutcome, code: str, tries: int = 0, **options: Any) -> Contact:
    contact = Contact(campaign_id="c", number="+14155550123", next_at=NOW, tries=tries)
    campaign = Campaign(
        campaign_id="c", name="c", agent="a", created_at=NOW, options={"attempts": 3, **options}
    )
    return next_for_contact(outcome, code, NOW)(contact, campaign)


@pytest.mark.parametrize(("outcome", "code", "shown", "hours"), AFTER)
def test_each_outcome_has_its_pause(
    outcome: DialOutcome, code: str, shown: str, hours: float | None
) -> None:
    contact = after(outcome, code)
    assert (contact.tries, contact.outcome, contact.reason) == (1, shown, code)
    assert contact.state is (ContactState.DONE if hours is None else ContactState.WAITING)
    if hours is not None:
        assert (contact.next_at - NOW).total_seconds() == 3_600 * hours
        assert after(outcome, code, tries=2).state is ContactState.DONE


def test_a_campaign_has_pauses_of_its_own() -> None:
    voicemail = (ANSWERED, "answered_by_voicemail")
    assert after(*voicemail, retry_s={"voicemail": None}).state is ContactState.DONE
    assert after(*voicemail, retry_s={"voicemail": 0}).next_at == NOW
    assert after(ANSWERED, "answered_by_ivr", retry_s={"ivr": 60}).state is ContactState.WAITING


def test_what_was_not_dialed_was_no_attempt() -> None:
    contact = after(DialOutcome.NOT_DIALED, "draining")
    assert (contact.tries, contact.state, contact.next_at) == (0, ContactState.WAITING, NOW)
