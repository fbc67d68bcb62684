"""Marks every test with the folder that it lives in."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if folder in {"unit", "protocol", "integration", "chaos"}:
            item.add_marker(folder)
