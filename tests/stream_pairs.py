# A pair of every kind of stream that a copy can meet, by name.  Our end comes first, the
# peer's second.
from __future__ import annotations

from typing import TYPE_CHECKING

import trio
import trio.testing

from trio_upgrade import UpgradedStream

from .sockets import direct, tcp_pair, unix_pair
from .tls import tls_pair

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .sockets import Pair


async def _make_memory() -> Pair:
    return trio.testing.memory_stream_pair()


async def _make_direct_tcp() -> Pair:
    return direct(await tcp_pair())


async def _make_direct_unix() -> Pair:
    return direct(await unix_pair())


def _staple(pair: Pair) -> Pair:
    # Hides the socket: such a stream is copied by the generic engine.
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
