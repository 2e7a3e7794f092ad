"""An ASGI application, a WebSocket echo and an ordinary response, on one of the servers.

    python benchmarks/compare/peers/asgi_echo.py PORT SERVER [WEBSOCKETS]

SERVER is trio_upgrade, hypercorn (on Trio) or uvicorn (on asyncio's own loop, with
WEBSOCKETS, the library for them). All of them parse HTTP by h11.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any, Literal

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

FIELDS = [(b"content-type", b"text/plain"), (b"content-length", b"5")]
HOST, BACKLOG = "127.0.0.1", 1024


async def app(
    scope: Mapping[str, Any],
    receive: Callable[[], Awaitable[Any]],
    send: Callable[[Any], Awaitable[None]],
) -> None:
    """Echo on a WebSocket, respond to a request."""
    if scope["type"] == "lifespan":
        raise NotImplementedError  # hypercorn fails if it returns
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


async def serve_ours(port: int) -> None:
    """Serve by this library."""
    from trio_upgrade import serve_tcp
    from trio_upgrade.asgi import open_asgi

    async with open_asgi(app, websocket={"compression": None}) as adapter:
        await serve_tcp(adapter, port, host=HOST, backlog=BACKLOG)


async def serve_hypercorn(port: int) -> None:
    """Serve by hypercorn, in this process."""
    from hypercorn.config import Config
    from hypercorn.trio import serve

    config = Config()
    config.bind = [f"{HOST}:{port}"]
    config.backlog = BACKLOG
    config.keep_alive_max_requests = sys.maxsize
    asgi: Any = app
    await serve(asgi, config, shutdown_trigger=trio.sleep_forever)


def serve_uvicorn(port: int, websockets: Literal["websockets", "wsproto"]) -> None:
    """Serve by uvicorn, in this process."""
    import uvicorn

    asgi: Any = app
    uvicorn.run(
        asgi,
        host=HOST,
        port=port,
        loop="asyncio",
        http="h11",
        ws=websockets,
        ws_per_message_deflate=False,
        lifespan="off",
        log_level="critical",
        access_log=False,
        backlog=BACKLOG,
    )


if __name__ == "__main__":
    # The load generator ends connections without a close frame, which some of them log.
    logging.disable()
    _, port, server, *websockets = sys.argv
    if server == "uvicorn":
        serve_uvicorn(int(port), "wsproto" if "wsproto" in websockets else "websockets")
    else:
        trio.run(serve_ours if server == "trio_upgrade" else serve_hypercorn, int(port))
