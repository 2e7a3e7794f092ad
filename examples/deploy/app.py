# /// script
# requires-python = ">=3.11"
# dependencies = ["trio-upgrade[websocket]"]
# ///
"""A server to deploy: the configuration files beside this one run it, or stand before it.

    python examples/deploy/app.py [--host HOST] [--port PORT] [--delay S] [--grace S]

It serves on the sockets that systemd passes on, otherwise on HOST and PORT (127.0.0.1 and
8001). ``GET /health`` is answered with 200, and with 503 as soon as SIGTERM or SIGINT has
come. DELAY seconds later the server drains, and open connections have GRACE seconds to
end. A second signal ends both times.

An offer of ``echo`` is accepted and echoed. ``/count`` takes bytes up to the end of the
client's direction, then says how many came; ``/count/websocket`` does the same, but takes
only WebSockets, in which an end is a message. Any other request gets the process id.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
from functools import partial

import trio

from trio_upgrade import (
    Request,
    Response,
    Server,
    Tunnel,
    Upgrade,
    UpgradedStream,
    drain_on_signal,
    inherit_listeners,
    pipe,
    serve_listeners,
    serve_tcp,
)
from trio_upgrade.carrier import accept_carrier


async def echo(_request: Request, stream: UpgradedStream, head: bytes) -> None:
    # The early bytes are in the stream: do not keep this copy as long as it is open.
    del head
    await pipe(stream, stream)


async def count(_request: Request, stream: trio.abc.HalfCloseableStream) -> None:
    number = 0
    async for chunk in stream:
        number += len(chunk)
    await stream.send_all(b"%d bytes\n" % number)


async def app(request: Request) -> Response | Upgrade | Tunnel:
    if request.path == "/health":
        return Response(503 if request.server.is_leaving else 200)
    if request.path == "/count":
        return accept_carrier(request, "count", count)
    if request.path == "/count/websocket":
        if "websocket" in request.upgrades:
            return accept_carrier(request, "count", count)
        return Response(426, "only by WebSocket\n", {"Upgrade": "websocket"})
    if "echo" in request.upgrades:
        return Upgrade("echo", echo)
    return Response(200, f"{os.getpid()}\n")


async def main(host: str, port: int, delay: float, grace: float) -> None:
    async with trio.open_nursery() as nursery:
        # Before any other descriptor is opened by this program.
        if listeners := inherit_listeners():
            serve = partial(serve_listeners, app, listeners)
        else:
            serve = partial(serve_tcp, app, port, host=host)
        server: Server = await nursery.start(serve)
        print(f"listening at {server.url}", flush=True)
        signals = signal.SIGTERM, signal.SIGINT
        await drain_on_signal(server, *signals, delay=delay, grace=grace)


if __name__ == "__main__":
    logging.basicConfig()
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--delay", type=float, default=0)
    parser.add_argument("--grace", type=float, default=10)
    trio.run(partial(main, **vars(parser.parse_args())))
