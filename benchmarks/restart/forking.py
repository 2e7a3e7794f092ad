"""A server of two workers that run_workers() replaces; prints its port when it is ready.

    python benchmarks/restart/forking.py one|share GRACE

All workers accept from one socket, or each has its own (``reuse_port``). SIGHUP replaces
them. SIGUSR1 to a worker blocks it, as in worker.py.
"""

from __future__ import annotations

import signal
import sys
import time

from worker import BLOCK_SECONDS, HOST, app

from trio_upgrade import Worker, run_workers


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
