# The ways in which a connection ends: in stages, by a reset, at once.  HTTP connections
# and upgraded streams end by the same code, on the server and on the client.
from __future__ import annotations

import math
import socket
import struct
from typing import cast

import trio

from ._groups import split_errors
from ._stream import UpgradedStream

# SO_LINGER on, 0 seconds: close() sends a reset (RFC 9293 §3.10.4's ABORT).
_LINGER_RESET = struct.pack("ii", 1, 0)


async def end_stream(
    stream: trio.abc.Stream, exc: BaseException | None, linger: float | None
) -> None:
    """End a stream the way its scope was left.

    Without an exception in stages; after an error by a reset, so that the peer cannot
    take the cut for an end; under cancellation at once. The stream is closed whatever
    happens, also when this is cancelled.
    """
    if exc is None:
        await close_in_stages(stream, linger)
        return
    _, rest = split_errors(exc)
    if rest is None:
        abort_on_close(stream)
    await trio.aclose_forcefully(stream)


async def close_in_stages(stream: trio.abc.Stream, linger: float | None) -> None:
    """End our direction, read until the peer ends its own, close (RFC 9112 §9.6).

    A socket closed with unread input sends a reset, which may destroy our last bytes
    on their way. Where one direction cannot be ended alone, this only closes.

    Args:
        stream: It is closed on return, also after an error or a cancellation.
        linger: Seconds for all of it, None for as long as it takes.
    """
    closed = False
    try:
        with trio.move_on_after(math.inf if linger is None else linger):
            if isinstance(stream, trio.abc.HalfCloseableStream):
                peer_ended = isinstance(stream, UpgradedStream) and stream.peer_ended
                if not peer_ended:
                    await stream.send_eof()
                    while await stream.receive_some():
                        pass
            await stream.aclose()
            closed = True
    except (
        trio.BrokenResourceError,
        trio.ClosedResourceError,
        trio.BusyResourceError,
    ):
        pass  # The peer or the app was quicker; there is nothing left to be polite to.
    finally:
        if not closed:
            await trio.aclose_forcefully(stream)


def abort_on_close(stream: trio.abc.AsyncResource) -> None:
    """Make the next close of a kernel socket send a reset; leave others as they are."""
    sock = find_socket(stream)
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)


def find_socket(stream: object) -> trio.socket.SocketType | None:
    """Return the kernel socket at the bottom of a stack of streams, None if none is."""
    while True:
        if isinstance(stream, trio.SocketStream):
            return stream.socket
        if isinstance(stream, trio.SSLStream):
            stream = cast("trio.abc.Stream", stream.transport_stream)
        elif isinstance(stream, UpgradedStream) and not stream.detached:
            stream = stream.transport
        else:
            return None
