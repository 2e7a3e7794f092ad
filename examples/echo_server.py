# /// script
# requires-python = ">=3.11"
# dependencies = ["trio-upgrade"]
# ///
"""An echo server for upgraded connections, to try clients on.

    python examples/echo_server.py [PORT]

Offers of ``echo`` and ``websocket`` are switched and echoed; everything else is an
ordinary request and gets 200. PORT is 1337 unless given, 0 takes any free one. Ends
with Ctrl-C.
"""

from __future__ import annotations

import logging
import sys
from functools import partial

import trio

from trio_upgrade import (
    Request,
    Response,
    Server,
    Upgrade,
    UpgradedStream,
    pipe,
    serve_tcp,
)

PROTOCOLS = ("echo", "websocket")


async def echo(_request: Request, stream: UpgradedStream, _head: bytes) -> None:
    await pipe(stream, stream)


async def app(request: Request) -> Response | Upgrade:
    for offered in request.upgrades:
        if offered.lower() in PROTOCOLS:
            return Upgrade(offered, echo)
    return Response(200, "okay\n", {"Content-Type": "text/plain"})


async def main(port: int) -> None:
    async with trio.open_nursery() as nursery:
        serve = partial(serve_tcp, app, port, host="127.0.0.1")
        server: Server = await nursery.start(serve)
        print(f"listening at {server.url}", flush=True)


if __name__ == "__main__":
    logging.basicConfig()
    try:
        trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 1337)
    except* KeyboardInterrupt:
        pass
