"""The version of a message, its Host field, and the fields that end its body."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from trio_upgrade import (
    BadBody,
    BadResponse,
    MalformedMessage,
    Request,
    Response,
    open_connection,
)
from trio_upgrade._http.framing import (
    check_request,
    check_response,
    drop_framing,
    parse_length,
)
from trio_upgrade._http.head_syntax import check_head
from trio_upgrade.testing import ScriptedPeer, split_points

from ..apps import echo_app
from ..servers import run_script
from ..wire import get, okay

BOTH = "both Content-Length and Transfer-Encoding"
REPEATED = "more than one Content-Length"
NO_HOST = "no Host field, which every HTTP/1.1 request must have, a CONNECT too"
OLD_CODING = "a transfer coding in HTTP/1.0"
NOT_CHUNKED = "chunked is not the last transfer coding, or is repeated"
OTHER_CODING = "a transfer coding other than chunked"


def make_request(
    *fields: str, line: str = "POST / HTTP/1.1", host: str = "Host: x"
) -> bytes:
    lines = [line, *([host] if host else []), *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def make_response(*fields: str, line: str = "HTTP/1.1 200 OK") -> bytes:
    return "\r\n".join([line, *fields, "", ""]).encode("latin-1")


def check_refused(head: bytes, text: str, status: int = 400) -> None:
    check_head(head, 128)
    with pytest.raises(MalformedMessage) as caught:
        check_request(head)

    assert str(caught.value) == text
    assert caught.value.status == status


class TestVersion:
    """The versions that are supported."""

    @pytest.mark.parametrize("version", ["1.0", "1.1"])
    def test_supported(self, version: str) -> None:
        """HTTP/1.0 and HTTP/1.1 are accepted (RFC 9112 §2.3)."""
        check_request(make_request(line=f"GET / HTTP/{version}"))
        check_response(make_response(line=f"HTTP/{version} 200 OK"), has_body=True)
        check_response(make_response(line=f"HTTP/{version} 200"), has_body=True)

    @pytest.mark.parametrize(
        ("version", "status"),
        [
            ("0.9", 505),
            ("2.0", 505),
            ("3.0", 505),
            ("9.1", 505),
            ("1.2", 400),
            ("1.9", 400),
        ],
    )
    def test_not_supported(self, version: str, status: int) -> None:
        """Another major version is a 505 (RFC 9110 §15.6.6), a minor one a 400."""
        text = f"HTTP/{version} is not supported"
        check_refused(make_request(line=f"GET / HTTP/{version}"), text, status)
        for line in (f"HTTP/{version} 200 OK", f"HTTP/{version} 101"):
            for has_body in (True, False):
                with pytest.raises(MalformedMessage, match=f"^{text}$"):
                    check_response(make_response(line=line), has_body=has_body)

    @pytest.mark.parametrize(
        "line", ["GET /", "GET / HTTP/11", "GET / HTTP/1.11", "GET / http/2.0", "G"]
    )
    def test_none(self, line: str) -> None:
        """A request line without a version is left to h11, which refuses it."""
        check_request(make_request(line=line))

    @pytest.mark.parametrize("line", ["SSH-2.0-x", "http/2.0 200 OK", "HTTP/2.01 200"])
    def test_none_in_a_response(self, line: str) -> None:
        """A status line without a version is left to h11, too."""
        check_response(make_response(line=line), has_body=True)

    def test_only_the_first_line_counts(self) -> None:
        """A version in a field or in the target is not the version of the message."""
        for field in ("A: b HTTP/2.0", "A: HTTP/1.0", "HTTP/2.0: x"):
            check_request(make_request(field))
            check_response(make_response(field), has_body=True)
        check_refused(make_request("A: b HTTP/1.0", host=""), NO_HOST)
        check_request(make_request(line="GET /?HTTP/2.0 HTTP/1.1"))
        check_response(make_response(line="HTTP/1.1 200 HTTP/2.0"), has_body=True)

    async def test_on_the_wire(self) -> None:
        """The HTTP/2 preface gets a 505 in HTTP/1.1, and a close (RFC 9110 §15.6.6)."""

        async def app(_: Request) -> None:
            raise AssertionError("called")

        for packets in split_points(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
            peer = await run_script(app, *packets)

            assert peer.sent.startswith(b"HTTP/1.1 505 HTTP Version Not Supported\r\n")
            assert b"\r\nConnection: close\r\n" in peer.sent
            assert peer.sent.endswith(b"\r\n\r\nHTTP/2.0 is not supported\n")


class TestHost:
    """The Host field."""

    @pytest.mark.ids("M01")
    @pytest.mark.parametrize(
        "host",
        [
            "Host: x",
            "Host:x",
            "HOST: \t x \t ",
            "host: example.com:81",
            "Host: [::1]",
            "Host: [::ffff:127.0.0.1]:443",
            "Host: 127.0.0.1:0",
            "Host: a_b~c%20",
            # A comma is a sub-delim (RFC 3986 §3.2.2): strange, but a name.
            "Host: a,b",
            "Host: x:",
            # Go's clients send this over Unix sockets.
            "Host:",
            "Host: ",
            "Host: \t",
        ],
    )
    def test_well_formed(self, host: str) -> None:
        """Host is a host with an optional port, or empty (RFC 9112 §3.2)."""
        check_request(make_request(host=host))
        check_request(make_request(host=host, line="GET / HTTP/1.0"))

    @pytest.mark.ids("M01")
    @pytest.mark.parametrize(
        "host",
        [
            "a b",
            "x:99999",
            "x:123456",
            "x:y",
            "x:-1",
            "a:1:2",
            "[::1",
            "::1",
            "[::g]",
            "[1::2::3]",
            "[]",
            "user@x",
            "http://x",
            "x/",
            "x?y",
            "%2",
            "\xe9",
            "x, x",
        ],
    )
    def test_malformed(self, host: str) -> None:
        """A malformed Host is a 400, also in HTTP/1.0 (RFC 9112 §3.2)."""
        for line in ("GET / HTTP/1.1", "GET / HTTP/1.0"):
            head = make_request(host=f"Host: {host}", line=line)
            with pytest.raises(MalformedMessage) as caught:
                check_request(head)

            cause = caught.value.__cause__
            assert isinstance(cause, ValueError)
            assert str(caught.value) == f"a malformed Host field: {cause}"
            assert caught.value.status == 400

    @pytest.mark.ids("M01")
    @pytest.mark.parametrize("second", ["Host: x", "host: y", "HOST:", "hOsT: a b"])
    def test_repeated(self, second: str) -> None:
        """Two Host fields are a 400, even if equal or in HTTP/1.0 (RFC 9112 §3.2)."""
        for line in ("GET / HTTP/1.1", "GET / HTTP/1.0"):
            check_refused(make_request(second, line=line), "more than one Host field")

    @pytest.mark.ids("M01")
    def test_missing(self) -> None:
        """HTTP/1.1 needs a Host field, HTTP/1.0 does not (RFC 9112 §3.2)."""
        check_refused(make_request(host=""), NO_HOST)
        check_refused(make_request(host="", line="CONNECT a:1 HTTP/1.1"), NO_HOST)
        check_request(make_request(host="", line="GET / HTTP/1.0"))
        # ncat, socat and OpenBSD's nc send this.
        check_request(make_request(host="", line="CONNECT a:1 HTTP/1.0"))

    @pytest.mark.parametrize(
        "field",
        ["Hosts: a b", "X-Host: a b", "A: Host: a b", "A: \tHost: y", "Host-: a b"],
    )
    def test_looks_alike(self, field: str) -> None:
        """Only a field whose whole name is Host counts."""
        check_request(make_request(field))
        check_refused(make_request(field, host=""), NO_HOST)

    def test_in_a_response(self) -> None:
        """Host fields in a response are not checked."""
        check_response(make_response("Host: a b", "Host: x"), has_body=True)


NO_NUMBER = "is not a number"
TOO_GREAT = "is above 2^63 - 1"
MANY_DIGITS = "has more than 20 digits"
LENGTHS = [
    ("9223372036854775808", TOO_GREAT),
    ("09223372036854775808", TOO_GREAT),
    ("18446744073709551621", TOO_GREAT),
    ("99999999999999999999", TOO_GREAT),
    ("000000000000000000005", MANY_DIGITS),
    ("9" * 5000, MANY_DIGITS),
    ("", NO_NUMBER),
    ("+5", NO_NUMBER),
    ("-5", NO_NUMBER),
    ("-0", NO_NUMBER),
    ("0x5", NO_NUMBER),
    ("5 5", NO_NUMBER),
    ("5\t5", NO_NUMBER),
    ("1_0", NO_NUMBER),
    ("a", NO_NUMBER),
    ("5.", NO_NUMBER),
    ("5;5", NO_NUMBER),
    ("\xb2", NO_NUMBER),
]


class TestLength:
    """The numbers that a length may be."""

    @pytest.mark.ids("F27")
    @pytest.mark.parametrize(
        ("digits", "length"),
        [
            ("0", 0),
            ("5", 5),
            ("00000000000000000005", 5),
            ("9223372036854775807", 2**63 - 1),
            ("09223372036854775807", 2**63 - 1),
        ],
    )
    def test_accepted(self, digits: str, length: int) -> None:
        """At most 20 digits, below 2^63 (RFC 9110 §8.6)."""
        assert parse_length(digits.encode()) == length
        check_request(make_request(f"Content-Length: {digits}"))
        check_response(make_response(f"Content-Length: {digits}"), has_body=True)
        double = make_response(f"Content-Length: {digits} ,\t{digits}")
        check_response(double, has_body=True)

    @pytest.mark.ids("F27")
    @pytest.mark.parametrize(("digits", "fault"), LENGTHS)
    def test_refused(self, digits: str, fault: str) -> None:
        """A length that programs may read differently is refused by both roles."""
        text = f"a Content-Length that {fault}"
        for line in ("POST / HTTP/1.1", "POST / HTTP/1.0", "CONNECT a:1 HTTP/1.1"):
            check_refused(make_request(f"Content-Length: {digits}", line=line), text)
        for value in (digits, f"5, {digits}"):
            head = make_response(f"Content-Length: {value}")
            with pytest.raises(MalformedMessage) as caught:
                check_response(head, has_body=True)
            assert str(caught.value) == text
            # A 1xx ends at its blank line (RFC 9112 §6.3).
            check_response(head, has_body=False)

    @pytest.mark.ids("F27")
    async def test_refused_at_once(self) -> None:
        """The server answers 400 and closes; it waits for no byte of such a body."""

        async def app(request: Request) -> Response:
            return Response(200, await request.read())

        coded = get("/", "Transfer-Encoding: chunked")
        for wire in (
            get("/", "Content-Length: 9223372036854775808"),
            coded + b"10000000000000005\r\n",
        ):
            for packets in split_points(wire + b"hello\r\n0\r\n\r\n" + get("/2")):
                peer = await run_script(app, *packets)

                assert peer.sent.startswith(b"HTTP/1.1 400 Bad Request\r\n")
                assert b"\r\nConnection: close\r\n" in peer.sent
                assert peer.sent.endswith(b" that is above 2^63 - 1\n")
            peer = await run_script(app, wire, then="silence")
            assert peer.sent.endswith(b" that is above 2^63 - 1\n")

    @pytest.mark.ids("F27")
    async def test_refused_by_the_client(self) -> None:
        """The client raises, and closes: BadResponse for a head, BadBody for a chunk."""
        head = b"HTTP/1.1 200 OK\r\n"
        for packets in split_points(
            head + b"Content-Length: 9223372036854775808\r\n\r\nhello"
        ):
            peer = ScriptedPeer(*packets, then="silence")
            async with await open_connection("http://x", stream=peer) as connection:
                with pytest.raises(BadResponse, match=r"above 2\^63 - 1$"):
                    await connection.request("GET", "/")
            assert peer.closed
        for packets in split_points(
            head + b"Transfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello"
        ):
            peer = ScriptedPeer(*packets, then="silence")
            async with await open_connection("http://x", stream=peer) as connection:
                response = await connection.request("GET", "/")
                with pytest.raises(BadBody, match=r"above 2\^63 - 1$"):
                    await response.read()
            assert peer.closed


class TestRequestBody:
    """The end of a request body."""

    @pytest.mark.parametrize(
        "fields",
        [
            [],
            ["Content-Length: 0"],
            ["content-LENGTH:5"],
            ["Content-Length: \t 5 \t"],
            ["Transfer-Encoding: chunked"],
            ["transfer-ENCODING:CHUNKED"],
            ["Transfer-Encoding: , chunked,"],
            ["Transfer-Encoding:", "Transfer-Encoding: chunked"],
            # Fields with similar names, and values that look like fields.
            ["X-Content-Length: 4", "Content-Length: 5", "Content-Length-X: 6"],
            ["X-Transfer-Encoding: gzip", "Content-Length: 5"],
            ["Transfer-Encoding: chunked", "Transfer-Encodings: gzip"],
            ["A: Content-Length: 4", "A: Transfer-Encoding: x", "Content-Length: 5"],
        ],
    )
    def test_unambiguous(self, fields: list[str]) -> None:
        """One length, or chunked once, in any case, is accepted (RFC 9112 §6.3)."""
        check_request(make_request(*fields))

    @pytest.mark.parametrize(
        "fields",
        [
            ["Content-Length: 5", "Content-Length: 6"],
            ["Content-Length: 5", "Content-Length: 5"],
            ["Content-Length: 0", "content-length: 0"],
            ["Content-Length: 5, 5"],
            ["Content-Length: 5,"],
            ["Content-Length: 5", "Transfer-Encoding: chunked", "Content-Length: 5"],
            ["Transfer-Encoding: chunked", "Content-Length: 5, 5"],
        ],
    )
    def test_repeated_length(self, fields: list[str]) -> None:
        """More than one length is a 400, even if they are equal (RFC 9112 §6.3)."""
        check_refused(make_request(*fields), REPEATED)
        check_refused(make_request(*fields, line="POST / HTTP/1.0"), REPEATED)

    @pytest.mark.ids("M06")
    @pytest.mark.parametrize("length", ["5", "0", "", "x"])
    @pytest.mark.parametrize("coding", ["chunked", "gzip", ""])
    def test_length_and_coding(self, length: str, coding: str) -> None:
        """A length together with a coding is a 400, with any values (RFC 9112 §6.1)."""
        fields = [f"Content-Length: {length}", f"Transfer-Encoding: {coding}"]
        for line in ("POST / HTTP/1.1", "POST / HTTP/1.0", "CONNECT a:1 HTTP/1.1"):
            check_refused(make_request(*fields, line=line), BOTH)
            check_refused(make_request(*fields[::-1], line=line), BOTH)

    @pytest.mark.ids("M06")
    @pytest.mark.parametrize("coding", ["chunked", "gzip", "", "gzip, chunked"])
    def test_coding_in_http_1_0(self, coding: str) -> None:
        """A transfer coding in HTTP/1.0 is a 400 (RFC 9112 §6.1)."""
        head = make_request(f"Transfer-Encoding: {coding}", line="POST / HTTP/1.0")
        check_refused(head, OLD_CODING)

    @pytest.mark.ids("M07")
    @pytest.mark.parametrize(
        "fields",
        [
            ["gzip"],
            ["identity"],
            ["chunked, gzip"],
            ["chunked", "gzip"],
            ["chunked, chunked"],
            ["chunked", "chunked"],
            ["chunked, gzip, chunked"],
            ["chunked;a=b"],
            ["xchunked"],
            ["chunked x"],
            ["\xa0chunked"],
            ["'chunked'"],
            ['"chunked"'],
            [""],
            [","],
        ],
    )
    def test_not_chunked_last(self, fields: list[str]) -> None:
        """Codings other than one final chunked hide the end: 400 (RFC 9112 §6.3)."""
        head = make_request(*(f"Transfer-Encoding: {field}" for field in fields))
        check_refused(head, NOT_CHUNKED)

    @pytest.mark.parametrize(
        "fields",
        [
            ["gzip, chunked"],
            ["gzip", "chunked"],
            ["a;b=c, Chunked"],
            ["identity,chunked"],
        ],
    )
    def test_other_coding(self, fields: list[str]) -> None:
        """A coding before chunked is a 501: the end is known (RFC 9112 §6.1)."""
        head = make_request(*(f"Transfer-Encoding: {field}" for field in fields))
        check_refused(head, OTHER_CODING, 501)


class TestConnect:
    """A CONNECT and its content."""

    @pytest.mark.ids("C07")
    @pytest.mark.parametrize(
        "field",
        [
            "Content-Length: 5",
            "Content-Length: 01",
            "Transfer-Encoding: chunked",
            "transfer-encoding: chunked",
        ],
    )
    def test_content(self, field: str) -> None:
        """A CONNECT with content is a 400 (RFC 9110 §9.3.6)."""
        head = make_request(field, line="CONNECT a:1 HTTP/1.1")
        check_refused(head, "a CONNECT has no content")

    @pytest.mark.ids("C07")
    @pytest.mark.parametrize("length", ["0", " 0 ", "00", "\t0"])
    def test_no_content(self, length: str) -> None:
        """A CONNECT may have a Content-Length of 0 (RFC 9110 §9.3.6)."""
        for version in ("1.0", "1.1"):
            line = f"CONNECT a:1 HTTP/{version}"
            check_request(make_request(f"Content-Length: {length}", line=line))

    @pytest.mark.parametrize("method", ["CONNECTX", "connect", "XCONNECT"])
    def test_other_methods(self, method: str) -> None:
        """Other methods may have content; methods are case-sensitive (RFC 9110 §9.1)."""
        check_request(make_request("Content-Length: 5", line=f"{method} / HTTP/1.1"))


class TestExpect:
    """The Expect field of a request."""

    @pytest.mark.parametrize(
        "fields",
        [
            ["Expect: 100-continue"],
            ["expect:100-CONTINUE"],
            ["Expect: 100-continue, 100-continue", "Expect:"],
            ["Expect:"],
            ["X-Expect: x", "Expects: x", "A: Expect: x"],
        ],
    )
    def test_known(self, fields: list[str]) -> None:
        """100-continue is accepted in any case (RFC 9110 §10.1.1)."""
        check_request(make_request(*fields))

    @pytest.mark.parametrize(
        "fields",
        [
            ["Expect: 200-ok"],
            ["Expect: 100-continue, x"],
            ["Expect: 100-continue", "EXPECT: x"],
            ["Expect: 100-continue;a=b"],
        ],
    )
    def test_unknown(self, fields: list[str]) -> None:
        """Another expectation is a 417; in HTTP/1.0 it is ignored (RFC 9110 §10.1.1)."""
        check_refused(make_request(*fields), "an unknown expectation", 417)
        check_request(make_request(*fields, line="POST / HTTP/1.0"))

    async def test_on_the_wire(self) -> None:
        """Another expectation does not reach the app (RFC 9110 §15.5.18)."""
        peer = await run_script(echo_app, get("/", "Expect: x"))

        assert peer.sent.startswith(b"HTTP/1.1 417 ")
        assert peer.sent.endswith(b"\r\n\r\nan unknown expectation\n")


class TestResponseBody:
    """The end of a response body."""

    @pytest.mark.parametrize(
        "fields",
        [
            [],
            ["Content-Length: 5"],
            ["Content-Length: 5", "Content-Length: 5"],
            ["Content-Length: 5, 5"],
            ["Transfer-Encoding: Chunked"],
            ["X-Content-Length: 5", "Transfer-Encoding: chunked"],
            ["Expect: x"],
        ],
    )
    def test_unambiguous(self, fields: list[str]) -> None:
        """One length, equal lengths, or chunked once are accepted (RFC 9110 §8.6)."""
        check_response(make_response(*fields), has_body=True)

    @pytest.mark.ids("M07")
    @pytest.mark.parametrize(
        ("fields", "text", "version"),
        [
            (["Content-Length: 5", "Transfer-Encoding: chunked"], BOTH, "1.1"),
            (["transfer-encoding: chunked", "content-length: 5"], BOTH, "1.0"),
            (["Transfer-Encoding: chunked"], OLD_CODING, "1.0"),
            (["Transfer-Encoding: gzip"], NOT_CHUNKED, "1.1"),
            (["Transfer-Encoding:"], NOT_CHUNKED, "1.1"),
            (["Transfer-Encoding: gzip, chunked"], OTHER_CODING, "1.1"),
        ],
    )
    def test_ambiguous(self, fields: list[str], text: str, version: str) -> None:
        """A response whose end is ambiguous is refused (RFC 9112 §6.1, §6.3)."""
        head = make_response(*fields, line=f"HTTP/{version} 200 OK")
        with pytest.raises(MalformedMessage, match=f"^{text}$"):
            check_response(head, has_body=True)

    def test_without_a_body(self) -> None:
        """Framing fields are not checked if there can be no body (RFC 9112 §6.3)."""
        head = make_response("Content-Length: 5", "Transfer-Encoding: x")
        check_response(head, has_body=False)

    @pytest.mark.parametrize(
        "informational", [b"", b"HTTP/1.1 103 Hints\r\nTE: x\r\n\r\n"]
    )
    async def test_on_the_wire(self, informational: bytes) -> None:
        """A client refuses such a response and closes the connection (RFC 9112 §6.3)."""
        head = make_response("Content-Length: 5", "Transfer-Encoding: chunked")
        for packets in split_points(informational + head + b"0\r\n\r\n"):
            peer = ScriptedPeer(*packets)
            connection = await open_connection("http://x", stream=peer)
            with pytest.raises(BadResponse, match=f": {BOTH}$"):
                await connection.request("GET", "/")

            assert peer.closed


class TestDropFraming:
    """Removing the framing fields of a 2xx to CONNECT."""

    @pytest.mark.ids("C06")
    @pytest.mark.parametrize(
        ("fields", "left"),
        [
            ([], []),
            (["Content-Length: 5"], []),
            (["CONTENT-length:x", "transfer-ENCODING: gzip"], []),
            (["Content-Length: 5", "content-length: 6", "A: b"], ["A: b"]),
            (["A: b", "Transfer-Encoding:", "C: d"], ["A: b", "C: d"]),
            (["A: b", "Content-Length: -1"], ["A: b"]),
            (
                ["X-Content-Length: 5", "A: Content-Length: 5", "Content-Length-: 5"],
                ["X-Content-Length: 5", "A: Content-Length: 5", "Content-Length-: 5"],
            ),
        ],
    )
    def test_fields(self, fields: list[str], left: list[str]) -> None:
        """All framing fields are removed, other fields stay (RFC 9110 §9.3.6)."""
        assert drop_framing(make_response(*fields)) == make_response(*left)


FIELDS = ["Host: x", "Host:", "Content-Length: 3", "Content-Length: 0", "A: b"]
FIELDS += ["Transfer-Encoding: chunked", "transfer-encoding: x", "Expect: 100-continue"]


@given(
    st.lists(st.sampled_from(FIELDS), max_size=5),
    st.sampled_from(["POST / HTTP/1.1", "POST / HTTP/1.0", "CONNECT a:1 HTTP/1.1"]),
)
def test_accepted_requests_end_in_one_place(fields: list[str], line: str) -> None:
    """An accepted request has at most one Host and at most one framing field."""
    head = make_request(*fields, line=line, host="")
    try:
        check_request(head)
    except MalformedMessage:
        return
    names = [field.partition(":")[0].lower() for field in fields]
    assert names.count("host") <= 1
    assert names.count("content-length") + names.count("transfer-encoding") <= 1
    assert "host" in names or line.endswith("1.0")


async def test_no_false_alarm() -> None:
    """An ordinary request with fields that look similar is served."""

    async def app(request: Request) -> Response:
        return Response(200, await request.read())

    alike = ["X-Content-Length: 9", "Hosts: a b", "A: host: a b", "X-Expect: y"]
    wire = get("/", *alike, "Content-Length: 2").replace(b"GET", b"POST") + b"ok"
    peer = await run_script(app, wire)

    assert peer.sent == okay(b"ok")
