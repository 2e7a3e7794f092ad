"""The attributes of a request, as an app sees them."""

from __future__ import annotations

import pytest

from trio_upgrade import (
    Request,
    Response,
)

from ..servers import run_script


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
