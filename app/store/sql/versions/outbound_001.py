"""Calls that are placed: attempts, the do-not-call list, consents, campaigns and their contacts.

A revision is never changed once it was released: the next one changes the tables.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["branch_labels", "depends_on", "down_revision", "revision", "upgrade"]

revision = "outbound_001"
down_revision = None
branch_labels = ("outbound",)
depends_on = "calls_001"

_serial = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "outbound_attempts",
        sa.Column("call_id", sa.Text, primary_key=True),
        sa.Column("number", sa.Text, nullable=False),
        sa.Column("from_number", sa.Text, nullable=False),
        sa.Column("agent", sa.Text, nullable=False),
        sa.Column("variables", sa.Text, nullable=False),
        sa.Column("purpose", sa.String(16), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("sent_at", sa.BigInteger),
        sa.Column("ended_at", sa.BigInteger),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("carrier_call_id", sa.Text, nullable=False),
        sa.Column("outcome", sa.String(16)),
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("campaign_id", sa.Text, nullable=False),
        sa.Column("contact_id", sa.BigInteger),
    )
    op.create_index("attempts_of_number", "outbound_attempts", ["number", "created_at"])
    op.create_index("attempts_by_time", "outbound_attempts", ["created_at"])
    op.create_index("attempts_by_state", "outbound_attempts", ["state"])
    op.create_index("attempts_of_campaign", "outbound_attempts", ["campaign_id", "ended_at"])
    op.create_table(
        "outbound_owners",
        sa.Column("owner", sa.Text, primary_key=True),
        sa.Column("seen_at", sa.BigInteger, nullable=False),
    )
    for name in ("do_not_call", "consents"):
        op.create_table(
            name,
            sa.Column("number", sa.Text, primary_key=True),
            sa.Column("at", sa.BigInteger, nullable=False),
            sa.Column("reason", sa.Text, nullable=False),
            sa.Column("source", sa.Text, nullable=False),
        )
    op.create_table(
        "campaigns",
        sa.Column("campaign_id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("agent", sa.Text, nullable=False),
        sa.Column("purpose", sa.String(16), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("options", sa.Text, nullable=False),
        sa.Column("runner", sa.Text, nullable=False),
        sa.Column("lease_until", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "campaign_contacts",
        sa.Column("contact_id", _serial, primary_key=True, autoincrement=True),
        sa.Column("campaign_id", sa.Text, nullable=False),
        sa.Column("number", sa.Text, nullable=False),
        sa.Column("variables", sa.Text, nullable=False),
        sa.Column("time_zone", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("tries", sa.BigInteger, nullable=False),
        sa.Column("next_at", sa.BigInteger, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("call_id", sa.Text, nullable=False),
    )
    op.create_index(
        "contact_of_campaign", "campaign_contacts", ["campaign_id", "number"], unique=True
    )
    op.create_index("contacts_due", "campaign_contacts", ["campaign_id", "state", "next_at"])
