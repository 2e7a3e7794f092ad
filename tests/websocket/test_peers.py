"""The clients and servers of websockets itself, for asyncio and for threads."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from websockets.asyncio.client import connect as connect_asyncio
from websockets.asyncio.server import serve as serve_asyncio
from websockets.exceptions import ConnectionClosed, ConnectionClosedError
from websockets.sync.client import connect as connect_sync
from websockets.sync.server import serve as serve_sync
from websockets.typing import Subprotocol

from trio_upgrade.websocket import open_websocket

from .wires import HOST, echo, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

BIG = b"x" * 2**20
OFFERED = [Subprotocol("b"), Subprotocol("a")]
MESSAGES: list[str | bytes] = ["Hello", BIG, ""]
both = pytest.mark.parametrize("compression", [None, "deflate"])


async def handle(websocket) -> None:
    """Echo; close with 4001 when told so."""
    async for message in websocket:
        if message == "close":
            await websocket.aclose(4001, "theirs")
        else:
            await websocket.send(message)


async def run_asyncio(url: str, compression: str | None) -> list[int | None]:
    """Talk by the client for asyncio; return the close codes of two connections."""
    codes = []
    for way in "ours", "theirs":
        async with connect_asyncio(
            url, subprotocols=OFFERED, compression=compression, proxy=None
        ) as websocket:
            assert websocket.subprotocol == "a"
            for message in MESSAGES:
                await websocket.send(message)
                assert await websocket.recv() == message
            await websocket.send(["frag", "ments"])
            assert await websocket.recv() == "fragments"
            await (await websocket.ping())
            if way == "ours":
                await websocket.close(4000)
            else:
                await websocket.send("close")
                with pytest.raises(ConnectionClosed):
                    await websocket.recv()
            codes.append(websocket.close_code)
    return codes


def run_sync(url: str, compression: str | None) -> list[int | None]:
    """Talk by the client for threads; return the close codes of two connections."""
    codes = []
    for way in "ours", "theirs":
        with connect_sync(
            url, subprotocols=OFFERED, compression=compression, proxy=None
        ) as websocket:
            assert websocket.subprotocol == "a"
            for message in MESSAGES:
                websocket.send(message)
                assert websocket.recv() == message
            websocket.send(["frag", "ments"])
            assert websocket.recv() == "fragments"
            assert websocket.ping().wait(5)
            if way == "ours":
                websocket.close(4000)
            else:
                websocket.send("close")
                with pytest.raises(ConnectionClosed):
                    websocket.recv()
            codes.append(websocket.close_code)
    return codes


@both
@pytest.mark.parametrize("kind", ["asyncio", "threads"])
async def test_clients(kind, compression, nursery) -> None:
    """Messages, fragments, a ping, and closes of both sides."""
    _, url = await serve(nursery, handle, subprotocols=["a"])
    if kind == "asyncio":
        talk: Callable[[], list[int | None]] = partial(
            asyncio.run, run_asyncio(url, compression)
        )
    else:
        talk = partial(run_sync, url, compression)

    assert await trio.to_thread.run_sync(talk) == [4000, 4001]


@asynccontextmanager
async def asyncio_server(compression: str | None) -> AsyncIterator[str]:
    """Run a server for asyncio in a thread; yield its URL."""
    loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def handler(websocket) -> None:
        async for message in websocket:
            if message == "close":
                await websocket.close(4001, "theirs")
            else:
                await websocket.send(message)

    async def run() -> None:
        options: dict[str, Any] = {"subprotocols": ["a"], "compression": compression}
        async with serve_asyncio(handler, HOST, 0, **options) as server:
            over = asyncio.Event()
            loops.append((asyncio.get_running_loop(), over))
            port = server.sockets[0].getsockname()[1]
            trio.from_thread.run_sync(status.append, f"ws://{HOST}:{port}")
            trio.from_thread.run_sync(ready.set)
            await over.wait()

    status: list[str] = []
    ready = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, lambda: asyncio.run(run()))
        await ready.wait()
        yield status[0]
        loop, over = loops[0]
        loop.call_soon_threadsafe(over.set)


@asynccontextmanager
async def threads_server(compression: str | None) -> AsyncIterator[str]:
    """Run a server for threads in a thread; yield its URL."""

    def handler(websocket) -> None:
        for message in websocket:
            if message == "close":
                websocket.close(4001, "theirs")
            else:
                websocket.send(message)

    options: dict[str, Any] = {"subprotocols": ["a"], "compression": compression}
    server = serve_sync(handler, HOST, 0, **options)
    port = server.socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, server.serve_forever)
        yield f"ws://{HOST}:{port}"
        await trio.to_thread.run_sync(server.shutdown)


@both
@pytest.mark.parametrize("kind", [asyncio_server, threads_server])
async def test_servers(kind, compression) -> None:
    """The same, with our client."""
    async with kind(compression) as url:
        async with open_websocket(url, subprotocols=["b", "a"]) as websocket:
            assert websocket.subprotocol == "a"
            for message in MESSAGES:
                await websocket.send(message)
                assert await websocket.recv() == message
            await websocket.send(["frag", "ments"])
            assert await websocket.recv() == "fragments"
            await (await websocket.ping()).wait()
            await websocket.aclose(4000)
        assert websocket.close_code == 4000
        async with open_websocket(url, subprotocols=["a"]) as websocket:
            await websocket.send("close")
            with pytest.raises(ConnectionClosedError, match="4001"):
                await websocket.recv()


async def test_echo_of_ours(nursery) -> None:
    """Both ends are ours."""
    _, url = await serve(nursery, echo)
    async with open_websocket(url) as websocket:
        for message in MESSAGES:
            await websocket.send(message)
            assert await websocket.recv() == message
