# The kernel socket at the bottom of a stack of streams, if there is one.
from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress
from typing import TypeAlias, cast

import trio

from .socket_stream import DirectSocketStream
from .upgraded import UpgradedStream

Peer: TypeAlias = tuple[str, int] | str | None

# What isinstance() cannot tell of a generic class.
_SSLStream: TypeAlias = trio.SSLStream[trio.abc.Stream]
# SO_LINGER on, 0 seconds: close() sends a reset (RFC 9293 §3.10.4's ABORT).
_LINGER_ZERO = struct.pack("ii", 1, 0)


def reset_on_close(stream: trio.abc.AsyncResource) -> None:
    """Make the next close of a kernel socket send a reset; leave others as they are."""
    sock = find_underlying_socket(stream)
    if sock is not None:
        # Closed already, or reset by the peer, which macOS answers with EINVAL.
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)


def find_underlying_socket(stream: object) -> trio.socket.SocketType | None:
    """Return the kernel socket at the bottom of a stack of streams, None if none is."""
    while True:
        if isinstance(stream, trio.SocketStream):
            return stream.socket
        if isinstance(stream, DirectSocketStream):
            # Of a closed one no Trio socket can be made any more.
            return stream.socket if stream.fileno() >= 0 else None
        if isinstance(stream, trio.SSLStream):
            stream = cast("_SSLStream", stream).transport_stream
        elif isinstance(stream, UpgradedStream) and not stream.detached:
            stream = stream.transport
        else:
            return None


def find_peer(transport: trio.abc.Stream) -> Peer:
    """Return the address at the other end, None if it has none or is gone."""
    sock = find_underlying_socket(transport)
    if sock is None:
        return None
    try:
        address: object = sock.getpeername()
    except OSError:
        # Gone by now.
        return None
    if isinstance(address, tuple):
        return cast("tuple[str, int]", cast("tuple[object, ...]", address)[:2])
    # A Unix socket: usually without a name, on Linux perhaps an abstract one.
    return os.fsdecode(cast("str | bytes", address)) or None
