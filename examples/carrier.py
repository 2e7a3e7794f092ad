# /// script
# requires-python = ">=3.11"
# dependencies = ["trio-upgrade[websocket]"]
# ///
"""ssh through whatever lets HTTP pass.

On a machine that reaches the ssh server:

    python examples/carrier.py serve 8080 127.0.0.1:22

and on yours (ssh writes the last line of its command itself):

    ssh -o ProxyCommand="python examples/carrier.py dial http://server:8080/ssh" user@x

The client tries ``Upgrade: ssh``, then a WebSocket, then CONNECT, each for 5 seconds or
for as many as follow the URL. PORT 0 takes any free port. Without TLS in front, only ssh
itself protects what is said.
"""

from __future__ import annotations

import os
import sys
from functools import partial

import trio

from trio_upgrade import (
    Request,
    Response,
    Server,
    Tunnel,
    Upgrade,
    relay,
    serve_tcp,
    stream_scope,
)
from trio_upgrade.carrier import accept_carrier, open_carrier


async def serve(port: str, target: str) -> None:
    host, _, target_port = target.rpartition(":")

    async def carry(_request: Request, stream: trio.abc.HalfCloseableStream) -> None:
        upstream = await trio.open_tcp_stream(host, int(target_port))
        async with stream_scope(upstream):
            await relay(stream, upstream, tls_ends=True)

    async def app(request: Request) -> Response | Tunnel | Upgrade:
        # A CONNECT has no path.
        if request.method == "CONNECT" or request.path == "/ssh":
            return accept_carrier(request, "ssh", carry)
        return Response(404)

    async with trio.open_nursery() as nursery:
        start = partial(serve_tcp, app, int(port), host="127.0.0.1")
        server: Server = await nursery.start(start)
        print(f"listening at {server.url}", flush=True)


async def dial(url: str, seconds: str = "5") -> None:
    local = trio.StapledStream(
        trio.lowlevel.FdStream(os.dup(1)), trio.lowlevel.FdStream(os.dup(0))
    )
    async with local, open_carrier(url, "ssh", attempt_timeout=float(seconds)) as far:
        await relay(local, far, tls_ends=True)


if __name__ == "__main__":
    _, command, *arguments = sys.argv
    run = partial(serve if command == "serve" else dial, *arguments)
    try:
        trio.run(run)
    except* KeyboardInterrupt:
        pass
