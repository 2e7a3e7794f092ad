"""MessageCodec: message heads and bodies, taken out of the bytes received."""

from __future__ import annotations

from typing import TYPE_CHECKING

import h11
import pytest
from hypothesis import given, settings, strategies as st

from trio_upgrade import BadBody, Limits, MalformedMessage
from trio_upgrade.testing import split_points

from ..wire import SWITCHED, UP, get, okay
from .codecs import make_client, make_server

if TYPE_CHECKING:
    from trio_upgrade._http.server_codec import ServerCodec

CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


def read_body(codec: ServerCodec, *packets: bytes) -> bytes:
    """Read a body to its end; each packet is fed when more bytes are needed."""
    body = b""
    left = list(packets)
    while (chunk := codec.next_body()) != b"":
        if chunk is None:
            codec.receive_data(left.pop(0))
        else:
            body += chunk
    for packet in left:
        codec.receive_data(packet)
    return body


padding = st.sampled_from(["", " ", "\t ", " \t"])
# Mostly lines that are accepted, if they go together.
field_lines = st.tuples(
    st.sampled_from(
        [
            *(
                "Connection:",
                "UPGRADE:",
                "Host-:",
                "X-Host:",
                "A:",
                "expect:100-continue",
            ),
            *("A:", "b:", "connection:upgrade", "Te:", "Upgrade:", "coNNection:"),
            *("content-length:5", "Transfer-Encoding:Chunked", "Host:", "A :", ":"),
        ]
    ),
    padding,
    st.sampled_from(["", "x", "\xe9,\tupgrade", "close, te", "a:b", "Host:x", "\x00"]),
    padding,
).map("".join)


class TestHeads:
    """One whole message head, and not a byte more."""

    def test_every_split(self) -> None:
        """A head is whole with its last byte, however it is cut."""
        for packets in split_points(UP):
            codec = make_server()
            heads = []
            for packet in packets:
                codec.receive_data(packet)
                heads.append(codec.next_head())

            assert heads == [None] * (len(packets) - 1) + [UP]
            assert not codec.has_buffered

    def test_next_head(self) -> None:
        """The search for the next head begins at its first byte, however short it is."""
        long = okay(b"", "A: " + "x" * 100)
        for packets in split_points(SWITCHED):
            codec = make_client()
            codec.receive_data(long[:-1])
            assert codec.next_head() is None
            codec.receive_data(long[-1:])
            assert codec.next_head() == long
            for packet in packets:
                codec.receive_data(packet)

            assert codec.next_head() == SWITCHED

    @pytest.mark.ids("M03")
    def test_blank_lines(self) -> None:
        """One blank line is skipped before a request, not two or half (RFC 9112 §2.2)."""
        for packets in split_points(b"\r\n" + UP):
            codec = make_server()
            for packet in packets[:-1]:
                codec.receive_data(packet)
                assert codec.next_head() is None
            codec.receive_data(packets[-1])

            assert codec.next_head() == UP
        for packets in ((b"\r\n\r\n", UP), (b"\r\n", b"\r\n", UP), (b"\rG",), (b"\n",)):
            codec = make_server()
            with pytest.raises(MalformedMessage, match="begins with octet"):
                for packet in packets:
                    codec.receive_data(packet)
                    codec.next_head()

    def test_following_bytes_are_kept(self) -> None:
        """Bytes after a head are kept for the next message, or the next protocol."""
        codec = make_server()
        codec.receive_data(UP + b"tail")
        head = codec.next_head()
        assert head == UP
        codec.parse_request(head)

        assert codec.has_buffered
        assert codec.detach() == b"tail"

    @pytest.mark.parametrize(("extra", "fits"), [(0, True), (-1, False)])
    def test_limit_is_exact(self, extra: int, fits: bool) -> None:
        """header_bytes is the length of the longest head, in one packet or in many."""
        limits = Limits(header_bytes=len(UP) + extra)
        for packets in split_points(UP + b"x" * 100):
            codec = make_server(limits)
            if fits:
                head = None
                for packet in packets:
                    codec.receive_data(packet)
                    head = head or codec.next_head()

                assert head == UP
            else:
                with pytest.raises(MalformedMessage, match="more than") as caught:
                    for packet in packets:
                        codec.receive_data(packet)
                        codec.next_head()

                assert caught.value.status == 431

    def test_fields_not_parsed(self) -> None:
        """The fields that the library needs are known without parsing the others."""
        codec = make_server()
        raw = get("/", "Connection: Upgrade", "Upgrade: echo", "Cookie: a=b")
        headers = codec.parse_request(raw).headers
        assert headers.lines(b"upgrade") == [b"echo"]
        assert headers.options() == {"upgrade"}
        assert headers.lines(b"expect") == ()
        assert headers._raw is None
        assert headers._by_name is None
        assert headers["cookie"] == "a=b"

    @settings(max_examples=500)
    @given(st.lists(field_lines, max_size=6))
    def test_fields_are_those_of_h11(self, lines: list[str]) -> None:
        """The fields that are parsed here are those that h11 has checked."""
        text = "\r\n".join(["GET / HTTP/1.1", "Host: y", *lines, "", ""])
        head = text.encode("latin-1")
        try:
            headers = make_server().parse_request(head).headers
        except MalformedMessage:
            return
        parser = h11.Connection(h11.SERVER)
        parser.receive_data(head)
        event = parser.next_event()
        assert isinstance(event, h11.Request)
        # Except that h11 writes the transfer coding in lower case.
        assert [(name, value.lower()) for name, value in headers.raw] == [
            (name, value.lower()) for name, value in event.headers.raw_items()
        ]
        for name in {name for name, _ in event.headers}:
            values = [value for key, value in headers.raw if key.lower() == name]
            assert headers.lines(name) == values

    @given(tail=st.binary(max_size=50), cut=st.integers(0, len(UP) + 50))
    def test_tail_is_exact(self, tail: bytes, cut: int) -> None:
        """Bytes after an offer come back byte for byte, wherever the wire is cut."""
        wire = UP + tail
        codec = make_server()
        head = None
        for packet in (wire[:cut], wire[cut:]):
            codec.receive_data(packet)
            head = head or codec.next_head()
        assert head == UP

        codec.parse_request(head)
        assert codec.detach() == tail


class TestBodies:
    """The bytes of a body, and the bytes after it."""

    @pytest.mark.parametrize(
        ("head", "wire", "body"),
        [
            (get("/"), b"", b""),
            (get("/", "Content-Length: 0"), b"", b""),
            (get("/", "Content-Length: 5"), b"hello", b"hello"),
            (CHUNKED, b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
            (CHUNKED, b"2;a=b\r\nhe\r\n3\r\nllo\r\n0\r\nX: y\r\n\r\n", b"hello"),
        ],
    )
    def test_request_body(self, head: bytes, wire: bytes, body: bytes) -> None:
        """A body ends where its framing says, and the rest is kept."""
        for packets in split_points(wire + b"GET"):
            codec = make_server()
            codec.receive_data(head)
            raw = codec.next_head()
            assert raw is not None
            codec.parse_request(raw)

            assert read_body(codec, *packets) == body
            assert codec.body_left == 0
            assert codec.detach() == b"GET"

    def test_body_left(self) -> None:
        """The bytes left of a body of known length are counted."""
        codec = make_server()
        codec.receive_data(get("/", "Content-Length: 5"))
        codec.parse_request(codec.next_head() or b"")
        lefts = [codec.body_left]
        for packet in (b"he", b"llo"):
            codec.receive_data(packet)
            codec.next_body()
            lefts.append(codec.body_left)

        assert lefts == [5, 3, 0]

    @pytest.mark.parametrize(
        ("head", "wire"),
        [
            (CHUNKED, b"ZZ\r\n"),
            (CHUNKED, b"2\r\nhexx\r\n"),
            (CHUNKED, b"1;" + b"x" * 40_000),
        ],
    )
    def test_broken_body(self, head: bytes, wire: bytes) -> None:
        """Framing that is broken, or too long, is a BadBody."""
        codec = make_server()
        codec.receive_data(head)
        codec.parse_request(codec.next_head() or b"")
        codec.receive_data(wire)
        with pytest.raises(BadBody):
            while codec.next_body():
                pass

    @pytest.mark.parametrize("head", [get("/", "Content-Length: 5"), CHUNKED])
    def test_cut_body(self, head: bytes) -> None:
        """A body that ends before its framing says is a BadBody."""
        codec = make_server()
        codec.receive_data(head)
        codec.parse_request(codec.next_head() or b"")
        assert codec.next_body() is None
        codec.receive_eof()
        with pytest.raises(BadBody):
            codec.next_body()

    def test_response_until_the_end(self) -> None:
        """A response without framing lasts until the connection ends."""
        codec = make_client()
        codec.receive_data(b"HTTP/1.0 200 OK\r\n\r\nall of it")
        codec.parse_response(codec.next_head() or b"")

        assert codec.body_left is None
        assert codec.next_body() == b"all of it"
        assert codec.next_body() is None
        codec.receive_eof()
        assert codec.next_body() == b""
        assert not codec.is_reusable
