"""Forwards requests and upgrades to another port, by ``trio_upgrade.proxy``.

python benchmarks/compare/peers/reverse_proxy.py PORT UPSTREAM
"""

from __future__ import annotations

import sys

import trio

from trio_upgrade import serve_tcp
from trio_upgrade.proxy import ReverseProxy


async def main(port: int, upstream: int) -> None:
    """Serve for ever."""
    async with ReverseProxy(f"http://127.0.0.1:{upstream}") as proxy:
        await serve_tcp(proxy, port, host="127.0.0.1", backlog=1024)


if __name__ == "__main__":
    _, port, upstream = sys.argv
    trio.run(main, int(port), int(upstream))
