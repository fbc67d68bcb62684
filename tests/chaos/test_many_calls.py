"""Calls one after another, and as many a hundred at a time: nothing is left of them.

Half of them are ordinary, the others end in every other way there is, and the model serves one
connection in ten badly. What is counted is the whole process: the server, the phones, the model.
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx2
import pytest

import app.calls.admission.switchboard as switchboard
from app.dial.carrier_http import http_client
from tests.chaos.mixed_calls import CallOutcome, FaultyVoiceServer, MixedCalls
from tests.fakes.carrier import FakeTwilio
from tests.fakes.stress import few_or
from tests.fakes.waiting import TIME_LIMIT_S, until
from tests.integration.server import App, trunkline

LIMITS: Final = {"max_calls": 80, "claim_s": 1}

CALLS: Final = 420
"""Fewer than `make soak` places, which looks for slower leaks."""

WARM_UP: Final = 120
"""Calls until pools, caches and what is remembered of ended calls are full."""

OURS: Final = 350
"""By so many objects two counts may differ: less than one for each of the calls between them. The
last calls' events are kept for readers, and so are those of servers of tests before this one."""

ALL: Final = 10_000
"""The same for all objects: the loop keeps canceled timers for a while, pytest what was logged."""


WAYS: Final = [
    pytest.param(100, 1.0, id="100 at a time"),
    pytest.param(1, 20.0, id="one after another"),
]


@dataclass(frozen=True, slots=True)
class Count:
    """The process's holdings while no call is on."""

    tasks: int
    descriptors: int
    sockets: int
    ours: Counter[str]
    objects: int


async def count(app: App) -> Count:
    """Wait until all calls are over, and look."""
    state = app.trunkline.server.server_state
    await until(
        lambda: (
            not app.switchboard.active and not app.voice.open_connections and not state.connections
        ),
        what=lambda: (app.switchboard.active, app.voice.open_connections, len(state.connections)),
    )
    app.voice.connections.clear()  # the fake's own notes
    # Sockets that were closed just now are gone a turn of the loop later.
    tasks = len(asyncio.all_tasks())
    for _ in range(20):
        await asyncio.sleep(0.01)
        tasks = min(tasks, len(asyncio.all_tasks()))
    gc.collect()
    objects = gc.get_objects()
    ours = Counter(
        type(each).__qualname__
        for each in objects
        if str(type(each).__module__).startswith(("app.", "audio."))
    )
    return Count(tasks, _descriptors(), len(state.connections), ours, len(objects))


def _descriptors() -> int:
    folder = Path("/proc/self/fd")
    return len(os.listdir(folder)) if folder.exists() else 0


async def place_mixed_calls(
    app: App, twilio: FakeTwilio, *, seed: int, calls: int, at_a_time: int
) -> dict[CallOutcome, int]:
    """Place calls, so many at a time, and see them all through."""
    async with http_client() as client:
        client.timeout = httpx2.Timeout(TIME_LIMIT_S)
        callers = MixedCalls(app, twilio, client, seed)
        for _ in range(calls // at_a_time):
            async with asyncio.TaskGroup() as group:
                for _ in range(at_a_time):
                    group.create_task(callers.call(callers.outcome()))
    assert not twilio.calls
    return callers.outcomes


@pytest.mark.stress
@pytest.mark.timeout(900)  # twenty seconds of computing, on a busy machine
@pytest.mark.parametrize(("at_a_time", "speed"), few_or(WAYS[:1], WAYS))
async def test_nothing_is_left_of_many_calls(
    at_a_time: int, speed: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(switchboard, "REMEMBERED", 20)
    monkeypatch.setattr(switchboard, "FEEDS_KEPT", 2)
    voice = FaultyVoiceServer(seed=at_a_time, share_of_faults=0.1)
    async with voice, trunkline(voice, limits=LIMITS) as app, app.twilio(speed) as twilio:
        await place_mixed_calls(app, twilio, seed=1, calls=WARM_UP, at_a_time=at_a_time)
        before = await count(app)
        outcomes = await place_mixed_calls(
            app, twilio, seed=2, calls=CALLS - WARM_UP, at_a_time=at_a_time
        )
        after = await count(app)
    assert all(outcomes.values())  # every outcome was met
    # Fewer is no leak: what tests before this one have left may have gone meanwhile.
    assert after.tasks <= before.tasks
    assert after.descriptors <= before.descriptors
    assert after.sockets <= before.sockets
    more = after.ours - before.ours
    assert after.ours.total() - before.ours.total() < OURS, more.most_common(10)
    assert after.objects - before.objects < ALL
