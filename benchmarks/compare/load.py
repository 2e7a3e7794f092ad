"""The load generator: raw sockets and a selector, so that it costs less than any server.

Every kind of load runs in the calling process for about the given seconds, on the
loopback interface, and returns a Tally. A server's mistake raises a ServerError.
"""

from __future__ import annotations

import itertools
import selectors
import socket
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

HOST = "127.0.0.1"
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
ECHO = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
WEBSOCKET = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
# For proxies, some of which pass on no other offer; peers/raw.py echoes bytes after it.
TUNNEL = WEBSOCKET.replace(b" / ", b" /echo ", 1)
# A masked binary message of five bytes, and the echo of it, which is not masked.
FRAME, ECHOED_FRAME = b"\x82\x85\0\0\0\0hello", b"\x82\x05hello"
# The same with 64 bytes.
FRAME_64, ECHOED_FRAME_64 = b"\x82\xc0\0\0\0\0" + b"m" * 64, b"\x82\x40" + b"m" * 64
SIXTEEN = b"sixteen bytes it"
MESSAGE = b"m" * 64
CHUNK = memoryview(b"c" * 65536)
# Seconds that a server may be silent.
PATIENCE = 5
BOTH = selectors.EVENT_READ | selectors.EVENT_WRITE

# Yields the socket that has to be readable before the task can go on.
Task: TypeAlias = "Generator[socket.socket, None, None]"


class Tally(NamedTuple):
    """The number of operations, their seconds, and the load generator's CPU seconds."""

    operations: float
    seconds: float
    cpu: float


class ServerError(Exception):
    """The server did not do its part."""


_sources = itertools.cycle(range(1, 65))


def dial(port: int) -> socket.socket:
    """Connect; on loopback this does not wait, unless the backlog is full."""
    sock = socket.socket()
    sock.settimeout(PATIENCE)
    if sys.platform == "linux":
        # One address has 28,000 ports, and each is unusable for a minute after a
        # connection (TIME_WAIT), so several addresses take turns.
        no_port = getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24)
        sock.setsockopt(socket.IPPROTO_IP, no_port, 1)
        sock.bind((f"127.0.0.{next(_sources)}", 0))
    sock.connect((HOST, port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def receive_until(sock: socket.socket, marker: bytes) -> bytes:
    """Receive from a blocking socket until the data ends with the marker."""
    got = b""
    while not got.endswith(marker):
        got += receive(sock)
    return got


def receive(sock: socket.socket) -> bytes:
    """Receive the next bytes; an end of stream is an error."""
    chunk = sock.recv(65536)
    if not chunk:
        raise ServerError("ended")
    return chunk


def switch(port: int, offer: bytes) -> socket.socket:
    """Open an upgraded connection, still blocking."""
    sock = dial(port)
    sock.sendall(offer)
    if not receive_until(sock, b"\r\n\r\n").startswith(b"HTTP/1.1 101 "):
        raise ServerError("no 101")
    return sock


def check(port: int, offer: bytes = ECHO) -> None:
    """Check that the server switches, echoes every byte, and passes on the end."""
    with dial(port) as sock:
        sock.sendall(offer)
        receive_until(sock, b"\r\n\r\n")
        if offer == WEBSOCKET:
            sock.sendall(FRAME)
            # Servers that do not implement WebSocket echo the frame as it is.
            if receive_until(sock, b"hello") not in (FRAME, ECHOED_FRAME):
                raise ServerError("does not echo")
            return
        sent = bytes(range(256)) * 40
        sock.sendall(sent)
        sock.shutdown(socket.SHUT_WR)
        got = b""
        while chunk := sock.recv(65536):
            got += chunk
        if got != sent:
            raise ServerError("does not echo")


def run(tasks: list[Task]) -> None:
    """Run these tasks until all have ended."""
    with selectors.DefaultSelector() as selector:
        for task in tasks:
            selector.register(next(task), selectors.EVENT_READ, task)
        waiting = len(tasks)
        while waiting:
            ready = selector.select(PATIENCE)
            if not ready:
                raise ServerError("silent")
            for key, _ in ready:
                try:
                    sock = next(key.data)
                except StopIteration:
                    selector.unregister(key.fileobj)
                    waiting -= 1
                else:
                    if sock is not key.fileobj:
                        # The old socket is closed; the new one may have its number.
                        selector.unregister(key.fileobj)
                        selector.register(sock, selectors.EVENT_READ, key.data)


def tally(tasks: Callable[[float, list[int]], list[Task]], seconds: float) -> Tally:
    """Run the tasks that ``tasks`` makes, given their end and a list of one counter."""
    counter = [0]
    began, cpu = time.perf_counter(), time.process_time()
    run(tasks(began + seconds, counter))
    return Tally(counter[0], time.perf_counter() - began, time.process_time() - cpu)


def handshakes(
    port: int, seconds: float, offer: bytes = ECHO, slots: int = 16
) -> Tally:
    """Connect, upgrade, have 16 bytes echoed, half-close, read the end; repeatedly.

    WebSocket servers are not asked to echo: the operation ends after the 101.
    """

    def slot(end: float, counter: list[int]) -> Task:
        while time.perf_counter() < end:
            sock = dial(port)
            sock.setblocking(False)
            sock.send(offer)
            yield sock
            head = receive(sock)
            while not head.endswith(b"\r\n\r\n"):
                yield sock
                head += receive(sock)
            if not head.startswith(b"HTTP/1.1 101 "):
                raise ServerError("no 101")
            if offer != WEBSOCKET:
                sock.send(SIXTEEN)
                yield sock
                if sock.recv(4096) != SIXTEEN:
                    raise ServerError("does not echo")
            sock.shutdown(socket.SHUT_WR)
            yield sock
            while sock.recv(4096):
                yield sock
            sock.close()
            counter[0] += 1

    return tally(
        lambda end, counter: [slot(end, counter) for _ in range(slots)], seconds
    )


def round_trips(
    port: int,
    seconds: float,
    connections: int,
    offer: bytes = ECHO,
    sent: bytes = MESSAGE,
    echoed: bytes = MESSAGE,
) -> Tally:
    """Have 64 bytes at a time echoed on each connection."""
    with ExitStack() as stack:
        socks = [stack.enter_context(switch(port, offer)) for _ in range(connections)]
        return converse(socks, seconds, sent, echoed)


def converse(
    socks: list[socket.socket],
    seconds: float,
    sent: bytes = MESSAGE,
    echoed: bytes = MESSAGE,
) -> Tally:
    """Have 64 bytes at a time echoed on each of these connections, which stay open."""

    def talk(sock: socket.socket, end: float, counter: list[int]) -> Task:
        sock.setblocking(False)
        while time.perf_counter() < end:
            sock.send(sent)
            got = 0
            while got < len(echoed):
                yield sock
                got += len(receive(sock))
            counter[0] += 1

    return tally(lambda end, counter: [talk(s, end, counter) for s in socks], seconds)


def messages(port: int, seconds: float, connections: int = 32) -> Tally:
    """Have WebSocket messages of 64 bytes echoed, one at a time on each connection."""
    return round_trips(port, seconds, connections, WEBSOCKET, FRAME_64, ECHOED_FRAME_64)


def requests(
    port: int, seconds: float, connections: int = 16, request: bytes = GET
) -> Tally:
    """Make GET requests on keep-alive connections; all responses have one length."""

    def ask(sock: socket.socket, length: int, end: float, counter: list[int]) -> Task:
        sock.setblocking(False)
        while time.perf_counter() < end:
            sock.send(request)
            yield sock
            got = receive(sock)
            while len(got) < length:
                yield sock
                got += receive(sock)
            if len(got) != length or not got.startswith(b"HTTP/1.1 200 "):
                raise ServerError(f"answered {got!r}")
            counter[0] += 1

    with ExitStack() as stack:
        socks = [stack.enter_context(dial(port)) for _ in range(connections)]
        length = 0
        for sock in socks:
            sock.sendall(request)
            head = receive_until(sock, b"okay\n")
            length = len(head)
        return tally(
            lambda end, counter: [ask(s, length, end, counter) for s in socks], seconds
        )


def megabytes(
    port: int,
    seconds: float,
    connections: int,
    *,
    offer: bytes = ECHO,
    half_close: bool = True,
) -> Tally:
    """Flood the connections in both directions; an operation is an echoed MB.

    Without a half-close, for relays that cannot pass it on, the one connection is closed
    when all bytes have come back.
    """
    sent = received = 0
    buffer = bytearray(262144)
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for _ in range(connections):
            sock = stack.enter_context(switch(port, offer))
            sock.setblocking(False)
            selector.register(sock, BOTH)
        began, cpu = time.perf_counter(), time.process_time()
        end = began + seconds
        while selector.get_map():
            ready = selector.select(PATIENCE)
            if not ready:
                raise ServerError("silent")
            for key, events in ready:
                sock = key.fileobj  # type: ignore[assignment]
                over = time.perf_counter() >= end
                if events & selectors.EVENT_READ:
                    count = sock.recv_into(buffer)
                    received += count
                    if not count:
                        selector.unregister(sock)
                        continue
                if events & selectors.EVENT_WRITE and not over:
                    sent += sock.send(CHUNK)
                if over and not half_close and sent == received:
                    selector.unregister(sock)
                elif over and half_close and key.events == BOTH:
                    sock.shutdown(socket.SHUT_WR)
                    selector.modify(sock, selectors.EVENT_READ)
        took = time.perf_counter() - began
        if sent != received:
            raise ServerError(f"{sent - received} bytes were lost")
        return Tally(received / 1e6, took, time.process_time() - cpu)


def hold(stack: ExitStack, port: int, connections: int, offer: bytes = ECHO) -> None:
    """Open upgraded connections that stay idle until the stack is closed."""
    for _ in range(connections):
        stack.enter_context(switch(port, offer))
