"""The abuses. Each function is a row of the table, its docstring the name of the row."""

from __future__ import annotations

import resource
import select
import socket
import statistics
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

import trio

from trio_upgrade import BadResponse, open_upgrade

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

from .target import (
    GET,
    HOST,
    LEAST_SHARE,
    LIMITS,
    MIB,
    MOST_EACH,
    MOST_GROWTH,
    OFFER,
    SLACK,
    TRIES,
    Target,
    Verdict,
)

Row: TypeAlias = "Callable[[Target, Verdict], Awaitable[None]]"


async def read_to_the_end(stream: trio.SocketStream) -> bytes:
    """Read until the server ends or resets the stream; return the first bytes."""
    got = b""
    with suppress(trio.BrokenResourceError):
        async for chunk in stream:
            got = (got + chunk)[:1000]
    return got


async def slow_heads(target: Target, verdict: Verdict) -> None:
    """200 slow heads"""
    assert LIMITS.header_timeout is not None

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
        assert LIMITS.header_timeout is not None
        verdict.gone(trio.current_time() - began, LIMITS.header_timeout)
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
            # Without a pause this would measure how three programs share two processors.
            await trio.sleep(0.001)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(abuse)
        _, verdict.p99 = await target.probe()
        while done < 1000:
            await trio.sleep(0.02)
        nursery.cancel_scope.cancel()
    verdict.notes.append(f"{done} times")


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
    verdict.check(each <= MOST_EACH, "a connection takes too much memory")
    verdict.upgraded = len(streams)
    verdict.notes.append(f"{each / 1024:.1f} KiB each")
    verdict.check(target.descriptors >= len(streams), "some connections were closed")
    for stream in streams:
        await stream.aclose()


async def exhaustion(target: Target, verdict: Verdict) -> None:
    """descriptors exhausted"""
    streams = [await target.connect() for _ in range(200)]
    await trio.sleep(0.2)
    verdict.check(target.descriptors >= 60, "descriptors were not exhausted")
    # The first connection is already accepted, so it has to work all the time.
    took: list[float] = []
    for _ in range(200):
        began = trio.current_time()
        await streams[0].send_all(GET)
        verdict.check(
            bool(await streams[0].receive_some()), "a live connection was cut"
        )
        took.append(trio.current_time() - began)
    verdict.p99 = statistics.quantiles(took, n=100)[-1]
    for stream in streams:
        await stream.aclose()
    began = trio.current_time()
    async with await target.connect() as stream:
        await stream.send_all(GET)
        verdict.check(bool(await stream.receive_some()), "the server did not recover")
    recovered = trio.current_time() - began
    logged = len(target.read_log())
    verdict.check(logged == 1, f"{logged} lines in the log, not one")
    verdict.notes.append(f"recovered in {recovered:.2f} s")
    verdict.check(recovered <= SLACK, "the server recovered slowly")


async def non_readers(target: Target, verdict: Verdict) -> None:
    """64 MiB that are not read"""

    async def abuse(path: bytes) -> None:
        assert LIMITS.send_timeout is not None
        began = trio.current_time()
        async with await target.connect() as stream:
            await stream.send_all(GET.replace(b"/ ", path + b" ", 1))
            # poll() reports the reset without a read.
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
    """Send without end; the server has to answer and end the connection."""
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
        # Empty is allowed: the flood goes on after the answer, so the server's close
        # becomes a reset, which can destroy the answer.
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
    """endless 1xx, to our client"""
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
    verdict.check(refused, "the response was not refused")
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
