"""Columns for the cost by class, the recording, and the version of the configuration."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["branch_labels", "depends_on", "down_revision", "revision", "upgrade"]

revision = "calls_003"
down_revision = "calls_002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # With defaults: rows of before have them, and a server of before goes on to write without.
    texts = {"costs": "{}", "cost_unknown": "[]"}
    texts |= dict.fromkeys(("recording_file", "recording_end", "configuration"), "")
    for name, default in texts.items():
        column = sa.Column(name, sa.Text, nullable=False, server_default=default)
        op.add_column("calls", column)
    estimated = sa.Column("cost_estimated", sa.Boolean, nullable=False, server_default=sa.false())
    op.add_column("calls", estimated)
