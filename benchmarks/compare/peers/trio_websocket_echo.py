"""A WebSocket echo by trio-websocket.

python benchmarks/compare/peers/trio_websocket_echo.py PORT
"""

from __future__ import annotations

import sys
from functools import partial

import trio
from trio_websocket import ConnectionClosed, WebSocketRequest, serve_websocket


async def echo(request: WebSocketRequest) -> None:
    """Echo all messages."""
    socket = await request.accept()
    try:
        while True:
            await socket.send_message(await socket.get_message())
    except ConnectionClosed:
        pass


if __name__ == "__main__":
    serve = partial(serve_websocket, echo, "127.0.0.1", ssl_context=None)
    trio.run(serve, int(sys.argv[1]))
