"""An index of the calls in which something failed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["branch_labels", "depends_on", "down_revision", "revision", "upgrade"]

revision = "calls_002"
down_revision = "calls_001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    failed = sa.text("tool_errors + voice_errors > 0")
    op.create_index(
        "calls_with_errors",
        "calls",
        ["started_at", "call_id"],
        sqlite_where=failed,
        postgresql_where=failed,
    )
