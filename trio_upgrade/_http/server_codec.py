# The server's HTTP/1.1 between bytes and messages: requests in, responses out.  h11
# parses the requests.  It does not write the responses: it would repeat checks that were
# made with the Response, and take a quarter of a request's time.
from __future__ import annotations

from typing import TYPE_CHECKING, cast, final

import h11

from .._errors import MalformedMessage
from .._util import name_kind
from .decisive_fields import keep_decisive
from .framing import check_request
from .head_syntax import check_head, check_second_blank_line, find_line_fault
from .headers import Field, Headers
from .message_codec import MessageCodec
from .messages import RequestHead
from .switching import expects_continue, keeps_alive

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .._limits import Limits

# One string for all requests with that method.  Not by sys.intern(), which keeps strings
# for ever in Python 3.12.0 to 3.12.5 and in free-threaded ones: clients may invent
# methods as long as a message head may be.
_METHODS = {
    name.encode(): name
    for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT")
}
_BAD_REQUEST = 400
# Statuses whose responses have no content (RFC 9110 §6.4.1).
_NO_CONTENT, _NOT_MODIFIED = 204, 304


@final
class ServerCodec(MessageCodec):
    """The HTTP state of one connection of a server.

    Args:
        limits: The limits.

    Attributes:
        continue_owed: Whether the request expects a 100 and none was sent yet.
        response_begun: Whether the final response was begun.
        response_ended: Whether the final response was written to its end.
        closes: Whether the connection ends after the final response.
    """

    __slots__ = (
        "_body_awaited",
        "_chunked",
        "_content_left",
        "_is_http10",
        "_method",
        "_skip_blank",
        "closes",
        "continue_owed",
        "response_begun",
        "response_ended",
    )

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self._start_exchange()

    def _start_exchange(self) -> None:
        # One blank line before a request is ignored (RFC 9112 §2.2).
        self._skip_blank = True
        # Whether the client may wait for a 100 before it sends the body.
        self._body_awaited = False
        self.continue_owed: bool = False
        # Until a request is parsed, a refusal is written as for an HTTP/1.0 client.
        self._method = ""
        self._is_http10 = True
        self.closes: bool = True
        self.response_begun: bool = False
        self.response_ended: bool = False
        self._chunked = False
        # How many bytes of content are left to send; None if Content-Length does not say.
        self._content_left: int | None = None

    def start_next_exchange(self) -> None:
        """Forget the last exchange; bytes that were read ahead are kept."""
        self._start_message()
        self._start_exchange()

    ################################################################
    # Requests
    ################################################################

    @property
    def has_begun_head(self) -> bool:
        """Whether a part of the next request was read; a blank line does not count."""
        return bool(self._buffer) and self._buffer != b"\r\n"

    @property
    def has_next(self) -> bool:
        """Whether bytes beyond this request have been read, as far as can be known."""
        held = self._parser.trailing_data[0]  # Received together with body bytes.
        return len(self._buffer) + len(held) > (self.body_left or 0)

    @property
    def client_waits(self) -> bool:
        """Whether the client may be waiting for a 100 before it sends the body."""
        return self._body_awaited and not self._buffer

    def next_request(self) -> RequestHead | None:
        """Take the next request's head from the buffer; None if it is not complete yet.

        Raises:
            MalformedMessage: It is not HTTP, or over a limit.
        """
        raw = self.next_head()
        if raw is None:
            return None
        try:
            return self.parse_request(raw)
        except MalformedMessage:
            # The refusal of a HEAD has no content either.
            self._method = raw[: raw.find(b" ")].decode("latin-1")
            raise

    def _skip_blank_line(self, buffer: bytes | bytearray) -> bytes | bytearray:
        if self._skip_blank and buffer.startswith(b"\r\n"):
            buffer = self._buffer = buffer[2:]
            self._skip_blank = False
        if not self._skip_blank:
            check_second_blank_line(buffer)
        # A CR alone may be the beginning of the blank line.
        return b"" if self._skip_blank and buffer == b"\r" else buffer

    def parse_request(self, raw: bytes) -> RequestHead:
        """Check and parse a request's head.

        Raises:
            MalformedMessage: It is not HTTP, or over a limit.
        """
        well_formed = check_head(raw, self._header_fields)
        try:
            found, decisive = check_request(raw)
            self._parser = h11.Connection(
                h11.SERVER, max_incomplete_event_size=self._header_bytes
            )
            event = self._parse_head(keep_decisive(raw, found) if well_formed else raw)
        except MalformedMessage as exc:
            fault = find_line_fault(raw) if exc.status == _BAD_REQUEST else None
            if fault is not None:
                exc.args = (fault,)
            raise
        assert isinstance(event, h11.Request)
        # Every line was checked, by h11 or as h11 would. h11's own list of fields is not
        # used: few apps look at more than the decisive ones, which are known already.
        headers = Headers(head=raw, decisive=decisive)
        # check_request() lets only these two versions through.
        http_version = "1.1" if event.http_version == b"1.1" else "1.0"
        # h11's next event would say the same, but takes longer.
        lengths = decisive.get(b"content-length")
        if b"transfer-encoding" in decisive or (lengths and int(lengths[0])):
            self._start_body(headers)
        # Also without content: if the request makes an offer, the 100 is a MUST.
        if b"expect" in decisive:
            self.continue_owed = expects_continue(http_version, headers)
            self._body_awaited = self.continue_owed
        method = _METHODS.get(event.method) or event.method.decode("ascii")
        self._method = method
        self._is_http10 = http_version != "1.1"
        self.closes = not keeps_alive(http_version, headers)
        return RequestHead(method, event.target.decode("ascii"), http_version, headers)

    def next_body(self) -> bytes | None:
        """Take the next piece of the body; see :meth:`MessageCodec.next_body`."""
        if self._buffer:
            self._body_awaited = False
        return super().next_body()

    ################################################################
    # Responses
    ################################################################

    @property
    def is_http10(self) -> bool:
        """Whether the request is of HTTP/1.0; True until one was parsed."""
        return self._is_http10

    def write_informational(
        self, status: int, reason: str, fields: Iterable[Field]
    ) -> bytes:
        """Return the bytes of a 1xx that is neither a 100 nor a 101.

        A client that waits for a 100 goes on waiting.
        """
        return _format_head(status, reason, fields)

    def write_interim(self, status: int, reason: str, fields: Iterable[Field]) -> bytes:
        """Return the bytes of a 100, a 101, or the 200 to CONNECT: a header section."""
        # After any of them the client need not wait for a 100 any more.
        self.continue_owed = self._body_awaited = False
        return _format_head(status, reason, fields)

    def write_response(
        self,
        status: int,
        reason: str,
        headers: Headers,
        length: int | None,
        date: Field,
        *,
        close: bool,
    ) -> tuple[bytes, bool]:
        """Return the header section of a final response, and whether content follows.

        Args:
            status: The status code.
            reason: The reason phrase.
            headers: The fields of the app's response, checked; those that frame it are
                added here.
            length: How many bytes the body has, None if that is not known yet.
            date: The Date field, for a response that has none.
            close: Whether to end the connection after it.

        Raises:
            ValueError: Content-Length is not the length of the body; the response is
                not begun.
        """
        fields = headers.raw
        written = [*fields] if headers.lines(b"date") else [date, *fields]
        may_have_content = status not in (_NO_CONTENT, _NOT_MODIFIED)
        has_content = may_have_content and self._method != "HEAD"
        close = close or self.closes
        chunked = False
        if declared := headers.lines(b"content-length"):
            # One number, and right for a body that is here: Response has checked that.
            # But the answer to HEAD may leave the body out.
            stated = int(declared[0])
            if has_content and length not in (None, stated):
                raise ValueError(
                    "Content-Length is not the length of the body: "
                    f"{stated}, not {length}"
                )
            length = stated
        elif not may_have_content:
            length = None
        elif length is not None:
            written.append((b"Content-Length", b"%d" % length))
        elif self._is_http10:
            # The end of the connection is the end of the content.
            close = close or has_content
        else:
            written.append((b"Transfer-Encoding", b"chunked"))
            chunked = has_content
        closing = bool(headers.lines(b"connection")) and "close" in headers.options()
        if close and not closing:
            written.append((b"Connection", b"close"))
        self.closes = close or closing
        self.response_begun = True
        self.continue_owed = self._body_awaited = False
        self._chunked = chunked
        self._content_left = length if has_content else None
        return _format_head(status, reason, written), has_content

    def write_body(self, chunk: bytes) -> bytes:
        """Return the bytes of a piece of content; empty for an empty piece.

        Raises:
            ValueError: It is more than Content-Length says; the response is broken.
        """
        if not isinstance(cast("object", chunk), bytes):
            # The items of a memoryview need not be bytes, and its length counts items.
            try:
                chunk = bytes(memoryview(chunk))
            except TypeError:
                kind = name_kind(chunk)
                raise TypeError(
                    f"a piece of a body must be bytes, not {kind}"
                ) from None
        if self._chunked:
            return b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunk else b""
        if self._content_left is not None:
            self._content_left -= len(chunk)
            if self._content_left < 0:
                raise ValueError("the body is longer than its Content-Length")
        return chunk

    def write_end(self, trailers: Iterable[Field] = ()) -> bytes:
        """Return the bytes, if any, that end a response with content.

        Args:
            trailers: The trailer fields; left out of content that is not chunked.

        Raises:
            ValueError: Content-Length says more; the response is broken.
        """
        if self._content_left:
            raise ValueError("the body is shorter than its Content-Length")
        if not self._chunked:
            return b""
        return _format_fields(b"0\r\n", trailers) if trailers else b"0\r\n\r\n"


def _format_head(status: int, reason: str, fields: Iterable[Field]) -> bytes:
    first = b"HTTP/1.1 %d %b\r\n" % (status, reason.encode("latin-1"))
    return _format_fields(first, fields)


def _format_fields(first_line: bytes, fields: Iterable[Field]) -> bytes:
    parts = [first_line]
    for name, value in fields:
        parts += name, b": ", value, b"\r\n"
    parts.append(b"\r\n")
    return b"".join(parts)
