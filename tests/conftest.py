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

from app.engine.assembly import missing_parts
from app.main import GC_THRESHOLDS
from app.settings.reader.variables import FROM_VARIABLES
from tests.fakes.clock import OwnTime
from tests.fakes.covered import measure
from tests.fakes.shared_parts import share_parts
from tests.fakes.stress import EXAMPLES
from tests.fakes.waiting import until

TESTS = Path(__file__).parent

OwnTime().install()
share_parts()
measure()
gc.disable()  # until all tests are collected: see below

for name in re.findall(r"\$\{(\w+)", " ".join(FROM_VARIABLES.values())):
    os.environ.pop(name, None)
    os.environ.pop(f"{name}_FILE", None)

# Its deadlines read the clock, which says more of the machine than of the code.
hypothesis.settings.register_profile("untimed", deadline=None, max_examples=EXAMPLES)
hypothesis.settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    lacks = missing_parts()
    for item in items:
        folder = folder_of(item)
        if folder in {"unit", "protocol", "integration", "chaos", "browser"}:
            item.add_marker(folder)
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.obj = leaves_no_task(item.obj)
        if lacks and item.get_closest_marker("offline_speech") is not None:
            item.add_marker(pytest.mark.skip(f"the offline engine lacks {' and '.join(lacks)}"))
        if getattr(item.obj, "is_hypothesis_test", False):  # type: ignore[attr-defined]
            item.add_marker("stress")
    if (workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))) > 1:
        items[:] = dealt(items, workers=workers)


def folder_of(item: pytest.Item) -> str:
    """The folder of `tests/` that a test is in."""
    return item.nodeid.split("/", 2)[1]  # a path object takes seconds for all of them


def dealt(items: list[pytest.Item], *, workers: int) -> list[pytest.Item]:
    """Give each worker of pytest-xdist, which gets one part of the list, as much of what is slow.

    Each part begins with whole files of tests that wait for sockets. Workers that are done take
    tests of others over from the end: quick ones, so that none is left alone with a slow one.
    """
    files: dict[Path, list[pytest.Item]] = {}
    quick: list[pytest.Item] = []
    for item in items:
        folder = folder_of(item)
        if folder in {"unit", "protocol"}:
            quick.append(item)
        else:  # the console's tests share one server and one browser
            files.setdefault(TESTS / folder if folder == "browser" else item.path, []).append(item)
    parts: list[list[pytest.Item]] = [[] for _ in range(workers)]
    for number, tests in enumerate(files.values()):
        parts[number % workers].extend(tests)
    for number, part in enumerate(parts):
        size = (len(items) - sum(map(len, parts[:number]))) // (workers - number)
        missing = max(0, size - len(part)) if number < workers - 1 else len(quick)
        part.extend(quick[:missing])
        del quick[:missing]
    return [item for part in parts for item in part]


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
