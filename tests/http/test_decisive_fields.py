"""h11 without the fields that it does not decide by decides as it does with all."""

from __future__ import annotations

import os
import random

import h11
import pytest

from benchmarks.compare.heads import BROWSER_ECHO, BROWSER_GET
from benchmarks.fuzz.requests import make
from trio_upgrade import Limits, MalformedMessage
from trio_upgrade._http import server_codec
from trio_upgrade._http.decisive_fields import (
    find_decisive,
    is_well_formed,
    keep_decisive,
)
from trio_upgrade._http.server_codec import ServerCodec

# Octets that a parser of lines looks at, with some that it must not take for them.
OCTETS = b"\r\n\t \x0b\x0c\x00\x01\x1f\x7f\x80\x85\xff:,\"'/aA0(){}="
GOOD = (
    BROWSER_GET,
    BROWSER_ECHO,
    b"POST /p HTTP/1.1\r\nHost: x\r\nAccept: */*\r\nContent-Length: 3\r\nA: b\r\nC:d\r\n"
    b"Expect: 100-continue\r\nCookie: a=\xe9; c\td\r\nUser-Agent: e\r\n\r\n",
    b"PUT / HTTP/1.1\r\nA: b\r\ntransfer-encoding: Chunked\r\nX-Empty:\r\nY:  \r\n"
    b"HOST: x:80\r\nCONNECTION: close, a\r\nUpgrades: a\r\nHos: b\r\nHostt: c\r\n\r\n",
)


def mutate(number: int) -> bytes:
    rng = random.Random(number)  # noqa: S311  not for secrets
    if number % 4 == 0:
        # With the fields that have no say, so that there is something to leave out.
        head, _, rest = make("heads", number).wire.partition(b"\r\n")
        return b"%b\r\n%b%b" % (head, b"A: b\r\nC: d\r\nE: f\r\n", rest)
    wire = bytearray(rng.choice(GOOD))
    for _ in range(rng.choice((1, 1, 2, 3))):
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


def read(wire: bytes) -> tuple[object, ...]:
    """Return all that our server knows after it has read these bytes."""
    codec = ServerCodec(Limits(header_fields=16, header_bytes=2048))
    codec.receive_data(wire)
    try:
        head = codec.next_request()
        if head is None:
            return ("incomplete",)
        parser = codec._parser
        return (
            head[:3],
            head.headers.raw,
            [(name, head.headers.lines(name)) for name in server_codec_fields()],
            (codec.body_left, codec.body_ended, codec.continue_owed, codec.closes),
            (codec.is_http10, codec.has_next),
            (parser.states, parser.their_http_version),
            parser.they_are_waiting_for_100_continue,
            type(parser._reader),
        )
    except MalformedMessage as exc:
        return (exc.status, str(exc), codec._method)


def server_codec_fields() -> list[bytes]:
    return [b"host", b"connection", b"upgrade", b"expect", b"content-length", b"accept"]


def test_whole_head_is_read_alike(monkeypatch: pytest.MonkeyPatch):
    """Results, refusals and h11's state are those of h11 with the whole message head."""
    # HEADS makes the run longer: nox -s heads.
    count = int(os.environ.get("HEADS", "6000"))
    wires = [mutate(number) for number in range(count)]
    ours = [read(wire) for wire in wires]
    monkeypatch.setattr(server_codec, "keep_decisive", lambda head, _found: head)

    accepted = 0
    for number, (wire, result) in enumerate(zip(wires, ours, strict=True)):
        assert read(wire) == result, (number, wire)
        accepted += len(result) > len(("status", "text", "method"))

    # The comparison is about both kinds.
    assert count / 10 < accepted < count * 9 / 10


@pytest.mark.parametrize("head", GOOD)
def test_what_h11_gets(head: bytes):
    """The start-line and the decisive lines as they came, in their order."""
    kept = keep_decisive(head, find_decisive(head))
    names = (b"host", b"connection", b"upgrade", b"expect", b"content-length")
    names += (b"transfer-encoding",)
    first, *lines = head.split(b"\r\n")[:-2]
    wanted = [line for line in lines if line.partition(b":")[0].lower() in names]

    assert is_well_formed(head)
    assert kept == b"\r\n".join([first, *wanted, b"", b""])


def test_few_lines_left_out_stay():
    """A message head that has hardly another line is given to h11 as it is."""
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
