# How a stream is ended by a reset.  Below UpgradedStream, which has a method for it, and
# above iter_layers(), which finds its kernel socket.
from __future__ import annotations

import socket
import struct
from contextlib import suppress

import trio

from .socket_stream import DirectSocketStream
from .underlying import iter_layers

# SO_LINGER on, 0 seconds: close() sends a reset (RFC 9293 §3.10.4's ABORT).
_LINGER_ZERO = struct.pack("ii", 1, 0)


def reset_on_close(stream: trio.abc.AsyncResource) -> None:
    """Make the next close send a reset; do nothing if there is no kernel socket.

    On a Unix socket, which Linux cannot reset, this has no effect: the peer gets an end,
    or ECONNRESET if bytes of it were not read.
    """
    for layer in iter_layers(stream):
        if isinstance(layer, DirectSocketStream | trio.SocketStream):
            # OSError: already closed, or reset by the peer (EINVAL on macOS).
            with suppress(OSError):
                layer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
            return
