# The part of HTTP/1.1 between bytes and messages that both roles share: the buffer, the
# message heads taken out of it, and bodies.  Without I/O; only this module and the codecs
# of the two roles know h11.
#
# A message head is collected here, whole and within its limits, and its raw bytes are
# checked before h11 gets them in one piece.  h11 is given no byte beyond the message that
# is being read, and each exchange has an h11.Connection of its own (making one costs
# about 2 us).  So the bytes after a message are always in our own buffer, exact to the
# byte, for the next message or for the other protocol.
from __future__ import annotations

from typing import TYPE_CHECKING

import h11

from .._errors import BadBody, MalformedMessage
from .chunked import ChunkDecoder
from .head_syntax import TCHARS, check_first_octet, find_head_end
from .headers import NO_FIELDS, Headers, field_values

if TYPE_CHECKING:
    from .._limits import Limits


class MessageCodec:
    """The reading half of a connection's HTTP state; the base of the two codecs.

    Args:
        limits: The limits.

    Attributes:
        body_ended: Whether the message that is being read was read to its end.
        body_left: How many bytes of its body are still to come, None if unknown.
        trailers: The fields after the body; empty until its end was read.
    """

    __slots__ = (
        "_body_pending",
        "_buffer",
        "_chunks",
        "_header_bytes",
        "_header_fields",
        "_parser",
        "_scanned",
        "body_ended",
        "body_left",
        "trailers",
    )

    _parser: h11.Connection

    def __init__(self, limits: Limits) -> None:
        self._header_bytes = limits.header_bytes
        self._header_fields = limits.header_fields
        self._buffer: bytes | bytearray = b""
        self._start_message()

    def _start_message(self) -> None:
        # Bytes that were read ahead are kept.
        self._chunks: ChunkDecoder | None = None
        # How many bytes of the buffer were searched for the end of a message head.
        self._scanned = 0
        self.body_ended: bool = True
        self.body_left: int | None = 0
        # Whether a next piece of the body, or its end, may have been received already.
        self._body_pending = False
        self.trailers: Headers = NO_FIELDS

    ################################################################
    # The buffer
    ################################################################

    def receive_data(self, data: bytes | bytearray) -> None:
        """Add bytes that were received."""
        if self._buffer:
            self._buffer = _extendable(self._buffer)
            self._buffer += data
        else:
            self._buffer = bytes(data)

    @property
    def has_buffered(self) -> bool:
        """Whether bytes have been read that are not parsed yet."""
        return bool(self._buffer)

    def has_buffered_bytes(self, size: int) -> bool:
        """Tell whether at least ``size`` bytes have been read that are not parsed yet."""
        return len(self._buffer) >= size

    def get_trailers(self) -> Headers:
        """Return the fields after the body; for a :class:`Body`, which may outlive us."""
        return self.trailers

    def detach(self) -> bytes:
        """Free the HTTP state and return the bytes not parsed yet; the last call."""
        rest = bytes(self._buffer)
        del self._parser, self._buffer
        return rest

    ################################################################
    # Message heads
    ################################################################

    def next_head(self) -> bytes | None:
        """Take one whole message head from the buffer; None if it is not complete yet.

        Raises:
            MalformedMessage: The bytes cannot be the beginning of a message head, or are
                over a limit.
        """
        buffer = self._buffer
        if buffer and buffer[0] not in TCHARS:
            buffer = self._skip_blank_line(buffer)
            if buffer:
                check_first_octet(buffer[0])
        end = find_head_end(buffer, self._scanned)
        size = end if end >= 0 else len(buffer)
        if size > self._header_bytes:
            raise MalformedMessage(
                f"a message head of more than {self._header_bytes} bytes (header_bytes)",
                # The start-line was too long if it does not end within the limit.
                status=431 if buffer.find(b"\n", 0, self._header_bytes) >= 0 else 414,
            )
        if end < 0:
            # "\n\r" may be the beginning of the end.
            self._scanned = max(0, size - 2)
            return None
        self._scanned = 0
        head = bytes(buffer[:size])
        if size == len(buffer):
            # Nearly always so, and then nothing was copied.
            self._buffer = b""
        else:
            self._buffer = _extendable(buffer)
            del self._buffer[:size]
        return head

    def _skip_blank_line(self, buffer: bytes | bytearray) -> bytes | bytearray:
        # Returns the buffer from the beginning of the message head; empty if that has not
        # come.  Only a server skips a blank line.
        return buffer  # pragma: no cover  (a client has checked its first octet)

    def _parse_head(self, raw: bytes) -> object:
        self._parser.receive_data(raw)
        try:
            return self._parser.next_event()
        except h11.RemoteProtocolError as exc:
            reason, status = _describe(exc), exc.error_status_hint
            raise MalformedMessage(reason, status=status) from None

    ################################################################
    # Bodies
    ################################################################

    def _start_body(self, headers: Headers) -> None:
        lengths = field_values(headers, b"content-length")
        self.body_ended = False
        if field_values(headers, b"transfer-encoding"):
            self._chunks = ChunkDecoder(self._header_bytes, self._header_fields)
            self.body_left = None
        else:
            self.body_left = int(lengths[0]) if lengths else None
        self._body_pending = bool(self._buffer)

    @property
    def may_have_body(self) -> bool:
        """Whether :meth:`next_body` may have something to return."""
        return self.body_ended or self._body_pending or bool(self._buffer)

    @property
    def framing_bytes(self) -> int:
        """How many bytes of the body that were received are not data."""
        return 0 if self._chunks is None else self._chunks.framing_bytes

    def next_body(self) -> bytes | None:
        """Take the next piece of the body; empty at its end, None if it is not here yet.

        A piece is all the data that is here, also of many chunks.

        Raises:
            BadBody: The framing is broken.
        """
        while not self.body_ended:
            received, self._buffer = bytes(self._buffer), b""
            data = b""
            if self._chunks is not None:
                # Also if nothing was received, to refuse a body that was refused before.
                data, received = self._chunks.decode(received)
            if received:
                self._parser.receive_data(received)
            if data:
                self._body_pending = True
                return data
            event = self._next_event()
            # By exact type: isinstance() is slow for h11's abstract base.
            if type(event) is h11.Data:
                self._body_pending = True
                if self.body_left is not None:
                    self.body_left -= len(event.data)
                return bytes(event.data)
            if type(event) is not h11.EndOfMessage:
                self._body_pending = False
                return None
            self.trailers = Headers(event.headers.raw_items())
            self.body_ended = True
            self.body_left = 0
            # The bytes after the body's end come back from h11.
            self._buffer += self._parser.trailing_data[0]
        return b""

    def receive_eof(self) -> None:
        """Note that the peer ended the connection while a body was read."""
        self._parser.receive_data(b"")

    def _next_event(self) -> object:
        try:
            return self._parser.next_event()
        except h11.RemoteProtocolError as exc:
            raise BadBody(_describe(exc)) from None


def _extendable(buffer: bytes | bytearray) -> bytearray:
    # To cut or extend a bytearray takes a time that does not depend on its length.
    return buffer if isinstance(buffer, bytearray) else bytearray(buffer)


def _describe(error: h11.RemoteProtocolError) -> str:
    # A frame of h11's that the error has passed refers to it: without this they, and all
    # frames up to ours, would be a cycle until the collector runs.
    error.__traceback__ = None
    # h11 quotes the line that it refuses. The line may contain a secret, and our messages
    # are sent to the peer and logged.
    return str(error).partition(": b")[0]
