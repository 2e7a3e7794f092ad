"""Opens tunnels to this machine, by ``trio_upgrade.proxy``.

python benchmarks/compare/peers/forward_proxy.py PORT
"""

from __future__ import annotations

import sys

import trio

from trio_upgrade import serve_tcp
from trio_upgrade.proxy import ForwardProxy


async def main(port: int) -> None:
    """Serve for ever."""
    every = range(1, 65536)
    async with ForwardProxy(ports=every, networks=["127.0.0.0/8"]) as proxy:
        await serve_tcp(proxy, port, host="127.0.0.1", backlog=1024)


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]))
