# Streams to copy between, and helpers for tests that copy.
from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from trio_upgrade import UpgradedStream

from .stream_pairs import MAKERS
from .tls_streams import TRANSPORTS, opened

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .sockets import Pair


def _make_own_tls(version: str, transport: str) -> Callable[[], Awaitable[Pair]]:
    async def make() -> Pair:
        peer, ours = await opened(version, TRANSPORTS[transport])
        return UpgradedStream(ours), peer

    return make


# TLS of ours, whose names begin with the version.
OWN_TLS = {
    f"tls{version}-{transport}": _make_own_tls(version, transport)
    for version in ("1.2", "1.3")
    for transport in ("tcp", "unix", "memory")
}
# The kinds of it that are copied without a checkpoint for each call.
DIRECT_TLS = [kind for kind in OWN_TLS if "memory" not in kind]
ALL = {**MAKERS, **OWN_TLS}
# The kinds of source and sink: every kind with itself, and some mixed.
WAYS = [(kind, kind) for kind in ALL] + [
    *[("tcp", "trio-tcp"), ("trio-tcp", "tcp"), ("upgraded", "trio-unix")],
    *[("tls", "tcp"), ("tcp", "tls"), ("unix", "memory"), ("tcp", "upgraded")],
    *[("tls1.3-tcp", "tcp"), ("tcp", "tls1.2-tcp"), ("tls1.3-unix", "tls1.2-tcp")],
    *[("trio-tcp", "tls1.3-tcp"), ("tls1.2-tcp", "trio-unix")],
    *[("memory", "tls1.3-tcp"), ("tls1.3-tcp", "tls1.3-memory")],
]


async def make(source_kind: str, sink_kind: str) -> tuple[Pair, Pair]:
    """Return (source, its peer) and (sink, its peer)."""
    return await ALL[source_kind](), await ALL[sink_kind]()


async def close(*pairs: Pair) -> None:
    for pair in pairs:
        for stream in pair:
            await trio.aclose_forcefully(stream)


async def receive(stream, into: bytearray, most: int | None = None) -> None:
    while chunk := await stream.receive_some(most):
        into += chunk
