"""Bodies of requests: they are read, dropped or refused before any switch."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trio_upgrade import (
    BadBody,
    Limits,
    Request,
    Response,
    Upgrade,
    UpgradedStream,
    serve_stream,
)
from trio_upgrade.testing import ScriptedPeer, split_points

from ..apps import echo, echo_app
from ..servers import run_script
from ..wire import SWITCHED, UP, closing, get, okay
from .wires import CONTINUE, Serving, check_closing_text, with_fields

POST = UP.replace(b"GET", b"POST")
CHUNKED = b"5\r\nhello\r\n3;x=y\r\nyou\r\n0\r\nX-T: 1\r\n\r\n"


async def answer_with_body(request: Request) -> Response:
    """Respond with the body of the request."""
    return Response(200, await request.read())


@pytest.mark.ids("S11", "S12")
@pytest.mark.parametrize(
    ("framing", "body", "whole"),
    [
        ("Content-Length: 5", b"hello", b"hello"),
        ("Transfer-Encoding: chunked", CHUNKED, b"helloyou"),
    ],
)
async def test_body_then_stream(
    serving: Serving, framing: str, body: bytes, whole: bytes
) -> None:
    """The body ends at the exact byte; later bytes are the stream's (RFC 9110 §7.8)."""

    async def handler(request: Request, stream: UpgradedStream, head: bytes) -> None:
        await stream.send_all(await request.read())
        await echo(request, stream, head)

    async def app(request: Request) -> Upgrade:
        assert await request.read() == whole
        return Upgrade("echo", handler)

    wire = with_fields(POST, framing) + body + b"HEAD"

    await serving.check(app, wire, SWITCHED + whole + b"HEAD")


@pytest.mark.ids("S12", "S23")
@pytest.mark.parametrize(
    ("framing", "body"),
    [("Content-Length: 5", b"hello"), ("Transfer-Encoding: chunked", CHUNKED)],
)
async def test_unread_body_never_becomes_protocol_data(
    serving: Serving, framing: str, body: bytes
) -> None:
    """A body that the app did not read is dropped before the 101 (RFC 9110 §7.8)."""
    wire = with_fields(POST, framing) + body + b"HEAD"

    await serving.check(echo_app, wire, SWITCHED + b"HEAD")


@pytest.mark.ids("M10", "S13")
@pytest.mark.parametrize(
    ("framing", "body"),
    [("Content-Length: 5", b"hello"), ("Transfer-Encoding: chunked", CHUNKED)],
)
async def test_body_is_read_to_its_end(
    serving: Serving, framing: str, body: bytes
) -> None:
    """A body not read by the app is dropped before the next request (RFC 9112 §9.3)."""
    head = b"POST /1 HTTP/1.1\r\nHost: x\r\n" + framing.encode() + b"\r\n\r\n"

    await serving.check(echo_app, head + body + get("/2"), okay(b"/1") + okay(b"/2"))


@pytest.mark.ids("M10", "M18")
async def test_body_too_long_to_drain(serving: Serving) -> None:
    """A body too long to drain ends the connection, announced (RFC 9112 §9.3)."""
    wire = b"POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello" + get("/2")

    await serving.check(echo_app, wire, closing(okay(b"/1")), Limits(drain_body=4))


@pytest.mark.ids("U31")
async def test_100_as_soon_as_the_body_is_asked_for(autojump_clock) -> None:
    """The 100 is sent when the app reads the body (RFC 9110 §10.1.1)."""
    wire = (
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n"
    )
    for packets in split_points(wire + b"\r\n"):
        peer = ScriptedPeer(*packets, then="silence")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_stream, answer_with_body, peer)
            await peer.wait_sent(CONTINUE)
            peer.feed(b"hello")
            peer.finish()

        assert peer.sent == CONTINUE + okay(b"hello")


@pytest.mark.ids("U31", "M10")
async def test_final_answer_instead_of_the_100(autojump_clock) -> None:
    """A response without reading replaces the 100 and closes (RFC 9110 §10.1.1)."""
    wire = (
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n"
    )
    for packets in split_points(wire + b"\r\n"):
        peer = ScriptedPeer(*packets, then="silence")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_stream, echo_app, peer)
            await peer.wait_sent(closing(okay(b"/")))
            peer.feed(get("/2"))
            peer.finish()

        assert peer.sent == closing(okay(b"/"))


@pytest.mark.ids("U31")
async def test_expectation_of_http_1_0_is_ignored(autojump_clock) -> None:
    """An HTTP/1.0 client gets no 100 (RFC 9110 §10.1.1)."""
    wire = b"POST / HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    for packets in split_points(wire):
        peer = ScriptedPeer(*packets, then="silence")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_stream, answer_with_body, peer)
            await trio.testing.wait_all_tasks_blocked()
            assert not peer.sent
            peer.feed(b"hello")
            peer.finish()

        assert peer.sent == closing(okay(b"hello"))


@pytest.mark.ids("U32")
async def test_no_100_when_the_body_is_here() -> None:
    """No 100 is sent if the body is coming, or if there is none (RFC 9110 §10.1.1)."""
    wire = (
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n"
    )
    for size in range(1, 6):
        peer = await run_script(
            answer_with_body, wire + b"\r\nhello"[: 2 + size], b"hello"[size:]
        )

        assert peer.sent == okay(b"hello")

    wire = get("/", "Expect: 100-continue")

    for packets in split_points(wire + get("/2")):
        peer = await run_script(answer_with_body, *packets)

        assert peer.sent == okay(b"") * 2


@pytest.mark.ids("S20", "S22")
@pytest.mark.parametrize(
    ("framing", "body"),
    [
        ("Content-Length: 50", b"abc"),
        ("Transfer-Encoding: chunked", b"5\r\nab"),
        ("Transfer-Encoding: chunked", b"ZZ\r\n"),
        ("Transfer-Encoding: chunked", b"1\r\naX0\r\n\r\n"),
    ],
)
async def test_broken_body_raises_in_its_reader(framing: str, body: bytes) -> None:
    """A cut or garbled body raises in read(), and becomes a 400 (RFC 9112 §6.3)."""
    for packets in split_points(with_fields(POST, framing) + body):
        raised: list[BadBody] = []

        async def app(request: Request, raised=raised) -> Upgrade:
            try:
                await request.read()
            except BadBody as exc:
                raised.append(exc)
                raise
            raise AssertionError("the body was accepted as complete")

        peer = await run_script(app, *packets)

        assert len(raised) == 1
        check_closing_text(bytes(peer.sent), "400 Bad Request")


@pytest.mark.ids("S20", "S22")
@pytest.mark.parametrize(
    ("framing", "body", "then"),
    [
        ("Content-Length: 50", b"abc", "end"),
        ("Content-Length: 50", b"abc", "reset"),
        ("Transfer-Encoding: chunked", b"ZZ\r\n", "end"),
    ],
)
async def test_broken_body_gets_no_101(framing: str, body: bytes, then: str) -> None:
    """An offer with a broken body is not switched (RFC 9110 §7.8)."""

    async def never(request: Request, stream: UpgradedStream, head: bytes) -> None:
        raise AssertionError("called")

    async def app(request: Request) -> Upgrade:
        return Upgrade("echo", never)

    for packets in split_points(with_fields(POST, framing) + body):
        peer = await run_script(app, *packets, then=then)

        if then == "reset":
            assert not peer.sent
        else:
            check_closing_text(bytes(peer.sent), "400 Bad Request")


@pytest.mark.ids("S21", "S40")
async def test_no_http_after_the_101(caplog) -> None:
    """The 101 waits for the body; no HTTP is sent after it (RFC 9110 §7.8)."""

    async def fail(request: Request, stream: UpgradedStream, head: bytes) -> None:
        raise LookupError("oops")

    async def app(request: Request) -> Upgrade:
        return Upgrade("echo", fail)

    wire = with_fields(POST, "Content-Length: 5") + b"he"
    for packets in split_points(wire):
        peer = ScriptedPeer(*packets, then="silence")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_stream, app, peer)
            await trio.testing.wait_all_tasks_blocked()
            assert not peer.sent
            peer.feed(b"llo", b"\x00GET / HTTP/1.1\r\n\r\n")
            peer.finish()

        assert peer.sent == SWITCHED
        assert peer.closed
    assert "oops" in caplog.text
