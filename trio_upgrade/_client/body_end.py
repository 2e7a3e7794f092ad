# The body of a response whose connection is used again as soon as its end has been read.
# From then on the HTTP state of the connection is that of another exchange, so such a
# body never asks it again: otherwise it could be given the bytes, or the trailer fields,
# of an answer to another request.
from __future__ import annotations

from typing import TYPE_CHECKING, final

import trio

from .._body import Body
from .._http.headers import NO_FIELDS, Headers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .http import ClientHTTP

    AtEnd = Callable[[], Awaitable[None]]


@final
class BodyReceiver:
    """Receives one body, and reports its end once.

    Args:
        http: The connection.
        at_end: Awaited when the end has been received.
    """

    __slots__ = ("_at_end", "_ended", "_http", "_trailers")

    def __init__(self, http: ClientHTTP, at_end: AtEnd) -> None:
        self._http = http
        self._at_end = at_end
        self._ended = False
        self._trailers: Headers = NO_FIELDS

    def make_body(self, limit: int) -> Body:
        """Return the body; see :meth:`HTTPStream.make_body`."""
        return Body(
            self._receive,
            self._http.body_left,
            limit,
            self._get_trailers,
            self._receive_buffered,
            ends_at_length=True,
        )

    async def _receive(self) -> bytes:
        if self._ended:
            await trio.lowlevel.checkpoint()
            return b""
        return await self._note(await self._http.receive_body())

    async def _receive_buffered(self) -> bytes | None:
        # Not called after the end: the length, or the empty piece, has told it.
        piece = await self._http.receive_buffered_body()
        return None if piece is None else await self._note(piece)

    async def _note(self, piece: bytes) -> bytes:
        # With the last byte of a known length, and not only when the reader asks for
        # more: a reader that knows the length as well may never ask.
        if not piece or self._http.body_ended:
            self._ended = True
            self._trailers = self._http.get_trailers()
            await self._at_end()
        return piece

    def _get_trailers(self) -> Headers:
        return self._trailers
