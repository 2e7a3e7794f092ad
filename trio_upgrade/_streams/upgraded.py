# The stream that a switch leaves behind: what was read too far comes first, then the
# wire.  It must not know about HTTP.  Two traps.  A checkpoint comes before the replay
# moves, so a cancelled read has lost nothing (Trio's rule; httpcore's wrapper has none).
# And the end that the HTTP reader may already have seen belongs to the replay too: it
# comes after the head however late somebody asks.
from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, NoReturn, Self, cast, final

import trio

from .._errors import HalfCloseUnsupported
from .._util import public

if TYPE_CHECKING:
    import ssl


@public
class UpgradedStream(trio.abc.Stream):
    """A connection after its switch: any Trio stream, with the bytes read too far first.

    At run time it is a :class:`trio.abc.HalfCloseableStream` exactly when its
    transport is one; :meth:`send_eof` is there in any case, and :attr:`can_send_eof`
    tells.

    Args:
        transport: The stream that HTTP was spoken on. It is owned from now on.
        head: Bytes that were already read from it.
        ended: Whether the peer's end was read, too.

    Attributes:
        received: How many bytes were received from here, head included.
        sent: How many bytes were sent.
    """

    __slots__ = (
        "_broken",
        "_ended",
        "_head",
        "_peer_ended",
        "_position",
        "_receiving",
        "_successor",
        "_transport",
        "received",
        "sent",
    )

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
        self._transport = transport
        self._head = head
        self._position: int | None = 0 if head or ended else None
        self._ended = ended
        self._receiving = False
        self._peer_ended = False
        self._broken = False
        # What start_tls() has put in the place of this.
        self._successor: UpgradedStream | None = None
        self.received: int = 0
        self.sent: int = 0

    @property
    def head(self) -> bytes:
        """The bytes that had been read when the switch came; often empty.

        A snapshot to look at. They are *still in the stream*, so do not parse or send
        them as well, and do not take an empty one for a sign: bytes that came a moment
        later are not in it.
        """
        return self._head

    @property
    def transport(self) -> trio.abc.Stream:
        """The stream underneath.

        Reading it passes by what is left of :attr:`head`; see :meth:`detach`.

        Raises:
            trio.ClosedResourceError: It was detached.
        """
        if self.detached:
            raise trio.ClosedResourceError("this stream was detached")
        return self._transport

    @property
    def detached(self) -> bool:
        """Whether :meth:`detach` was called, or :meth:`start_tls`."""
        return isinstance(self._transport, _Detached)

    @property
    def outermost(self) -> UpgradedStream:
        """The stream that :meth:`start_tls` has made of this one, or this one itself.

        It is what the scope of the connection closes.
        """
        stream = self
        while stream._successor is not None:
            stream = stream._successor
        return stream

    @property
    def can_send_eof(self) -> bool:
        """Whether one direction can be ended alone: on TCP yes, on TLS no."""
        return isinstance(self, trio.abc.HalfCloseableStream) and not self.detached

    @property
    def peer_ended(self) -> bool:
        """Whether a read has returned the peer's end of stream."""
        return self._peer_ended

    @property
    def broken(self) -> bool:
        """Whether a call has raised :exc:`trio.BrokenResourceError`."""
        return self._broken

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive what is left of the head, then from the transport.

        Cancelled, it has lost nothing. Errors are the transport's.

        Args:
            max_bytes: The most bytes to return; None leaves it to the stream.
        """
        if self._position is not None:
            data = await self._replay(max_bytes)
            if data is not None:
                return data
        try:
            received = await self._transport.receive_some(max_bytes)
        except trio.BrokenResourceError:
            self._broken = True
            raise
        if not received:
            self._peer_ended = True
        self.received += len(received)
        return received

    async def _replay(self, max_bytes: int | None) -> bytes | None:
        if max_bytes is not None:
            max_bytes = operator.index(max_bytes)
            if max_bytes < 1:
                raise ValueError("max_bytes must be >= 1")
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving from this stream")
        self._receiving = True
        try:
            await trio.lowlevel.checkpoint()
        finally:
            self._receiving = False
        start = self._position
        if start is None:
            # Closed or detached by another task during the checkpoint.
            return None
        if start == len(self._head):
            # Only the end is left, and it stays.
            self._peer_ended = True
            return b""
        stop = len(self._head) if max_bytes is None else start + max_bytes
        data = self._head[start:stop]
        self._position = start + len(data)
        self.received += len(data)
        if self._position == len(self._head) and not self._ended:
            self._position = None
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send on the transport, whose contract it keeps."""
        try:
            await self._transport.send_all(data)
        except trio.BrokenResourceError:
            self._broken = True
            raise
        self.sent += len(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait on the transport, whose contract it keeps."""
        try:
            await self._transport.wait_send_all_might_not_block()
        except trio.BrokenResourceError:
            self._broken = True
            raise

    async def send_eof(self) -> None:
        """End our direction, the peer's stays open.

        Raises:
            HalfCloseUnsupported: The transport cannot; nothing was done.
        """
        raise HalfCloseUnsupported(
            f"{type(self.transport).__name__} cannot end one direction only"
        )

    def detach(self) -> tuple[trio.abc.Stream, bytes]:
        """Give the transport away and forget it, in the manner of ``SSLStream.unwrap``.

        From now on the caller owns the transport, must close it, and must treat the
        returned bytes as coming before anything read from it. This stream then counts
        as closed, and nobody else closes the transport. Not to be called while another
        task uses the stream.

        Returns:
            The transport, and what was left unread of :attr:`head`. This is the pair
            that a Node handler gets as ``socket, head``. If the peer's end had been
            read already, the transport gives it again, as Trio's sockets do.

        Raises:
            trio.ClosedResourceError: It was detached before.
        """
        transport, left = self.transport, self._left
        self._forget()
        self._transport = _Detached()
        return transport, left

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        *,
        server_hostname: str | None = None,
        server_side: bool = False,
        https_compatible: bool = False,
    ) -> UpgradedStream:
        """Go on in TLS: make the handshake and return the stream within it.

        What is left of :attr:`head` is taken for the beginning of TLS. From the call on
        this object counts as detached, and the scope that owned it owns the new stream
        instead. Not to be called while another task uses the stream.

        Failed or cancelled, the connection is closed.

        Args:
            ssl_context: Of whoever is called the client or the server in TLS, which has
                nothing to do with who was which before.
            server_hostname: The name that the server's certificate must have; None is
                for servers, and for contexts that check no name.
            server_side: Whether we are the server.
            https_compatible: Whether the peer may end without a close_notify. Then
                nobody can tell a cut from an end.

        Raises:
            ValueError: The context does not go with the other arguments: it checks
                names, say, and there is none. Nothing was done.
            ssl.SSLError: It is one for the other side. Nothing was done.
            trio.BrokenResourceError: The handshake failed; the cause tells why.
            trio.ClosedResourceError: The stream was closed, detached or has gone on in
                TLS already.
        """
        if ssl_context.check_hostname and not (server_side or server_hostname):
            # Without a name ssl checks none, and says nothing.
            raise ValueError("the context checks names: server_hostname is missing")
        below = UpgradedStream(self.transport, self._left, ended=self._ended)
        tls = trio.SSLStream(
            below,
            ssl_context,
            server_hostname=server_hostname,
            server_side=server_side,
            https_compatible=https_compatible,
        )
        successor = UpgradedStream(tls)
        # The counts are the connection's.
        successor.received, successor.sent = self.received, self.sent
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
        """Close the transport; unread head bytes are dropped."""
        self._forget()
        await self._transport.aclose()

    @property
    def _left(self) -> bytes:
        # Of the head.
        return b"" if self._position is None else self._head[self._position :]

    def _forget(self) -> None:
        self._position = None
        self._ended = False

    @staticmethod
    def _find_underlying(stream: Any, *, to_receive: bool) -> object:  # noqa: ANN401  see below
        # Return what is below a stack of these; to receive from there, None until all
        # that is to be replayed has been.  Not by isinstance(), which is slow for what
        # has an abstract class above it; what a user makes of these is not looked into.
        while type(stream) in _KINDS:
            if to_receive and stream._position is not None:
                return None
            stream = stream._transport
        return stream

    @staticmethod
    def _record_transfer(
        stream: Any,  # noqa: ANN401  as checkers know no exact type
        *,
        received: int = 0,
        sent: int = 0,
        ended: bool = False,
        broken: bool = False,
    ) -> None:
        # Tell a stack of these what was done and met below it.
        while type(stream) in _KINDS:
            stream.received += received
            stream.sent += sent
            stream._peer_ended |= ended
            stream._broken |= broken
            stream = stream._transport


# For the copy loop, which goes past these streams to the socket below.
find_underlying = UpgradedStream._find_underlying  # pyright: ignore[reportPrivateUsage]
record_transfer = UpgradedStream._record_transfer  # pyright: ignore[reportPrivateUsage]


@final
class _HalfCloseableUpgradedStream(UpgradedStream, trio.abc.HalfCloseableStream):
    __slots__ = ()

    async def send_eof(self) -> None:
        transport = self._transport
        assert isinstance(transport, trio.abc.HalfCloseableStream)
        try:
            await transport.send_eof()
        except trio.BrokenResourceError:
            self._broken = True
            raise


_KINDS = frozenset({UpgradedStream, _HalfCloseableUpgradedStream})


@final
class _Detached(trio.abc.HalfCloseableStream):
    # What stands in the transport's place after detach(), so that no method of
    # UpgradedStream has to test for it.
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
