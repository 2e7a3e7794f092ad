# The kernel socket below a stack of streams, if there is one.
from __future__ import annotations

import os
import select
import socket
import sys
from contextlib import suppress
from typing import TypeAlias, cast

import trio

from .socket_listener import DirectSocketListener
from .socket_stream import DirectSocketStream
from .unix_listener import UnixListener
from .upgraded import UpgradedStream

Peer: TypeAlias = tuple[str, int] | str | None

# Up to and including tcpi_unacked of struct tcp_info, which for a listening socket is the
# length of its backlog.
_TCP_INFO_BYTES = 28

SocketListener: TypeAlias = trio.SocketListener | DirectSocketListener | UnixListener

# isinstance() cannot narrow to the parameter of a generic class; cast() needs these.
_SSLStream: TypeAlias = trio.SSLStream[trio.abc.Stream]
_SSLListener: TypeAlias = trio.SSLListener[trio.abc.Stream]


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


def find_socket_listener(listener: object) -> SocketListener | None:
    """Return the listener on a kernel socket, also below TLS; None if there is none."""
    if isinstance(listener, trio.SSLListener):
        listener = cast("_SSLListener", listener).transport_listener
    return listener if isinstance(listener, SocketListener) else None


def has_input(stream: object) -> bool:
    """Tell whether a receive from the socket below would not have to wait.

    Bytes, the peer's end and an error count. False if there is no kernel socket below.
    """
    if isinstance(stream, DirectSocketStream):
        # Not by its Trio socket, which would have to be made first.
        return is_readable(stream.fileno())
    sock = find_underlying_socket(stream)
    return sock is not None and is_readable(sock.fileno())


def is_readable(descriptor: int) -> bool:
    """Tell whether a socket can be read, or accepted from, without a wait.

    Args:
        descriptor: Of the socket; -1 if that is closed, and the answer is False.
    """
    if descriptor < 0:
        return False
    if sys.platform == "win32":  # pragma: no cover  (has no poll)
        return bool(select.select([descriptor], [], [], 0)[0])
    # Not select(), which takes no descriptor above 1,023.
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def count_waiting(listener: object) -> int:
    """Count the connections in a listener's backlog; see :class:`ServerStatistics`."""
    below = find_socket_listener(listener)
    if below is None or below.socket.fileno() < 0:
        return 0
    if sys.platform == "linux":  # pragma: no branch  (the tests run there)
        # OSError: a Unix socket.
        with suppress(OSError):
            info = below.socket.getsockopt(
                socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES
            )
            return int.from_bytes(info[-4:], sys.byteorder)
    return int(is_readable(below.socket.fileno()))


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
