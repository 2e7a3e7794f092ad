# Accepting from a kernel socket, many connections at a wake-up: those that came together
# then share the scheduler's passes, which is the largest saving in a handshake.
from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Any, cast, final

import trio

from .socket_stream import (
    CLOSED_ERRNOS,
    DirectSocketStream,
    detach_socket,
    set_options,
    translate_error,
)

if TYPE_CHECKING:
    from collections.abc import Callable

# What accept(2) says of a connection that was gone before it was accepted, or that a
# firewall forbade. The list is Trio's; its source tells where each comes from.
_GONE_ERRNOS = frozenset(
    getattr(errno, name)
    for name in (
        *("EPERM", "ECONNABORTED", "EPROTO", "ENETDOWN", "ENOPROTOOPT", "EHOSTDOWN"),
        *("ENONET", "EHOSTUNREACH", "EOPNOTSUPP", "ENETUNREACH", "ENOSR"),
        *("ESOCKTNOSUPPORT", "EPROTONOSUPPORT", "ETIMEDOUT", "ECONNRESET"),
    )
    if hasattr(errno, name)
)


@final
class DirectSocketListener(trio.abc.Listener[DirectSocketStream]):
    """A listening, non-blocking socket of the kernel, TCP or Unix.

    What it accepts inherits the options that :func:`set_options` sets on it.

    Args:
        sock: It is owned from now on.
    """

    __slots__ = ("_accept", "_kind", "_sock", "socket")

    def __init__(self, sock: socket.socket) -> None:
        set_options(sock)
        self._sock = sock
        # What socket.accept() does, without the enums of family and type that it makes
        # each time, which take longer than the system call.
        self._accept: Callable[[], tuple[int, object]] = cast("Any", sock)._accept
        self._kind = (int(sock.family), int(sock.type), sock.proto)
        self.socket: trio.socket.SocketType = trio.socket.from_stdlib_socket(sock)

    async def accept(self) -> DirectSocketStream:
        """Accept one connection; see :meth:`accept_some`."""
        (stream,) = await self.accept_some(1)
        return stream

    async def accept_some(self, most: int) -> list[DirectSocketStream]:
        """Accept the connections that are there, waiting until one is.

        Those that were gone before they were accepted are passed over. Cancelled, it has
        accepted nothing.

        Args:
            most: How many to accept at a time, so that other tasks get their turn.

        Returns:
            One stream at least; each is the caller's to close.

        Raises:
            OSError: The system has run out of something, or the like. What was accepted
                before comes first, and the next call meets the error again.
            trio.ClosedResourceError: The listener was closed.
        """
        await trio.lowlevel.checkpoint()
        while True:
            try:
                streams = self._accept_ready(most)
            except OSError as exc:
                if exc.errno in CLOSED_ERRNOS:
                    raise translate_error(exc) from exc
                raise
            if streams:
                return streams
            await trio.lowlevel.wait_readable(self._sock)

    def _accept_ready(self, most: int) -> list[DirectSocketStream]:
        streams: list[DirectSocketStream] = []
        while len(streams) < most:
            try:
                sock = self._accept_one()
            except BlockingIOError:
                break
            except OSError as exc:
                if exc.errno in _GONE_ERRNOS:
                    continue
                if streams:
                    break
                raise
            streams.append(DirectSocketStream(sock))
        return streams

    def _accept_one(self) -> socket.socket:
        descriptor, _ = self._accept()
        sock = socket.socket(*self._kind, fileno=descriptor)
        sock.setblocking(False)
        return sock

    async def aclose(self) -> None:
        """Close it, waking whoever waits for a connection with ClosedResourceError."""
        self.socket.close()
        await trio.lowlevel.checkpoint()


def adopt_listener(listener: trio.SocketListener) -> DirectSocketListener:
    """Make a direct listener of one of Trio's, which counts as closed from now on.

    Not to be called while a task uses it.
    """
    return DirectSocketListener(detach_socket(listener.socket))
