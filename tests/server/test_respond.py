"""request.respond(): an answer that the app sends piece by piece."""

from __future__ import annotations

from trio_upgrade import Request, Response

from ..servers import check_every_split, run_script
from ..wire import DATE, closing, get, okay

CHUNKED = b"HTTP/1.1 200 OK\r\n" + DATE + b"Transfer-Encoding: chunked\r\n\r\n"
HTTP_1_0 = get("/1").replace(b"HTTP/1.1", b"HTTP/1.0")
# What the app below answers.
ONE_TWO = CHUNKED + b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"


async def one_two(request: Request) -> Response | None:
    """Stream "onetwo"; answer /2 by its path."""
    if request.path == "/2":
        return Response(200, b"/2")
    async with request.respond(200) as answer:
        await answer.send(b"one")
        await answer.send(b"")
        await answer.send(bytearray(b"two"))
    return None


class TestFraming:
    """The header section, the content and its end, byte for byte."""

    async def test_chunked_and_the_next_request(self) -> None:
        """Content of unknown length is chunked, and the next request is answered."""
        await check_every_split(one_two, get("/1") + get("/2"), ONE_TWO + okay(b"/2"))

    async def test_http_1_0(self) -> None:
        """To HTTP/1.0 the content ends with the connection (RFC 9112 §6.3)."""
        expected = closing(b"HTTP/1.1 200 OK\r\n" + DATE + b"\r\n") + b"onetwo"

        await check_every_split(one_two, HTTP_1_0 + get("/2"), expected)

    async def test_trailers(self) -> None:
        """Trailer fields follow the last chunk (RFC 9112 §7.1.2)."""

        async def app(request: Request) -> None:
            async with request.respond(200) as answer:
                await answer.send(b"one")
                answer.trailers = {"X-Sum": "3"}

        expected = CHUNKED + b"3\r\none\r\n0\r\nX-Sum: 3\r\n\r\n"

        await check_every_split(app, get("/1"), expected)

    async def test_trailers_of_a_response(self) -> None:
        """A Response whose body is an iterable sends its trailers, too."""

        async def body():
            yield b"one"

        async def app(request: Request) -> Response:
            return Response(200, body(), trailers={"X-Sum": "3"})

        expected = CHUNKED + b"3\r\none\r\n0\r\nX-Sum: 3\r\n\r\n"

        await check_every_split(app, get("/1"), expected)


async def test_informational_before_the_answer() -> None:
    """A 103 comes before the answer (RFC 8297)."""

    async def app(request: Request) -> Response:
        await request.send_informational(103, {"Link": "</a.css>"})
        return Response(200, b"okay")

    hint = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"

    await check_every_split(app, get("/"), hint + okay())
    peer = await run_script(app, HTTP_1_0)
    assert peer.sent == closing(okay())
