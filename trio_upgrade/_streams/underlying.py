# The kernel socket below a stack of streams, if there is one.
from __future__ import annotations

import os
from typing import TypeAlias, cast

import trio

from .socket_stream import DirectSocketStream

Peer: TypeAlias = tuple[str, int] | str | None

# isinstance() cannot narrow to the parameter of a generic class; cast() needs this.
_SSLStream: TypeAlias = trio.SSLStream[trio.abc.Stream]


class Layer:
    """The base of UpgradedStream, which uses this module and cannot be known here."""

    __slots__ = ()

    _transport: trio.abc.Stream

    @staticmethod
    def _get_transport(layer: Layer) -> trio.abc.Stream:
        return layer._transport


get_transport = Layer._get_transport  # pyright: ignore[reportPrivateUsage]


def find_underlying_socket(stream: object) -> trio.socket.SocketType | None:
    """Return the kernel socket below a stack of streams; None if there is none."""
    while True:
        if isinstance(stream, trio.SocketStream):
            return stream.socket
        if isinstance(stream, DirectSocketStream):
            # No Trio socket can be made from a closed socket.
            return stream.socket if stream.fileno() >= 0 else None
        if isinstance(stream, trio.SSLStream):
            stream = cast("_SSLStream", stream).transport_stream
        elif isinstance(stream, Layer):
            stream = get_transport(stream)
        else:
            return None


def find_peer(transport: trio.abc.Stream) -> Peer:
    """Return the peer's address; None if it has none or is gone."""
    sock = find_underlying_socket(transport)
    if sock is None:
        return None
    try:
        address: object = sock.getpeername()
    except OSError:
        # The peer is gone.
        return None
    if isinstance(address, tuple):
        return cast("tuple[str, int]", cast("tuple[object, ...]", address)[:2])
    # The address of a Unix socket: usually empty, on Linux perhaps an abstract name.
    return os.fsdecode(cast("str | bytes", address)) or None
