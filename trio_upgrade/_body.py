# A message body, read once from the wire, on either side.
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

    What was gathered stays when a read is cancelled or over its limit, so the next one
    goes on from there.

    Args:
        receive: Gives the next piece, empty at the end.
        length: The number of bytes to come, None if unknown.
        limit: The most bytes that :meth:`read` gathers unless told otherwise.
        get_trailers: Gives the fields behind the body when that has ended.

    Attributes:
        trailers: Those fields; none before the end was read.
    """

    __slots__ = (
        "_ended",
        "_gathered",
        "_get_trailers",
        "_length",
        "_limit",
        "_receive",
        "trailers",
    )

    def __init__(
        self,
        receive: Callable[[], Awaitable[bytes]],
        length: int | None,
        limit: int,
        get_trailers: Callable[[], Headers] = Headers,
    ) -> None:
        self.trailers: Headers = NO_FIELDS
        self._get_trailers = get_trailers
        self._receive = receive
        self._length = length
        self._limit = limit
        self._gathered = bytearray()
        self._ended = length == 0

    async def read(self, limit: int | None) -> bytes:
        """Gather the whole body, or raise BodyTooLarge."""
        bound = self._limit if limit is None else limit
        await trio.lowlevel.checkpoint()
        if not self._ended and self._length is not None and self._length > bound:
            raise BodyTooLarge(bound)
        if not await self._gather(bound):
            raise BodyTooLarge(bound)
        return bytes(self._gathered)

    async def read_beginning(self, limit: int) -> tuple[bytes, bool]:
        """Return the first bytes, and whether there are more."""
        whole = await self._gather(limit)
        return self.peek(limit), not whole

    def peek(self, limit: int) -> bytes:
        """Return what was gathered so far."""
        return bytes(self._gathered[:limit])

    def get_gathered(self, start: int) -> bytes:
        """Return what was gathered from there on."""
        return bytes(self._gathered[start:])

    async def _gather(self, limit: int) -> bool:
        # Whether the whole body is within the limit.
        while not self._ended and len(self._gathered) <= limit:
            self._gathered += await self._take()
        return len(self._gathered) <= limit

    async def receive_some(self) -> bytes:
        """Return the next piece, which is not gathered; empty at the end."""
        if self._ended:
            await trio.lowlevel.checkpoint()
            return b""
        return await self._take()

    async def _take(self) -> bytes:
        chunk = await self._receive()
        if not chunk:
            self._ended = True
            self.trailers = self._get_trailers()
        return chunk

    def stream(self) -> BodyStream:
        """Iterate over the body: what was gathered first, then piece by piece."""
        return BodyStream(self)


@final
class BodyStream(AsyncIterator[bytes]):
    """The pieces of a body, as they come; from ``stream()``.

    No generator, so that leaving the loop early leaves nothing to be closed.
    """

    __slots__ = ("_body", "_replayed")

    def __init__(self, body: Body) -> None:
        self._body = body
        self._replayed = 0

    async def __anext__(self) -> bytes:
        gathered = self._body.get_gathered(self._replayed)
        if gathered:
            await trio.lowlevel.checkpoint()
            self._replayed += len(gathered)
            return gathered
        chunk = await self._body.receive_some()
        if not chunk:
            raise StopAsyncIteration
        return chunk


async def _receive_nothing() -> bytes:  # pragma: no cover  (no bytes end at once)
    await trio.lowlevel.checkpoint()
    return b""


# What has none shares this: it never changes.
NO_BODY = Body(_receive_nothing, 0, 0)
