"""The gateway: ephemeral secrets as hashes, and what its sessions have used.

A revision is never changed once it was released: the next one changes the tables.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["branch_labels", "depends_on", "down_revision", "revision", "upgrade"]

revision = "gateway_001"
down_revision = None
branch_labels = ("gateway",)
depends_on = "calls_001"

_serial = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_COUNTS = (
    "input_text",
    "input_audio",
    "cached_text",
    "cached_audio",
    "output_text",
    "output_audio",
    "transcription_tokens",
)


def upgrade() -> None:
    op.create_table(
        "gateway_secrets",
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("key_id", sa.String(64), nullable=False),
        sa.Column("key_name", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("sessions_left", sa.BigInteger),
    )
    op.create_table(
        "gateway_usage",
        sa.Column("usage_id", _serial, primary_key=True, autoincrement=True),
        sa.Column("call_id", sa.Text, nullable=False),
        sa.Column("source_id", sa.Text, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("key_name", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("channel", sa.String(64), nullable=False),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in _COUNTS),
        sa.Column("transcription_seconds", sa.Float, nullable=False),
        sa.Column("cost_usd", sa.Float),
        sa.Column("estimated", sa.Boolean, nullable=False),
    )
    op.create_index(
        "gateway_usage_once", "gateway_usage", ["call_id", "kind", "source_id"], unique=True
    )
    op.create_index("gateway_usage_by_time", "gateway_usage", ["at", "key_name"])
