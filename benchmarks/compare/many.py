"""The study of very many idle connections: what they cost, and whom they slow.

The connections are opened 16 at a time, as a balancer or a reconnecting crowd opens them.
"""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from . import load
from .figures import Study, python_peer
from .load import ECHO, ServerError
from .programs import Program, kernel_memory, pinned
from .report import Fact
from .rounds import spread

if TYPE_CHECKING:
    from .programs import Cores
    from .rounds import Rounds

COMMAND = python_peer("many_echo.py")
# The others, whose round trips may suffer.
BESIDE = 32
# So many are opened before anything is measured: they make all that is made once.
FIRST = 50
AT_A_TIME = 16
# The CPU of an opening is measured in so many parts; the median part counts.
PARTS = 19
# Descriptors of a process besides those of the idle connections.
SLACK = 300
COLLECTIONS = 3


def open_idle(stack: ExitStack, port: int, number: int) -> None:
    """Open upgraded connections, 16 at a time, that stay open with the stack."""
    while number > 0:
        count = min(number, AT_A_TIME)
        socks = [stack.enter_context(load.dial(port)) for _ in range(count)]
        for sock in socks:
            sock.sendall(ECHO)
        for sock in socks:
            if not load.receive_until(sock, b"\r\n\r\n").startswith(b"HTTP/1.1 101 "):
                raise ServerError("no 101")
        number -= count


def ask(port: int, path: str) -> float:
    """Return the number that a GET is answered with."""
    with load.dial(port) as sock:
        sock.sendall(f"GET {path} HTTP/1.0\r\nHost: x\r\n\r\n".encode())
        answer = b""
        while chunk := sock.recv(65536):
            answer += chunk
    return float(answer.rpartition(b"\r\n")[2])


def measure(number: int, cores: Cores, rounds: Rounds) -> list[Fact]:
    """Open so many idle connections, and measure what changes."""
    with ExitStack() as stack, pinned(cores.load):
        alone, program = (
            stack.enter_context(Program(COMMAND, cores.server)) for _ in range(2)
        )
        open_idle(stack, program.port, FIRST)
        time.sleep(0.3)
        memory, kernel = program.memory(), kernel_memory()
        openings: list[float] = []
        for _ in range(PARTS):
            before = program.cpu()
            open_idle(stack, program.port, number // PARTS)
            after = program.cpu()
            if before is None or after is None:
                raise ServerError("its CPU time cannot be measured here")
            openings.append((after - before) / (number // PARTS) * 1e6)
        time.sleep(0.3)
        memory_after, kernel_after = program.memory(), kernel_memory()
        count = number // PARTS * PARTS
        idle = idle_cpu(program, 10 * rounds.seconds)
        trips = Trips(alone, program, rounds.seconds)
        # Not counted: a full garbage collection is due after so many openings.
        trips.measure()
        kept = rounds.measure(trips.measure)
        collections = [ask(program.port, "/collect") for _ in range(COLLECTIONS)]
        frozen = ask(program.port, "/freeze")
    facts = [
        Fact(
            "CPU of an opening",
            statistics.median(openings),
            "µs",
            most=130,
            spread=spread(openings),
        ),
        Fact(
            f"round trips of {BESIDE} others, beside them to without",
            statistics.median(kept),
            least=0.95,
            spread=spread(kept),
        ),
        Fact("CPU of such a round trip, beside them to without", trips.cpu),
        Fact("CPU of all while idle", idle, "%", most=0.05),
        Fact(
            "a full garbage collection",
            statistics.median(collections),
            "ms",
            spread=spread(collections),
        ),
        Fact("the same after gc.freeze()", frozen, "ms"),
    ]
    if kernel is not None and kernel_after is not None:
        # The client's ends are on this machine, too.
        each = (kernel_after - kernel) / 1000 / count / 2
        facts.insert(0, Fact("kernel memory of each end", each, "KB"))
    if memory is not None and memory_after is not None:
        each = (memory_after - memory) / 1000 / count
        facts.insert(0, Fact("memory of each", each, "KB", most=4.5))
    return [fact._replace(name=f"{number:,} idle: {fact.name}") for fact in facts]


def idle_cpu(program: Program, seconds: float) -> float:
    """Return how many percent of a core it uses while nothing happens."""
    before, began = program.cpu(), time.perf_counter()
    time.sleep(seconds)
    after, took = program.cpu(), time.perf_counter() - began
    assert before is not None
    assert after is not None
    return (after - before) / took * 100


class Trips:
    """Compares the round trips of two servers, in turns.

    Args:
        alone: The server without idle connections.
        beside: The server with them.
        seconds: Seconds of a measurement.
    """

    def __init__(self, alone: Program, beside: Program, seconds: float) -> None:
        self._pair = (alone, beside)
        self._seconds = seconds
        # The least CPU seconds of a round trip.
        self._cpu = {program: float("inf") for program in self._pair}

    def measure(self) -> float:
        """Return the rate beside idle connections to the rate without."""
        self._pair = self._pair[::-1]
        rates = {program: self._load(program) for program in self._pair}
        alone, beside = self._cpu
        return rates[beside] / rates[alone]

    @property
    def cpu(self) -> float:
        """The CPU of a round trip beside idle connections to that without."""
        alone, beside = self._cpu
        return self._cpu[beside] / self._cpu[alone]

    def _load(self, program: Program) -> float:
        before = program.cpu()
        tally = load.round_trips(program.port, self._seconds, BESIDE)
        after = program.cpu()
        assert before is not None
        assert after is not None
        used = (after - before) / tally.operations
        self._cpu[program] = min(self._cpu[program], used)
        return tally.operations / tally.seconds


def many_studies(number: int, allowed: int) -> list[Study]:
    """Return the study.

    Args:
        number: How many idle connections.
        allowed: How many descriptors a process may have.
    """
    why_not = ""
    if allowed < number + SLACK:
        why_not = (
            f"it needs {number + SLACK:,} descriptors in each of two processes, and "
            f"{allowed:,} are allowed (ulimit -n)"
        )
    return [
        Study(
            "many idle connections",
            partial(measure, number),
            why_not=why_not,
            prepare=5 + number / 2000,
            each=1,
            note=f"{number:,} upgraded connections to one process. Their round trips are "
            "compared with those of a second server on the same core, in turns.",
        )
    ]
