# A server of WebSockets that drains at SIGTERM; prints its port.
from __future__ import annotations

import signal
import sys
from functools import partial

import trio

from trio_upgrade import drain_on_signal, serve_tcp
from trio_upgrade.websocket import accept_websocket


async def app(request):
    return accept_websocket(request, receive, subprotocols=["a"])


async def receive(websocket) -> None:
    async for _ in websocket:
        pass


async def main() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve_tcp, app, 0, host="127.0.0.1"))
        sys.stdout.write(server.url.rpartition(":")[2] + "\n")
        sys.stdout.flush()
        await drain_on_signal(server, signal.SIGTERM, grace=10)


trio.run(main)
