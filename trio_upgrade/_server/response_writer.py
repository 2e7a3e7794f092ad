# The bytes of a server's responses.  h11 is not asked: what it would check was checked
# when the Response was made, and it would take a quarter of a request's time.
from __future__ import annotations

from typing import TYPE_CHECKING, cast, final

from .._http.framing import frame_response

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .._http.headers import Field
    from .._messages import Response


@final
class ResponseWriter:
    """Writes what a server says to one request.

    It begins as if nothing could be made out of the request, so that this can be said.

    Attributes:
        method: Of the request, as far as it can be made out.
        old: Whether the request came in HTTP/1.0, or in who knows what.
        closes: Whether the connection ends with the answer.
        begun: Whether the answer is begun.
        ended: Whether it is written to its end.
    """

    __slots__ = ("_chunked", "_left", "begun", "closes", "ended", "method", "old")

    def __init__(self) -> None:
        self.method: str = ""
        self.old: bool = True
        self.closes: bool = True
        self.begun: bool = False
        self.ended: bool = False
        self._chunked = False
        # Of the content that Content-Length promises.
        self._left: int | None = None

    def write_switch(self, status: int, reason: str, fields: Iterable[Field]) -> bytes:
        """Return the bytes of a 1xx, or of the 200 to CONNECT: a head and no more."""
        return _format_head(status, reason, fields)

    def write_head(
        self, response: Response, date: Field, *, close: bool
    ) -> tuple[bytes, bool]:
        """Return the bytes of a final response's head, and whether content follows.

        Args:
            response: The response.
            date: Its Date, unless it has one.
            close: Whether to end the connection with it.

        Raises:
            ValueError: Its Content-Length is not the body's, or stands where none may
                (RFC 9110 §8.6); the response is not begun.
        """
        framing = frame_response(
            self.method, response, old=self.old, close=close or self.closes
        )
        fields = framing.fields
        if b"date" not in response.names:
            fields.insert(0, date)
        self.closes = framing.closes
        self.begun = True
        self._chunked = framing.chunked
        self._left = framing.length
        head = _format_head(response.status, response.reason, fields)
        return head, framing.has_content

    def write_body(self, chunk: bytes) -> bytes:
        """Return the bytes of a piece of content, empty for an empty one.

        Raises:
            ValueError: It is more than Content-Length says; the response is broken.
        """
        if not isinstance(cast("object", chunk), bytes):
            # The items of a view need not be bytes, and its length counts items.
            chunk = bytes(memoryview(chunk))
        if self._chunked:
            return b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunk else b""
        if self._left is not None:
            self._left -= len(chunk)
            if self._left < 0:
                raise ValueError("the body is longer than its Content-Length")
        return chunk

    def write_end(self) -> bytes:
        """Return the bytes, if any, that end a response with content.

        Raises:
            ValueError: Content-Length says more; the response is broken.
        """
        if self._left:
            raise ValueError("the body is shorter than its Content-Length")
        return b"0\r\n\r\n" if self._chunked else b""


def _format_head(status: int, reason: str, fields: Iterable[Field]) -> bytes:
    parts = [b"HTTP/1.1 %d %b\r\n" % (status, reason.encode("ascii"))]
    for name, value in fields:
        parts += name, b": ", value, b"\r\n"
    parts.append(b"\r\n")
    return b"".join(parts)
