"""What a hostile client can cost: memory, measured as the kernel counts it."""

from __future__ import annotations

import os
import sys
import zlib
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio
import trio.testing
from websockets.frames import Opcode

from ..wire import get
from .wires import FIELDS, HOST, OFFER, close, echo, masked, serve, wait

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="needs Linux's /proc to measure"
)

MIB = 2**20
DEFLATE = get("/", *FIELDS, "Sec-WebSocket-Extensions: permessage-deflate")


def read_status(name: str) -> int:
    """Return a number of /proc/self/status in bytes."""
    status = Path("/proc/self/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith(f"{name}:")]
    return int(line.split()[1]) * 1024


def reset_peak() -> int:
    """Let the kernel forget the highest resident size; return the present one."""
    Path("/proc/self/clear_refs").write_text("5")
    return read_status("VmRSS")


def make_bomb(size: int) -> bytes:
    """Return a compressed message of zeros (RFC 7692 §7.2.1)."""
    compressor = zlib.compressobj(9, wbits=-15)
    parts = [compressor.compress(bytes(MIB)) for _ in range(size // MIB)]
    return b"".join([*parts, compressor.flush(zlib.Z_SYNC_FLUSH)]).removesuffix(
        b"\0\0\xff\xff"
    )


async def test_bomb(nursery) -> None:
    """200 MB in 194 KB of deflate: 1009 (RFC 6455 §7.4.1), and hardly any memory."""
    bomb = masked(make_bomb(200 * MIB), Opcode.BINARY)
    # The bit that says that the message is compressed.
    bomb = bytes([bomb[0] | 0x40]) + bomb[1:]
    assert len(bomb) < 210_000

    _, url = await serve(nursery, echo)
    port = int(url.rpartition(":")[2])
    async with await trio.open_tcp_stream(HOST, port) as stream:
        await stream.send_all(DEFLATE)
        received = b""
        while b"\r\n\r\n" not in received:
            received += await stream.receive_some()
        assert b"permessage-deflate" in received
        before = reset_peak()
        await stream.send_all(bomb)
        answer = await stream.receive_some()
        grown = read_status("VmHWM") - before

    assert answer[2:].startswith(close(1009))
    assert grown < 8 * MIB, grown


async def test_clients_that_never_read(nursery) -> None:
    """200 of them cost less than 2.5 MiB each, whatever the handler sends."""
    message = os.urandom(MIB)

    async def flood(websocket) -> None:
        while True:
            await websocket.send(message)

    _, url = await serve(nursery, flood, ping_interval=None)
    port = int(url.rpartition(":")[2])
    before = reset_peak()
    async with AsyncExitStack() as stack:
        for number in range(200):
            stream = await trio.open_tcp_stream(HOST, port)
            await stack.enter_async_context(stream)
            await stream.send_all(OFFER if number % 10 else DEFLATE)
        await trio.testing.wait_all_tasks_blocked(0.1)
        grown = read_status("VmHWM") - before

    assert grown / 200 < 2.5 * MIB, grown / 200
    nursery.cancel_scope.cancel()


async def test_messages_that_nobody_receives(nursery) -> None:
    """A client that sends and sends is held back when the queue is full."""
    _, url = await serve(nursery, wait)
    port = int(url.rpartition(":")[2])
    frame = masked(bytes(60_000))
    before = reset_peak()
    async with await trio.open_tcp_stream(HOST, port) as stream:
        await stream.send_all(OFFER)

        async def send() -> None:
            for _ in range(2000):
                await stream.send_all(frame)
            raise AssertionError("it was not held back")

        async with trio.open_nursery() as sending:
            sending.start_soon(send)
            await trio.testing.wait_all_tasks_blocked(0.1)
            grown = read_status("VmHWM") - before
            sending.cancel_scope.cancel()

    assert grown < 8 * MIB, grown
    nursery.cancel_scope.cancel()
