# /// script
# requires-python = ">=3.11"
# dependencies = ["trio-upgrade"]
# ///
"""An echo server in several processes, one for each core, all on the same port.

    python examples/workers.py [PORT [WORKERS]]

An ordinary request gets the id of the process that received it; an offer of ``echo`` is
accepted and echoed. PORT is 1337 unless given; 0 takes any free port.

SIGTERM or Ctrl-C drains: the workers stop accepting, open connections have GRACE_SECONDS
to end, and a second signal ends that time. Then the status is 0. SIGHUP restarts the
workers one after the other. A worker that dies is replaced, and no worker outlives the
main process, however the main process ends.
"""

from __future__ import annotations

import logging
import os
import sys

from trio_upgrade import (
    Request,
    Response,
    Upgrade,
    UpgradedStream,
    Worker,
    pipe,
    run_workers,
)

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


async def main(worker: Worker) -> None:
    await worker.serve(app)


if __name__ == "__main__":
    logging.basicConfig()
    status = run_workers(
        main,
        workers=int(sys.argv[2]) if len(sys.argv) > 2 else os.cpu_count() or 1,
        grace=GRACE_SECONDS,
        host=HOST,
        port=int(sys.argv[1]) if len(sys.argv) > 1 else 1337,
        on_ready=lambda url: print(f"listening at {url}", flush=True),
    )
    sys.exit(status)
