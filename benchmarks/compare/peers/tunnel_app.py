"""Opens tunnels, by an app that only relays: no address is checked, nothing is counted.

python benchmarks/compare/peers/tunnel_app.py PORT
"""

from __future__ import annotations

import sys
from functools import partial

import trio

from trio_upgrade import (
    Request,
    Response,
    Tunnel,
    UpgradedStream,
    relay,
    serve_tcp,
    stream_scope,
)


async def app(request: Request) -> Response | Tunnel:
    """Connect first, then open the tunnel."""
    if request.method != "CONNECT":
        return Response(404)
    host, port = request.authority
    assert port is not None
    upstream = await trio.open_tcp_stream(host, port)

    async def copy(_request: Request, stream: UpgradedStream, head: bytes) -> None:
        del head
        async with stream_scope(upstream):
            await relay(stream, upstream)

    return Tunnel(copy)


if __name__ == "__main__":
    serve = partial(serve_tcp, app, host="127.0.0.1", backlog=1024)
    trio.run(serve, int(sys.argv[1]))
