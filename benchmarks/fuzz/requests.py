"""Good requests and their mutations: the same bytes for the same seed and number."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# The end of the lines of good requests.
CRLF = b"\r\n"
# Octets that a parser looks at, with some that it must not take for them.
OCTETS = (
    b"\r\n\t \x0b\x0c\x00\x08\x1f\x7f\x80\x85\xa0\xff:;,/\\\"'#?%*+-_.=@[]0129aAfFxXzZ"
)

METHODS = (
    *(b"GET", b"GET", b"GET", b"HEAD", b"POST", b"POST", b"PUT", b"PATCH", b"DELETE"),
    *(b"OPTIONS", b"TRACE", b"PROPFIND", b"QUERY", b"M-SEARCH", b"get", b"X"),
)
TARGETS = (
    *(
        b"/",
        b"/",
        b"/a/b?c=d&e",
        b"//a",
        b"/?",
        b"/%2f..%00",
        b"/a;b=c",
        b"/~user/'()*",
    ),
    *(b"http://x/", b"http://x:80/p?q", b"http://x?q", b"HTTP://X/", b"*"),
)
HOSTS = (
    *(b"x", b"x", b"x", b"x:80", b"a.example", b"127.0.0.1:8080", b"[::1]:80", b""),
)
# Field lines without a say in the framing.
FIELDS = (
    *(
        b"A: b",
        b"Accept: */*",
        b"Cookie: a=b; c=d",
        b"X-Empty:",
        b"User-Agent: a (b) c/1",
    ),
    *(b"Connection: keep-alive", b"Connection: close", b"TE: trailers", b"a:b"),
    *(b"Content-Type: text/plain", b"X-High: \xe9\xff", b"X-Tab: a\tb", b"Via: 1.1 x"),
    *(b"Keep-Alive: timeout=5", b"Proxy-Connection: keep-alive", b"Trailer: x-sum"),
)
OFFERS = (
    *(b"echo", b"websocket", b"h2c", b"a, b", b"echo/1.0", b"TLS/1.2, websocket"),
)
OPTIONS = (b"Upgrade", b"upgrade", b"keep-alive, Upgrade", b"Upgrade, HTTP2-Settings")
EXPECTATIONS = (b"100-continue", b"100-Continue")
CODINGS = (b"chunked", b"chunked", b"Chunked")
EXTENSIONS = (b"", b"", b"", b";a", b";a=b", b';a="b;c"')
TRAILERS = (b"x-sum: 1", b"a: b", b"Content-Length: 1")
BODIES = (
    *(b"", b"a", b"hello", b"0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n", bytes(300)),
    b"GET /inner HTTP/1.1\r\nHost: x\r\n\r\n",
)
# Lines that somebody who wants two readings adds.
TRICKS = (
    *(b"Content-Length: 0", b"Content-Length: 5", b"Content-Length: +5"),
    *(b"Content-Length: 5, 5", b"Content-Length: 5,6", b"Content-Length: 0x5"),
    *(b"Content-Length: -1", b"Content-Length: 05", b"Content-Length: 5 5"),
    *(
        b"Content-Length: 18446744073709551621",
        b"Content-Length: 5;a",
        b"Content-Length:",
    ),
    *(b"Content_Length: 5", b"Content-Length : 5", b"Transfer-Encoding : chunked"),
    *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"),
    *(b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: chunked, identity"),
    *(b"Transfer-Encoding: xchunked", b"Transfer-Encoding: chunked;a=b"),
    *(b"Transfer-Encoding: \tchunked", b"Transfer-Encoding: \x0bchunked"),
    *(
        b"Transfer-Encoding: 'chunked'",
        b"Transfer-Encoding:",
        b"Transfer_Encoding: chunked",
    ),
    *(b"Host: y", b"Host: x y", b"Host: u@x", b"Host: x:99999", b"Host: x/", b"Host:"),
    *(
        b"Expect: 100-continue",
        b"Expect: more",
        b"Connection: upgrade",
        b"Upgrade: echo",
    ),
    *(b"Upgrade: a b", b"Upgrade: ,", b"Connection: close, keep-alive", b" folded: 1"),
    *(b"Connection: content-length", b"Connection: transfer-encoding", b"no colon"),
    *(b": no name", b"GET /inner HTTP/1.1", b"", b"\tfold", b"a\x00: b", b"a: \x00"),
)
VERSIONS = (
    *(b"HTTP/1.0", b"HTTP/1.1 ", b"HTTP/1.2", b"HTTP/2.0", b"http/1.1", b"HTTP/0.9"),
    *(b"HTTP/1.10", b"HTTP/11", b"HTTP/1", b"", b" HTTP/1.1", b"HTTP/1.1\t"),
)
LINE_ENDS = (b"\n", b"\r", b"\r\r\n", b"\n\r", b" \r\n", b"\t\r\n", b"\r\n ", b"\r\n\t")
NUMBERS = (
    *(b"0", b"00", b"1", b"2", b"4", b"5", b"6", b"10", b"7fffffff", b"80000000"),
    *(b"ffffffffffffffff", b"10000000000000005", b"-1", b"+5", b"0x5", b" 5", b"5 "),
    *(b"5_0", b"", b"g", b"\xb2"),
)


@dataclass
class Parts:
    """A request in parts, so that whole parts can be changed.

    Attributes:
        lines: The start-line and the field lines, without their ends.
        body: The pieces of the body as sent; of a chunked one in turn a size, the end
            of its line, data, and the end of that.
    """

    lines: list[bytes]
    body: list[bytes]

    def join(self) -> bytes:
        """Return the bytes."""
        return CRLF.join([*self.lines, b"", b""]) + b"".join(self.body)


@dataclass(frozen=True)
class Sent:
    """A mutated request, and how it is sent.

    Attributes:
        number: Its number, which with the seed gives everything else.
        wire: The bytes of the mutated request.
        marker: A good request, sent right after it; its target is in no other request.
        switches: Whether it is sent to the servers that switch.
        cut: After how many bytes the first packet ends; 0 if there is only one.
    """

    number: int
    wire: bytes
    marker: bytes
    switches: bool
    cut: int


def make(seed: str, number: int) -> Sent:
    """Return the request of that number."""
    rng = random.Random(f"{seed}/{number}")  # noqa: S311  not for secrets
    parts = make_good(rng)
    changes = rng.choice((0, 1, 1, 1, 2, 2, 3))
    for _ in range(changes):
        rng.choice(STRUCTURAL)(rng, parts)
    wire = bytearray(parts.join())
    for _ in range(rng.choice((0, 0, 1, 1, 2)) or not changes):
        change_octet(rng, wire)
    marker = b"GET /marker-%d HTTP/1.1\r\nHost: x\r\n\r\n" % number
    cut = rng.randrange(1, len(wire) + len(marker)) if rng.random() < 1 / 4 else 0
    return Sent(number, bytes(wire), marker, rng.random() < 1 / 3, cut)


def make_good(rng: random.Random) -> Parts:
    """Return a good request: any method, target, Host, body and offer."""
    method, target = rng.choice(METHODS), rng.choice(TARGETS)
    if target == b"*":
        method = b"OPTIONS"
    if rng.random() < 1 / 20:
        method, target = b"CONNECT", b"a.example:443"
    lines = [b"Host: " + rng.choice(HOSTS)]
    lines += rng.sample(FIELDS, rng.choice((0, 0, 1, 2)))
    if rng.random() < 1 / 3:
        lines += [
            b"Connection: " + rng.choice(OPTIONS),
            b"Upgrade: " + rng.choice(OFFERS),
        ]
    body: list[bytes] = []
    if method != b"CONNECT" and rng.random() < 1 / 2:
        content = rng.choice(BODIES)
        if rng.random() < 1 / 2:
            lines.append(b"Content-Length: %d" % len(content))
            body = [content]
        else:
            lines.append(b"Transfer-Encoding: " + rng.choice(CODINGS))
            body = make_chunks(rng, content)
        if rng.random() < 1 / 5:
            lines.append(b"Expect: " + rng.choice(EXPECTATIONS))
    rng.shuffle(lines)
    return Parts([b"%b %b HTTP/1.1" % (method, target), *lines], body)


def make_chunks(rng: random.Random, content: bytes) -> list[bytes]:
    """Return a chunked body, piece by piece."""
    pieces: list[bytes] = []
    while content:
        size = rng.randint(1, len(content))
        number = b"%x" % size
        if rng.random() < 1 / 4:
            number = b"0" * rng.randint(1, 3) + number.upper()
        pieces += [number, rng.choice(EXTENSIONS) + CRLF, content[:size], CRLF]
        content = content[size:]
    pieces += [b"0", rng.choice(EXTENSIONS) + CRLF]
    if rng.random() < 1 / 4:
        pieces.append(rng.choice(TRAILERS) + CRLF)
    return [*pieces, CRLF]


################################################################
# Mutations
################################################################


def any_line(rng: random.Random, parts: Parts) -> int:
    """Return the index of a field line; 0, the start-line, if there is none left."""
    return rng.randrange(1, len(parts.lines)) if len(parts.lines) > 1 else 0


def repeat_line(rng: random.Random, parts: Parts) -> None:
    """Send a line twice, perhaps with others between."""
    index = any_line(rng, parts)
    parts.lines.insert(rng.randint(index, len(parts.lines)), parts.lines[index])


def drop_line(rng: random.Random, parts: Parts) -> None:
    """Leave a line out, but not the last one that is left."""
    if len(parts.lines) > 1:
        del parts.lines[rng.randrange(len(parts.lines))]


def add_trick(rng: random.Random, parts: Parts) -> None:
    """Add a line of those that servers read in different ways."""
    parts.lines.insert(rng.randint(0, len(parts.lines)), rng.choice(TRICKS))


def replace_with_trick(rng: random.Random, parts: Parts) -> None:
    """Replace a line by one of those."""
    parts.lines[any_line(rng, parts)] = rng.choice(TRICKS)


def change_version(rng: random.Random, parts: Parts) -> None:
    """Say another version."""
    start, _, _ = parts.lines[0].rpartition(b" ")
    parts.lines[0] = start + b" " + rng.choice(VERSIONS)


def change_line_end(rng: random.Random, parts: Parts) -> None:
    """End a line in another way, or fold the next one."""
    index = rng.randrange(len(parts.lines))
    joined = parts.lines[index : index + 2]
    parts.lines[index : index + 2] = [rng.choice(LINE_ENDS).join([*joined, b""][:2])]


def change_case(rng: random.Random, parts: Parts) -> None:
    """Change the case of a line."""
    index = rng.randrange(len(parts.lines))
    line = parts.lines[index]
    parts.lines[index] = rng.choice((line.lower(), line.upper(), line.swapcase()))


def add_blanks(rng: random.Random, parts: Parts) -> None:
    """Put whitespace, or something like it, around a delimiter of a line."""
    index = rng.randrange(len(parts.lines))
    delimiter = rng.choice((b":", b" ", b",", b"/", b"=", b";"))
    blank = rng.choice((b" ", b"\t", b"  ", b"\x0b", b"\x0c", b"\xa0", b"\x85", b""))
    place = rng.choice((blank + delimiter, delimiter + blank, blank))
    parts.lines[index] = parts.lines[index].replace(delimiter, place, 1)


def change_number(rng: random.Random, parts: Parts) -> None:
    """Change a length: the Content-Length or the size of a chunk."""
    number = rng.choice(NUMBERS)
    sizes = range(0, len(parts.body) - 1, 4) if len(parts.body) > 1 else ()
    if sizes and rng.random() < 3 / 4:
        parts.body[rng.choice(sizes)] = number
        return
    for index, line in enumerate(parts.lines):
        if line.lower().startswith(b"content-length:"):
            parts.lines[index] = b"Content-Length: " + number


def change_body_piece(rng: random.Random, parts: Parts) -> None:
    """Leave out, double, replace or cut a piece of the body, or add one to none."""
    if not parts.body:
        parts.body.append(rng.choice(BODIES))
        return
    index = rng.randrange(len(parts.body))
    piece = parts.body[index]
    others = (
        b"",
        piece * 2,
        piece[:-1],
        piece[1:],
        rng.choice(LINE_ENDS),
        b";" + piece,
    )
    parts.body[index] = rng.choice(others)


def swap_lines(rng: random.Random, parts: Parts) -> None:
    """Change the order of two lines, perhaps of the start-line, too."""
    one, two = rng.randrange(len(parts.lines)), any_line(rng, parts)
    parts.lines[one], parts.lines[two] = parts.lines[two], parts.lines[one]


def begin_with_blank(rng: random.Random, parts: Parts) -> None:
    """Send blank lines, or something like them, before the request."""
    before = rng.choice((b"\r\n", b"\r\n\r\n", b"\n", b" ", b"\r", b"\t\r\n", b"\x00"))
    parts.lines[0] = before + parts.lines[0]


def change_octet(rng: random.Random, wire: bytearray) -> None:
    """Delete, insert, replace, double or swap octets."""
    if not wire:
        return
    index, octet = rng.randrange(len(wire)), rng.choice(OCTETS)
    kind = rng.randrange(5)
    if kind == 0:
        del wire[index]
    elif kind == 1:
        wire.insert(index, octet)
    elif kind == 2:
        wire[index] = octet
    elif kind == 3:
        wire.insert(index, wire[index])
    else:
        wire[index], wire[index - 1] = wire[index - 1], wire[index]


STRUCTURAL: tuple[Callable[[random.Random, Parts], None], ...] = (
    repeat_line,
    drop_line,
    add_trick,
    add_trick,
    replace_with_trick,
    change_version,
    change_line_end,
    change_case,
    add_blanks,
    change_number,
    change_body_piece,
    swap_lines,
    begin_with_blank,
)
