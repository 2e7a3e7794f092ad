"""The parts of the comparison work; these tests do not measure speed."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
import trio

from benchmarks.compare import compare, figures, load
from benchmarks.compare.picture import picture
from benchmarks.compare.programs import PEERS, Calm, Cores, Program, missing
from benchmarks.compare.report import Result, Row, full, summary
from benchmarks.compare.rounds import Budget
from benchmarks.room import room as room_benchmark

ROOT = Path(__file__).parents[2]
# Seconds that the load runs: just long enough for some operations.
MOMENT = 0.05
NO_CORES = Cores(None, None)
PLAN = compare.Plan(
    rounds=2,
    seconds=MOMENT,
    warm=MOMENT,
    idle=10,
    many=10,
    tunnels=10,
    small=10,
    budget=10,
    spare=0,
    patience=0,
)

RESULTS = [
    Result(
        "handshakes/s",
        [
            Row("trio_upgrade", 500.0, cpu=0.003, load=0.25, spread=0.5),
            Row("Node", 1000.0, cpu=0.002, load=0.95),
            Row("other", 4000.0, cpu=0.001),
        ],
        cpu_unit="CPU µs/op",
        note="Several & <each>.",
    ),
    Result(
        "KB",
        [Row("trio_upgrade", 3.0), Row("Node", 12.0), Row("other", 24.0)],
        less_is_better=True,
    ),
    Result("only ours", [Row("trio_upgrade", 3.0)]),
]


def echo_server(stack: ExitStack) -> Program:
    (ours, *_) = figures.SERVERS
    return figures.start_server(stack, ours, NO_CORES)


@pytest.mark.parametrize(
    "work",
    [
        load.handshakes,
        partial(load.handshakes, offer=load.WEBSOCKET),
        partial(load.round_trips, connections=3),
        partial(load.megabytes, connections=2),
        partial(load.megabytes, connections=1, half_close=False),
        load.requests,
    ],
    ids=["handshakes", "switches", "round trips", "MB", "MB without end", "requests"],
)
def test_load_runs_on_the_echo_server(work: figures.Work) -> None:
    """Each kind of load makes some operations on the example and ends."""
    with ExitStack() as stack:
        server = echo_server(stack)
        tally = work(server.port, MOMENT)
        load.check(server.port)

    assert tally.operations > 0
    assert tally.seconds >= MOMENT


def test_load_runs_through_the_relay() -> None:
    """All bytes come back through the relay."""
    (ours, *_) = figures.RELAYS
    with ExitStack() as stack:
        relay = figures.start_relay(stack, ours, NO_CORES)
        tally = figures.relayed(relay.port, MOMENT)

    assert tally.operations > 0


@pytest.mark.parametrize("protocol", ["echo", "websocket"])
def test_client_makes_handshakes(protocol: str) -> None:
    """The library's client prints figures that can be parsed."""
    (ours, *_) = figures.CLIENTS
    with ExitStack() as stack:
        raw = figures.start_raw(stack, ours, NO_CORES)
        sample = figures.by_client(protocol, ours, raw, MOMENT, NO_CORES)

    assert sample.value > 0
    assert sample.cpu


def test_client_makes_requests() -> None:
    """So does its pool, whose connection is kept."""
    (ours, *_) = figures.REQUEST_CLIENTS
    with ExitStack() as stack:
        raw = figures.start_raw(stack, ours, NO_CORES)
        sample = figures.by_client("get", ours, raw, MOMENT, NO_CORES)

    assert sample.value > 0
    assert sample.cpu


def test_check_finds_a_server_without_echo() -> None:
    """A server that sends a 101 and does not echo is reported."""
    code = (
        "import socket, sys; s = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n"
        "while True:\n c = s.accept()[0]\n"
        " if c.recv(65536): c.send(b'HTTP/1.1 101 x\\r\\n\\r\\n')\n"
        " while c.recv(65536): pass\n c.close()"
    )
    with Program((sys.executable, "-c", code, "{port}"), None) as program:
        with pytest.raises(load.ServerError, match="does not echo"):
            load.check(program.port)


def test_program_that_does_not_listen_is_an_error() -> None:
    """The error has the last line that the program printed."""
    with pytest.raises(load.ServerError, match="this is why"):
        Program((sys.executable, "-c", "import sys; sys.exit('this is why')"), None)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_program_is_measured() -> None:
    """The CPU time and the memory of a process are above zero."""
    with Program((sys.executable, str(PEERS / "raw.py"), "{port}"), None) as program:
        cpu, memory = program.cpu(), program.memory()

    assert cpu is not None
    assert cpu > 0
    assert memory is not None
    assert memory > 2**20


def test_messages_are_echoed() -> None:
    """The load of WebSocket messages runs on our echo server for WebSockets."""
    ours = figures.WEBSOCKETS[0]
    with ExitStack() as stack:
        server = figures.start_server(stack, ours, NO_CORES)
        tally = load.messages(server.port, MOMENT, connections=3)
        switches = load.handshakes(server.port, MOMENT, offer=load.WEBSOCKET)

    assert tally.operations > 0
    assert switches.operations > 0


def test_missing_peers_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """Peers that are missing or broken are named, and the others are compared."""
    (ours, *_) = figures.SERVERS
    peers = [
        ours,
        figures.Peer("absent", ("x",), "program:no-such-program"),
        figures.Peer("uninstalled", ("x",), "module:no_such_module"),
        figures.Peer("without it", ("x",), "node:no_such_package"),
        figures.Peer("broken", (sys.executable, "-c", "exit('broken indeed')")),
    ]
    figure = figures.Figure(
        "round trips",
        peers,
        partial(figures.by_load, partial(load.round_trips, connections=1)),
        figures.start_server,
        warm=True,
    )
    calm = Calm(NO_CORES, 0)
    result = compare.compare(figure, PLAN, NO_CORES, calm, Budget(calm, seconds=60))
    told = capsys.readouterr().err

    assert [row.peer for row in result.rows] == ["trio_upgrade"]
    assert "absent is left out: no program no-such-program" in told
    assert "uninstalled is left out: no Python module no_such_module" in told
    assert "without it is left out: no Node package no_such_package" in told
    assert "broken indeed" in told
    assert missing("") == ""


def test_idle_connections_are_held() -> None:
    """The figure of memory opens idle connections and returns a number."""
    with ExitStack() as stack:
        server = echo_server(stack)
        if server.memory() is None:
            pytest.skip("needs /proc")
        sample = figures.memory(10, figures.SERVERS[0], server, MOMENT, NO_CORES)

    assert sample.cpu is None


def test_summary_has_ratios_to_node() -> None:
    """A row has ours, its CPU, the others, and marks of the load and of the spread.

    A figure without Node has no row.
    """
    assert summary(RESULTS).splitlines()[2:] == [
        "| handshakes/s | **0.50** † ‡ | 1.50 | other 4.00 (0.50) |",
        "| KB | **0.25** | - | other 2.00 |",
    ]


def test_full_table_has_everything() -> None:
    """The best comes first; rows have ratios, the load's share and the spread."""
    lines = full(RESULTS).splitlines()

    assert "### handshakes/s" in lines
    assert lines[6:9] == [
        "| other | 4,000 | 4.00 | 1,000 | 0.50 | - | - |",
        "| Node | 1,000 | 1.00 | 2,000 | 1.00 | 95 % † | - |",
        "| **trio_upgrade** | 500 | 0.50 | 3,000 | 1.50 | 25 % | 50 % ‡ |",
    ]
    assert "| **trio_upgrade** | 3.00 | - | - | - | - | - |" in lines


def test_picture_puts_the_better_to_the_right() -> None:
    """The SVG has Node as a line, better peers to its right, and escaped names."""
    root = ET.fromstring(picture(RESULTS))
    svg = "{http://www.w3.org/2000/svg}"
    dots = {
        title.text: float(circle.attrib["cx"])
        for circle in root.iter(f"{svg}circle")
        if (title := circle.find(f"{svg}title")) is not None
    }
    (line,) = [x for x in root.iter(f"{svg}line") if x.attrib.get("class") == "one"]
    one = float(line.attrib["x1"])

    assert list(dots) == [
        "other: 4.00",
        "trio_upgrade: 0.50",
        "trio_upgrade, CPU: 0.67",
        "other: 0.50",
        "trio_upgrade: 4.00",
    ]
    for name, x in dots.items():
        assert (x > one) == (float(str(name).rpartition(" ")[2]) > 1)
    style = root.find(f"{svg}style")
    assert style is not None
    assert "prefers-color-scheme: dark" in str(style.text)


def test_readme_shows_the_picture() -> None:
    """The README shows the picture of the ratios, and names the page with the figures."""
    readme = (ROOT / "README.md").read_text()

    assert f"({compare.PICTURE})" in readme
    assert f"({compare.PAGE})" in readme
    ET.fromstring((ROOT / compare.PICTURE).read_text())


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")
async def test_tls() -> None:
    """The comparison of TLS runs; its quickest row connects 31 times to each server."""
    command = [sys.executable, str(ROOT / "benchmarks/tls.py"), "--rounds=1", "nagle"]
    with trio.fail_after(60):
        result = await trio.run_process(command, capture_stdout=True)

    assert result.stdout.split()[:3] == [b"ours", b"SSLStream", b"asyncio"]
    name, *figures = result.stdout.splitlines()[1].split()
    assert name == b"nagle"
    assert all(float(figure) > 0 for figure in figures)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_room(capsys: pytest.CaptureFixture[str]) -> None:
    """The measurement of a room runs, with few members; every member gets all."""
    room_benchmark.main(["--members", "10", "--rounds", "2"])
    lines = capsys.readouterr().out.splitlines()

    assert [line.split()[0] for line in lines[1:]] == ["raw", "WebSocket"]
