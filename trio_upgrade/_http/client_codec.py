# The client's HTTP/1.1 between bytes and messages: requests out, responses in.
#
# h11 is told about each request, so that its state machine knows whether a 101 was asked
# for, how the response is framed, and whether the connection can carry another request.
# But it does not write the header section: it would repeat checks that were made with
# the request, which took a tenth of a handshake's time.  For the same reason it gets only
# the fields that it decides by, and for the usual requests an event that is made once.
from __future__ import annotations

from typing import TYPE_CHECKING, cast, final

import h11

# Public according to h11's documentation, but missing from its __all__.
from h11 import (  # type: ignore[attr-defined]
    MIGHT_SWITCH_PROTOCOL,  # pyright: ignore[reportPrivateImportUsage]
)

from .._errors import IllegalSwitch
from .decisive_fields import keep_decisive
from .framing import check_response, drop_framing
from .head_syntax import check_head, check_status_line, find_head_end
from .headers import FRAMING_FIELDS, Field, Headers
from .message_codec import MessageCodec
from .messages import ResponseHead

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._limits import Limits


# The fields of a request that h11 decides by.
_TOLD_FIELDS = FRAMING_FIELDS | {b"connection", b"expect", b"upgrade"}
_OPTION = (b"Connection", b"Upgrade")
# What h11 is told where only the method counts, and where it counts that an offer is
# made.  h11 knows three kinds of methods; it does not change its events.
_KINDS = {b"HEAD": b"HEAD", b"CONNECT": b"CONNECT"}


def _tell(kind: bytes, fields: list[Field]) -> h11.Request:
    # Target and host do not count.
    return h11.Request(method=kind, target=b"/", headers=[(b"Host", b"x"), *fields])


_PLAIN = {kind: _tell(kind, []) for kind in (b"GET", *_KINDS)}
_OFFER = _tell(b"GET", [_OPTION, (b"Upgrade", b"x")])
_END = h11.EndOfMessage()


@final
class ClientCodec(MessageCodec):
    """The HTTP state of one connection of a client.

    Args:
        limits: The limits.
    """

    __slots__ = ("_method",)

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        # The method of our request: the framing of the response depends on it.
        self._method = ""

    ################################################################
    # Requests
    ################################################################

    def write_request(self, method: str, target: str, fields: list[Field]) -> bytes:
        """Begin an exchange; return the bytes of the request's header section.

        Args:
            method: The method.
            target: The target.
            fields: All fields, also those of the framing. Like the method and the target
                they are checked, and there is one Host field.
        """
        told: list[Field] = []
        written = method.encode("ascii")
        parts = [b"%b %b HTTP/1.1\r\n" % (written, target.encode("ascii")), b""]
        for field in fields:
            line = b"%b: %b\r\n" % field
            name = field[0].lower()
            if name == b"host":
                # RFC 9110 §7.2: it is best sent first.
                parts[1] = line
                continue
            parts.append(line)
            if name in _TOLD_FIELDS:
                told.append(field)
        parts.append(b"\r\n")
        self._start_message()
        self._parser = h11.Connection(
            h11.CLIENT, max_incomplete_event_size=self._header_bytes
        )
        self._method = method
        kind = _KINDS.get(written, b"GET")
        if not told:
            self._parser.send(_PLAIN[kind])
        elif kind == b"GET" and _is_offer(told):
            self._parser.send(_OFFER)
        else:
            self._parser.send(_tell(kind, told))
        return b"".join(parts)

    def write_body(self, chunk: bytes) -> bytes:
        """Return the bytes of a piece of content; empty for an empty piece.

        Raises:
            ValueError: It is more than Content-Length says; the message is broken.
        """
        return self._write(h11.Data(data=chunk)) if chunk else b""

    def write_end(self, trailers: Sequence[Field] = ()) -> bytes:
        """Return the bytes, if any, that end the request.

        Args:
            trailers: Fields to send after the content, which must be chunked.

        Raises:
            ValueError: Content-Length says more; the message is broken.
        """
        return self._write(
            h11.EndOfMessage(headers=list(trailers)) if trailers else _END
        )

    def _write(self, event: h11.Data | h11.EndOfMessage) -> bytes:
        try:
            return self._parser.send(event)
        except h11.LocalProtocolError as exc:
            raise ValueError(str(exc)) from exc

    def send_failed(self) -> None:
        """Note that written bytes were not sent whole: nothing more can be written."""
        self._parser.send_failed()

    ################################################################
    # Responses
    ################################################################

    def next_head(self) -> bytes | None:
        """Take one whole message head from the buffer; None if it is not complete yet.

        Raises:
            MalformedMessage: The bytes cannot be the beginning of a response, or are
                over a limit.
        """
        check_status_line(self._buffer)
        return super().next_head()

    def parse_response(self, raw: bytes) -> ResponseHead:
        """Check and parse a response's header section, also of an informational one.

        Raises:
            MalformedMessage: It is not HTTP, or over a limit.
            IllegalSwitch: It is a 101 that the request did not ask for, or one that
                came before the request was sent whole.
        """
        well_formed = check_head(raw, self._header_fields)
        status = raw[9:12]
        tunnel = self._method == "CONNECT" and status.startswith(b"2")
        frames_nothing = tunnel or status.startswith(b"1")
        found, decisive = check_response(raw, has_body=not frames_nothing)
        if frames_nothing and not FRAMING_FIELDS.isdisjoint(decisive):
            found = [field for field in found if field[0].lower() not in FRAMING_FIELDS]
            raw = drop_framing(raw)
            for name in FRAMING_FIELDS:
                decisive.pop(name, None)
        state = self._parser.our_state
        # After a CONNECT h11 is in this state as well: it might switch to a tunnel.
        asked = state is MIGHT_SWITCH_PROTOCOL and self._method != "CONNECT"
        if raw[9:13].rstrip() == b"101" and not asked:
            raise IllegalSwitch(
                "it came before the request was through"
                if state in (h11.ERROR, h11.SEND_BODY)
                else "the request asked for no switch"
            )
        # Whether the fields are in the head as h11 would report them.
        is_sure = well_formed and _is_plain(found)
        event = cast(
            "h11.Response",
            self._parse_head(keep_decisive(raw, found) if is_sure else raw),
        )
        # By exact type: isinstance() is slow for h11's abstract base.
        is_final = type(event) is h11.Response
        if is_sure:
            headers = Headers(head=raw, decisive=decisive)
        else:
            headers = Headers(event.headers.raw_items())
        # h11 got the message head only, so its next event is the end of a message without
        # a body, or it needs more bytes.  The usual response need not be asked for.
        if (
            is_final
            and not tunnel
            and (
                (self._method == "GET" and status == b"200" and _has_length(decisive))
                or type(self._next_event()) is not h11.EndOfMessage
            )
        ):
            self._start_body(headers)
        return ResponseHead(
            event.status_code,
            event.reason.decode("latin-1"),
            # check_response() lets only these two versions through.
            "1.1" if event.http_version == b"1.1" else "1.0",
            headers,
        )

    @property
    def has_timeout_answer(self) -> bool:
        """Whether the bytes not parsed yet begin with a whole head of a 408."""
        return (
            self._buffer.startswith((b"HTTP/1.1 408", b"HTTP/1.0 408"))
            and find_head_end(self._buffer, 0) >= 0
        )

    @property
    def is_reusable(self) -> bool:
        """Whether the exchange is over and the connection can carry another one."""
        parser = self._parser
        return parser.our_state is h11.DONE and parser.their_state is h11.DONE


def _is_offer(told: list[Field]) -> bool:
    # Whether h11 is to know nothing but that an offer is made.
    return len(told) == 2 and told[0] == _OPTION and told[1][0] == b"Upgrade"


def _has_length(decisive: dict[bytes, list[bytes]]) -> bool:
    # Whether there is content, and its length is known (RFC 9112 §6.3, rules 6 and 3).
    # A line may repeat its length, as in "0, 0" (RFC 9110 §8.6).
    lengths = decisive.get(b"content-length", ())
    return len(lengths) == 1 and lengths[0].strip(b"0, \t") != b""


def _is_plain(fields: list[Field]) -> bool:
    # Whether h11 reports these fields as they are: it merges equal lengths, and writes
    # the transfer coding in lower case.
    values = [value for name, value in fields if name.lower() in FRAMING_FIELDS]
    return not values or (
        len(values) == 1 and b"," not in values[0] and values[0] == values[0].lower()
    )
