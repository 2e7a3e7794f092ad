# What was not read so far: input of a stream, in the kernel or in TLS, and connections in
# the backlog of a listener.
from __future__ import annotations

import select
import socket
import ssl
import sys
from contextlib import suppress
from typing import TypeAlias, cast

import trio

from .socket_listener import DirectSocketListener
from .socket_stream import DirectSocketStream
from .tls import TLSStream
from .tls_listener import TLSListener
from .underlying import find_underlying_socket, iter_layers
from .unix_listener import UnixListener

# Up to and including tcpi_unacked of struct tcp_info, which for a listening socket is the
# length of its backlog.
_TCP_INFO_BYTES = 28

SocketListener: TypeAlias = trio.SocketListener | DirectSocketListener | UnixListener

# isinstance() cannot narrow to the parameter of a generic class; cast() needs this.
_SSLListener: TypeAlias = trio.SSLListener[trio.abc.Stream]


def find_socket_listener(listener: object) -> SocketListener | None:
    """Return the listener on a kernel socket, also below TLS; None if there is none."""
    if is_secure_listener(listener):
        listener = cast("TLSListener | _SSLListener", listener).transport_listener
    return listener if isinstance(listener, SocketListener) else None


def is_secure_listener(listener: object) -> bool:
    """Tell whether a listener puts TLS on its connections: ours, or Trio's."""
    return isinstance(listener, TLSListener | trio.SSLListener)


def has_input(stream: object) -> bool:
    """Tell whether a receive from the socket below would not have to wait.

    Bytes, the peer's end and an error count, and so do bytes that TLS has received but
    not decrypted: it returns one record at a time. False if there is no kernel socket
    below.
    """
    if isinstance(stream, DirectSocketStream):
        # Not by its Trio socket, which would have to be made first.
        return is_readable(stream.fileno())
    if any(map(_has_records, iter_layers(stream))):
        return True
    sock = find_underlying_socket(stream)
    return sock is not None and is_readable(sock.fileno())


def _has_records(layer: object) -> bool:
    if isinstance(layer, TLSStream):
        return layer.has_buffered
    # Trio's. A private attribute, which a test checks. unwrap() would return the same
    # bytes, but it ends TLS.
    incoming = getattr(layer, "_incoming", None)
    return isinstance(incoming, ssl.MemoryBIO) and incoming.pending > 0


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
