"""Compare the library with Node and others, on this machine, in one run.

    python -m benchmarks.compare [--quick] [--write] [--only WORD]

``nox -s bench`` installs the peers from PyPI and runs it. Node, HAProxy, nginx and Go are
compared if they are found. Everything is on the loopback interface and ends by itself,
within ten minutes, or within two with ``--quick``.

Peers take turns, in an order that is reversed in each round. The server runs on one core,
the load generator on another. A rate is the median of the rounds. Beside it is the peer's
own CPU time per operation, the least of the rounds: a busy machine disturbs this figure
least. Each measurement waits a short time for a calm moment. The spread is that of the
middle half of the rounds. If it is over 20 %, the figure is measured in more rounds,
up to three times as many; ‡ marks rates that differ as much even then: rely on their CPU
times only. † marks rates that the load generator limits: there the servers differ by more
than the rates show, and only their CPU times say by how much.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from .asgi import asgi_figures
from .figures import Figure, Peer, Sample, Study, figures
from .load import ServerError
from .many import many_studies
from .picture import picture
from .programs import ROOT, Calm, Cores, Program, commit, missing
from .proxies import proxy_figures
from .report import NODE, Result, Row, full, summary
from .rounds import Budget, Rounds, spread
from .tls import tls_figures
from .tunnels import tunnel_studies
from .workers import worker_figures

if TYPE_CHECKING:
    from collections.abc import Sequence

PAGE, PICTURE = "docs/topics/benchmarks.md", "docs/topics/benchmarks.svg"


class Plan(NamedTuple):
    """How much is measured, and for how long."""

    rounds: int
    # Seconds of a round; and of Node's load before its first round, for its compiler.
    seconds: float
    warm: float
    # Idle connections that are opened to measure their memory, with each peer; with ours
    # alone; and tunnels through our proxy.
    idle: int
    many: int
    tunnels: int
    # Tunnels with small messages, beside flooded ones.
    small: int
    # Seconds for the planned rounds of the whole comparison, so that it ends in time on a
    # slow machine too; for further rounds where they differ much; and the seconds that it
    # may additionally wait for calm moments.
    budget: float
    spare: float
    patience: float


WHOLE = Plan(
    rounds=10,
    seconds=0.3,
    warm=2,
    idle=4000,
    many=19_000,
    tunnels=2000,
    small=500,
    budget=400,
    spare=120,
    patience=60,
)
QUICK = Plan(
    rounds=3,
    seconds=0.1,
    warm=1,
    idle=400,
    many=950,
    tunnels=200,
    small=100,
    budget=105,
    spare=0,
    patience=3,
)
FAULTS = (ServerError, OSError, subprocess.SubprocessError)


def tell(line: str) -> None:
    """Print a line of progress to stderr: only the tables go to stdout."""
    print(line, file=sys.stderr, flush=True)


def compare(
    figure: Figure, plan: Plan, cores: Cores, calm: Calm, budget: Budget
) -> Result:
    """Measure one figure of all peers that are found; start no round after the end."""
    samples: dict[Peer, list[Sample]] = {}
    result = Result(
        figure.title,
        base=figure.base,
        cpu_unit=figure.cpu_unit,
        cpu_factor=figure.cpu_factor,
        less_is_better=figure.less_is_better,
        note=figure.note,
        why_not=figure.why_not,
    )
    if figure.why_not:
        tell(f"  left out: {figure.why_not}")
        return result
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
        planned = math.ceil(plan.rounds * figure.share)
        rounds = 0
        while budget.allows(rounds, planned, map(to_values, samples.values())):
            for peer in order:
                program = programs[peer]
                try:
                    if figure.warm and not rounds:
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
            rounds += 1
    if rounds != planned:
        why = "this machine is slow" if rounds < planned else "they differ much"
        tell(f"  {rounds} rounds, not {planned}: {why}")
    result.note += f" Rounds: {rounds}."
    result.rows = [to_row(p.name, samples[p]) for p in programs if p in samples]
    if figure.conclude is not None:
        result.facts = figure.conclude(result)
    return result


def measure_study(
    study: Study, plan: Plan, cores: Cores, calm: Calm, budget: Budget
) -> Result:
    """Measure several facts of ours that belong together."""
    result = Result(study.title, note=study.note, why_not=study.why_not)
    if study.why_not:
        tell(f"  left out: {study.why_not}")
        return result
    try:
        rounds = Rounds(plan.rounds, plan.seconds, calm, budget)
        result.facts = study.measure(cores, rounds)
    except FAULTS as exc:
        tell(f"  failed: {exc}")
    return result


def to_values(samples: Sequence[Sample]) -> list[float]:
    """Return the values of all rounds of a peer."""
    return [sample.value for sample in samples]


def to_row(name: str, samples: Sequence[Sample]) -> Row:
    """Make one row of all rounds of a peer."""
    values = to_values(samples)
    loads = [sample.load for sample in samples if sample.load is not None]
    return Row(
        name,
        statistics.median(values),
        cpu=min((s.cpu for s in samples if s.cpu is not None), default=None),
        load=statistics.median(loads) if loads else None,
        load_cpu=min(
            (s.load / s.value for s in samples if s.load is not None and s.value),
            default=None,
        ),
        spread=spread(values),
    )


def page(results: list[Result]) -> str:
    """Make the text of docs/topics/benchmarks.md."""
    text = (__doc__ or "").partition("\n\nPeers take turns")[2]
    return (
        "# Benchmarks\n\n"
        "Made by `nox -s bench -- --write`, in one run on a machine with two cores that "
        "other work\nused too: read the ratios, not the figures. Differences under 20 % "
        f"mean nothing.\nThe commit is {commit() or 'unknown'}.\n\n"
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
        "--quick", action="store_true", help="less exact, in under two minutes"
    )
    parser.add_argument(
        "--write", action="store_true", help=f"write {PAGE} and its picture"
    )
    parser.add_argument(
        "--only",
        default="",
        metavar="WORD",
        help="only figures with this word in their title: TLS, ASGI, WebSocket, workers, "
        "many, tunnels, relay, client, proxy and others",
    )
    options = parser.parse_args(words)
    if options.write and (options.only or options.quick):
        parser.error("--write needs a whole run")
    plan = QUICK if options.quick else WHOLE
    cores = Cores.find()
    if cores.server == cores.load:
        tell("server and load generator share one core: the rates are of both together")
    allowed = allow_files(plan.many + 1000)
    every = every_figure(plan, cores, allowed)
    wanted = [each for each in every if options.only in each.title]
    scale = (plan.rounds, plan.seconds, plan.warm)
    estimates = [each.estimate(*scale) for each in wanted]
    calm = Calm(cores, plan.patience)
    budget = Budget(calm)
    results: list[Result] = []
    for each, seconds in zip(wanted, estimates, strict=True):
        tell(each.title)
        part = seconds / sum(estimates)
        budget.give(plan.budget * part, plan.spare * part)
        if isinstance(each, Figure):
            result = compare(each, plan, cores, calm, budget)
        else:
            result = measure_study(each, plan, cores, calm, budget)
        results.append(result)
    print(f"At commit {commit() or 'unknown'}.\n")
    print(full(results))
    print(summary(results), end="")
    if options.write:
        write(results)
    return int(any(result.has_failed for result in results))


def every_figure(plan: Plan, cores: Cores, allowed: int) -> list[Figure | Study]:
    """Return all figures and studies.

    Args:
        plan: How much is measured.
        cores: Where.
        allowed: How many descriptors a process may have.
    """
    idle = min(plan.idle, allowed - 200)
    return [
        *figures(idle),
        *tls_figures(),
        *asgi_figures(),
        # A tunnel takes two descriptors of a proxy, or more.
        *proxy_figures(idle // 4),
        *worker_figures(cores),
        *many_studies(plan.many, allowed),
        *tunnel_studies(plan.tunnels, plan.small, allowed),
    ]


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
