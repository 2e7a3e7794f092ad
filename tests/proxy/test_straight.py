"""The same scripted exchange straight and through the proxy: the client's bytes agree."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import trio

from trio_upgrade.testing import split_points

from ..wire import DATE
from .messages import parse_response
from .scenes import HOST, End, open_scene


class Exchange(NamedTuple):
    """What a client sends, and what the upstream server answers.

    Attributes:
        wire: The client's bytes.
        until: The last bytes of it that the server waits for.
        back: The server's bytes.
        ends: Whether the server's end is a part of its answer.
    """

    wire: bytes
    until: bytes
    back: bytes
    ends: bool = False


def ask(method: str, *lines: str, body: bytes = b"") -> bytes:
    fields = [f"{method} /a?b HTTP/1.1", "Host: x", *lines, "", ""]
    return "\r\n".join(fields).encode() + body


def tell(status: str, *lines: str, body: bytes = b"") -> bytes:
    # Only an answer without a Date would get one from the proxy (RFC 9110 §6.6.1).
    head = f"HTTP/1.1 {status}\r\n".encode() + DATE
    return head + "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + body


SWITCHED = (
    b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: x\r\n\r\n"
)
OFFER = ask("GET", "Connection: Upgrade", "Upgrade: websocket")
EXCHANGES = {
    "length": Exchange(
        ask("GET", "Cookie: a"),
        b"\r\n\r\n",
        tell("200 Fine", "X-a: 1", "x-A: 2", "Content-Length: 6", body=b"answer"),
    ),
    "no content": Exchange(ask("DELETE"), b"\r\n\r\n", tell("204 No", "ETag: x")),
    "not modified": Exchange(
        ask("GET", "If-None-Match: x"), b"\r\n\r\n", tell("304 Same", "ETag: x")
    ),
    "head": Exchange(ask("HEAD"), b"\r\n\r\n", tell("200 OK", "Content-Length: 99")),
    "hints": Exchange(
        ask("PUT", "Content-Length: 4", body=b"body"),
        b"body",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        + tell("201 Made", "Content-Length: 2", body=b"it"),
    ),
    "refusal": Exchange(
        OFFER, b"\r\n\r\n", tell("403 No", "Content-Length: 1", body=b"n")
    ),
    "switch": Exchange(OFFER + b"early", b"\r\n\r\n", SWITCHED + b"hello\r\n\r\n\0"),
}
# Here the content is the same, and its framing the proxy's.
FRAMED = {
    "chunked": Exchange(
        ask("POST", "TE: trailers", "Content-Length: 2", body=b"hi"),
        b"hi",
        tell(
            *("200 OK", "Transfer-Encoding: chunked", "Trailer: X-Sum"),
            body=b"4\r\nsome\r\n5;a=b\r\n more\r\n0\r\nX-Sum: 1\r\n\r\n",
        ),
    ),
    "until the end": Exchange(
        ask("GET"),
        b"\r\n\r\n",
        tell("200 OK", "Server: s", body=b"all of it"),
        ends=True,
    ),
}


class Script:
    """An upstream server that answers each request with the same packets."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.packets: tuple[bytes, ...] = (exchange.back,)

    async def handle(self, end: End) -> None:
        until, ends = self.exchange.until, self.exchange.ends
        while until in await end.receive_until(until):
            end.received.clear()
            await end.send(*self.packets)
            if ends:
                return


async def converse(port: int, packets: tuple[bytes, ...], last: bytes) -> bytes:
    """Return what a client gets until these bytes, and any others that come then."""
    async with await trio.open_tcp_stream(HOST, port) as stream:
        client = End(stream)
        await client.send(*packets)
        with trio.fail_after(5):
            while not client.received.endswith(last) and await client.receive_more():
                pass
        return await client.receive_now()


@pytest.mark.parametrize("name", EXCHANGES)
async def test_same_bytes_at_every_split(name: str) -> None:
    """Whichever side cuts its bytes, and wherever: to the client nothing differs."""
    exchange = EXCHANGES[name]
    script = Script(exchange)
    wire, back = exchange.wire, exchange.back
    async with open_scene(script.handle) as scene:
        straight = await converse(scene.upstream.port, (wire,), back)
        for script.packets in split_points(back):
            assert await converse(scene.port, (wire,), back) == straight
        script.packets = (back,)
        for packets in split_points(wire):
            assert await converse(scene.port, packets, back) == straight


@pytest.mark.parametrize("name", FRAMED)
async def test_same_message_at_every_split(name: str) -> None:
    """The proxy may cut chunks again, and gives what an end would end chunks (§6.3)."""
    exchange = FRAMED[name]
    script = Script(exchange)
    method = exchange.wire.split()[0].decode()
    straight = parse_response(exchange.back, method, cut=False)
    assert straight is not None
    last = b"X-Sum: 1\r\n\r\n" if straight.trailers else b"0\r\n\r\n"
    async with open_scene(script.handle) as scene:
        for script.packets in split_points(exchange.back):
            got = await converse(scene.port, (exchange.wire,), last)
            through = parse_response(got, method, cut=False)

            assert through is not None
            assert through.whole
            assert (through.first, through.body) == (straight.first, straight.body)
            assert through.trailers == straight.trailers
            del through.fields["transfer-encoding"]
            straight.fields.pop("transfer-encoding", None)
            assert through.fields == straight.fields
