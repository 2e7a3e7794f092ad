# /// script
# requires-python = ">=3.11"
# dependencies = ["trio-upgrade"]
# ///
"""An echo server in several processes, one for each core, all on the same port.

    python examples/workers.py [PORT [WORKERS]]

The kernel spreads the connections over the workers (SO_REUSEPORT; on Linux evenly). An
ordinary request gets the id of the process that received it; an offer of ``echo`` is
accepted and echoed. PORT is 1337 unless given; 0 takes any free port.

SIGTERM or Ctrl-C drains: the workers stop accepting, open connections have GRACE_SECONDS
to end, and a second signal ends that time. Then the status is 0. If a worker ends by
itself, the others are drained too, and the status is 1, so that a supervisor starts the
program again. No worker outlives the main process, however the main process ends.
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


async def echo(_request: Request, stream: UpgradedStream, head: bytes) -> None:
    # The early bytes are in the stream: do not keep this copy as long as it is open.
    del head
    await pipe(stream, stream)


async def app(request: Request) -> Response | Upgrade:
    if "echo" in request.upgrades:
        return Upgrade("echo", echo)
    return Response(200, f"{os.getpid()}\n")


async def work(port: int) -> None:
    """Run a worker until it is drained."""
    async with trio.open_nursery() as nursery:
        serve = partial(serve_tcp, app, port, host=HOST, reuse_port=True)
        server: Server = await nursery.start(serve)
        nursery.start_soon(drain_without_parent, server)
        print("ready", flush=True)
        await drain_on_signal(server, signal.SIGTERM, grace=GRACE_SECONDS)
        nursery.cancel_scope.cancel()


async def drain_without_parent(server: Server) -> None:
    # Our parent never writes to our standard input, but the input ends with the parent,
    # also when the parent is killed.
    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as parent:
        await parent.receive_some()
    server.start_drain(GRACE_SECONDS)


async def supervise(port: int, count: int) -> bool:
    """Run the workers to their end; return whether each ended because it was told to."""
    signals_here = trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT)
    with signals_here as signals, socket.socket() as reserved:
        # Bound but not listening: this socket keeps the port and gets no connection.
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
    # In its own process group, so that the terminal sends Ctrl-C to us alone: otherwise
    # the signal that we forward would be the worker's second one.
    return await trio.lowlevel.open_process(
        [sys.executable, __file__, "--worker", str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        process_group=0,
    )


class Workers:
    """The worker processes, and how they end."""

    def __init__(self, processes: list[trio.Process]) -> None:
        self.processes = processes
        self.stopping = False
        self.failed = False

    async def wait_ready(self) -> bool:
        """Wait until each worker is ready or has ended; return whether all are ready."""
        all_ready = True
        for process in self.processes:
            assert process.stdout is not None
            all_ready &= await process.stdout.receive_some() != b""
        return all_ready

    async def forward(self, signals: AsyncIterator[int]) -> None:
        """Forward every signal to the workers; the second one ends their grace."""
        async for _ in signals:
            self.stop()

    def stop(self) -> None:
        """Make the workers drain."""
        self.stopping = True
        for process in self.processes:
            process.terminate()

    async def watch(self, process: trio.Process) -> None:
        """Wait for the end of a worker; if it ends by itself, stop the others."""
        status = await process.wait()
        # A worker that is stopped before it handles SIGTERM is killed by it.
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
