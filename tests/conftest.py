"""Marks every test with its folder, keeps the developer's own keys out, and finds what tests leave.

A task that is left fails its test; a socket is a `ResourceWarning`, and warnings are errors.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import os
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import hypothesis
import pytest

from app.main import GC_THRESHOLDS
from app.settings.reader.variables import FROM_VARIABLES
from tests.fakes.clock import OwnTime
from tests.fakes.shared_parts import share_parts
from tests.fakes.waiting import until

TESTS = Path(__file__).parent

OwnTime().install()
share_parts()
gc.disable()  # until all tests are collected: see below

for name in re.findall(r"\$\{(\w+)", " ".join(FROM_VARIABLES.values())):
    os.environ.pop(name, None)
    os.environ.pop(f"{name}_FILE", None)

# Its deadlines read the clock, which says more of the machine than of the code.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if folder in {"unit", "protocol", "integration", "chaos", "browser"}:
            item.add_marker(folder)
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.obj = leaves_no_task(item.obj)


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over the tests, and come as seldom as in a server."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    gc.enable()


def leaves_no_task(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Fail a test that passes and whose tasks, but for those of its fixtures, go on."""

    @functools.wraps(test)
    async def checked(*args: object, **options: object) -> None:
        before = asyncio.all_tasks()
        await test(*args, **options)
        await until(
            lambda: asyncio.all_tasks() <= before,
            within_s=2,
            what=lambda: f"tasks left: {asyncio.all_tasks() - before}",
        )

    return checked
