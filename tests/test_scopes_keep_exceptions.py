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
    Limits,
    Request,
    Response,
    Upgrade,
    UpgradedStream,
    open_connection,
    open_upgrade,
    serve_stream,
    stream_scope,
)
from trio_upgrade.testing import ScriptedPeer, open_pair

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
]
# The public classes that can be entered, each with a row that enters one.
ENTERED: dict[str, Row] = {
    "ClientConnection": client_connection,
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
