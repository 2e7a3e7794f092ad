"""Send mutated requests to several servers, and compare how they frame them.

    python -m benchmarks.fuzz [--seconds 180] [--requests N] [--seed SEED] [--only N]

It ends after 180 seconds unless told otherwise; a second is good for about 350 requests.
Every request is sent over TCP to the library, and to Node and nginx if they are found,
with a good request, the marker, right after it on the same connection. The servers say
what they saw. Of the requests that two servers accept none may be framed differently:
both have to see as many requests, with the same bodies, and the next one at the same
place. Otherwise a proxy and the server behind it could be led to different opinions about
where a request ends, which is request smuggling.

A third of the requests goes to servers that switch each offer and each CONNECT. There the
place of the next byte is compared, the first of the other protocol.

Requests that only some servers accept are counted by class; classes.py lists the classes
with their reasons. A class that is not listed is a fault, as is a server that neither
answers nor ends. The exit status is 1 if there is a fault.

The same seed makes the same requests; ``--only`` shows one of them, with all answers.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import re
import tempfile
import time
from collections import Counter
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from . import exchange
from .classes import find_class
from .requests import Sent, make
from .servers import NODE, STARTS, find_servers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .exchange import Outcome, Seen
    from .servers import Target

# Enough for 50,000 requests on two cores.
SECONDS = 180.0
# So many examples of a fault are printed.
EXAMPLES = 3
_REPORT_SECONDS = 30.0

# Framings that differ, and no fault of ours; see find_difference().
NODE_BODY = (
    "Node takes the body of an offer for data of the protocol, or drops all that follows "
    "(docs/topics/node.md, S11 to S13)"
)
NO_OFFER = (
    "one sees no offer: HTTP/1.0, an illegal token, a tab (docs/topics/node.md, S8)"
)


class Refusal(NamedTuple):
    """A request that one server refused after another had accepted it.

    Attributes:
        server: The server that refused.
        words: Why, in its words, without their numbers.
        accepted_by: The server that accepted.
    """

    server: str
    words: str
    accepted_by: str

    def __str__(self) -> str:
        return f"{self.server}: {self.words}"


class Tally:
    """The counts of a run, and its faults with examples."""

    def __init__(self) -> None:
        self.requests = 0
        self.accepted: Counter[str] = Counter()
        self.switched: Counter[str] = Counter()
        self.compared: Counter[tuple[str, str]] = Counter()
        self.known: Counter[str] = Counter()
        self.refusals: Counter[Refusal] = Counter()
        self.reasons: dict[Refusal, str] = {}
        # The number of the first request of each class, for --only.
        self.first: dict[Refusal, int] = {}
        self.faults: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}

    def add(self, sent: Sent, outcomes: Mapping[str, Outcome]) -> None:
        """Compare what the servers did with one request."""
        self.requests += 1
        for name, outcome in outcomes.items():
            self.accepted[name] += len(outcome.seen)
            self.switched[name] += sum(seen.rest is not None for seen in outcome.seen)
            if outcome.refusal in exchange.FAULTS:
                self.fault(f"{name}: {outcome.refusal}", sent, outcomes)
        for one, other in permutations(outcomes, 2):
            self._compare(sent, outcomes, one, other)

    def _compare(
        self, sent: Sent, outcomes: Mapping[str, Outcome], one: str, other: str
    ) -> None:
        # Each pair comes in both orders; what is symmetric is counted in one of them.
        counts = one < other
        mine, theirs = outcomes[one], outcomes[other]
        for index, seen in enumerate(mine.seen):
            if index == len(theirs.seen):
                words = theirs.refusal or ""
                refusal = Refusal(other, collapse(words), one)
                self.refusals[refusal] += 1
                self.first.setdefault(refusal, sent.number)
                listed = find_class(other, words)
                if listed is not None:
                    self.reasons[refusal] = listed.reason
                else:
                    self.fault(f"not listed: {refusal}", sent, outcomes)
                return
            difference = find_difference(
                {one: seen, other: theirs.seen[index]},
                sent,
                node_ends=NODE in outcomes and ends_after(outcomes[NODE], index),
            )
            if counts and difference is None:
                self.compared[one, other] += 1
            elif counts and difference in (NODE_BODY, NO_OFFER):
                self.known[difference] += 1
            elif counts:
                self.fault(f"{one} and {other}: {difference}", sent, outcomes)
            if difference is not None:
                return

    def fault(self, fault: str, sent: Sent, outcomes: Mapping[str, Outcome]) -> None:
        """Count a fault, and keep its first examples."""
        self.faults[fault] += 1
        examples = self.examples.setdefault(fault, [])
        if len(examples) < EXAMPLES:
            examples.append(describe(sent, outcomes))


def collapse(words: str) -> str:
    """Return words with their numbers replaced, but for the status before them."""
    status, blank, text = words.partition(" ")
    return status + blank + re.sub(r"\b(?:0x[0-9a-f]+|[0-9]+)\b", "N", text)


def find_difference(
    by_name: Mapping[str, Seen], sent: Sent, *, node_ends: bool
) -> str | None:
    """Return how two servers differ in a request that both accept; None if not at all.

    Args:
        by_name: What the two saw.
        sent: What was sent.
        node_ends: Whether Node ended the connection after this request.
    """
    one, other = by_name.values()
    if (one.rest is None) != (other.rest is None):
        return NO_OFFER
    node = by_name.get(NODE)
    differs = one.rest != other.rest or (node_ends and one.length != other.length)
    if differs and node is not None and node.length == 0 and is_framed(sent.wire):
        return NODE_BODY
    if one.method != other.method:
        return "another method"
    hashes = one.hash and other.hash
    if one.length != other.length or (hashes and one.hash != other.hash):
        return "another body"
    if not is_same_target(one.target, other.target, exact=bool(hashes)):
        return "another target"
    if one.rest != other.rest:
        return "another place of the next byte"
    return None


def ends_after(outcome: Outcome, index: int) -> bool:
    """Tell whether a server ended the connection, without saying so, after a request."""
    return index == len(outcome.seen) - 1 and outcome.refusal == exchange.ENDED


def is_same_target(one: str, other: str, *, exact: bool) -> bool:
    """Tell whether two servers saw the same target; nginx leaves scheme and host out."""
    short, long = sorted((one, other), key=len)
    if exact or short == long:
        return short == long
    return long.endswith(short) or (short == "/" and "://" in long)


def is_framed(wire: bytes) -> bool:
    """Tell whether a request has a field that announces a body."""
    lower = wire.lower()
    return b"content-length:" in lower or b"transfer-encoding:" in lower


def describe(sent: Sent, outcomes: Mapping[str, Outcome]) -> str:
    """Return the lines that show a request and what each server made of it."""
    lines = [f"request {sent.number}, cut at {sent.cut}, switches: {sent.switches}"]
    lines.append(f"  {sent.wire!r}")
    for name, outcome in outcomes.items():
        lines.append(f"  {name}: {outcome.refusal or 'ends'}")
        lines += [f"    {seen}" for seen in outcome.seen]
    return "\n".join(lines)


def ask_all(targets: Sequence[Target], sent: Sent) -> dict[str, Outcome]:
    """Send a request to each server that takes it; return what they did, by name."""
    chosen = [each for each in targets if not sent.switches or each.switching_port]
    # They work at the same time.
    connections = [exchange.send(target, sent) for target in chosen]
    outcomes: dict[str, Outcome] = {}
    for target, connection in zip(chosen, connections, strict=True):
        data, fault = exchange.receive(connection)
        outcomes[target.name] = exchange.read_outcome(target, data, fault)
    return outcomes


def run(targets: Sequence[Target], seed: str, most: int, seconds: float) -> Tally:
    """Send requests until there are as many as wanted, or the time is over."""
    tally = Tally()
    began = reported = time.monotonic()
    for number in range(most):
        now = time.monotonic()
        if now - began > seconds:
            break
        if now - reported > _REPORT_SECONDS:
            reported = now
            print(f"{number} requests, {len(tally.faults)} kinds of faults", flush=True)
        sent = make(seed, number)
        tally.add(sent, ask_all(targets, sent))
    return tally


def print_tally(tally: Tally) -> None:
    """Print the counts, then the faults."""
    for name, count in tally.accepted.items():
        print(f"{name} accepted {count}, and switched {tally.switched[name]} of them")
    for (one, other), count in tally.compared.items():
        print(f"{one} and {other} accepted {count} requests and framed them alike")
    for difference, count in tally.known.items():
        print(f"{count} times {difference}")
    print("\nrefused by one, accepted by another:")
    for refusal, count in sorted(tally.refusals.items()):
        reason = tally.reasons.get(refusal, "NOT LISTED")
        print(
            f"{count:6} {refusal.server:5} {refusal.words[:60]:60} accepted by "
            f"{refusal.accepted_by:5} as {tally.first[refusal]:6}: {reason}"
        )
    for fault, count in sorted(tally.faults.items()):
        print(f"\nFAULT, {count} times: {fault}")
        print(*tally.examples[fault], sep="\n")


def main(arguments: Sequence[str]) -> int:
    """Run the fuzz; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="%(default)s")
    parser.add_argument("--requests", type=int, default=10**9, help="without a limit")
    parser.add_argument("--seed", help="of another run, to repeat its requests")
    parser.add_argument("--only", type=int, help="show the request of this number")
    options = parser.parse_args(arguments)
    seed = options.seed or f"{random.SystemRandom().getrandbits(32):08x}"
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        names = find_servers()
        starts = [STARTS[name][0] for name in names]
        targets = [stack.enter_context(start(folder)) for start in starts]
        print(f"seed {seed}; servers: {', '.join(names)}", flush=True)
        if options.only is not None:
            sent = make(seed, options.only)
            print(describe(sent, ask_all(targets, sent)))
            return 0
        began = time.monotonic()
        tally = run(targets, seed, options.requests, options.seconds)
    seconds = time.monotonic() - began
    faults = sum(tally.faults.values())
    print(f"{tally.requests} requests in {seconds:.0f} s, {faults} faults")
    print_tally(tally)
    return 1 if tally.faults else 0
