# /// script
# requires-python = ">=3.11"
# dependencies = ["trio-upgrade[websocket]"]
# ///
"""Send each line of standard input to a WebSocket, and print the messages that come.

    python examples/websocket_client.py URL [SUBPROTOCOL ...]

URL is ``ws://`` or ``wss://``, or ``ws+unix://`` with the path of a Unix socket as its
host. At the end of the input the last answers are waited for, as a WebSocket has no
half-close: the client closes it when the server has answered a ping, and no message has
come for a second after that, or when five seconds are over. Binary messages are shown as
Python writes them.

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
# After the last line: the most, and the silence that is taken for the end of the answers.
LAST_SECONDS = 5
QUIET_SECONDS = 1


async def read_lines(lines: trio.MemorySendChannel[str]) -> None:
    # If the server closes first, the thread is abandoned: a read of a keyboard cannot be
    # cancelled.
    async with lines:
        while line := await trio.to_thread.run_sync(
            sys.stdin.readline, abandon_on_cancel=True
        ):
            await lines.send(line.removesuffix("\n"))


class Talk:
    """Lines to messages, and messages to lines, over one connection."""

    def __init__(self, websocket: ClientConnection) -> None:
        self.websocket = websocket
        self.last_message = -math.inf

    async def print_messages(self) -> None:
        """Print what comes, until the connection ends."""
        async for message in self.websocket:
            self.last_message = trio.current_time()
            print(message if isinstance(message, str) else repr(message), flush=True)

    async def send_lines(self, lines: trio.MemoryReceiveChannel[str]) -> None:
        """Send the lines, wait for the last answers, and close."""
        async for line in lines:
            await self.websocket.send(line)
        with trio.move_on_after(LAST_SECONDS):
            await (await self.websocket.ping()).wait()
            # Servers answer a ping as soon as they read it, so the pong may overtake the
            # answer of a program that still works on the last line.
            await self.wait_quiet()
        await self.websocket.aclose()

    async def wait_quiet(self) -> None:
        """Wait until no message has come for a while."""
        due = trio.current_time() + QUIET_SECONDS
        while trio.current_time() < due:
            # No event: each message only moves the time.
            await trio.sleep_until(due)
            due = max(due, self.last_message + QUIET_SECONDS)


async def talk(
    websocket: ClientConnection, lines: trio.MemoryReceiveChannel[str]
) -> None:
    """Send and print until the input or the connection ends."""
    print(f"open, subprotocol {websocket.subprotocol}", file=sys.stderr)
    both = Talk(websocket)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(both.send_lines, lines)
            await both.print_messages()
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
