"""Abuse a server, and measure whether an honest peer notices.

    python -m benchmarks.abuse [ROW...]

Everything is on the loopback interface and ends by itself, in about a minute. Each row of
the table is one abuse: a function of abuses.py. Give function names to run only those
rows. The abused server runs in its own process, while another process, the honest peer,
makes ordinary requests on one connection. *Held* means that

- the requests of the honest peer have a 99th percentile under 100 ms, or under three
  times the one without abuse;
- the server's memory never grew by more than 8 MiB, plus 8 KiB for each upgraded
  connection that is open: such a connection is a customer, not an abuse;
- every hostile peer was gone at most one second after its deadline;
- the server has as many descriptors afterwards as before;

and whatever else the row checks. The exit status is 1 if a row fell. Needs Linux's /proc.
"""

from __future__ import annotations

import resource

import trio

from .abuses import ROWS, Row, exhaustion, idle_upgraded
from .target import (
    MIB,
    MOST_EACH,
    MOST_GROWTH,
    MOST_P99,
    OFFER,
    Verdict,
    start_target,
)


async def run_row(row: Row) -> tuple[Verdict, float]:
    """Run a row; return its verdict, and by how many bytes the memory grew."""
    verdict = Verdict()
    descriptors = 64 if row is exhaustion else 0
    async with start_target(descriptors) as target:
        offer = OFFER if row is idle_upgraded else b""
        _, verdict.p99_alone = await target.probe(offer, 1)
        before, target.peak = target.memory, target.memory
        open_before = target.descriptors
        async with trio.open_nursery() as nursery:
            nursery.start_soon(target.watch)
            await row(target, verdict)
            for _ in range(100):
                if target.descriptors <= open_before:
                    break
                await trio.sleep(0.05)
            nursery.cancel_scope.cancel()
        growth = target.peak - before
        left = target.descriptors - open_before
    verdict.check(left == 0, f"{left} descriptors left")
    allowed = MOST_GROWTH + verdict.upgraded * MOST_EACH
    verdict.check(growth <= allowed, "too much memory")
    verdict.check(
        verdict.p99 <= max(MOST_P99, 3 * verdict.p99_alone),
        "the honest peer noticed",
    )
    return verdict, growth


async def main(names: list[str]) -> int:
    """Print the table; return the exit status."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    title = f"{'abuse':30}{'':6}{'p99 ms':>8}{'alone':>7}{'grown MiB':>11}{'gone s':>8}"
    print(title)
    fell = 0
    for row in ROWS:
        if names and row.__name__ not in names:
            continue
        verdict, growth = await run_row(row)
        fell += bool(verdict.faults)
        print(
            f"{(row.__doc__ or '').strip():30}{'FELL' if verdict.faults else 'held':6}"
            f"{verdict.p99 * 1000:8.1f}{verdict.p99_alone * 1000:7.1f}"
            f"{growth / MIB:11.1f}{verdict.latest:8.1f}  "
            + "; ".join(verdict.notes + list(dict.fromkeys(verdict.faults))[:3]),
            flush=True,
        )
    return 1 if fell else 0
