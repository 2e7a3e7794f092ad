# /// script
# requires-python = ">=3.11"
# dependencies = ["trio-upgrade"]
# ///
"""An echo server for upgraded connections, to try clients with.

    python examples/echo_server.py [PORT]

It accepts offers of ``echo`` and ``websocket`` and echoes; every other request is an
ordinary one and gets 200. PORT is 1337 unless given; 0 takes any free port. Ctrl-C or
SIGTERM drains the server: within a few seconds every connection has ended. A second
signal ends them at once.
"""

from __future__ import annotations

import logging
import signal
import sys
from functools import partial

import trio

from trio_upgrade import (
    Request,
    Response,
    Server,
    Upgrade,
    UpgradedStream,
    drain_on_signal,
    pipe,
    serve_tcp,
)

PROTOCOLS = ("echo", "websocket")
# Seconds that the connections have to end in a drain.
GRACE = 3


async def echo(_request: Request, stream: UpgradedStream, head: bytes) -> None:
    # The early bytes are in the stream: do not keep this copy as long as it is open.
    del head
    await pipe(stream, stream)


async def app(request: Request) -> Response | Upgrade:
    for offered in request.upgrades:
        if offered.lower() in PROTOCOLS:
            return Upgrade(offered, echo)
    return Response(200, "okay\n")


async def main(port: int) -> None:
    async with trio.open_nursery() as nursery:
        serve = partial(serve_tcp, app, port, host="127.0.0.1")
        server: Server = await nursery.start(serve)
        print(f"listening at {server.url}", flush=True)
        await drain_on_signal(server, signal.SIGTERM, signal.SIGINT, grace=GRACE)


if __name__ == "__main__":
    logging.basicConfig()
    trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 1337)
