"""The bound on sockets that have not claimed a call."""

from __future__ import annotations

import pytest

from app.web.phone import UnclaimedSockets


def test_unclaimed_sockets_are_bounded() -> None:
    sockets = UnclaimedSockets(total=2)
    with sockets.hold() as first, sockets.hold() as second, sockets.hold() as third:
        assert (first, second, third) == (True, True, False)
        assert sockets.taken == 2
    assert sockets.taken == 0


def test_a_socket_that_fails_makes_room_again() -> None:
    sockets = UnclaimedSockets(total=1)
    with pytest.raises(ValueError, match="broken"), sockets.hold():
        raise ValueError("broken")
    assert sockets.taken == 0


def test_refused_sockets_are_not_counted() -> None:
    sockets = UnclaimedSockets(total=0)
    for _ in range(100):
        with sockets.hold() as has_room:
            assert not has_room
    assert sockets.taken == 0
