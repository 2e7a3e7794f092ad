"""The server whose room is measured; raw streams and WebSockets are in one room.

python benchmarks/room/server.py PORT
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import trio

from trio_upgrade import (
    Request,
    Response,
    Room,
    Upgrade,
    UpgradedStream,
    open_room,
    serve_tcp,
)

if TYPE_CHECKING:
    from websockets.trio.server import ServerConnection

    from trio_upgrade import App

# Enough that the kernel does not take all of it from a peer that does not read.
CLOG = b"c" * 16_000_000


async def main(port: int) -> None:
    """Serve until killed."""
    async with open_room() as room:
        await serve_tcp(make_app(room), port, host="127.0.0.1", backlog=4096)


def make_app(room: Room) -> App:
    """Return the app: members at ``/``, and at ``/slow`` those that never read."""

    async def member(_request: Request, stream: UpgradedStream, head: bytes) -> None:
        del head
        async with room.join(stream):
            async for _ in stream:
                pass

    async def slow(_request: Request, stream: UpgradedStream, head: bytes) -> None:
        del head
        # The reader wants the 101 alone.
        await stream.receive_some()
        async with room.join(stream) as slow_member:
            slow_member.send_nowait(CLOG)
            async for _ in stream:
                pass

    async def author(_request: Request, stream: UpgradedStream, head: bytes) -> None:
        del head
        async for chunk in stream:
            room.send_nowait(bytes(chunk))

    async def websocket_member(websocket: ServerConnection) -> None:
        async with room.join(websocket):
            async for _ in websocket:
                pass

    async def app(request: Request) -> Response | Upgrade:
        if "echo" in request.upgrades:
            handlers = {"/slow": slow, "/author": author}
            return Upgrade("echo", handlers.get(request.path, member))
        if "websocket" in request.upgrades:
            from trio_upgrade.websocket import accept_websocket

            return accept_websocket(request, websocket_member)
        return Response(200, str(len(room)))

    return app


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]))
