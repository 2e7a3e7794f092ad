"""Compare the library with Node and others, on this machine, in one run.

    python -m benchmarks.compare [--quick] [--write] [--only WORD]

``nox -s bench`` installs the peers from PyPI and runs it. Node, HAProxy and nginx are
compared if they are found. Everything is on the loopback interface and ends by itself,
within four minutes, or within one with ``--quick``.

Peers take turns, in an order that is reversed in each round. The server runs on one core,
the load generator on another. A rate is the median of the rounds. Beside it is the peer's
own CPU time per operation, the least of the rounds: a busy machine disturbs this figure
least. Each measurement waits a short time for a calm moment. † marks rates that the load
generator limits: there the servers differ by more than the rates show, and only their CPU
times say by how much.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from .figures import Figure, Peer, Sample, figures
from .load import ServerError
from .programs import ROOT, Calm, Cores, Program, missing
from .proxies import proxy_figures
from .report import NODE, OURS, Result, Row, full, picture, summary

if TYPE_CHECKING:
    from collections.abc import Sequence

PAGE, PICTURE = "docs/topics/benchmarks.md", "docs/topics/benchmarks.svg"


class Plan(NamedTuple):
    """How much is measured, and for how long."""

    rounds: int
    # Seconds of a round; and of Node's load before its first round, for its compiler.
    seconds: float
    warm: float
    # Idle connections that are opened to measure their memory.
    idle: int
    # Seconds for the whole comparison, so that it ends in time on a slow machine too;
    # and the seconds that it may additionally wait for calm moments.
    budget: float
    patience: float


WHOLE = Plan(rounds=10, seconds=0.3, warm=2, idle=4000, budget=190, patience=30)
QUICK = Plan(rounds=3, seconds=0.1, warm=1, idle=400, budget=46, patience=3)
FAULTS = (ServerError, OSError, subprocess.SubprocessError)


def tell(line: str) -> None:
    """Print a line of progress to stderr: only the tables go to stdout."""
    print(line, file=sys.stderr, flush=True)


def compare(figure: Figure, plan: Plan, cores: Cores, calm: Calm, end: float) -> Result:
    """Measure one figure of all peers that are found; start no round after the end.

    The time that was spent waiting for calm moments does not count.
    """
    samples: dict[Peer, list[Sample]] = {}
    result = Result(
        figure.title,
        cpu_unit=figure.cpu_unit,
        cpu_factor=figure.cpu_factor,
        less_is_better=figure.less_is_better,
        note=figure.note,
    )
    with ExitStack() as stack:
        programs: dict[Peer, Program | None] = {}
        for peer in figure.peers:
            if why := missing(peer.needs):
                tell(f"  {peer.name} is left out: {why}")
                continue
            try:
                start = figure.start
                programs[peer] = start(stack, peer, cores) if start else None
            except FAULTS as exc:
                tell(f"  {peer.name} is left out: {exc}")
        order = list(programs)
        rounds = 0
        for number in range(math.ceil(plan.rounds * figure.share)):
            if number and time.monotonic() - calm.waited > end:
                tell(f"  {number} rounds only: this machine is slow")
                break
            rounds = number + 1
            for peer in order:
                program = programs[peer]
                try:
                    if figure.warm and not number:
                        # Node's just-in-time compiler needs some time to reach its speed.
                        warm = plan.warm if peer.name == NODE else plan.seconds
                        figure.measure(peer, program, warm, cores)
                    calm.wait()
                    sample = figure.measure(peer, program, plan.seconds, cores)
                except FAULTS as exc:
                    tell(f"  {peer.name} failed: {exc}")
                else:
                    samples.setdefault(peer, []).append(sample)
            order.reverse()
    result.note += f" Rounds: {rounds}."
    result.rows = [to_row(p.name, samples[p]) for p in programs if p in samples]
    return result


def to_row(name: str, samples: Sequence[Sample]) -> Row:
    """Make one row of all rounds of a peer."""
    values = [sample.value for sample in samples]
    value = statistics.median(values)
    loads = [sample.load for sample in samples if sample.load is not None]
    return Row(
        name,
        value,
        cpu=min((s.cpu for s in samples if s.cpu is not None), default=None),
        load=statistics.median(loads) if loads else None,
        spread=(max(values) - min(values)) / value if len(values) > 1 else None,
    )


def page(results: list[Result]) -> str:
    """Make the text of docs/topics/benchmarks.md."""
    text = (__doc__ or "").partition("\n\nPeers take turns")[2]
    return (
        "# Benchmarks\n\n"
        "Made by `nox -s bench -- --write`, in one run on a machine with two cores that "
        "other work\nused too: read the ratios, not the figures. Differences under 20 % "
        "mean nothing.\n\n"
        f"Peers take turns{text}\n![The ratios](benchmarks.svg)\n\n"
        f"{summary(results)}\n## All figures\n\n{full(results)}"
    )


def write(results: list[Result]) -> None:
    """Write the page, and the picture that the README shows, too."""
    (ROOT / PAGE).write_text(page(results).rstrip() + "\n")
    (ROOT / PICTURE).write_text(picture(results))


def main(words: Sequence[str] | None = None) -> int:
    """Run the comparison; return 1 if the library itself failed somewhere."""
    parser = argparse.ArgumentParser(prog="benchmarks.compare")
    parser.add_argument(
        "--quick", action="store_true", help="less exact, in under a minute"
    )
    parser.add_argument(
        "--write", action="store_true", help=f"write {PAGE} and its picture"
    )
    parser.add_argument(
        "--only", default="", help="only figures with this word in their title"
    )
    options = parser.parse_args(words)
    if options.write and (options.only or options.quick):
        parser.error("--write needs a whole run")
    plan = QUICK if options.quick else WHOLE
    cores = Cores.find()
    if cores.server == cores.load:
        tell("server and load generator share one core: the rates are of both together")
    idle = min(plan.idle, allow_files(plan.idle + 200) - 200)
    # A tunnel takes two descriptors of a proxy, or more.
    every = [*figures(idle), *proxy_figures(idle // 4)]
    wanted = [figure for figure in every if options.only in figure.title]
    # To start a peer takes about as long as three rounds of it.
    costs = [len(figure.peers) * (figure.share + 0.3) for figure in wanted]
    calm = Calm(cores, plan.patience)
    end = time.monotonic()
    results: list[Result] = []
    for figure, cost in zip(wanted, costs, strict=True):
        tell(figure.title)
        end += plan.budget * cost / sum(costs)
        results.append(compare(figure, plan, cores, calm, end))
    print(full(results))
    print(summary(results), end="")
    if options.write:
        write(results)
    return int(any(result.row(OURS) is None for result in results))


def allow_files(wanted: int) -> int:
    """Raise the limit of descriptors to ``wanted`` if possible; return the limit."""
    try:
        import resource
    except ImportError:
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted and sys.platform != "darwin":
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft
