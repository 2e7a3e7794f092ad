"""The figures over TLS: the same servers, and a load generator that encrypts.

The load generator verifies the certificate as clients do. Each connection makes a whole
TLS handshake: no session is resumed.
"""

from __future__ import annotations

import socket
import ssl
import tempfile
import time
from contextlib import ExitStack, suppress
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from . import load
from .figures import FLOOR, Figure, Peer, by_load, node_peer, python_peer
from .load import ECHO, GET, SIXTEEN, ServerError, Tally, Task
from .programs import Cores, Program, missing
from .report import NODE, OURS

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

T = TypeVar("T")

PEERS = [
    Peer(OURS, python_peer("tls_echo.py")),
    Peer(NODE, node_peer("node_echo.js"), "program:node"),
    Peer(FLOOR, python_peer("floor.py")),
]


class Authority(NamedTuple):
    """What servers and clients need: the certificate with its key, and who signed it."""

    pem: bytes
    context: ssl.SSLContext


@cache
def make_authority() -> Authority:
    """Make a certificate for localhost; once in a run."""
    import trustme

    authority = trustme.CA()
    context = ssl.create_default_context()
    authority.configure_trust(context)
    certificate = authority.issue_cert("localhost")
    return Authority(certificate.private_key_and_cert_chain_pem.bytes(), context)


def start_tls(stack: ExitStack, peer: Peer, cores: Cores) -> Program:
    """Start a server with a certificate, and check that it answers."""
    file = Path(stack.enter_context(tempfile.TemporaryDirectory()), "certificate.pem")
    file.write_bytes(make_authority().pem)
    command = (*peer.command, str(file))
    program = stack.enter_context(Program(command, cores.server))
    with dial(program.port) as sock:
        sock.sendall(GET)
        load.receive_until(sock, b"okay\n")
    return program


def wrap(sock: socket.socket) -> ssl.SSLSocket:
    """Put TLS over a socket; the TLS handshake is made later."""
    return make_authority().context.wrap_socket(
        sock, server_hostname="localhost", do_handshake_on_connect=False
    )


def dial(port: int) -> ssl.SSLSocket:
    """Connect and make the TLS handshake; the socket is blocking."""
    sock = wrap(load.dial(port))
    sock.do_handshake()
    return sock


def patiently(
    sock: ssl.SSLSocket, call: Callable[[], T]
) -> Generator[socket.socket, None, T]:
    """Call until it has all the bytes that it needs; return its result."""
    while True:
        try:
            return call()
        except ssl.SSLWantReadError:
            yield sock


def handshakes(port: int, seconds: float, slots: int = 16) -> Tally:
    """Connect, TLS handshake, upgrade, have 16 bytes echoed, end; repeatedly."""

    def talk(sock: ssl.SSLSocket) -> Task:
        sock.setblocking(False)
        yield from patiently(sock, sock.do_handshake)
        receive = partial(load.receive, sock)
        sock.send(ECHO)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += yield from patiently(sock, receive)
        if not head.startswith(b"HTTP/1.1 101 "):
            raise ServerError("no 101")
        sock.send(SIXTEEN)
        if (yield from patiently(sock, receive)) != SIXTEEN:
            raise ServerError("does not echo")
        # Our close_notify; then the socket is used as it is, without TLS.
        with suppress(ssl.SSLWantReadError):
            sock.unwrap()
        sock.shutdown(socket.SHUT_WR)
        yield sock
        while sock.recv(4096):
            yield sock

    def slot(end: float, counter: list[int]) -> Task:
        while time.perf_counter() < end:
            with wrap(load.dial(port)) as sock:
                yield from talk(sock)
            counter[0] += 1

    return load.tally(
        lambda end, counter: [slot(end, counter) for _ in range(slots)], seconds
    )


def requests(port: int, seconds: float, connections: int = 16) -> Tally:
    """Make GET requests on keep-alive connections; all responses have one length."""

    def ask(sock: ssl.SSLSocket, length: int, end: float, counter: list[int]) -> Task:
        receive = partial(load.receive, sock)
        while time.perf_counter() < end:
            sock.send(GET)
            got = b""
            while len(got) < length:
                got += yield from patiently(sock, receive)
            if len(got) != length or not got.startswith(b"HTTP/1.1 200 "):
                raise ServerError(f"answered {got!r}")
            counter[0] += 1

    with ExitStack() as stack:
        socks = [stack.enter_context(dial(port)) for _ in range(connections)]
        length = 0
        for sock in socks:
            sock.sendall(GET)
            length = len(load.receive_until(sock, b"okay\n"))
            sock.setblocking(False)
        return load.tally(
            lambda end, counter: [ask(s, length, end, counter) for s in socks], seconds
        )


def tls_figures() -> list[Figure]:
    """Return the figures over TLS."""
    why_not = missing("module:trustme")
    return [
        Figure(
            "TLS: handshakes/s",
            PEERS,
            partial(by_load, handshakes),
            start_tls,
            warm=True,
            why_not=why_not,
            note="16 at a time: connect, TLS 1.3 handshake with P-256, upgrade, 16 bytes "
            "echoed, close_notify, end.",
        ),
        Figure(
            "TLS: GET requests/s",
            PEERS,
            partial(by_load, requests),
            start_tls,
            warm=True,
            why_not=why_not,
            note="16 keep-alive connections.",
        ),
    ]
