"""The attributes of a request, as an app sees them."""

from __future__ import annotations

import pytest

from trio_upgrade import Request, Response, Upgrade
from trio_upgrade.testing import split_points

from ..servers import run_script
from ..wire import UP


class TestRequest:
    """Each form of the request target (RFC 9112 §3.2)."""

    async def see(self, wire: bytes) -> Request:
        seen = []

        async def app(request: Request) -> Response:
            seen.append(request)
            return Response(200)

        await run_script(app, wire)
        return seen[0]

    async def test_origin_form(self) -> None:
        """Path and query are as received; the authority is that of the Host field."""
        request = await self.see(b"GET //a%20b?x=1?y HTTP/1.1\r\nHost: H:81\r\n\r\n")

        assert request.method == "GET"
        assert request.target == "//a%20b?x=1?y"
        assert request.path == "//a%20b"
        assert request.query == "x=1?y"
        assert request.scheme == "http"
        assert request.authority == ("h", 81)
        assert request.http_version == "1.1"
        assert request.headers["host"] == "H:81"
        assert request.peer is None
        assert request.server.listeners == []
        assert repr(request) == "<Request GET //a%20b>"

    @pytest.mark.ids("M17")
    async def test_absolute_form(self) -> None:
        """An absolute target overrides Host (RFC 9112 §3.2.2)."""
        request = await self.see(b"GET http://[::1]:8/p?q HTTP/1.1\r\nHost: x\r\n\r\n")

        assert (request.scheme, request.path, request.query) == ("http", "/p", "q")
        assert request.authority == ("::1", 8)

    async def test_asterisk_form(self) -> None:
        """OPTIONS * has the path "*"."""
        request = await self.see(b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n")

        assert request.path == "*"

    async def test_http_1_0_without_host(self) -> None:
        """Without a Host field the authority is empty."""
        request = await self.see(b"GET / HTTP/1.0\r\n\r\n")

        assert request.authority == ("", None)


class TestHasBody:
    """Whether a request has a body, by its framing (RFC 9110 §6.4, RFC 9112 §6.3)."""

    @pytest.mark.ids("F38")
    @pytest.mark.parametrize(
        ("method", "framing", "expected"),
        [
            ("GET", b"", False),
            ("POST", b"", False),
            ("POST", b"Content-Length: 0\r\n", False),
            ("POST", b"Content-Length: 000\r\n", False),
            ("GET", b"Content-Length: 3\r\n", True),
            ("HEAD", b"Content-Length: 3\r\n", True),
            ("POST", b"Content-Length: 3\r\n", True),
            ("POST", b"Transfer-Encoding: chunked\r\n", True),
        ],
    )
    async def test_framing(self, method: str, framing: bytes, expected: bool) -> None:
        """It is known from the header section, and does not change by reading."""
        seen: list[tuple[object, ...]] = []

        async def app(request: Request) -> Response:
            before = request.has_body, request.stream().length  # type: ignore[attr-defined]
            body = await request.read()
            seen.append((before, body, request.has_body))
            return Response(200)

        body = {b"C": b"abc", b"T": b"3\r\nabc\r\n0\r\n\r\n"}[framing[:1] or b"C"]
        head = b"%b / HTTP/1.1\r\nHost: x\r\n%b\r\n" % (method.encode(), framing)
        wire = head + (body if expected else b"")
        for packets in split_points(wire):
            await run_script(app, *packets)

        length = {b"C": 3, b"T": None}[framing[:1]] if expected else 0
        content = b"abc" if expected else b""
        assert {*seen} == {((expected, length), content, expected)}

    @pytest.mark.ids("F38")
    async def test_empty_chunked_body(self) -> None:
        """A chunked body is one, even if no byte comes."""
        seen: list[tuple[bool, bytes]] = []

        async def app(request: Request) -> Response:
            seen.append((request.has_body, await request.read()))
            return Response(200)

        head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        await run_script(app, head + b"0\r\n\r\n")

        assert seen == [(True, b"")]

    @pytest.mark.ids("F38")
    @pytest.mark.parametrize("length", [0, 3])
    async def test_after_the_switch(self, length: int) -> None:
        """The handler can ask as well."""
        seen: list[bool] = []

        async def handler(request: Request, stream, head: bytes) -> None:
            seen.append(request.has_body)

        async def app(request: Request) -> Upgrade:
            return Upgrade("echo", handler)

        offer = UP.replace(b"\r\n\r\n", b"\r\nContent-Length: %d\r\n\r\n" % length)
        await run_script(app, offer + b"x" * length)

        assert seen == [length > 0]
