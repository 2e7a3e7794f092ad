"""The server that the suite tests: a WebSocket echo.

python benchmarks/autobahn/echo_server.py PORT
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import trio

from trio_upgrade import Request, Response, Upgrade, serve_tcp
from trio_upgrade.websocket import accept_websocket

if TYPE_CHECKING:
    from websockets.trio.server import ServerConnection

# The suite sends messages of 16 MiB.
MOST = 2**25


async def echo(websocket: ServerConnection) -> None:
    """Echo all messages, each as text or binary as it came."""
    async for message in websocket:
        await websocket.send(message)


async def app(request: Request) -> Response | Upgrade:
    """Switch every request that offers a WebSocket."""
    return accept_websocket(request, echo, max_size=MOST, ping_interval=None)


if __name__ == "__main__":
    trio.run(serve_tcp, app, int(sys.argv[1]))
