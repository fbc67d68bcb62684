"""Seats for sockets that have not claimed a call."""

from __future__ import annotations

import pytest

from app.web.phone import UnclaimedSockets


def test_seats_are_bounded_in_all() -> None:
    seats = UnclaimedSockets(total=2)
    with seats.place("a") as first, seats.place("b") as second, seats.place("c") as third:
        assert (first, second, third) == (True, True, False)
        assert seats.taken == 2
    assert seats.taken == 0


def test_seats_are_bounded_by_client() -> None:
    seats = UnclaimedSockets(total=10, per_client=1)
    with seats.place("a") as first, seats.place("a") as second, seats.place("b") as third:
        assert (first, second, third) == (True, False, True)
    with seats.place("a") as again:
        assert again


def test_a_seat_is_given_back_when_its_socket_fails() -> None:
    seats = UnclaimedSockets(total=1)
    with pytest.raises(ValueError, match="broken"), seats.place("a"):
        raise ValueError("broken")
    assert seats.taken == 0


def test_refused_clients_leave_nothing_behind() -> None:
    seats = UnclaimedSockets(total=0)
    for number in range(100):
        with seats.place(f"client {number}") as seated:
            assert not seated
    assert seats.taken == 0
    assert not seats._taken
