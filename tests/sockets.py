# Pairs of connected kernel sockets, and a resolver that stays on this machine.
from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

import trio
import trio.testing

from trio_upgrade._streams.socket_stream import adopt_stream

if TYPE_CHECKING:
    from trio_upgrade._streams.socket_stream import DirectSocketStream

# Two ends of a connection.  No type of stream fits: tests call send_eof() also on
# streams that cannot half-close.
Pair: TypeAlias = tuple[Any, Any]


async def tcp_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Return both ends of a loopback connection."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        near = await trio.testing.open_stream_to_socket_listener(listener)
        far = await listener.accept()
    return near, far


async def unix_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Return both ends of a Unix connection."""
    near, far = trio.socket.socketpair()
    return trio.SocketStream(near), trio.SocketStream(far)


async def clogged_tcp_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Return both ends of a TCP connection whose buffers are full: a send waits."""
    pair = await tcp_pair()
    for stream in pair:
        await clog(stream)
    return pair


async def clogged_unix_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Return both ends of a Unix connection whose buffers are full: a send waits."""
    pair = await unix_pair()
    for stream in pair:
        await clog(stream)
    return pair


async def clog(stream: trio.SocketStream | DirectSocketStream) -> int:
    """Fill a socket until it accepts no more; return the number of bytes sent."""
    filled = 0
    for _ in range(3):  # The kernel moves data on and frees its buffer once or twice.
        with suppress(BlockingIOError):
            while True:
                filled += os.write(stream.socket.fileno(), b"x" * 65536)
        await trio.lowlevel.checkpoint()
    return filled


def direct(pair: tuple[trio.SocketStream, trio.SocketStream]) -> Pair:
    """Return the same two sockets as streams of ours."""
    return adopt_stream(pair[0]), adopt_stream(pair[1])


class Resolver(trio.abc.HostnameResolver):
    """Resolves every name to this machine."""

    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):  # noqa: A002
        await trio.lowlevel.checkpoint()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    async def getnameinfo(self, sockaddr, flags):
        raise AssertionError("no name of an address is needed")
