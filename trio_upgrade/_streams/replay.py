# The receiving half of the stream that a switch results in: it replays the bytes that
# were read early (the head), then reads from the transport.
#
# _position is the index of the next byte to replay in _unread; None if there is nothing
# to replay, which is the state of nearly all streams nearly all the time.  _unread begins
# with the head, as long as any of that is unread, and has then the bytes that
# receive_exactly() and receive_until() have received in addition.
#
# Two traps.  The checkpoint comes before the replay moves on, so that a cancelled read
# loses nothing (Trio's rule; httpcore's wrapper has no checkpoint).  And an end of stream
# that the HTTP reader has already seen is a part of the replay: it comes after the head,
# however late the app reads.
from __future__ import annotations

import operator

import trio

from .._errors import EndOfStream, TooLong

# Bytes to receive at a time where more are wanted: the default of Trio's streams, which
# take that much memory for each call.
_MOST_AT_ONCE = 65536


class ReplayStream(trio.abc.Stream):
    """A stream that replays bytes before it receives from the stream below.

    Args:
        transport: The stream below.
        head: Bytes that have already been read from the transport.
        ended: Whether the peer's end of stream has been read as well.

    Attributes:
        received: The number of bytes received from this stream, head included.
    """

    __slots__ = (
        "_broken",
        "_ended",
        "_head",
        "_peer_ended",
        "_position",
        "_receiving",
        "_transport",
        "_unread",
        "received",
    )

    def __init__(self, transport: trio.abc.Stream, head: bytes, *, ended: bool) -> None:
        self._transport: trio.abc.Stream = transport
        self._head = head
        self._unread: bytes | bytearray = head
        self._position: int | None = 0 if head or ended else None
        self._ended = ended
        self._receiving = False
        self._peer_ended = False
        self._broken = False
        self.received: int = 0

    @property
    def head(self) -> bytes:
        """The bytes that had been read before the switch; often empty.

        This is a snapshot to look at. The bytes are *still in the stream*, so do not
        parse or send them as well. An empty head does not mean that the peer has sent
        nothing: bytes that arrived a moment later are not in it.

        It does not change while any of it is unread. Once all was received from this
        stream, or the stream was closed, detached or given to :meth:`start_tls`, it is
        ``b""``: a connection may live for days, and must not keep bytes that are used.
        """
        return self._head

    @property
    def peer_ended(self) -> bool:
        """Whether a read has met the peer's end of stream."""
        return self._peer_ended

    @property
    def broken(self) -> bool:
        """Whether a call has raised :exc:`trio.BrokenResourceError`."""
        return self._broken

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive the unread part of the head, then from the transport.

        A cancelled call has lost no bytes of the head; otherwise it keeps the contract
        of the transport, and raises its errors.

        Args:
            max_bytes: The most bytes to return; None leaves the number to the stream.
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
        left = len(self._unread) - start
        if not left:
            # Only the end of stream is left; every further read returns it.
            self._peer_ended = True
            return b""
        return self._take(left if max_bytes is None else min(max_bytes, left))

    def _take(self, size: int) -> bytes:
        start = self._position
        assert start is not None
        stop = start + size
        whole = size == len(self._unread)
        # Of bytes this is no copy, of a bytearray it is one.
        data = bytes(self._unread if whole else self._unread[start:stop])
        self._position = stop
        self.received += size
        if stop >= len(self._head):
            # Let the copy go.
            self._head = b""
        if stop == len(self._unread):
            self._unread = b""
            self._position = 0 if self._ended or self._receiving else None
        return data

    async def receive_exactly(self, size: int) -> bytes:
        """Receive exactly so many bytes, and no byte after them.

        If this is cancelled or raises an exception, the bytes that have come are again
        the next to be read, by any method of this stream, :func:`pipe`, :func:`relay`,
        :meth:`detach` or :meth:`start_tls`.

        Args:
            size: The number of bytes, which are all held in memory; 0 is a checkpoint.

        Raises:
            EndOfStream: The peer ended its direction before; ``available`` is how many
                bytes came.
            ValueError: ``size`` is negative.
            trio.BusyResourceError: Another task is receiving.
            Exception: The errors of :meth:`receive_some`.
        """
        size = operator.index(size)
        if size < 0:
            raise ValueError(f"size must not be negative, not {size}")
        self._begin_receiving()
        try:
            if (missing := size - self._available) <= 0:
                await trio.lowlevel.checkpoint()
                self._check_open()
            while missing > 0:
                if not await self._receive_more(min(missing, _MOST_AT_ONCE)):
                    raise EndOfStream(f"{size} bytes", self._available)
                missing = size - self._available
            return self._take(size)
        finally:
            self._end_receiving()

    async def receive_until(self, separator: bytes, limit: int) -> bytes:
        """Receive the bytes up to a separator and the separator itself.

        Bytes after the separator may have been received as well; they are the next to be
        read, as all bytes are if this is cancelled or raises an exception: by any method
        of this stream, :func:`pipe`, :func:`relay`, :meth:`detach` or :meth:`start_tls`.
        Each byte is searched once, however few come at a time.

        Args:
            separator: The bytes to search for, at least one.
            limit: The most bytes to return, the separator included.

        Raises:
            TooLong: The separator does not end within ``limit`` bytes.
            EndOfStream: The peer ended its direction before the separator.
            ValueError: The separator is empty, or longer than the limit.
            trio.BusyResourceError: Another task is receiving.
            Exception: The errors of :meth:`receive_some`.
        """
        limit = operator.index(limit)
        if not 0 < len(separator) <= limit:
            raise ValueError(
                f"the separator must have 1 to {limit} bytes, not {len(separator)}"
            )
        self._begin_receiving()
        try:
            fresh, searched = False, 0
            while True:
                start = self._position
                assert start is not None
                stop = self._unread.find(separator, start + searched, start + limit)
                if stop >= 0:
                    if not fresh:
                        await trio.lowlevel.checkpoint()
                        self._check_open()
                    return self._take(stop - start + len(separator))
                if self._available >= limit:
                    raise TooLong(bytes(separator), limit)
                # The separator may have begun, but not with its last byte.
                searched = max(0, self._available - len(separator) + 1)
                if not await self._receive_more(_MOST_AT_ONCE):
                    raise EndOfStream(repr(bytes(separator)), self._available)
                fresh = True
        finally:
            self._end_receiving()

    @property
    def _available(self) -> int:
        # How many bytes can be read without the transport.
        return 0 if self._position is None else len(self._unread) - self._position

    def _begin_receiving(self) -> None:
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving from this stream")
        self._receiving = True
        if self._position is None:
            # So that receive_some() and the copies look whether another task receives.
            self._position = 0

    def _end_receiving(self) -> None:
        self._receiving = False
        if not (self._ended or self._available):
            self._position = None

    def _check_open(self) -> None:
        if self._position is None:
            raise trio.ClosedResourceError("another task closed this stream")

    async def _receive_more(self, most: int) -> bool:
        # Returns whether bytes have come; if not, the peer has ended.
        if self._ended:
            await trio.lowlevel.checkpoint()
            chunk: bytes | bytearray = b""
        else:
            try:
                chunk = await self._transport.receive_some(most)
            except trio.BrokenResourceError:
                self._broken = True
                raise
        self._check_open()
        if not chunk:
            self._ended = self._peer_ended = True
            return False
        if not self._unread:
            self._unread = chunk
            return True
        if not isinstance(self._unread, bytearray):
            # Appending to bytes would copy them for each chunk.
            self._unread = bytearray(self._unread)
        if self._position and not self._head:
            del self._unread[: self._position]
            self._position = 0
        self._unread += chunk
        return True

    @property
    def _unread_head(self) -> bytes:
        return b"" if self._position is None else bytes(self._unread[self._position :])

    def _forget(self) -> None:
        self._head = self._unread = b""
        self._position = None
        self._ended = False
