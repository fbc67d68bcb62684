"""Functions of others and blocking work: in tasks and threads that cost no more than their result.

Threads are daemons, so they cannot keep the process alive, as those of `asyncio.to_thread` do while
a disk hangs. They are used again: to start one holds up the event loop until it has run.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import queue
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any, ClassVar, Final, TypeVar, cast

from app.errors import FunctionFailed, ToolFailed
from app.logs import call_id

__all__ = [
    "FUNCTION_OF",
    "Slots",
    "briefly",
    "in_own_task",
    "in_thread",
    "run_function",
]

logger = logging.getLogger(__name__)

GIVE_UP_S: Final = 0.5
"""The time for a cancelled function to end; it is part of the 2 s in which a call has to end."""

BRIEF_S: Final = 0.2
"""The time that a function which is asked between two frames of sound may hold up all calls."""

FUNCTION_OF: Final = "function of "
"""The beginning of the name of an operator's function's task, before the id of its call."""

_left_alone: set[asyncio.Task[Any]] = set()
"""Functions that have swallowed their cancellation. Nobody waits for them any more."""

_late: set[int] = set()
"""The identities of functions that took too long, and have not ended yet."""

IDLE_S: Final = 10.0
"""The time for which a thread without work waits for more."""

_A = TypeVar("_A")
_T = TypeVar("_T")


class Slots:
    """At most so many at a time. Made for whichever event loop runs: tools outlive loops."""

    __slots__ = ("_limit", "_loop", "_semaphore")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._loop: asyncio.AbstractEventLoop | None = None
        self._semaphore = asyncio.Semaphore(limit)

    @property
    def here(self) -> asyncio.Semaphore:
        """The semaphore of the running loop."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._semaphore = loop, asyncio.Semaphore(self._limit)
        return self._semaphore


async def in_thread(
    work: Callable[[], _T],
    slots: asyncio.Semaphore | None = None,
    *,
    name: str = "trunkline-tool",
) -> _T:
    """Run work in a daemon thread and wait for it; giving up the wait does not end the work.

    A slot is taken until the work is done, so that work which hangs holds up its own tool and
    no other. Work of one slot is done in its order.

    Raises:
        ToolFailed: the system has no thread to spare.
    """
    if slots is not None:
        await slots.acquire()
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[tuple[_T, None] | tuple[None, BaseException]] = loop.create_future()
    context = copy_context()

    def finish(found: tuple[_T, None] | tuple[None, BaseException]) -> None:
        if slots is not None:
            slots.release()
        if not outcome.done():
            outcome.set_result(found)

    def run() -> None:
        found: tuple[_T, None] | tuple[None, BaseException]
        try:
            found = context.run(work), None
        except BaseException as raised:  # of whatever kind: it belongs to the waiting task
            found = None, raised
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(finish, found)

    try:
        _Thread.start(run, name)
    except RuntimeError as error:
        if slots is not None:
            slots.release()
        raise ToolFailed("The tool could not be started.") from error
    value, raised = await outcome
    if raised is not None:
        raise raised
    return cast(_T, value)


class _Thread:
    """A daemon thread that does one piece of work after the other."""

    _idle: ClassVar[dict[_Thread, None]] = {}
    """Those without work; the last one to have had some is the first to get more."""

    def __init__(self) -> None:
        self._given: queue.SimpleQueue[tuple[Callable[[], None], str]] = queue.SimpleQueue()

    @classmethod
    def start(cls, run: Callable[[], None], name: str) -> None:
        """Have work done by an idle thread, or by a new one. Raises RuntimeError: there is none."""
        try:
            thread, _ = cls._idle.popitem()
        except KeyError:
            thread = cls()
            threading.Thread(target=thread._work, daemon=True, name=name).start()
        thread._given.put((run, name))

    def _work(self) -> None:
        while True:
            try:
                run, name = self._given.get(timeout=IDLE_S)
            except queue.Empty:
                if self._idle.pop(self, self) is None:
                    return
                continue  # it is just being given some
            threading.current_thread().name = name
            run()
            del run  # with all that it refers to
            self._idle[self] = None


if hasattr(os, "register_at_fork"):  # a child process has none of these threads
    os.register_at_fork(after_in_child=_Thread._idle.clear)


def briefly(function: Callable[[_A], _T], argument: _A) -> _T:
    """Call a function in a daemon thread and wait for it at once, with the loop standing still.

    One that takes longer than `BRIEF_S` goes on alone, and is not called again before it has ended.

    Raises:
        TimeoutError: it took longer, or has not ended since it did.
        BaseException: what the function raised.
    """
    if id(function) in _late:
        raise TimeoutError("it has not ended since it was called last")
    done = threading.Event()
    context = copy_context()
    outcome: list[tuple[_T, None] | tuple[None, BaseException]] = []

    def run() -> None:
        try:
            outcome.append((context.run(function, argument), None))
        except BaseException as raised:  # of whatever kind: it belongs to whoever waits
            outcome.append((None, _readable(raised)))
        done.set()
        _late.discard(id(function))

    threading.Thread(target=run, daemon=True, name="trunkline-asked").start()
    if not done.wait(BRIEF_S):
        _late.add(id(function))
        if done.is_set():
            _late.discard(id(function))
        raise TimeoutError(f"it took longer than {BRIEF_S} s")
    [(value, raised)] = outcome
    if raised is not None:
        raise raised
    return cast(_T, value)


async def run_function(
    function: Callable[..., Any], slots: Slots, /, *args: Any, **keywords: Any
) -> Any:
    """Run an async function in this loop and any other in a thread of `slots`.

    An awaitable that a plain function returns, as a decorated one does, is awaited in this loop.
    """
    if inspect.iscoroutinefunction(function):
        return await function(*args, **keywords)
    returned = await in_thread(partial(function, *args, **keywords), slots.here)
    return await returned if inspect.isawaitable(returned) else returned


async def in_own_task(work: Callable[[], Awaitable[_T]]) -> _T:
    """Await an operator's function in a task of its own; whatever it does costs its result only.

    It may cancel its own task. When the waiting task is cancelled, so is the function; one that
    goes on for longer than `GIVE_UP_S` is left alone.

    Raises:
        Exception: what the function raised.
        FunctionFailed: the function raised a BaseException, such as SystemExit, or was cancelled.
    """
    loop = asyncio.get_running_loop()
    _contain_tasks(loop)
    # The name says whose function it is, to whoever finds it blocking the loop.
    task = loop.create_task(_outcome(work), name=f"{FUNCTION_OF}{call_id.get() or 'no call'}")
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        task.cancel()
        try:
            await asyncio.wait({task}, timeout=GIVE_UP_S)
        finally:
            if not task.done():
                _left_alone.add(task)
                task.add_done_callback(_left_alone.discard)
                logger.warning("function ignores its cancellation", extra={"at": _where(task)})
        raise
    value, raised = (None, asyncio.CancelledError()) if task.cancelled() else task.result()
    if isinstance(raised, Exception):
        raise raised
    if raised is not None:
        raise FunctionFailed("the function ended in no ordinary way") from raised
    return cast(_T, value)


_in_function: Final = ContextVar("_in_function", default=False)
"""True in an operator's function, and in the tasks that it starts: they inherit the context."""

_TaskFactory = Callable[..., asyncio.Future[Any]]


def _contain_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Have the loop contain the tasks that operators' functions start themselves."""
    former = loop.get_task_factory()
    if not isinstance(former, _Containing):
        loop.set_task_factory(cast(Any, _Containing(former)))


class _Containing:
    """A task factory: a task of an operator that ends in SystemExit does not end the loop."""

    def __init__(self, former: _TaskFactory | None) -> None:
        self._former = former

    def __call__(
        self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Future[Any]:
        if _in_function.get():
            work = _without_exits(work)
        if self._former is not None:
            return self._former(loop, work, **options)
        return asyncio.Task(work, loop=loop, **options)


async def _without_exits(work: Coroutine[Any, Any, _T]) -> _T:
    try:
        return await work
    except (SystemExit, KeyboardInterrupt) as raised:
        raise FunctionFailed("a task of the function ended in no ordinary way") from raised


async def _outcome(work: Callable[[], Awaitable[_T]]) -> tuple[_T | None, BaseException | None]:
    # A task that ends in SystemExit or KeyboardInterrupt ends the event loop.
    _in_function.set(True)
    try:
        return await work(), None
    except BaseException as raised:
        return None, _readable(raised)


def _readable(raised: BaseException) -> BaseException:
    """The error, or one in its place where to read its text fails: that runs code of its own."""
    try:
        str(raised)
    except BaseException:
        return FunctionFailed(f"the text of its {type(raised).__name__} cannot be read")
    return raised


def _where(task: asyncio.Task[Any]) -> str:
    """The file and line that a task waits at."""
    awaited: Any = task.get_coro()
    place = ""
    while (frame := getattr(awaited, "cr_frame", None)) is not None:
        place = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        awaited = awaited.cr_await
    return place
