"""A server of two workers that run_workers() replaces; prints its port when it is ready.

    python benchmarks/restart/forking.py one|share GRACE

All workers accept from one socket, or each has its own (``reuse_port``). SIGHUP replaces
them. SIGUSR1 to a worker blocks it for BLOCK_SECONDS.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from trio_upgrade import Request, Response, Worker, run_workers

HOST = "127.0.0.1"
BLOCK_SECONDS = 0.2


async def app(_request: Request) -> Response:
    """Answer with the id of this process."""
    return Response(200, b"%d\n" % os.getpid(), {"Content-Type": "text/plain"})


async def main(worker: Worker) -> None:
    """Serve until drained."""
    signal.signal(signal.SIGUSR1, lambda *_: time.sleep(BLOCK_SECONDS))
    await worker.serve(app)


if __name__ == "__main__":
    kind, grace = sys.argv[1:]
    status = run_workers(
        main,
        workers=2,
        grace=float(grace),
        port=0,
        host=HOST,
        reuse_port=kind == "share",
        on_ready=lambda url: print(url.rpartition(":")[2], flush=True),
    )
    sys.exit(status)
