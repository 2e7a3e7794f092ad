# pyright: reportUnnecessaryTypeIgnoreComment=true
"""Calls with shared options that type checkers accept, and those that they refuse.

Nothing runs this file. mypy and pyright check it: each comment that ignores an error has
to be needed, so that an option which is no longer checked fails as well.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from trio_upgrade import (
    ClientConnection,
    ConnectionPool,
    DialOptions,
    Limits,
    PooledResponse,
    Proxy,
    Request,
    Response,
    ServeOptions,
    UpgradedConnection,
    open_connection,
    open_server,
    open_tunnel,
    open_upgrade,
    serve_listeners,
    serve_ssl_over_tcp,
    serve_stream,
    serve_tcp,
    serve_unix,
)

if TYPE_CHECKING:
    import ssl

    import trio


async def app(request: Request) -> Response:
    return Response(200)


async def serve(
    nursery: trio.Nursery,
    context: ssl.SSLContext,
    listeners: list[trio.SocketListener],
    stream: trio.abc.Stream,
) -> None:
    await serve_tcp(app, 0, host="127.0.0.1", limits=Limits(), strict=True)
    await serve_ssl_over_tcp(app, 0, context, observer=object())
    await serve_unix(app, "socket", mode=0o600, close_on_optimistic_data=True)
    await serve_listeners(app, listeners, strict=True)
    await serve_stream(app, stream, server=None, observer=None)

    options: ServeOptions = {"strict": True, "limits": Limits(linger=1)}
    await serve_tcp(app, 0, **options)
    partial(serve_tcp, app, 0, host="127.0.0.1", **options)
    await nursery.start(serve_tcp, app, 0)
    await nursery.start(partial(serve_tcp, app, 0, host="127.0.0.1", strict=True))
    nursery.start_soon(partial(serve_stream, app, stream, limits=Limits()))


async def serve_wrongly(nursery: trio.Nursery, stream: trio.abc.Stream) -> None:
    await serve_tcp(app, 0, limits=1)  # type: ignore[arg-type]
    await serve_tcp(app, 0, limit=Limits())  # type: ignore[call-arg]
    await serve_tcp(app, 0, via=None)  # type: ignore[call-arg]
    await serve_stream(app, stream, strict=None)  # type: ignore[arg-type]
    await nursery.start(partial(serve_tcp, app, 0, strict=1))  # type: ignore[arg-type]
    await nursery.start(partial(serve_tcp, app, 0, stric=True))  # type: ignore[call-arg]
    options: ServeOptions = {"stric": True}  # type: ignore[typeddict-unknown-key]
    await serve_tcp(app, 0, **options)


async def open_servers(
    context: ssl.SSLContext,
    listeners: list[trio.SocketListener],
    secure: list[trio.SSLListener[trio.SocketStream]],
) -> None:
    async with open_server(serve_tcp, app, 0) as server:
        await server.drain(server.port)
    async with open_server(serve_tcp, app, 0, host="127.0.0.1", limits=Limits()):
        pass
    async with open_server(serve_ssl_over_tcp, app, 0, context, strict=True):
        pass
    async with open_server(serve_ssl_over_tcp, app, 0, lambda: context):
        pass
    async with open_server(serve_unix, app, "socket", mode=0o600):
        pass
    async with open_server(serve_listeners, app, listeners, observer=None):
        pass
    options: ServeOptions = {"strict": True}
    async with open_server(serve_listeners, app, secure, **options):
        pass


async def open_servers_wrongly(
    context: ssl.SSLContext, listeners: list[trio.SocketListener]
) -> None:
    async with open_server(serve_tcp, app, 0) as server:
        await server.drain("5")  # type: ignore[arg-type]
    open_server(serve_tcp, app)  # type: ignore[call-arg]
    open_server(serve_tcp, app, "1337")  # type: ignore[arg-type]
    open_server(serve_tcp, print, 0)  # type: ignore[arg-type]
    open_server(serve_tcp, app, 0, stric=True)  # type: ignore[call-arg]
    open_server(serve_tcp, app, 0, strict=1)  # type: ignore[arg-type]
    open_server(serve_ssl_over_tcp, app, 0)  # type: ignore[call-arg]
    open_server(serve_ssl_over_tcp, app, context, 0)  # type: ignore[arg-type]
    open_server(serve_unix, app, 5)  # type: ignore[arg-type]
    open_server(serve_unix, app, "socket", port=5)  # type: ignore[call-arg]
    open_server(serve_listeners, app, [5])  # type: ignore[list-item]
    open_server(serve_listeners, app, listeners, mode=1)  # type: ignore[call-arg]
    open_server("serve_tcp", app, 0)  # type: ignore[arg-type]


async def dial(context: ssl.SSLContext, stream: trio.abc.Stream) -> None:
    upgraded: UpgradedConnection = await open_upgrade("http://x", "echo", "chat")
    upgraded = await open_upgrade("http://x", "echo", method="POST", body=b"", via=None)
    upgraded = await open_tunnel(
        "http://x", "y:1", ssl_context=context, limits=Limits()
    )
    connection: ClientConnection = await open_connection("http://x", stream=stream)

    options: DialOptions = {"via": [Proxy("http://x"), "http://y"]}
    upgraded = await open_upgrade("http://x", "echo", headers=(), **options)
    connection = await open_connection("http://x", **options)
    partial(open_connection, "http://x", https_compatible=False)
    connection = await open_connection("https://x", server_hostname="y")
    connection = await open_connection(
        "http://x", via=Proxy("https://y", ssl_context=context, server_hostname="z")
    )
    async with connection, upgraded:
        pass


async def share(context: ssl.SSLContext) -> None:
    options: DialOptions = {"via": "http://y"}
    async with ConnectionPool(connections=5, **options) as pool:
        response: PooledResponse = await pool.request("GET", "http://x", **options)
        async with response as same:
            body: bytes = await same.read()
            await pool.request("PUT", "http://x", body=body, ssl_context=context)
            await pool.request("PUT", "http://x", body=same.stream())
        await pool.request("GET", "http://x", steam=None)  # type: ignore[call-arg]
        await pool.request("GET", "http://x", via=1)  # type: ignore[arg-type]
    ConnectionPool(limits=1)  # type: ignore[arg-type]


async def dial_wrongly(stream: trio.abc.Stream) -> None:
    await open_upgrade("http://x", "echo", via=1)  # type: ignore[arg-type]
    await open_upgrade("https://x", "echo", server_hostname=b"y")  # type: ignore[arg-type]
    await open_upgrade("http://x", "echo", strict=True)  # type: ignore[call-arg]
    await open_tunnel("http://x", "y:1", limits=None)  # type: ignore[arg-type]
    await open_connection("http://x", steam=stream)  # type: ignore[call-arg]
    partial(open_connection, "http://x", steam=stream)  # type: ignore[call-arg]
    options: DialOptions = {"limits": 1}  # type: ignore[typeddict-item]
    await open_connection("http://x", **options)
