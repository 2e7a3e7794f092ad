"""The server for relays and clients: it sends a 101, then echoes, on raw sockets.

    python benchmarks/compare/peers/raw.py PORT

A WebSocket client gets the answer to its key and, after its first bytes, a close frame.
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
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
BUFFER = bytearray(262144)
VIEW = memoryview(BUFFER)
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

# Yields the event that it waits for.
Task: TypeAlias = Generator[int, None, None]


def serve(sock: socket.socket) -> Task:
    """Switch, echo, end."""
    head = b""
    while b"\r\n\r\n" not in head:
        yield READ
        chunk = sock.recv(65536)
        if not chunk:
            return
        head += chunk
    head, _, early = head.partition(b"\r\n\r\n")
    if b"echo" in head:
        sock.send(SWITCH + b"echo\r\n\r\n" + early)
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
    lines = head.lower().splitlines()
    index = next(i for i, s in enumerate(lines) if s.startswith(b"sec-websocket-key:"))
    key = head.splitlines()[index].partition(b":")[2].strip()
    accept = b64encode(sha1(key + GUID, usedforsecurity=False).digest())
    sock.send(SWITCH + b"websocket\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n")
    yield READ
    if sock.recv(65536):
        sock.send(b"\x88\x00")


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
