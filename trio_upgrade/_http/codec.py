# HTTP/1.1 between bytes and messages, either role, without I/O; the only room that knows
# h11.  A head is gathered here, whole and within its limits, and checked on its raw bytes
# before h11 gets it in one piece.  h11 is given no byte beyond the message that is being
# read, and each exchange has an h11.Connection of its own (making one costs about 2 us):
# so what follows a message is always in our own buffer, exact to the byte, for the next
# request or for the other protocol.
from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias, final

import h11

# Public by h11's documentation, but missing from its __all__.
from h11 import (  # type: ignore[attr-defined]
    MIGHT_SWITCH_PROTOCOL,  # pyright: ignore[reportPrivateImportUsage]
)

from .._errors import BadBody, IllegalSwitch, MalformedMessage
from .chunked import ChunkGuard
from .framing import (
    check_request,
    check_response,
    drop_framing,
)
from .head_syntax import TCHARS, check_first_octet, check_head, find_head_end
from .headers import NO_FIELDS, Field, Headers, field_values
from .messages import RequestHead, ResponseHead
from .switching import expects_continue

if TYPE_CHECKING:
    from .._limits import Limits

Role: TypeAlias = Literal["server", "client"]
# One string for all requests that have it.  Not by sys.intern(), which keeps what it is
# given for ever in Python 3.12.0 to 3.12.5 and in free-threaded ones: and clients may
# make up methods as long as a head.
_METHODS = {
    name.encode(): name
    for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT")
}


@final
class HTTPCodec:
    """The HTTP state of one connection.

    Args:
        role: Which side we are.
        limits: The bounds.

    Attributes:
        body_ended: Whether the message that is being read is read to its end.
        body_left: How many bytes of it are still to come, None if that is unknown.
        body_pending: Whether the next piece may be here already.
        continue_owed: Whether the request expects a 100 and has had none yet.
        trailers: The fields behind the body, once it is read to its end.
    """

    __slots__ = (
        "_body_awaited",
        "_buffer",
        "_chunks",
        "_header_bytes",
        "_header_fields",
        "_method",
        "_parser",
        "_role",
        "_scanned",
        "_skip_blank",
        "body_ended",
        "body_left",
        "body_pending",
        "continue_owed",
        "trailers",
    )

    _parser: h11.Connection

    def __init__(self, role: Role, limits: Limits) -> None:
        # Nothing but start_exchange() may be called first.
        self._role = h11.SERVER if role == "server" else h11.CLIENT
        self._header_bytes = limits.header_bytes
        self._header_fields = limits.header_fields
        self._buffer: bytes | bytearray = b""

    def start_exchange(self) -> None:
        """Forget the last exchange; what was read ahead stays."""
        # Of our request, where it decides about the response.
        self._method = ""
        self._chunks: ChunkGuard | None = None
        self._body_awaited = False
        self._scanned = 0
        # One blank line is forgiven before a request (RFC 9112 §2.2), none elsewhere.
        self._skip_blank = self._role is h11.SERVER
        self.body_ended: bool = True
        self.body_left: int | None = 0
        self.body_pending: bool = False
        self.continue_owed: bool = False
        self.trailers: Headers = NO_FIELDS

    def _start_parser(self) -> None:
        self._parser = h11.Connection(
            self._role, max_incomplete_event_size=self._header_bytes
        )

    ################################################################
    # Reading
    ################################################################

    @property
    def client_waits(self) -> bool:
        """Whether the client may be waiting for a 100 before it sends the body."""
        return self._body_awaited and not self._buffer

    def continue_sent(self) -> None:
        """Take in that the client need not wait any more."""
        self.continue_owed = self._body_awaited = False

    @property
    def has_read_ahead(self) -> bool:
        """Whether bytes that no message has claimed yet are here."""
        return bool(self._buffer)

    @property
    def has_begun_head(self) -> bool:
        """Whether some of the next head is here; the blank line before it is nothing."""
        return bool(self._buffer) and not (
            len(self._buffer) == len(b"\r\n") and self._buffer.startswith(b"\r\n")
        )

    def has_ahead(self, size: int) -> bool:
        """Whether so many bytes were read ahead."""
        return len(self._buffer) >= size

    @property
    def has_next(self) -> bool:
        """Whether bytes are here that may be behind this message."""
        held = self._parser.trailing_data[0]  # What a part of the body came with.
        return len(self._buffer) + len(held) > (self.body_left or 0)

    def receive_data(self, received: bytes | bytearray) -> None:
        """Take in what was received; for a head, until :meth:`next_head` has one."""
        if self._buffer:
            self._buffer = _extendable(self._buffer)
            self._buffer += received
        else:
            self._buffer = bytes(received)

    def next_head(self) -> bytes | None:
        """Take one whole head off what was fed; None if its end has not come.

        Raises:
            MalformedMessage: What is there cannot become one, or breaks a limit.
        """
        buffer = self._buffer
        if buffer and buffer[0] not in TCHARS:
            buffer = self._skip_line(buffer)
        end = find_head_end(buffer, self._scanned)
        size = end if end >= 0 else len(buffer)
        if size > self._header_bytes:
            raise MalformedMessage(
                f"a head of more than {self._header_bytes} bytes",
                # The line is what was too long if its end is not within the bound.
                status=431 if buffer.find(b"\n", 0, self._header_bytes) >= 0 else 414,
            )
        if end < 0:
            # "\n\r" may be all that is here of the end.
            self._scanned = max(0, size - 2)
            return None
        self._scanned = 0
        head = bytes(buffer[:size])
        if size == len(buffer):
            # As nearly always, and then nothing was copied.
            self._buffer = b""
        else:
            self._buffer = _extendable(buffer)
            del self._buffer[:size]
        return head

    def _skip_line(self, buffer: bytes | bytearray) -> bytes | bytearray:
        # The blank one that is forgiven; whatever else cannot become a head.
        if self._skip_blank and buffer.startswith(b"\r\n"):
            buffer = self._buffer = buffer[2:]
            self._skip_blank = False
        if buffer and not (self._skip_blank and buffer == b"\r"):
            check_first_octet(buffer[0])
        return buffer

    def parse_request(self, raw: bytes) -> RequestHead:
        """Check and parse a request head.

        Raises:
            MalformedMessage: It is none.
        """
        check_head(raw, self._header_fields)
        decisive = check_request(raw)
        self._start_parser()
        event = self._parse_head(raw)
        assert isinstance(event, h11.Request)
        # h11 has checked every line; what it made of them nobody may ask for.
        headers = Headers(head=raw, decisive=decisive)
        # One of two by now.
        http_version = "1.1" if event.http_version == b"1.1" else "1.0"
        # h11 would tell as much by its next events, and take longer for it.
        lengths = decisive.get(b"content-length")
        if b"transfer-encoding" in decisive or (lengths and int(lengths[0])):
            self.body_ended = False
            self._measure_body(headers)
        # With or without content: an offer beside it makes the 100 a duty.
        if b"expect" in decisive:
            self.continue_owed = expects_continue(http_version, headers)
            self._body_awaited = self.continue_owed
        return RequestHead(
            _METHODS.get(event.method) or event.method.decode("ascii"),
            event.target.decode("ascii"),
            http_version,
            headers,
        )

    def parse_response(self, raw: bytes) -> ResponseHead:
        """Check and parse a response head, an informational one too.

        Raises:
            MalformedMessage: It is none.
            IllegalSwitch: It is a 101, and nobody asked for one, or it came before the
                request was sent whole.
        """
        check_head(raw, self._header_fields)
        status = raw[9:12]
        tunnel = self._method == "CONNECT" and status.startswith(b"2")
        check_response(raw, has_body=not (tunnel or status.startswith(b"1")))
        if tunnel:
            raw = drop_framing(raw)
        state = self._parser.our_state
        # Of a CONNECT, too, h11 says that it might switch: to a tunnel.
        asked = state is MIGHT_SWITCH_PROTOCOL and self._method != "CONNECT"
        if raw[9:13].rstrip() == b"101" and not asked:
            raise IllegalSwitch(
                "it came before the request was through"
                if state in (h11.ERROR, h11.SEND_BODY)
                else "the request asked for no switch"
            )
        event = self._parse_head(raw)
        assert isinstance(event, h11.InformationalResponse | h11.Response)
        headers = Headers(event.headers.raw_items())
        if isinstance(event, h11.Response) and not tunnel:
            # Only the head was fed, so what comes now is the end of a message without
            # a body, or the wish for more.
            self.body_ended = isinstance(self._next_event(), h11.EndOfMessage)
            if not self.body_ended:
                self._measure_body(headers)
        return ResponseHead(
            event.status_code,
            event.reason.decode("latin-1"),
            event.http_version.decode("ascii"),
            headers,
        )

    def _parse_head(self, raw: bytes) -> object:
        self._parser.receive_data(raw)
        try:
            return self._parser.next_event()
        except h11.RemoteProtocolError as exc:
            reason = _without_quote(exc)
            raise MalformedMessage(reason, status=exc.error_status_hint) from None

    def _measure_body(self, headers: Headers) -> None:
        lengths = field_values(headers, b"content-length")
        if field_values(headers, b"transfer-encoding"):
            self._chunks = ChunkGuard(self._header_bytes, self._header_fields)
            self.body_left = None
        else:
            self.body_left = int(lengths[0]) if lengths else None
        self.body_pending = bool(self._buffer)

    def next_body(self) -> bytes | None:
        """Take the next piece of the body; empty at its end, None if it has not come.

        Raises:
            BadBody: The framing is broken.
        """
        while not self.body_ended:
            received, self._buffer = bytes(self._buffer), b""
            if self._chunks is not None:
                # Of nothing, too: what it has refused h11 never saw.
                self._chunks.check(received)
            if received:
                self._body_awaited = False
                self._parser.receive_data(received)
            event = self._next_event()
            if isinstance(event, h11.Data):
                self.body_pending = True
                if self.body_left is not None:
                    self.body_left -= len(event.data)
                return bytes(event.data)
            if not isinstance(event, h11.EndOfMessage):
                self.body_pending = False
                return None
            self.trailers = Headers(event.headers.raw_items())
            self.body_ended = True
            self.body_left = 0
            # What h11 was given beyond the body's end comes back.
            self._buffer += self._parser.trailing_data[0]
        return b""

    def receive_eof(self) -> None:
        """Take in that the peer ended the connection while a body was read."""
        self._parser.receive_data(b"")

    def _next_event(self) -> object:
        try:
            return self._parser.next_event()
        except h11.RemoteProtocolError as exc:
            raise BadBody(_without_quote(exc)) from None

    ################################################################
    # Writing
    ################################################################

    def write_request(self, method: str, target: str, fields: list[Field]) -> bytes:
        """Begin an exchange; return the bytes of its request's head.

        Raises:
            ValueError: The request is malformed; no exchange was begun.
        """
        try:
            request = h11.Request(method=method, target=target, headers=fields)
        except h11.LocalProtocolError as exc:
            raise ValueError(str(exc)) from exc
        self.start_exchange()
        self._start_parser()
        self._method = method
        return self._parser.send(request)

    def write_body(self, chunk: bytes) -> bytes:
        """Return the bytes of a piece of content, empty for an empty one.

        Raises:
            ValueError: It is more than Content-Length says; the message is broken.
        """
        return self._write(h11.Data(data=chunk)) if chunk else b""

    def write_end(self) -> bytes:
        """Return the bytes, if any, that end a message of ours.

        Raises:
            ValueError: Content-Length says more; the message is broken.
        """
        return self._write(h11.EndOfMessage())

    def _write(self, event: h11.Data | h11.EndOfMessage) -> bytes:
        try:
            return self._parser.send(event)
        except h11.LocalProtocolError as exc:
            raise ValueError(str(exc)) from exc

    def fail(self) -> None:
        """Take in that written bytes did not go out: nothing more can be written."""
        # A server does not write by h11, and may have none yet.
        if self._role is h11.CLIENT:
            self._parser.send_failed()

    ################################################################
    # What comes after
    ################################################################

    @property
    def reusable(self) -> bool:
        """Whether the exchange is over and the connection can carry another one."""
        parser = self._parser
        return parser.our_state is h11.DONE and parser.their_state is h11.DONE

    def hand_over(self) -> bytes:
        """Free the HTTP state and return what was read beyond it: the last call."""
        rest = bytes(self._buffer)
        del self._parser, self._buffer
        return rest


def _extendable(buffer: bytes | bytearray) -> bytearray:
    # What is cut and extended piece by piece, in a time that its length has no part in.
    return buffer if isinstance(buffer, bytearray) else bytearray(buffer)


def _without_quote(error: h11.RemoteProtocolError) -> str:
    # h11 quotes the line that it dislikes, and there may be a secret in it; ours are
    # answers to the peer and go to a log.
    return str(error).partition(": b")[0]
