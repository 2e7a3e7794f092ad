"""The figures of several processes: one worker, and two workers on two cores.

One worker has a core, and the load generator the other. Two workers share both cores with
the load generator: of two cores the server then has less than two. Let an operation cost
``s`` seconds of CPU in the server and ``g`` in the load generator. One worker makes
``1/s`` operations a second, two make at most ``2/(s+g)``: ``2·s/(s+g)`` times as many.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from . import load
from .figures import Figure, Peer, Sample, Work, by_load, python_peer
from .programs import Cores, Program
from .report import OURS, Fact, Result

if TYPE_CHECKING:
    from contextlib import ExitStack

TWO = f"{OURS}, 2 workers"
WORKERS = [
    Peer(OURS, python_peer("workers.py", "{port}", "1")),
    Peer(TWO, python_peer("workers.py", "{port}", "2")),
]
# More than elsewhere, so that both workers always have some.
CONNECTIONS = 64


def place(peer: Peer, cores: Cores) -> Cores:
    """Return where a peer and the load generator run; two workers run anywhere."""
    return cores if peer.name == OURS else Cores(None, None)


def start_workers(stack: ExitStack, peer: Peer, cores: Cores) -> Program:
    """Start one worker on its core, or two on all, and check that they work."""
    # Killed at the end, as all programs; its workers then end by themselves.
    program = stack.enter_context(Program(peer.command, place(peer, cores).server))
    load.check(program.port, peer.offer)
    return program


def by_workers(
    work: Work, peer: Peer, program: Program | None, seconds: float, cores: Cores
) -> Sample:
    """Load one worker from the other core, or two from any core."""
    return by_load(work, peer, program, seconds, place(peer, cores))


def conclude(operation: str, result: Result) -> list[Fact]:
    """Say what the second worker brings.

    ``s`` and ``g`` are those of the row with one worker.
    """
    one, two = result.row(OURS), result.row(TWO)
    if not (one and two and one.cpu and two.cpu and one.load_cpu):
        return []
    server, generator = one.cpu, one.load_cpu
    gain = two.value / one.value
    spread = max(one.spread or 0, two.spread or 0)
    return [
        Fact(f"{operation}: s, CPU of one worker", server * 1e6, "µs"),
        Fact(f"{operation}: g, CPU of the load generator", generator * 1e6, "µs"),
        Fact(
            f"{operation}: CPU, two workers to one",
            two.cpu / server,
            most=1.1,
        ),
        Fact(f"{operation}: rate, two workers to one", gain, spread=spread),
        Fact(
            f"{operation}: that rate to 2·s/(s+g)",
            gain * (server + generator) / (2 * server),
            least=0.9,
            spread=spread,
        ),
    ]


def worker_figures(cores: Cores) -> list[Figure]:
    """Return the figures of workers."""
    why_not = ""
    if not hasattr(os, "fork"):
        why_not = "this platform has no fork"
    elif cores.server == cores.load:
        why_not = (
            "it needs two cores, and a platform where a process can choose its core"
        )
    return [
        Figure(
            f"workers: {name}s/s",
            WORKERS,
            partial(by_workers, work),
            start_workers,
            warm=True,
            base=OURS,
            conclude=partial(conclude, name),
            why_not=why_not,
            note=f"{note} One worker on one core and the load on the other; two workers "
            "and the load on both cores.",
        )
        for name, work, note in (
            (
                "handshake",
                partial(load.handshakes, slots=CONNECTIONS),
                f"{CONNECTIONS} at a time.",
            ),
            (
                "GET request",
                partial(load.requests, connections=CONNECTIONS),
                f"{CONNECTIONS} keep-alive connections.",
            ),
        )
    ]
