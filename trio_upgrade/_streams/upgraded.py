# The stream that a switch results in; its methods to receive stand in ReplayStream.  It
# must not know about HTTP.
from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, Self, cast, final

import trio

from .._errors import HalfCloseUnsupported
from .._util import public
from .replay import ReplayStream
from .resetting import reset_on_close
from .socket_stream import DirectSocketStream, refuse_after_cut
from .tls import TLSStream

if TYPE_CHECKING:
    import ssl


@public
class UpgradedStream(ReplayStream):
    """A connection after its switch: any Trio stream, with the early bytes first.

    At run time it is a :class:`trio.abc.HalfCloseableStream` exactly when its transport
    is one. :meth:`send_eof` always exists; :attr:`can_send_eof` says whether it works.

    Args:
        transport: The stream that HTTP was spoken on. This stream owns it from now on.
        head: Bytes that have already been read from the transport.
        ended: Whether the peer's end of stream has been read as well.

    Attributes:
        received: The number of bytes received from this stream, head included.
        sent: The number of bytes sent on it.
    """

    __slots__ = ("_cut", "_eof_sent", "_successor", "_wary", "_was_reset", "sent")

    def __new__(
        cls,
        transport: trio.abc.Stream,
        head: bytes = b"",  # noqa: ARG004  as __init__ has it
        *,
        ended: bool = False,  # noqa: ARG004
    ) -> Self:
        half_closeable = isinstance(transport, trio.abc.HalfCloseableStream)
        if cls is UpgradedStream and half_closeable:
            return cast("Self", object.__new__(_HalfCloseableUpgradedStream))
        return object.__new__(cls)

    def __init__(
        self, transport: trio.abc.Stream, head: bytes = b"", *, ended: bool = False
    ) -> None:
        super().__init__(transport, head, ended=ended)
        self._eof_sent = False
        self._was_reset = False
        # The stream that start_tls() has made of this one.
        self._successor: UpgradedStream | None = None
        self.sent: int = 0
        # Whether a send was cut here; streams of ours below note that themselves.
        self._cut = False
        # Whether a send has to look at that, and to set it.
        self._wary = type(transport) not in _REFUSING

    @property
    def transport(self) -> trio.abc.Stream:
        """The stream below this one.

        Reading from it skips the unread part of :attr:`head`; see :meth:`detach`.

        Raises:
            trio.ClosedResourceError: It was detached.
        """
        if self.detached:
            raise trio.ClosedResourceError("this stream was detached")
        return self._transport

    @property
    def transport_stream(self) -> trio.abc.Stream:
        """The same as :attr:`transport`, by the name that Trio's own wrappers use."""
        return self.transport

    @property
    def detached(self) -> bool:
        """Whether :meth:`detach` or :meth:`start_tls` was called."""
        return isinstance(self._transport, _Detached)

    @property
    def outermost(self) -> UpgradedStream:
        """The stream that :meth:`start_tls` has made of this one, or this one itself.

        The scope of the connection closes this stream.
        """
        stream = self
        while stream._successor is not None:
            stream = stream._successor
        return stream

    @property
    def can_send_eof(self) -> bool:
        """Whether :meth:`send_eof` works.

        It does over TCP, Unix sockets and TLS of ours, and does not over
        :class:`trio.SSLStream`. Over TLS it is for peers that go on sending after our
        close_notify; see :func:`relay`.
        """
        return isinstance(self, trio.abc.HalfCloseableStream) and not self.detached

    @property
    def eof_sent(self) -> bool:
        """Whether :meth:`send_eof` has returned, or a copy has passed an end on to it."""
        return self._eof_sent

    @property
    def was_reset(self) -> bool:
        """Whether :meth:`reset` was called, also on the stream that TLS made of it."""
        return self.outermost._was_reset

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send on the transport; its contract applies.

        If this is cancelled or fails after bytes may have left, every later send raises
        BrokenResourceError: the next bytes would land after half a message, and the peer
        could not tell. Receiving goes on. A call that is cancelled before its first byte
        has left changes nothing; this is known exactly for sockets, and on another
        transport it is so if the caller was already cancelled.

        Raises:
            trio.BrokenResourceError: The connection is broken, or an earlier send was
                cut, also one by :func:`pipe` or :func:`relay`.
            trio.ClosedResourceError: The stream, or our direction, was closed.
            trio.BusyResourceError: Another task is sending.
        """
        if self._wary:
            await self._send_warily(data)
            return
        try:
            await self._transport.send_all(data)
        except trio.BrokenResourceError:
            self._broken = True
            raise
        self.sent += len(data)

    async def _send_warily(self, data: bytes | bytearray | memoryview) -> None:
        # A transport that is not ours does not refuse to send after a cut send.
        self._check_not_cut()
        # Some transports send before they look.
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            await self._transport.send_all(data)
        except trio.BrokenResourceError:
            # By the contract of Trio's streams it is broken for every later call, too.
            self._broken = True
            raise
        except _SENT_NOTHING:
            raise
        except BaseException:
            # Of no data no part can be missing.
            self._cut = len(data) > 0
            raise
        self.sent += len(data)

    def _check_not_cut(self) -> None:
        if self._cut:
            raise refuse_after_cut()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait on the transport; its contract applies."""
        try:
            await self._transport.wait_send_all_might_not_block()
        except trio.BrokenResourceError:
            self._broken = True
            raise

    async def send_eof(self) -> None:
        """End our direction; the peer's direction stays open.

        Raises:
            HalfCloseUnsupported: The transport has no half-close. Nothing was done.
            trio.BrokenResourceError: The connection is broken, or an earlier send was
                cut: an end would make the part that was sent look whole.
        """
        self._check_not_reset()
        raise HalfCloseUnsupported(
            f"{type(self.transport).__name__} cannot end one direction only"
        )

    def detach(self) -> tuple[trio.abc.Stream, bytes]:
        """Give the transport away and forget it, like ``SSLStream.unwrap``.

        From now on the caller owns the transport, must close it, and must treat the
        returned bytes as coming before any bytes read from it. This stream then counts
        as closed, and the library no longer closes the transport. No other task may be
        using the stream during this call. After a cut send, a socket of ours and our TLS
        go on refusing to send; a transport of another kind does not know of the cut.

        Returns:
            The transport, and the unread part of :attr:`head`. This is the pair that a
            Node handler gets as ``socket, head``. If the peer's end of stream had
            already been read, the transport returns it again, as Trio's sockets do.

        Raises:
            trio.ClosedResourceError: It was detached or reset before.
        """
        self._check_not_reset()
        transport, unread = self.transport, self._unread_head
        self._forget()
        self._transport = _Detached()
        return transport, unread

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        *,
        server_hostname: str | None = None,
        server_side: bool = False,
        https_compatible: bool = False,
    ) -> UpgradedStream:
        """Start TLS: make the handshake and return the stream inside TLS.

        The transport of the new stream is a :class:`TLSStream`.

        The unread part of :attr:`head` is read as the beginning of TLS. From this call
        on the old stream counts as detached, and the scope that owned it owns the new
        stream instead. No other task may be using the stream during this call.

        If the handshake fails or is cancelled, the connection is closed.

        Args:
            ssl_context: The context for our role in TLS, which need not be our role in
                HTTP.
            server_hostname: The name that the server's certificate must have. None is
                for servers, and for contexts that do not check the name.
            server_side: Whether we are the server in TLS.
            https_compatible: Whether the peer may end without a close_notify. A cut
                connection then looks like a proper end.

        Raises:
            ValueError: The context does not fit the other arguments; for example, it
                checks the name and ``server_hostname`` is missing. Nothing was done.
            ssl.SSLError: The context is for the other role. Nothing was done.
            trio.BrokenResourceError: The handshake failed; ``__cause__`` says why. Or an
                earlier send was cut.
            trio.ClosedResourceError: The stream was closed, reset or detached, or TLS
                was already started.
        """
        self._check_not_reset()
        self._check_not_cut()
        transport, unread = self._find_tls_transport()
        tls = TLSStream(
            transport,
            ssl_context,
            server_hostname=server_hostname,
            server_side=server_side,
            https_compatible=https_compatible,
            received=unread,
        )
        successor = UpgradedStream(tls)
        # The new stream goes on counting the bytes of the connection.
        successor.received, successor.sent = self.received, self.sent
        if isinstance(transport, DirectSocketStream):
            # TLS has the heads of all layers.
            self._drop_head(self)
        else:
            self._forget()
        self._transport = _Detached()
        self._successor = successor
        try:
            await tls.do_handshake()
        except BaseException as exc:
            successor._broken = isinstance(exc, trio.BrokenResourceError)
            await trio.aclose_forcefully(successor)
            raise
        return successor

    async def aclose(self) -> None:
        """Close the transport; the unread part of the head is dropped."""
        self._forget()
        # From now on the transport refuses to send, because it is closed.
        self._cut = False
        await self._transport.aclose()

    async def reset(self) -> None:
        """End the connection by a reset, for a peer whose data is bad.

        Over TCP, also below TLS, the peer gets a reset, and bytes that it has not read
        are lost; TLS sends no close_notify. A Unix socket cannot be reset: the peer gets
        an end of stream, or a reset if bytes of it were not read here. Other transports
        are closed forcefully.

        After it the stream is closed, also if this call is cancelled: its methods, and
        tasks that are using it, raise :exc:`trio.ClosedResourceError`. In a handler of a
        server that is no error: nothing is logged, whether the handler then returns or
        raises what came of the reset, and the connection's record says
        :attr:`EndReason.RESET`.

        After :meth:`start_tls` the stream in TLS is reset. A second call does nothing,
        nor does a call after :meth:`detach`: the transport is its new owner's.
        """
        stream = self.outermost
        if not stream.detached:
            stream._was_reset = True
            reset_on_close(stream._transport)
            stream._forget()
            stream._cut = False
        await trio.aclose_forcefully(stream._transport)

    def _check_not_reset(self) -> None:
        # For methods that would do nothing with a closed transport, or give it away.
        if self._was_reset:
            raise trio.ClosedResourceError("this stream was reset")

    @staticmethod
    def _find_underlying(stream: Any, *, to_receive: bool) -> object:  # noqa: ANN401  see below
        # Return the object below a stack of UpgradedStreams.  For receiving, return None
        # until every head of the stack has been replayed.  By exact type: isinstance() is
        # slow for classes with an abstract base, and a user's subclass may override the
        # methods, so it must not be bypassed.
        while type(stream) in _KINDS:
            if to_receive and stream._position is not None:
                return None
            stream = stream._transport
        return stream

    def __repr__(self) -> str:
        if self.detached:
            return "<UpgradedStream, detached>"
        return f"<UpgradedStream on {self._transport!r}>"

    def _find_tls_transport(self) -> tuple[trio.abc.Stream, bytes]:
        # Return the stream that TLS is to run over, and the bytes that were read from it
        # early.  That is the socket below, if there is one of ours.
        below: Any = self
        unread: list[bytes] = []
        while type(below) in _KINDS:
            unread.append(below._unread_head)
            below = below._transport
        if isinstance(below, DirectSocketStream):
            # After an end that was read early the socket returns it again.
            return below, b"".join(unread)
        below = UpgradedStream(self.transport, self._unread_head, ended=self._ended)
        return below, b""

    @staticmethod
    def _is_cut(stream: Any) -> bool:  # noqa: ANN401  as above
        # Whether a send was cut on one of a stack of UpgradedStreams, or below them, or
        # in the TLS that was started on them.
        while type(stream) in _KINDS:
            if stream._cut:
                return True
            stream = stream._successor or stream._transport
        return type(stream) in (DirectSocketStream, TLSStream) and stream.cut

    @staticmethod
    def _drop_head(stream: Any) -> object:  # noqa: ANN401  as above
        # Do what aclose() does before it closes the object below a stack of
        # UpgradedStreams, and return that object.
        while type(stream) in _KINDS:
            stream._forget()
            stream = stream._transport
        return stream

    @staticmethod
    def _record_transfer(
        stream: Any,  # noqa: ANN401  as checkers know no exact type
        *,
        received: int = 0,
        sent: int = 0,
        ended: bool = False,
        eof_sent: bool = False,
        broken: bool = False,
        cut: bool = False,
    ) -> None:
        # Tell a stack of UpgradedStreams about the bytes, ends and errors below it.
        while type(stream) in _KINDS:
            stream.received += received
            stream.sent += sent
            stream._peer_ended |= ended
            stream._eof_sent |= eof_sent
            stream._broken |= broken
            if cut:
                stream._cut = stream._wary = True
            stream = stream._transport
        if cut and type(stream) in (DirectSocketStream, TLSStream):
            stream.cut = True


# For the copy engine and for closing, which bypass these streams: they use the socket.
find_underlying = UpgradedStream._find_underlying  # pyright: ignore[reportPrivateUsage]
is_cut = UpgradedStream._is_cut  # pyright: ignore[reportPrivateUsage]
drop_head = UpgradedStream._drop_head  # pyright: ignore[reportPrivateUsage]
record_transfer = UpgradedStream._record_transfer  # pyright: ignore[reportPrivateUsage]


@final
class _HalfCloseableUpgradedStream(UpgradedStream, trio.abc.HalfCloseableStream):
    __slots__ = ()

    async def send_eof(self) -> None:
        self._check_not_reset()
        self._check_not_cut()
        transport = self._transport
        assert isinstance(transport, trio.abc.HalfCloseableStream)
        try:
            await transport.send_eof()
        except trio.BrokenResourceError:
            self._broken = True
            raise
        self._eof_sent = True


_KINDS = frozenset({UpgradedStream, _HalfCloseableUpgradedStream})
# Streams that refuse to send after a send that was cut.  trio.SSLStream must also see a
# call that is cancelled already: only then can it be closed without a handshake.
_REFUSING = _KINDS | {DirectSocketStream, TLSStream, trio.SSLStream}
# The transport raises these before it sends anything, or when it is closed.
_SENT_NOTHING = (trio.BusyResourceError, trio.ClosedResourceError, TypeError)


@final
class _Detached(trio.abc.HalfCloseableStream):
    # Replaces the transport after detach(), so that no method of UpgradedStream has to
    # check whether the stream was detached.
    __slots__ = ()

    async def receive_some(self, max_bytes: int | None = None) -> NoReturn:  # noqa: ARG002
        self._refuse()

    async def send_all(self, data: bytes | bytearray | memoryview) -> NoReturn:  # noqa: ARG002
        self._refuse()

    async def wait_send_all_might_not_block(self) -> NoReturn:
        self._refuse()

    async def send_eof(self) -> NoReturn:
        self._refuse()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()

    def _refuse(self) -> NoReturn:
        raise trio.ClosedResourceError("this stream was detached")
