"""The bytes of responses, and when they end a connection."""

from __future__ import annotations

import pytest

from trio_upgrade import Response
from trio_upgrade._server.response_writer import ResponseWriter

DATE = (b"Date", b"now")


async def pieces():
    yield b""


def make_writer(method: str = "GET", *, is_http10: bool = False) -> ResponseWriter:
    writer = ResponseWriter()
    writer.method, writer.is_http10, writer.closes = method, is_http10, is_http10
    return writer


def write(writer: ResponseWriter, response: Response, *, close: bool = False) -> bytes:
    return writer.write_head(response, DATE, close=close)[0]


@pytest.mark.ids("U34", "M18")
@pytest.mark.parametrize(
    ("writer", "response", "close", "fields"),
    [
        (make_writer(), Response(200, b"ab"), False, b"Content-Length: 2\r\n"),
        (
            make_writer(),
            Response(200, b"ab"),
            True,
            b"Content-Length: 2\r\nConnection: close\r\n",
        ),
        (
            make_writer(is_http10=True),
            Response(200, b"ab"),
            False,
            b"Content-Length: 2\r\nConnection: close\r\n",
        ),
        (
            make_writer(),
            Response(200, b"ab", {"Connection": "close"}),
            True,
            b"Connection: close\r\nContent-Length: 2\r\n",
        ),
        (make_writer(), Response(204), False, b""),
        (make_writer(), Response(304, b"ab"), False, b""),
        (make_writer("HEAD"), Response(200, b"ab"), False, b"Content-Length: 2\r\n"),
        (
            make_writer(),
            Response(200, pieces()),
            False,
            b"Transfer-Encoding: chunked\r\n",
        ),
        (
            make_writer(is_http10=True),
            Response(200, pieces()),
            False,
            b"Connection: close\r\n",
        ),
        (
            ResponseWriter(),
            Response(200),
            False,
            b"Content-Length: 0\r\nConnection: close\r\n",
        ),
    ],
)
def test_framing(
    writer: ResponseWriter, response: Response, close: bool, fields: bytes
) -> None:
    """One way to find the end, and the end of the connection where there is none."""
    reason = response.reason.encode()
    start = b"HTTP/1.1 %d %b\r\nDate: now\r\n" % (response.status, reason)

    assert write(writer, response, close=close) == start + fields + b"\r\n"
    assert writer.closes == (b"Connection: close" in fields)
    assert writer.begun


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
    _, has_content = make_writer(method).write_head(Response(status), DATE, close=False)

    assert has_content is follows


def test_chunks() -> None:
    """Each piece is a chunk, an empty one is none, and the last one ends it."""
    writer = make_writer()
    write(writer, Response(200, pieces()))

    assert writer.write_body(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"
    assert writer.write_body(b"") == b""
    assert writer.write_end() == b"0\r\n\r\n"


def test_length_is_kept() -> None:
    """What Content-Length promises is sent, no less and no more."""
    writer = make_writer()
    write(writer, Response(200, pieces(), {"Content-Length": "3"}))

    assert writer.write_body(b"ab") == b"ab"
    with pytest.raises(ValueError, match="shorter than its Content-Length"):
        writer.write_end()
    with pytest.raises(ValueError, match="longer than its Content-Length"):
        writer.write_body(b"cd")


@pytest.mark.parametrize("length", ["1", "3, 2", "x", "02a"])
def test_length_that_is_not_the_bodys(length: str) -> None:
    """A wrong Content-Length of the app's is found before anything is sent."""
    writer = make_writer()
    with pytest.raises(ValueError, match="Content-Length is not"):
        write(writer, Response(200, b"ab", {"Content-Length": length}))

    assert not writer.begun


def test_date_of_the_apps() -> None:
    """A Date that the app gives stays alone (RFC 9110 §6.6.1)."""
    head = write(make_writer(), Response(200, headers={"date": "then"}))

    assert head.lower().count(b"date:") == 1


def test_switch() -> None:
    """A 1xx is its line and its fields, and begins no answer (RFC 9110 §15.2)."""
    writer = make_writer()
    head = writer.write_switch(101, "Switching Protocols", [(b"Upgrade", b"echo")])

    assert head == b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\n\r\n"
    assert not writer.begun
