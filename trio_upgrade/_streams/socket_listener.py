# A listener that accepts many connections per wake-up.  Connections that arrived together
# then share the scheduler's passes, which is the largest saving in a handshake.
from __future__ import annotations

import errno
import socket
import sys
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

# Errors of accept(2) for a connection that ended before it was accepted, or that a
# firewall forbade.  The list is Trio's; its source says which system raises which.
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
    """A listener on a non-blocking kernel socket, TCP or Unix.

    Accepted sockets inherit the options that :func:`set_options` sets on ``sock``.

    Args:
        sock: The listening socket. The listener owns it from now on.
        inherited: Whether another process has opened it, and so may accept from it as
            well, now or later.

    Attributes:
        batch: The most connections that one wake-up accepts. Fewer than usual if other
            processes accept at the same time, and should get their share.
        inherited: As given.
        socket: The Trio socket.
    """

    __slots__ = ("_accept", "_kind", "_sock", "batch", "inherited", "socket")

    def __init__(self, sock: socket.socket, *, inherited: bool = False) -> None:
        set_options(sock)
        self.batch: int = sys.maxsize
        self.inherited: bool = inherited
        self._sock = sock
        # socket.accept() calls this private method, then makes enums of family and type
        # for each connection, which takes longer than the system call.  Only the source
        # of accept() documents it, so a contract test checks what we rely on.
        self._accept: Callable[[], tuple[int, object]] = cast("Any", sock)._accept
        self._kind = (int(sock.family), int(sock.type), sock.proto)
        self.socket: trio.socket.SocketType = trio.socket.from_stdlib_socket(sock)

    async def accept(self) -> DirectSocketStream:
        """Accept one connection; see :meth:`accept_some`."""
        (stream,) = await self.accept_some(1)
        return stream

    async def accept_some(self, limit: int) -> list[DirectSocketStream]:
        """Wait for a connection, then accept all that are in the backlog, up to a limit.

        Connections that ended before they were accepted are skipped. If this call is
        cancelled, no connection has been accepted.

        Args:
            limit: The most connections to accept, so that other tasks get their turn.

        Returns:
            At least one stream. The caller must close each of them.

        Raises:
            OSError: The system is out of descriptors or memory, for example. If
                connections were accepted before the error, they are returned, and the
                next call raises the error.
            trio.ClosedResourceError: The listener was closed.
        """
        limit = min(limit, self.batch)
        await trio.lowlevel.checkpoint()
        while not (streams := self.accept_some_nowait(limit)):
            await trio.lowlevel.wait_readable(self._sock)
        return streams

    def accept_some_nowait(self, limit: int) -> list[DirectSocketStream]:
        """Accept the connections that are in the backlog; as :meth:`accept_some`.

        Returns:
            The streams; none if no connection waits.
        """
        try:
            return self._accept_ready(limit)
        except OSError as exc:
            if exc.errno in CLOSED_ERRNOS:
                raise translate_error(exc) from exc
            raise

    def _accept_ready(self, limit: int) -> list[DirectSocketStream]:
        streams: list[DirectSocketStream] = []
        while len(streams) < limit:
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
        """Close the listener; waiting tasks get :exc:`trio.ClosedResourceError`."""
        self.socket.close()
        await trio.lowlevel.checkpoint()

    def close_outside_trio(self) -> None:
        """Close the listener where no Trio runs, and so no task can wait for it."""
        self._sock.close()

    def __repr__(self) -> str:
        if self._sock.fileno() < 0:
            return "<DirectSocketListener, closed>"
        return f"<DirectSocketListener at {self._sock.getsockname()!r}>"


def adopt_listener(listener: trio.SocketListener) -> DirectSocketListener:
    """Make a direct listener from one of Trio's, which counts as closed from now on.

    No task may be using Trio's listener during this call.
    """
    return DirectSocketListener(detach_socket(listener.socket))


def share_listener(
    listener: trio.abc.Listener[trio.abc.Stream],
) -> trio.abc.Listener[trio.abc.Stream]:
    """Return a direct listener on the same socket as one of Trio's.

    Trio's listener stays as it is, so its user may go on asking it for its address;
    closing either listener closes both. Any other listener is returned itself.
    """
    # Not isinstance(): a subclass, which Trio forbids today, may override accept().
    if type(listener) is not trio.SocketListener:
        return listener
    # A private attribute, which a contract test checks.  detach() needs none, but leaves
    # the user's listener closed; a second socket object would close the descriptor twice.
    sock = getattr(listener.socket, "_sock", None)
    # A socket of trio.socket.set_custom_socket_factory() may have another kind, or none.
    if type(sock) is not socket.socket:
        return listener
    return DirectSocketListener(sock)
