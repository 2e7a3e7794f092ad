# Streams to copy between, and helpers for tests that copy.
from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from .stream_pairs import MAKERS

if TYPE_CHECKING:
    from .sockets import Pair

# The kinds of source and sink: every kind with itself, and some mixed.
WAYS = [(kind, kind) for kind in MAKERS] + [
    *[("tcp", "trio-tcp"), ("trio-tcp", "tcp"), ("upgraded", "trio-unix")],
    *[("tls", "tcp"), ("tcp", "tls"), ("unix", "memory"), ("tcp", "upgraded")],
]


async def make(source_kind: str, sink_kind: str) -> tuple[Pair, Pair]:
    """Return (source, its peer) and (sink, its peer)."""
    return await MAKERS[source_kind](), await MAKERS[sink_kind]()


async def close(*pairs: Pair) -> None:
    for pair in pairs:
        for stream in pair:
            await trio.aclose_forcefully(stream)


async def receive(stream, into: bytearray, most: int | None = None) -> None:
    while chunk := await stream.receive_some(most):
        into += chunk
