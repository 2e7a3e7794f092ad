"""The echo server in several processes, by ``trio_upgrade.run_workers``.

python benchmarks/compare/peers/workers.py PORT WORKERS
"""

from __future__ import annotations

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


async def echo(_request: Request, stream: UpgradedStream, head: bytes) -> None:
    """Echo all bytes."""
    del head
    await pipe(stream, stream)


async def app(request: Request) -> Response | Upgrade:
    """Switch if that is offered."""
    if "echo" in request.upgrades:
        return Upgrade("echo", echo)
    return Response(200, "okay\n")


async def main(worker: Worker) -> None:
    """Serve in one worker."""
    await worker.serve(app)


if __name__ == "__main__":
    port, workers = map(int, sys.argv[1:])
    sys.exit(run_workers(main, workers=workers, grace=1, port=port, host="127.0.0.1"))
