# A message body, of a request or of a response, which is read from the wire only once.
#
# read() and read_beginning() gather pieces in memory and keep them; receive_some() and
# the iteration give pieces away and keep nothing.  So a read that was cancelled, or
# that went over its limit, can be followed by any other read without losing a byte.
from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, final

import trio

from ._errors import BodyTooLarge
from ._http.headers import NO_FIELDS, Headers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


@final
class Body:
    """The body of the message that is being read.

    If a read is cancelled or fails because of its limit, the gathered bytes are kept,
    and the next read continues from there.

    Args:
        receive: Receives the next piece; empty at the end of the body.
        length: The length of the body in bytes, None if unknown.
        limit: The most bytes that :meth:`read` gathers if it is given no limit.
        get_trailers: Returns the trailer fields; called once, at the end of the body.
        receive_buffered: Returns the next piece if it was received already, else None;
            None if :meth:`gather_received` is not used.
        ends_at_length: Whether ``receive`` reaches the end of the body with the last byte
            of a known length. It is then not called once more, which would cost a pass
            of the scheduler.

    Attributes:
        trailers: The trailer fields; empty until the end of the body has been read.
    """

    __slots__ = (
        "_ended",
        "_ends_at_length",
        "_gathered",
        "_get_trailers",
        "_left",
        "_limit",
        "_receive",
        "_receive_buffered",
        "trailers",
    )

    def __init__(
        self,
        receive: Callable[[], Awaitable[bytes]],
        length: int | None,
        limit: int,
        get_trailers: Callable[[], Headers] = Headers,
        receive_buffered: Callable[[], Awaitable[bytes | None]] | None = None,
        *,
        ends_at_length: bool = False,
    ) -> None:
        self.trailers: Headers = NO_FIELDS
        self._get_trailers = get_trailers
        self._receive = receive
        self._receive_buffered = receive_buffered
        # How many bytes are still to be received; None if unknown.
        self._left = length
        self._limit = limit
        self._gathered = bytearray()
        self._ended = length == 0
        self._ends_at_length = ends_at_length

    async def read(self, limit: int | None) -> bytes:
        """Return the whole body.

        Args:
            limit: The most bytes to gather, None for the limit of the body.

        Raises:
            BodyTooLarge: The body is longer; what was gathered is kept.
        """
        if limit is None:
            limit = self._limit
        length = self.count_left(0)
        too_long = length is not None and length > limit
        if too_long or self._ended or len(self._gathered) > limit:
            # Nothing will be received, which would be a checkpoint.
            await trio.lowlevel.checkpoint()
        if too_long or not await self._gather(limit):
            raise BodyTooLarge(limit)
        return bytes(self._gathered)

    async def read_beginning(self, limit: int) -> tuple[bytes, bool]:
        """Return the first ``limit`` bytes of the body, and whether there are more."""
        complete = await self._gather(limit)
        return self.peek(limit), not complete

    async def gather_received(self) -> bytes | None:
        """Return the whole body if it was received already; else gather what was.

        Returns:
            None if its end was not received yet.
        """
        while not self._ended:
            assert self._receive_buffered is not None
            piece = await self._receive_buffered()
            if piece is None:
                return None
            self._note_piece(piece)
            self._gathered += piece
            if self._left == 0:
                # The end of a body of known length needs no further look.
                break
        return bytes(self._gathered)

    def peek(self, limit: int) -> bytes:
        """Return the first ``limit`` bytes of what was gathered so far."""
        return bytes(self._gathered[:limit])

    def get_gathered(self, start: int) -> bytes:
        """Return the bytes gathered so far, from this index on."""
        return bytes(self._gathered[start:])

    def count_left(self, start: int) -> int | None:
        """Return how many bytes the body has from here on; None if that is unknown.

        Args:
            start: How many of the gathered bytes are left out.
        """
        if self._left is None:
            return None
        return len(self._gathered) - start + self._left

    async def _gather(self, limit: int) -> bool:
        # Returns whether the whole body is within the limit.
        while not self._ended and len(self._gathered) <= limit:
            self._gathered += await self._receive_piece()
        return len(self._gathered) <= limit

    async def receive_some(self) -> bytes:
        """Return the next piece without gathering it; empty at the end of the body."""
        if self._ended:
            await trio.lowlevel.checkpoint()
            return b""
        return await self._receive_piece()

    async def _receive_piece(self) -> bytes:
        piece = await self._receive()
        self._note_piece(piece)
        return piece

    def _note_piece(self, piece: bytes) -> None:
        if self._left is not None:
            self._left -= len(piece)
        if not piece or (self._left == 0 and self._ends_at_length):
            self._ended = True
            self._left = 0
            self.trailers = self._get_trailers()

    def stream(self) -> BodyStream:
        """Iterate over the body: first the gathered bytes, then piece by piece."""
        return BodyStream(self)


class BodyStream(AsyncIterator[bytes]):
    """The pieces of a body as they come; returned by ``stream()``.

    Not an async generator, since that would have to be closed if a loop over it ends
    early.
    """

    __slots__ = ("_body", "_replayed")

    def __init__(self, body: Body) -> None:
        self._body = body
        # How many of the gathered bytes this iterator has returned.
        self._replayed = 0

    @property
    def length(self) -> int | None:
        """How many bytes it still yields if no one else reads; None if unknown."""
        return self._body.count_left(self._replayed)

    async def __anext__(self) -> bytes:
        gathered = self._body.get_gathered(self._replayed)
        if gathered:
            await trio.lowlevel.checkpoint()
            self._replayed += len(gathered)
            return gathered
        piece = await self._body.receive_some()
        if not piece:
            raise StopAsyncIteration
        return piece


async def _receive_nothing() -> bytes:  # pragma: no cover  (a length of 0 has ended)
    await trio.lowlevel.checkpoint()
    return b""


# Shared by all messages without a body; it never changes.
NO_BODY = Body(_receive_nothing, 0, 0)
