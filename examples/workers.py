# /// script
# requires-python = ">=3.11"
# dependencies = ["trio-upgrade"]
# ///
"""An echo server in several processes, one for each core, all on the same port.

    python examples/workers.py [PORT [WORKERS]]

The kernel spreads the connections over the workers (SO_REUSEPORT; on Linux evenly).
Requests are answered with the id of the process that got them; offers of ``echo`` are
switched and echoed. PORT is 1337 unless given, 0 takes any free one.

SIGTERM or Ctrl-C drains: no worker accepts any more, live connections have GRACE_SECONDS
to end, a second signal cuts that short. Then the status is 0. If a worker ends by itself,
the others are drained, too, and the status is 1: whoever supervises this starts it anew.
No worker outlives the main process, however that ends.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import trio

from trio_upgrade import (
    Request,
    Response,
    Server,
    Upgrade,
    UpgradedStream,
    drain_on_signal,
    pipe,
    serve_tcp,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HOST = "127.0.0.1"
GRACE_SECONDS = 10


async def echo(_request: Request, stream: UpgradedStream, _head: bytes) -> None:
    await pipe(stream, stream)


async def app(request: Request) -> Response | Upgrade:
    if "echo" in request.upgrades:
        return Upgrade("echo", echo)
    return Response(200, f"{os.getpid()}\n")


async def work(port: int) -> None:
    """Be a worker."""
    async with trio.open_nursery() as nursery:
        serve = partial(serve_tcp, app, port, host=HOST, reuse_port=True)
        server: Server = await nursery.start(serve)
        nursery.start_soon(drain_behind_parent, server)
        print("ready", flush=True)
        await drain_on_signal(server, signal.SIGTERM, grace=GRACE_SECONDS)
        nursery.cancel_scope.cancel()


async def drain_behind_parent(server: Server) -> None:
    # Nobody writes to our standard input, but it ends with our parent, also when that
    # had no time to say anything.
    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as parent:
        await parent.receive_some()
    server.start_drain(GRACE_SECONDS)


async def supervise(port: int, count: int) -> bool:
    """Run the workers to their end, and tell whether that was ours to choose."""
    signals_here = trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT)
    with signals_here as signals, socket.socket() as reserved:
        # Bound, but not listening: it gets no connection, and the port stays ours.
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind((HOST, port))
        port = reserved.getsockname()[1]
        workers = Workers([await start_worker(port) for _ in range(count)])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(workers.forward, signals)
            async with trio.open_nursery() as watching:
                for process in workers.processes:
                    watching.start_soon(workers.watch, process)
                if await workers.wait_ready():
                    print(f"listening at http://{HOST}:{port}", flush=True)
            nursery.cancel_scope.cancel()
    return not workers.failed


async def start_worker(port: int) -> trio.Process:
    # In a process group of its own: the terminal sends Ctrl-C to us alone, or the worker
    # would take what we forward for a second signal.
    return await trio.lowlevel.open_process(
        [sys.executable, __file__, "--worker", str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        process_group=0,
    )


class Workers:
    """The processes, and how they end."""

    def __init__(self, processes: list[trio.Process]) -> None:
        self.processes = processes
        self.stopping = False
        self.failed = False

    async def wait_ready(self) -> bool:
        """Wait until each has said that it is, or has ended."""
        all_ready = True
        for process in self.processes:
            assert process.stdout is not None
            all_ready &= await process.stdout.receive_some() != b""
        return all_ready

    async def forward(self, signals: AsyncIterator[int]) -> None:
        """Tell them of every signal; the second one ends their grace."""
        async for _ in signals:
            self.stop()

    def stop(self) -> None:
        """Let them drain."""
        self.stopping = True
        for process in self.processes:
            process.terminate()

    async def watch(self, process: trio.Process) -> None:
        """Wait for the end of one; if it is not ours to choose, stop the others."""
        status = await process.wait()
        # Stopped before it could listen to the signal it ends by it.
        if self.stopping and status in (0, -signal.SIGTERM):
            return
        print(f"worker {process.pid} ended, status {status}", file=sys.stderr)
        self.failed = True
        if not self.stopping:
            self.stop()


if __name__ == "__main__":
    logging.basicConfig()
    if sys.argv[1:2] == ["--worker"]:
        trio.run(work, int(sys.argv[2]))
    else:
        port = int(sys.argv[1]) if len(sys.argv) > 1 else 1337
        count = int(sys.argv[2]) if len(sys.argv) > 2 else os.cpu_count() or 1
        sys.exit(0 if trio.run(supervise, port, count) else 1)
