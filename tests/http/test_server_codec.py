"""ServerCodec: the bytes of responses, and when they end a connection."""

from __future__ import annotations

import pytest

from trio_upgrade import Limits, Response
from trio_upgrade._http.server_codec import ServerCodec

DATE = (b"Date", b"now")


async def pieces():
    yield b""


def make_codec(method: str = "GET", *, is_http10: bool = False) -> ServerCodec:
    """Return a codec that has parsed a request."""
    codec = ServerCodec(Limits())
    target = "x:1" if method == "CONNECT" else "/"
    version = "1.0" if is_http10 else "1.1"
    codec.receive_data(f"{method} {target} HTTP/{version}\r\nHost: x\r\n\r\n".encode())
    assert codec.next_request() is not None
    return codec


def write_response(
    codec: ServerCodec, response: Response, *, close: bool = False
) -> tuple[bytes, bool]:
    body = response.body
    return codec.write_response(
        response.status,
        response.reason,
        response.headers,
        len(body) if isinstance(body, bytes) else None,
        DATE,
        close=close,
    )


def write(codec: ServerCodec, response: Response, *, close: bool = False) -> bytes:
    return write_response(codec, response, close=close)[0]


@pytest.mark.ids("U34", "M18")
@pytest.mark.parametrize(
    ("codec", "response", "close", "fields"),
    [
        (make_codec(), Response(200, b"ab"), False, b"Content-Length: 2\r\n"),
        (
            make_codec(),
            Response(200, b"ab"),
            True,
            b"Content-Length: 2\r\nConnection: close\r\n",
        ),
        (
            make_codec(is_http10=True),
            Response(200, b"ab"),
            False,
            b"Content-Length: 2\r\nConnection: close\r\n",
        ),
        (
            make_codec(),
            Response(200, b"ab", {"Connection": "close"}),
            True,
            b"Connection: close\r\nContent-Length: 2\r\n",
        ),
        (make_codec(), Response(204), False, b""),
        (make_codec(), Response(304), False, b""),
        (make_codec("HEAD"), Response(200, b"ab"), False, b"Content-Length: 2\r\n"),
        (
            make_codec(),
            Response(200, pieces()),
            False,
            b"Transfer-Encoding: chunked\r\n",
        ),
        (
            make_codec(is_http10=True),
            Response(200, pieces()),
            False,
            b"Connection: close\r\n",
        ),
        (
            ServerCodec(Limits()),
            Response(200),
            False,
            b"Content-Length: 0\r\nConnection: close\r\n",
        ),
    ],
)
def test_framing(
    codec: ServerCodec, response: Response, close: bool, fields: bytes
) -> None:
    """A response has one kind of framing, or ends with the connection (RFC 9112 §6.3)."""
    reason = response.reason.encode()
    start = b"HTTP/1.1 %d %b\r\nDate: now\r\n" % (response.status, reason)

    assert write(codec, response, close=close) == start + fields + b"\r\n"
    assert codec.closes == (b"Connection: close" in fields)
    assert codec.response_begun


@pytest.mark.parametrize(
    ("method", "status", "follows"),
    [
        ("GET", 200, True),
        ("HEAD", 200, False),
        ("GET", 204, False),
        ("GET", 304, False),
        ("CONNECT", 404, True),
    ],
)
def test_content(method: str, status: int, follows: bool) -> None:
    """HEAD, 204 and 304 have no content (RFC 9110 §6.4.1)."""
    _, has_content = write_response(make_codec(method), Response(status))

    assert has_content is follows


def test_chunks() -> None:
    """Each piece is a chunk, but an empty piece is not; the last chunk ends the body."""
    codec = make_codec()
    write(codec, Response(200, pieces()))

    assert codec.write_body(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"
    assert codec.write_body(b"") == b""
    assert codec.write_end() == b"0\r\n\r\n"


def test_length_is_kept() -> None:
    """A body must not be shorter or longer than its Content-Length."""
    codec = make_codec()
    write(codec, Response(200, pieces(), {"Content-Length": "3"}))

    assert codec.write_body(b"ab") == b"ab"
    with pytest.raises(ValueError, match="shorter than its Content-Length"):
        codec.write_end()
    with pytest.raises(ValueError, match="longer than its Content-Length"):
        codec.write_body(b"cd")


@pytest.mark.ids("F26")
def test_length_without_body() -> None:
    """Only an answer to HEAD may leave out a body whose length it states."""
    response = Response(200, b"", {"Content-Length": "2"})
    codec = make_codec()
    with pytest.raises(ValueError, match="not the length of the body: 2, not 0"):
        write(codec, response)

    assert not codec.response_begun
    assert b"\r\nContent-Length: 2\r\n" in write(make_codec("HEAD"), response)
    not_modified = Response(304, b"", {"Content-Length": "2"})
    assert b"\r\nContent-Length: 2\r\n" in write(make_codec(), not_modified)


def test_date_of_the_app() -> None:
    """A Date that the app gives is the only one (RFC 9110 §6.6.1)."""
    head = write(make_codec(), Response(200, headers={"date": "then"}))

    assert head.lower().count(b"date:") == 1


def test_interim() -> None:
    """A 1xx has a status-line and fields, and is no final response (RFC 9110 §15.2)."""
    codec = make_codec()
    head = codec.write_interim(101, "Switching Protocols", [(b"Upgrade", b"echo")])

    assert head == b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\n\r\n"
    assert not codec.response_begun
