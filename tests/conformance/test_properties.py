"""Arbitrary messages, cuts and corruptions: the same result, and no illegal switch."""

from __future__ import annotations

import itertools
import re
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import trio
import trio.testing
from hypothesis import example, given, settings, strategies as st

from benchmarks.fuzz.requests import make
from trio_upgrade import (
    OpenError,
    Request,
    Response,
    Upgrade,
    UpgradedStream,
    open_connection,
    open_upgrade,
    serve_stream,
)
from trio_upgrade.testing import ScriptedPeer

from ..apps import echo, echo_app
from ..wire import SWITCHED, UP, okay
from .wires import CONTINUE, URL, read_all

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeVar

    Result = TypeVar("Result")

TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
VALUE = r"[\t\x20-\x7e\x80-\xff]*"
FIELDS = rf"((?:{TOKEN}:{VALUE}\r\n)*)\r\n"
# Only origin-form: a few changes cannot turn "/u" into another form.
match_request = re.compile(
    rf"(?:\r\n)?({TOKEN}) /[\x21\x22\x24-\x7e]* HTTP/1\.1\r\n{FIELDS}"
).match
match_switch = re.compile(rf"HTTP/1\.1 101(?: {VALUE})?\r\n{FIELDS}").match
is_host = re.compile(
    r"(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*(?::[0-9]{0,5})?"
).fullmatch
is_protocol = re.compile(rf"{TOKEN}(?:/{TOKEN})?").fullmatch

examples = settings(max_examples=100, deadline=None)
tokens = st.text("abcXYZ019-._~!#$%&'*+^`|", min_size=1, max_size=8)
values = st.text('abc,;=/ \t\x80\xff"()', max_size=12).map(
    lambda text: text.strip(" \t")
)
bodies = st.binary(max_size=200)
# Indexes at which bytes are cut; those beyond their end are ignored.
cuts = st.sets(st.integers(1, 400), max_size=6)


def cut(wire: bytes, points: set[int]) -> list[bytes]:
    edges = [0, *sorted(point for point in points if point < len(wire)), len(wire)]
    return [wire[start:end] for start, end in itertools.pairwise(edges)]


def run(job: Callable[[], Awaitable[Result]]) -> Result:
    """Run a job on a clock that jumps when all tasks wait: a hang is an error."""

    async def bounded() -> Result:
        with trio.fail_after(1_000_000):
            return await job()

    return trio.run(bounded, clock=trio.testing.MockClock(autojump_threshold=0))


def serve(app, *packets: bytes) -> bytes:
    """Serve an app on a script and return what it sends; no exception may come out."""
    peer = ScriptedPeer(*packets)
    run(partial(serve_stream, app, peer, strict=True))

    assert peer.closed
    return bytes(peer.sent)


@st.composite
def framed_bodies(draw: st.DrawFn) -> tuple[bytes, bytes, bytes]:
    """Draw a framing field, a body as sent, and its content."""
    body = draw(bodies)
    if draw(st.booleans()):
        return b"Content-Length: %d\r\n" % len(body), body, body
    framing = draw(st.sampled_from([b"Chunked", b"chunked", b"CHUNKED"]))
    wire = bytearray()
    for chunk in cut(body, draw(cuts)) if body else []:
        extension = draw(st.sampled_from([b"", b";a", b';a="b c"', b";a=b;c"]))
        wire += b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk)
    trailers = draw(st.lists(st.tuples(tokens, values), max_size=2))
    wire += b"0\r\n" + field_lines(trailers) + b"\r\n"
    return b"Transfer-Encoding: %b\r\n" % framing, bytes(wire), body


def field_lines(fields: list[tuple[str, str]]) -> bytes:
    # With the prefix no field has a meaning.
    lines = [f"x-{name}: {value}\r\n" for name, value in fields]
    return "".join(lines).encode("latin-1")


async def describe(request: Request) -> bytes:
    fields = [pair for pair in request.headers.raw if pair[0].startswith(b"x-")]
    return repr((request.method, request.path, fields, await request.read())).encode()


@examples
@given(
    st.sampled_from(["GET", "POST", "x"]),
    st.lists(st.tuples(tokens, values), max_size=3),
    framed_bodies(),
    cuts,
    st.booleans(),
    st.binary(max_size=20),
)
def test_cut_anywhere(method, fields, framed, points, switch, early) -> None:
    """A request gives the same result for any cuts, and so do the bytes after it."""
    framing, wire_body, body = framed

    async def handler(request: Request, stream: UpgradedStream, head: bytes) -> None:
        await stream.send_all(await describe(request))
        await echo(request, stream, head)

    async def app(request: Request) -> Upgrade | Response:
        described = await describe(request)
        return Upgrade("echo", handler) if switch else Response(200, described)

    offer = b"Connection: Upgrade\r\nUpgrade: echo\r\n"
    head = b"%b /u HTTP/1.1\r\nHost: x\r\n" % method.encode()
    message = head + offer + field_lines(fields) + framing + b"\r\n" + wire_body
    raw = [(f"x-{name}".encode(), value.encode("latin-1")) for name, value in fields]
    described = repr((method, "/u", raw, body)).encode()
    if switch:
        wire, expected = message + early, SWITCHED + described + early
    else:
        wire, expected = message * 2, okay(described) * 2

    assert serve(app, wire) == expected
    assert serve(app, *cut(wire, points)) == expected


@examples
@given(st.binary(max_size=300), cuts)
@example(b"\r\n", set())
@example(b"GET / HTTP/1.1\r\n\r\n", {71})
def test_bytes_after_the_request(data: bytes, points: set[int]) -> None:
    """All bytes after an offer come back from the echo, and no others."""
    assert serve(echo_app, *cut(UP + data, points)) == SWITCHED + data


@examples
@given(st.binary(max_size=300), cuts)
@example(SWITCHED, set())
def test_bytes_after_the_101(data: bytes, points: set[int]) -> None:
    """All bytes after a 101 are in the client's stream, and no others."""

    async def dial() -> bytes:
        peer = ScriptedPeer(*cut(CONTINUE + SWITCHED + data, points))
        async with await open_upgrade(URL, "echo", stream=peer) as upgraded:
            return await read_all(upgraded.stream)

    assert run(dial) == data


@examples
@given(st.lists(st.tuples(tokens, values), max_size=3), framed_bodies(), cuts)
def test_response_cut_anywhere(fields, framed, points) -> None:
    """A response is the same for any cuts, and so is the next one."""
    framing, wire_body, body = framed
    answer = (
        b"HTTP/1.1 200 OK\r\n" + field_lines(fields) + framing + b"\r\n" + wire_body
    )
    expected = [
        (f"x-{name}".encode(), value.encode("latin-1")) for name, value in fields
    ]

    async def ask() -> None:
        peer = ScriptedPeer(*cut(answer, points), *cut(answer, points))
        async with await open_connection(URL, stream=peer) as connection:
            for _ in range(2):
                response = await connection.request("GET", "/u")
                assert await response.read() == body
                assert [*response.headers.raw[: len(fields)]] == expected

    run(ask)


################################################################
# Corrupted messages
################################################################

changes = st.lists(
    st.tuples(
        st.sampled_from(["delete", "insert", "replace", "double", "swap"]),
        st.integers(0, 120),
        st.one_of(
            st.sampled_from(b"\r\n\t :,/\x00\x7f\xff0129aA"), st.integers(0, 255)
        ),
    ),
    min_size=1,
    max_size=4,
)


def corrupt(wire: bytes, edits: list[tuple[str, int, int]]) -> bytes:
    data = bytearray(wire)
    for kind, place, octet in edits:
        at = place % len(data)
        if kind == "delete":
            del data[at]
        elif kind == "insert":
            data.insert(at, octet)
        elif kind == "replace":
            data[at] = octet
        elif kind == "double":
            data.insert(at, data[at])
        else:
            data[at], data[at - 1] = data[at - 1], data[at]
    return bytes(data)


def fields_of(lines: str) -> list[tuple[str, str]]:
    pairs = [line.split(":", 1) for line in lines.split("\r\n")[:-1]]
    return [(name.lower(), value.strip(" \t")) for name, value in pairs]


def elements(fields: list[tuple[str, str]], wanted: str) -> list[str]:
    values = ",".join(value for name, value in fields if name == wanted)
    stripped = [element.strip(" \t") for element in values.split(",")]
    return [element for element in stripped if element]


def names_echo(element: str) -> bool:
    return element.lower() == "echo"


def is_legal_offer(wire: bytes) -> bool:
    """Return whether this begins with an offer of echo, without using our code."""
    match = match_request(wire.decode("latin-1"))
    if match is None or match[1] == "CONNECT":
        return False
    fields = fields_of(match[2])
    hosts = [value for name, value in fields if name == "host"]
    options = [option.lower() for option in elements(fields, "connection")]
    return (
        len(hosts) == 1
        and is_host(hosts[0]) is not None
        and "upgrade" in options
        and any(map(names_echo, elements(fields, "upgrade")))
    )


def is_legal_switch(wire: bytes) -> bool:
    """Return whether this begins with a 101 to an offer of echo, without our code."""
    match = match_switch(wire.decode("latin-1"))
    if match is None:
        return False
    fields = fields_of(match[1])
    options = [option.lower() for option in elements(fields, "connection")]
    protocols = elements(fields, "upgrade")
    return "upgrade" in options and bool(protocols) and all(map(names_echo, protocols))


@settings(examples, max_examples=300)
@given(changes, cuts)
@example([("replace", 4, 0x2A)], set())
@example([("insert", 0, 0x0A), ("insert", 0, 0x0D)], set())
@example([("replace", 24, 0x5B)], set())
def test_corrupted_offer(edits: list[tuple[str, int, int]], points: set[int]) -> None:
    """A corrupted offer gets a 101 exactly if it is still a legal offer."""
    wire = corrupt(UP, edits) + b"HEAD"
    sent = serve(echo_app, *cut(wire, points))

    if is_legal_offer(wire):
        assert sent.startswith(b"HTTP/1.1 101 "), wire
    else:
        assert b" 101 " not in sent, wire


@settings(examples, max_examples=300)
@given(changes, cuts)
@example([("delete", 8, 0)], set())
@example([("replace", 11, 0x32)], set())
def test_corrupted_101(edits: list[tuple[str, int, int]], points: set[int]) -> None:
    """A corrupted 101 switches exactly if it is legal; else it is an OpenError."""
    wire = corrupt(SWITCHED, edits) + b"HEAD"
    peer = ScriptedPeer(*cut(wire, points))

    async def dial() -> bool:
        try:
            upgraded = await open_upgrade(URL, "echo", stream=peer)
        except OpenError:
            return False
        await upgraded.aclose()
        return True

    assert run(dial) == is_legal_switch(wire), wire
    assert peer.closed


@settings(examples, max_examples=200)
@given(st.binary(max_size=200), cuts, st.booleans())
def test_noise(noise: bytes, points: set[int], headed: bool) -> None:
    """Random bytes that are no request get at most one response, which closes."""
    wire = (b"GET / HTTP/1.1\r\n" if headed else b"") + noise
    sent = serve(echo_app, *cut(wire, points))

    assert b" 101 " not in sent
    # By chance they may be a request: any method, any target, an empty Host.
    served = sent.startswith(b"HTTP/1.1 200 OK\r\n")
    assert not sent or served or b"\r\nConnection: close\r\n" in sent


################################################################
# Framing
################################################################

match_head = re.compile(
    rf"(?:\r\n)?({TOKEN}) ([\x21-\x7e]+) HTTP/1\.[01]\r\n{FIELDS}", re.DOTALL
).match
match_chunk_line = re.compile(
    r"([0-9A-Fa-f]+)[\t ]*(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n"
).match
match_trailers = re.compile(FIELDS).match


def read_framing(text: str) -> list[tuple[str, str, str]]:
    """Return method, target and body of each request, without using our code.

    The list ends before the first request that cannot be read in one way only.
    """
    found: list[tuple[str, str, str]] = []
    with suppress(ValueError):
        while text:
            match = match_head(text)
            if match is None:
                break
            fields = fields_of(match[3])
            codings = [
                value.lower() for name, value in fields if name == "transfer-encoding"
            ]
            lengths = [value for name, value in fields if name == "content-length"]
            rest, body = text[match.end() :], ""
            if codings:
                if codings != ["chunked"] or lengths:
                    break
                body, rest = read_chunks(rest)
            elif lengths:
                if len(lengths) > 1 or not re.fullmatch("[0-9]+", lengths[0]):
                    break
                length = int(lengths[0])
                body, rest = rest[:length], rest[length:]
                if len(body) < length:
                    break
            found.append((match[1], match[2], body))
            text = rest
    return found


def read_chunks(text: str) -> tuple[str, str]:
    """Return the content of a chunked body, and what comes after it."""
    body = ""
    while True:
        line = match_chunk_line(text)
        if line is None:
            raise ValueError(text)
        size, start = int(line[1], 16), line.end()
        text = text[start:]
        if size == 0:
            break
        if text[size : size + 2] != "\r\n":
            raise ValueError(text)
        body, text = body + text[:size], text[size + 2 :]
    trailers = match_trailers(text)
    if trailers is None:
        raise ValueError(text)
    return body, text[trailers.end() :]


@settings(examples, max_examples=200)
@given(st.integers(0, 2**32), cuts)
def test_framing(number: int, points: set[int]) -> None:
    """Requests that are accepted have the only body, and end at the only place.

    What `nox -s fuzz` compares with other servers is compared here with the grammar.
    """
    seen: list[tuple[str, str, str]] = []

    async def app(request: Request) -> Response:
        body = (await request.read()).decode("latin-1")
        seen.append((request.method, request.target, body))
        return Response(403 if request.method == "CONNECT" else 200)

    mutated = make("properties", number)
    wire = mutated.wire + mutated.marker
    serve(app, *cut(wire, points))

    assert seen == read_framing(wire.decode("latin-1"))[: len(seen)], wire
