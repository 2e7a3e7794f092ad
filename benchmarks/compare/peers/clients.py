"""Make handshakes or requests with a client; print how many, and their cost.

    python benchmarks/compare/peers/clients.py CLIENT PORT PROTOCOL SECONDS TASKS

Prints their number, the seconds and the CPU seconds as JSON. ``echo`` means: connect,
upgrade, have 16 bytes echoed, end. ``websocket`` ends after the 101; the WebSocket
clients also make their close handshake. The clients for requests take no notice of it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import TYPE_CHECKING, TypeAlias

import h11
import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio_upgrade import UpgradedStream

Client: TypeAlias = "Callable[[int, str], Awaitable[None]]"
SIXTEEN = b"sixteen bytes it"
KEY = ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")


def make_ours() -> Client:
    """trio_upgrade"""
    from trio_upgrade import open_upgrade

    async def ours(port: int, protocol: str) -> None:
        url = f"http://127.0.0.1:{port}/"
        fields = [KEY] if protocol == "websocket" else []
        async with await open_upgrade(url, protocol, headers=fields) as (_, stream, _):
            await talk(stream, protocol)

    return ours


def make_floor() -> Client:
    """Trio and h11 by hand"""

    async def floor(port: int, protocol: str) -> None:
        http = h11.Connection(h11.CLIENT)
        fields = [("Host", f"127.0.0.1:{port}"), ("Connection", "Upgrade")]
        fields += [("Upgrade", protocol), KEY]
        offer = http.send(h11.Request(method="GET", target="/", headers=fields)) or b""
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(offer + (http.send(h11.EndOfMessage()) or b""))
            while (event := http.next_event()) is h11.NEED_DATA:
                http.receive_data(await stream.receive_some(65536))
            assert isinstance(event, h11.InformationalResponse)
            assert event.status_code == 101
            await talk(stream, protocol)

    return floor


def make_aiohttp() -> Client:
    """aiohttp"""
    from aiohttp import ClientSession

    session: ClientSession | None = None

    async def aiohttp(port: int, _protocol: str) -> None:
        nonlocal session
        session = session or ClientSession()
        async with session.ws_connect(f"ws://127.0.0.1:{port}/"):
            pass

    return aiohttp


def make_websockets() -> Client:
    """websockets"""
    from websockets.asyncio.client import connect

    async def websockets(port: int, _protocol: str) -> None:
        url = f"ws://127.0.0.1:{port}/"
        async with connect(url, compression=None, proxy=None):
            pass

    return websockets


def make_pool() -> Client:
    """trio_upgrade's pool, for requests on kept connections"""
    from trio_upgrade import ConnectionPool

    pool = ConnectionPool()

    async def get(port: int, _protocol: str) -> None:
        async with await pool.request("GET", f"http://127.0.0.1:{port}/") as response:
            await response.read()

    return get


def make_httpcore() -> Client:
    """httpcore on Trio, for the same"""
    from httpcore import AsyncConnectionPool

    pool = AsyncConnectionPool()

    async def get(port: int, _protocol: str) -> None:
        # It reads the content, too.
        await pool.request("GET", f"http://127.0.0.1:{port}/")

    return get


def make_aiohttp_get() -> Client:
    """aiohttp, for the same"""
    from aiohttp import ClientSession

    session: ClientSession | None = None

    async def get(port: int, _protocol: str) -> None:
        nonlocal session
        session = session or ClientSession()
        async with session.get(f"http://127.0.0.1:{port}/") as response:
            await response.read()

    return get


CLIENTS = {
    "trio_upgrade": make_ours,
    "floor": make_floor,
    "pool": make_pool,
    "httpcore": make_httpcore,
    "aiohttp_get": make_aiohttp_get,
    "aiohttp": make_aiohttp,
    "websockets": make_websockets,
}
ON_TRIO = {"trio_upgrade", "floor", "pool", "httpcore"}


async def talk(stream: UpgradedStream | trio.SocketStream, protocol: str) -> None:
    """Do everything after the switch, until the end of the stream."""
    if protocol == "echo":
        await stream.send_all(SIXTEEN)
        got = 0
        while got < len(SIXTEEN):
            got += len(await stream.receive_some())
    await stream.send_eof()
    while await stream.receive_some():
        pass


async def main(name: str, port: int, protocol: str, seconds: float, tasks: int) -> None:
    """Run the tasks, on Trio or asyncio as the client needs it."""
    client = CLIENTS[name]()
    operations = 0
    # The same time again before it, to get warm, does not count.
    start = time.perf_counter() + seconds
    began = cpu = 0.0

    async def work() -> None:
        nonlocal operations, began, cpu
        while (now := time.perf_counter()) < start + seconds:
            if now >= start:
                if not began:
                    began, cpu = now, time.process_time()
                operations += 1
            await client(port, protocol)

    if name in ON_TRIO:
        async with trio.open_nursery() as nursery:
            for _ in range(tasks):
                nursery.start_soon(work)
    else:
        await asyncio.gather(*(work() for _ in range(tasks)))
    took = time.perf_counter() - began
    print(json.dumps([operations, took, time.process_time() - cpu]))


if __name__ == "__main__":
    name, port, protocol, seconds, tasks = sys.argv[1:]
    words = (name, int(port), protocol, float(seconds), int(tasks))
    if name in ON_TRIO:
        trio.run(main, *words)
    else:
        asyncio.run(main(*words))
