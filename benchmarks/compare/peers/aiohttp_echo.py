"""A WebSocket echo and an ordinary response by aiohttp.

python benchmarks/compare/peers/aiohttp_echo.py PORT
"""

from __future__ import annotations

import sys

from aiohttp import WSMsgType, web


async def answer(request: web.Request) -> web.StreamResponse:
    """Echo if the request offers an upgrade, else respond."""
    if "Upgrade" not in request.headers:
        return web.Response(text="okay\n")
    socket = web.WebSocketResponse(compress=False)
    await socket.prepare(request)
    async for message in socket:
        if message.type is WSMsgType.BINARY:
            await socket.send_bytes(message.data)
    return socket


if __name__ == "__main__":
    app = web.Application()
    app.router.add_get("/", answer)
    web.run_app(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        access_log=None,
        print=None,
        backlog=1024,
    )
