"""The ways to a WebSocket: TLS, Unix sockets, proxies, TLS in TLS."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from typing import Any
from urllib.parse import quote

import pytest
import trio
from websockets.exceptions import ConnectionClosedOK

from trio_upgrade import (
    Proxy,
    Response,
    relay,
    serve_ssl_over_tcp,
    serve_tcp,
    serve_unix,
    stream_scope,
)
from trio_upgrade.websocket import open_websocket

from ..tls import make_tls_contexts
from .wires import HOST, app_for, echo

# Messages over one packet, and over the buffers of a connection.
MESSAGES: list[str | bytes] = ["Hello", b"x" * 100_000, b"y" * 900_000]


async def talk(url: str, **options: Any) -> None:
    """Echo messages, ping, and close from this side."""
    async with open_websocket(url, compression=None, **options) as websocket:
        for message in MESSAGES:
            await websocket.send(message)
            assert await websocket.recv() == message
        await (await websocket.ping()).wait()
        assert websocket.remote_address is not None
    assert websocket.close_code == 1000


async def tunnel(request):
    """Open tunnels, and refuse every other request."""
    if request.method != "CONNECT":
        return Response(405)
    host, port = request.authority
    async with stream_scope(await trio.open_tcp_stream(host, port)) as upstream:
        stream, _ = await request.accept_connect()
        # The server's end has to arrive, also where TLS is spoken to the proxy.
        await relay(stream, upstream, tls_ends=True)
    return None


async def socks(stream: trio.SocketStream) -> None:
    """Open one tunnel by SOCKS5 (RFC 1928)."""
    async with stream_scope(stream):
        assert await stream.receive_some(3) == b"\x05\x01\x00"
        await stream.send_all(b"\x05\x00")
        request = await stream.receive_some(300)
        assert request[:5] == b"\x05\x01\x00\x03\x09"
        port = int.from_bytes(request[-2:], "big")
        async with stream_scope(await trio.open_tcp_stream(HOST, port)) as upstream:
            await stream.send_all(b"\x05\x00\x00\x01\x7f\0\0\1\0\0")
            await relay(stream, upstream)


@pytest.fixture(params=["tcp", "tls"])
async def url_and_context(request, nursery):
    """A server with TLS or without, and the context for its clients."""
    client, server_side = make_tls_contexts()
    if request.param == "tcp":
        serving = partial(serve_tcp, app_for(echo), 0, host=HOST, strict=True)
        server = await nursery.start(serving)
        return f"ws://localhost:{port_of(server)}", None
    serving = partial(
        serve_ssl_over_tcp, app_for(echo), 0, server_side, host=HOST, strict=True
    )
    server = await nursery.start(serving)
    return f"wss://localhost:{port_of(server)}", client


def port_of(server) -> int:
    return int(server.url.rpartition(":")[2])


async def test_direct(url_and_context) -> None:
    """Straight to the server."""
    url, context = url_and_context
    await talk(url, ssl_context=context)


async def test_close_of_the_server(nursery) -> None:
    """Over TLS the server's Close arrives, and then the end."""
    client, server_side = make_tls_contexts()
    app = app_for(lambda websocket: websocket.aclose(1001, "bye"))
    serving = partial(serve_ssl_over_tcp, app, 0, server_side, host=HOST, strict=True)
    server = await nursery.start(serving)
    url = f"wss://localhost:{port_of(server)}"
    async with open_websocket(url, ssl_context=client) as websocket:
        with pytest.raises(ConnectionClosedOK, match="bye"):
            await websocket.recv()


async def test_unix_socket(nursery, tmp_path) -> None:
    """By the path of a Unix socket."""
    path = str(tmp_path / "s")
    await nursery.start(partial(serve_unix, app_for(echo), path, strict=True))

    await talk(f"ws+unix://{quote(path, safe='')}/chat")


async def test_http_proxy(url_and_context, nursery) -> None:
    """Through an HTTP proxy, also with TLS to the server."""
    url, context = url_and_context
    proxy = await nursery.start(partial(serve_tcp, tunnel, 0, host=HOST, strict=True))

    await talk(url, ssl_context=context, via=proxy.url)


async def test_socks_proxy(url_and_context, nursery) -> None:
    """Through a SOCKS5 proxy, also with TLS to the server."""
    url, context = url_and_context
    listeners = await nursery.start(partial(trio.serve_tcp, socks, 0, host=HOST))
    port = listeners[0].socket.getsockname()[1]

    await talk(url, ssl_context=context, via=f"socks5h://{HOST}:{port}")


async def test_tls_in_tls(url_and_context, nursery) -> None:
    """Through a proxy that is spoken to by TLS; with wss that is TLS in TLS."""
    url, context = url_and_context
    client, server_side = make_tls_contexts()
    serving = partial(
        serve_ssl_over_tcp, tunnel, 0, server_side, host=HOST, strict=True
    )
    server = await nursery.start(serving)
    proxy = Proxy(f"https://localhost:{port_of(server)}", ssl_context=client)

    await talk(url, ssl_context=context, via=proxy)


async def test_many_at_once(url_and_context) -> None:
    """Connections do not disturb each other."""
    url, context = url_and_context
    async with AsyncExitStack() as stack:
        websockets = [
            await stack.enter_async_context(open_websocket(url, ssl_context=context))
            for _ in range(20)
        ]
        for number, websocket in enumerate(websockets):
            await websocket.send(str(number))
        for number, websocket in enumerate(websockets):
            assert await websocket.recv() == str(number)
