"""The reverse proxy through which the suite tests each side, with ``--proxy``.

python benchmarks/autobahn/proxy.py UPSTREAM PORT
"""

from __future__ import annotations

import sys

import trio

from trio_upgrade import Request, serve_tcp
from trio_upgrade.proxy import OutgoingRequest, ReverseProxy


async def main(upstream: str, port: int) -> None:
    """Serve, and forward to the server at an authority."""

    def rewrite(_request: Request, outgoing: OutgoingRequest) -> OutgoingRequest:
        # wstest refuses a Host with another port than its own.
        return outgoing._replace(headers=outgoing.headers.replaced("Host", upstream))

    async with ReverseProxy(f"http://{upstream}", rewrite=rewrite) as proxy:
        await serve_tcp(proxy, port)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]))
