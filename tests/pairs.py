# Connections of every kind that a copy can meet: pairs of streams, ours first, the peer's
# second, made of nothing but a name.
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

# What the tests need of them all; a stream that cannot half-close says so when asked to.
Pair: TypeAlias = tuple[Any, Any]


def direct(pair: tuple[trio.SocketStream, trio.SocketStream]) -> Pair:
    """The same two sockets as our streams."""
    return adopt_stream(pair[0]), adopt_stream(pair[1])


async def unix_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Two ends of a Unix connection."""
    near, far = trio.socket.socketpair()
    return trio.SocketStream(near), trio.SocketStream(far)


async def clogged_unix_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Two ends whose buffers are full."""
    pair = await unix_pair()
    for stream in pair:
        await clog(stream)
    return pair


async def clog(stream: trio.SocketStream | DirectSocketStream) -> int:
    """Fill a socket until it takes no more; return how many bytes that was."""
    filled = 0
    for _ in range(3):  # The kernel makes room once or twice more.
        with suppress(BlockingIOError):
            while True:
                filled += os.write(stream.socket.fileno(), b"x" * 65536)
        await trio.lowlevel.checkpoint()
    return filled


async def tls_pair(pair: Pair) -> Pair:
    """TLS over a pair, the handshake done."""
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
    # Nobody can see that it is a socket.
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
