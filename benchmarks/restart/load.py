"""A load of new connections, each of them one GET, and what became of them.

Half of the clients send their request at once, the others a moment after the connection
was made: it may be the moment at which the server drains.
"""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

HOST = "127.0.0.1"
GET = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
# Seconds from one connection to the next, if the machine is fast enough.
EVERY = 0.001
# Seconds that every second client waits with its request.
PAUSE = 0.02
# So many connections may be open at a time.
MOST = 400
# Seconds that an answer may take.
ANSWER_SECONDS = 10.0


@dataclass
class Tally:
    """What became of the connections.

    Attributes:
        connections: How many were begun.
        answered: How many got a whole 200.
        lost: How the others failed, each with its number.
    """

    connections: int = 0
    answered: int = 0
    lost: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        lost = ", ".join(f"{number} {how}" for how, number in self.lost.items())
        return f"{self.connections} connections, {lost or 'none'} lost"


async def connect(port: int) -> trio.SocketStream:
    """Open a connection."""
    sock = trio.socket.socket()
    try:
        await sock.connect((HOST, port))
    except BaseException:
        sock.close()
        raise
    return trio.SocketStream(sock)


async def get(port: int, tally: Tally) -> None:
    """Make one GET on a new connection."""
    tally.connections += 1
    pause = PAUSE if tally.connections % 2 else 0
    how = "refused"
    try:
        with trio.fail_after(ANSWER_SECONDS):
            async with await connect(port) as stream:
                how = "reset"
                await trio.sleep(pause)
                await stream.send_all(GET)
                answer = b"".join([bytes(chunk) async for chunk in stream])
    except trio.TooSlowError:
        tally.lost["silent"] += 1
    except (OSError, trio.BrokenResourceError):
        tally.lost[how] += 1
    else:
        if answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"\n"):
            tally.answered += 1
        else:
            tally.lost[answer[9:12].decode() or "ended without an answer"] += 1


@asynccontextmanager
async def loading(
    port: int,
    every: float = EVERY,
    ask: Callable[[int, Tally], Awaitable[None]] = get,
) -> AsyncIterator[Tally]:
    """Open connections to a port as long as the block runs; then wait for the answers.

    Args:
        port: The port.
        every: Seconds from one connection to the next.
        ask: Opens one, and counts what became of it.
    """
    tally = Tally()
    free = trio.Semaphore(MOST)

    async def get_one() -> None:
        try:
            await ask(port, tally)
        finally:
            free.release()

    async def get_all() -> None:
        when = trio.current_time()
        with scope:
            while True:
                await free.acquire()
                nursery.start_soon(get_one)
                when += every
                await trio.sleep_until(when)

    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()
        nursery.start_soon(get_all)
        try:
            yield tally
        finally:
            scope.cancel()
