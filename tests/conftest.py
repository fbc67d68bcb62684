"""Marks every test with the folder that it lives in, and keeps the developer's own keys out."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from app.settings.reader.variables import FROM_VARIABLES

TESTS = Path(__file__).parent

for name in re.findall(r"\$\{(\w+)", " ".join(FROM_VARIABLES.values())):
    os.environ.pop(name, None)
    os.environ.pop(f"{name}_FILE", None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if folder in {"unit", "protocol", "integration", "chaos"}:
            item.add_marker(folder)
