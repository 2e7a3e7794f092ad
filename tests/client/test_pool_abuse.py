"""Thousands of requests through one pool, whose clients and servers give up at random.

No request ever gets the answer to another one, and no socket is left.
"""

from __future__ import annotations

import gc
import os
import random
from collections import Counter
from contextlib import suppress

import pytest
import trio

from trio_upgrade import BadBody, ConnectionPool, PeerGone

HOST = "127.0.0.1"
# nox -s pool_soak makes 10,000; with the coverage measured they take a minute.
REQUESTS = int(os.environ.get("POOL_REQUESTS", "2000"))
CLIENTS = 40
# What a server can do with a request, and how often.
DEEDS = {
    "length": 50,
    "chunked": 30,
    "close": 5,
    "large": 4,
    "end after it": 4,
    "end before it": 2,
    "cut": 2,
    "reset": 2,
    "unasked": 1,
    "half a head": 1,
}


def answer(deed: str, mark: bytes) -> bytes:
    """Return the bytes of an answer that has the mark of its request."""
    if deed == "large":
        mark += b"." * 100_000
    if deed == "chunked":
        size = b"%x\r\n" % len(mark)
        return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + (
            size + mark + b"\r\n0\r\nX-Mark: " + mark + b"\r\n\r\n"
        )
    fields = b"Connection: close\r\n" if deed == "close" else b""
    length = len(mark) + (1 if deed == "cut" else 0)
    return b"HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n%s" % (fields, length, mark)


class Abuser:
    """A server that reads requests without a body, and gives up at random."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.done: Counter[str] = Counter()

    async def serve(self, stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            await self.answer_all(stream)

    async def answer_all(self, stream: trio.SocketStream) -> None:
        wire = b""
        while True:
            while b"\r\n\r\n" not in wire:
                piece = await stream.receive_some()
                if not piece:
                    return
                wire += piece
            head, _, wire = wire.partition(b"\r\n\r\n")
            # One request at a time: there is no pipelining.
            assert wire == b""
            mark = head.split(b" ", 2)[1]
            (deed,) = self.dice.choices([*DEEDS], [*DEEDS.values()])
            self.done[deed] += 1
            if self.dice.random() < 0.1:
                await trio.sleep(self.dice.random() / 500)
            if deed == "reset":
                stream.setsockopt(
                    trio.socket.SOL_SOCKET,
                    trio.socket.SO_LINGER,
                    b"\x01" + bytes(3) + bytes(4),
                )
                return
            if deed == "end before it":
                return
            if deed == "half a head":
                await stream.send_all(answer(deed, mark)[:9])
                return
            await stream.send_all(answer(deed, mark))
            if deed in ("end after it", "cut", "close"):
                return
            if deed == "unasked":
                await stream.send_all(answer("length", b"/evil"))


class Client:
    """Makes requests one after the other, and leaves some of them."""

    def __init__(self, pool: ConnectionPool, dice: random.Random) -> None:
        self.pool = pool
        self.dice = dice
        self.outcomes: Counter[str] = Counter()

    async def run(self, url: str, marks: list[str]) -> None:
        while marks:
            mark = marks.pop()
            seconds = self.dice.random() / 200 if self.dice.random() < 0.1 else 60
            with trio.move_on_after(seconds) as scope:
                try:
                    await self.request(url, mark)
                except (PeerGone, BadBody) as exc:
                    self.outcomes[type(exc).__name__] += 1
            if scope.cancelled_caught:
                assert seconds < 60
                self.outcomes["cancelled"] += 1

    async def request(self, url: str, mark: str) -> None:
        method = self.dice.choice(["GET", "GET", "PUT", "POST"])
        async with await self.pool.request(method, url + mark) as response:
            manner = self.dice.random()
            if manner < 0.03:
                self.outcomes["left early"] += 1
                return
            if manner < 0.5:
                body = await response.read()
            else:
                body = b"".join([piece async for piece in response.stream()])
            assert body.rstrip(b".") == mark.encode()
            if "x-mark" in response.trailers:
                assert response.trailers["x-mark"] == mark
            self.outcomes["answered"] += 1


def open_sockets() -> int:
    gc.collect()
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    return found


@pytest.mark.ids("M08", "M10")
@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs /proc: Linux")
async def test_no_answer_to_another_request_and_no_socket_left() -> None:
    """Whatever both sides do, each answer is the one to its request (RFC 9112 §9.2)."""
    dice = random.Random(17)
    before = open_sockets()
    server = Abuser(dice)
    marks = [f"/{number}" for number in range(REQUESTS)]
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host=HOST, backlog=512)
        nursery.start_soon(trio.serve_listeners, server.serve, [listener])
        url = f"http://{HOST}:{listener.socket.getsockname()[1]}"
        async with ConnectionPool(connections=20, per_origin=15) as pool:
            clients = [Client(pool, dice) for _ in range(CLIENTS)]
            async with trio.open_nursery() as running:
                for client in clients:
                    running.start_soon(client.run, url, marks)
            counts = pool.statistics()
            assert counts.in_use == counts.waiting == 0
            assert counts.idle <= 15
        nursery.cancel_scope.cancel()
    outcomes = sum((client.outcomes for client in clients), Counter())

    assert outcomes.total() == REQUESTS
    assert outcomes["answered"] > 0.7 * REQUESTS
    assert outcomes["cancelled"] > 0
    assert outcomes["left early"] > 0
    assert {*server.done} == {*DEEDS}
    assert counts.total_retried > 0
    assert counts.total_connections < REQUESTS / 2
    assert open_sockets() == before
