"""The figures that are compared, the peers of each, and how one measurement is made."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from . import load
from .heads import BROWSER_ECHO, BROWSER_GET
from .load import ECHO, WEBSOCKET, ServerError, Tally
from .programs import BOUND, PEERS, ROOT, Cores, Program, environment, find, pinned
from .report import NODE, OURS

if TYPE_CHECKING:
    from collections.abc import Callable

    from .report import Fact, Result
    from .rounds import Rounds

FLOOR = "Trio + h11 by hand"
PYTHON = sys.executable
# About how long a program takes to start.
START_SECONDS = 0.5


class Sample(NamedTuple):
    """One measurement of one peer."""

    value: float
    # The peer's CPU seconds per operation; the share of a core that the load generator
    # used.
    cpu: float | None = None
    load: float | None = None


class Peer(NamedTuple):
    """A program that is compared, and the programs or modules that it needs."""

    name: str
    command: tuple[str, ...]
    needs: str = ""
    offer: bytes = ECHO


def python_peer(file: str, *words: str) -> tuple[str, ...]:
    """Return a command for Python; ``{port}`` is replaced when it is started."""
    return (PYTHON, str(PEERS / file), *(words or ["{port}"]))


def node_peer(file: str, *words: str) -> tuple[str, ...]:
    """Return a command for Node."""
    return (find("node"), str(PEERS / file), *(words or ["{port}"]))


ECHO_SERVER = (PYTHON, str(ROOT / "examples" / "echo_server.py"), "{port}")
SERVERS = [
    Peer(OURS, ECHO_SERVER),
    Peer(NODE, node_peer("node_echo.js"), "program:node"),
    Peer(FLOOR, python_peer("floor.py")),
]
SOCKETS = [
    Peer("aiohttp", python_peer("aiohttp_echo.py"), "module:aiohttp", WEBSOCKET),
    Peer(
        "websockets", python_peer("websockets_echo.py"), "module:websockets", WEBSOCKET
    ),
    Peer(
        "uvicorn",
        python_peer("asgi_echo.py", "{port}", "uvicorn", "websockets"),
        "module:uvicorn",
        WEBSOCKET,
    ),
]
WEBSOCKETS = [
    Peer(OURS, python_peer("websocket_echo.py"), "module:websockets", WEBSOCKET),
    Peer(NODE, node_peer("ws_echo.js"), "node:ws", WEBSOCKET),
    *SOCKETS,
    Peer(
        "websockets on Trio",
        python_peer("websockets_trio_echo.py"),
        "module:websockets",
        WEBSOCKET,
    ),
    Peer(
        "trio-websocket",
        python_peer("trio_websocket_echo.py"),
        "module:trio_websocket",
        WEBSOCKET,
    ),
]
RELAYS = [
    Peer(OURS, python_peer("relay.py")),
    Peer(NODE, node_peer("node_relay.js"), "program:node"),
    Peer("HAProxy", ("haproxy", "tcp"), "program:haproxy"),
    Peer("nginx", ("nginx", "tcp"), "nginx:stream"),
]
CLIENTS = [
    Peer(OURS, python_peer("clients.py", "trio_upgrade")),
    Peer(NODE, (find("node"), str(PEERS / "node_client.js")), "program:node"),
    Peer(FLOOR, python_peer("clients.py", "floor")),
]
SOCKET_CLIENTS = [
    *CLIENTS[:2],
    Peer("aiohttp", python_peer("clients.py", "aiohttp"), "module:aiohttp"),
    Peer("websockets", python_peer("clients.py", "websockets"), "module:websockets"),
]
REQUEST_CLIENTS = [
    Peer(OURS, python_peer("clients.py", "pool")),
    Peer("httpcore", python_peer("clients.py", "httpcore"), "module:httpcore"),
    Peer("aiohttp", python_peer("clients.py", "aiohttp_get"), "module:aiohttp"),
]
IMPORTS = [
    # Import every name: the package imports a module only when a name of it is used.
    Peer(OURS, (PYTHON, "-c", "from trio_upgrade import *")),
    Peer(NODE, (find("node"), "-e", "require('node:http')"), "program:node"),
    Peer("Trio + h11", (PYTHON, "-c", "import trio, h11")),
    Peer("Python alone", (PYTHON, "-c", "pass")),
    Peer("aiohttp", (PYTHON, "-c", "import aiohttp.web"), "module:aiohttp"),
    Peer(
        "websockets",
        (PYTHON, "-c", "import websockets.asyncio.server"),
        "module:websockets",
    ),
    Peer("uvicorn", (PYTHON, "-c", "import uvicorn"), "module:uvicorn"),
]

Work: TypeAlias = "Callable[[int, float], Tally]"
# Takes a peer, the program that was started for it, the seconds and the cores.
Measure: TypeAlias = "Callable[[Peer, Program | None, float, Cores], Sample]"


@dataclass(frozen=True)
class Figure:
    """One figure of the comparison."""

    title: str
    peers: list[Peer]
    measure: Measure
    # Starts the program that has to run for each peer, if any.
    start: Callable[[ExitStack, Peer, Cores], Program] | None = None
    cpu_unit: str = "CPU µs/op"
    cpu_factor: float = 1e6
    less_is_better: bool = False
    # The share of the plan's rounds that are made.
    share: float = 1
    # Whether each peer is loaded once, without being measured, before the first round.
    warm: bool = False
    note: str = ""
    # The peer whose figures are 1.00.
    base: str = NODE
    # Makes facts about ours of the rows.
    conclude: Callable[[Result], list[Fact]] | None = None
    # Why it cannot be measured on this machine, "" if it can.
    why_not: str = ""

    def estimate(self, rounds: int, seconds: float, warm: float) -> float:
        """Return about how many seconds it takes.

        Args:
            rounds: The planned rounds.
            seconds: Seconds of a round.
            warm: Seconds of Node's load before its first round.
        """
        each = START_SECONDS + (rounds * self.share + self.warm) * seconds
        return len(self.peers) * each + self.warm * warm


@dataclass(frozen=True)
class Study:
    """Several facts about ours alone, which need one long preparation."""

    title: str
    # Takes the cores and the way to measure in rounds.
    measure: Callable[[Cores, Rounds], list[Fact]]
    note: str = ""
    why_not: str = ""
    # About how many seconds it takes, without and for each of its rounds.
    prepare: float = 5
    each: float = 0

    def estimate(self, rounds: int, _seconds: float, _warm: float) -> float:
        """Return about how many seconds it takes; see :meth:`Figure.estimate`."""
        return self.prepare + rounds * self.each


def start_server(stack: ExitStack, peer: Peer, cores: Cores) -> Program:
    """Start a server for the load generator, and check that it works."""
    program = stack.enter_context(Program(peer.command, cores.server))
    load.check(program.port, peer.offer)
    return program


def start_relay(stack: ExitStack, peer: Peer, cores: Cores) -> Program:
    """Start a relay, and an echo server behind it on the load generator's core."""
    raw = stack.enter_context(Program(python_peer("raw.py"), cores.load))
    command = (*peer.command, str(raw.port))
    program = stack.enter_context(Program(command, cores.server))
    program.beside = raw
    # Not check(), which half-closes: through nginx that loses bytes in transit.
    load.switch(program.port, peer.offer).close()
    return program


def start_raw(stack: ExitStack, _peer: Peer, cores: Cores) -> Program:
    """Start the server that clients are measured on."""
    return stack.enter_context(Program(python_peer("raw.py"), cores.load))


def by_load(
    work: Work,
    _peer: Peer,
    program: Program | None,
    seconds: float,
    cores: Cores,
    *,
    together: bool = False,
) -> Sample:
    """Load a server from this process."""
    assert program is not None
    programs = [program, program.beside] if program.beside else [program]
    before = [each.cpu() for each in programs]
    with pinned(cores.server if together else cores.load):
        tally = work(program.port, seconds)
    used = [
        None if start is None or end is None else end - start
        for start, end in zip(before, [each.cpu() for each in programs], strict=True)
    ]
    return Sample(
        tally.operations / tally.seconds,
        None if used[0] is None else used[0] / max(tally.operations, 1),
        (tally.cpu + sum(filter(None, used[1:]))) / tally.seconds,
    )


def by_client(
    protocol: str, peer: Peer, program: Program | None, seconds: float, cores: Cores
) -> Sample:
    """Let a client load the raw server.

    For twice the seconds: each time it is a new process that has to get warm.
    """
    assert program is not None
    seconds *= 2
    before = program.cpu()
    words = [str(program.port), protocol, str(seconds), "8"]
    with pinned(cores.server):
        done = subprocess.run(
            [*peer.command, *words],
            env=environment(),
            capture_output=True,
            timeout=2 * seconds + BOUND,
            check=False,
        )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise ServerError(f"ended: {(said or ['without a message'])[-1]}")
    operations, took, cpu = json.loads(done.stdout)
    after = program.cpu()
    used = None if before is None or after is None else (after - before) / took
    return Sample(operations / took, cpu / max(operations, 1), used)


def memory(
    connections: int,
    peer: Peer,
    program: Program | None,
    _seconds: float,
    cores: Cores,
) -> Sample:
    """Measure how many KB one idle connection takes."""
    assert program is not None
    with ExitStack() as stack, pinned(cores.load):
        # The first connections make everything that is made once and kept.
        load.hold(stack, program.port, 50, peer.offer)
        time.sleep(0.3)
        before = program.memory()
        load.hold(stack, program.port, connections, peer.offer)
        time.sleep(0.3)
        after = program.memory()
    if before is None or after is None:
        raise ServerError("its memory cannot be measured here")
    return Sample((after - before) / 1000 / connections)


def starting(
    peer: Peer, _program: Program | None, _seconds: float, cores: Cores
) -> Sample:
    """Measure how many milliseconds a program takes that only imports."""
    with pinned(cores.server):
        began = time.perf_counter()
        # Wait for the end of its output.  To wait for the process with a timeout would
        # poll every 50 ms, which is too coarse.
        subprocess.run(
            peer.command,
            env=environment(),
            timeout=BOUND,
            check=True,
            stdout=subprocess.PIPE,
        )
        return Sample((time.perf_counter() - began) * 1000)


def relayed(port: int, seconds: float, offer: bytes = ECHO) -> Tally:
    """Flood one connection, and close it without a half-close: nginx loses bytes then."""
    return load.megabytes(port, seconds, 1, offer=offer, half_close=False)


def figures(idle: int) -> list[Figure]:
    """Return all figures; ``idle`` connections are opened to measure their memory."""
    per_gb = {"cpu_unit": "CPU s/GB", "cpu_factor": 1e3}
    return [
        Figure(
            "handshakes/s",
            SERVERS,
            partial(by_load, load.handshakes),
            start_server,
            warm=True,
            note="16 at a time: connect, upgrade, 16 bytes echoed, half-close, end.",
        ),
        Figure(
            "handshakes/s with a browser's head",
            SERVERS,
            partial(by_load, partial(load.handshakes, offer=BROWSER_ECHO)),
            start_server,
            warm=True,
            note="The same, with the 13 fields that Chromium sends.",
        ),
        Figure(
            "round trips/s, 1 connection",
            SERVERS,
            partial(by_load, partial(load.round_trips, connections=1), together=True),
            start_server,
            warm=True,
            note="64 bytes; server and load share a core: on two cores, the figure would "
            "mostly be the time to wake a core.",
        ),
        Figure(
            "round trips/s, 32 connections",
            SERVERS,
            partial(by_load, partial(load.round_trips, connections=32)),
            start_server,
            warm=True,
            note="64 bytes on each.",
        ),
        Figure(
            "echo, MB/s",
            SERVERS,
            partial(by_load, partial(load.megabytes, connections=8)),
            start_server,
            warm=True,
            note="8 connections, flooded both ways.",
            **per_gb,  # type: ignore[arg-type]
        ),
        Figure(
            "KB per idle connection",
            [*SERVERS, *SOCKETS],
            partial(memory, idle),
            start_server,
            cpu_unit="",
            less_is_better=True,
            share=0.01,
            note=f"{idle:,} upgraded connections; WebSocket if a peer has only that.",
        ),
        Figure(
            "GET requests/s",
            # Not websockets: it closes the connection after each ordinary response.
            [*SERVERS, SOCKETS[0], SOCKETS[2]],
            partial(by_load, load.requests),
            start_server,
            warm=True,
            note="16 keep-alive connections.",
        ),
        Figure(
            "GET requests/s with a browser's head",
            [*SERVERS, SOCKETS[0], SOCKETS[2]],
            partial(by_load, partial(load.requests, request=BROWSER_GET)),
            start_server,
            warm=True,
            note="16 keep-alive connections, and the 13 fields that Chromium sends.",
        ),
        Figure(
            "WebSocket switches/s",
            WEBSOCKETS,
            partial(by_load, partial(load.handshakes, offer=WEBSOCKET)),
            start_server,
            warm=True,
            note="16 at a time: connect, upgrade, end. Node with ws; the row websockets "
            "is its server for asyncio.",
        ),
        Figure(
            "WebSocket messages/s",
            WEBSOCKETS,
            partial(by_load, load.messages),
            start_server,
            warm=True,
            note="64 bytes, echoed one at a time on each of 32 connections.",
        ),
        Figure(
            "relay, MB/s",
            RELAYS,
            partial(by_load, relayed),
            start_relay,
            warm=True,
            note="1 connection, flooded both ways; the echo server behind the relay "
            "shares the load's core. HAProxy and nginx in TCP mode.",
            **per_gb,  # type: ignore[arg-type]
        ),
        Figure(
            "client: handshakes/s",
            CLIENTS,
            partial(by_client, "echo"),
            start_raw,
            share=0.3,
            note="8 at a time, against a server of raw sockets, which is the load in "
            "this figure.",
        ),
        Figure(
            "client: WebSocket/s",
            SOCKET_CLIENTS,
            partial(by_client, "websocket"),
            start_raw,
            share=0.3,
            note="8 at a time. The first two end after the 101; the WebSocket libraries "
            "check a key, and make the close handshake.",
        ),
        Figure(
            "client: GET requests/s",
            REQUEST_CLIENTS,
            partial(by_client, "get"),
            start_raw,
            share=0.3,
            base="httpcore",
            note="8 at a time on kept connections, by each library's pool; httpcore on "
            "Trio.",
        ),
        Figure(
            "ms to start and import",
            IMPORTS,
            starting,
            share=0.5,
            cpu_unit="",
            less_is_better=True,
            note="The whole program: interpreter, import, end.",
        ),
    ]
