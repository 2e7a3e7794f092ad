# /// script
# requires-python = ">=3.11"
# dependencies = ["trio-upgrade", "trustme"]
# ///
"""Compare the CPU time of TLS: ours, that of Trio's SSLStream, and that of asyncio.

    python benchmarks/tls.py [--rounds N] [ROW...]

One client without TLS tricks (a blocking ``ssl.SSLSocket``) talks to one server at a time
on the loopback interface, each on a core of its own. What is measured is the server's CPU
time for each operation, but for the rows ``nagle`` and ``idle``. The servers take turns,
and the least of the rounds counts. asyncio's server parses no HTTP: it only looks for two
words. Needs Linux's /proc.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio
import trustme

from trio_upgrade import (
    Request,
    Response,
    Server,
    Upgrade,
    UpgradedStream,
    pipe,
    serve_listeners,
    serve_ssl_over_tcp,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HOST = "127.0.0.1"
SERVERS = ("ours", "SSLStream", "asyncio")
BODY = b"x" * 20
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
OFFER = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
)
OKAY = b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n%b\r\n" + BODY
PAGE = os.sysconf("SC_PAGE_SIZE")


################################################################
# The servers, each in a process of its own
################################################################


async def echo(_request: Request, stream: UpgradedStream, _head: bytes) -> None:
    """Echo, as Node's ``socket.pipe(socket)`` does."""
    await pipe(stream, stream)


async def app(request: Request) -> Response | Upgrade:
    """Switch an offer of "echo", and answer every other request."""
    return Upgrade("echo", echo) if "echo" in request.upgrades else Response(200, BODY)


async def serve(kind: str, context: ssl.SSLContext) -> None:
    """Serve with this library, on our TLS or on Trio's, and print the port."""
    start = partial(serve_ssl_over_tcp, app, 0, context, host=HOST)
    if kind == "SSLStream":
        listeners = await trio.open_ssl_over_tcp_listeners(0, context, host=HOST)
        start = partial(serve_listeners, app, listeners)
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(start)
        print(server.url.rpartition(":")[2], flush=True)


class Raw(asyncio.Protocol):
    """What asyncio can do at most: a protocol that answers and echoes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin with HTTP."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.switched = False

    def data_received(self, data: bytes) -> None:
        """Echo after a switch; otherwise answer."""
        if self.switched:
            self.transport.write(data)
        elif b"Upgrade" in data:
            self.switched = True
            self.transport.write(SWITCHED)
        elif b"close" in data:
            self.transport.write(OKAY % b"Connection: close\r\n")
            self.transport.close()
        else:
            self.transport.write(OKAY % b"")


async def serve_raw(context: ssl.SSLContext) -> None:
    """Serve with asyncio alone, and print the port."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Raw, HOST, 0, ssl=context, backlog=1000)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def run_server(kind: str, certificate: str) -> None:
    """Run one of the servers, until it is killed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    if kind == "asyncio":
        asyncio.run(serve_raw(context))
    else:
        trio.run(serve, kind, context)


################################################################
# The client
################################################################


class Target:
    """A server that runs, and the way to connect to it."""

    def __init__(self, pid: int, port: int, context: ssl.SSLContext) -> None:
        self.pid = pid
        self.port = port
        self.context = context

    def connect(self, *, nagle: bool = False) -> ssl.SSLSocket:
        """Connect and make the handshake."""
        sock = socket.create_connection((HOST, self.port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, not nagle)
        return self.context.wrap_socket(sock, server_hostname="localhost")

    def upgrade(self) -> ssl.SSLSocket:
        """Connect, and switch to "echo"."""
        client = self.connect()
        client.sendall(OFFER)
        receive_until(client, b"\r\n\r\n")
        return client

    def cpu(self) -> float:
        """Return the microseconds of CPU time that the server has used."""
        return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[0]) / 1000

    def memory(self) -> float:
        """Return the KB of memory that the server holds."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * PAGE / 1024


def receive_until(client: ssl.SSLSocket, end: bytes) -> None:
    """Receive until the bytes end so."""
    received = b""
    while not received.endswith(end):
        received += client.recv(65536)


def measure(target: Target, number: int, operation: Callable[[], object]) -> float:
    """Return the server's CPU microseconds for one operation."""
    for _ in range(max(5, number // 20)):
        operation()
    began = target.cpu()
    for _ in range(number):
        operation()
    return (target.cpu() - began) / number


def get(target: Target) -> float:
    """Connect, one GET, close; CPU microseconds."""

    def once() -> None:
        with closing(target.connect()) as client:
            client.sendall(LAST)
            while client.recv(65536):
                pass

    return measure(target, 200, once)


def kept(target: Target) -> float:
    """A GET on a connection that is kept; CPU microseconds."""
    with closing(target.connect()) as client:

        def once() -> None:
            client.sendall(GET)
            receive_until(client, BODY)

        return measure(target, 2000, once)


def upgrade(target: Target) -> float:
    """Connect, upgrade, echo 16 bytes, close; CPU microseconds."""

    def once() -> None:
        with closing(target.upgrade()) as client:
            client.sendall(b"x" * 16)
            receive_until(client, b"x" * 16)
            # The server may have closed first, without a close_notify.
            with suppress(OSError):
                client.unwrap()

    return measure(target, 200, once)


def echo_of(size: int, number: int, target: Target) -> float:
    """Echo a message of so many bytes; CPU microseconds."""
    message = b"x" * size
    with closing(target.upgrade()) as client:

        def once() -> None:
            client.sendall(message)
            left = size
            while left:
                left -= len(client.recv(65536))

        return measure(target, number, once)


def nagle(target: Target) -> float:
    """Connect with Nagle's algorithm on, and one GET; milliseconds, the median of 31."""
    times = []
    for _ in range(31):
        began = time.perf_counter()
        with closing(target.connect(nagle=True)) as client:
            client.sendall(LAST)
            client.recv(65536)
        times.append((time.perf_counter() - began) * 1000)
    return sorted(times)[15]


def idle(target: Target) -> float:
    """An idle upgraded connection; KB."""
    number = 500
    clients = [target.upgrade() for _ in range(50)]
    before = target.memory()
    clients += [target.upgrade() for _ in range(number)]
    held = (target.memory() - before) / number
    for client in clients:
        client.close()
    return held


ROWS: dict[str, Callable[[Target], float]] = {
    "get": get,
    "kept": kept,
    "upgrade": upgrade,
    "echo-64": partial(echo_of, 64, 3000),
    "echo-64k": partial(echo_of, 64 * 1024, 600),
    "nagle": nagle,
    "idle": idle,
}


@contextmanager
def running(
    kind: str, certificate: str, context: ssl.SSLContext, core: int
) -> Iterator[Target]:
    """Run a server on one core, for one row."""
    command = [sys.executable, __file__, "--serve", kind, certificate]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            os.sched_setaffinity(process.pid, {core})
            yield Target(process.pid, int(process.stdout.readline()), context)
        finally:
            process.kill()


def compare(rounds: int, rows: list[str]) -> None:
    """Measure the rows, and print a table."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1]})
    authority = trustme.CA()
    context = ssl.create_default_context()
    authority.configure_trust(context)
    print(
        f"{'':10}", *(f"{kind:>10}" for kind in SERVERS), "  ours / SSLStream, asyncio"
    )
    with tempfile.TemporaryDirectory() as folder:
        certificate = str(Path(folder, "certificate.pem"))
        issued = authority.issue_cert("localhost")
        issued.private_key_and_cert_chain_pem.write_to_path(certificate)
        for row in rows:
            least: dict[str, float] = {}
            for _ in range(1 if row == "idle" else rounds):
                for kind in SERVERS:
                    with running(kind, certificate, context, cores[0]) as target:
                        figure = ROWS[row](target)
                    least[kind] = min(figure, least.get(kind, figure))
            ours, old, raw = (least[kind] for kind in SERVERS)
            figures = " ".join(f"{least[kind]:10.1f}" for kind in SERVERS)
            print(f"{row:10} {figures}   {ours / old:.2f} {ours / raw:.2f}", flush=True)


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--serve", nargs=2, metavar=("KIND", "FILE"), help="for the servers"
    )
    arguments = parser.parse_args()
    if arguments.serve:
        run_server(*arguments.serve)
    elif unknown := set(arguments.rows) - set(ROWS):
        parser.error(f"no such row: {', '.join(unknown)}")
    else:
        compare(arguments.rounds, arguments.rows or list(ROWS))


if __name__ == "__main__":
    main()
