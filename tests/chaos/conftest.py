"""No fault of a peer leaves a traceback: after each test of this folder, all its logs are read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

TRACEBACK = "Traceback (most recent call last)"


@pytest.fixture(autouse=True)
def no_traceback_in_any_log(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> Iterator[None]:
    """Read what this process has logged, and the files `log` of the servers that a test started."""
    yield
    logged = caplog.get_records("call")
    assert [record.getMessage() for record in logged if record.exc_info or record.exc_text] == []
    assert TRACEBACK not in caplog.text
    for path in tmp_path.rglob("log*"):
        if path.is_file():
            assert TRACEBACK not in path.read_text(encoding="utf-8", errors="replace"), path
