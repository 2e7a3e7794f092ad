# /// script
# requires-python = ">=3.11"
# dependencies = ["trio-upgrade"]
# ///
"""End requests and tunnels through both proxies at random, and check what is left.

    python benchmarks/proxy_soak.py [NUMBER]

NUMBER is 10,000 unless given. An upstream server, a reverse proxy, a forward proxy and
their clients are in this one process, on the loopback interface. Each client does one
thing: a request with or without a body, an upgrade, a CONNECT, or a request with an
absolute target; and the client or the upstream gives up at a random point, by a
cancellation, a reset or a cut. No answer may be that of another request. Afterwards there
have to be as many tasks and descriptors as before, and no connection in use in a pool.
Otherwise the exit status is 1. Needs Linux's /proc.
"""

from __future__ import annotations

import gc
import logging
import os
import random
import socket
import struct
import sys
from collections import Counter
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import trio

from trio_upgrade import (
    BodyError,
    Limits,
    OpenError,
    Request,
    Response,
    Server,
    Upgrade,
    UpgradedStream,
    open_connection,
    open_tunnel,
    open_upgrade,
    pipe,
    serve_tcp,
)
from trio_upgrade.proxy import ForwardProxy, ReverseProxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

HOST = "127.0.0.1"
# Clients at a time.
WORKERS = 30
CONNECTIONS = 20
ERRORS = (OpenError, BodyError, trio.BrokenResourceError, trio.ClosedResourceError)


class Soak:
    """The servers, and the clients that use them.

    Args:
        upstream: The server behind the proxies.
        reverse: The reverse proxy as a server.
        forward: The forward proxy as a server.
        dice: What is random.
    """

    def __init__(
        self, upstream: Server, reverse: Server, forward: Server, dice: random.Random
    ) -> None:
        self.upstream = upstream
        self.reverse = reverse
        self.forward = forward
        self.dice = dice
        self.done: Counter[str] = Counter()
        self.faults: list[str] = []

    async def run(self, number: int) -> None:
        """Do one thing, and give up at a random point."""
        deed = self.dice.choice(
            [self.ask, self.ask, self.send, self.switch, self.tunnel, self.absolute]
        )
        patience = self.dice.choice([0.0, 0.002, 0.005, 0.01, 10.0, 10.0])
        name = deed.__name__
        with trio.move_on_after(self.dice.random() * patience) as scope:
            try:
                await deed(f"mark-{number}-")
            except ERRORS as exc:
                name += f": {type(exc).__name__}"
        self.done[f"{name}{' (cancelled)' if scope.cancelled_caught else ''}"] += 1

    def check(self, mark: str, got: bytes) -> None:
        """Note an answer that belongs to another request."""
        if mark.encode() not in got:
            self.faults.append(f"{mark} got {got[:100]!r}")

    async def ask(self, mark: str) -> None:
        """Make two requests on one connection."""
        async with await open_connection(self.reverse.url) as connection:
            for _ in range(2):
                response = await connection.request("GET", f"/{mark}")
                got = await response.read()
                if response.status == 200:
                    self.check(mark, got)

    async def send(self, mark: str) -> None:
        """Send a body that is cut now and then."""

        async def body() -> AsyncIterator[bytes]:
            for _ in range(self.dice.randrange(5)):
                yield b"x" * 10_000
                await trio.sleep(self.dice.random() / 500)
            if self.dice.random() < 0.2:
                raise trio.BrokenResourceError("the client gives up")

        async with await open_connection(self.reverse.url) as connection:
            response = await connection.request("POST", f"/{mark}", body=body())
            got = await response.read()
            if response.status == 200:
                self.check(mark, got)

    async def switch(self, mark: str) -> None:
        """Echo through an upgraded connection, and reset it now and then."""
        upgraded = await open_upgrade(f"{self.reverse.url}/{mark}", "websocket")
        async with upgraded as (_, stream, _):
            await self.converse(stream, mark)

    async def tunnel(self, mark: str) -> None:
        """Make a request through a tunnel."""
        authority = self.upstream.url.removeprefix("http://")
        async with await open_tunnel(self.forward.url, authority) as (_, stream, _):
            await stream.send_all(
                f"GET /{mark} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
            )
            if self.dice.random() < 0.3:
                await stream.reset()
                return
            got = b"".join([bytes(chunk) async for chunk in stream])
            if b" 200 OK" in got and got.count(b"mark"):
                self.check(mark, got)

    async def absolute(self, mark: str) -> None:
        """Make a request with an absolute target, and reset the connection at random."""
        port = int(self.forward.url.rpartition(":")[2])
        wire = f"GET {self.upstream.url}/{mark} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        stream = await trio.open_tcp_stream(HOST, port)
        async with stream:
            await stream.send_all(wire[: self.dice.randrange(len(wire) * 3)])
            await trio.sleep(self.dice.random() / 200)
            stream.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )

    async def converse(self, stream: UpgradedStream, mark: str) -> None:
        """Have a message echoed; then end, reset, or leave."""
        await stream.send_all(mark.encode())
        got = await stream.receive_exactly(len(mark))
        self.check(mark, got)
        end = self.dice.randrange(3)
        if end == 0:
            await stream.reset()
        elif end == 1:
            await stream.send_eof()
            await stream.receive_some()


def make_app(dice: random.Random) -> Callable[[Request], Awaitable[object]]:
    """Return the app of the upstream server, which gives up at random."""

    async def content(mark: bytes) -> AsyncIterator[bytes]:
        for _ in range(dice.randrange(1, 4)):
            yield mark
            await trio.sleep(dice.random() / 500)
        if dice.random() < 0.1:
            raise ConnectionResetError("the upstream gives up")

    async def echo(_request: Request, stream: UpgradedStream, _head: bytes) -> None:
        if dice.random() < 0.1:
            await stream.reset()
            return
        with suppress(trio.BrokenResourceError):
            await pipe(stream, stream)

    async def app(request: Request) -> Response | Upgrade | None:
        if dice.random() < 0.1:
            await trio.sleep(dice.random() / 100)
        if dice.random() < 0.05:
            raise ConnectionResetError("the upstream fails")
        mark = request.path.encode()
        if request.upgrades and dice.random() < 0.8:
            return Upgrade("websocket", echo)
        if dice.random() < 0.5:
            with suppress(BodyError):
                await request.read(100_000)
        if dice.random() < 0.5:
            return Response(200, mark)
        return Response(200, content(mark))

    return app


def count_open() -> tuple[int, int]:
    """Return how many tasks and descriptors there are."""
    gc.collect()
    tasks = trio.lowlevel.current_statistics().tasks_living
    return tasks, len(os.listdir("/proc/self/fd"))


async def wait_settled(before: tuple[int, int]) -> tuple[int, int]:
    """Wait until there are as few as before, for some seconds at most."""
    for _ in range(100):
        now = count_open()
        if now <= before:
            break
        await trio.sleep(0.05)
    return now


async def main(number: int) -> int:
    """Run all; return the exit status."""
    dice = random.Random(19)  # noqa: S311
    loopback = ["127.0.0.0/8"]
    ports = range(1, 65536)
    async with trio.open_nursery() as nursery:
        serve = partial(serve_tcp, host=HOST, limits=Limits(linger=0.05))
        upstream = await nursery.start(partial(serve, make_app(dice), 0))
        async with (
            ReverseProxy(upstream.url, connections=CONNECTIONS) as reverse,
            ForwardProxy(
                networks=loopback,
                ports=ports,
                http_ports=ports,
                connections=CONNECTIONS,
            ) as forward,
        ):
            soak = Soak(
                upstream,
                await nursery.start(partial(serve, reverse, 0)),
                await nursery.start(partial(serve, forward, 0)),
                dice,
            )
            before = count_open()
            room = trio.CapacityLimiter(WORKERS)

            async def run_one(number: int) -> None:
                async with room:
                    await soak.run(number)

            async with trio.open_nursery() as clients:
                for index in range(number):
                    clients.start_soon(run_one, index)
            for proxy in (reverse, forward):
                counts = proxy.pool_statistics()
                if counts.in_use + counts.idle > CONNECTIONS:
                    soak.faults.append(f"the pool is over its bounds: {counts}")
            for proxy in (reverse, forward):
                await proxy.close_idle()
            after = await wait_settled(before)
            for proxy in (reverse, forward):
                counts = proxy.pool_statistics()
                print(proxy.statistics(), counts, sep="\n")
                if counts.in_use or counts.waiting or counts.idle:
                    soak.faults.append(f"the pool is not at rest: {counts}")
                if proxy.statistics().tunnels:
                    soak.faults.append("a tunnel is left")
        nursery.cancel_scope.cancel()
    for name, count in sorted(soak.done.items()):
        print(f"{count:6} {name}")
    if after > before:
        soak.faults.append(f"tasks and descriptors: {before} before, {after} after")
    print(*soak.faults[:20], sep="\n")
    print(
        f"{number} requests and tunnels:",
        "faults" if soak.faults else "nothing is left",
    )
    return 1 if soak.faults else 0


if __name__ == "__main__":
    # What fails on purpose is logged as what it is.
    logging.getLogger("trio_upgrade").setLevel(logging.CRITICAL)
    sys.exit(trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 10_000))
