"""A WebSocket echo and an ordinary response by uvicorn, with h11 and asyncio's own loop.

python benchmarks/compare/peers/uvicorn_echo.py PORT
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import uvicorn

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

FIELDS = [(b"content-type", b"text/plain"), (b"content-length", b"5")]


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Echo on a WebSocket, respond to a request."""
    if scope["type"] == "http":
        start = {"type": "http.response.start", "status": 200, "headers": FIELDS}
        await send(start)
        await send({"type": "http.response.body", "body": b"okay\n"})
        return
    while (event := await receive())["type"] != "websocket.disconnect":
        if event["type"] == "websocket.connect":
            await send({"type": "websocket.accept"})
        else:
            await send({"type": "websocket.send", "bytes": event["bytes"]})


if __name__ == "__main__":
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="asyncio",
        http="h11",
        ws="websockets",
        ws_per_message_deflate=False,
        lifespan="off",
        log_level="critical",
        access_log=False,
        backlog=1024,
    )
