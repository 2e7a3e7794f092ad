"""An `async with` of this library never changes what its body raises.

One exception comes out as itself, and a group as that group. Each row of SCOPES gives one
public async context manager to the test; a new one needs a row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
import trio
import trio.testing

import trio_upgrade
from trio_upgrade import (
    ConnectionPool,
    Limits,
    Request,
    Response,
    Upgrade,
    UpgradedStream,
    open_connection,
    open_room,
    open_server,
    open_upgrade,
    serve_stream,
    serve_tcp,
    stream_scope,
)
from trio_upgrade.asgi import open_asgi
from trio_upgrade.proxy import ForwardProxy, ReverseProxy
from trio_upgrade.testing import ScriptedPeer, open_pair
from trio_upgrade.websocket import (
    accept_websocket,
    open_websocket,
    reconnecting_websocket,
)

from .apps import echo
from .tls import tls_pair
from .wire import SWITCHED, get, okay

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    Enter: TypeAlias = Callable[[AbstractAsyncContextManager[Any]], Awaitable[None]]
    Row: TypeAlias = Callable[[Enter], Awaitable[None]]

QUICK = Limits(linger=0, keep_alive_timeout=0)


async def serve(app) -> None:
    peer = ScriptedPeer(get("/"), then="silence")
    await serve_stream(app, peer, limits=QUICK)


async def respond(enter: Enter) -> None:
    async def app(request: Request) -> None:
        await enter(request.respond(200))

    await serve(app)


async def respond_without_a_scope(enter: Enter) -> None:
    async def app(request: Request) -> None:
        await enter(request.respond(200, cancel_on_disconnect=False))

    await serve(app)


async def cancelled_on_disconnect(enter: Enter) -> None:
    async def app(request: Request) -> Response:
        await enter(request.cancelled_on_disconnect())
        return Response(200)

    await serve(app)


async def scope_of_a_stream(enter: Enter) -> None:
    await enter(stream_scope(ScriptedPeer()))


async def pair(enter: Enter) -> None:
    async def app(request: Request) -> Response:
        return Response(200)

    async with trio.open_nursery() as nursery:
        await enter(await open_pair(nursery, app))


async def switched_pair(enter: Enter) -> None:
    async def app(request: Request) -> Upgrade:
        return Upgrade("echo", echo)

    async with trio.open_nursery() as nursery:
        async with await open_pair(nursery, app, strict=False) as connection:
            await enter(await connection.upgrade("/", "echo"))


async def client_connection(enter: Enter) -> None:
    peer = ScriptedPeer(okay())
    connection = await open_connection("http://x", stream=peer)
    await connection.request("GET", "/")
    await enter(connection)


async def upgraded_connection(enter: Enter) -> None:
    peer = ScriptedPeer(SWITCHED)
    await enter(await open_upgrade("http://x", "echo", stream=peer))


async def upgraded_stream(enter: Enter) -> None:
    await enter(UpgradedStream(ScriptedPeer()))


async def tls_stream(enter: Enter) -> None:
    ours, peer = await tls_pair(trio.testing.memory_stream_pair())
    async with peer:
        await enter(ours)


async def server(enter: Enter) -> None:
    async def app(request: Request) -> Response:
        return Response(200)

    await enter(open_server(serve_tcp, app, 0, host="127.0.0.1"))


async def pool(enter: Enter) -> None:
    async def app(request: Request) -> Response:
        return Response(200)

    async with open_server(serve_tcp, app, 0, host="127.0.0.1") as server:
        pool = ConnectionPool()
        async with await pool.request("GET", server.url):
            await enter(pool)


async def pooled_response(enter: Enter) -> None:
    async def app(request: Request) -> Response:
        return Response(200, b"okay")

    async with (
        open_server(serve_tcp, app, 0, host="127.0.0.1") as server,
        ConnectionPool() as pool,
    ):
        await enter(await pool.request("GET", server.url))


async def adapter(enter: Enter) -> None:
    async def app(scope, receive, send) -> None:
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": message["type"] + ".complete"})
        await send({"type": "lifespan.shutdown.complete"})

    await enter(open_asgi(app, lifespan="on"))


async def adapter_without_a_lifespan(enter: Enter) -> None:
    async def app(scope, receive, send) -> None:
        raise AssertionError

    await enter(open_asgi(app, lifespan="off"))


async def room(enter: Enter) -> None:
    await enter(open_room())


async def member(enter: Enter) -> None:
    peer = ScriptedPeer(SWITCHED)
    async with (
        open_room() as room,
        await open_upgrade("http://x", "echo", stream=peer) as (_, stream, _),
    ):
        await enter(room.join(stream))


async def reverse_proxy(enter: Enter) -> None:
    await enter(ReverseProxy("http://127.0.0.1:1"))


async def forward_proxy(enter: Enter) -> None:
    await enter(ForwardProxy())


async def serve_websocket(use: Callable[[str], Awaitable[None]]) -> None:
    async def wait(websocket) -> None:
        async for _ in websocket:
            raise AssertionError

    async def app(request: Request) -> Upgrade | Response:
        return accept_websocket(request, wait)

    async with open_server(serve_tcp, app, 0, host="127.0.0.1") as server:
        await use(server.url)


async def websocket(enter: Enter) -> None:
    async def use(url: str) -> None:
        await enter(open_websocket(url))

    await serve_websocket(use)


async def reconnecting(enter: Enter) -> None:
    async def use(url: str) -> None:
        await enter(reconnecting_websocket(url))

    await serve_websocket(use)


SCOPES: list[Row] = [
    respond,
    respond_without_a_scope,
    cancelled_on_disconnect,
    scope_of_a_stream,
    pair,
    switched_pair,
    client_connection,
    upgraded_connection,
    upgraded_stream,
    tls_stream,
    server,
    pool,
    pooled_response,
    adapter,
    adapter_without_a_lifespan,
    room,
    member,
    reverse_proxy,
    forward_proxy,
    websocket,
    reconnecting,
]
# The public classes that can be entered, each with a row that enters one.
ENTERED: dict[str, Row] = {
    "ClientConnection": client_connection,
    "ConnectionPool": pool,
    "PooledResponse": pooled_response,
    "StreamedResponse": respond,
    "TLSStream": tls_stream,
    "UpgradedConnection": upgraded_connection,
    "UpgradedStream": upgraded_stream,
}
ERRORS: list[BaseException] = [
    OSError("an error"),
    ExceptionGroup("one in a group", [OSError("an error")]),
    ExceptionGroup("two", [OSError("an error"), ExceptionGroup("", [ValueError()])]),
    KeyboardInterrupt(),
    BaseExceptionGroup("mixed", [KeyboardInterrupt(), OSError("an error")]),
]
EACH_SCOPE = pytest.mark.parametrize("row", SCOPES, ids=lambda row: row.__name__)


@EACH_SCOPE
@pytest.mark.parametrize("error", ERRORS, ids=repr)
async def test_exception(row: Row, error: BaseException) -> None:
    """An exception and a group come out as they went in."""
    raised: list[BaseException] = []

    async def enter(manager: AbstractAsyncContextManager[Any]) -> None:
        try:
            async with manager:
                await trio.testing.wait_all_tasks_blocked()
                raise error
        except BaseException as exc:
            raised.append(exc)

    await row(enter)

    assert len(raised) == 1
    assert raised[0] is error


@EACH_SCOPE
async def test_cancelled(row: Row) -> None:
    """Cancelled comes out alone, for the scope that it belongs to."""
    raised: list[BaseException] = []

    async def enter(manager: AbstractAsyncContextManager[Any]) -> None:
        with trio.CancelScope() as scope:
            try:
                async with manager:
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
                    await trio.sleep_forever()
            except BaseException as exc:
                raised.append(exc)
                raise
        assert scope.cancelled_caught

    await row(enter)

    assert [type(exc) for exc in raised] == [trio.Cancelled]


@EACH_SCOPE
async def test_nothing(row: Row) -> None:
    """A body that raises nothing is left without an exception."""
    left = []

    async def enter(manager: AbstractAsyncContextManager[Any]) -> None:
        async with manager:
            await trio.testing.wait_all_tasks_blocked()
        left.append(True)

    await row(enter)

    assert left


def test_every_public_class_has_a_row() -> None:
    """A public class that can be entered has a row."""
    found = {
        name
        for name in dir(trio_upgrade)
        if hasattr(getattr(trio_upgrade, name), "__aenter__")
    }

    assert found == {*ENTERED}
    assert {row.__name__ for row in ENTERED.values()} <= {
        row.__name__ for row in SCOPES
    }
