"""Tools in processes of their own: for work that computes, which in a thread holds up all calls.

A process is spawned, not forked, when the first call of its tool comes, and kept for the next ones.
Arguments and results are pickled; the function is found by its name, so it must stand in a module.
Whatever becomes of the process costs the one answer. It is killed when its time is over, or when
the server is gone. Signals are left to the server.
"""

from __future__ import annotations

import asyncio
import atexit
import importlib
import inspect
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any, Final
from weakref import WeakSet

from app.errors import ConfigError, ToolFailed
from app.threads import Slots, in_thread

__all__ = ["Workers"]

MAX_ANSWER_BYTES: Final = 1_000_000
"""A result, pickled; much more than a model is told. To unpickle more would hold up all calls."""

_SPAWN = multiprocessing.get_context("spawn")


class Workers:
    """The processes of one function: those that wait for its next call."""

    def __init__(self, function: Callable[..., Any], most: int) -> None:
        """At most `most` run at a time; more calls wait.

        Raises:
            ConfigError: no process can find the function by its name.
        """
        module, name = getattr(function, "__module__", ""), getattr(function, "__qualname__", "")
        if not module or "<" in name:
            raise ConfigError(
                "a process needs a function that stands in a module, and not inside of another"
            )
        self._function = (module, name)
        self._slots = Slots(most)
        self._idle: list[_Worker] = []

    async def run(self, keywords: Mapping[str, Any]) -> Any:
        """Call the function; its result, or what it raised.

        Raises:
            ToolFailed: the arguments cannot be pickled, or the process has died.
        """
        try:
            task = pickle.dumps((self._function, dict(keywords)))
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise ToolFailed("The arguments cannot be given to another process.") from error
        async with self._slots.here:
            worker = self._idle.pop() if self._idle else _Worker()
            try:
                answer = await in_thread(partial(worker.ask, task), name="trunkline-tool-process")
            except BaseException:  # also when its time is over: it is in the middle of something
                worker.kill()
                raise
            self._idle.append(worker)
        kind, value = pickle.loads(answer)
        if kind == "raised":
            raise value
        return value


class _Worker:
    """A process that answers one task after the other; started with its first."""

    def __init__(self) -> None:
        _started.add(self)
        self._process: Any = None
        self._pipe: Connection | None = None
        self._killed = False

    def ask(self, task: bytes) -> bytes:
        """Send a task and wait for its answer. Blocks.

        Raises:
            ToolFailed: the process has died.
        """
        try:
            if self._pipe is None:
                self._pipe, theirs = _SPAWN.Pipe()
                self._process = _SPAWN.Process(target=_work, args=(theirs,), daemon=True)
                self._process.start()
                theirs.close()
                if self._killed:  # while it was started
                    self.kill()
            self._pipe.send_bytes(task)
            return self._pipe.recv_bytes()
        except (EOFError, OSError) as error:
            raise ToolFailed("The tool's process has died.", code="process_died") from error

    def kill(self) -> None:
        self._killed = True
        process = self._process
        if process is not None:
            with suppress(ValueError, AttributeError):  # not started yet
                process.kill()


_started: Final[WeakSet[_Worker]] = WeakSet()


@atexit.register
def _kill_all() -> None:
    # multiprocessing asks its processes to end with a signal that these ignore, and waits for them.
    for worker in list(_started):
        worker.kill()


# In the process -----------------------------------------------------------------------------------


def _work(pipe: Connection) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_leave_with_server, daemon=True).start()
    with suppress(EOFError, OSError):
        while True:
            pipe.send_bytes(_answer(pipe.recv_bytes()))


def _leave_with_server() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(0)


def _answer(task: bytes) -> bytes:
    try:
        (module, name), keywords = pickle.loads(task)
        answer = pickle.dumps(("returned", _called(_found(module, name), keywords)))
        if len(answer) > MAX_ANSWER_BYTES:
            raise ToolFailed("The tool's result is too large.", code="tool_output_too_large")
        return answer
    except BaseException as error:  # it goes to the task that waits for it
        try:
            found = pickle.dumps(("raised", error))
            pickle.loads(found)
            if len(found) > MAX_ANSWER_BYTES:
                raise ValueError
        except BaseException:  # its own code runs when it is pickled
            text = "".join(traceback.format_exception_only(error)).strip()
            return pickle.dumps(("raised", RuntimeError(text[:1_000])))
        return found


def _found(module: str, name: str) -> Callable[..., Any]:
    found: Any = sys.modules.get(module) or importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    # `@tool` has put a Tool in the function's place.
    function: Callable[..., Any] = inspect.unwrap(getattr(found, "run", found))
    return function


def _called(function: Callable[..., Any], keywords: Mapping[str, Any]) -> Any:
    returned = function(**keywords)
    return asyncio.run(_awaited(returned)) if inspect.isawaitable(returned) else returned


async def _awaited(returned: Any) -> Any:
    return await returned
