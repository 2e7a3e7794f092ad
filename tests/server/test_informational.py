"""request.send_informational(), and the two addresses of a connection."""

from __future__ import annotations

from functools import partial

import pytest
import trio
import trio.testing

from trio_upgrade import (
    EndReason,
    Limits,
    Request,
    Response,
    Upgrade,
    UsageError,
    serve_stream,
    serve_unix,
)
from trio_upgrade.testing import ScriptedPeer

from ..apps import echo
from ..cancelling import cancel_everywhere
from ..recording import Recorder
from ..servers import check_every_split, run_script
from ..sockets import direct, tcp_pair
from ..wire import SWITCHED, UP, closing, get, okay

HINT = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
POST = (
    b"POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
)


async def hint(request: Request) -> None:
    await request.send_informational(103, {"Link": "</a.css>"})


async def hinting(request: Request) -> Response:
    await hint(request)
    await request.send_informational(102)
    return Response(200, await request.read())


async def test_before_the_answer() -> None:
    """Any number may come before the answer (RFC 9110 §15.2, RFC 8297)."""
    expected = HINT + b"HTTP/1.1 102 Processing\r\n\r\n" + okay(b"")

    await check_every_split(hinting, get("/1") + get("/2"), expected + expected)


async def test_to_http_1_0() -> None:
    """HTTP/1.0 knows no 1xx, so nothing is sent (RFC 9110 §15.2)."""
    wire = get("/1").replace(b"HTTP/1.1", b"HTTP/1.0")

    await check_every_split(hinting, wire, closing(okay(b"")))


async def test_before_a_100() -> None:
    """A client that waits for a 100 gets it after the 103 (RFC 9110 §10.1.1)."""
    expected = HINT + b"HTTP/1.1 102 Processing\r\n\r\n"

    peer = ScriptedPeer(POST, then="silence")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(serve_stream, hinting, peer, strict=True))
        await peer.wait_sent(expected + CONTINUE)
        peer.feed(b"four")
        peer.finish()

    assert peer.sent == expected + CONTINUE + okay(b"four")


async def test_before_a_switch() -> None:
    """Then the 100 that is owed, and the 101 (RFC 9110 §7.8)."""

    async def app(request: Request) -> Upgrade:
        await hint(request)
        return Upgrade("echo", echo)

    wire = UP.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")

    await check_every_split(app, wire + b"x", HINT + CONTINUE + SWITCHED + b"x")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((100,), ValueError),
        ((101,), ValueError),
        ((200,), ValueError),
        ((99,), ValueError),
        ((103, {"Content-Length": "0"}), ValueError),
        ((103, {"Connection": "close"}), ValueError),
        ((103, {"Upgrade": "echo"}), ValueError),
        ((103, {"X": "a\r\nb"}), ValueError),
        (("103",), TypeError),
        ((True,), TypeError),
    ],
)
async def test_refused_arguments(arguments, error) -> None:
    """A status of another kind and fields of framing are refused; nothing is sent."""

    async def app(request: Request) -> Response:
        with pytest.raises(error):
            await request.send_informational(*arguments)
        return Response(200, b"okay")

    peer = await run_script(app, get("/"))
    assert peer.sent == okay()


async def test_after_the_answer() -> None:
    """After the answer has begun it is a UsageError."""
    kept: list[Request] = []

    async def body(request: Request):
        with pytest.raises(UsageError, match="answered already"):
            await hint(request)
        yield b"okay"

    async def app(request: Request) -> Response:
        for earlier in kept:
            with pytest.raises(UsageError, match="answered already"):
                await hint(earlier)
        kept.append(request)
        return Response(200, body(request), {"Content-Length": "4"})

    await check_every_split(app, get("/1"), okay())
    kept.clear()
    await run_script(app, get("/1") + get("/2"))
    assert len(kept) == 2


async def test_cancelled_before_its_first_byte() -> None:
    """Then nothing has happened."""

    async def app(request: Request) -> Response:
        with trio.CancelScope() as scope:
            scope.cancel()
            await hint(request)
        return Response(200, b"okay")

    peer = await run_script(app, get("/"))
    assert peer.sent == okay()


async def test_cancelled_in_the_middle(autojump_clock) -> None:
    """Then the connection is broken: no answer can follow."""
    recorder = Recorder()

    async def app(request: Request) -> Response:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hint, request)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await hint(request)
            with pytest.raises(trio.BusyResourceError):
                async with request.respond(200):
                    pass
            nursery.cancel_scope.cancel()
        with pytest.raises(trio.BrokenResourceError):
            await hint(request)
        return Response(200)

    near, far = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            partial(serve_stream, app, far, observer=recorder, strict=True)
        )
        await near.send_all(get("/"))
        await trio.sleep(1)
        await near.aclose()

    assert recorder.reasons == [EndReason.LOST]
    assert not recorder.requests


async def test_cancelled_at_every_step() -> None:
    """Cancelled at any step, nothing is left open."""
    await cancel_everywhere(partial(serve_stream, hinting), POST, b"four")


class TestLocal:
    """request.local, the address of our side."""

    async def test_tcp(self) -> None:
        """Over TCP it is the host and the port that the client has connected to."""
        seen = []

        async def app(request: Request) -> Response:
            seen.append((request.local, request.peer))
            return Response(200)

        client, server = direct(await tcp_pair())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(serve_stream, app, server, strict=True))
            await client.send_all(get("/", "Connection: close"))
            await client.receive_some()
            expected = (client.socket.getpeername(), client.socket.getsockname())
            await client.aclose()

        assert seen == [expected]

    async def test_unix(self, tmp_path) -> None:
        """On a Unix socket it is the path."""
        seen = []
        path = tmp_path / "socket"

        async def app(request: Request) -> Response:
            seen.append(request.local)
            return Response(200)

        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve_unix, app, path, limits=Limits(linger=0)))
            async with await trio.open_unix_socket(path) as client:
                await client.send_all(get("/", "Connection: close"))
                await client.receive_some()
            nursery.cancel_scope.cancel()

        assert seen == [str(path)]

    async def test_without_a_socket(self) -> None:
        """Without a socket, and after its close, it is None."""
        kept: list[Request] = []

        async def app(request: Request) -> Response:
            kept.append(request)
            return Response(200)

        await run_script(app, get("/"))
        client, server = direct(await tcp_pair())
        async with client:
            await client.send_all(get("/"))
            await client.send_eof()
            await serve_stream(app, server)

        assert [request.local for request in kept] == [None, None]
