"""Indexes for lists by reason, direction, cost and barge-ins, which may match few calls or none."""

from __future__ import annotations

from alembic import op

__all__ = ["branch_labels", "depends_on", "down_revision", "revision", "upgrade"]

revision = "calls_005"
down_revision = "calls_004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("calls_by_reason", "calls", ["reason", "started_at", "call_id"])
    op.create_index("calls_by_direction", "calls", ["direction", "started_at", "call_id"])
    op.drop_index("calls_by_time", "calls")
    columns = ["started_at", "call_id", "cost_usd", "barge_ins"]
    op.create_index("calls_by_time", "calls", columns)
