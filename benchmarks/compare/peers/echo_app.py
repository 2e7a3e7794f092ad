"""The app of our peers: an echo after an upgrade, and an answer to other requests."""

from __future__ import annotations

from trio_upgrade import Request, Response, Upgrade, UpgradedStream, pipe


async def echo(_request: Request, stream: UpgradedStream, head: bytes) -> None:
    """Echo all bytes."""
    del head
    await pipe(stream, stream)


async def app(request: Request) -> Response | Upgrade:
    """Switch if that is offered."""
    if "echo" in request.upgrades:
        return Upgrade("echo", echo)
    return Response(200, "okay\n")
