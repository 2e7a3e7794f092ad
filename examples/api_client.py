# /// script
# requires-python = ">=3.11"
# dependencies = ["trio-upgrade"]
# ///
"""Ask an API for many things at once, over a few connections that are kept alive.

    python examples/api_client.py [URL]

URL has the names of things, and URL/NAME the price of one, as JSON. Without a URL the
program serves such an API itself.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import Any

import trio

from trio_upgrade import ConnectionPool, Request, Response, TrioUpgradeError, serve_tcp

FAILURES = (LookupError, OSError, TrioUpgradeError, trio.TooSlowError)
PRICES = {"apple": 3, "bread": 5, "cheese": 8, "dates": 6, "eggs": 4}


async def api(request: Request) -> Response:
    name = request.path.removeprefix("/items").removeprefix("/")
    if name and name not in PRICES:
        return Response(404, "no such item\n")
    found: Any = {"price": PRICES[name]} if name else {"names": [*PRICES]}
    return Response(200, json.dumps(found), {"Content-Type": "application/json"})


async def get(pool: ConnectionPool, url: str) -> dict[str, Any]:
    """Return the JSON object at a URL; the wait for a connection is bounded, too."""
    with trio.fail_after(10):
        async with await pool.request("GET", url) as response:
            body = await response.read()
    if response.status != 200:
        raise LookupError(f"{url}: {response.status} {response.reason}")
    return dict(json.loads(body))


async def show(pool: ConnectionPool, url: str, name: str) -> None:
    try:
        item = await get(pool, f"{url}/{name}")
        print(f"{name} costs {item['price']}")
    except FAILURES as exc:
        print(f"{name}: {exc}")


async def visit(url: str) -> None:
    async with ConnectionPool(per_origin=2) as pool:
        try:
            items = await get(pool, url)
        except FAILURES as exc:
            sys.exit(str(exc))
        async with trio.open_nursery() as nursery:
            for name in [*items["names"], "figs"]:
                nursery.start_soon(show, pool, url, name)
        _, _, _, connections, requests, _ = pool.statistics()
        print(f"{requests} requests on {connections} connections")


async def main() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve_tcp, api, 0, host="127.0.0.1"))
        await visit(server.url + "/items")
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(visit, sys.argv[1]) if sys.argv[1:] else trio.run(main)
