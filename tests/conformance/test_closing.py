"""How connections end: when they must, in which order, and how it is announced."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import trio
import trio.testing

import trio_upgrade
from trio_upgrade import (
    Request,
    Response,
    Upgrade,
    UpgradedStream,
    open_connection,
    open_upgrade,
    serve_stream,
)
from trio_upgrade.testing import ScriptedPeer, split_points

from ..apps import echo, echo_app
from ..sockets import direct, tcp_pair
from ..wire import SWITCHED, UP, closing, get, okay
from .wires import Contexts, Serving, TLSStream, read_all

# TLS of ours, and Trio's.
both_tls = pytest.mark.parametrize("ours", [True, False])


async def say_bye(request: Request, stream: UpgradedStream, head: bytes) -> None:
    await stream.send_all(b"bye")


async def bye_app(request: Request) -> Upgrade:
    return Upgrade("echo", say_bye)


@pytest.mark.ids("M13", "S16")
@pytest.mark.parametrize("option", ["close", "Close", "keep-alive, CLOSE"])
async def test_nothing_after_a_close(serving: Serving, option: str) -> None:
    """After a request with close no other is processed (RFC 9112 §9.6)."""
    wire = get("/1", f"Connection: {option}") + UP

    await serving.check(echo_app, wire, closing(okay(b"/1")))


@pytest.mark.ids("M13")
async def test_nothing_after_our_close(serving: Serving) -> None:
    """After a response with close no request is processed (RFC 9112 §9.6)."""

    async def app(request: Request) -> Response:
        assert request.path == "/1"
        return Response(200, b"bye", {"Connection": "close"})

    await serving.check(app, get("/1") + UP, okay(b"bye", "Connection: close"))


@pytest.mark.ids("M13", "S6")
async def test_switch_of_a_request_that_says_close(serving: Serving) -> None:
    """A close beside an offer is ignored: a switch ends HTTP (RFC 9110 §7.8)."""
    wire = get("/", "Connection: close, upgrade", "Upgrade: echo")

    await serving.check(echo_app, wire + b"HEAD", SWITCHED + b"HEAD")


@pytest.mark.ids("M18")
async def test_last_response_says_close(serving: Serving) -> None:
    """The last final response says close, a 101 does not (RFC 9112 §9.3)."""
    one = b"GET /1 HTTP/1.0\r\n\r\n"
    bad = b"GET /1 HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n"
    long = b"POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n"

    await serving.check(echo_app, one, closing(okay(b"/1")))
    await serving.check(echo_app, long, closing(okay(b"/1")))
    await serving.check_refusal(bad, "400 Bad Request")
    await serving.check(echo_app, UP, SWITCHED)


@pytest.mark.ids("M14", "R58")
async def test_end_in_stages() -> None:
    """The server ends its side, waits for the client's end, closes (RFC 9112 §9.6)."""
    for app, sent in ((bye_app, SWITCHED + b"bye"), (echo_app, closing(okay(b"/u")))):
        wire = UP if app is bye_app else UP.replace(b"Upgrade\r\n", b"close\r\n", 1)
        for packets in split_points(wire):
            peer = ScriptedPeer(*packets, then="silence")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve_stream, app, peer)
                await peer.wait_sent(sent)
                await trio.testing.wait_all_tasks_blocked()

                assert peer.got_eof
                assert not peer.closed

                peer.feed(b"unread")
                await trio.testing.wait_all_tasks_blocked()

                assert peer.packets_left == 0
                assert not peer.closed

                peer.finish()

            assert peer.closed
            assert peer.sent == sent


@pytest.mark.ids("M14")
async def test_refusal_survives_bytes_still_coming() -> None:
    """The client gets the whole response while it still sends (RFC 9112 §9.6)."""
    near, far = await tcp_pair()
    # A socket closed with unread input sends a reset, which would lose the response.
    body = b"x" * 3_000_000
    wire = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n" + body
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_stream, echo_app, far)
        async with near:
            await near.send_all(wire)
            assert await read_all(near) == closing(okay(b"/"))


@pytest.mark.ids("M14")
@pytest.mark.parametrize("wire", [SWITCHED, SWITCHED + b"unread"])
async def test_client_ends_in_stages(wire: bytes) -> None:
    """The client ends in stages when its block is left (RFC 9112 §9.6)."""
    for packets in split_points(wire):
        peer = ScriptedPeer(*packets)
        async with await open_upgrade("http://x/", "echo", stream=peer) as switched:
            await switched.stream.send_all(b"bye")

        assert peer.sent.endswith(b"\r\n\r\nbye")
        assert peer.got_eof
        assert peer.packets_left == 0
        assert peer.closed


@pytest.mark.ids("M15")
@pytest.mark.parametrize("wire", [get("/1", "Connection: close"), UP])
@both_tls
async def test_server_sends_the_closure_alert(
    wire: bytes, ours: bool, tls_contexts: Contexts
) -> None:
    """Over TLS the server ends with a close_notify (RFC 9112 §9.8)."""
    near, far = await tls_ends(tls_contexts, strict="client", ours=ours)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_stream, bye_app if wire == UP else echo_app, far)
        async with near:
            await near.send_all(wire)
            # Without the alert the end would be a BrokenResourceError here.
            got = await read_all(near)

    assert got == (SWITCHED + b"bye" if wire == UP else closing(okay(b"/1")))


@pytest.mark.ids("M15")
@pytest.mark.parametrize("switch", [True, False])
@both_tls
async def test_client_sends_the_closure_alert(
    switch: bool, ours: bool, tls_contexts: Contexts
) -> None:
    """The client ends with a close_notify, switched or not (RFC 9112 §9.8)."""
    # Without a switch the client closes the stream as it was given.
    near, far = await tls_ends(
        tls_contexts, strict="server" if switch else "both", ours=ours
    )
    got: list[bytes] = []

    async def serve() -> None:
        async with far:
            await far.send_all(SWITCHED if switch else okay(b"hello"))
            got.append(await read_all(far))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        if switch:
            async with await open_upgrade("https://x/", "echo", stream=near) as opened:
                await opened.stream.send_all(b"bye")
        else:
            async with await open_connection("https://x/", stream=near) as connection:
                await (await connection.request("GET", "/")).read()

    assert got[0].endswith(b"\r\n\r\nbye" if switch else b"\r\n\r\n")


async def tls_ends(
    contexts: Contexts, *, strict: Literal["client", "server", "both"], ours: bool
) -> tuple[TLSStream, TLSStream]:
    """Return TLS ends; to strict ones an end without an alert is an error."""
    near, far = direct(await tcp_pair())
    wrap: Any = trio_upgrade.TLSStream if ours else trio.SSLStream
    client = wrap(
        near,
        contexts[0],
        server_hostname="localhost",
        https_compatible=strict == "server",
    )
    server = wrap(
        far, contexts[1], server_side=True, https_compatible=strict == "client"
    )
    return client, server


@pytest.mark.ids("S35", "S36")
@pytest.mark.parametrize("then", ["end", "reset"])
async def test_handler_that_does_nothing(then, caplog) -> None:
    """A stream that the handler does not use is closed when it returns."""

    async def handler(request: Request, stream: UpgradedStream, head: bytes) -> None:
        pass

    async def app(request: Request) -> Upgrade:
        return Upgrade("echo", handler)

    for packets in split_points(UP + b"HEAD"):
        peer = ScriptedPeer(*packets, then="silence")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_stream, app, peer)
            await peer.wait_sent(SWITCHED)
            peer.finish(then)

        assert peer.sent == SWITCHED
        assert peer.closed
    assert not caplog.records


@pytest.mark.ids("S33", "S34")
async def test_head_then_end_at_any_time(autojump_clock) -> None:
    """The head, later bytes and the end are kept for a handler that reads late."""

    async def handler(request: Request, stream: UpgradedStream, head: bytes) -> None:
        await trio.sleep(3600)  # On the mock clock.
        await echo(request, stream, head)

    async def app(request: Request) -> Upgrade:
        return Upgrade("echo", handler)

    for packets in split_points(UP + b"HD"):
        peer = ScriptedPeer(*packets, b"later")
        await serve_stream(app, peer, strict=True)

        assert peer.sent == SWITCHED + b"HDlater"
        assert peer.got_eof


@pytest.mark.ids("M15")
@pytest.mark.parametrize("compatible", [True, False])
@both_tls
async def test_closure_alert_after_the_peers(
    compatible: bool, ours: bool, tls_contexts: Contexts
) -> None:
    """A client that ended first gets our alert, too (RFC 9112 §9.8)."""
    strict: Literal["client", "both"] = "client" if compatible else "both"
    near, far = await tls_ends(tls_contexts, strict=strict, ours=ours)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_stream, echo_app, far)
        async with near:
            await near.send_all(UP)
            assert await near.receive_some() == SWITCHED
            # Without the alert this would be a BrokenResourceError.
            bottom, rest = await near.unwrap()
            assert rest == b""
            await bottom.aclose()


@pytest.mark.ids("M15")
@both_tls
async def test_closure_alert_of_an_unswitched_client(
    ours: bool, tls_contexts: Contexts
) -> None:
    """A client that closes without a switch sends the alert (RFC 9112 §9.8)."""
    near, far = await tls_ends(tls_contexts, strict="server", ours=ours)
    got: list[bytes] = []

    async def serve() -> None:
        async with far:
            await far.send_all(okay(b"hello"))
            got.append(await read_all(far))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with await open_connection("https://x/", stream=near) as connection:
            await (await connection.request("GET", "/")).read()

    assert got[0].endswith(b"\r\n\r\n")
