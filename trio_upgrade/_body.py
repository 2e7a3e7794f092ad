# A message body, read once from the wire, on either side.
from __future__ import annotations

from typing import TYPE_CHECKING, final

import trio

from ._errors import BodyTooLarge

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable


@final
class Body:
    """The body of the message that is being read.

    What was gathered stays when a read is cancelled or over its limit, so the next one
    goes on from there.

    Args:
        receive: Gives the next piece, empty at the end.
        length: The number of bytes to come, None if unknown.
        limit: The most bytes that :meth:`read` gathers unless told otherwise.
    """

    __slots__ = ("_ended", "_gathered", "_length", "_limit", "_receive")

    def __init__(
        self,
        receive: Callable[[], Awaitable[bytes]],
        length: int | None,
        limit: int,
    ) -> None:
        self._receive = receive
        self._length = length
        self._limit = limit
        self._gathered = bytearray()
        self._ended = length == 0

    async def read(self, limit: int | None) -> bytes:
        bound = self._limit if limit is None else limit
        await trio.lowlevel.checkpoint()
        if not self._ended and self._length is not None and self._length > bound:
            raise BodyTooLarge(bound)
        while not self._ended and len(self._gathered) <= bound:
            chunk = await self._receive()
            self._gathered += chunk
            self._ended = not chunk
        if len(self._gathered) > bound:
            raise BodyTooLarge(bound)
        return bytes(self._gathered)

    async def stream(self) -> AsyncGenerator[bytes]:
        if self._gathered:
            await trio.lowlevel.checkpoint()
            yield bytes(self._gathered)
        while not self._ended:
            chunk = await self._receive()
            if chunk:
                yield chunk
            else:
                self._ended = True

    async def read_at_most(self, limit: int) -> tuple[bytes, bool]:
        # The beginning, and whether anything was cut off.
        while not self._ended and len(self._gathered) <= limit:
            chunk = await self._receive()
            self._gathered += chunk
            self._ended = not chunk
        return bytes(self._gathered[:limit]), len(self._gathered) > limit
