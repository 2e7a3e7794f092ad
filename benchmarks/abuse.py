# /// script
# requires-python = ">=3.11"
# dependencies = ["trio-upgrade"]
# ///
"""Abuse a server, and see whether anybody else notices.

    python benchmarks/abuse.py [ROW...]

Everything is on the loopback interface and stops by itself, in about a minute. Each row
of the table is one abuse, by the first word of its name if only some are wanted. A server
of its own process is abused, while another process makes ordinary requests on one
connection. *Held* means that

- those have a 99th percentile under 100 ms, or three times what it is alone;
- the server's memory grew by at most 8 MiB at any time, and by 16 KiB for each upgraded
  connection that is open, which is no abuse but a customer;
- every bad peer was gone one second after its deadline, at the latest;
- the server has as many descriptors afterwards as before;

and what the row says besides. The exit status is 1 if a row fell. Needs Linux's /proc.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeAlias

import trio

from trio_upgrade import (
    BadResponse,
    Limits,
    Request,
    Response,
    Server,
    Upgrade,
    UpgradedStream,
    drain_on_signal,
    open_upgrade,
    pipe,
    serve_tcp,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

HOST = "127.0.0.1"
PROBE = str(Path(__file__).with_name("probe.py"))
MIB = 1024 * 1024
BIG = 64 * MIB
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
OFFER = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
# Short, so that all of this is.
LIMITS = Limits(
    head_timeout=3,
    keep_alive_timeout=20,
    body_timeout=2,
    send_timeout=2,
    linger=0.5,
)
PROBE_SECONDS = 2.0
MOST_GROWTH = 8 * MIB
MOST_EACH = 16 * 1024
MOST_P99 = 0.1
SLACK = 1.0
LEAST_SHARE = 0.9
# A busy machine can make one measurement of throughput fail.
TRIES = 3

Row: TypeAlias = "Callable[[Target, Verdict], Awaitable[None]]"


################################################################
# The server, in a process of its own
################################################################


async def echo(_request: Request, stream: UpgradedStream, _head: bytes) -> None:
    """Echo whatever comes."""
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
    """The server process, seen from outside."""

    def __init__(self, process: trio.Process, port: int, log: IO[bytes]) -> None:
        self.port = port
        self._log = log
        self._process = process
        self.peak = 0

    @property
    def memory(self) -> int:
        """The bytes that it has in memory."""
        with open(f"/proc/{self._process.pid}/statm") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()

    @property
    def descriptors(self) -> int:
        """How many it has open."""
        return len(os.listdir(f"/proc/{self._process.pid}/fd"))

    def read_log(self) -> list[bytes]:
        """Return the lines that it has logged."""
        self._log.seek(0)
        return self._log.readlines()

    async def watch(self) -> None:
        """Keep the peak of its memory up to date, until cancelled."""
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
    """What is wrong with a row, and what is worth saying."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.notes: list[str] = []
        self.p99 = 0.0
        self.p99_alone = 0.0
        self.latest = 0.0
        self.upgraded = 0

    def check(self, held: bool, fault: str) -> None:
        """Note a fault unless it held."""
        if not held:
            self.faults.append(fault)

    def gone(self, seconds: float, deadline: float) -> None:
        """Take in when a bad peer was gone."""
        self.latest = max(self.latest, seconds)
        self.check(
            seconds <= deadline + SLACK,
            f"a peer stayed {seconds:.1f} s of {deadline} s",
        )


@asynccontextmanager
async def start_target(descriptors: int = 0) -> AsyncIterator[Target]:
    """Run a server."""
    command = [sys.executable, __file__, "--serve", str(descriptors)]
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


async def run_row(row: Row) -> tuple[Verdict, float]:
    """Run a row; return what came of it, and by how many bytes the memory grew."""
    verdict = Verdict()
    descriptors = 64 if row is exhaustion else 0
    async with start_target(descriptors) as target:
        offer = OFFER if row is idle_upgraded else b""
        _, verdict.p99_alone = await target.probe(offer, 1)
        before, target.peak = target.memory, target.memory
        open_before = target.descriptors
        async with trio.open_nursery() as nursery:
            nursery.start_soon(target.watch)
            await row(target, verdict)
            for _ in range(100):
                if target.descriptors <= open_before:
                    break
                await trio.sleep(0.05)
            nursery.cancel_scope.cancel()
        growth = target.peak - before
        left = target.descriptors - open_before
    verdict.check(left == 0, f"{left} descriptors left")
    allowed = MOST_GROWTH + verdict.upgraded * MOST_EACH
    verdict.check(growth <= allowed, "too much memory")
    verdict.check(
        verdict.p99 <= max(MOST_P99, 3 * verdict.p99_alone), "the others noticed"
    )
    return verdict, growth


################################################################
# The rows
################################################################


async def read_to_the_end(stream: trio.SocketStream) -> bytes:
    """Read until the server ends it, in whichever way; return the beginning."""
    got = b""
    with suppress(trio.BrokenResourceError):
        async for chunk in stream:
            got = (got + chunk)[:1000]
    return got


async def slow_heads(target: Target, verdict: Verdict) -> None:
    """200 slow heads"""
    assert LIMITS.head_timeout is not None

    async def dribble(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            while True:
                await stream.send_all(b"G")
                await trio.sleep(1)

    async def abuse() -> None:
        began = trio.current_time()
        async with await target.connect() as stream:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(dribble, stream)
                answer = await read_to_the_end(stream)
                nursery.cancel_scope.cancel()
        assert LIMITS.head_timeout is not None
        verdict.gone(trio.current_time() - began, LIMITS.head_timeout)
        verdict.check(answer.startswith(b"HTTP/1.1 408 "), f"no 408 but {answer!r}")

    share, rate = 0.0, 0.0
    for _ in range(TRIES):
        before, _ = await target.probe(seconds=1)
        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(abuse)
            await trio.sleep(0.5)
            during, p99 = await target.probe()
        after, _ = await target.probe(seconds=1)
        if during / ((before + after) / 2) > share:
            rate, verdict.p99 = (before + after) / 2, p99
            share = during / rate
        if share >= LEAST_SHARE:
            break
    verdict.notes.append(f"{share:.0%} of {rate:.0f} requests/s")
    verdict.check(share >= LEAST_SHARE, "throughput fell")


async def resets(target: Target, verdict: Verdict) -> None:
    """1,000 connect and reset"""
    beginnings = [b"", b"GET /", GET, OFFER, b"\x00", b"POST / HTTP/1.1\r\nHost: x\r\n"]

    done = 0

    async def abuse() -> None:
        nonlocal done
        while True:
            number = done = done + 1
            stream = await target.connect()
            await stream.send_all(beginnings[number % len(beginnings)])
            stream.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            await trio.aclose_forcefully(stream)
            # Faster, it would measure how three programs share two processors.
            await trio.sleep(0.001)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(abuse)
        _, verdict.p99 = await target.probe()
        while done < 1000:
            await trio.sleep(0.02)
        nursery.cancel_scope.cancel()
    verdict.notes.append(f"{done} of them")


async def idle_upgraded(target: Target, verdict: Verdict) -> None:
    """1,000 idle upgraded, one live"""
    streams: list[trio.SocketStream] = []

    async def switch() -> None:
        stream = await target.connect()
        streams.append(stream)
        await stream.send_all(OFFER)
        answer = await stream.receive_some()
        verdict.check(answer.startswith(b"HTTP/1.1 101 "), f"no switch but {answer!r}")

    before = target.memory
    for _ in range(20):
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(switch)
    _, verdict.p99 = await target.probe(OFFER)
    each = (target.memory - before) / len(streams)
    verdict.check(each <= MOST_EACH, "they are too large")
    verdict.upgraded = len(streams)
    verdict.notes.append(f"{each / 1024:.1f} KiB each")
    verdict.check(target.descriptors >= len(streams), "some were closed")
    for stream in streams:
        await stream.aclose()


async def exhaustion(target: Target, verdict: Verdict) -> None:
    """descriptors exhausted"""
    streams = [await target.connect() for _ in range(200)]
    await trio.sleep(0.2)
    verdict.check(target.descriptors >= 60, "they were not exhausted")
    # One of them is a live one, which is already accepted.
    took: list[float] = []
    for _ in range(200):
        began = trio.current_time()
        await streams[0].send_all(GET)
        verdict.check(bool(await streams[0].receive_some()), "a live one was cut")
        took.append(trio.current_time() - began)
    verdict.p99 = statistics.quantiles(took, n=100)[-1]
    for stream in streams:
        await stream.aclose()
    began = trio.current_time()
    async with await target.connect() as stream:
        await stream.send_all(GET)
        verdict.check(bool(await stream.receive_some()), "it did not recover")
    recovered = trio.current_time() - began
    logged = len(target.read_log())
    verdict.check(logged == 1, f"{logged} lines in the log, not one")
    verdict.notes.append(f"recovered in {recovered:.2f} s")
    verdict.check(recovered <= SLACK, "it recovered slowly")


async def non_readers(target: Target, verdict: Verdict) -> None:
    """64 MiB and nobody reads"""

    async def abuse(path: bytes) -> None:
        assert LIMITS.send_timeout is not None
        began = trio.current_time()
        async with await target.connect() as stream:
            await stream.send_all(GET.replace(b"/ ", path + b" ", 1))
            # It does not read, and sees the reset all the same.
            poll = select.poll()
            poll.register(stream.socket.fileno(), 0)
            while not poll.poll(0):
                await trio.sleep(0.02)
        verdict.gone(trio.current_time() - began, LIMITS.send_timeout)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(abuse, b"/big")
            nursery.start_soon(abuse, b"/stream")
        _, verdict.p99 = await target.probe()


async def flood(
    target: Target, verdict: Verdict, head: bytes, packet: bytes, *statuses: bytes
) -> None:
    """Send without end; the server has to answer and to end it."""
    sent = floods = 0

    async def send(stream: trio.SocketStream) -> None:
        nonlocal sent
        with suppress(trio.BrokenResourceError):
            await stream.send_all(head)
            while True:
                await stream.send_all(packet)
                sent += len(packet)

    async def abuse() -> None:
        nonlocal floods
        began = trio.current_time()
        async with await target.connect() as stream:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send, stream)
                answer = await read_to_the_end(stream)
                nursery.cancel_scope.cancel()
        assert LIMITS.linger is not None
        verdict.gone(trio.current_time() - began, LIMITS.linger)
        # A reset can eat it: the flood never stops.
        verdict.check(answer[9:12] in (b"", *statuses), f"answered {answer!r}")
        floods += 1

    async def abuse_again() -> None:
        while True:
            await abuse()

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(abuse_again)
        _, verdict.p99 = await target.probe()
        nursery.cancel_scope.cancel()
    verdict.notes.append(f"{floods} times, {sent / MIB:.0f} MiB")


async def endless_header(target: Target, verdict: Verdict) -> None:
    """endless header"""
    await flood(target, verdict, GET[:-2] + b"A: ", b"x" * 65536, b"431")


async def endless_fields(target: Target, verdict: Verdict) -> None:
    """endless header fields"""
    await flood(target, verdict, GET[:-2], b"A: b\r\n" * 1000, b"431")


async def endless_body(target: Target, verdict: Verdict) -> None:
    """endless body"""
    head = GET.replace(b"GET", b"POST")[:-2] + b"Content-Length: 999999999999\r\n\r\n"
    await flood(target, verdict, head, b"x" * 65536, b"413")


async def endless_chunks(target: Target, verdict: Verdict) -> None:
    """endless chunks"""
    head = GET.replace(b"GET", b"POST")[:-2] + b"Transfer-Encoding: chunked\r\n\r\n"
    await flood(target, verdict, head, b"4000\r\n%b\r\n" % (b"x" * 0x4000), b"413")


async def endless_chunk_line(target: Target, verdict: Verdict) -> None:
    """endless chunk extension"""
    head = GET.replace(b"GET", b"POST")[:-2] + b"Transfer-Encoding: chunked\r\n\r\n1;"
    await flood(target, verdict, head, b"x" * 65536, b"400", b"431", b"413")


async def endless_informational(_: Target, verdict: Verdict) -> None:
    """endless 1xx, at our client"""
    (listener,) = await trio.open_tcp_listeners(0, host=HOST)

    async def answer() -> None:
        async with await listener.accept() as stream:
            with suppress(trio.BrokenResourceError):
                while True:
                    await stream.send_all(b"HTTP/1.1 100 Continue\r\n\r\n")

    port = listener.socket.getsockname()[1]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with trio.open_nursery() as nursery, listener:
        nursery.start_soon(answer)
        began = trio.current_time()
        refused = False
        with trio.move_on_after(5):
            try:
                await open_upgrade(f"http://{HOST}:{port}/", "echo")
            except BadResponse:
                refused = True
        verdict.gone(trio.current_time() - began, 0)
        nursery.cancel_scope.cancel()
    verdict.check(refused, "it was not refused")
    growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    verdict.check(growth <= MOST_GROWTH, "too much memory in the client")


ROWS: list[Row] = [
    slow_heads,
    resets,
    idle_upgraded,
    exhaustion,
    non_readers,
    endless_header,
    endless_fields,
    endless_body,
    endless_chunks,
    endless_chunk_line,
    endless_informational,
]


async def main(names: list[str]) -> int:
    """Print the table; return the exit status."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    title = f"{'abuse':28}{'':6}{'p99 ms':>8}{'alone':>7}{'grown MiB':>11}{'gone s':>8}"
    print(title)
    fell = 0
    for row in ROWS:
        if names and row.__name__ not in names:
            continue
        verdict, growth = await run_row(row)
        fell += bool(verdict.faults)
        print(
            f"{(row.__doc__ or '').strip():28}{'FELL' if verdict.faults else 'held':6}"
            f"{verdict.p99 * 1000:8.1f}{verdict.p99_alone * 1000:7.1f}"
            f"{growth / MIB:11.1f}{verdict.latest:8.1f}  "
            + "; ".join(verdict.notes + list(dict.fromkeys(verdict.faults))[:3]),
            flush=True,
        )
    return 1 if fell else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        trio.run(serve, int(sys.argv[2]))
    else:
        sys.exit(trio.run(main, sys.argv[1:]))
