"""How long we wait for a peer at each point of a connection."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trio_upgrade import (
    BodyTimeout,
    Limits,
    Request,
    Response,
    Upgrade,
    UpgradedStream,
    serve_stream,
)
from trio_upgrade.testing import ScriptedPeer, split_points

from ..apps import echo_app
from ..wire import SWITCHED, UP, closing, get, okay
from .wires import check_closing_text, with_fields


async def say_bye(request: Request, stream: UpgradedStream, head: bytes) -> None:
    await stream.send_all(b"bye")


async def bye_app(request: Request) -> Upgrade:
    return Upgrade("echo", say_bye)


async def serve_silent(app, *packets: bytes, limits: Limits) -> tuple[bytes, float]:
    """Serve a client that stops sending; return what it got, and when we ended."""
    peer = ScriptedPeer(*packets, then="silence")
    started = trio.current_time()
    await serve_stream(app, peer, limits=limits, strict=True)

    assert peer.closed
    assert peer.got_eof
    # After our end the server waits for the client's end.
    assert limits.linger is not None
    return bytes(peer.sent), trio.current_time() - started - limits.linger


@pytest.mark.ids("M16", "S29")
async def test_request_that_does_not_come(autojump_clock) -> None:
    """After Limits.header_timeout: 408 for a part, else a close (RFC 9112 §9.5)."""
    limits = Limits(header_timeout=3, linger=1)
    for packets in split_points(UP[:-1]):
        sent, seconds = await serve_silent(echo_app, *packets, limits=limits)

        check_closing_text(sent, "408 Request Timeout")
        assert seconds == 3

    assert await serve_silent(echo_app, limits=limits) == (b"", 3)


@pytest.mark.ids("M16")
async def test_next_request_that_does_not_come(autojump_clock) -> None:
    """An idle connection is closed after Limits.keep_alive_timeout (RFC 9112 §9.5)."""
    limits = Limits(keep_alive_timeout=3, header_timeout=8, linger=1)
    for packets in split_points(get("/1")):
        got = await serve_silent(echo_app, *packets, limits=limits)

        assert got == (okay(b"/1"), 3)

    sent, seconds = await serve_silent(echo_app, get("/1"), b"G", limits=limits)

    assert sent.startswith(okay(b"/1"))
    check_closing_text(sent.removeprefix(okay(b"/1")), "408 Request Timeout")
    assert seconds == 8


@pytest.mark.ids("M16", "S21")
async def test_body_that_does_not_come(autojump_clock) -> None:
    """A body that stalls is a 408, and no switch (RFC 9110 §15.5.9)."""

    async def never(request: Request, stream: UpgradedStream, head: bytes) -> None:
        raise AssertionError("called")

    async def read(request: Request) -> Response:
        with pytest.raises(BodyTimeout) as caught:
            await request.read()
        raise caught.value

    async def switch(request: Request) -> Upgrade:
        return Upgrade("echo", never)

    limits = Limits(body_timeout=3, linger=1)
    wire = with_fields(UP, "Content-Length: 5") + b"he"
    for app in (read, switch):
        for packets in split_points(wire):
            sent, seconds = await serve_silent(app, *packets, limits=limits)

            check_closing_text(sent, "408 Request Timeout")
            assert seconds == 3


@pytest.mark.ids("M16", "S35")
@pytest.mark.parametrize("app", [bye_app, echo_app])
async def test_peer_that_never_ends(app, autojump_clock) -> None:
    """The server waits Limits.linger for the client's end (RFC 9112 §9.5)."""
    wire = UP if app is bye_app else get("/", "Connection: close")
    for packets in split_points(wire):
        peer = ScriptedPeer(*packets, then="silence")
        started = trio.current_time()
        await serve_stream(app, peer, limits=Limits(linger=7))

        assert trio.current_time() - started == 7
        assert peer.got_eof
        assert peer.closed


@pytest.mark.ids("M16")
@pytest.mark.parametrize("wire", [b"", get("/1"), get("/1") + b"GET /2 HT"])
async def test_peer_that_ends(wire: bytes, autojump_clock) -> None:
    """A client's end between or within requests closes (RFC 9112 §9.5)."""
    for packets in split_points(wire):
        peer = ScriptedPeer(*packets)
        started = trio.current_time()
        await serve_stream(echo_app, peer)

        assert trio.current_time() == started
        assert peer.sent == (okay(b"/1") if wire else b"")
        assert peer.got_eof
        assert peer.closed


@pytest.mark.ids("S17")
async def test_requests_per_connection() -> None:
    """The last response closes, even if an offer follows (RFC 9112 §9.6)."""
    limits = Limits(requests_per_connection=2)
    for packets in split_points(get("/1") + get("/2") + UP):
        peer = ScriptedPeer(*packets)
        await serve_stream(echo_app, peer, limits=limits, strict=True)

        assert peer.sent == okay(b"/1") + closing(okay(b"/2"))


@pytest.mark.ids("S31")
async def test_switched_and_idle(autojump_clock) -> None:
    """No deadline of HTTP applies to a switched stream (RFC 9110 §7.8)."""
    for packets in split_points(UP):
        peer = ScriptedPeer(*packets, then="silence")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_stream, echo_app, peer)
            await peer.wait_sent(SWITCHED)
            await trio.sleep(3600)  # On the mock clock.
            peer.feed(b"still there")
            await peer.wait_sent(b"still there")
            peer.finish()

        assert peer.sent == SWITCHED + b"still there"
