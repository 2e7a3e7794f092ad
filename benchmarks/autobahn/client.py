"""The client that the suite tests: it echoes what the suite's server sends.

python -m benchmarks.autobahn.client URL AGENT
"""

from __future__ import annotations

import sys

import trio
from websockets.exceptions import ConnectionClosed

from trio_upgrade.websocket import open_websocket

from .echo_server import MOST

# Seconds for one case.  The longest takes about ten, and many times that on a busy
# machine.
BOUND = 900


async def run_cases(url: str, agent: str) -> None:
    """Run all cases, and let the server write its report.

    Args:
        url: The URL of ``wstest -m fuzzingserver``.
        agent: The name in the report.
    """
    async with open_websocket(f"{url}/getCaseCount") as websocket:
        count = int(await websocket.recv())
    for case in range(1, count + 1):
        with trio.fail_after(BOUND):
            await run_case(f"{url}/runCase?case={case}&agent={agent}")
    async with open_websocket(f"{url}/updateReports?agent={agent}") as websocket:
        with trio.fail_after(BOUND):
            await websocket.wait_closed()


async def run_case(url: str) -> None:
    """Echo until the server, or one of our checks, ends the connection."""
    async with open_websocket(url, max_size=MOST, ping_interval=None) as websocket:
        try:
            while True:
                await websocket.send(await websocket.recv())
        except ConnectionClosed:
            pass


if __name__ == "__main__":
    trio.run(run_cases, sys.argv[1], sys.argv[2])
