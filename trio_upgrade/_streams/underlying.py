# The kernel socket below a stack of streams, if there is one.
from __future__ import annotations

import os
from typing import TypeAlias, cast

import trio

from .socket_stream import DirectSocketStream
from .upgraded import UpgradedStream

Peer: TypeAlias = tuple[str, int] | str | None

# isinstance() cannot narrow to the parameter of a generic class; cast() needs this.
_SSLStream: TypeAlias = trio.SSLStream[trio.abc.Stream]


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
        elif isinstance(stream, UpgradedStream) and not stream.detached:
            stream = stream.transport
        else:
            return None


def is_secure(stream: object) -> bool:
    """Return whether a stream is TLS, also below a switch."""
    while isinstance(stream, UpgradedStream) and not stream.detached:
        stream = stream.transport
    return isinstance(stream, trio.SSLStream)


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
