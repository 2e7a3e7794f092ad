# /// script
# requires-python = ">=3.11"
# dependencies = ["trio-upgrade"]
# ///
"""Make handshakes of every kind, and check that they leave nothing open.

    python benchmarks/soak.py [NUMBER]

NUMBER is 20,000 unless given. A server and its clients are in this one process, on the
loopback interface. A quarter of the handshakes succeeds, a quarter is refused, a quarter
is reset by the client on the way, a quarter is cancelled. Afterwards there have to be as
many tasks and descriptors as before, and at most 8 MiB more memory than after the first
tenth of the handshakes. Otherwise the exit status is 1. Needs Linux's /proc.
"""

from __future__ import annotations

import gc
import os
import resource
import socket
import struct
import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import trio

from trio_upgrade import (
    Limits,
    OpenError,
    Request,
    Response,
    Server,
    Upgrade,
    UpgradedStream,
    UpgradeRefused,
    open_upgrade,
    pipe,
    serve_tcp,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

HOST = "127.0.0.1"
# Handshakes at a time.
WORKERS = 8
MOST_GROWTH = 8 * 1024 * 1024
OFFER = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"


class Usage(NamedTuple):
    """The tasks, descriptors and bytes of memory that this process holds."""

    tasks: int
    descriptors: int
    memory: int

    @classmethod
    def now(cls) -> Usage:
        """Measure them."""
        gc.collect()
        with open("/proc/self/statm") as statm:
            pages = int(statm.read().split()[1])
        return cls(
            trio.lowlevel.current_statistics().tasks_living,
            len(os.listdir("/proc/self/fd")),
            pages * resource.getpagesize(),
        )


async def echo(_request: Request, stream: UpgradedStream, _head: bytes) -> None:
    """Echo all bytes."""
    await pipe(stream, stream)


async def app(request: Request) -> Response | Upgrade:
    """Switch, or refuse if the path says so."""
    if request.path == "/refused":
        return Response(403, b"no")
    return Upgrade("echo", echo)


async def be_good(server: Server, number: int) -> None:
    """Switch, have a message echoed, end."""
    async with await open_upgrade(server.url, "echo") as (_, stream, _):
        message = b"%d" % number
        await stream.send_all(message)
        got = b""
        while len(got) < len(message):
            got += await stream.receive_some()
        assert got == message


async def be_refused(server: Server, _number: int) -> None:
    """Make an offer that the server refuses."""
    with suppress(UpgradeRefused):
        await open_upgrade(server.url + "/refused", "echo")
        raise AssertionError("not refused")


async def reset(server: Server, number: int) -> None:
    """Reset in the middle of the handshake, a little later each time."""
    port = int(server.url.rpartition(":")[2])
    stream = await trio.open_tcp_stream(HOST, port)
    await stream.send_all(OFFER[: number * 7 % (len(OFFER) + 40)])
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await trio.aclose_forcefully(stream)


async def abort(server: Server, number: int) -> None:
    """Be cancelled, a little later each time."""
    with trio.move_on_after(number % 100 / 20_000), suppress(OpenError):
        async with await open_upgrade(server.url, "echo") as (_, stream, _):
            await stream.receive_some()


KINDS: list[Callable[[Server, int], Awaitable[None]]] = [
    be_good,
    be_refused,
    reset,
    abort,
]


async def soak(server: Server, first: int, last: int) -> None:
    """Make the handshakes of these numbers; return when no connection is left."""
    numbers = iter(range(first, last))

    async def work() -> None:
        for number in numbers:
            await KINDS[number % len(KINDS)](server, number)

    async with trio.open_nursery() as nursery:
        for _ in range(WORKERS):
            nursery.start_soon(work)
    while server.statistics().connections:
        await trio.sleep(0.01)


async def main(handshakes: int) -> list[str]:
    """Make the handshakes; print the figures; return the faults."""
    async with trio.open_nursery() as nursery:
        start = partial(serve_tcp, app, 0, host=HOST, limits=Limits(linger=0.5))
        server: Server = await nursery.start(start)
        before = Usage.now()
        # The first tenth makes everything that is made once and kept.
        await soak(server, 0, handshakes // 10)
        warm = Usage.now()
        await soak(server, handshakes // 10, handshakes)
        after = Usage.now()
        counts = server.statistics()
        nursery.cancel_scope.cancel()
    for name, usage in (("before", before), ("warm", warm), ("after", after)):
        print(
            f"{name:7} {usage.tasks} tasks, {usage.descriptors} descriptors, "
            f"{usage.memory / 1024**2:.1f} MiB"
        )
    print(
        f"{handshakes} handshakes, {counts.total_connections} connections, "
        f"{counts.total_upgraded} switched, {counts.total_errors} errors"
    )
    faults: list[str] = []
    if after.tasks != before.tasks:
        faults.append("tasks are left")
    if after.descriptors != before.descriptors:
        faults.append("descriptors are left")
    if after.memory - warm.memory > MOST_GROWTH:
        faults.append("memory is left")
    if counts.total_errors or counts.upgraded or counts.connections:
        faults.append("the counts are wrong")
    return faults


if __name__ == "__main__":
    found = trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
    print(*(found or ["nothing is left"]), sep="\n")
    sys.exit(bool(found))
