"""One mutated request to one server, and what the server saw.

The server gets the mutated request and the marker on one connection, then the end. It
says in each answer what it saw, so the list of what it saw shows how it framed the bytes:
if the marker is in it, as it was sent, the request before ended where the marker begins.
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from .servers import HOST, find_reason

if TYPE_CHECKING:
    from .requests import Sent
    from .servers import Target

# Seconds to wait for a server that neither answers nor ends; none should do that.
SILENCE = 5.0
# Why a server accepted no further request, where it says nothing itself: it closed after
# an answer that said so; it ended after an answer that did not; it ended without any.
CLOSED, ENDED, CUT = "closed after an answer", "ended after an answer", "no answer"
# The answer of nginx to a request without a version.
WITHOUT_HEAD = "an answer without a header section"
# What node_target.js says with a 417.
EXPECTATION = "expectation"
# No server should do these.
SILENT, RESET = "silent", "reset"
FAULTS = (SILENT, RESET)
_RECEIVE = 65536
_find_field = re.compile(
    rb"\r\n(seen|seen-raw|content-length|connection|transfer-encoding): *([^\r]*)",
    re.IGNORECASE,
).findall
_match_rest = re.compile(rb"Rest: (\d+) ([0-9a-f]+)\r\n").fullmatch
_CONNECT, _SWITCHED, _OK = "CONNECT", 101, 200


class Seen(NamedTuple):
    """A request as a server saw it.

    Attributes:
        method: The method.
        target: The target.
        length: The number of bytes of its body.
        hash: The beginning of their SHA-1; empty if the server does not say.
        rest: Number and hash of the bytes after the request, if the connection switched.
    """

    method: str
    target: str
    length: int
    hash: str
    rest: tuple[int, str] | None = None


@dataclass
class Outcome:
    """What one server did with one mutated request and its marker.

    Attributes:
        seen: The requests that it accepted.
        refusal: Why it accepted no further one: its own words, or one of the constants
            above; None after the last answer, the marker's.
    """

    seen: list[Seen] = field(default_factory=list)
    refusal: str | None = None


def send(target: Target, sent: Sent) -> socket.socket:
    """Send the request, its marker and the end; return the connection."""
    port = target.switching_port if sent.switches else target.port
    sock = socket.create_connection((HOST, port), SILENCE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    data = sent.wire + sent.marker
    try:
        if sent.cut:
            sock.sendall(data[: sent.cut])
        sock.sendall(data[sent.cut :])
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # The server has refused the first packet, and closed.
    return sock


def receive(sock: socket.socket) -> tuple[bytes, str | None]:
    """Receive all of the answers; the second value says what was wrong with the end."""
    data = b""
    with sock:
        while True:
            try:
                chunk = sock.recv(_RECEIVE)
            except TimeoutError:
                return data, SILENT
            except ConnectionResetError:
                return data, RESET
            if not chunk:
                return data, None
            data += chunk


def read_outcome(target: Target, data: bytes, fault: str | None) -> Outcome:
    """Return what the answers say; a fault is what was wrong with their end."""
    outcome = Outcome(refusal=fault or CUT)
    log = target.read_log()
    while data:
        if not data.startswith(b"HTTP/1.1 "):
            # As nginx answers a request that names no version.
            outcome.refusal = WITHOUT_HEAD
            return outcome
        head, _, data = data.partition(b"\r\n\r\n")
        status = int(head[9:12])
        if status < _OK and status != _SWITCHED:
            continue
        fields = {name.lower(): value for name, value in _find_field(head)}
        seen = read_seen(fields)
        if seen is None:
            length = int(fields.get(b"content-length", b"-1"))
            words = data[:length] if length >= 0 else data
            reason = find_reason(log) if log is not None else words.decode("latin-1")
            outcome.refusal = f"{status} {reason.strip()}".strip()
            return outcome
        if status == _SWITCHED or (seen.method == _CONNECT and status == _OK):
            match = _match_rest(data)
            if match is None:
                outcome.refusal = f"after the switch: {data[:80]!r} {fault or ''}"
                return outcome
            seen = seen._replace(rest=(int(match[1]), match[2].decode()))
            data = b""
        outcome.seen.append(seen)
        if fault is None:
            closes = b"close" in fields.get(b"connection", b"").lower()
            outcome.refusal = CLOSED if closes else ENDED
        if seen.method != "HEAD":
            data = data[int(fields.get(b"content-length", b"0")) :]
    return outcome


def read_seen(fields: dict[bytes, bytes]) -> Seen | None:
    """Return the request that an answer is for; None if the app did not answer."""
    if b"seen" in fields:
        method, target, length, digest = fields[b"seen"].decode().split(" ")
        path = bytes.fromhex(target).decode("latin-1")
        return Seen(method, path, int(length), digest)
    if b"seen-raw" in fields:
        length, _, line = fields[b"seen-raw"].decode("latin-1").partition(";")
        method, _, path = line.partition(" ")
        return Seen(method, path, int(length or "0"), "")
    return None
