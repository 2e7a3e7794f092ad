# A stream that calls its kernel socket itself, without trio.socket in between.  Trio's
# rule for public methods is kept by one full checkpoint before the call, where
# trio.SocketStream pays two halves round it, and by a wait only when the call would
# block.
from __future__ import annotations

import errno
import operator
import socket
from contextlib import suppress
from typing import final, overload

import trio

# Bytes to receive at a time when nobody says how many; as Trio has it.
RECEIVE_SIZE = 65536
# As Trio sets it on every stream: a sender waits while so many bytes are not on their
# way yet, which keeps what is sent last from queueing behind megabytes (Trio #72).
_UNSENT_BYTES = 16384
# What system calls say of a socket that was closed on this side; the second on Windows.
CLOSED_ERRNOS = frozenset({errno.EBADF, errno.ENOTSOCK})


def translate_error(
    exc: OSError,
) -> trio.BrokenResourceError | trio.ClosedResourceError:
    """Return what a Trio stream raises in the place of a socket's error."""
    if exc.errno in CLOSED_ERRNOS:
        return trio.ClosedResourceError("this socket was already closed")
    return trio.BrokenResourceError(f"socket connection broken: {exc}")


@final
class DirectSocketStream(trio.abc.HalfCloseableStream):
    """A connected, non-blocking stream socket of the kernel, TCP or Unix.

    It keeps the contract of :class:`trio.SocketStream`. A second task that receives is
    told so at once, and not only if both have to wait. No option is set: see
    :func:`set_options`.

    Args:
        sock: It is owned from now on.
        ended: Whether our direction was ended before.

    Attributes:
        receiving: Whether a task is receiving. The copy loop holds this, too.
        sending: Whether a task is sending, waiting to, or ending our direction.
    """

    __slots__ = ("_ended", "_sock", "_trio_sock", "receiving", "sending")

    def __init__(self, sock: socket.socket, *, ended: bool = False) -> None:
        self._sock = sock
        self._trio_sock: trio.socket.SocketType | None = None
        self._ended = ended
        self.receiving: bool = False
        self.sending: bool = False

    @property
    def socket(self) -> trio.socket.SocketType:
        """The same socket as Trio has them; made when it is first asked for."""
        if self._trio_sock is None:
            self._trio_sock = trio.socket.from_stdlib_socket(self._sock)
        return self._trio_sock

    def fileno(self) -> int:
        """Return the descriptor, -1 once it is closed.

        Who waits for it would not be woken by a close; who waits for :attr:`socket` is.
        """
        return self._sock.fileno()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive what is there, at most so many bytes; None means 64 KiB."""
        if max_bytes is None:
            max_bytes = RECEIVE_SIZE
        elif operator.index(max_bytes) < 1:
            raise ValueError("max_bytes must be >= 1")
        if self.receiving:
            raise trio.BusyResourceError("another task is receiving from this stream")
        self.receiving = True
        try:
            await trio.lowlevel.checkpoint()
            while True:
                # A closed socket is found out here, before anybody waits for it:
                # Trio would keep descriptor -1 registered for good.
                try:
                    return self._sock.recv(max_bytes)
                except BlockingIOError:
                    pass
                await trio.lowlevel.wait_readable(self._sock)
        except OSError as exc:
            raise translate_error(exc) from exc
        finally:
            self.receiving = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of it. Cancelled, an unknown part was sent."""
        self.check_sendable()
        self.sending = True
        try:
            await trio.lowlevel.checkpoint()
            sent = self._send(data)
            if sent < len(data):
                with memoryview(data) as view:
                    while sent < len(data):
                        await trio.lowlevel.wait_writable(self._sock)
                        with view[sent:] as rest:
                            sent += self._send(rest)
        except OSError as exc:
            raise translate_error(exc) from exc
        finally:
            self.sending = False

    def _send(self, data: bytes | bytearray | memoryview) -> int:
        # Sending nothing, too, finds out that the socket is closed.
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the kernel takes some bytes."""
        if self.sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        if self._sock.fileno() < 0:
            raise trio.ClosedResourceError("this socket was already closed")
        self.sending = True
        try:
            await trio.lowlevel.wait_writable(self._sock)
        finally:
            self.sending = False

    def check_sendable(self) -> None:
        """Raise what :meth:`send_all` would raise before it does anything.

        Raises:
            trio.ClosedResourceError: The stream, or this direction, was closed.
            trio.BusyResourceError: Another task is sending.
        """
        if self._ended:
            raise trio.ClosedResourceError("can't send data after sending EOF")
        if self.sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        if self._sock.fileno() < 0:
            raise trio.ClosedResourceError("this socket was already closed")

    async def send_eof(self) -> None:
        """End our direction; a second time this does nothing."""
        if self.sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self.sending = True
        try:
            await trio.lowlevel.checkpoint()
        finally:
            self.sending = False
        self.end()

    async def aclose(self) -> None:
        """Close it, waking whoever waits for it with ClosedResourceError."""
        self.close()
        await trio.lowlevel.checkpoint()

    # What the rest of this library does where it passes checkpoints anyway.

    def receive_some_nowait(self, max_bytes: int) -> bytes | None:
        """Receive what is there, at most so many bytes; None if nothing is.

        Raises:
            trio.BrokenResourceError: The connection is broken.
            trio.ClosedResourceError: The stream was closed.
            trio.BusyResourceError: Another task is receiving.
        """
        if self.receiving:
            raise trio.BusyResourceError("another task is receiving from this stream")
        try:
            return self._sock.recv(max_bytes)
        except BlockingIOError:
            return None
        except OSError as exc:
            raise translate_error(exc) from exc

    def send_some_nowait(self, data: bytes | bytearray | memoryview) -> int:
        """Send what the kernel takes now, and return how many bytes that was.

        Raises:
            trio.BrokenResourceError: The connection is broken.
            trio.ClosedResourceError: The stream, or this direction, was closed.
            trio.BusyResourceError: Another task is sending.
        """
        self.check_sendable()
        try:
            return self._send(data)
        except OSError as exc:
            raise translate_error(exc) from exc

    def end(self) -> None:
        """Do what :meth:`send_eof` does, without a checkpoint."""
        if self.sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        try:
            # macOS would refuse a second shutdown.
            if not self._ended:
                self._sock.shutdown(socket.SHUT_WR)
                self._ended = True
        except OSError as exc:
            raise translate_error(exc) from exc

    def close(self) -> None:
        """Do what :meth:`aclose` does, without a checkpoint."""
        if self._sock.fileno() >= 0:
            # Who waits holds a mark, or has got hold of the Trio socket; to wake nobody
            # costs a system call.
            if self.receiving or self.sending or self._trio_sock is not None:
                trio.lowlevel.notify_closing(self._sock)
            self._sock.close()

    def setsockopt(
        self, level: int, option: int, value: int | bytes | bytearray | memoryview
    ) -> None:
        """Set an option of the socket; see :meth:`socket.socket.setsockopt`."""
        self._sock.setsockopt(level, option, value)

    @overload
    def getsockopt(self, level: int, option: int) -> int: ...

    @overload
    def getsockopt(self, level: int, option: int, buffersize: int) -> bytes: ...

    def getsockopt(self, level: int, option: int, buffersize: int = 0) -> int | bytes:
        """Return an option of the socket; see :meth:`socket.socket.getsockopt`."""
        if buffersize == 0:
            return self._sock.getsockopt(level, option)
        return self._sock.getsockopt(level, option, buffersize)


def set_options(sock: socket.socket | trio.socket.SocketType) -> None:
    """Set on a TCP socket what Trio sets on each of its streams; others are left alone.

    On a listener it is enough to do so once: what it accepts inherits it, which saves
    two system calls a connection.
    """
    # A Unix socket has none of it; what a platform lacks is done without.
    with suppress(OSError, AttributeError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(
            socket.IPPROTO_TCP, trio.socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES
        )


def adopt_stream(stream: trio.SocketStream) -> DirectSocketStream:
    """Make a direct stream of one of Trio's, which counts as closed from now on.

    Not to be called while a task uses it.
    """
    return DirectSocketStream(
        detach_socket(stream.socket), ended=stream.socket.did_shutdown_SHUT_WR
    )


def detach_socket(sock: trio.socket.SocketType) -> socket.socket:
    """Take the kernel's socket out of Trio's, which counts as closed from now on."""
    # To say what it is saves two system calls that would find it out.
    kind = (sock.family, sock.type, sock.proto)
    taken = socket.socket(*kind, fileno=sock.detach())
    taken.setblocking(False)
    return taken
