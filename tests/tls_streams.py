# Pairs of TLS streams of ours, for their tests.
from __future__ import annotations

import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import trio
import trio.testing

from trio_upgrade._streams.tls import TLSStream

from .sockets import direct, tcp_pair, unix_pair
from .tls import make_tls_contexts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .sockets import Pair

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


async def _direct_tcp() -> Pair:
    return direct(await tcp_pair())


async def _direct_unix() -> Pair:
    return direct(await unix_pair())


async def _memory() -> Pair:
    return trio.testing.memory_stream_pair()


async def _lockstep() -> Pair:
    return trio.testing.lockstep_stream_pair()


async def _tls_in_tls() -> Pair:
    return await opened("1.3", _direct_tcp)


TRANSPORTS: dict[str, Callable[[], Awaitable[Pair]]] = {
    "tcp": _direct_tcp,
    "unix": _direct_unix,
    "memory": _memory,
    "lockstep": _lockstep,
    "tls": _tls_in_tls,
}


def contexts(version: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return a client's and a server's context that speak only this version of TLS."""
    pair = make_tls_contexts()
    for context in pair:
        context.minimum_version = context.maximum_version = VERSIONS[version]
    return pair


_SHARED = {version: contexts(version) for version in VERSIONS}


async def new(
    version: str = "1.3",
    transport: Callable[[], Awaitable[Pair]] = _direct_tcp,
    *,
    https_compatible: bool = False,
    pair: tuple[ssl.SSLContext, ssl.SSLContext] | None = None,
) -> tuple[TLSStream, TLSStream]:
    """Return a client and a server that have not begun the handshake."""
    near, far = await transport()
    client, server = pair or _SHARED[version]
    return (
        TLSStream(
            near,
            client,
            server_hostname="localhost",
            https_compatible=https_compatible,
        ),
        TLSStream(far, server, server_side=True, https_compatible=https_compatible),
    )


async def opened(
    version: str = "1.3",
    transport: Callable[[], Awaitable[Pair]] = _direct_tcp,
    **kwargs: Any,
) -> tuple[TLSStream, TLSStream]:
    """Return a client and a server after the handshake."""
    near, far = await new(version, transport, **kwargs)
    await handshake(near, far)
    return near, far


async def handshake(near, far) -> None:
    """Make the handshake of two streams."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(near.do_handshake)
        nursery.start_soon(far.do_handshake)


async def clog(stream: TLSStream) -> int:
    """Send until the kernel takes no more; return the number of bytes.

    The last send is not complete, so the stream counts as cut. Over memory nothing clogs.
    """
    sent = 0
    for _ in range(3):  # The kernel moves data on and frees its buffer once or twice.
        while count := stream.send_some_nowait(b"x" * 16384):
            sent += count
        await trio.lowlevel.checkpoint()
    return sent


async def receive_all(stream, most: int | None = None) -> bytes:
    """Receive until the end."""
    data = bytearray()
    while chunk := await stream.receive_some(most):
        data += chunk
    return bytes(data)


async def close_all(*streams) -> None:
    """Close forcefully."""
    for stream in streams:
        with suppress(trio.Cancelled):
            await trio.aclose_forcefully(stream)
