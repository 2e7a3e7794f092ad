"""The body of a request or response that is received, sent as that of another one."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import trio

from trio_upgrade import (
    ClientConnection,
    Request,
    Response,
    UpgradeRefused,
    open_connection,
    open_upgrade,
    serve_tcp,
)
from trio_upgrade.testing import ScriptedPeer, split_points

from ..servers import run_script
from ..wire import SWITCHED, get, okay

URL = "http://x"


def post(*fields: str, method: str = "POST") -> bytes:
    return get("/", *fields).replace(b"GET", method.encode())


async def forward(
    wire, *, headers=(), method=None, read=None, upgrade=False, end=b"\r\n\r\n"
) -> bytes:
    """Serve the request to a proxy; return what its upstream server gets.

    Args:
        wire: The request as received, or its packets.
        headers: Fields of the forwarded request; ``"same"`` means the request's own.
        method: Its method; by default that of the request.
        read: Called with the request before it is forwarded.
        upgrade: Whether an offer goes with the body.
        end: The upstream server answers when these bytes have come.
    """
    upstream = ScriptedPeer(SWITCHED if upgrade else okay()).hold_until_sent(end)

    async def app(request: Request) -> Response:
        if read is not None:
            await read(request)
        given = request.headers.end_to_end() if headers == "same" else headers
        options: Any = {"body": request.stream(), "headers": given}
        if upgrade:
            async with await open_upgrade(URL, "echo", stream=upstream, **options):
                return Response(200)
        connection = await open_connection(URL, stream=upstream)
        async with connection:
            await connection.request(method or request.method, "/", **options)
        return Response(200)

    await run_script(app, *([wire] if isinstance(wire, bytes) else wire))
    return bytes(upstream.sent)


NO_BODY = [
    (post(), b"Content-Length: 0\r\n"),
    (post("Content-Length: 0"), b"Content-Length: 0\r\n"),
    (get("/"), b""),
    (get("/", "Content-Length: 0"), b""),
    (post(method="DELETE"), b""),
]


@pytest.mark.ids("F38")
@pytest.mark.parametrize(("wire", "framing"), NO_BODY)
async def test_no_body(wire: bytes, framing: bytes) -> None:
    """A request without a body is forwarded without one (RFC 9112 §6.3)."""
    method = wire.partition(b" ")[0]
    for packets in split_points(wire):
        sent = await forward(packets)

        assert sent == method + b" / HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n"


@pytest.mark.ids("F38")
@pytest.mark.parametrize(("wire", "framing"), NO_BODY)
async def test_no_body_with_its_own_fields(wire: bytes, framing: bytes) -> None:
    """Its own Content-Length of 0 may be forwarded, and is not doubled."""
    sent = await forward(wire, headers="same")

    assert sent.count(b"Content-Length: 0\r\n") == (
        bool(framing) or b"Content-Length" in wire
    )
    assert b"chunked" not in sent
    assert sent.endswith(b"\r\n\r\n")
    assert sent.count(b"\r\n\r\n") == 1


@pytest.mark.ids("F38")
@pytest.mark.parametrize("wire", [get("/"), get("/", "Content-Length: 0")])
async def test_offer_without_a_body(wire: bytes) -> None:
    """No end of a body lands in the protocol after the switch."""
    sent = await forward(wire, upgrade=True)

    assert sent.endswith(b"Upgrade: echo\r\n\r\n")
    assert b"chunked" not in sent


@pytest.mark.ids("F38")
async def test_offer_with_a_body() -> None:
    """A body of known length goes with an offer under its Content-Length."""
    sent = await forward(post("Content-Length: 5") + b"hello", upgrade=True)

    assert b"\r\nContent-Length: 5\r\n" in sent
    assert sent.endswith(b"\r\n\r\nhello")


@pytest.mark.ids("F38")
@pytest.mark.parametrize("headers", [(), "same"])
async def test_known_length(headers) -> None:
    """A body of known length is sent with it, for servers that know no chunks."""
    wire = post("Content-Length: 5") + b"hello"
    for packets in split_points(wire):
        sent = await forward(packets, headers=headers, end=b"hello")

        assert sent.count(b"Content-Length: 5\r\n") == 1
        assert b"chunked" not in sent
        assert sent.endswith(b"\r\n\r\nhello")


@pytest.mark.ids("F38")
@pytest.mark.parametrize("body", [b"5\r\nhello\r\n0\r\n\r\n", b"0\r\n\r\n"])
async def test_unknown_length(body: bytes) -> None:
    """A chunked body stays chunked, an empty one too."""
    sent = await forward(post("Transfer-Encoding: chunked") + body)

    assert b"Transfer-Encoding: chunked\r\n" in sent
    assert sent.endswith(b"\r\n\r\n" + body)


@pytest.mark.ids("F38")
@pytest.mark.parametrize(
    "framing", [("Content-Length: 5", b"hello"), ("Transfer-Encoding: chunked", b"")]
)
async def test_read_before(framing) -> None:
    """A body that was read whole has a known length, and comes again."""

    async def read(request: Request) -> None:
        assert await request.read() == b"hello"

    field, body = framing
    sent = await forward(post(field) + (body or b"5\r\nhello\r\n0\r\n\r\n"), read=read)

    assert b"Content-Length: 5\r\n" in sent
    assert sent.endswith(b"\r\n\r\nhello")


async def take_a_piece(request: Request) -> None:
    assert await anext(request.stream()) == b"he"


@pytest.mark.ids("F38")
async def test_read_in_part() -> None:
    """The length is that of the rest, after a part of the body was taken."""
    wire = (post("Content-Length: 5") + b"he", b"llo")
    sent = await forward(wire, read=take_a_piece)

    assert b"Content-Length: 3\r\n" in sent
    assert sent.endswith(b"\r\n\r\nllo")


@pytest.mark.ids("F38")
async def test_read_in_part_with_its_own_fields() -> None:
    """A Content-Length that is no longer right is refused before anything is sent."""
    wire = (post("Content-Length: 5") + b"he", b"llo")
    with pytest.raises(
        ValueError, match="Content-Length is 5, but 3 bytes of the body"
    ):
        await forward(wire, headers="same", read=take_a_piece)


@pytest.mark.ids("F38")
async def test_read_to_the_end() -> None:
    """Nothing is left of a body that was streamed: no body is sent."""

    async def read(request: Request) -> None:
        assert b"".join([chunk async for chunk in request.stream()]) == b"hello"

    sent = await forward(post("Content-Length: 5") + b"hello", method="GET", read=read)

    assert sent == b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.ids("F38", "U30")
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_expectation(method: str) -> None:
    """Without a body no 100 is asked for (RFC 9110 §10.1.1)."""
    sent = await forward(post("Expect: 100-continue", method=method), headers="same")

    assert b"Expect" not in sent
    assert sent.count(b"\r\n\r\n") == 1


@pytest.mark.ids("F38")
async def test_empty_response() -> None:
    """The stream of an empty response is no body of a request either."""
    upstream = ScriptedPeer(okay(b""))
    connection = await open_connection(URL, stream=upstream)
    response = await connection.request("GET", "/")
    other = ScriptedPeer(okay())
    forwarding = await open_connection(URL, stream=other)
    await forwarding.request("GET", "/", body=response.stream())

    assert other.sent == b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.ids("F38")
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_refused_offer_over_tcp(method: str, nursery) -> None:
    """After a refused offer without a body the connection has another request."""
    connections: list[ClientConnection] = []

    async def origin(request: Request) -> Response:
        return Response(403 if request.upgrades else 200, b"%d" % request.has_body)

    async def proxy(request: Request) -> Response:
        connection = await open_connection(server.url)
        connections.append(connection)
        with pytest.raises(UpgradeRefused) as caught:
            await connection.upgrade("/", "echo", method=method, body=request.stream())
        assert await caught.value.response.read() == b"0"
        response = await connection.request("GET", "/", body=request.stream())
        return Response(200, await response.read())

    server = await nursery.start(partial(serve_tcp, origin, 0, host="127.0.0.1"))
    peer = await run_script(proxy, post(method=method))

    assert peer.sent.endswith(b"\r\n\r\n0")
    await trio.lowlevel.checkpoint()
    for connection in connections:
        await connection.aclose()
    nursery.cancel_scope.cancel()
