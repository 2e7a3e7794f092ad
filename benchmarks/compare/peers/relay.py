"""Copy both ways between its clients and another port, by ``trio_upgrade.relay``.

python benchmarks/compare/peers/relay.py PORT UPSTREAM
"""

from __future__ import annotations

import sys
from functools import partial

import trio

from trio_upgrade import relay


async def handle(upstream: int, left: trio.SocketStream) -> None:
    """Relay one connection."""
    async with left, await trio.open_tcp_stream("127.0.0.1", upstream) as right:
        await relay(left, right, idle_timeout=60)


if __name__ == "__main__":
    port, upstream = map(int, sys.argv[1:])
    serve = partial(trio.serve_tcp, partial(handle, upstream), port, host="127.0.0.1")
    trio.run(serve)
