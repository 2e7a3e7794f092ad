"""The server for relays, proxies and clients: a 101, then an echo, on raw sockets.

    python benchmarks/compare/peers/raw.py PORT

A WebSocket client gets the answer to its key and, after its first bytes, a close frame;
if it asks for ``/echo``, it gets an echo of all bytes instead, not of messages. Requests
without an offer get a small answer, and the connection stays open.
"""

from __future__ import annotations

import selectors
import socket
import sys
from base64 import b64encode
from collections import deque
from collections.abc import Generator
from hashlib import sha1
from typing import TypeAlias

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "
OKAY = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nokay\n"
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
BUFFER = bytearray(262144)
VIEW = memoryview(BUFFER)
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

# Yields the event that it waits for.
Task: TypeAlias = Generator[int, None, None]


def serve(sock: socket.socket) -> Task:
    """Answer requests; switch, echo, end."""
    head = b""
    while True:
        while b"\r\n\r\n" not in head:
            yield READ
            chunk = sock.recv(65536)
            if not chunk:
                return
            head += chunk
        head, _, early = head.partition(b"\r\n\r\n")
        if b"\r\nupgrade:" in head.lower():
            break
        sock.send(OKAY)
        head = early
    sock.send(answer(head) + early)
    if b"echo" not in head:
        yield READ
        if sock.recv(65536):
            sock.send(b"\x88\x00")
        return
    while True:
        yield READ
        count = sock.recv_into(BUFFER)
        if not count:
            return
        sent = sock.send(VIEW[:count])
        if sent < count:
            rest = bytes(VIEW[sent:count])
            while rest:
                yield WRITE
                rest = rest[sock.send(rest) :]


def answer(head: bytes) -> bytes:
    """Return the 101."""
    lines = head.lower().splitlines()
    index = next(
        (i for i, s in enumerate(lines) if s.startswith(b"sec-websocket-key:")), None
    )
    if index is None:
        return SWITCH + b"echo\r\n\r\n"
    key = head.splitlines()[index].partition(b":")[2].strip()
    accept = b64encode(sha1(key + GUID, usedforsecurity=False).digest())
    return SWITCH + b"websocket\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"


def main(port: int) -> None:
    """Serve for ever."""
    selector = selectors.DefaultSelector()
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    listener.setblocking(False)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    selector.register(listener, READ, None)
    accepted: deque[socket.socket] = deque()
    while True:
        for key, _ in selector.select():
            if key.data is None:
                accepted.append(listener.accept()[0])
                continue
            task, waits = key.data
            try:
                wanted = next(task)
            except (StopIteration, ConnectionError):
                selector.unregister(key.fileobj)
                key.fileobj.close()  # type: ignore[union-attr]
            else:
                if wanted != waits:
                    selector.modify(key.fileobj, wanted, (task, wanted))
        while accepted:
            sock = accepted.popleft()
            sock.setblocking(False)
            task = serve(sock)
            selector.register(sock, next(task), (task, READ))


if __name__ == "__main__":
    main(int(sys.argv[1]))
