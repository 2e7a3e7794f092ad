"""The exact deadline of each phase of a connection, and the response after it."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trio_upgrade import (
    EndReason,
    Limits,
    Request,
    Response,
    Upgrade,
    UpgradedStream,
    serve_stream,
)
from trio_upgrade.testing import ScriptedPeer

from ..apps import echo_app
from ..recording import Recorder
from ..servers import TimedCase
from ..tls import make_tls_contexts, wrap_tls
from ..wire import SWITCHED, UP, closing, get, okay

TEXT = "Content-Type: text/plain; charset=utf-8"


LATE_HEAD = closing(
    okay(b"the request came too slowly\n", TEXT, status="408 Request Timeout")
)
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"


class TestHead:
    """From accept to the end of the first head; for later ones from their first byte."""

    LIMITS = Limits(header_timeout=10, keep_alive_timeout=50, linger=0)

    @pytest.mark.ids("M16", "R18")
    async def test_nothing_came(self, autojump_clock) -> None:
        """A connection on which no byte comes is closed without a response."""
        case, peer = TimedCase(self.LIMITS), ScriptedPeer(then="silence")

        assert await case.serve(echo_app, peer) == 10
        assert peer.sent == b""
        assert case.reason is EndReason.SLOW_HEADER

    @pytest.mark.ids("S29", "R18")
    async def test_some_of_it_came(self, autojump_clock) -> None:
        """A head that comes a byte at a time has the same deadline: 408."""
        case, peer = TimedCase(self.LIMITS), ScriptedPeer(then="silence")

        assert await case.serve(echo_app, peer, 3, *[b"G"] * 10) == 10
        assert peer.sent == LATE_HEAD
        assert case.reason is EndReason.SLOW_HEADER

    async def test_just_in_time(self, autojump_clock) -> None:
        """A head that is whole before the deadline is answered."""
        case, peer = TimedCase(self.LIMITS), ScriptedPeer(then="silence")
        request = get("/1", "Connection: close")

        assert await case.serve(echo_app, peer, 4.75, request[:9], request[9:]) == 9.5
        assert case.reason is EndReason.ANSWERED

    async def test_blank_line_begins_no_request(self, autojump_clock) -> None:
        """A blank line that is skipped begins no request, so there is no 408."""
        case, peer = TimedCase(self.LIMITS), ScriptedPeer(b"\r\n", then="silence")

        assert await case.serve(echo_app, peer) == 10
        assert peer.sent == b""

    async def test_later_head(self, autojump_clock) -> None:
        """The deadline of a later head counts from its first byte."""
        case, peer = TimedCase(self.LIMITS), ScriptedPeer(get("/1"), then="silence")

        assert await case.serve(echo_app, peer, 30, b"GET", b"never seen") == 40
        assert peer.sent == okay(b"/1") + LATE_HEAD
        assert case.reason is EndReason.SLOW_HEADER

    async def test_later_head_that_came_with_a_request(self, autojump_clock) -> None:
        """Bytes after a request begin the next head."""
        case, peer = (
            TimedCase(self.LIMITS),
            ScriptedPeer(get("/1") + b"G", then="silence"),
        )

        assert await case.serve(echo_app, peer) == 10
        assert peer.sent == okay(b"/1") + LATE_HEAD

    async def test_handshake_is_part_of_it(self, autojump_clock) -> None:
        """Over TLS the handshake counts towards the deadline of the first head."""
        _, context = make_tls_contexts()
        near, far = trio.testing.memory_stream_pair()
        tls = trio.SSLStream(far, context, server_side=True, https_compatible=True)
        recorder = Recorder()
        began = trio.current_time()

        await serve_stream(echo_app, tls, limits=self.LIMITS, observer=recorder)

        assert trio.current_time() - began == 10
        assert recorder.reasons == [EndReason.SLOW_HEADER]
        assert await near.receive_some() == b""

    async def test_handshake_that_took_long(self, autojump_clock) -> None:
        """A slow handshake leaves less time for the head, whose 408 still arrives."""
        near, far = wrap_tls(
            trio.testing.memory_stream_pair(),
            make_tls_contexts(),
            https_compatible=True,
        )
        got = bytearray()

        async def client() -> None:
            await trio.sleep(6)
            await near.send_all(b"GET")
            async for chunk in near:
                got.extend(chunk)
            ends.append(trio.current_time() - began)

        ends: list[float] = []
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client)
            await serve_stream(echo_app, far, limits=Limits(header_timeout=10))

        assert got == LATE_HEAD
        assert ends == [10]


class TestIdle:
    """Between two requests."""

    @pytest.mark.ids("M16", "R20")
    async def test_closed_without_a_response(self, autojump_clock) -> None:
        """An idle connection is closed without a response; answers start the time."""
        case = TimedCase(Limits(keep_alive_timeout=5, linger=0))
        peer = ScriptedPeer(get("/1"), then="silence")

        assert await case.serve(echo_app, peer, 4, get("/2"), get("/3")) == 13
        assert peer.sent == okay(b"/1") + okay(b"/2") + okay(b"/3")
        assert case.reason is EndReason.IDLE

    async def test_blank_line_after_a_request(self, autojump_clock) -> None:
        """A blank line, which old clients send after a body, does not keep it open."""
        case = TimedCase(Limits(keep_alive_timeout=5, linger=0))
        peer = ScriptedPeer(get("/1") + b"\r\n", then="silence")

        assert await case.serve(echo_app, peer) == 5
        assert peer.sent == okay(b"/1")
        assert case.reason is EndReason.IDLE

    async def test_not_while_a_request_is_under_way(self, autojump_clock) -> None:
        """The time of the app does not count as idle."""

        async def slow(_: Request) -> Response:
            await trio.sleep(1000)
            return Response(200)

        case = TimedCase(Limits(keep_alive_timeout=5, linger=0))
        peer = ScriptedPeer(get("/1"), then="silence")

        assert await case.serve(slow, peer) == 1005


class TestResponseTimeout:
    """``response_timeout``: from the head to the beginning of the answer."""

    LIMITS = Limits(response_timeout=7, linger=0)

    @pytest.mark.ids("R22")
    async def test_the_app_is_cancelled(self, autojump_clock) -> None:
        """An app that takes too long is cancelled, and the client gets a 503."""
        cancelled = []

        async def app(_: Request) -> None:
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                cancelled.append(trio.current_time())
                raise

        case, peer = TimedCase(self.LIMITS), ScriptedPeer(UP, then="silence")

        assert await case.serve(app, peer) == 7
        assert len(cancelled) == 1
        refusal = okay(
            b"the answer took too long\n", TEXT, status="503 Service Unavailable"
        )
        assert peer.sent == closing(refusal)
        assert case.reason is EndReason.SLOW_RESPONSE

    async def test_app_that_goes_on(self, autojump_clock) -> None:
        """An answer after the deadline, out of a shielded scope, is not sent: 503."""

        async def app(_: Request) -> Response:
            with trio.CancelScope(shield=True):
                await trio.sleep(20)
            return Response(200)

        case, peer = TimedCase(self.LIMITS), ScriptedPeer(get("/"), then="silence")

        assert await case.serve(app, peer) == 20
        assert peer.sent.startswith(b"HTTP/1.1 503 ")

    async def test_body_is_part_of_it(self, autojump_clock) -> None:
        """The time to read a slow body counts, too."""

        async def app(request: Request) -> Response:
            return Response(200, await request.read())

        case, peer = TimedCase(self.LIMITS), ScriptedPeer(POST % 9, then="silence")

        assert await case.serve(app, peer, 1, *[b"x"] * 8) == 7
        assert peer.sent.startswith(b"HTTP/1.1 503 ")

    async def test_each_request_has_its_own(self, autojump_clock) -> None:
        """The time starts again with each request, and ends when its answer begins."""

        async def body():
            for _ in range(3):
                await trio.sleep(20)
                yield b"x"

        async def app(request: Request) -> Response:
            await trio.sleep(6)
            return Response(200, body() if request.path == "/body" else b"okay")

        case = TimedCase(self.LIMITS)
        peer = ScriptedPeer(
            get("/1"), get("/2"), get("/body", "Connection: close"), then="silence"
        )

        assert await case.serve(app, peer) == 78
        assert peer.sent.endswith(b"1\r\nx\r\n0\r\n\r\n")

    async def test_after_a_100(self, autojump_clock) -> None:
        """After a 100 there is still no final response, so the 503 is sent."""

        async def app(request: Request) -> None:
            await request.read()
            await trio.sleep_forever()

        case = TimedCase(self.LIMITS)
        head = POST.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n") % 3
        peer = ScriptedPeer(head, then="silence")

        assert await case.serve(app, peer, 1, b"abc") == 7
        assert peer.sent.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 ")


class TestSwitch:
    """No deadline of HTTP survives the switch."""

    LIMITS = Limits(
        header_timeout=1,
        keep_alive_timeout=1,
        body_timeout=1,
        response_timeout=1,
        send_timeout=1,
        linger=0,
    )

    @pytest.mark.ids("S31", "R21")
    @pytest.mark.parametrize("pipelined", [b"", get("/0")])
    async def test_returned(self, pipelined, autojump_clock) -> None:
        """A handler may run for hours."""

        async def handler(_: Request, stream: UpgradedStream, head: bytes) -> None:
            await trio.sleep(10_000)
            await stream.send_all(b"still here")

        async def app(request: Request):
            if not request.upgrades:
                return Response(200)
            return Upgrade("echo", handler)

        case, peer = (
            TimedCase(self.LIMITS),
            ScriptedPeer(pipelined + UP, then="silence"),
        )

        assert await case.serve(app, peer) == 10_000
        assert peer.sent.endswith(SWITCHED + b"still here")
        assert case.reason is EndReason.RETURNED

    @pytest.mark.ids("S21", "S31")
    @pytest.mark.parametrize("connect", [False, True])
    async def test_accepted(self, connect: bool, autojump_clock) -> None:
        """An app that has accepted may run for hours, with or without a body before."""

        async def app(request: Request) -> None:
            if connect:
                stream, _ = await request.accept_connect()
            else:
                stream, _ = await request.accept_upgrade("echo")
            await trio.sleep(10_000)
            await stream.send_all(b"still here")

        wire = UP.replace(b"GET", b"POST")[:-2] + b"Content-Length: 2\r\n\r\nhi"
        if connect:
            wire = b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"
        case, peer = TimedCase(self.LIMITS), ScriptedPeer(wire, then="silence")

        assert await case.serve(app, peer) == 10_000
        assert peer.sent.endswith(b"\r\n\r\nstill here")

    async def test_body_that_does_not_come(self, autojump_clock) -> None:
        """A body that has to be read before the 101 has its own limit: 408, no 101."""
        wire = UP.replace(b"GET", b"POST")[:-2] + b"Content-Length: 2\r\n\r\n"
        case = TimedCase(Limits(body_timeout=3, linger=0))
        peer = ScriptedPeer(wire, b"h", then="silence")

        assert await case.serve(echo_app, peer) == 3
        assert peer.sent.startswith(b"HTTP/1.1 408 ")
