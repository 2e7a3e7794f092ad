# /// script
# requires-python = ">=3.11"
# dependencies = ["trio-upgrade", "hypercorn[trio]"]
# ///
"""Compare ASGI applications on this library with plain apps, and with hypercorn.

    python benchmarks/asgi.py [--rounds N] [--seconds S] [--no-instructions]

The application answers each GET with the same small text. First the instructions that one
request takes in the server, of the plain app as 1 (by valgrind, if it is installed; they
hardly vary). Then requests a second with 16 connections that are kept alive, of the plain
app, of the application on this library, and on hypercorn's trio worker; the servers take
turns, and the least and the most of the rounds are the spread.
"""

from __future__ import annotations

import argparse
import re
import selectors
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import trio

from trio_upgrade import Request, Response, drain_on_signal, serve_listeners
from trio_upgrade.asgi import open_asgi

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    Send = Callable[[dict[str, object]], Awaitable[None]]

HOST = "127.0.0.1"
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
BODY = b"x" * 20
FIELDS = [(b"content-length", b"20"), (b"content-type", b"text/plain")]
CONNECTIONS = 16
SERVERS = ("plain", "ours", "hypercorn")
# Requests of the two runs, whose difference is free of the start.
FEW, MANY = 200, 1200


################################################################
# The servers, each in a process of its own
################################################################


async def app(_request: Request) -> Response:
    """Answer without ASGI."""
    return Response(200, BODY, {"content-type": "text/plain"})


async def application(
    scope: Mapping[str, object], _receive: object, send: Send
) -> None:
    """Answer by ASGI."""
    if scope["type"] != "http":
        raise NotImplementedError  # hypercorn fails if it returns.
    await send({"type": "http.response.start", "status": 200, "headers": FIELDS})
    await send({"type": "http.response.body", "body": BODY})


async def serve(kind: str, descriptor: int) -> None:
    """Serve on an inherited socket until SIGTERM."""
    sock = trio.socket.from_stdlib_socket(socket.socket(fileno=descriptor))
    listeners = [trio.SocketListener(sock)]
    async with open_asgi(application) as adapter, trio.open_nursery() as nursery:
        chosen = adapter if kind == "ours" else app
        server = await nursery.start(serve_listeners, chosen, listeners)
        await drain_on_signal(server, signal.SIGTERM, grace=1)


async def serve_hypercorn(descriptor: int) -> None:
    """Serve by hypercorn's trio worker, in this process."""
    from hypercorn.config import Config
    from hypercorn.trio import serve

    config = Config()
    config.bind = [f"fd://{descriptor}"]
    stopped = trio.Event()

    async def stop() -> None:
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            async for _ in signals:
                stopped.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop)
        asgi: Any = application
        await serve(asgi, config, shutdown_trigger=stopped.wait)
        nursery.cancel_scope.cancel()


@contextmanager
def running(kind: str, *prefix: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Run a server; give its port and the process."""
    with socket.create_server((HOST, 0), backlog=128) as listener:
        command = [*prefix, sys.executable, __file__, "--serve", kind]
        descriptor = listener.fileno()
        process = subprocess.Popen(
            [*command, str(descriptor)],
            pass_fds=[descriptor],
            stderr=subprocess.PIPE if prefix else None,
        )
        with process:
            try:
                yield listener.getsockname()[1], process
            finally:
                process.terminate()


################################################################
# The client
################################################################


def ask(sock: socket.socket) -> None:
    """Make one request and read its answer."""
    sock.sendall(GET)
    received = b""
    while not received.endswith(b"\r\n\r\n" + BODY):
        chunk = sock.recv(65536)
        assert chunk
        received += chunk


def count_instructions(kind: str) -> float:
    """Return how many instructions one request takes."""
    totals: list[int] = []
    for requests in (FEW, MANY):
        valgrind = ("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null")
        with running(kind, *valgrind) as (port, process):
            with socket.create_connection((HOST, port)) as sock:
                for _ in range(requests):
                    ask(sock)
            process.terminate()
            _, report = process.communicate()
        found = re.search(rb"Collected : (\d+)", report)
        assert found is not None, report
        totals.append(int(found[1]))
    return (totals[1] - totals[0]) / (MANY - FEW)


def count_requests(port: int, seconds: float) -> float:
    """Return how many requests a second are answered on kept connections."""
    answered = 0
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        received: dict[Any, bytes] = {}
        for _ in range(CONNECTIONS):
            made = stack.enter_context(socket.create_connection((HOST, port)))
            made.sendall(GET)
            selector.register(made, selectors.EVENT_READ)
            received[made] = b""
        began = time.perf_counter()
        while (now := time.perf_counter()) < began + seconds:
            for key, _ in selector.select():
                sock: Any = key.fileobj
                received[sock] += sock.recv(65536)
                if received[sock].endswith(b"\r\n\r\n" + BODY):
                    received[sock] = b""
                    answered += 1
                    sock.sendall(GET)
        return answered / (now - began)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description="See the top of this file.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--no-instructions", action="store_true")
    parser.add_argument("--serve", nargs=2, metavar=("KIND", "FD"))
    options = parser.parse_args()
    if options.serve is not None:
        kind, descriptor = options.serve
        if kind == "hypercorn":
            trio.run(serve_hypercorn, int(descriptor))
        else:
            trio.run(serve, kind, int(descriptor))
        return
    if not options.no_instructions and shutil.which("valgrind"):
        plain, ours = map(count_instructions, SERVERS[:2])
        print(f"instructions: plain {plain:,.0f}, ours {ours:,.0f}: {plain / ours:.2f}")
    rates: dict[str, list[float]] = {kind: [] for kind in SERVERS}
    with ExitStack() as stack:
        ports = {kind: stack.enter_context(running(kind))[0] for kind in SERVERS}
        for port in ports.values():
            count_requests(port, 0.5)  # Until it is warm.
        for _ in range(options.rounds):
            for kind, port in ports.items():
                rates[kind].append(count_requests(port, options.seconds))
    for kind, found in rates.items():
        median = statistics.median(found)
        print(
            f"{kind:<10}{median:>8,.0f} requests/s "
            f"({min(found):,.0f} to {max(found):,.0f})"
        )


if __name__ == "__main__":
    main()
