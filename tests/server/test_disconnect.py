"""request.wait_disconnect(): it returns at the client's end, and loses no byte."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

import pytest
import trio
import trio.testing

from trio_upgrade import (
    EndReason,
    Limits,
    Request,
    Response,
    UsageError,
    serve_stream,
)
from trio_upgrade.testing import ScriptedPeer, split_points

from ..apps import echo, echo_app
from ..recording import Recorder
from ..sockets import tcp_pair
from ..tls import make_tls_contexts, wrap_tls
from ..wire import SWITCHED, UP, get, okay

CONNECT = b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"
LIMITS = Limits(linger=0)


async def watch(request: Request, seconds: float = 1) -> bool:
    """Tell whether the client leaves within so many seconds."""
    with trio.move_on_after(seconds) as scope:
        await request.wait_disconnect()
    return not scope.cancelled_caught


async def serve(app, *script: bytes, then="end", limits=LIMITS) -> ScriptedPeer:
    peer = ScriptedPeer(*script, then=then)
    await serve_stream(app, peer, limits=limits, strict=True)
    assert peer.closed
    return peer


@pytest.mark.ids("M16")
@pytest.mark.parametrize("then", ["end", "reset"])
async def test_client_leaves(then) -> None:
    """It returns when the client ends its side, and when it resets."""
    recorder = Recorder()
    gone = []

    async def app(request: Request) -> Response:
        await request.wait_disconnect()
        gone.append(True)
        await request.wait_disconnect()  # The end is known already.
        return Response(200, b"for a client that only ended its side")

    peer = ScriptedPeer(get("/"), then="silence")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            partial(
                serve_stream, app, peer, limits=LIMITS, observer=recorder, strict=True
            )
        )
        await trio.testing.wait_all_tasks_blocked()
        assert not gone
        peer.finish(then)

    assert gone == [True]
    assert (b"for a client" in peer.sent) == (then == "end")
    assert recorder.reasons == [
        EndReason.PEER if then == "end" else EndReason.LOST,
    ]


async def test_client_stays(autojump_clock) -> None:
    """It does not return as long as the client is there."""

    async def app(request: Request) -> Response:
        return Response(200, b"%r" % await watch(request, 1000))

    peer = ScriptedPeer(get("/", "Connection: close"), then="silence")
    await serve_stream(app, peer, limits=LIMITS, strict=True)

    assert peer.sent.endswith(b"False")


@pytest.mark.ids("S33")
@pytest.mark.parametrize("wire", [UP, CONNECT])
async def test_end_may_be_a_half_close(wire: bytes, autojump_clock) -> None:
    """An end after an offer may be a half-close: the stream gets it, after the head."""
    got: list[object] = []

    async def app(request: Request) -> None:
        assert not await watch(request)
        if request.method == "CONNECT":
            stream, head = await request.accept_connect()
        else:
            stream, head = await request.accept_upgrade("echo")
        got.append(head)
        got.append(await stream.receive_some())
        got.append(await stream.receive_some())
        await stream.send_all(b"bye")

    peer = await serve(app, wire + b"HE", b"AD")

    assert got == [b"HEAD", b"HEAD", b""]
    assert peer.sent.endswith(b"bye")


@pytest.mark.parametrize("wire", [UP, CONNECT])
async def test_reset_after_an_offer(wire: bytes, autojump_clock) -> None:
    """A reset is no half-close: it returns, and no switch can be accepted."""

    async def app(request: Request) -> None:
        assert await watch(request)
        with pytest.raises(UsageError, match="answered already"):
            if request.method == "CONNECT":
                await request.accept_connect()
            else:
                await request.accept_upgrade("echo")
        raise trio.BrokenResourceError

    await serve(app, wire, b"more", then="reset")


async def test_pipelined_requests_are_kept(autojump_clock) -> None:
    """Requests received meanwhile are served afterwards, however they are cut."""

    async def app(request: Request):
        if request.path == "/1":
            # The client ends while the app waits, so all its bytes have been read.
            await request.wait_disconnect()
        return await echo_app(request)

    expected = okay(b"/1") + okay(b"/2") + SWITCHED + b"HEAD"
    for packets in split_points(get("/2") + UP + b"HEAD"):
        peer = await serve(app, get("/1"), *packets)

        assert peer.sent == expected


async def test_body_is_kept(autojump_clock) -> None:
    """A body received meanwhile can be read afterwards, however it is cut."""

    async def app(request: Request) -> Response:
        assert not await watch(request)
        body = await request.read()
        assert not await watch(request)
        return Response(200, body)

    head = get("/", "Content-Length: 5").replace(b"GET", b"POST")
    chunked = get("/", "Transfer-Encoding: chunked").replace(b"GET", b"POST")
    for wire in (head + b"hello", chunked + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"):
        for packets in split_points(wire + get("/2", "Connection: close")[:20]):
            peer = ScriptedPeer(*packets, then="silence")
            with trio.move_on_after(10):
                await serve_stream(app, peer, limits=LIMITS, strict=True)

            assert peer.sent == okay(b"hello")


async def test_read_ahead_is_bounded(autojump_clock) -> None:
    """After read_ahead bytes no more are read, and the client is no longer watched."""
    packet = b"x" * 1000

    async def app(request: Request) -> Response:
        left.append(await watch(request))
        left.append(peer.packets_left)
        return Response(200, b"", {"Connection": "close"})

    left: list[object] = []
    for limit, packets_left in ((4000, 16), (0, 20), (100_000, 0)):
        peer = ScriptedPeer(get("/"), *[packet] * 20)
        limits = Limits(read_ahead=limit, linger=0)
        await serve_stream(app, peer, limits=limits, strict=True)

        assert left == [packets_left == 0, packets_left]
        left.clear()


async def test_one_task_at_a_time(autojump_clock) -> None:
    """A second task is refused, and so is a switch, which could lose bytes."""

    async def app(request: Request) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(request.wait_disconnect)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(UsageError, match="another task is waiting"):
                await request.wait_disconnect()
            with pytest.raises(UsageError, match="still waits"):
                await request.accept_upgrade("echo")
            nursery.cancel_scope.cancel()
        await echo(request, *await request.accept_upgrade("echo"))

    peer = ScriptedPeer(UP, then="silence").hold_until_sent(b"")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(serve_stream, app, peer, limits=LIMITS, strict=True))
        await peer.wait_sent(SWITCHED)
        peer.feed(b"bytes")
        await peer.wait_sent(b"bytes")
        peer.finish()

    assert peer.sent == SWITCHED + b"bytes"


async def test_answered_already() -> None:
    """A request that was answered has no connection to watch."""
    kept = []

    async def app(request: Request) -> Response:
        kept.append(request)
        return Response(200)

    await serve(app, get("/"))

    with pytest.raises(UsageError, match="answered already"):
        await kept[0].wait_disconnect()


async def test_beside_the_work(autojump_clock) -> None:
    """As it is usually used: the work or the disconnect cancels the other."""
    results = []

    async def app(request: Request) -> Response | None:
        async def work() -> None:
            await trio.sleep(3)
            results.append("done")
            nursery.cancel_scope.cancel()

        async def leave() -> None:
            await request.wait_disconnect()
            results.append("left")
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            nursery.start_soon(leave)
        return Response(200)

    peer = ScriptedPeer(get("/1") + get("/2"), then="silence")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(serve_stream, app, peer, limits=LIMITS, strict=True))
        await trio.sleep(4)
        peer.finish("reset")

    assert results == ["done", "left"]
    assert peer.sent == okay(b"")


@pytest.mark.parametrize("ending", ["close_notify", "cut", "reset"])
async def test_over_tls(ending: str) -> None:
    """Over TLS the end is a close_notify; a cut and a reset are ends as well."""
    bottom, far = await tcp_pair()
    near, tls = wrap_tls(
        (bottom, far), make_tls_contexts(), https_compatible=ending == "cut"
    )
    gone = trio.Event()

    async def app(request: Request) -> Response:
        watching.set()
        await request.wait_disconnect()
        gone.set()
        return Response(200)

    watching = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(serve_stream, app, tls, limits=LIMITS, strict=True))
        await near.send_all(get("/"))
        await watching.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert not gone.is_set()
        if ending == "close_notify":
            # Our answer comes after it, which does not matter here.
            with suppress(trio.BrokenResourceError):
                await near.unwrap()
        elif ending == "cut":
            await bottom.send_eof()
        else:
            await bottom.aclose()
        await gone.wait()
    await bottom.aclose()
