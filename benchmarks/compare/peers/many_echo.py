"""An echo server for very many connections, whose garbage collection can be measured.

    python benchmarks/compare/peers/many_echo.py PORT

GET /collect makes a full collection and answers with its milliseconds; GET /freeze
calls gc.freeze() first.
"""

from __future__ import annotations

import gc
import sys
import time
from functools import partial

import trio

from benchmarks.compare.peers.echo_app import echo
from trio_upgrade import Limits, Request, Response, Upgrade, serve_tcp


async def app(request: Request) -> Response | Upgrade:
    """Switch if that is offered; otherwise collect the garbage."""
    if "echo" in request.upgrades:
        return Upgrade("echo", echo)
    if request.path == "/freeze":
        gc.freeze()
    began = time.perf_counter()
    gc.collect()
    return Response(200, f"{(time.perf_counter() - began) * 1000}")


if __name__ == "__main__":
    limits = Limits(connections=None)
    serve = partial(serve_tcp, app, host="127.0.0.1", limits=limits)
    trio.run(serve, int(sys.argv[1]))
