"""Limits on progress and on counts: bodies, responses, requests, switches."""

from __future__ import annotations

from functools import partial

import pytest
import trio
import trio.testing

from trio_upgrade import (
    BodyTimeout,
    EndReason,
    Limits,
    Request,
    Response,
    UpgradedStream,
    serve_listeners,
    serve_stream,
)
from trio_upgrade.testing import ScriptedPeer

from ..apps import echo_app
from ..recording import Recorder
from ..servers import TimedCase
from ..sockets import clogged_tcp_pair
from ..wire import SWITCHED, UP, closing, get, okay

NONE = Limits(
    header_timeout=None,
    keep_alive_timeout=None,
    body_timeout=None,
    response_timeout=None,
    send_timeout=None,
    linger=0,
)
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"


class TestBody:
    """body_timeout limits the progress of a body; it is no deadline for its end."""

    LIMITS = Limits(body_timeout=30, body_progress=1024, linger=0)

    async def read(self, request: Request) -> Response:
        body = await request.read()
        return Response(200, b"%d" % len(body), {"Connection": "close"})

    async def test_slow_and_honest(self, autojump_clock) -> None:
        """A client that sends 1 KiB every 29 seconds is slow, and is served."""
        case = TimedCase(self.LIMITS)
        peer = ScriptedPeer(POST % 20_480, then="silence")

        assert await case.serve(self.read, peer, 29, *[b"x" * 1024] * 20) == 580
        assert peer.sent.endswith(b"20480")

    async def test_many_small_chunks(self, autojump_clock) -> None:
        """Progress is counted in bytes, whatever the number of chunks."""
        case = TimedCase(self.LIMITS)
        head = get("/", "Transfer-Encoding: chunked").replace(b"GET", b"POST")
        peer = ScriptedPeer(head, then="silence")
        packet = b"8\r\n12345678\r\n" * 128

        taken = await case.serve(self.read, peer, 29, *[packet] * 5, b"0\r\n\r\n")

        assert taken == 174
        assert peer.sent.endswith(b"5120")

    @pytest.mark.ids("R19")
    async def test_dribble(self, autojump_clock) -> None:
        """A client that sends one byte every 29 seconds gets a 408."""
        case = TimedCase(self.LIMITS)
        peer = ScriptedPeer(POST % 10_000, then="silence")

        assert await case.serve(self.read, peer, 29, *[b"x"] * 1000) == 30
        assert peer.sent.startswith(b"HTTP/1.1 408 ")
        assert b"Connection: close\r\n" in peer.sent
        assert [record.status for record in case.recorder.requests] == [408]

    async def test_the_app_may_catch_it(self, autojump_clock) -> None:
        """An app can catch BodyTimeout, then respond as it likes or read on."""
        got = []

        async def app(request: Request) -> Response:
            with pytest.raises(BodyTimeout):
                await request.read()
            got.append(await request.read())
            return Response(200, b"patient", {"Connection": "close"})

        case = TimedCase(self.LIMITS)
        peer = ScriptedPeer(POST % 5, then="silence")

        assert await case.serve(app, peer, 40, b"hello") == 40
        assert got == [b"hello"]
        assert peer.sent.endswith(b"patient")

    async def test_time_of_the_app_does_not_count(self, autojump_clock) -> None:
        """Only the time in which the app waits for the body counts."""

        async def app(request: Request) -> Response:
            size = 0
            async for chunk in request.stream():
                size += len(chunk)
                await trio.sleep(100)
            return Response(200, b"%d" % size, {"Connection": "close"})

        case = TimedCase(self.LIMITS)
        peer = ScriptedPeer(POST % 10, then="silence")

        await case.serve(app, peer, 2, *[b"x"] * 10)

        assert peer.sent.endswith(b"10")

    async def test_unread_body(self, autojump_clock) -> None:
        """A body that is only drained, after the response, has the same limit."""
        case = TimedCase(self.LIMITS)
        peer = ScriptedPeer(POST % 100, then="silence")

        assert await case.serve(echo_app, peer, 29, *[b"x"] * 100) == 30
        assert peer.sent == okay(b"/")

    async def test_none(self, autojump_clock) -> None:
        """Without a limit the server waits for the body."""
        case = TimedCase(NONE)
        peer = ScriptedPeer(POST % 2, then="silence")

        assert await case.serve(self.read, peer, 9000, b"x", b"x") == 18_000
        assert peer.sent.endswith(b"2")


class TestSending:
    """The client has to accept each 64 KiB of a response in time."""

    LIMITS = Limits(send_timeout=30, linger=0)

    async def drip(self, far: trio.abc.Stream, every: float, amount: int) -> bytes:
        got = bytearray()
        while True:
            await trio.sleep(every)
            chunk = await far.receive_some(amount)
            if not chunk:
                return bytes(got)
            got += chunk

    async def test_progress_lives(self, autojump_clock) -> None:
        """A client that reads a piece now and then gets the whole response."""
        near, far = trio.testing.lockstep_stream_pair()
        body = bytes(range(256)) * 4096
        got = []

        async def client() -> None:
            await far.send_all(get("/", "Connection: close"))
            got.append(await self.drip(far, 20, 65536))

        async def app(_: Request) -> Response:
            return Response(200, body)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(client)
            await serve_stream(app, near, limits=self.LIMITS, strict=True)

        assert got[0].endswith(body)
        assert trio.current_time() > 200

    @pytest.mark.parametrize("size", [10, 10_000_000])
    @pytest.mark.parametrize("streamed", [False, True])
    async def test_client_that_does_not_read(
        self, size: int, streamed: bool, autojump_clock
    ) -> None:
        """A client that reads nothing is reset without a response."""
        near, far = await clogged_tcp_pair()
        recorder = Recorder()

        async def chunks():
            while True:
                yield b"x" * size

        async def app(_: Request) -> Response:
            return Response(200, chunks() if streamed else b"x" * size)

        began = trio.current_time()
        with trio.fail_after(1000):
            await serve_stream(
                app,
                UpgradedStream(near, get("/")),
                limits=self.LIMITS,
                observer=recorder,
            )

        assert recorder.reasons == [EndReason.SLOW_READER]
        assert trio.current_time() - began == 30
        with pytest.raises(trio.BrokenResourceError):
            while await far.receive_some():
                pass
        await far.aclose()

    async def test_refusal_that_is_not_read(self, autojump_clock) -> None:
        """The server waits no longer than that for a refusal of any kind to be read."""
        for first, seconds in ((b"\x00", 30), (b"", 40)):
            near, far = trio.testing.lockstep_stream_pair()
            limits = Limits(header_timeout=10, send_timeout=30)
            began = trio.current_time()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(far.send_all, first or b"GET")
                await serve_stream(echo_app, near, limits=limits)

            assert trio.current_time() - began == seconds


class TestBounds:
    """Limits on counts, not on seconds."""

    @pytest.mark.ids("S17", "R24")
    async def test_requests_per_connection(self) -> None:
        """The last response says Connection: close, and later requests are not read."""
        case = TimedCase(Limits(requests_per_connection=2, linger=0))
        peer = ScriptedPeer(get("/1") + get("/2") + UP)
        await case.serve(echo_app, peer)

        assert peer.sent == okay(b"/1") + closing(okay(b"/2"))
        assert case.reason is EndReason.ANSWERED

    @pytest.mark.ids("S17")
    async def test_switch_as_the_last_request(self) -> None:
        """The last request of a connection may switch."""
        case = TimedCase(Limits(requests_per_connection=1, linger=0))
        peer = ScriptedPeer(UP + b"HEAD")
        await case.serve(echo_app, peer)

        assert peer.sent == SWITCHED + b"HEAD"

    @pytest.mark.ids("R23")
    async def test_upgraded(self) -> None:
        """Over the limit an offer gets a 503, and its connection goes on."""
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        open_one = partial(trio.testing.open_stream_to_socket_listener, listener)
        async with trio.open_nursery() as nursery:
            await nursery.start(
                partial(
                    serve_listeners,
                    echo_app,
                    [listener],
                    limits=Limits(upgraded=1),
                    strict=True,
                )
            )
            async with await open_one() as first, await open_one() as second:
                await first.send_all(UP)
                assert await first.receive_some() == SWITCHED
                await second.send_all(UP)
                refusal = await second.receive_some()
                assert refusal.startswith(b"HTTP/1.1 503 ")
                assert b"Connection: close" not in refusal
                await second.send_all(get("/1"))
                assert await second.receive_some() == okay(b"/1")
                await first.send_eof()
                assert await first.receive_some() == b""
                await second.send_all(UP)
                assert await second.receive_some() == SWITCHED
            nursery.cancel_scope.cancel()

    async def test_zero_upgraded(self) -> None:
        """A limit of 0 also refuses tunnels, and the response says why."""
        case = TimedCase(Limits(upgraded=0, linger=0))

        async def app(request: Request) -> None:
            await request.accept_connect()

        peer = ScriptedPeer(b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n")
        await case.serve(app, peer)

        assert peer.sent.startswith(b"HTTP/1.1 503 ")
        assert b"as many upgraded connections as it may" in peer.sent
        assert b"Connection: close\r\n" in peer.sent
