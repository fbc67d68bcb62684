"""The bound on sockets that have not claimed a call."""

from __future__ import annotations

import pytest

from app.web.phone import UnclaimedSockets


def test_sockets_are_bounded_in_all() -> None:
    sockets = UnclaimedSockets(total=2)
    with sockets.hold("a") as first, sockets.hold("b") as second, sockets.hold("c") as third:
        assert (first, second, third) == (True, True, False)
        assert sockets.taken == 2
    assert sockets.taken == 0


def test_sockets_are_bounded_by_client() -> None:
    sockets = UnclaimedSockets(total=10, per_client=1)
    with sockets.hold("a") as first, sockets.hold("a") as second, sockets.hold("b") as third:
        assert (first, second, third) == (True, False, True)
    with sockets.hold("a") as again:
        assert again


def test_a_socket_that_fails_makes_room_again() -> None:
    sockets = UnclaimedSockets(total=1)
    with pytest.raises(ValueError, match="broken"), sockets.hold("a"):
        raise ValueError("broken")
    assert sockets.taken == 0


def test_refused_clients_leave_nothing_behind() -> None:
    sockets = UnclaimedSockets(total=0)
    for number in range(100):
        with sockets.hold(f"client {number}") as has_room:
            assert not has_room
    assert sockets.taken == 0
    assert not sockets._taken
