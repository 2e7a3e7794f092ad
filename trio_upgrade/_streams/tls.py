# TLS over a kernel socket, either side.  Beside trio.SSLStream it can end one direction,
# can still be read after a cancelled send, and sends its fatal alerts.
#
# The life of our direction (_ended, cut):
#
#   open -- send_eof() --> close_notify made, perhaps in _unsent --> ended
#     |
#     +---- send_all() was cancelled or failed --> cut: nothing more can be sent, not even
#           a close_notify, which would tell the peer that it has got everything
#
# Tried and left out: a real SSLSocket instead of the BIOs cannot half-close.
from __future__ import annotations

import operator
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, final

import trio

from .._util import public
from .socket_stream import RECEIVE_SIZE, DirectSocketStream, refuse_after_cut
from .tls_connection import TLSConnection
from .tls_transport import StreamTransport

if TYPE_CHECKING:
    from collections.abc import Coroutine

# Bytes to encrypt at a time; then they have to be sent before more is encrypted.  With
# 64 KiB the bulk costs the same, and OpenSSL's buffer, which never shrinks, is twice as
# long.
_PART_SIZE = 32768


@public
@final
class TLSStream(TLSConnection, trio.abc.HalfCloseableStream):
    """A TLS connection, as :class:`trio.SSLStream`, that can be half-closed.

    All TLS that this library makes is such a stream: it is the ``transport`` of an
    :class:`UpgradedStream` in TLS. It has the attributes of :class:`trio.SSLStream`,
    which are those of :class:`ssl.SSLObject`, for example :meth:`getpeercert`, and makes
    the handshake on first use, as that does.

    A ``send_all`` that was cancelled or failed after it had begun to encrypt has sent an
    unknown part. So that no bytes can follow half a message, every later send raises
    BrokenResourceError, as does :meth:`send_eof`, and :meth:`aclose` sends no
    close_notify. Receiving goes on.

    Attributes and methods that :class:`trio.SSLStream` does not have, but for
    :meth:`send_eof`, are for this library, and may change.

    After an error of TLS the peer gets the alert, each method raises BrokenResourceError,
    and ``__cause__`` is the first error.

    Args:
        transport_stream: The stream to send ciphertext on. This stream owns it from now
            on.
        ssl_context: The context for our side.
        server_hostname: The name that the server's certificate must have.
        server_side: Whether we are the server.
        https_compatible: Whether the peer may end without a close_notify, which then
            looks like a proper end; and whether :meth:`aclose` sends none.
        received: Bytes that were already received from the transport.

    Attributes:
        transport_stream: The stream below.
        receiving: Whether a task is receiving. A copy also sets it while it runs.
        sending: Whether a task is sending, waiting to send, or ending our direction.
        cut: Whether data is missing in our direction: a send was cut. Copies set it, too.

    Raises:
        ValueError: The context checks the name and ``server_hostname`` is missing.
        ssl.SSLError: The context is for the other side.
    """

    __slots__ = ("cut", "receiving", "sending")

    def __init__(
        self,
        transport_stream: trio.abc.Stream,
        ssl_context: ssl.SSLContext,
        *,
        server_hostname: str | bytes | None = None,
        server_side: bool = False,
        https_compatible: bool = False,
        received: bytes = b"",
    ) -> None:
        super().__init__(
            transport_stream,
            ssl_context,
            server_side=server_side,
            server_hostname=server_hostname,
            https_compatible=https_compatible,
            received=received,
        )
        self.receiving: bool = False
        self.sending: bool = False
        self.cut: bool = False

    async def do_handshake(self) -> None:
        """Make the handshake, or wait for another task that makes it.

        Each other method does this first, so it need not be called. If cancelled, another
        call goes on with it.

        Raises:
            trio.BrokenResourceError: The handshake failed; ``__cause__`` says why.
            trio.ClosedResourceError: The stream was closed.
        """
        await trio.lowlevel.checkpoint()
        self._check_closed()
        try:
            while not self._try_handshake():
                await self._flush(self._answer)
                await self._wait_for_input()
            await self._flush(self._answer)
        except trio.BrokenResourceError:
            await self._send_alert()
            raise

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive what has arrived, at most ``max_bytes``; None means 64 KiB.

        If cancelled, nothing was received.

        Raises:
            trio.BrokenResourceError: The connection is broken, or was cut: it ended
                without a close_notify, and the stream is not ``https_compatible``.
            trio.ClosedResourceError: The stream was closed.
            trio.BusyResourceError: Another task is receiving.
        """
        if max_bytes is None:
            max_bytes = RECEIVE_SIZE
        elif (max_bytes := operator.index(max_bytes)) < 1:
            raise ValueError("max_bytes must be >= 1")
        if self.receiving:
            raise trio.BusyResourceError("another task is receiving from this stream")
        self.receiving = True
        try:
            if self._handshaken:
                await trio.lowlevel.checkpoint()
            else:
                await self.do_handshake()
            while (data := self._receive(max_bytes)) is None:
                transport = self._transport
                if (
                    self._reading
                    or (self._unsent and self._is_answering())
                    or isinstance(transport, StreamTransport)
                ):
                    await self.wait_readable()
                    continue
                # As _wait_for_bytes(), without a frame of its own: thousands of idle
                # connections wait here.
                self._reading = transport.receiving = True
                try:
                    await trio.lowlevel.wait_readable(transport)
                finally:
                    self._reading = transport.receiving = False
                    if self._parked is not None:
                        self._parked.unpark_all()
            return data
        except trio.BrokenResourceError:
            await self._send_alert()
            if self._https_compatible and isinstance(self._failure, ssl.SSLEOFError):
                # The peer ended within the handshake.
                return b""
            raise
        finally:
            self.receiving = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of ``data``.

        If this is cancelled or fails after its first checkpoint, the handshake and what
        earlier calls had left, an unknown part was sent, and nothing more can be.

        Raises:
            trio.BrokenResourceError: The connection is broken, or an earlier send was
                cut.
            trio.ClosedResourceError: The stream, or our direction, was closed.
            trio.BusyResourceError: Another task is sending.
        """
        self.check_sendable()
        self.sending = True
        try:
            if self._handshaken:
                await trio.lowlevel.checkpoint()
            else:
                await self.do_handshake()
            if self._unsent:
                await self._flush(self._output)
            self.cut = bool(data)
            if len(data) <= _PART_SIZE:
                if not self._write(data):
                    await self._write_slowly(data)
                elif self._unsent:
                    await self._flush(self._output)
            else:
                await self._write_parts(data)
            self.cut = False
        finally:
            self.sending = False

    async def _write_parts(self, data: bytes | bytearray | memoryview) -> None:
        with memoryview(data) as view:
            for start in range(0, len(data), _PART_SIZE):
                with view[start : start + _PART_SIZE] as part:
                    await self._write_slowly(part)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the kernel can take some bytes."""
        self.check_sendable()
        self.sending = True
        try:
            # Without _unsent no task waits for the transport's output.
            if self._unsent:
                await self._flush(self._output)
            else:
                await self._wait_writable()
        finally:
            self.sending = False

    async def send_eof(self) -> None:
        """End our direction by a close_notify; a second call sends what the first left.

        The peer's direction stays open. Yet many peers drop what they have still to send:
        asyncio and, unless it was set up otherwise, Node.

        Raises:
            trio.BrokenResourceError: The connection is broken, or a ``send_all`` was cut.
            trio.ClosedResourceError: The stream was closed.
            trio.BusyResourceError: Another task is sending.
        """
        if self.sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self.sending = True
        try:
            await self.do_handshake()
            if self.cut:
                raise refuse_after_cut()
            await self._send_end()
        finally:
            self.sending = False

    async def _send_end(self) -> None:
        await self._flush(self._output)
        if not self._ended:
            try:
                self._end()
            except OSError as exc:
                self._fail(exc)
            self._push()
            await self._flush(self._output)

    async def unwrap(self) -> tuple[trio.abc.Stream, bytes]:
        """End TLS in both directions, and give the transport back, as SSLStream does.

        Returns:
            The transport, and bytes that were received after the peer's close_notify.
            This stream counts as closed.

        Raises:
            trio.BrokenResourceError: The peer went on sending, or the connection broke.
            trio.ClosedResourceError: The stream was closed.
            trio.BusyResourceError: Another task is sending or receiving.
        """
        await self.send_eof()
        if await self.receive_some(1):
            raise trio.BrokenResourceError("the peer sends after our close_notify")
        return self._give_away(), self._take_unread()

    async def aclose(self) -> None:
        """Send a close_notify and close the transport, without waiting for the peer's.

        No close_notify is sent if the stream is ``https_compatible``, broken or not yet
        used, if a ``send_all`` was cut, if another task is sending, or if this call is
        cancelled: then the transport is closed forcefully.
        """
        if self._closed:
            await trio.lowlevel.checkpoint()
            return
        try:
            if self.is_intact and not (self._https_compatible or self.sending):
                self.sending = True
                try:
                    await trio.lowlevel.checkpoint_if_cancelled()
                    # Broken or closed: the peer was first, or another task.
                    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                        await self._send_end()
                        self._discard_input()
                finally:
                    self.sending = False
        finally:
            if self._failure is not None:
                # The peer has still to receive our alert.
                self._discard_input()
            self._closed = True
            # Forcefully if this call was cancelled.
            await self.transport_stream.aclose()

    # Methods without a checkpoint, for code of this library that has one anyway.  They
    # work if can_do_nowait is true.

    @property
    def is_direct(self) -> bool:
        """Whether the transport is a :class:`DirectSocketStream`."""
        return isinstance(self._transport, DirectSocketStream)

    @property
    def can_do_nowait(self) -> bool:
        """Whether the transport is one, and the handshake is over."""
        return self._handshaken and self.is_direct

    def receive_some_nowait(self, max_bytes: int) -> bytes | None:
        """Receive what has arrived, at most ``max_bytes``; None if nothing has.

        What this has to send by itself, for example the answer to a key update, is sent
        as far as the kernel takes it; :meth:`wait_readable` sends the rest.

        Raises:
            trio.BrokenResourceError: As :meth:`receive_some`.
            trio.ClosedResourceError: The stream was closed.
            trio.BusyResourceError: Another task is receiving.
        """
        self._check_handshake()
        if self.receiving:
            raise trio.BusyResourceError("another task is receiving from this stream")
        return self._receive(max_bytes)

    def receive_as_owner(self, max_bytes: int) -> bytes | None:
        """Do what :meth:`receive_some_nowait` does, for the task that set ``receiving``.

        Raises:
            trio.BrokenResourceError: As :meth:`receive_some`.
            trio.ClosedResourceError: The stream was closed.
        """
        return self._receive(max_bytes)

    def wait_readable(self) -> Coroutine[object, object, None]:
        """Wait until :meth:`receive_some_nowait` may have something."""
        # Not a coroutine around these: an idle copy is to have few frames.
        if self._is_answering():
            return self._wait_to_answer()
        return self._park() if self._reading else self._wait_for_bytes()

    async def _wait_to_answer(self) -> None:
        if isinstance(self._transport, StreamTransport):
            await self._flush(self._answer)
            return
        # The peer may wait for our answer, or for us to read.
        closed: trio.ClosedResourceError | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send_answer)
                try:
                    # No other task can be reading: a sender that reads has first sent
                    # all answers.
                    await self._wait_for_bytes()
                except trio.ClosedResourceError as exc:
                    closed = exc
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            # Both tasks were cancelled: the caller is to get that as from any other wait.
            # An interrupt goes first.
            raise min(group.exceptions, key=_is_cancelled) from None
        if closed is not None:
            raise closed

    def send_some_nowait(self, data: bytes | bytearray | memoryview) -> int:
        """Encrypt and send at most 32 KiB of ``data``, and return how many bytes.

        It is 0 while the kernel does not take what earlier calls have left. The bytes
        that are counted are sent before all others; :attr:`unsent` says whether the
        kernel has taken them.

        Raises:
            trio.BrokenResourceError: The connection is broken.
            trio.ClosedResourceError: The stream, or our direction, was closed.
            trio.BusyResourceError: Another task is sending.
        """
        self._check_handshake()
        self.check_sendable()
        if self._unsent:
            self._send_unsent()
            if self._unsent:
                return 0
        if len(data) <= _PART_SIZE:
            return len(data) if self._write(data) else 0
        with memoryview(data) as view, view[:_PART_SIZE] as part:
            return _PART_SIZE if self._write(part) else 0

    def send_whole_nowait(self, data: bytes | memoryview) -> int:
        """Encrypt all of ``data``, and send what the kernel takes of it.

        The rest is :attr:`unsent`, in order after what was unsent before. So that it does
        not grow, nothing may be unsent when the caller gets ``data`` from elsewhere.

        Returns:
            How many bytes were encrypted: not all only if bytes of the peer have to come
            first, because it renegotiates. :meth:`send_rest` sends the others.

        Raises:
            trio.BrokenResourceError: The connection is broken.
            trio.ClosedResourceError: The stream, or our direction, was closed.
            trio.BusyResourceError: Another task is sending.
        """
        self.check_sendable()
        size = len(data)
        if size <= _PART_SIZE:
            return size if self._write(data) else 0
        with memoryview(data) as view:
            for start in range(0, size, _PART_SIZE):
                with view[start : start + _PART_SIZE] as part:
                    if not self._write(part):
                        return start
        return size

    async def send_rest(self, data: bytes | memoryview) -> None:
        """Send what :meth:`send_whole_nowait` did not take, and all that is unsent.

        If cancelled, the stream counts as cut.
        """
        self.check_sendable()
        self.sending = True
        try:
            self.cut = True
            await self._write_parts(data)
            self.cut = False
        finally:
            self.sending = False

    async def wait_sent_some(self) -> None:
        """Wait until the kernel has taken a part of what is unsent, our end included.

        Raises:
            trio.BrokenResourceError: The connection is broken.
            trio.ClosedResourceError: The stream was closed.
            trio.BusyResourceError: Another task is sending.
        """
        if not self._ended:
            self.check_sendable()
        elif self.sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self.sending = True
        try:
            await self._flush_some()
        finally:
            self.sending = False

    @property
    def is_intact(self) -> bool:
        """Whether our end could be a proper one.

        So it is after the handshake, if no error has broken the session and no
        ``send_all`` was cut.
        """
        return self._handshaken and self._failure is None and not self.cut

    @property
    def eof_sent(self) -> bool:
        """Whether our close_notify was sent: :meth:`send_eof` has returned."""
        return self._ended and not self._unsent

    @property
    def unsent(self) -> int:
        """The number of bytes that are encrypted, and that the kernel did not take."""
        return len(self._unsent)

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
        self._check_closed()
        if self.cut:
            if self._failure is not None:
                # It says more.
                self._fail(self._failure)
            raise refuse_after_cut()

    def close(self) -> None:
        """Close the transport, without a close_notify and without a checkpoint."""
        assert isinstance(self._transport, DirectSocketStream)
        if self._failure is not None:
            self._discard_input()
        self._closed = True
        self._transport.close()

    def __repr__(self) -> str:
        return f"<TLSStream on {self.transport_stream!r}>"

    def _check_handshake(self) -> None:
        # Without one OpenSSL would make it, and check no name (Python issue 30141).
        self._after_handshake("receiving or sending")


def _is_cancelled(exc: BaseException) -> bool:
    return isinstance(exc, trio.Cancelled)
