"""Replace servers again and again under a load, and count what is lost.

    python -m benchmarks.restart [--runs N] [--times N] [ROW...]

A connection is opened every millisecond, or as often as the machine can, and makes one
GET. Meanwhile the server is replaced: another process is started, and as soon as it
accepts connections the old one gets SIGTERM and drains. Each row of the table is a
function below; give names to run only those. A connection is lost if it does not get a
whole answer. In some rows none may be lost; the others show what the kernel loses, which
no server can help. The exit status is 1 if a row fell.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import tempfile
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import trio
import trio.lowlevel

from .load import Tally, connect, loading
from .proxies import CONFIGS, open_proxy
from .workers import (
    GRACE,
    SLACK,
    find_children,
    open_places,
    start_forking,
    start_worker,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

RUNS, TIMES = 5, 6
# Seconds of grace of a drain while connections come without pause, and their number.
ENDLESS_GRACE = 1.0
ENDLESS_TASKS = 20


async def replace(
    number: int, times: int, *, inherit: bool, blocked: bool = False
) -> Tally:
    """Replace workers one after the other under a load.

    Args:
        number: The number of workers.
        times: How often one of them is replaced.
        inherit: Whether they inherit a listening socket, or share a port.
        blocked: Whether the event loop of each is blocked when its SIGTERM comes.
    """
    async with open_places(number, inherit=inherit) as places:
        async with loading(places[0].port) as tally:
            for place, _ in zip(cycle(places), range(times), strict=False):
                await place.replace(blocked=blocked)
    return tally


async def inherited(times: int) -> Tally:
    """One listening socket, handed on from each worker to the next one."""
    return await replace(1, times, inherit=True)


async def inherited_blocked(times: int) -> Tally:
    """The same, with a blocked event loop when SIGTERM comes."""
    return await replace(1, times, inherit=True, blocked=True)


async def shared(times: int) -> Tally:
    """Two workers that share a port, each with a listening socket of its own."""
    return await replace(2, times, inherit=False)


async def shared_blocked(times: int) -> Tally:
    """The same, with a blocked event loop when SIGTERM comes."""
    return await replace(2, times, inherit=False, blocked=True)


async def rolling(times: int, *, kind: str = "one") -> Tally:
    """run_workers() replaces both workers, the first one with a blocked event loop."""
    async with await start_forking(kind) as worker:
        async with loading(worker.port) as tally:
            for _ in range(times):
                old = find_children(worker.process)
                os.kill(old[0], signal.SIGUSR1)
                worker.process.send_signal(signal.SIGHUP)
                with trio.fail_after(2 * (GRACE + SLACK)):
                    while {*old} & {*find_children(worker.process)}:
                        await trio.sleep(0.01)
        await worker.drain()
    return tally


async def rolling_shared(times: int) -> Tally:
    """The same, each with a socket of its own."""
    return await rolling(times, kind="share")


async def behind(times: int, *, proxy: str, settings: str) -> Tally:
    """A proxy in front of two workers, each with an inherited socket; see proxies.py."""
    with tempfile.TemporaryDirectory() as folder:
        async with open_places(2, inherit=True) as places:
            ports = [place.port for place in places]
            async with open_proxy(
                proxy, Path(folder), ports, settings=settings
            ) as port:
                async with loading(port) as tally:
                    for place, _ in zip(cycle(places), range(times), strict=False):
                        await place.replace()
    return tally


async def endless(_times: int) -> Tally:
    """A drain while connections come without a pause, which has to end in time."""
    tally = Tally()

    async def open_again_and_again(port: int) -> None:
        while True:
            try:
                async with await connect(port) as stream:
                    tally.connections += 1
                    await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                    await stream.receive_some()
            except (OSError, trio.BrokenResourceError):
                await trio.lowlevel.checkpoint()

    async with await start_worker("listen", 0, ENDLESS_GRACE) as worker:
        async with trio.open_nursery() as nursery:
            for _ in range(ENDLESS_TASKS):
                nursery.start_soon(open_again_and_again, worker.port)
            while tally.connections < 10 * ENDLESS_TASKS:
                await trio.sleep(0.01)
            began = trio.current_time()
            worker.process.terminate()
            with trio.move_on_after(ENDLESS_GRACE + SLACK):
                await worker.process.wait()
            seconds = trio.current_time() - began
            nursery.cancel_scope.cancel()
    if seconds > ENDLESS_GRACE + 1:
        tally.lost[f"drain of {seconds:.1f} s, grace {ENDLESS_GRACE}"] += 1
    return tally


class Row(NamedTuple):
    """A row of the table.

    Attributes:
        run: Replaces workers so many times.
        may_lose: Whether connections may be lost.
        program: A program that it needs, empty if none.
    """

    run: Callable[[int], Awaitable[Tally]]
    may_lose: bool = False
    program: str = ""


ROWS = {
    "inherited": Row(inherited),
    "inherited_blocked": Row(inherited_blocked),
    "endless": Row(endless),
    **{
        f"{name}_{settings}": Row(
            partial(behind, proxy=name, settings=settings), program=name
        )
        for name in CONFIGS
        for settings in ("kept", "once")
    },
    "nginx_strict": Row(
        partial(behind, proxy="nginx", settings="strict"),
        may_lose=True,
        program="nginx",
    ),
    "rolling": Row(rolling),
    "rolling_shared": Row(rolling_shared),
    "shared": Row(shared, may_lose=True),
    "shared_blocked": Row(shared_blocked, may_lose=True),
}


async def main(arguments: Sequence[str]) -> int:
    """Print the table; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.restart")
    parser.add_argument("--runs", type=int, default=RUNS, help="%(default)s")
    parser.add_argument("--times", type=int, default=TIMES, help="%(default)s")
    parser.add_argument("rows", nargs="*", choices=[*ROWS, []])
    options = parser.parse_args(arguments)
    fell = False
    for name, row in ROWS.items():
        if options.rows and name not in options.rows:
            continue
        if row.program and shutil.which(row.program) is None:
            print(f"{name:18} needs {row.program}")
            continue
        for _ in range(options.runs):
            tally = await row.run(options.times)
            held = row.may_lose or not tally.lost
            fell |= not held
            verdict = "measured" if row.may_lose else "held" if held else "FELL"
            print(f"{name:18} {verdict:9} {tally}", flush=True)
    return 1 if fell else 0
