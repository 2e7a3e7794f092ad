"""The studies of many tunnels: what each costs, and whether floods starve small ones.

A tunnel goes through our forward proxy, by CONNECT, to a server on the load generator's
core. Flooded tunnels come from another process, with the lowest priority there: otherwise
the load generator would get less of its core, and not the proxy would be measured.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Self

from . import load
from .figures import Study, python_peer
from .load import ECHO, ServerError
from .programs import BOUND, PEERS, Program, pinned
from .report import Fact
from .rounds import spread

if TYPE_CHECKING:
    import socket

    from .programs import Cores
    from .rounds import Rounds

PROXY = python_peer("forward_proxy.py")
# Without addresses to check, deadlines and counts: what a proxy costs at least.
BY_HAND = python_peer("tunnel_app.py")
ECHOING = python_peer("raw.py")
FLOOD = (sys.executable, str(PEERS / "flood.py"))
LOWEST = ("nice", "-n", "19")
BULK = 8
# So many are opened before anything is measured: they make all that is made once.
FIRST = 50
# Descriptors of the proxy besides those of the tunnels.
SLACK = 300
# Seconds until a flood has begun, or memory is at rest.
SETTLE = 0.5


def dig(port: int, upstream: int) -> socket.socket:
    """Open a tunnel through a proxy to an echo; the socket is blocking."""
    target = f"{load.HOST}:{upstream}"
    connect = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode()
    with ExitStack() as stack:
        sock = stack.enter_context(load.dial(port))
        for head, expected in ((connect, b"HTTP/1.1 200 "), (ECHO, b"HTTP/1.1 101 ")):
            sock.sendall(head)
            if not load.receive_until(sock, b"\r\n\r\n").startswith(expected):
                raise ServerError("no tunnel")
        stack.pop_all()
    return sock


def cost(number: int, cores: Cores, _rounds: Rounds) -> list[Fact]:
    """Measure what each tunnel takes of our proxy, and of an app that only relays."""
    facts: list[Fact] = []
    for name, command in (("ForwardProxy", PROXY), ("an app with relay()", BY_HAND)):
        memory, descriptors = hold(command, number, cores)
        whose = f"{number:,} tunnels of {name}: "
        facts += [
            Fact(f"{whose}memory of each", memory / 1000, "KB", most=15),
            Fact(f"{whose}descriptors of each", descriptors, most=2),
        ]
    return facts


def hold(command: tuple[str, ...], number: int, cores: Cores) -> tuple[float, float]:
    """Hold so many idle tunnels; return the bytes and the descriptors of each."""
    with ExitStack() as stack, pinned(cores.load):
        upstream = stack.enter_context(Program(ECHOING, cores.load))
        proxy = stack.enter_context(Program(command, cores.server))
        for _ in range(FIRST):
            stack.enter_context(dig(proxy.port, upstream.port))
        time.sleep(SETTLE)
        before = proxy.memory(), proxy.descriptors()
        for _ in range(number):
            stack.enter_context(dig(proxy.port, upstream.port))
        time.sleep(SETTLE)
        after = proxy.memory(), proxy.descriptors()
    used = [
        (end - start) / number
        for start, end in zip(before, after, strict=True)
        if start is not None and end is not None
    ]
    if len(used) < 2:
        raise ServerError("its memory cannot be measured here")
    return used[0], used[1]


class Flood:
    """A process that floods some tunnels while the block runs."""

    def __init__(self, proxy: Program, upstream: Program, core: int | None) -> None:
        # The rate of the flood, once the block has been left.
        self.rate = 0.0
        words = [*FLOOD, str(proxy.port), str(upstream.port), str(BULK)]
        with pinned(core):
            self._process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )

    def __enter__(self) -> Self:
        time.sleep(SETTLE)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            said = self._process.communicate(timeout=BOUND)[0]
            megabytes, seconds = json.loads(said or "[0, 1]")
            self.rate = megabytes / seconds
        finally:
            self._process.kill()
            self._process.wait()


def fairness(number: int, cores: Cores, rounds: Rounds) -> list[Fact]:
    """Measure what small tunnels keep of their rate beside flooded ones."""
    floods: list[float] = []
    with ExitStack() as stack, pinned(cores.load):
        upstream = stack.enter_context(Program(ECHOING, cores.load))
        slow = stack.enter_context(Program((*LOWEST, *ECHOING), cores.load))
        proxy = stack.enter_context(Program(PROXY, cores.server))
        socks = [
            stack.enter_context(dig(proxy.port, upstream.port)) for _ in range(number)
        ]

        def once() -> float:
            alone = load.converse(socks, rounds.seconds)
            with Flood(proxy, slow, cores.load) as flood:
                beside = load.converse(socks, rounds.seconds)
            floods.append(flood.rate)
            rates = [tally.operations / tally.seconds for tally in (beside, alone)]
            return rates[0] / rates[1]

        kept = rounds.measure(once)
    name = f"{number:,} small tunnels beside {BULK} flooded: "
    return [
        Fact(
            f"{name}they keep of their rate",
            statistics.median(kept),
            least=0.85,
            spread=spread(kept),
        ),
        Fact(f"{name}the flood", statistics.median(floods), "MB/s"),
    ]


def tunnel_studies(number: int, small: int, allowed: int) -> list[Study]:
    """Return the studies.

    Args:
        number: How many idle tunnels.
        small: How many tunnels with small messages.
        allowed: How many descriptors a process may have.
    """
    why_not = ""
    # The proxy needs two for each.
    needed = 2 * max(number, small) + SLACK
    if allowed < needed:
        why_not = f"it needs {needed:,} descriptors, and {allowed:,} are allowed"
    return [
        Study(
            "tunnels: what each costs",
            partial(cost, number),
            why_not=why_not,
            prepare=4 + number / 400,
            note=f"{number:,} idle tunnels by CONNECT, each with a message both ways.",
        ),
        Study(
            "tunnels: small ones beside flooded ones",
            partial(fairness, small),
            why_not=why_not or ("" if shutil.which(LOWEST[0]) else "no program nice"),
            each=1.5,
            note="64 bytes, one at a time in each of the small ones. The flood and the "
            "server that echoes it have the lowest priority on the load's core.",
        ),
    ]
