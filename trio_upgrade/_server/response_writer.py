# The bytes of a server's responses.  h11 is not asked: what it would check was checked
# when the Response was made, and it would take a quarter of a request's time.
from __future__ import annotations

from typing import TYPE_CHECKING, cast, final

from .._http.headers import Field, field_values
from .._http.tokens import connection_options

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .._http.headers import Field
    from .response import Response

# Statuses whose responses have no content (RFC 9110 §6.4.1).
_NO_CONTENT, _NOT_MODIFIED = 204, 304
# As many digits as h11 takes.
_LENGTH_DIGITS = 20


@final
class Framing:
    """How a final response of ours is framed.

    Attributes:
        fields: Its fields, those that frame it among them.
        has_content: Whether content follows the head.
        length: How many bytes of it were promised, None if that was not said.
        chunked: Whether it is chunked.
        closes: Whether the connection ends with it.
    """

    __slots__ = ("chunked", "closes", "fields", "has_content", "length")

    def __init__(
        self,
        fields: list[Field],
        has_content: bool,
        length: int | None,
        chunked: bool,
        closes: bool,
    ) -> None:
        self.fields = fields
        self.has_content = has_content
        self.length = length
        self.chunked = chunked
        self.closes = closes


def frame_response(
    method: str, response: Response, *, is_http10: bool, close: bool
) -> Framing:
    """Decide about the framing of a final response.

    Args:
        method: Of the request, empty if none could be made out.
        response: The response.
        is_http10: Whether the client speaks HTTP/1.0, which knows no chunks.
        close: Whether the connection ends in any case.

    Raises:
        ValueError: A Content-Length among its fields is not the body's, or stands
            where none may (RFC 9110 §8.6).
    """
    fields, names, status = [*response.fields], response.names, response.status
    may_have_content = status not in (_NO_CONTENT, _NOT_MODIFIED)
    has_content = may_have_content and method != "HEAD"
    length = len(response.body) if isinstance(response.body, bytes) else None
    chunked = False
    if b"content-length" in names:
        length = _check_declared(response, length if has_content else None)
    elif not may_have_content:
        length = None
    elif length is not None:
        fields.append((b"Content-Length", b"%d" % length))
    elif is_http10:
        # The end of the connection is the end of the content.
        close = close or has_content
    else:
        fields.append((b"Transfer-Encoding", b"chunked"))
        chunked = has_content
    closing = b"connection" in names and "close" in connection_options(
        field_values(fields, b"connection")
    )
    if close and not closing:
        fields.append((b"Connection", b"close"))
    return Framing(
        fields,
        has_content,
        length if has_content else None,
        chunked,
        close or closing,
    )


def _check_declared(response: Response, length: int | None) -> int:
    declared = field_values(response.fields, b"content-length")
    if (
        len(declared) != 1
        or not declared[0].isdigit()
        or len(declared[0]) > _LENGTH_DIGITS
    ):
        raise ValueError("Content-Length is not one number")
    if response.status == _NO_CONTENT:
        raise ValueError("a 204 has no Content-Length")
    if length not in (None, int(declared[0])):
        raise ValueError("Content-Length is not the length of the body")
    return int(declared[0])


@final
class ResponseWriter:
    """Writes what a server says to one request.

    It begins as if nothing could be made out of the request, so that this can be said.

    Attributes:
        method: Of the request, as far as it can be made out.
        is_http10: Whether the request came in HTTP/1.0, or in who knows what.
        closes: Whether the connection ends with the answer.
        begun: Whether the answer is begun.
        ended: Whether it is written to its end.
    """

    __slots__ = ("_chunked", "_left", "begun", "closes", "ended", "is_http10", "method")

    def __init__(self) -> None:
        self.method: str = ""
        self.is_http10: bool = True
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
            self.method, response, is_http10=self.is_http10, close=close or self.closes
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
