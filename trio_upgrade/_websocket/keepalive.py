# The only task of ours beside a WebSocket: it sends pings, and on a server it waits for
# the drain, too.  One task for both, as each task is a twentieth of the time that a whole
# connection takes.
#
# The keepalive of websockets is not used: there a ping waits for its turn to send without
# a limit, so that a peer which reads nothing while the handler sends is never noticed.
from __future__ import annotations

import math
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

import trio
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.protocol import State

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from websockets.trio.connection import Connection

    from .arguments import Timing


def start_keepalive(
    websocket: Connection,
    timing: Timing,
    wait_end: Callable[[], Awaitable[object]] | None = None,
    end_code: int = CloseCode.GOING_AWAY,
) -> None:
    """Start the task of a WebSocket, unless it would have nothing to do.

    Args:
        websocket: The WebSocket; the task runs in its nursery.
        timing: How often it pings, and how long it waits for each pong.
        wait_end: Returns when the WebSocket is to be closed; None if nothing but the
            peer's silence is to close it.
        end_code: The code in the first case.
    """
    if timing["ping_interval"] is not None or wait_end is not None:
        wait = wait_end or trio.sleep_forever
        websocket.nursery.start_soon(_keep_alive, websocket, timing, wait, end_code)


async def _keep_alive(
    websocket: Connection,
    timing: Timing,
    wait_end: Callable[[], Awaitable[object]],
    end_code: int,
) -> None:
    interval = _seconds(timing["ping_interval"])
    timeout = _seconds(timing["ping_timeout"])
    # The pings without a pong so far: what a pong for one of them or for a later one
    # sets, and when it is due.
    pongs: deque[tuple[trio.Event, float]] = deque()
    ping_at = trio.current_time() + interval
    while True:
        with trio.move_on_at(min(ping_at, pongs[0][1] if pongs else ping_at)) as scope:
            await wait_end()
        if not scope.cancelled_caught:
            await websocket.aclose(end_code)
            return
        if websocket.state is not State.OPEN:
            return
        now = trio.current_time()
        while pongs and pongs[0][0].is_set():
            pongs.popleft()
        if pongs and now >= pongs[0][1]:
            await websocket.aclose(CloseCode.INTERNAL_ERROR, "keepalive ping timeout")
            return
        if now < ping_at:
            continue
        ping_at = now + interval
        with trio.move_on_at(now + timeout) as scope, suppress(ConnectionClosed):
            pong = await websocket.ping()
            if timeout < math.inf:
                pongs.append((pong, now + timeout))
        if scope.cancelled_caught:
            # The peer reads nothing, so that not even a Close can be sent.
            await trio.aclose_forcefully(websocket.stream)
            return


def _seconds(seconds: float | None) -> float:
    return math.inf if seconds is None else seconds
