"""Floods tunnels through a proxy in both directions, at the lowest priority.

    python benchmarks/compare/peers/flood.py PORT UPSTREAM TUNNELS

Ends when its standard input ends; prints the MB that were echoed, and the seconds.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import sys
import time

BOTH = selectors.EVENT_READ | selectors.EVENT_WRITE
CHUNK = b"c" * 65536


def dig(port: int, upstream: int) -> socket.socket:
    """Open a tunnel to an echo."""
    sock = socket.create_connection(("127.0.0.1", port))
    target = f"127.0.0.1:{upstream}"
    for head in (
        f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n",
    ):
        sock.sendall(head.encode())
        while not sock.recv(65536).endswith(b"\r\n\r\n"):
            pass
    sock.setblocking(False)
    return sock


def main(port: int, upstream: int, tunnels: int) -> None:
    """Flood until told to end."""
    os.nice(19)
    received = 0
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin, selectors.EVENT_READ)
    for _ in range(tunnels):
        selector.register(dig(port, upstream), BOTH)
    buffer = bytearray(262144)
    began = time.perf_counter()
    while True:
        for key, events in selector.select():
            sock = key.fileobj
            if not isinstance(sock, socket.socket):
                print(json.dumps([received / 1e6, time.perf_counter() - began]))
                return
            if events & selectors.EVENT_READ:
                received += sock.recv_into(buffer)
            if events & selectors.EVENT_WRITE:
                sock.send(CHUNK)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
