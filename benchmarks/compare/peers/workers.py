"""The echo server in several processes, by ``trio_upgrade.run_workers``.

python benchmarks/compare/peers/workers.py PORT WORKERS
"""

from __future__ import annotations

import sys

from benchmarks.compare.peers.echo_app import app
from trio_upgrade import Worker, run_workers


async def main(worker: Worker) -> None:
    """Serve in one worker."""
    await worker.serve(app)


if __name__ == "__main__":
    port, workers = map(int, sys.argv[1:])
    sys.exit(run_workers(main, workers=workers, grace=1, port=port, host="127.0.0.1"))
