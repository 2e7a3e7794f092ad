"""The chunked body: its framing lines, its data, and what h11 gets of it."""

from __future__ import annotations

import re

import h11
import pytest
from hypothesis import given, strategies as st

from trio_upgrade import BadBody, Limits, Request, Response, serve_stream
from trio_upgrade._http.chunked import ChunkDecoder
from trio_upgrade._http.server_codec import ServerCodec
from trio_upgrade.testing import ScriptedPeer, split_points

from ..servers import run_script
from ..wire import get, okay

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"

CONTROL = "a chunk header or a trailer with a control character"
NO_SIZE = "a chunk size that is not a number"
TOO_GREAT = r"a chunk size that is above 2\^63 - 1"
MANY_DIGITS = "a chunk size that has more than 20 digits"
FOLDED = "a folded trailer line"
LONG_LINE = "a chunk header or a trailer that is too long"
LONG_SECTION = "a trailer section that is too long"

NO_END = "a chunk that does not end in CRLF"

LEGAL = [
    b"0\r\n\r\n",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"5\r\nhello\r\n6\r\n world\r\n000\r\n\r\n",
    b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n",
    b'5;name;other=value;quoted="a\tb"\r\nhello\r\n0;last\r\n\r\n',
    b"5 \t\r\nhello\r\n0 \r\n\r\n",
    # Data may contain line ends, control characters, and what looks like the end.
    b"b\r\n\r\n0\r\n\r\n\n\r\0\x7f\r\n0\r\n\r\n",
    b"1\r\n\r\r\n1\r\n\n\r\n0\r\n\r\n",
    b"0\r\nA: b\r\nC:\td\r\n\r\n",
    b"0\r\nA:\r\nB: \r\nC: \xff\r\n\r\n",
]
BROKEN = [
    # A reader that ends lines at a bare CR or a bare LF sees other chunks.
    (b"5;a\rb\r\nhello\r\n0\r\n\r\n", CONTROL),
    (b"5\r\r\nhello\r\n0\r\n\r\n", CONTROL),
    (b"5;a\nb\r\nhello\r\n0\r\n\r\n", CONTROL),
    (b"5\nhello\r\n0\r\n\r\n", CONTROL),
    (b"5\r\nhello\r\n0\n\r\n", CONTROL),
    (b"5\r\nhello\r\n0\r\n\n", CONTROL),
    (b"\n0\r\n\r\n", CONTROL),
    (b"5;a\0b\r\nhello\r\n0\r\n\r\n", CONTROL),
    (b"5;a\x0bb\r\nhello\r\n0\r\n\r\n", CONTROL),
    (b"5;a\x7fb\r\nhello\r\n0\r\n\r\n", CONTROL),
    (b"0\r\nA: b\nC: d\r\n\r\n", CONTROL),
    (b"0\r\nA: b\rC: d\r\n\r\n", CONTROL),
    (b"0\r\nA: \x01\r\n\r\n", CONTROL),
    (b"0\r\nA: b\r\n c\r\n\r\n", FOLDED),
    (b"0\r\nA: b\r\n\tc\r\n\r\n", FOLDED),
    (b"0\r\n A: b\r\n\r\n", FOLDED),
    (b"\r\n0\r\n\r\n", NO_SIZE),
    (b";5\r\nhello\r\n0\r\n\r\n", NO_SIZE),
    (b"hello\r\n0\r\n\r\n", NO_SIZE),
    (b"5,5\r\nhello\r\n0\r\n\r\n", NO_SIZE),
    (b"3\r\nabcd\r\n0\r\n\r\n", NO_END),
    (b"3\r\nabc\n0\r\n\r\n", NO_END),
    (b"3\r\nabc\r0\r\n\r\n", NO_END),
    (b"3\r\nabc\r\r\n0\r\n\r\n", NO_END),
    (b"3\r\nab\r\n0\r\n\r\n", NO_END),
    (b"3\r\nabc0\r\n\r\n", NO_END),
]
# Two readers that keep a size in 64 bits, signed or not, see other chunks.
SIZES = [
    (b"8000000000000000", TOO_GREAT),
    (b"ffffffffffffffff", TOO_GREAT),
    (b"FFFFFFFFFFFFFFFFFFFF", TOO_GREAT),
    (b"10000000000000005", TOO_GREAT),
    (b"10000000000000005;a=b", TOO_GREAT),
    (b"00010000000000000005", TOO_GREAT),
    (b"100000000000000000005", MANY_DIGITS),
    (b"000000000000000000005", MANY_DIGITS),
    (b"9" * 90, MANY_DIGITS),
    *(
        (size, NO_SIZE)
        for size in (
            *(b"", b" ", b";a", b"-1", b"-ff", b"+3", b"-0", b"0x3", b"0X3", b"1_0"),
            *(b" 3", b"\t3", b"3 3", b"3 ;a", b"3\t;a", b"3g", b"3h", b"3.", b"\xb23"),
            b"\xd9\xa3",
        )
    ),
]


def check(wire: tuple[bytes, ...], line_bytes: int = 100, fields: int = 3) -> None:
    decoder = ChunkDecoder(line_bytes, fields)
    for packet in wire:
        decoder.decode(packet)
    # Data before a fault is returned first.
    decoder.decode(b"")


def read_body(*packets: bytes, limits: Limits | None = None) -> tuple[bytes, bytes]:
    """Read a request's body with the codec; return it and what followed it."""
    codec = ServerCodec(limits or Limits())
    codec.receive_data(HEAD)
    raw = codec.next_head()
    assert raw is not None
    codec.parse_request(raw)
    body = bytearray()
    for packet in packets:
        codec.receive_data(packet)
        while chunk := codec.next_body():
            body += chunk
    assert codec.body_ended
    return bytes(body), codec.detach()


class TestDecoder:
    """The decoder alone."""

    @pytest.mark.parametrize("wire", LEGAL)
    def test_legal(self, wire: bytes) -> None:
        """Legal sizes, extensions, data and trailers are accepted (RFC 9112 §7.1)."""
        for packets in split_points(wire):
            check(packets)

    @pytest.mark.parametrize(("wire", "fault"), BROKEN)
    def test_broken(self, wire: bytes, fault: str) -> None:
        """A line that readers may understand differently is refused (RFC 9112 §2.2)."""
        for packets in split_points(wire):
            with pytest.raises(BadBody, match=f"^{fault}$"):
                check(packets)

    @pytest.mark.parametrize(
        "rest", [b"\n", b"GET / HTTP/1.1\r\n\r\n", b"\0" * 200, b" a\r\n" * 9]
    )
    def test_bytes_after_the_body(self, rest: bytes) -> None:
        """Bytes after the blank line of the last chunk are ignored (RFC 9112 §7.1)."""
        for packets in split_points(b"3\r\nabc\r\n0\r\nA: b\r\n\r\n" + rest):
            check(packets)

    @pytest.mark.ids("F27")
    @pytest.mark.parametrize(("size", "fault"), SIZES)
    def test_sizes_refused(self, size: bytes, fault: str) -> None:
        """A size is at most 20 digits below 2^63, without signs or blanks (§7.1)."""
        for packets in split_points(size + b"\r\n"):
            with pytest.raises(BadBody, match=f"^{fault}$"):
                check(packets)
            with pytest.raises(BadBody, match=f"^{fault}$"):
                read_body(*packets)

    @pytest.mark.ids("F27")
    @pytest.mark.parametrize(
        "size", [b"7fffffffffffffff", b"00007FFFFFFFFFFFFFFF", b"7fffffffffffffff;a"]
    )
    def test_greatest_size(self, size: bytes) -> None:
        """2^63 - 1 is accepted, with leading zeros up to 20 digits (RFC 9112 §7.1)."""
        for packets in split_points(size + b"\r\nabc"):
            check(packets)

    def test_long_line(self) -> None:
        """The limit on a line includes its CRLF."""
        for line in (b"1;%s\r\na\r\n0\r\n\r\n", b"0\r\nA:%s\r\n\r\n"):
            for packets in split_points(line % (b"x" * 16)):
                check(packets, line_bytes=20)
            for packets in split_points(line % (b"x" * 17)):
                with pytest.raises(BadBody, match=f"^{LONG_LINE}$"):
                    check(packets, line_bytes=20)

    def test_line_that_never_ends(self) -> None:
        """A line over the limit is refused before its end comes."""
        decoder = ChunkDecoder(20, 3)
        decoder.decode(b"1;" + b"x" * 18)
        with pytest.raises(BadBody, match=f"^{LONG_LINE}$"):
            decoder.decode(b"x")

    def test_long_data_is_no_line(self) -> None:
        """The limit on lines does not apply to data."""
        for packets in split_points(b"40\r\n" + b"x" * 64 + b"\r\n0\r\n\r\n"):
            check(packets, line_bytes=8)

    def test_long_trailer_section(self) -> None:
        """All trailer lines count together; the blank line does not count."""
        for packets in split_points(b"0\r\nA: b\r\nC: de\r\n\r\n"):
            check(packets, line_bytes=13)
            with pytest.raises(BadBody, match=f"^{LONG_SECTION}$"):
                check(packets, line_bytes=12)

    @pytest.mark.parametrize("fields", [0, 1, 3])
    def test_many_trailers(self, fields: int) -> None:
        """One trailer field more than the limit is refused."""
        for packets in split_points(b"0\r\n" + b"A: b\r\n" * fields + b"\r\n"):
            check(packets, fields=fields)
        for packets in split_points(b"0\r\n" + b"A: b\r\n" * (fields + 1) + b"\r\n"):
            many = rf"^more than {fields} trailers \(header_fields\)$"
            with pytest.raises(BadBody, match=many):
                check(packets, fields=fields)

    def test_wrong_line_end_at_once(self) -> None:
        """The first octet after the data that is no CRLF is refused, without a wait."""
        for wire in (b"3\r\nabcd", b"3\r\nabc\n", b"3\r\nabc\rx"):
            for packets in split_points(wire):
                with pytest.raises(BadBody, match=f"^{NO_END}$"):
                    check(packets)

    @pytest.mark.ids("F36")
    def test_chunks_of_one_receive(self) -> None:
        """The chunks of one receive are one piece, and the rest of it is framing."""
        wire = b"1\r\nx\r\n2;a\r\nyz\r\n" * 50 + b"0\r\nA: b\r\n\r\n"
        for packets in [*split_points(wire + b"rest"), (wire, b"rest")]:
            decoder = ChunkDecoder(100, 3)
            decoded = [decoder.decode(packet) for packet in packets]

            assert b"".join(data for data, _ in decoded) == b"xyz" * 50
            assert b"".join(tail for _, tail in decoded) == b"0\r\nA: b\r\n\r\nrest"
            assert decoder.framing_bytes == len(wire) - 150
            for packet, (data, _) in zip(packets, decoded, strict=True):
                assert len(data) <= len(packet)

    def test_data_before_a_fault(self) -> None:
        """Data that came before a broken line is returned; the next call raises."""
        wire = b"1\r\na\r\n2\r\nbc\r\nx\r\n1\r\nd\r\n"
        for packets in split_points(wire):
            decoder = ChunkDecoder(100, 3)
            data = b""
            with pytest.raises(BadBody, match=f"^{NO_SIZE}$"):
                for packet in [*packets, b""]:
                    data += decoder.decode(packet)[0]

            assert data == b"abc"
            with pytest.raises(BadBody, match=f"^{NO_SIZE}$"):
                decoder.decode(b"0\r\n\r\n")

    def test_stays_broken(self) -> None:
        """After the first error every call raises it again: the lines are lost."""
        decoder = ChunkDecoder(100, 3)
        for data in (b"5;a\rb\r\n", b"0\r\n\r\n", b""):
            with pytest.raises(BadBody, match=f"^{CONTROL}$"):
                decoder.decode(data)


class TestWithCodec:
    """The decoder together with h11."""

    @pytest.mark.parametrize("wire", LEGAL)
    def test_legal(self, wire: bytes) -> None:
        """The bytes after a legal body are exact, however the packets are cut."""
        rest = b"\x80\n next"
        bodies = {read_body(*packets) for packets in split_points(wire + rest)}

        assert len(bodies) == 1
        assert bodies.pop()[1] == rest

    @pytest.mark.ids("M04")
    @pytest.mark.parametrize(("wire", "fault"), BROKEN)
    def test_broken(self, wire: bytes, fault: str) -> None:
        """The codec refuses the same bodies, however they are cut (RFC 9112 §7.1)."""
        for packets in split_points(wire):
            with pytest.raises(BadBody, match=f"^{fault}$"):
                read_body(*packets)

    @pytest.mark.parametrize(
        "wire",
        [
            b"3\r\nabcd\r\n0\r\n\r\n",
            b"3\r\nabc\n0\r\n\r\n",
            b"3\r\nab\r\n0\r\n\r\n",
            b"0\r\nno field\r\n\r\n",
            b"0\r\nA : b\r\n\r\n",
            b"0\r\nContent-Length: x\r\n\r\n",
            b"1" + b"0" * 20 + b"\r\n",
        ],
    )
    def test_also_refused(self, wire: bytes) -> None:
        """Wrong sizes, missing line ends, and trailers that h11 refuses."""
        for packets in split_points(wire):
            with pytest.raises(BadBody):
                read_body(*packets)

    @pytest.mark.ids("F36")
    def test_pieces(self) -> None:
        """A piece is the data of one receive; the end comes after it, by itself."""
        body = b"1\r\nx\r\n" * 90 + b"0\r\nA: b\r\n\r\n"
        for packets in split_points(body):
            codec = ServerCodec(Limits())
            codec.receive_data(HEAD)
            codec.parse_request(codec.next_head() or b"")
            pieces = []
            for number, packet in enumerate(packets, 1):
                codec.receive_data(packet)
                pieces.append(codec.next_body())
                last = number == len(packets)

                assert codec.next_body() == (b"" if last else None)
                assert codec.body_left == (0 if last else None)
                assert len(pieces[-1] or b"") <= len(packet)
            assert b"".join(piece or b"" for piece in pieces) == b"x" * 90
            assert codec.framing_bytes == len(body) - 90
            assert codec.trailers.raw == ((b"A", b"b"),)

        codec = ServerCodec(Limits())
        codec.receive_data(HEAD + body + b"next")
        codec.parse_request(codec.next_head() or b"")

        assert codec.next_body() == b"x" * 90
        # The body is not read to its end before its reader is told so.
        assert not codec.body_ended
        assert codec.may_have_body
        assert codec.next_body() == b""
        assert codec.body_ended
        assert codec.detach() == b"next"

    def test_limits_of_the_header_section(self) -> None:
        """header_bytes and header_fields limit chunk headers and trailers, too."""
        limits = Limits(header_bytes=60, header_fields=3)
        read_body(b"0\r\n" + b"A: b\r\n" * 3 + b"\r\n", limits=limits)
        read_body(b"0;%s\r\n\r\n" % (b"x" * 56), limits=limits)
        many = r"more than 3 trailers \(header_fields\)"
        with pytest.raises(BadBody, match=many):
            read_body(b"0\r\n" + b"A: b\r\n" * 4 + b"\r\n", limits=limits)
        with pytest.raises(BadBody, match=LONG_LINE):
            read_body(b"0;%s\r\n\r\n" % (b"x" * 57), limits=limits)

    @given(
        st.lists(st.binary(min_size=1, max_size=40), max_size=5),
        st.sampled_from(["%x", "%X", "0%x", "%x;a=b", '%x;q="\t" \t']),
        st.lists(
            st.tuples(
                st.from_regex(r"[a-z]{1,8}", fullmatch=True).map(lambda n: "x-" + n),
                st.from_regex(r"([!-~]([ -~]*[!-~])?)?", fullmatch=True),
            ),
            max_size=3,
        ),
        st.binary(max_size=10),
        st.integers(min_value=1, max_value=30),
    )
    def test_agrees_with_h11(
        self,
        chunks: list[bytes],
        form: str,
        trailers: list[tuple[str, str]],
        rest: bytes,
        step: int,
    ) -> None:
        """The decoder and h11 see the same body and its end (RFC 9112 §7.1)."""
        parts = [(form % len(c)).encode() + b"\r\n" + c + b"\r\n" for c in chunks]
        section = "".join(f"{name}: {value}\r\n" for name, value in trailers)
        wire = b"".join(parts) + b"0\r\n" + section.encode() + b"\r\n" + rest
        packets = [wire[at : at + step] for at in range(0, len(wire), step)]
        parser = h11.Connection(h11.SERVER)
        parser.receive_data(HEAD + wire)
        parser.next_event()
        body = b""
        while isinstance(event := parser.next_event(), h11.Data):
            body += event.data
        assert isinstance(event, h11.EndOfMessage)

        assert read_body(*packets) == (b"".join(chunks), rest) == (body, rest)


class TestServer:
    """A broken body as an app and its client see it."""

    async def test_answered_with_400(self) -> None:
        """An uncaught BadBody becomes a 400 with the reason, and a close (§7.1)."""

        async def app(request: Request) -> Response:
            return Response(200, await request.read())

        for packets in split_points(HEAD + b"5;a\rb\r\nhello\r\n0\r\n\r\n" + get("/2")):
            peer = await run_script(app, *packets)

            assert peer.sent.startswith(b"HTTP/1.1 400 Bad Request\r\n")
            assert b"\r\nConnection: close\r\n" in peer.sent
            assert peer.sent.endswith(b"\r\n\r\n" + CONTROL.encode() + b"\n")

    async def test_caught(self) -> None:
        """A BadBody that is caught is raised again; the next request is not read."""
        errors: list[str] = []

        async def app(request: Request) -> Response:
            for _ in range(3):
                with pytest.raises(BadBody) as caught:
                    await request.read()
                errors.append(str(caught.value))
            return Response(200, b"okay")

        for packets in split_points(b"3;a\rb\r\n3\r\nabc\r\n0\r\n\r\n" + get("/2")):
            peer = ScriptedPeer(HEAD, *packets)
            await serve_stream(app, peer, strict=True)

            assert peer.sent == okay(b"okay")
            assert peer.closed
        assert set(errors) == {CONTROL}

    async def test_trailers(self) -> None:
        """Trailers are available after the end of the body is read (RFC 9112 §7.1.2)."""
        seen: list[tuple[object, ...]] = []

        async def app(request: Request) -> Response:
            before = request.trailers.raw
            if request.path == "/stream":
                body = b"".join([chunk async for chunk in request.stream()])
            else:
                body = await request.read()
            seen.append((before, body, request.trailers.raw, len(request.headers)))
            return Response(200, b"")

        wire = b"3\r\nabc\r\n0\r\nX-Sum: 1\r\nx-sum: 2\r\n\r\n"
        for head in (HEAD, HEAD.replace(b" / ", b" /stream ")):
            for packets in split_points(head + wire):
                await run_script(app, *packets)
        trailers = ((b"X-Sum", b"1"), (b"x-sum", b"2"))
        assert set(seen) == {((), b"abc", trailers, 2)}

        seen.clear()
        await run_script(app, get("/", "Content-Length: 3") + b"abc")
        await run_script(app, get("/"))
        assert seen == [((), b"abc", (), 2), ((), b"", (), 1)]


def test_error_texts_are_distinct() -> None:
    """No error text that these tests match is matched by another one."""
    faults = [
        *(CONTROL, NO_SIZE, TOO_GREAT, MANY_DIGITS),
        *(FOLDED, LONG_LINE, LONG_SECTION, NO_END),
    ]

    assert not any(re.fullmatch(a, b) for a in faults for b in faults if a is not b)
