"""Health: is the process alive, does it take calls, what has it counted.

`/healthz` answers as long as the event loop turns. `/readyz` says whether a new call would be
taken and why not; calls in progress go on either way. Degraded parts do not keep callers away:
they hear more from a server that apologizes, or puts them through, than from none. `/metrics` is
for Prometheus: with a token when one is set, else for programs on this machine as long as nobody
else can reach the server. `/readyz` names what is degraded to the same clients.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from http import HTTPStatus
from types import FrameType
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from app.bus import Bus, Message
from app.errors import SignatureError
from app.threads import FUNCTION_OF
from app.web.clients import AccessRule
from app.web.metrics import AuthFailure, Metrics

__all__ = ["LoopMonitor", "health_router"]

logger = logging.getLogger(__name__)

STACK_PLACES: Final = 8

_NO_STORE = {"cache-control": "no-store"}


def health_router(
    metrics: Metrics,
    access: AccessRule,
    *,
    reasons_not_ready: Callable[[], Sequence[str]],
    degraded: Callable[[], Sequence[str]] = tuple,
    bus: Bus | None = None,
) -> APIRouter:
    """The routes `/healthz`, `/readyz` and `/metrics`.

    What is degraded is asked of all processes on the `bus`.
    """
    router = APIRouter()
    processes = bus or Bus()

    async def own_degraded(_message: Message) -> Message:
        return {"degraded": list(degraded())}

    processes.respond("degraded", own_degraded)

    @router.api_route("/healthz", methods=["GET", "HEAD"])
    async def healthz() -> Response:
        return JSONResponse({"status": "ok"}, headers=_NO_STORE)

    @router.api_route("/readyz", methods=["GET", "HEAD"])
    async def readyz(request: Request) -> Response:
        reasons = list(reasons_not_ready())
        status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
        answer: dict[str, Any] = {"ready": not reasons, "reasons": reasons}
        if access.admits(request):
            told = await processes.gather("degraded", {})
            answer["degraded"] = sorted({part for one in told for part in one["degraded"]})
        return JSONResponse(answer, status_code=status, headers=_NO_STORE)

    @router.get("/metrics")
    async def read_metrics(request: Request) -> Response:
        if not access.admits(request):
            metrics.auth_failed(AuthFailure.METRICS)
            raise SignatureError("metrics are not open to this client", code="metrics_closed")
        return Response(await metrics.render(), media_type=CONTENT_TYPE_LATEST, headers=_NO_STORE)

    return router


class LoopMonitor:
    """Measures how late the event loop wakes up: the delay that every call's sound gets.

    A thread looks at a loop that does not wake up: it names the function that blocks it, while it
    does, with its stack and the call that it works for.
    """

    TICK_MS = 100
    WARN_MS = 250
    KEPT = 100  # measurements: those of ten seconds

    def __init__(self, metrics: Metrics, max_lag_ms: float = 0) -> None:
        """`max_lag_ms`: the delay at which the loop is overloaded; 0 for never."""
        self._metrics = metrics
        self._max_lag_ms = max_lag_ms
        self._lags_ms: deque[float] = deque(maxlen=self.KEPT)
        self._woken_s = time.perf_counter()
        self._timer: asyncio.TimerHandle
        self._over = threading.Event()

    async def run(self) -> None:
        """Measure until cancelled."""
        loop = asyncio.get_running_loop()
        self._woken_s = time.perf_counter()
        watch = threading.Thread(
            target=self._watch, args=(loop, threading.get_ident()), name="loop watch", daemon=True
        )
        watch.start()
        self._wake_later(loop)
        try:
            await loop.create_future()
        finally:
            self._timer.cancel()
            self._over.set()

    def _wake_later(self, loop: asyncio.AbstractEventLoop) -> None:
        # The callback of a timer: to wake from `sleep` takes two more turns of the loop.
        due_s = loop.time() + self.TICK_MS / 1000
        self._timer = loop.call_at(due_s, self._wake, loop, due_s)

    def _wake(self, loop: asyncio.AbstractEventLoop, due_s: float) -> None:
        self._woken_s = time.perf_counter()
        late_s = loop.time() - due_s
        self._wake_later(loop)
        self.record(max(0.0, late_s) * 1000)

    def record(self, lag_ms: float) -> None:
        """Take one measurement."""
        self._metrics.loop_lagged(lag_ms / 1000)
        self._lags_ms.append(lag_ms)
        if lag_ms > self.WARN_MS:
            logger.warning("event loop was blocked", extra={"lag_ms": round(lag_ms)})

    def overloaded(self) -> bool:
        """True when one wake-up in twenty of the last ten seconds came too late for its calls."""
        if not self._max_lag_ms or len(self._lags_ms) < self.KEPT:
            return False
        return sorted(self._lags_ms)[self.KEPT * 95 // 100] > self._max_lag_ms

    def _watch(self, loop: asyncio.AbstractEventLoop, thread_id: int) -> None:
        tick_s, limit_s = self.TICK_MS / 1000, (self.TICK_MS + self.WARN_MS) / 1000
        told_s = -1.0
        looked_s = time.perf_counter()
        due_s = looked_s + tick_s
        # Looks when the loop would be late, and no more often than the loop itself ticks.
        while not self._over.wait(due_s - looked_s):
            wanted_s, looked_s = due_s, time.perf_counter()
            woken_s = self._woken_s
            due_s = max(looked_s + tick_s, woken_s + limit_s)
            if looked_s - woken_s <= limit_s or woken_s == told_s:
                continue
            if looked_s - wanted_s > tick_s:
                continue  # this thread was late too: the machine is busy, and no function to blame
            told_s = woken_s  # once for each time that the loop is blocked
            frame = sys._current_frames().get(thread_id)
            if frame is not None:
                extra = {"stack": _places(frame), **_work_of(loop)}
                logger.warning("event loop is blocked", extra=extra)


def _places(frame: FrameType) -> str:
    """The innermost places of a stack, without the values that are there.

    `traceback.extract_stack` would read the source of every file on it, and keep it for good.
    """
    found = itertools.islice(traceback.walk_stack(frame), STACK_PLACES)
    places = ((one.f_code.co_filename, line, one.f_code.co_name) for one, line in found)
    return " < ".join(f"{file}:{line} {name}" for file, line, name in places)


def _work_of(loop: asyncio.AbstractEventLoop) -> dict[str, str]:
    """The running task, and the call that it works for."""
    try:
        task = asyncio.current_task(loop)
    except RuntimeError:
        return {}
    if task is None:
        return {}
    name = task.get_name()
    owner = name.removeprefix(FUNCTION_OF)
    return {"task": name} if owner == name else {"task": name, "call_id": owner}
