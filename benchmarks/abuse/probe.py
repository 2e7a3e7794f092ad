"""The honest peer of a server that is abused; it needs nothing but Python.

python benchmarks/abuse/probe.py PORT OFFER SECONDS

Makes requests on one connection, one after the other. With an OFFER (a request with its
header section, in hexadecimal) it switches first, and has bytes echoed instead. Prints as
JSON the operations per second, and the 99th percentile of the seconds of one operation.
"""

from __future__ import annotations

import json
import socket
import statistics
import sys
import time

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def probe(port: int, offer: bytes, seconds: float) -> tuple[float, float]:
    """Return operations per second, and the 99th percentile of their seconds."""
    ask, answer = (b"echo", b"echo") if offer else (GET, b"\r\n\r\n0")
    took: list[float] = []
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if offer:
            sock.sendall(offer)
            receive_until(sock, b"\r\n\r\n")
        end = time.perf_counter() + seconds
        while (began := time.perf_counter()) < end:
            sock.sendall(ask)
            receive_until(sock, answer)
            took.append(time.perf_counter() - began)
    return len(took) / seconds, statistics.quantiles(took, n=100)[-1]


def receive_until(sock: socket.socket, marker: bytes) -> None:
    """Receive until the data ends with the marker."""
    got = b""
    while not got.endswith(marker):
        chunk = sock.recv(65536)
        if not chunk:
            raise EOFError(got)
        got += chunk


if __name__ == "__main__":
    port, offer, seconds = sys.argv[1:]
    print(json.dumps(probe(int(port), bytes.fromhex(offer), float(seconds))))
