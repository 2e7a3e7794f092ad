"""Large bodies and tunnels go through with bounded memory."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trio_upgrade import Response, Upgrade, open_connection, open_upgrade, serve_tcp
from trio_upgrade.proxy import ReverseProxy

from .scenes import HOST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import trio

    from trio_upgrade import Request, UpgradedStream

MIB = 1024 * 1024
PIECE = bytes(256 * 1024)
MOST_GROWTH = 4 * MIB
sizes = pytest.mark.parametrize(
    "size", [64 * MIB, pytest.param(1024 * MIB, marks=pytest.mark.gigabyte)]
)
pytestmark = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="needs Linux's /proc"
)


def count_memory() -> int:
    """Return the bytes of memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def give(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // len(PIECE)):
        yield PIECE


async def app(request: Request) -> Response | Upgrade:
    """Count what comes and send as much, in a body or after a switch."""
    size = int(request.path[1:])
    if request.upgrades:
        return Upgrade("websocket", exchange)
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
    assert received == size
    return Response(200, give(size), {"Content-Length": str(size)})


async def exchange(request: Request, stream: UpgradedStream, _head: bytes) -> None:
    size = int(request.path[1:])
    received = 0
    while received < size:
        received += len(await stream.receive_some())
    async for piece in give(size):
        await stream.send_all(piece)


async def ask(url: str, size: int) -> None:
    async with await open_connection(url) as connection:
        response = await connection.request("PUT", f"/{size}", body=give(size))
        received = 0
        async for chunk in response.stream():
            received += len(chunk)
    assert received == size


async def switch(url: str, size: int) -> None:
    async with await open_upgrade(f"{url}/{size}", "websocket") as (_, stream, _):
        async for piece in give(size):
            await stream.send_all(piece)
        received = 0
        while received < size:
            received += len(await stream.receive_some())


@sizes
@pytest.mark.parametrize("kind", [ask, switch])
async def test_memory_does_not_grow(nursery: trio.Nursery, kind, size: int) -> None:
    """So much each way: client, proxy and upstream together stay within 4 MiB."""
    upstream = await nursery.start(partial(serve_tcp, app, 0, host=HOST))
    async with ReverseProxy(upstream.url) as proxy:
        server = await nursery.start(partial(serve_tcp, proxy, 0, host=HOST))
        await kind(server.url, 8 * MIB)
        before = count_memory()
        await kind(server.url, size)
        assert count_memory() - before < MOST_GROWTH
    nursery.cancel_scope.cancel()
