"""The rows over TLS, of ASGI, workers, many connections and tunnels: that each runs.

None of these tests measures speed.
"""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.compare import (
    asgi,
    compare,
    figures,
    load,
    many,
    programs,
    tls,
    tunnels,
    workers,
)
from benchmarks.compare.picture import Scale, picture
from benchmarks.compare.programs import Calm, Cores, Program, commit, missing
from benchmarks.compare.report import Fact, Result, Row, full, summary
from benchmarks.compare.rounds import MOST, Budget, Rounds, is_wide, spread

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
# Seconds that a load runs: just long enough for some operations.
MOMENT = 0.05
NO_CORES = Cores(None, None)

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="needs /proc"
)


def no_budget(seconds: float = 60, spare: float = 0) -> tuple[Calm, Budget]:
    """Return a Calm that never waits, and a budget."""
    calm = Calm(NO_CORES, 0)
    return calm, Budget(calm, seconds, spare)


def one_round() -> Rounds:
    """Return rounds of which there is one."""
    calm, budget = no_budget(seconds=0)
    return Rounds(1, MOMENT, calm, budget)


def names(facts: list[Fact]) -> list[str]:
    """Return what the facts are about."""
    return [fact.name for fact in facts]


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([5.0], None),
        ([0.0, 0.0], None),
        ([9.0, 10.0, 11.0], 0.2),
        # One round of eight was disturbed: the middle half does not notice.
        ([10.0, 10.0, 10.0, 10.0, 10.0, 10.0, 10.0, 1.0], 0.0),
        ([8.0, 9.0, 10.0, 11.0, 12.0], 0.2),
    ],
)
def test_spread_is_that_of_the_middle_half(
    values: list[float], wanted: float | None
) -> None:
    """The spread is the width of the middle half; of few rounds, the whole range."""
    assert spread(values) == wanted
    assert not is_wide(values)


def test_wide_rounds_are_repeated() -> None:
    """Rounds that differ much are repeated until they do not, or for a bounded time."""
    calm, budget = no_budget()
    steady = iter([1.0, 2.0, *[1.5] * 10])
    restless: Iterator[float] = iter([1.0, 2.0] * 10)

    found = Rounds(2, 0, calm, budget).measure(partial(next, steady))

    assert found == [1.0, 2.0, 1.5, 1.5]
    assert len(Rounds(2, 0, calm, budget).measure(partial(next, restless))) == 2 * MOST


def test_budget_ends_rounds() -> None:
    """After the end of the time the first round is allowed, and no other one."""
    _, budget = no_budget(seconds=-1)
    wide = [[1.0, 2.0]]

    assert budget.allows(0, 3, [])
    assert not budget.allows(1, 3, wide)
    assert not budget.allows(3, 3, wide)


def test_budget_has_spare_time() -> None:
    """Spare time is for more rounds only, and what they take is not given again."""
    _, budget = no_budget(seconds=-1, spare=60)
    wide = [[1.0, 2.0], []]

    assert not budget.allows(1, 3, wide)
    assert budget.allows(3, 3, wide)
    assert not budget.allows(3, 3, [[1.0, 1.0]])
    # The second that is over is paid from the spare time.
    budget.give(30, 0)
    assert budget.allows(1, 3, wide)
    budget.give(-30, -58.5)
    assert budget.allows(3, 3, wide)
    budget.give(0, -1)
    assert not budget.allows(3, 3, wide)


def test_facts_have_bounds() -> None:
    """A fact says what is wanted, whether it is kept, and whether it is unsteady."""
    result = Result(
        "many",
        facts=[
            Fact("memory", 4.32, "KB", most=4.5),
            Fact("rate", 0.8, least=0.95, spread=0.3),
            Fact("collection", 184, "ms"),
        ],
    )

    lines = [
        "| figure of trio_upgrade | measured | wanted | kept | spread |",
        "| --- | --- | --- | --- | --- |",
        "| memory | 4.32 KB | ≤ 4.50 KB | yes | - |",
        "| rate | 0.80 | ≥ 0.95 | no | 30 % ‡ |",
        "| collection | 184 ms | - | - | - |",
    ]
    assert summary([result]).splitlines() == lines
    assert full([result]).splitlines() == ["### many", "", *lines]
    assert not result.has_failed
    assert Result("many").has_failed


def test_unsteady_rows_are_marked() -> None:
    """Rows whose rounds differ much have a mark in both tables."""
    rows = [Row("trio_upgrade", 5, spread=0.21), Row("Node", 10, spread=0.2)]
    result = Result("GET", rows)

    assert "| GET | **0.50** ‡ | - |  |" in summary([result])
    assert "| **trio_upgrade** | 5.00 | 0.50 | - | - | - | 21 % ‡ |" in full([result])
    assert "| Node | 10.0 | 1.00 | - | - | - | 20 % |" in full([result])


def test_other_bases_are_named() -> None:
    """A figure that is compared with another peer than Node says so everywhere."""
    rows = [Row("trio_upgrade", 5), Row("uvicorn", 10), Row("hypercorn", 2)]
    result = Result("ASGI", rows, base="uvicorn")

    assert "| ASGI (uvicorn = 1.00) | **0.50** | - | hypercorn 0.20 |" in summary(
        [result]
    )
    assert "| peer | figure | ÷ uvicorn |" in full([result])
    assert "ASGI (than uvicorn)" in picture([result])
    alone = Result("ASGI", rows, base="trio_upgrade")
    assert not alone.is_compared
    assert summary([alone]) == ""


def test_one_scale_has_room_for_all_dots() -> None:
    """All figures share one scale, which ends where the last dot is, or after it."""
    result = Result("GET", [Row("trio_upgrade", 1), Row("Node", 40), Row("x", 200)])
    root = ET.fromstring(picture([result]))
    svg = "{http://www.w3.org/2000/svg}"
    lines = [float(line.attrib["x1"]) for line in root.iter(f"{svg}line")]
    dots = [
        float(circle.attrib["cx"])
        for circle in root.iter(f"{svg}circle")
        if circle.find(f"{svg}title") is not None
    ]

    assert Scale([1 / 40, 5]).ticks == [2.0**power for power in range(-6, 4)]
    assert Scale([]).ticks == [0.5, 1, 2]
    assert len(dots) == 2
    assert min(lines) < min(dots) < max(dots) < max(lines)


def test_commit_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The page names the commit; outside a clone it says that none is known."""
    if commit():
        assert f"The commit is {commit()}." in compare.page([])
    monkeypatch.setattr(programs, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))

    assert commit() == ""
    assert "The commit is unknown." in compare.page([])


def test_several_needs() -> None:
    """A peer may need several things; the first one that is missing is named."""
    assert missing("module:trio module:h11") == ""
    assert missing("module:trio module:no_such") == "no Python module no_such"


def test_figures_that_cannot_be_measured_say_why(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """They are left out with a reason, which is not a failure."""
    calm, budget = no_budget()
    (lonely, _) = workers.worker_figures(Cores(0, 0))
    (many_idle,) = many.many_studies(19_000, 1024)
    assert isinstance(lonely, figures.Figure)
    results = [
        compare.compare(lonely, compare.QUICK, NO_CORES, calm, budget),
        compare.measure_study(many_idle, compare.QUICK, NO_CORES, calm, budget),
    ]
    told = capsys.readouterr().err

    assert "it needs two cores" in told
    assert "19,300 descriptors" in told
    assert "1,024 are allowed" in full(results)
    assert not any(result.has_failed for result in results)
    assert not many.many_studies(19_000, 20_000)[0].why_not
    assert "4,300 descriptors" in tunnels.tunnel_studies(2000, 500, 1024)[0].why_not


def test_studies_that_fail_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    """A study that fails has no facts, and counts as a failure."""

    def fail(cores: Cores, rounds: Rounds) -> list[Fact]:
        raise load.ServerError("no luck")

    calm, budget = no_budget()
    study = figures.Study("unlucky", fail)
    result = compare.measure_study(study, compare.QUICK, NO_CORES, calm, budget)

    assert result.has_failed
    assert "failed: no luck" in capsys.readouterr().err


@pytest.mark.parametrize("work", [tls.handshakes, tls.requests])
@pytest.mark.parametrize("peer", [tls.PEERS[0], tls.PEERS[2]], ids=["ours", "by hand"])
def test_load_runs_over_tls(work: figures.Work, peer: figures.Peer) -> None:
    """Both kinds of load make some operations over TLS and end."""
    with ExitStack() as stack:
        server = tls.start_tls(stack, peer, NO_CORES)
        tally = work(server.port, MOMENT)

    assert tally.operations > 0


@pytest.mark.parametrize("peer", asgi.SERVERS, ids=lambda peer: peer.name)
def test_asgi_servers_answer_the_load(peer: figures.Peer) -> None:
    """Each server runs the application: requests and WebSocket messages."""
    if why := missing(peer.needs):
        pytest.skip(why)
    with ExitStack() as stack:
        server = figures.start_server(stack, peer, NO_CORES)
        requests = load.requests(server.port, MOMENT, connections=2)
        messages = load.messages(server.port, MOMENT, connections=2)

    assert requests.operations > 0
    assert messages.operations > 0


@needs_proc
@pytest.mark.parametrize("peer", workers.WORKERS, ids=["one worker", "two workers"])
def test_workers_are_measured(peer: figures.Peer) -> None:
    """The CPU time of a program counts that of its workers."""
    with ExitStack() as stack:
        server = workers.start_workers(stack, peer, NO_CORES)
        assert len(server._processes()) == (2 if peer.name == workers.TWO else 1) + 1
        work = partial(load.requests, connections=4)
        sample = workers.by_workers(work, peer, server, MOMENT, NO_CORES)

    assert sample.value > 0
    assert sample.cpu


def test_workers_are_compared() -> None:
    """Two workers on two cores are compared with what the load leaves to them."""
    rows = [
        Row("trio_upgrade", 10_000, cpu=80e-6, load_cpu=20e-6, spread=0.1),
        Row(workers.TWO, 15_200, cpu=84e-6, load_cpu=20e-6),
    ]
    facts = workers.conclude("GET", Result("workers", rows))

    assert [(fact.show(fact.value), fact.kept) for fact in facts] == [
        ("80.0 µs", "-"),
        ("20.0 µs", "-"),
        ("1.05", "yes"),
        ("1.52", "-"),
        # 1.52 of 2·80/(80+20) = 1.6.
        ("0.95", "yes"),
    ]
    assert facts[-1].spread == 0.1
    assert workers.conclude("GET", Result("workers", rows[:1])) == []


def test_workers_run_where_they_should() -> None:
    """One worker has the server's core; two run anywhere."""
    cores = Cores(0, 1)

    assert workers.place(workers.WORKERS[0], cores) == cores
    assert workers.place(workers.WORKERS[1], cores) == NO_CORES
    assert all(not figure.why_not for figure in workers.worker_figures(cores))


@needs_proc
def test_many_connections_are_measured() -> None:
    """The study opens its connections and has all its facts."""
    facts = many.measure(2 * many.PARTS, NO_CORES, one_round())

    assert names(facts) == [
        "38 idle: memory of each",
        "38 idle: kernel memory of each end",
        "38 idle: CPU of an opening",
        "38 idle: round trips of 32 others, beside them to without",
        "38 idle: CPU of such a round trip, beside them to without",
        "38 idle: CPU of all while idle",
        "38 idle: a full garbage collection",
        "38 idle: the same after gc.freeze()",
    ]
    collection, frozen = (fact.value for fact in facts[-2:])
    assert frozen < collection


@needs_proc
def test_tunnels_are_measured() -> None:
    """Each idle tunnel takes two descriptors of a proxy."""
    facts = tunnels.cost(5, NO_CORES, one_round())

    assert names(facts) == [
        "5 tunnels of ForwardProxy: memory of each",
        "5 tunnels of ForwardProxy: descriptors of each",
        "5 tunnels of an app with relay(): memory of each",
        "5 tunnels of an app with relay(): descriptors of each",
    ]
    assert [fact.value for fact in facts[1::2]] == [2, 2]


def test_small_tunnels_run_beside_a_flood() -> None:
    """Small messages go on beside a flood, and both are counted."""
    if why := missing("program:nice"):
        pytest.skip(why)
    kept, flood = tunnels.fairness(3, NO_CORES, one_round())

    assert kept.value > 0
    assert flood.value > 0


def test_tunnel_that_is_refused_is_an_error() -> None:
    """A proxy that refuses is not measured."""
    (ours, *_) = figures.SERVERS
    with ExitStack() as stack:
        server = figures.start_server(stack, ours, NO_CORES)
        with pytest.raises(load.ServerError, match=r"no tunnel|ended"):
            tunnels.dig(server.port, server.port)


@needs_proc
def test_descriptors_are_counted() -> None:
    """A server that listens has at least its standard streams and its socket."""
    with ExitStack() as stack:
        program = stack.enter_context(Program(tunnels.ECHOING, None))
        found = program.descriptors()

    assert found is not None
    assert found > 3


@pytest.mark.parametrize(
    ("plan", "minutes"),
    [(compare.WHOLE, 10), (compare.QUICK, 2)],
    ids=["whole", "quick"],
)
def test_plan_ends_in_time(plan: compare.Plan, minutes: int) -> None:
    """What is planned fits the budget, and all of it the minutes that are promised."""
    every = compare.every_figure(plan, Cores(0, 1), allowed=20_000)
    scale = (plan.rounds, plan.seconds, plan.warm)
    planned = sum(each.estimate(*scale) for each in every)

    assert 0.8 * planned < plan.budget < 1.1 * planned
    assert plan.budget + plan.spare + plan.patience < 60 * minutes


def test_only_names_groups() -> None:
    """Each group that the help names has figures."""
    said = subprocess.run(
        [sys.executable, "-m", "benchmarks.compare", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    described = " ".join(said.split()).partition("in their title: ")[2]
    groups = described.replace(" and others", "").split(", ")
    titles = [
        each.title
        for each in compare.every_figure(compare.QUICK, Cores(0, 1), allowed=20_000)
    ]

    assert {"TLS", "ASGI", "workers", "many", "tunnels"} <= {*groups}
    for group in groups:
        assert any(group in title for title in titles), group
