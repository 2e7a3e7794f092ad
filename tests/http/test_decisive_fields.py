"""h11 without the fields that it does not decide by decides as it does with all."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import h11
import pytest

from benchmarks.compare.heads import BROWSER_ECHO, BROWSER_GET
from benchmarks.fuzz.requests import make
from trio_upgrade import IllegalSwitch, Limits, MalformedMessage
from trio_upgrade._http import client_codec, server_codec
from trio_upgrade._http.decisive_fields import (
    find_decisive,
    is_well_formed,
    keep_decisive,
)
from trio_upgrade._http.server_codec import ServerCodec

from .codecs import make_client

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from trio_upgrade._http.message_codec import MessageCodec
    from trio_upgrade._http.messages import RequestHead, ResponseHead

# Octets that a parser of lines looks at, with some that it must not take for them.
OCTETS = b"\r\n\t \x0b\x0c\x00\x01\x1f\x7f\x80\x85\xff:,\"'/aA0(){}="
POST = (
    b"POST /p HTTP/1.1\r\nHost: x\r\nAccept: */*\r\nContent-Length: 3\r\nA: b\r\nC:d\r\n"
    b"Expect: 100-continue\r\nCookie: a=\xe9; c\td\r\nUser-Agent: e\r\n\r\n"
)
PUT = (
    b"PUT / HTTP/1.1\r\nA: b\r\ntransfer-encoding: Chunked\r\nX-Empty:\r\nY:  \r\n"
    b"HOST: x:80\r\nCONNECTION: close, a\r\nUpgrades: a\r\nHos: b\r\nHostt: c\r\n\r\n"
)
GOOD = (BROWSER_GET, BROWSER_ECHO, POST, PUT)
PAGE = (
    b"HTTP/1.1 200 OK\r\nDate: now\r\nServer: a\r\nContent-Length: 3\r\nVary: b, c\r\n"
    b'Set-Cookie: a=\xe9\r\nConnection: close\r\nX-Empty:\r\nETag:  "d" \r\n\r\n'
)
CHUNKED = (
    b"HTTP/1.1 404\r\nVia: 1.1 a\r\nTransfer-Encoding: Chunked\r\nContent-Lengthy: 1\r\n"
    b"Host: x\r\n\r\n"
)
MERGED = (
    b"HTTP/1.1 200 \r\nA: b\r\nContent-Length: 3, 3\r\nC: d\r\n"
    b"content-length: 3\r\n\r\n"
)
SWITCH = (
    b"HTTP/1.1 101 S\r\nA: b\r\nUpgrade: echo\r\nConnection: upgrade\r\n"
    b"Content-Length: x\r\nC: d\r\n\r\n"
)
HINTS = b"HTTP/1.1 103 Hints\r\nLink: </a>; rel=preload\r\nContent-Length: 5\r\n\r\n"
ANSWERS = (PAGE, PAGE, CHUNKED, MERGED, SWITCH, HINTS)
METHODS = ("GET", "HEAD", "CONNECT", "GET")
NAMES = (
    *(b"host", b"connection", b"upgrade", b"expect", b"content-length"),
    b"transfer-encoding",
)


def mutate(rng: random.Random, head: bytes) -> bytes:
    wire = bytearray(head)
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        index, octet = rng.randrange(len(wire)), rng.choice(OCTETS)
        kind = rng.randrange(5)
        if kind == 0:
            wire[index] = octet
        elif kind == 1:
            wire.insert(index, octet)
        elif kind == 2:
            del wire[index]
        else:
            lines = bytes(wire).split(b"\r\n")
            first, second = rng.randrange(len(lines)), rng.randrange(len(lines))
            if kind == 3:
                lines[first], lines[second] = lines[second], lines[first]
            else:
                lines.insert(first, lines[second])
            wire[:] = b"\r\n".join(lines)
    return bytes(wire)


def make_request(number: int) -> bytes:
    rng = random.Random(number)
    if number % 4:
        return mutate(rng, rng.choice(GOOD))
    # With fields that decide nothing, so that there is something to leave out.
    line, _, rest = make("heads", number).wire.partition(b"\r\n")
    return b"%b\r\nA: b\r\nC: d\r\nE: f\r\n%b" % (line, rest)


def describe(head: RequestHead | ResponseHead, codec: MessageCodec) -> list[object]:
    parser = codec._parser
    return [
        head[:3],
        head.headers.raw,
        [list(head.headers.lines(name)) for name in (*NAMES, b"accept", b"vary")],
        (codec.body_left, codec.body_ended, codec.framing_bytes),
        (parser.states, parser.their_http_version, parser.trailing_data),
        parser.they_are_waiting_for_100_continue,
        type(parser._reader),
    ]


def read_request(number: int) -> tuple[object, ...]:
    """Return all that our server knows after it has received a request."""
    codec = ServerCodec(Limits(header_fields=16, header_bytes=2048))
    codec.receive_data(make_request(number))
    try:
        head = codec.next_request()
    except MalformedMessage as exc:
        return (exc.status, str(exc), codec._method)
    if head is None:
        return ("incomplete",)
    return (
        *describe(head, codec),
        (codec.continue_owed, codec.closes, codec.is_http10, codec.has_next),
    )


def read_response(number: int) -> tuple[object, ...]:
    """Return all that our client knows after it has received a response."""
    rng = random.Random(number)
    method = rng.choice(METHODS)
    fields = ((b"Connection", b"Upgrade"), (b"Upgrade", b"echo"))
    codec = make_client(*(() if method == "CONNECT" else fields), method=method)
    codec.receive_data(mutate(rng, rng.choice(ANSWERS)))
    try:
        raw = codec.next_head()
        if raw is None:
            return ("incomplete",)
        head = codec.parse_response(raw)
    except (MalformedMessage, IllegalSwitch) as exc:
        return (type(exc), str(exc), codec._parser.states)
    return (*describe(head, codec), codec.is_reusable)


@pytest.mark.parametrize(
    ("codec", "read"), [(server_codec, read_request), (client_codec, read_response)]
)
def test_whole_head_is_read_alike(
    codec: ModuleType,
    read: Callable[[int], tuple[object, ...]],
    monkeypatch: pytest.MonkeyPatch,
):
    """Results, refusals and h11's state are those of h11 with the whole message head."""
    # nox -s heads makes more of them.
    count = int(os.environ.get("HEADS", "4000"))
    accepted = 0
    for start in range(0, count, 1000):
        numbers = range(start, start + 1000)
        ours = [read(number) for number in numbers]
        with monkeypatch.context() as patch:
            patch.setattr(codec, "keep_decisive", lambda head, _: head)
            for number, result in zip(numbers, ours, strict=True):
                assert read(number) == result, number
                accepted += len(result) > len(("status", "text", "method"))

    # The comparison is about both kinds.
    assert count / 10 < accepted < count * 9 / 10


@pytest.mark.parametrize("head", [*GOOD, *ANSWERS])
def test_what_h11_gets(head: bytes):
    """The start-line and the decisive lines as they came, in their order."""
    kept = keep_decisive(head, find_decisive(head))
    first, *lines = head.split(b"\r\n")[:-2]
    wanted = [line for line in lines if line.partition(b":")[0].lower() in NAMES]

    assert is_well_formed(head)
    assert kept == b"\r\n".join([first, *wanted, b"", b""])


def test_nothing_to_leave_out():
    """A message head that has only decisive fields is given to h11 as it is."""
    head = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

    assert keep_decisive(head, find_decisive(head)) is head


@pytest.mark.parametrize("octet", range(256))
def test_well_formed_lines_are_accepted_by_h11(octet: int):
    """Whatever octet stands anywhere in a line, h11 accepts it if we do (RFC 9110 §5)."""
    line = b"Ab: c d"
    for index in range(len(line) + 1):
        for rest in line[index:], line[index + 1 :]:
            field = line[:index] + bytes([octet]) + rest
            head = b"GET / HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n" % field
            if is_well_formed(head):
                parser = h11.Connection(h11.SERVER)
                parser.receive_data(head)

                assert isinstance(parser.next_event(), h11.Request)
