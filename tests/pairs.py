# Connections of every kind that a copy can meet, made by name: pairs of streams, ours
# first, then the peer's.
from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

import trio
import trio.testing

from trio_upgrade import UpgradedStream
from trio_upgrade._streams.socket_stream import DirectSocketStream, adopt_stream

from .support import make_tls_contexts, tcp_pair, wrap_tls

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

# Any, because not every stream has all the methods that the tests use.
Pair: TypeAlias = tuple[Any, Any]


def direct(pair: tuple[trio.SocketStream, trio.SocketStream]) -> Pair:
    """Return the same two sockets as direct streams."""
    return adopt_stream(pair[0]), adopt_stream(pair[1])


async def unix_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Return the two ends of a Unix connection."""
    near, far = trio.socket.socketpair()
    return trio.SocketStream(near), trio.SocketStream(far)


async def clogged_unix_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Return the two ends of a Unix connection whose buffers are full."""
    pair = await unix_pair()
    for stream in pair:
        await clog(stream)
    return pair


async def clog(stream: trio.SocketStream | DirectSocketStream) -> int:
    """Fill a socket until it accepts no more; return the number of bytes."""
    filled = 0
    for _ in range(3):  # The kernel may accept more once or twice.
        with suppress(BlockingIOError):
            while True:
                filled += os.write(stream.socket.fileno(), b"x" * 65536)
        await trio.lowlevel.checkpoint()
    return filled


async def tls_pair(pair: Pair) -> Pair:
    """Return TLS over a pair, after the handshake."""
    far, near = wrap_tls(
        (pair[1], pair[0]), make_tls_contexts(), https_compatible=False
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(near.do_handshake)
        nursery.start_soon(far.do_handshake)
    return near, far


async def _make_memory() -> Pair:
    return trio.testing.memory_stream_pair()


async def _make_direct_tcp() -> Pair:
    return direct(await tcp_pair())


async def _make_direct_unix() -> Pair:
    return direct(await unix_pair())


def _staple(pair: Pair) -> Pair:
    # Hides that the stream is a socket.
    return trio.StapledStream(pair[0], pair[0]), pair[1]


async def _make_stapled_tcp() -> Pair:
    return _staple(await tcp_pair())


async def _make_stapled_unix() -> Pair:
    return _staple(direct(await unix_pair()))


async def _make_upgraded() -> Pair:
    ours, peer = direct(await tcp_pair())
    return UpgradedStream(UpgradedStream(ours)), peer


async def _make_tls() -> Pair:
    return await tls_pair(trio.testing.memory_stream_pair())


async def _make_tls_over_direct() -> Pair:
    return await tls_pair(direct(await tcp_pair()))


MAKERS: dict[str, Callable[[], Awaitable[Pair]]] = {
    "memory": _make_memory,
    "tls": _make_tls,
    "tls-tcp": _make_tls_over_direct,
    "stapled-tcp": _make_stapled_tcp,
    "stapled-unix": _make_stapled_unix,
    "trio-tcp": tcp_pair,
    "trio-unix": unix_pair,
    "tcp": _make_direct_tcp,
    "unix": _make_direct_unix,
    "upgraded": _make_upgraded,
}
