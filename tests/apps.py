# Apps and upgrade handlers that many tests serve.
from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from trio_upgrade import Response, Upgrade, pipe

if TYPE_CHECKING:
    from trio_upgrade import Request, UpgradedStream


async def echo(request: Request, stream: UpgradedStream, head: bytes) -> None:
    """Send back all that comes, until the peer ends its direction."""
    await pipe(stream, stream)


async def echo_app(request: Request) -> Response | Upgrade:
    """Switch every offer of "echo", answer every other request with its path."""
    if "echo" in request.upgrades:
        return Upgrade("echo", echo)
    return Response(200, request.path.encode())


async def polite(request: Request, stream: UpgradedStream, _head: bytes) -> None:
    """Send a goodbye when the server drains, and end."""
    await request.server.wait_draining()
    await stream.send_all(b"goodbye")


async def stubborn(_request: Request, stream: UpgradedStream, _head: bytes) -> None:
    """Echo without regard to a drain."""
    async for chunk in stream:
        await stream.send_all(chunk)


async def drainable_app(request: Request):
    """Serve both handlers, a response that takes five seconds, and the path."""
    match request.path:
        case "/polite":
            return Upgrade("echo", polite)
        case "/u":
            return Upgrade("echo", stubborn)
        case "/wait":
            await trio.sleep(5)
    return Response(200, request.path.encode())
