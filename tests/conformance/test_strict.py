"""Requests that the app never sees: the same rules with and without an offer."""

from __future__ import annotations

import pytest

from trio_upgrade import BadBody, Limits, Request, Response
from trio_upgrade.testing import split_points

from ..apps import echo_app
from ..servers import run_script
from ..wire import SWITCHED, UP, closing, get, okay
from .wires import Serving, check_closing_text, unreachable_app, with_fields

BAD = "400 Bad Request"
PLAIN = get("/u")
BAD_CHUNKS = [
    b"1;a\rb\r\nx\r\n0\r\n\r\n",
    b"1\nx\r\n0\r\n\r\n",
    b"1;a\nb\r\nx\r\n0\r\n\r\n",
    b"1\r\nx\n0\r\n\r\n",
    b"1\r\nxy0\r\n\r\n",
    b"+1\r\nx\r\n0\r\n\r\n",
    b"0x1\r\nx\r\n0\r\n\r\n",
    b" 1\r\nx\r\n0\r\n\r\n",
    b"\r\n",
    b"1\r\nx\r\n0\r\nA: b\n\r\n",
    b"1\r\nx\r\n0\r\nA : b\r\n\r\n",
    b"1\r\nx\r\n0\r\nA: b\r\n c\r\n\r\n",
]
# Each rule holds for both.
heads = pytest.mark.parametrize("head", [PLAIN, UP], ids=["plain", "offer"])


@pytest.mark.ids("M01", "S9")
@heads
@pytest.mark.parametrize(
    "host",
    [
        b"",
        b"Host: x\r\nHost: x\r\n",
        b"Host: x, y\r\n",
        b"Host: x y\r\n",
        b"Host: x/y\r\n",
        b"Host: x:y\r\n",
        b"Host: x:65536\r\n",
    ],
)
async def test_host_is_one_and_valid(
    serving: Serving, head: bytes, host: bytes
) -> None:
    """A missing, repeated or malformed Host is a 400 (RFC 9112 §3.2)."""
    wire = head.replace(b"Host: x\r\n", host)

    await serving.check_refusal(wire + PLAIN, BAD)


@pytest.mark.ids("M01")
async def test_host_accepted(serving: Serving) -> None:
    """Host may be empty, and HTTP/1.0 needs none (RFC 9112 §3.2)."""
    old = b"GET /2 HTTP/1.0\r\n\r\n"

    for host in (b"Host:", b"Host: x:", b"Host: [::1]:8080", b"host:\tX.y:1\t"):
        wire = UP.replace(b"Host: x", host)

        await serving.check(echo_app, wire + b"HEAD", SWITCHED + b"HEAD")
    await serving.check(echo_app, old, closing(okay(b"/2")))


@pytest.mark.ids("M03", "S42")
@heads
async def test_one_blank_line_is_skipped(serving: Serving, head: bytes) -> None:
    """One blank line before a request is skipped, a second is a 400 (RFC 9112 §2.2)."""
    first, second = get("/1"), b"\r\n" + head
    expected = okay(b"/1") + (SWITCHED if head is UP else okay(b"/u"))

    await serving.check(echo_app, b"\r\n" + first + second, expected)
    await serving.check_refusal(b"\r\n\r\n" + head, BAD)


@pytest.mark.ids("M03", "S27", "F40")
@pytest.mark.parametrize(
    ("wire", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", BAD),
        (b"\x00\x00\r\n\r\n", BAD),
        (b"hello\r\n\r\n", BAD),
        (b"GET /\r\n\r\n", BAD),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", BAD),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505 HTTP Version Not Supported"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + PLAIN, BAD),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + b"x" * 12 + PLAIN, BAD),
    ],
    ids=["tls", "nul", "text", "http-0.9", "ssh", "http-2", "proxy-1", "proxy-2"],
)
async def test_other_protocols(serving: Serving, wire: bytes, status: str) -> None:
    """Other protocols get an error in HTTP/1.1 and a close (RFC 9112 §2.2)."""
    await serving.check_refusal(wire, status)


@pytest.mark.ids("S8", "S18")
@heads
@pytest.mark.parametrize(
    ("version", "status"),
    [
        (b"HTTP/0.9", "505 HTTP Version Not Supported"),
        (b"HTTP/2.0", "505 HTTP Version Not Supported"),
        (b"HTTP/1.2", BAD),
        (b"HTTP/1", BAD),
        (b"http/1.1", BAD),
    ],
)
async def test_versions(
    serving: Serving, head: bytes, version: bytes, status: str
) -> None:
    """Only HTTP/1.1 and HTTP/1.0 are supported (RFC 9110 §15.6.6)."""
    await serving.check_refusal(head.replace(b"HTTP/1.1", version), status)


@pytest.mark.ids("M04", "S18")
@heads
@pytest.mark.parametrize(
    "line",
    [
        b"A: b\rC: d\r\n",
        b"A: b\r\r\n",
        b"A: b\nC: d\r\n",
        b"A: b\n",
        b"A : b\r\n",
        b"A: b\r\n c\r\n",
        b"A: b\r\n\tc\r\n",
        b" A: b\r\n",
        b"A\r\n",
        b"A(: b\r\n",
    ],
)
async def test_lines(serving: Serving, head: bytes, line: bytes) -> None:
    """A bare CR or LF, a blank before the colon, a fold: 400 (RFC 9112 §2.2, §5)."""
    wire = head.replace(b"Host: x\r\n", b"Host: x\r\n" + line)

    await serving.check_refusal(wire + PLAIN, BAD)


@pytest.mark.ids("M04")
async def test_bare_lf_everywhere(serving: Serving) -> None:
    """A request whose lines all end in a bare LF is a 400 (RFC 9112 §2.2)."""
    await serving.check_refusal(UP.replace(b"\r\n", b"\n"), BAD)


@pytest.mark.ids("U29", "S18")
@heads
@pytest.mark.parametrize("octet", [0x00, 0x01, 0x0B, 0x1F, 0x7F])
async def test_control_characters(serving: Serving, head: bytes, octet: int) -> None:
    """A control character in a field value is a 400 (RFC 9110 §5.5)."""
    wire = head.replace(b"Host: x\r\n", b"Host: x\r\nA: b%cc\r\n" % octet)

    await serving.check_refusal(wire, BAD)


@pytest.mark.ids("U29")
async def test_obs_text_is_kept(serving: Serving) -> None:
    """Tabs and octets above 0x7F are allowed and kept (RFC 9110 §5.5)."""

    async def app(request: Request) -> Response:
        return Response(200, request.headers["a"].encode("latin-1"))

    wire = PLAIN.replace(b"Host: x\r\n", b"Host: x\r\nA: \t b\t\x80\xff \r\n")

    await serving.check(app, wire, okay(b"b\t\x80\xff"))


@pytest.mark.ids("M06", "S18")
@heads
@pytest.mark.parametrize(
    "fields",
    [
        ("Content-Length: 5", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked", "Content-Length: 5"),
        ("transfer-encoding: Chunked", "content-length: 0"),
    ],
)
async def test_length_and_coding(
    serving: Serving, head: bytes, fields: tuple[str, ...]
) -> None:
    """A length and a coding make the end ambiguous: 400, close (RFC 9112 §6.1)."""
    await serving.check_refusal(with_fields(head, *fields) + b"0\r\n\r\n" + PLAIN, BAD)


@pytest.mark.ids("M06")
async def test_coding_in_http_1_0(serving: Serving) -> None:
    """A transfer coding in HTTP/1.0 is broken framing: 400 (RFC 9112 §6.1)."""
    wire = with_fields(PLAIN, "Transfer-Encoding: chunked") + b"0\r\n\r\n"

    await serving.check_refusal(wire.replace(b"HTTP/1.1", b"HTTP/1.0", 1), BAD)


@pytest.mark.ids("M07", "S19")
@heads
@pytest.mark.parametrize(
    ("codings", "status"),
    [
        (["gzip"], BAD),
        (["identity"], BAD),
        (["chunked, gzip"], BAD),
        (["chunked, chunked"], BAD),
        (["chunked", "chunked"], BAD),
        (["xchunked"], BAD),
        (["gzip, chunked"], "501 Not Implemented"),
        (["gzip", "chunked"], "501 Not Implemented"),
    ],
)
async def test_codings(
    serving: Serving, head: bytes, codings: list[str], status: str
) -> None:
    """Without chunked as last coding a body has no end: 400, close (RFC 9112 §6.3)."""
    fields = [f"Transfer-Encoding: {coding}" for coding in codings]

    await serving.check_refusal(with_fields(head, *fields) + b"0\r\n\r\n", status)


@pytest.mark.ids("M07", "S18")
@heads
@pytest.mark.parametrize(
    "lengths",
    [["5", "5"], ["5", "6"], ["5, 5"], ["+5"], ["0x5"], ["5 5"], [""]],
)
async def test_lengths(serving: Serving, head: bytes, lengths: list[str]) -> None:
    """A Content-Length that is not one number is a 400, close (RFC 9112 §6.3)."""
    fields = [f"Content-Length: {length}" for length in lengths]

    await serving.check_refusal(with_fields(head, *fields) + b"hello", BAD)


@pytest.mark.ids("M07", "S22")
@pytest.mark.parametrize("body", BAD_CHUNKS)
async def test_chunks(body: bytes) -> None:
    """Chunk headers and trailers are parsed as strictly as fields (RFC 9112 §7.1)."""
    wire = with_fields(UP, "Transfer-Encoding: chunked") + body
    for packets in split_points(wire + PLAIN):
        whole: list[bytes] = []

        async def app(request: Request, whole=whole) -> Response:
            with pytest.raises(BadBody) as caught:
                whole.append(await request.read())
            raise caught.value

        peer = await run_script(app, *packets)

        check_closing_text(bytes(peer.sent), BAD)
        assert not whole


@pytest.mark.ids("S10", "U31")
@heads
async def test_unknown_expectation(serving: Serving, head: bytes) -> None:
    """An unknown expectation is a 417, even beside a known one (RFC 9110 §10.1.1)."""
    for expectation in ("200-ok", "100-continue, x"):
        wire = with_fields(head, f"Expect: {expectation}")

        await serving.check_refusal(wire + PLAIN, "417 Expectation Failed")


@pytest.mark.ids("S30")
@heads
async def test_request_head_over_a_limit(serving: Serving, head: bytes) -> None:
    """Too many bytes or too many fields are a 431 (RFC 6585 §5)."""
    long = with_fields(head, "A: " + "b" * 100)
    many = with_fields(head, *["A: b"] * 8)
    whole = len(long)

    await serving.check_refusal(
        long,
        "431 Request Header Fields Too Large",
        limits=Limits(header_bytes=whole - 1),
    )
    await serving.check_refusal(
        many, "431 Request Header Fields Too Large", limits=Limits(header_fields=8)
    )
    expected = SWITCHED if head is UP else okay(b"/u")
    await serving.check(echo_app, long, expected, Limits(header_bytes=whole))
    await serving.check(echo_app, many, expected, Limits(header_fields=11))


@pytest.mark.ids("M17")
@pytest.mark.parametrize(
    ("target", "host", "path"),
    [
        (b"/u?a=b", "x", "/u"),
        (b"http://Y:81/u?a=b", "y:81", "/u"),
        (b"WS://y/u?a=b", "y", "/u"),
        (b"//y/u?a=b", "x", "//y/u"),
    ],
)
async def test_absolute_form_overrides_host(
    serving: Serving, target: bytes, host: str, path: str
) -> None:
    """The authority in the target replaces Host (RFC 9112 §3.2.2)."""

    async def app(request: Request) -> Response:
        assert request.query == "a=b"
        return Response(200, f"{request.authority} {request.path}".encode())

    wire = UP.replace(b"/u", target)

    await serving.check(app, wire, okay(f"{host} {path}".encode()))


@pytest.mark.ids("M17", "F25")
@pytest.mark.parametrize("scheme", [b"https", b"HTTPS", b"wss", b"Wss"])
async def test_schemes_of_tls(serving: Serving, scheme: bytes) -> None:
    """A target of a scheme that needs TLS is served over TLS only (RFC 9110 §7.4)."""

    async def app(request: Request) -> Response:
        assert request.query == "a=b"
        answer = f"{request.scheme} {request.authority} {request.path}"
        return Response(200, answer.encode())

    wire = UP.replace(b"/u", scheme + b"://y/u?a=b")

    if serving.kind == "tls":
        await serving.check(app, wire, okay(b"https y /u"))
    else:
        status = "421 Misdirected Request"
        await serving.check_refusal(wire + PLAIN, status, b"which needs TLS")


@pytest.mark.ids("F25")
@pytest.mark.parametrize("target", [b"/u", b"http://y/u", b"Http://y/u", b"ws://y/u"])
async def test_scheme_is_that_of_the_transport(serving: Serving, target: bytes) -> None:
    """Http and ws are served on any transport; request.scheme is the transport's."""

    async def app(request: Request) -> Response:
        return Response(200, request.scheme.encode())

    scheme = b"https" if serving.kind == "tls" else b"http"
    await serving.check(app, get("/u").replace(b"/u", target), okay(scheme))


@pytest.mark.ids("F25")
@heads
@pytest.mark.parametrize(
    "scheme", [b"javascript", b"ftp", b"file", b"httpss", b"h", b"wsss", b"http+unix"]
)
async def test_other_schemes(serving: Serving, head: bytes, scheme: bytes) -> None:
    """A target of another scheme is a 400, over TLS too (RFC 9110 §7.4)."""
    wire = head.replace(b"/u", scheme + b"://y/S3CRET?S3CRET") + PLAIN

    await serving.check_refusal(wire, BAD, b"target")


@pytest.mark.ids("M17", "S43")
@pytest.mark.parametrize(
    "line",
    [
        b"GET u",
        b"GET *",
        b"GET x:80",
        b"GET http://",
        b"GET http:///u",
        b"GET http://u@y/",
        b"GET http://y:x/",
        b"GET /u#f",
        b"GET /\xc3\xbc",
        b"OPTIONS x",
        b"CONNECT /u",
        b"CONNECT *",
    ],
)
async def test_targets_of_no_form(serving: Serving, line: bytes) -> None:
    """A target in none of the forms for its method is a 400 (RFC 9112 §3.2)."""
    await serving.check_refusal(UP.replace(b"GET /u", line), BAD)


async def test_unreachable_app() -> None:
    """The app of these tests fails the test if a request reaches it."""
    with pytest.raises(AssertionError, match="the app was called"):
        await run_script(unreachable_app, PLAIN)


@pytest.mark.ids("S30")
async def test_target_over_the_limit(serving: Serving) -> None:
    """A request line over the limit is a 414 (RFC 9110 §15.5.15)."""
    wire = b"GET /" + b"u" * 60 + b" HTTP/1.1\r\nHost: x\r\n\r\n"

    await serving.check_refusal(
        wire, "414 URI Too Long", limits=Limits(header_bytes=50)
    )
