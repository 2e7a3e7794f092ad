"""The listening sockets while workers come and go."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from trio_upgrade._streams.tcp_listeners import (
    find_addresses,
    open_tcp_listeners_outside_trio,
)
from trio_upgrade._workers.places import Places

from ..interop.programs import HOST

if TYPE_CHECKING:
    from trio_upgrade._streams.socket_listener import DirectSocketListener

pytestmark = pytest.mark.skipif(
    not hasattr(socket, "SO_REUSEPORT"), reason="needs SO_REUSEPORT: not on Windows"
)


def open_one(port: int = 0, *, reuse_port: bool) -> list[DirectSocketListener]:
    return open_tcp_listeners_outside_trio(
        port, host=HOST, backlog=None, reuse_port=reuse_port
    )


def is_open(listeners: list[DirectSocketListener]) -> bool:
    (listener,) = listeners
    return listener.socket.fileno() >= 0


def test_shared() -> None:
    """All places have the same sockets, which stay open while one of them is empty."""
    places = Places(open_one(reuse_port=False), 3, shared=True, backlog=None)
    first = places.open(0)
    assert places.open(2) is first
    places.vacate(1)
    assert is_open(first)
    places.close(but=1)
    assert is_open(first)
    places.close()

    assert not is_open(first)
    places.close()


def test_no_worker_takes_all() -> None:
    """From a socket that others share, few connections are accepted at a time."""
    for number, shared, few in ((1, True, False), (2, True, True), (2, False, False)):
        opened = open_one(reuse_port=True)
        places = Places(opened, number, shared=shared, backlog=None)
        assert (opened[0].batch < 10) == few
        places.close()


def test_apart() -> None:
    """Each place has its own socket on the same address."""
    places = Places(open_one(reuse_port=True), 3, shared=False, backlog=7)
    all_three = [places.open(number) for number in range(3)]
    addresses = {str(find_addresses(listeners)) for listeners in all_three}
    assert len(addresses) == 1
    assert len({listeners[0].socket.fileno() for listeners in all_three}) == 3
    places.close(but=1)
    assert [is_open(listeners) for listeners in all_three] == [False, True, False]
    places.close()

    assert not is_open(all_three[1])


def test_empty_place() -> None:
    """An empty place has no socket, so that no connection waits there."""
    places = Places(open_one(reuse_port=True), 2, shared=False, backlog=None)
    second = places.open(1)
    address = find_addresses(second)
    places.vacate(1)
    places.vacate(1)
    assert not is_open(second)
    again = places.open(1)
    assert find_addresses(again) == address
    places.close()


def test_address_that_cannot_be_opened_again() -> None:
    """If not every place can have its socket, all are closed."""
    first = open_one(reuse_port=False)
    with pytest.raises(OSError, match="in use"):
        Places(first, 2, shared=False, backlog=None)

    assert not is_open(first)
