# /// script
# requires-python = ">=3.11"
# dependencies = ["trio-upgrade[websocket]"]
# ///
"""Send each line of standard input to a WebSocket, and print the messages that come.

    python examples/websocket_client.py URL [SUBPROTOCOL ...]

URL is ``ws://`` or ``wss://``, or ``ws+unix://`` with the path of a Unix socket as its
host. The end of the input closes the WebSocket when the server has answered a ping, so
that answers to the last lines are printed. Binary messages are shown as Python writes
them.

    python examples/websocket_client.py URL --reconnect

connects again, after a short and random delay, whenever the server is gone. Lines that
are written meanwhile are sent to the next connection.
"""

from __future__ import annotations

import logging
import math
import sys
from typing import TYPE_CHECKING

import trio
from websockets.exceptions import ConnectionClosed

from trio_upgrade import OpenError
from trio_upgrade.websocket import open_websocket, reconnecting_websocket

if TYPE_CHECKING:
    from websockets.trio.client import ClientConnection

OPEN_SECONDS = 10
PONG_SECONDS = 5


async def read_lines(lines: trio.MemorySendChannel[str]) -> None:
    # If the server closes first, the thread is abandoned: a read of a keyboard cannot be
    # cancelled.
    async with lines:
        while line := await trio.to_thread.run_sync(
            sys.stdin.readline, abandon_on_cancel=True
        ):
            await lines.send(line.removesuffix("\n"))


async def print_messages(websocket: ClientConnection) -> None:
    async for message in websocket:
        print(message if isinstance(message, str) else repr(message), flush=True)


async def send_lines(
    websocket: ClientConnection, lines: trio.MemoryReceiveChannel[str]
) -> None:
    async for line in lines:
        await websocket.send(line)
    with trio.move_on_after(PONG_SECONDS):
        await (await websocket.ping()).wait()
    await websocket.aclose()


async def talk(
    websocket: ClientConnection, lines: trio.MemoryReceiveChannel[str]
) -> None:
    """Send and print until the input or the connection ends."""
    print(f"open, subprotocol {websocket.subprotocol}", file=sys.stderr)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_lines, websocket, lines)
            await print_messages(websocket)
            nursery.cancel_scope.cancel()
    except* ConnectionClosed:
        pass
    print(f"closed: {websocket.close_code} {websocket.close_reason}", file=sys.stderr)


async def main(url: str, subprotocols: list[str], *, reconnect: bool) -> None:
    wanted = subprotocols or None
    sender, lines = trio.open_memory_channel[str](0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_lines, sender)
        if reconnect:
            async with reconnecting_websocket(url, subprotocols=wanted) as connections:
                async for websocket in connections:
                    await talk(websocket, lines)
                    if websocket.close_code == 1000:
                        break
        else:
            # The seconds are for the opening, not for the session.
            with trio.fail_after(OPEN_SECONDS) as opening:
                async with open_websocket(url, subprotocols=wanted) as websocket:
                    opening.deadline = math.inf
                    await talk(websocket, lines)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    words = [word for word in sys.argv[1:] if word != "--reconnect"]
    try:
        trio.run(lambda: main(words[0], words[1:], reconnect="--reconnect" in sys.argv))
    except* (OSError, OpenError, trio.TooSlowError) as group:
        sys.exit(f"cannot open {words[0]}: {group.exceptions[0]}")
    except* KeyboardInterrupt:
        pass
