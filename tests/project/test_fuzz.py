"""The differential fuzz works: it finds no fault here, and it would find one."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace

import pytest
import trio

from benchmarks.fuzz.exchange import CUT, ENDED, SILENT, Outcome, Seen
from benchmarks.fuzz.fuzz import NO_OFFER, NODE_BODY, Tally, print_tally
from benchmarks.fuzz.requests import make
from benchmarks.fuzz.servers import NGINX, NODE, OURS

SENT = replace(
    make("suite", 1), wire=b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"
)
REQUEST = Seen("POST", "/", 5, "aaf4c61ddcc5")
MARKER = Seen("GET", "/marker-1", 0, "da39a3ee5e6b")
ACCEPTED = Outcome([REQUEST, MARKER], ENDED)


async def fuzz(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-X", "dev", "-m", "benchmarks.fuzz", *arguments]
    return await trio.run_process(
        command, capture_stdout=True, stderr=subprocess.STDOUT, check=False
    )


async def test_some_requests() -> None:
    """The servers that are found here frame some hundred requests alike."""
    result = await fuzz("--requests", "400", "--seed", "suite")
    output = result.stdout.decode()

    assert result.returncode == 0, output
    assert output.startswith("seed suite; servers: ours")
    assert re.search(r"^400 requests in \d+ s, 0 faults$", output, re.MULTILINE)
    assert re.search(
        r"^ours accepted [1-9]\d+, and switched [1-9]", output, re.MULTILINE
    )


async def test_one_request_is_shown() -> None:
    """A request can be sent again by its seed and number."""
    result = await fuzz("--seed", "suite", "--only", "7")

    assert result.returncode == 0
    assert f"{make('suite', 7).wire!r}" in result.stdout.decode()


def test_requests_are_reproducible() -> None:
    """Seed and number say everything; most requests differ from each other."""
    assert [make("a", number) for number in range(50)] == [
        make("a", number) for number in range(50)
    ]
    wires = {make(seed, number).wire for seed in "ab" for number in range(200)}
    assert len(wires) > 390


def compare(**outcomes: Outcome) -> Tally:
    tally = Tally()
    names = {"ours": OURS, "node": NODE, "nginx": NGINX}
    tally.add(SENT, {names[name]: outcome for name, outcome in outcomes.items()})
    return tally


@pytest.mark.parametrize(
    ("other", "fault"),
    [
        (ACCEPTED, None),
        ([REQUEST._replace(hash="", target=""), MARKER._replace(hash="")], None),
        ([REQUEST._replace(length=0), MARKER], "another body"),
        ([REQUEST._replace(hash="0123456789ab"), MARKER], "another body"),
        ([REQUEST, MARKER._replace(target="/inner")], "another target"),
        ([REQUEST, MARKER._replace(hash="", target="/i")], "another target"),
        ([REQUEST._replace(method="POS"), MARKER], "another method"),
    ],
)
def test_framing_that_differs(
    other: Outcome | list[Seen], fault: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every difference is a fault, and is printed with the request."""
    outcome = other if isinstance(other, Outcome) else Outcome(other, ENDED)
    tally = compare(ours=ACCEPTED, nginx=outcome)
    print_tally(tally)

    assert [*tally.faults] == ([] if fault is None else [f"nginx and ours: {fault}"])
    assert (repr(SENT.wire) in capsys.readouterr().out) == (fault is not None)


@pytest.mark.parametrize(
    ("ours", "node", "known", "faults"),
    [
        ((5, 34), (5, 34), [], []),
        ((5, 34), (5, 35), [], ["Node and ours: another place of the next byte"]),
        ((5, 34), (0, 39), [NODE_BODY], []),
        ((5, 34), None, [NO_OFFER], []),
    ],
)
def test_place_of_the_first_byte_after_a_switch(
    ours: tuple[int, int], node: tuple[int, int] | None, known: list[str], faults
) -> None:
    """After a switch the bytes of the other protocol have to be the same."""

    def switched(numbers: tuple[int, int]) -> Outcome:
        rest = (numbers[1], str(numbers[1]))
        return Outcome([REQUEST._replace(length=numbers[0], rest=rest)], ENDED)

    tally = compare(
        ours=switched(ours), node=ACCEPTED if node is None else switched(node)
    )

    assert [*tally.known] == known
    assert [*tally.faults] == faults


def test_class_that_is_not_listed() -> None:
    """A refusal has to be in the list if another server accepts the request."""
    words = "400 more than one Host field"
    listed = compare(ours=Outcome([], words), node=ACCEPTED)
    unlisted = compare(ours=Outcome([], "400 some new rule"), node=ACCEPTED)
    alone = compare(ours=Outcome([], "400 some new rule"), node=Outcome([], CUT))

    assert [*listed.refusals] == [(OURS, words, NODE)]
    assert not listed.faults
    assert [*unlisted.faults] == ["not listed: ours: 400 some new rule"]
    assert not alone.faults


def test_server_that_does_not_end() -> None:
    """A server that neither answers nor ends is a fault."""
    assert [*compare(ours=Outcome([], SILENT)).faults] == ["ours: silent"]
