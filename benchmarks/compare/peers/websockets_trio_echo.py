"""A WebSocket echo by the server for Trio of websockets.

python benchmarks/compare/peers/websockets_trio_echo.py PORT
"""

from __future__ import annotations

import logging
import sys
from functools import partial

import trio
from websockets.trio.server import ServerConnection, serve


async def echo(socket: ServerConnection) -> None:
    """Echo all messages."""
    async for message in socket:
        await socket.send(message)


if __name__ == "__main__":
    # The load generator ends connections without a close frame, which this server logs.
    logging.disable()
    run = partial(serve, echo, host="127.0.0.1", backlog=1024, compression=None)
    trio.run(run, int(sys.argv[1]))
