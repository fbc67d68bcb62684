"""A task group that is cancelled as a whole."""

from __future__ import annotations

import asyncio

import pytest

from app.tasks import CancellableGroup, running


async def test_a_cancelled_group_ends_without_an_error() -> None:
    async with CancellableGroup() as group:
        waiting = group.create_task(asyncio.Event().wait())
        await asyncio.sleep(0)
        group.cancel()
        late = group.create_task(asyncio.Event().wait())
    assert waiting.cancelled()
    assert late.cancelled()


async def test_an_error_in_a_task_leaves_the_group() -> None:
    async def fail() -> None:
        raise KeyError("mine")

    with pytest.raises(ExceptionGroup):
        async with CancellableGroup() as group:
            group.create_task(fail())
            await asyncio.Event().wait()


async def test_tasks_that_take_their_time_to_end_are_named() -> None:
    released = asyncio.Event()

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await released.wait()

    async with CancellableGroup() as group:
        assert await group.gone() == set()
        task = group.create_task(stubborn())
        await asyncio.sleep(0)
        group.cancel()
        assert await group.gone(within_s=0.001) == {task}
        released.set()
        assert await group.gone() == set()


async def test_work_runs_beside_a_block_and_ends_with_it() -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with running(work()):
        await began.wait()
        assert not ended.is_set()
    assert ended.is_set()


async def test_an_error_of_work_beside_a_block_ends_the_block() -> None:
    async def fail() -> None:
        raise KeyError("mine")

    with pytest.raises(ExceptionGroup):
        async with running(fail()):
            await asyncio.Event().wait()
