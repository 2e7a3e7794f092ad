"""A WebSocket echo and an ordinary response by websockets.

python benchmarks/compare/peers/websockets_echo.py PORT
"""

from __future__ import annotations

import asyncio
import sys
from http import HTTPStatus
from typing import TYPE_CHECKING

from websockets.asyncio.server import ServerConnection, serve

if TYPE_CHECKING:
    from websockets.http11 import Request, Response


async def echo(socket: ServerConnection) -> None:
    """Echo all messages."""
    async for message in socket:
        await socket.send(message)


def page(socket: ServerConnection, request: Request) -> Response | None:
    """Respond to requests that do not offer an upgrade."""
    if "Upgrade" in request.headers:
        return None
    return socket.respond(HTTPStatus.OK, "okay\n")


async def main(port: int) -> None:
    """Serve for ever."""
    async with serve(
        echo, "127.0.0.1", port, compression=None, process_request=page, backlog=1024
    ) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
