"""The checks of a message head before h11 parses it."""

from __future__ import annotations

import re

import h11
import pytest
from hypothesis import given, strategies as st

from trio_upgrade import Limits, MalformedMessage
from trio_upgrade._http.head_syntax import (
    check_first_octet,
    check_head,
    check_second_blank_line,
    check_status_line,
    find_head_end,
    find_line_fault,
    has_controls,
)
from trio_upgrade._http.server_codec import ServerCodec
from trio_upgrade.testing import split_points

START = b"GET / HTTP/1.1\r\n"


class TestFirstOctet:
    """The check that needs only the first octet."""

    @pytest.mark.ids("M03")
    @pytest.mark.parametrize("octet", range(0x100), ids="0x{:02x}".format)
    def test_every_octet(self, octet: int) -> None:
        """A start-line begins with a tchar; anything else is not HTTP (RFC 9112 §2.2)."""
        # RFC 9110 §5.6.2: a letter, a digit, or one of the characters below.
        character = chr(octet)
        is_tchar = character.isascii() and character.isalnum()
        records = {0x15: "alert", 0x16: "handshake"}
        if octet in records:
            with pytest.raises(MalformedMessage) as caught:
                check_first_octet(octet)
            text = f"a TLS {records[octet]} where plain HTTP was expected"
            assert str(caught.value) == text
            return
        if is_tchar or octet in b"!#$%&'*+-.^_`|~":
            check_first_octet(octet)
            return
        with pytest.raises(MalformedMessage) as caught:
            check_first_octet(octet)

        assert str(caught.value) == f"no HTTP message begins with octet 0x{octet:02x}"
        assert caught.value.status == 400


class TestStatusLine:
    """The check of a status line that may be incomplete."""

    @pytest.mark.ids("F1")
    @pytest.mark.parametrize(
        "line", [b"HTTP/1.1 200 OK", b"HTTP/1.0 599", b"HTTP/1.1 101 "]
    )
    def test_as_strict_as_h11(self, line: bytes) -> None:
        """With any octet at any place, it is accepted if h11 and check_head() do."""
        whole = line + b"\r\n\r\n"
        for place in range(len(line) + 2):
            for octet in range(0x100):
                wire = whole[:place] + bytes([octet]) + whole[place + 1 :]
                accepted = wire.startswith(b"HTTP/1.") and _is_accepted(wire)
                for size in range(place + 1):
                    check_status_line(wire[:size])
                for data in (wire[: place + 1], wire, bytearray(wire)):
                    try:
                        check_status_line(data)
                    except MalformedMessage:
                        assert not accepted, wire
                    else:
                        # A CR needs the octet after it.
                        assert accepted or data == wire[: place + 1], wire

    @pytest.mark.ids("F1")
    def test_no_more_than_the_line(self) -> None:
        """Bytes after the status line are not checked here."""
        check_status_line(b"HTTP/1.1 200\r\n\x00\n\r")
        check_status_line(b"")


def _is_accepted(head: bytes) -> bool:
    parser = h11.Connection(h11.CLIENT)
    offer = [("Host", "x"), ("Connection", "Upgrade"), ("Upgrade", "echo")]
    parser.send(h11.Request(method="GET", target="/", headers=offer))
    parser.send(h11.EndOfMessage())
    end = find_head_end(head, 0)
    try:
        check_head(head[:end], 128)
        parser.receive_data(head)
        return parser.next_event() is not h11.NEED_DATA
    except (MalformedMessage, h11.RemoteProtocolError):
        return False


class TestFindEnd:
    """Finding the end of a message head."""

    @pytest.mark.parametrize(
        ("data", "end"),
        [
            (b"", -1),
            (b"a\r\n", -1),
            (b"a\r\n\r", -1),
            (b"a\r\nb: c\r\n", -1),
            (b"a\r\r", -1),
            (b"a\r\n\r\n", 5),
            (b"a\r\nb: c\r\n\r\nrest\r\n\r\n", 11),
            # Found, so that check_head() can refuse them: h11 would end the head there.
            (b"a\n\n", 3),
            (b"a\r\n\nrest", 4),
            (b"a\n\r\nrest", 4),
        ],
    )
    def test_end(self, data: bytes, end: int) -> None:
        """The head ends at its first empty line, even without a CR (RFC 9112 §2.2)."""
        assert find_head_end(data, 0) == end

    @given(st.text("a\r\n", max_size=12), st.integers(0, 12))
    def test_first_of_both(self, text: str, start: int) -> None:
        """The first empty line after ``start`` is found, with or without a CR."""
        data = text.encode()
        match = re.compile(rb"\n\r?\n").search(data, start)

        assert find_head_end(data, start) == (match.end() if match else -1)


PROXY = "a PROXY protocol header where a request was expected"
NOT_ASCII = "other characters of the target are written as %-escapes"
PARTS = "the request line must be a method, a target and HTTP/1.1"
VERSION = "the request line does not end in HTTP/1.1"
PORTS = b"192.0.2.1 198.51.100.1 56324 443"


class TestLineFault:
    """The text for a request head that h11, or one of our checks, refuses."""

    @pytest.mark.ids("F40")
    @pytest.mark.parametrize(
        ("line", "text"),
        [
            (b"GET /?q=caf\xc3\xa9 HTTP/1.1", f"octet 0xc3 at index 11: .*{NOT_ASCII}"),
            (b"GET /\xff HTTP/1.1", "has octet 0xff at index 5:"),
            (b"GET\t/ HTTP/1.1", "has octet 0x09 at index 3:"),
            (b"CONNECT caf\xe9:1 HTTP/1.1", "has octet 0xe9 at index 11:"),
            (b"PROXY TCP4 " + PORTS, PROXY),
            (b"PROXY TCP6 ::1 ::1 1 2", PROXY),
            (b"PROXY UNKNOWN", PROXY),
            (b"PROXY UNKNOWN ::1 \xe9", PROXY),
            (b"PROXY TCP5 " + PORTS, f"{PARTS}.*its blanks is 5$"),
            (b"PROXY /", f"{PARTS}.*its blanks is 1$"),
            (b"SSH-2.0-x", f"{PARTS}.*its blanks is 0$"),
            (b"GET /", f"{PARTS}.*its blanks is 1$"),
            (b"GET  / HTTP/1.1", f"{PARTS}.*its blanks is 3$"),
            (b"GET /a b HTTP/1.1", f"{PARTS}.*its blanks is 3$"),
            (b"GET / HTTP/1.1 ", f"{PARTS}.*its blanks is 3$"),
            (b"GET / ", f"{PARTS}.*its blanks is 2$"),
            (b"GET / http/1.1", VERSION),
            (b"GET / HTTP/1", VERSION),
            (b"GET / HTTP/1.10", VERSION),
            (
                b"G(T / HTTP/1.1",
                r"the method has octet 0x28 at index 1: it is no token",
            ),
        ],
    )
    def test_request_line(self, line: bytes, text: str) -> None:
        """The octet is named and where it stands, or what the line looks like."""
        for wire in (
            line + b"\r\nHost: x\r\n\r\n",
            line + b"\r\nGET /?S3CRET HTTP/1.1\r\nHost: x\r\n\r\n",
        ):
            assert re.search(text, find_line_fault(wire) or "")
            check_line_refused(wire, text)
        # Also if another check comes first.
        check_line_refused(line + b"\r\n\r\n", text)

    @pytest.mark.ids("F40")
    @pytest.mark.parametrize(
        ("field", "text"),
        [
            (b"S3CRET", "field line 2 has no colon"),
            (b": S3CRET", "the name in field line 2 is empty"),
            (b"A : S3CRET", "name in field line 2 has octet 0x20 at index 1: it is no"),
            (
                b"Caf\xe9: S3CRET",
                "name in field line 2 has octet 0xe9 at index 3: it is",
            ),
        ],
    )
    def test_field_line(self, field: bytes, text: str) -> None:
        """A malformed field line is named by its number, and not quoted."""
        head = b"GET /?S3CRET HTTP/1.1\r\nHost: x\r\n"
        for lines in (field + b"\r\n", field + b"\r\n: x\r\nA: b\r\n"):
            assert re.search(text, find_line_fault(head + lines + b"\r\n") or "")
            check_line_refused(head + lines + b"\r\n", text)

    @pytest.mark.ids("F40")
    @pytest.mark.parametrize(
        ("head", "text", "status"),
        [
            (b"GET / HTTP/1.1\r\n\r\n", "no Host field, which every", 400),
            (b"CONNECT a:1 HTTP/1.1\r\n\r\n", "a CONNECT too", 400),
            (b"PROXY / HTTP/1.1\r\n\r\n", "no Host field, which every", 400),
            (b"GET / HTTP/2.0\r\n\r\n", "HTTP/2.0 is not supported", 505),
            # The status says what was refused, so the text does as well.
            (b"GET / HTTP/2.0\r\nA B: c\r\n\r\n", "HTTP/2.0 is not supported", 505),
        ],
    )
    def test_well_formed_lines(self, head: bytes, text: str, status: int) -> None:
        """If each line is well formed, or the status is another, the text stays."""
        check_line_refused(head, text, status)

    @given(st.text("GET /?\xe9\tHP1.\r:", max_size=20))
    def test_found_if_h11_refuses(self, text: str) -> None:
        """Each head of legal octets that h11 refuses has a fault in a line."""
        head = b"GET" + text.encode("latin-1") + b" HTTP/1.1\r\nHost: x\r\n\r\n"
        try:
            check_head(head, 128)
        except MalformedMessage:
            return
        parser = h11.Connection(h11.SERVER)
        parser.receive_data(head)
        try:
            parser.next_event()
        except h11.RemoteProtocolError:
            assert find_line_fault(head)
        else:
            assert find_line_fault(head) is None

    @pytest.mark.ids("F40")
    def test_proxy_protocol_of_version_2(self) -> None:
        """Two blank lines are a 400, which says who begins like that."""
        text = (
            "no HTTP message begins with octet 0x0d after a blank line; a PROXY protocol "
            "header of version 2 does"
        )
        wire = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"
        check_line_refused(wire, f"^{text}$")
        check_second_blank_line(b"\n\r")


def check_line_refused(wire: bytes, text: str, status: int = 400) -> None:
    """The server refuses the wire with this text, however it is cut."""
    for packets in split_points(wire):
        codec = ServerCodec(Limits())
        with pytest.raises(MalformedMessage, match=text) as caught:
            for packet in packets:
                codec.receive_data(packet)
                codec.next_request()

        assert caught.value.status == status
        assert "S3CRET" not in str(caught.value)


class TestCheckHead:
    """The check of a whole message head."""

    @pytest.mark.parametrize(
        "head",
        [
            START + b"\r\n",
            START + b"Host: x\r\n\r\n",
            START + b"A:\r\nB:\r\nC:\r\n\r\n",
            START + b"A: b \t \r\n\r\n",
        ],
    )
    def test_accepted(self, head: bytes) -> None:
        """Lines that end in CRLF and are not folded are accepted (RFC 9112 §2.1)."""
        check_head(head, 3)

    @pytest.mark.ids("M04")
    @pytest.mark.parametrize(
        "head",
        [
            START + b"Host: x\n\r\n",
            START + b"Host: x\r\n\n",
            START + b"Host: x\n\n",
            START + b"A: b\nC: d\r\n\r\n",
            b"GET / HTTP/1.1\nHost: x\r\n\r\n",
            START + b"A: b\rC: d\r\n\r\n",
            START + b"A: b\r\r\n\r\n",
            START + b"A: \rb\r\n\r\n",
            b"GET /\r HTTP/1.1\r\n\r\n",
            # As many CRs as LFs.
            START + b"A: b\rC\nD: e\r\n\r\n",
            START + b"A: b\n\rC: d\r\n\r\n",
        ],
    )
    def test_line_end_alone(self, head: bytes) -> None:
        """A bare CR or LF is refused anywhere in the head (RFC 9112 §2.2)."""
        with pytest.raises(
            MalformedMessage, match="a bare CR or LF in the message head"
        ) as e:
            check_head(head, 128)

        assert e.value.status == 400

    @pytest.mark.parametrize(
        "head",
        [
            START + b"A: b\r\n c\r\n\r\n",
            START + b"A: b\r\n\tc\r\n\r\n",
            START + b"A:\r\n  \r\n\r\n",
            START + b" Host: x\r\n\r\n",
            START + b"\tHost: x\r\n\r\n",
        ],
    )
    def test_folded_line(self, head: bytes) -> None:
        """Folded lines and leading blanks are refused (RFC 9112 §2.2, §5.2)."""
        with pytest.raises(MalformedMessage, match="a folded field line") as caught:
            check_head(head, 128)

        assert caught.value.status == 400

    @pytest.mark.ids("U29")
    @pytest.mark.parametrize("octet", range(0x100), ids="0x{:02x}".format)
    def test_every_octet(self, octet: int) -> None:
        """HTAB is the only control character allowed in a line (RFC 9110 §5.5)."""
        character = bytes([octet])
        heads = [
            START + b"A: b" + character + b"c\r\n\r\n",
            START + b"A" + character + b": b\r\n\r\n",
            b"GET /" + character + b" HTTP/1.1\r\n\r\n",
        ]
        is_control = octet < 0x20 or octet == 0x7F
        is_refused = is_control and character != b"\t"
        text = "a control character in the message head"
        if character in b"\r\n":
            text = "a bare CR or LF in the message head"
        for head in heads:
            if is_refused:
                with pytest.raises(MalformedMessage, match=f"^{text}$") as caught:
                    check_head(head, 128)
                assert caught.value.status == 400
            else:
                check_head(head, 128)

        assert has_controls(b"5;a" + character + b"b") == is_refused
        assert has_controls(character) == is_refused
        assert not has_controls(b"")

    @pytest.mark.parametrize("fields", [0, 1, 2, 128])
    def test_too_many_fields(self, fields: int) -> None:
        """One field more than the limit is a 431 (RFC 6585 §5)."""
        head = START + b"A: b\r\n" * fields
        check_head(head + b"\r\n", fields)
        with pytest.raises(MalformedMessage) as caught:
            check_head(head + b"A: b\r\n\r\n", fields)

        assert str(caught.value) == f"more than {fields} fields (header_fields)"
        assert caught.value.status == 431

    @given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b" ", b"a"])))
    def test_what_is_accepted(self, parts: list[bytes]) -> None:
        """An accepted head has the same lines whether it is split at CRLF or at LF."""
        head = START + b"".join(parts)
        try:
            check_head(head, 128)
        except MalformedMessage:
            return
        lines = head.split(b"\r\n")
        assert b"\r\n".join(lines).replace(b"\r\n", b"\n").split(b"\n") == lines
        assert not any(line.startswith((b" ", b"\t")) for line in lines[1:])
        assert not any(b"\r" in line or b"\n" in line for line in lines)
