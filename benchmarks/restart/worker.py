"""A server that is replaced, in its own process; prints its port when it is ready.

    python benchmarks/restart/worker.py inherit DESCRIPTOR GRACE
    python benchmarks/restart/worker.py listen PORT GRACE
    python benchmarks/restart/worker.py share PORT GRACE

It serves on a listening socket that it inherits, on a port of its own, or on one that it
shares with other processes (``reuse_port``). SIGTERM drains it. SIGUSR1 blocks it for
BLOCK_SECONDS, as an app does that computes for long.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from functools import partial

import trio

from trio_upgrade import (
    Request,
    Response,
    Server,
    drain_on_signal,
    inherit_listeners,
    serve_listeners,
    serve_tcp,
)

HOST = "127.0.0.1"
BLOCK_SECONDS = 0.2
# Where sockets that are handed over begin; sd_listen_fds(3).
_FIRST_DESCRIPTOR = 3


async def app(_request: Request) -> Response:
    """Answer with the id of this process."""
    return Response(200, b"%d\n" % os.getpid(), {"Content-Type": "text/plain"})


def take_over(descriptor: int) -> None:
    """Make a listening socket look as if a supervisor had handed it over.

    Before Trio runs, which may need that descriptor.
    """
    os.dup2(descriptor, _FIRST_DESCRIPTOR)
    os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}


async def work(kind: str, number: int, grace: float) -> None:
    """Serve until drained."""
    signal.signal(signal.SIGUSR1, lambda *_: time.sleep(BLOCK_SECONDS))
    if kind == "inherit":
        serve = partial(serve_listeners, app, inherit_listeners())
    else:
        share = kind == "share"
        serve = partial(serve_tcp, app, number, host=HOST, reuse_port=share)
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(serve)
        nursery.start_soon(
            partial(drain_on_signal, server, signal.SIGTERM, grace=grace)
        )
        # From its first step on that task handles SIGTERM, which would kill us before.
        for _ in range(2):
            await trio.lowlevel.checkpoint()
        print(server.url.rpartition(":")[2], flush=True)
        await server.wait_ended()


def main(kind: str, number: str, grace: str) -> None:
    """Run the worker."""
    if kind == "inherit":
        take_over(int(number))
    trio.run(work, kind, int(number), float(grace))


if __name__ == "__main__":
    main(*sys.argv[1:])
