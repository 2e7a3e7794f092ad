# /// script
# requires-python = ">=3.11"
# dependencies = ["trio-upgrade"]
# ///
"""A reverse proxy in front of one server, with a health check of its own.

    python examples/reverse_proxy.py UPSTREAM [PORT]
    python examples/reverse_proxy.py http://127.0.0.1:1337 8080

UPSTREAM is the URL of a server, http, https or http+unix. PORT is 8080 unless given; 0
takes any free port. Requests and WebSockets go on to UPSTREAM; of each tunnel that ends a
line says how many bytes went through. Ctrl-C ends it.
"""

from __future__ import annotations

import logging
import sys
from functools import partial

import trio

from trio_upgrade import Request, Response, Server, serve_tcp
from trio_upgrade.proxy import ReverseProxy, TunnelRecord


def report(tunnel: TunnelRecord) -> None:
    print(
        f"{tunnel.request.path}: {tunnel.from_client} bytes up, "
        f"{tunnel.from_upstream} down, {tunnel.seconds:.1f} s, "
        f"{tunnel.cause} by {tunnel.ended_by or 'the proxy'}",
        flush=True,
    )


async def main(upstream: str, port: int) -> None:
    async with ReverseProxy(upstream, on_tunnel=report) as proxy:

        async def app(request: Request) -> Response | None:
            if request.path == "/healthy":
                return Response(200, f"{proxy.statistics().tunnels} tunnels\n")
            return await proxy(request)

        async with trio.open_nursery() as nursery:
            serve = partial(serve_tcp, app, port, host="127.0.0.1")
            server: Server = await nursery.start(serve)
            print(f"listening at {server.url}", flush=True)


if __name__ == "__main__":
    logging.basicConfig()
    try:
        trio.run(main, sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 8080)
    except* KeyboardInterrupt:
        pass
