"""Clients that others wrote, as `make test` fetches them beside the server's own packages."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Final

import pytest

__all__ = ["FETCHED", "JAVASCRIPT", "command_of"]

FETCHED: Final = Path(os.environ.get("TRUNKLINE_TEST_CLIENTS") or Path(sys.prefix) / "clients")
JAVASCRIPT: Final = FETCHED / "node_modules" / "@openai" / "agents-realtime"


def command_of(script: Path, package: Path) -> list[str]:
    """The command that runs a client, up to its arguments; skips where it cannot be had."""
    runner = sys.executable if script.suffix == ".py" else shutil.which("node")
    if runner is None or not package.exists():
        pytest.skip(f"wants {package.name} as make test fetches it, and node for JavaScript")
    return [runner, str(script)]
