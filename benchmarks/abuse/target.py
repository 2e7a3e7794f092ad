"""The server that is abused, in its own process, and how it is measured.

python benchmarks/abuse/target.py DESCRIPTORS
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

import trio

from trio_upgrade import (
    Limits,
    Request,
    Response,
    Server,
    Upgrade,
    UpgradedStream,
    drain_on_signal,
    pipe,
    serve_tcp,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HOST = "127.0.0.1"
PROBE = str(Path(__file__).with_name("probe.py"))
MIB = 1024 * 1024
BIG = 64 * MIB
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
OFFER = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
# Short, so that the whole program is short.
LIMITS = Limits(
    header_timeout=3,
    keep_alive_timeout=20,
    body_timeout=2,
    send_timeout=2,
    linger=0.5,
)
PROBE_SECONDS = 2.0
# Bytes that the server may grow by, and by more for each upgraded connection.
MOST_GROWTH = 8 * MIB
MOST_EACH = 8 * 1024
# Seconds that a request of the honest peer may take, as a 99th percentile.
MOST_P99 = 0.1
# Seconds that a hostile peer may stay after its deadline.
SLACK = 1.0
# The share of its throughput that the honest peer has to keep.
LEAST_SHARE = 0.9
# A busy machine can make one measurement of throughput fail.
TRIES = 3

################################################################
# The server, in its own process
################################################################


async def echo(_request: Request, stream: UpgradedStream, _head: bytes) -> None:
    """Echo all bytes."""
    await pipe(stream, stream)


async def serve(descriptors: int) -> None:
    """Serve until SIGTERM."""
    if descriptors:
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
    big = b"x" * BIG

    async def stream_big() -> AsyncIterator[bytes]:
        for start in range(0, BIG, 65536):
            yield big[start : start + 65536]

    async def app(request: Request) -> Response | Upgrade:
        if request.upgrades:
            return Upgrade("echo", echo)
        if request.path == "/big":
            return Response(200, big)
        if request.path == "/stream":
            return Response(200, stream_big())
        return Response(200, str(len(await request.read())))

    async with trio.open_nursery() as nursery:
        start = partial(serve_tcp, app, 0, host=HOST, backlog=1024, limits=LIMITS)
        server: Server = await nursery.start(start)
        print(server.url.rpartition(":")[2], flush=True)
        await drain_on_signal(server, signal.SIGTERM, grace=0)


################################################################
# Measuring
################################################################


class Target:
    """The server's process, measured from outside."""

    def __init__(self, process: trio.Process, port: int, log: IO[bytes]) -> None:
        self.port = port
        self._log = log
        self._process = process
        self.peak = 0

    @property
    def memory(self) -> int:
        """The bytes of memory that the server has."""
        with open(f"/proc/{self._process.pid}/statm") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()

    @property
    def descriptors(self) -> int:
        """The number of descriptors that the server has open."""
        return len(os.listdir(f"/proc/{self._process.pid}/fd"))

    def read_log(self) -> list[bytes]:
        """Return the lines that the server has logged."""
        self._log.seek(0)
        return self._log.readlines()

    async def watch(self) -> None:
        """Keep the peak of the memory up to date, until cancelled."""
        while True:
            self.peak = max(self.peak, self.memory)
            await trio.sleep(0.02)

    async def probe(
        self, offer: bytes = b"", seconds: float = PROBE_SECONDS
    ) -> tuple[float, float]:
        """Return the requests per second and the 99th percentile of an honest peer."""
        command = [sys.executable, PROBE, str(self.port), offer.hex(), str(seconds)]
        result = await trio.run_process(command, capture_stdout=True)
        rate, p99 = json.loads(result.stdout)
        return rate, p99

    async def connect(self) -> trio.SocketStream:
        """Open a connection."""
        return await trio.open_tcp_stream(HOST, self.port)


class Verdict:
    """The faults that a row found, and notes that are printed beside it."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.notes: list[str] = []
        self.p99 = 0.0
        self.p99_alone = 0.0
        self.latest = 0.0
        self.upgraded = 0

    def check(self, held: bool, fault: str) -> None:
        """Record a fault unless ``held``."""
        if not held:
            self.faults.append(fault)

    def gone(self, seconds: float, deadline: float) -> None:
        """Record after how many seconds a hostile peer was gone."""
        self.latest = max(self.latest, seconds)
        self.check(
            seconds <= deadline + SLACK,
            f"a peer stayed {seconds:.1f} s of {deadline} s",
        )


@asynccontextmanager
async def start_target(descriptors: int = 0) -> AsyncIterator[Target]:
    """Run a server, with at most this many descriptors unless 0."""
    command = [sys.executable, __file__, str(descriptors)]
    with tempfile.TemporaryFile() as log:
        process = await trio.lowlevel.open_process(
            command, stdout=subprocess.PIPE, stderr=log
        )
        assert process.stdout is not None
        try:
            port = int(await process.stdout.receive_some())
            yield Target(process, port, log)
        finally:
            process.terminate()
            with trio.CancelScope(shield=True):
                await process.wait()
                await process.stdout.aclose()


if __name__ == "__main__":
    trio.run(serve, int(sys.argv[1]))
