# A stream that makes its own system calls, without trio.socket in between.  It keeps
# Trio's rule for public methods with one full checkpoint before the system call, where
# trio.SocketStream has half a checkpoint before and half after.  It waits only when the
# call would block.
from __future__ import annotations

import errno
import operator
import socket
from contextlib import suppress
from typing import final, overload

import trio

# Bytes to receive at a time if the caller gives no number; Trio's value.
RECEIVE_SIZE = 65536
# TCP_NOTSENT_LOWAT in bytes, as Trio sets it on every stream: a sender waits while more
# than this is queued and not yet sent, so that later data does not have to wait for
# megabytes of earlier data (Trio #72).
_UNSENT_BYTES = 16384
# Errors of system calls on a socket that was closed on this side; ENOTSOCK on Windows.
CLOSED_ERRNOS = frozenset({errno.EBADF, errno.ENOTSOCK})


def refuse_after_cut() -> trio.BrokenResourceError:
    """Return the exception for a send after one that was cut."""
    return trio.BrokenResourceError(
        "an earlier send was cut: a part of its data is missing, so nothing can follow"
    )


def translate_error(
    exc: OSError,
) -> trio.BrokenResourceError | trio.ClosedResourceError:
    """Return the exception that a Trio stream raises in place of a socket's error."""
    if exc.errno in CLOSED_ERRNOS:
        return trio.ClosedResourceError("this socket was already closed")
    return trio.BrokenResourceError(f"socket connection broken: {exc}")


@final
class DirectSocketStream(trio.abc.HalfCloseableStream):
    """A stream on a connected, non-blocking kernel socket, TCP or Unix.

    It keeps the contract of :class:`trio.SocketStream`, and is stricter in one point: a
    second task that receives always gets BusyResourceError, not only if both tasks have
    to wait. No socket option is set: see :func:`set_options`.

    Args:
        sock: The socket. The stream owns it from now on.
        ended: Whether our direction has already been ended.

    Attributes:
        receiving: Whether a task is receiving. A copy also sets it while it runs.
        sending: Whether a task is sending, waiting to send, or ending our direction.
        cut: Whether data is missing in our direction: a send was cancelled or failed
            after a part of its data was sent. Nothing more can be sent then, nor can our
            direction be ended. Copies by descriptor set it, too.
    """

    __slots__ = (
        "_ended",
        "_sock",
        "_trio_sock",
        "cut",
        "receiving",
        "sending",
        # Set by underlying.set_proxied(), and otherwise absent.
        "trio_upgrade_proxied",
    )

    def __init__(self, sock: socket.socket, *, ended: bool = False) -> None:
        self._sock = sock
        self._trio_sock: trio.socket.SocketType | None = None
        self._ended = ended
        self.cut: bool = False
        self.receiving: bool = False
        self.sending: bool = False

    @property
    def socket(self) -> trio.socket.SocketType:
        """The same socket as a Trio socket; made on first use."""
        if self._trio_sock is None:
            self._trio_sock = trio.socket.from_stdlib_socket(self._sock)
        return self._trio_sock

    @property
    def eof_sent(self) -> bool:
        """Whether our direction was ended; also after the stream was closed."""
        return self._ended

    def fileno(self) -> int:
        """Return the descriptor, -1 after the stream was closed.

        A close does not wake a task that waits for this number; it wakes one that waits
        for :attr:`socket`.
        """
        return self._sock.fileno()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive what the kernel has, at most ``max_bytes``; None means 64 KiB."""
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
                # recv() before wait_readable(), so that a closed socket raises here:
                # Trio would keep descriptor -1 registered for ever.
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
        """Send all of ``data``.

        If this is cancelled or fails after a part of it was sent, every later send
        raises BrokenResourceError, and so does :meth:`send_eof`; before that, nothing is
        changed.
        """
        self.check_sendable()
        self.sending = True
        try:
            await trio.lowlevel.checkpoint()
            sent = self._send(data)
            if sent < len(data):
                await self._send_rest(data, sent)
        except OSError as exc:
            raise translate_error(exc) from exc
        finally:
            self.sending = False

    async def _send_rest(self, data: bytes | bytearray | memoryview, sent: int) -> None:
        try:
            with memoryview(data) as view:
                while sent < len(data):
                    await trio.lowlevel.wait_writable(self._sock)
                    with view[sent:] as rest:
                        sent += self._send(rest)
        finally:
            self.cut = 0 < sent < len(data)

    def _send(self, data: bytes | bytearray | memoryview) -> int:
        # Called for empty data as well, so that a closed socket raises.
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the kernel can take some bytes."""
        if self.sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        if self._sock.fileno() < 0:
            raise trio.ClosedResourceError("this socket was already closed")
        self.sending = True
        try:
            await trio.lowlevel.wait_writable(self._sock)
        finally:
            self.sending = False

    async def wait_readable(self) -> None:
        """Wait until :meth:`receive_some_nowait` has something, an end or an error."""
        if self.receiving:
            raise trio.BusyResourceError("another task is receiving from this stream")
        if self._sock.fileno() < 0:
            raise trio.ClosedResourceError("this socket was already closed")
        self.receiving = True
        try:
            await trio.lowlevel.wait_readable(self._sock)
        finally:
            self.receiving = False

    def check_sendable(self) -> None:
        """Raise the errors that :meth:`send_all` raises before it sends anything.

        Raises:
            trio.ClosedResourceError: The stream, or our direction, was closed.
            trio.BusyResourceError: Another task is sending.
            trio.BrokenResourceError: An earlier send was cut.
        """
        if self._ended:
            raise trio.ClosedResourceError("can't send data after sending EOF")
        if self.sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        if self._sock.fileno() < 0:
            raise trio.ClosedResourceError("this socket was already closed")
        if self.cut:
            raise refuse_after_cut()

    async def send_eof(self) -> None:
        """End our direction; a second call does nothing.

        Raises:
            trio.BrokenResourceError: The connection is broken, or an earlier send was
                cut: an end would make the part that was sent look whole.
            trio.ClosedResourceError: The stream was closed.
            trio.BusyResourceError: Another task is sending.
        """
        if self.sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self.sending = True
        try:
            await trio.lowlevel.checkpoint()
        finally:
            self.sending = False
        self.end()

    async def aclose(self) -> None:
        """Close the stream; waiting tasks get :exc:`trio.ClosedResourceError`."""
        self.close()
        await trio.lowlevel.checkpoint()

    # Methods without a checkpoint, for code of this library that has one anyway.

    def receive_some_nowait(self, max_bytes: int) -> bytes | None:
        """Receive what the kernel has, at most ``max_bytes``; None if it has nothing.

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
        """Send the bytes that the kernel takes now, and return their number.

        Raises:
            trio.BrokenResourceError: The connection is broken, or an earlier send was
                cut.
            trio.ClosedResourceError: The stream, or our direction, was closed.
            trio.BusyResourceError: Another task is sending.
        """
        if self._ended or self.sending or self.cut:
            self.check_sendable()
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise translate_error(exc) from exc

    def end(self) -> None:
        """Do what :meth:`send_eof` does, without a checkpoint."""
        if self.sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        if self.cut and self._sock.fileno() >= 0:
            raise refuse_after_cut()
        try:
            # On macOS a second shutdown() raises ENOTCONN.
            if not self._ended:
                self._sock.shutdown(socket.SHUT_WR)
                self._ended = True
        except OSError as exc:
            raise translate_error(exc) from exc

    def close(self) -> None:
        """Do what :meth:`aclose` does, without a checkpoint."""
        if self._sock.fileno() >= 0:
            # Skip notify_closing() when no task waits: it costs a system call.  A task
            # that waits has set one of these flags, or waits for the Trio socket.
            if self.receiving or self.sending or self._trio_sock is not None:
                trio.lowlevel.notify_closing(self._sock)
            self._sock.close()

    def setsockopt(
        self, level: int, option: int, value: int | bytes | bytearray | memoryview
    ) -> None:
        """Set a socket option; see :meth:`socket.socket.setsockopt`."""
        self._sock.setsockopt(level, option, value)

    @overload
    def getsockopt(self, level: int, option: int) -> int: ...

    @overload
    def getsockopt(self, level: int, option: int, buffersize: int) -> bytes: ...

    def getsockopt(self, level: int, option: int, buffersize: int = 0) -> int | bytes:
        """Return a socket option; see :meth:`socket.socket.getsockopt`."""
        if buffersize == 0:
            return self._sock.getsockopt(level, option)
        return self._sock.getsockopt(level, option, buffersize)

    def __repr__(self) -> str:
        state = f"on descriptor {self.fileno()}" if self.fileno() >= 0 else "closed"
        return f"<DirectSocketStream, {state}>"


def set_options(sock: socket.socket | trio.socket.SocketType) -> None:
    """Set on a TCP socket the options that Trio sets on its streams.

    Other sockets are left as they are. On a listening socket one call is enough, because
    accepted sockets inherit the options; that saves two system calls per connection.
    """
    # OSError: a Unix socket has no such option.  AttributeError: the platform lacks it.
    with suppress(OSError, AttributeError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(
            socket.IPPROTO_TCP, trio.socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES
        )


def adopt_stream(stream: trio.SocketStream) -> DirectSocketStream:
    """Make a direct stream from one of Trio's, which counts as closed from now on.

    No task may be using Trio's stream during this call.
    """
    return DirectSocketStream(
        detach_socket(stream.socket), ended=stream.socket.did_shutdown_SHUT_WR
    )


def detach_socket(sock: trio.socket.SocketType) -> socket.socket:
    """Take the kernel socket out of Trio's, which counts as closed from now on."""
    # Giving the kind saves the two system calls with which Python would find it out.
    kind = (sock.family, sock.type, sock.proto)
    taken = socket.socket(*kind, fileno=sock.detach())
    taken.setblocking(False)
    return taken
