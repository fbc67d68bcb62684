"""The bound on sockets that have not claimed a call."""

from __future__ import annotations

import asyncio

import pytest

from app.web.phone import UnclaimedSockets


async def _wait(sockets: UnclaimedSockets, name: str, over: list[str]) -> None:
    try:
        async with sockets.hold():
            await asyncio.Event().wait()
    except TimeoutError:
        over.append(name)


async def test_one_too_many_cuts_those_that_have_waited_longest() -> None:
    sockets = UnclaimedSockets(total=2)
    over: list[str] = []
    tasks = []
    for name in "abcd":
        tasks.append(asyncio.create_task(_wait(sockets, name, over)))
        await asyncio.sleep(0)
        assert sockets.taken == min(len(tasks), 2)
    await asyncio.wait(tasks[:2])
    assert over == ["a", "b"]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert sockets.taken == 0


async def test_a_socket_that_fails_makes_room_again() -> None:
    sockets = UnclaimedSockets(total=1)
    with pytest.raises(ValueError, match="broken"):
        async with sockets.hold():
            raise ValueError("broken")
    assert sockets.taken == 0
