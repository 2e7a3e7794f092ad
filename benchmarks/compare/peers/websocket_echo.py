"""A WebSocket echo by this library.

python benchmarks/compare/peers/websocket_echo.py PORT
"""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

import trio

from trio_upgrade import Request, Response, Upgrade, serve_tcp
from trio_upgrade.websocket import accept_websocket

if TYPE_CHECKING:
    from websockets.trio.server import ServerConnection


async def echo(websocket: ServerConnection) -> None:
    """Echo all messages."""
    async for message in websocket:
        await websocket.send(message)


async def app(request: Request) -> Response | Upgrade:
    """Switch if that is offered."""
    return accept_websocket(request, echo, compression=None)


if __name__ == "__main__":
    serve = partial(serve_tcp, app, host="127.0.0.1", backlog=1024)
    trio.run(serve, int(sys.argv[1]))
