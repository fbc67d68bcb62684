"""Operators' functions: whatever they do costs their result, and nothing else."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

import pytest

from app import logs, threads
from app.agents.instructions import CallFacts
from app.agents.per_call import instructions_for, is_offered
from app.background import BackgroundJobs
from app.calls.hang_up import contained
from app.errors import FunctionFailed
from app.events import CallId
from app.threads import Slots, briefly, in_own_task, in_thread, run_function
from tests.fakes.waiting import until


class Own(BaseException):
    """An exception of an operator, of a kind that few people catch."""


class Unreadable(Exception):
    """An error whose text ends the process."""

    def __str__(self) -> str:
        sys.exit(3)


def _raising(error: BaseException) -> Callable[..., Any]:
    def function(*_: object) -> Any:
        raise error

    return function


def _own_task_cancelled(*_: object) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


WAYS: dict[str, Callable[..., Any]] = {
    "Exception": _raising(ValueError("no")),
    "BaseException": _raising(Own()),
    "SystemExit": lambda *_: sys.exit(3),
    "KeyboardInterrupt": _raising(KeyboardInterrupt()),
    "GeneratorExit": _raising(GeneratorExit()),
    "CancelledError": _raising(asyncio.CancelledError()),
    "an error without a text": _raising(Unreadable()),
}


def _as_plain(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *_: function()


def _as_awaitable(function: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    later = _as_async(function)
    return lambda *_: later()


def _as_async(function: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
    async def later(*_: object) -> Any:
        await asyncio.sleep(0)
        value = function()
        await asyncio.sleep(0)
        return value

    return later


@pytest.mark.parametrize("way", WAYS)
async def test_a_task_that_a_function_starts_itself_ends_no_loop(way: str) -> None:
    started: list[asyncio.Task[Any]] = []

    async def starts_a_task() -> str:
        started.append(asyncio.create_task(_as_async(WAYS[way])()))
        return "done"

    assert await in_own_task(starts_a_task) == "done"
    await until(started[0].done)
    if way == "CancelledError":
        assert started[0].cancelled()
    else:
        assert started[0].exception() is not None


@pytest.mark.parametrize("way", [*WAYS, "own task cancelled"])
async def test_a_job_beside_the_calls_costs_no_other(
    way: str, caplog: pytest.LogCaptureFixture
) -> None:
    done = asyncio.Event()

    async def good() -> None:
        done.set()

    async with BackgroundJobs() as jobs:
        jobs.put("bad", _as_async(WAYS.get(way, _own_task_cancelled)))
        await until(lambda: not jobs)
        jobs.put("good", good)
        await done.wait()
    assert "background job failed" in caplog.text


@pytest.mark.parametrize("way", [name for name in WAYS if name != "CancelledError"])
def test_an_observer_that_fails_is_logged(way: str, caplog: pytest.LogCaptureFixture) -> None:
    with contained("observer"):
        WAYS[way]()
    assert "the end of a call failed" in caplog.text


KINDS = {"async": _as_async, "in a thread": _as_plain, "returns an awaitable": _as_awaitable}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", [*WAYS, "own task cancelled", "own task cancelled at its end"])
async def test_a_function_that_fails_raises_an_ordinary_exception(kind: str, way: str) -> None:
    if way in WAYS:
        function = KINDS[kind](WAYS[way])
    elif kind == "in a thread":
        return  # a thread has no task
    elif way == "own task cancelled":
        function = KINDS[kind](_own_task_cancelled)
    else:

        async def function() -> None:
            _own_task_cancelled()

    expected = ValueError if way == "Exception" else FunctionFailed
    with pytest.raises(expected):
        await in_own_task(partial(run_function, function, Slots(1)))
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


async def test_a_cancelled_function_that_goes_on_is_left_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    began, released, gone = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def stubborn() -> None:
        while not released.is_set():
            try:
                began.set()
                await released.wait()
            except asyncio.CancelledError:
                pass
        gone.set()

    with caplog.at_level(logging.WARNING):
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(in_own_task(stubborn))
            await began.wait()
            waiting.cancel()
    assert waiting.cancelled()
    [record] = caplog.records
    assert record.getMessage() == "function ignores its cancellation"
    assert ":" in record.__dict__["at"]
    released.set()
    await gone.wait()
    await until(lambda: len(asyncio.all_tasks()) == 1)


async def test_a_cancelled_function_may_clean_up_before_the_wait_ends() -> None:
    began, cleaned = asyncio.Event(), asyncio.Event()

    async def careful() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.set()

    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(in_own_task(careful))
        await began.wait()
        waiting.cancel()
    assert cleaned.is_set()


@pytest.mark.parametrize("way", WAYS)
def test_instructions_and_offers_that_fail_are_none(way: str) -> None:
    facts = CallFacts(call_id=CallId("c1"))
    assert instructions_for(WAYS[way], facts, "reception") is None
    assert is_offered(WAYS[way], facts, "pay") is False


def test_a_function_that_takes_too_long_is_not_called_again_before_it_has_ended() -> None:
    released, ended, calls = threading.Event(), threading.Event(), []

    def slow(facts: CallFacts) -> str:
        calls.append(facts)
        released.wait()
        ended.set()
        return "slow"

    facts = CallFacts(call_id=CallId("c1"))
    assert instructions_for(slow, facts, "reception") is None
    assert is_offered(slow, facts, "pay") is False  # type: ignore[arg-type]
    assert len(calls) == 1
    released.set()
    ended.wait()
    while (text := instructions_for(slow, facts, "reception")) is None:
        pass  # its thread is about to end
    assert text == "slow"


def test_a_function_that_is_asked_has_the_context_of_its_call() -> None:
    logs.call_id.set("c7")
    assert briefly(lambda word: f"{word} {logs.call_id.get()}", "call") == "call c7"


async def test_work_of_one_slot_waits_for_the_piece_before_and_not_if_it_is_given_up() -> None:
    slots, go, done = Slots(1), threading.Event(), list[str]()

    def wait() -> None:
        go.wait(30)
        done.append("first")

    first = asyncio.ensure_future(in_thread(wait, slots.here))
    given_up = asyncio.ensure_future(in_thread(lambda: done.append("given up"), slots.here))
    last = asyncio.ensure_future(in_thread(threading.current_thread, slots.here, name="test"))
    await asyncio.sleep(0)
    first.cancel()
    given_up.cancel()
    await asyncio.wait([first, given_up])
    assert not last.done()
    go.set()
    thread = await last
    assert (thread.name, thread.daemon) == ("test", True) and done == ["first"]
    with pytest.raises(ZeroDivisionError):
        await in_thread(lambda: 1 // 0, slots.here)


async def test_a_thread_is_used_again() -> None:
    # Not always: the one before may not have come to rest yet.
    assert len({await in_thread(threading.current_thread) for _ in range(50)}) < 50


async def test_work_that_begins_while_other_work_hangs_gets_a_thread_of_its_own() -> None:
    go, before = threading.Event(), threading.Barrier(9)
    hanging = [
        asyncio.ensure_future(in_thread(lambda: (before.wait(30), go.wait(30)))) for _ in range(8)
    ]
    await in_thread(lambda: before.wait(30))  # all of them run at the same time
    go.set()
    await asyncio.gather(*hanging)


async def test_an_idle_thread_ends_and_the_next_work_gets_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threads, "IDLE_S", 0.0)
    for _ in range(20):
        thread = await in_thread(threading.current_thread)
        thread.join(30)
        assert not thread.is_alive()


FORKS = """
import asyncio, os, warnings
from app.threads import _Thread, in_thread

warnings.simplefilter("ignore")  # a process with threads is forked
asyncio.run(in_thread(lambda: None))
while not _Thread._idle:
    pass
if os.fork() == 0:
    os._exit(asyncio.run(in_thread(lambda: 7)))
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_a_forked_process_has_threads_of_its_own() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", FORKS], capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stdout == "7\n"
