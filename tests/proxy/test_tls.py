"""TLS on either side of a proxy."""

from __future__ import annotations

from functools import partial

import pytest
import trio

from trio_upgrade import (
    Response,
    Upgrade,
    open_connection,
    open_upgrade,
    serve_ssl_over_tcp,
    serve_tcp,
)
from trio_upgrade.proxy import ForwardProxy, ReverseProxy

from ..apps import echo
from ..tls import make_tls_contexts
from .scenes import HOST, End, open_scene, request
from .test_switching import offer

CLIENT, SERVER = make_tls_contexts()


async def app(incoming):
    """Echo, or say the scheme of the client."""
    if "websocket" in incoming.upgrades:
        return Upgrade("websocket", echo)
    return Response(200, incoming.headers["x-forwarded-proto"])


class TestTLSOnBothSides:
    """Client, proxy and upstream speak TLS."""

    @pytest.mark.parametrize("tls_ends", [True, False])
    async def test_all(self, nursery: trio.Nursery, tls_ends: bool) -> None:
        """Requests, tunnels and half-close go through; TLS settings are the options'."""
        upstream = await nursery.start(
            partial(serve_ssl_over_tcp, app, 0, SERVER, host=HOST)
        )
        url = upstream.url.replace(HOST, "localhost")
        async with ReverseProxy(
            url, ssl_context=CLIENT, tls_ends=tls_ends, half_close_timeout=0.2
        ) as proxy:
            server = await nursery.start(
                partial(serve_ssl_over_tcp, proxy, 0, SERVER, host=HOST)
            )
            front = server.url.replace(HOST, "localhost")
            async with await open_connection(front, ssl_context=CLIENT) as connection:
                response = await connection.request("GET", "/")
                assert await response.read() == b"https"
            for _ in range(2):
                async with await open_upgrade(
                    front, "websocket", ssl_context=CLIENT
                ) as (_, stream, _):
                    await stream.send_all(b"hello")
                    assert await stream.receive_exactly(5) == b"hello"
                    if tls_ends:
                        await stream.send_eof()
                        assert await stream.receive_some() == b""
        nursery.cancel_scope.cancel()

    async def test_certificate_is_checked(self, nursery: trio.Nursery) -> None:
        """Without settings the system's authorities count: a 502 for both kinds."""
        upstream = await nursery.start(
            partial(serve_ssl_over_tcp, app, 0, SERVER, host=HOST)
        )
        async with ReverseProxy(upstream.url) as proxy:
            server = await nursery.start(partial(serve_tcp, proxy, 0, host=HOST))
            port = server.listeners[0].socket.getsockname()[1]
            for wire in (request(), offer("Connection: close"), offer()):
                async with await trio.open_tcp_stream(HOST, port) as stream:
                    await stream.send_all(wire)
                    got = await stream.receive_some()

                    assert bytes(got).startswith(b"HTTP/1.1 502 ")
                    assert b"TLS with the upstream failed" in got
        nursery.cancel_scope.cancel()


async def test_cut_without_close_notify_is_no_end() -> None:
    """An answer that ends with the connection has to end with TLS (RFC 9112 §9.8)."""

    async def handle(end: End) -> None:
        tls = trio.SSLStream(end.stream, SERVER, server_side=True)
        await tls.receive_some()
        await tls.send_all(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        await end.stream.send_eof()
        await trio.sleep_forever()

    def make(url: str, **options):
        url = url.replace("http:", "https:").replace(HOST, "localhost")
        return ReverseProxy(url, ssl_context=CLIENT, **options)

    async with open_scene(handle, make=make) as scene, scene.client() as client:
        await client.send(request())
        await client.receive_all()

        assert client.was_reset


async def test_own_tls_listener_is_refused(nursery: trio.Nursery) -> None:
    """The proxy knows its own listener below TLS."""
    async with ForwardProxy(networks=["127.0.0.0/8"], ports=range(65536)) as proxy:
        server = await nursery.start(
            partial(serve_ssl_over_tcp, proxy, 0, SERVER, host=HOST)
        )
        authority = server.url.removeprefix("https://")
        async with await open_connection(
            server.url.replace(HOST, "localhost"), ssl_context=CLIENT
        ) as connection:
            with pytest.raises(Exception, match="403 Forbidden"):
                await connection.connect(authority)
    nursery.cancel_scope.cancel()
