"""The first step of a connection's task: it reads and answers what was received before.

Only kernel sockets are read without a checkpoint.  The connection has no scope of its own
then, so each limit is tested here again.
"""

from __future__ import annotations

import os
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
    Server,
    Upgrade,
    UpgradedStream,
    serve_listeners,
    serve_stream,
)
from trio_upgrade._streams.resetting import reset_on_close
from trio_upgrade._streams.socket_listener import DirectSocketListener, adopt_listener
from trio_upgrade._streams.socket_stream import DirectSocketStream, adopt_stream
from trio_upgrade.testing import split_points

from ..apps import echo_app
from ..recording import Recorder
from ..sockets import direct, tcp_pair
from ..wire import SWITCHED, UP, closing, get, okay

NO_HOST = "no Host field, which every HTTP/1.1 request must have, a CONNECT too"
TWO_BLANKS = (
    "no HTTP message begins with octet 0x0d after a blank line; a PROXY protocol header "
    "of version 2 does"
)


def refused(text: bytes) -> bytes:
    content = "Content-Type: text/plain; charset=utf-8"
    return closing(okay(text, content, status="400 Bad Request"))


# Without and with a limit on the app's time, which needs a scope from the beginning.
scoped = pytest.mark.parametrize("limits", [Limits(), Limits(response_timeout=1000)])


async def receive_all(stream: trio.abc.ReceiveStream) -> bytes:
    received = bytearray()
    while chunk := await stream.receive_some():
        received += chunk
    return bytes(received)


async def abort(stream: trio.SocketStream | DirectSocketStream) -> None:
    reset_on_close(stream)
    await stream.aclose()


async def listen() -> DirectSocketListener:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    return adopt_listener(listener)


async def dial(listener: DirectSocketListener) -> trio.SocketStream:
    return await trio.open_tcp_stream(*listener.socket.getsockname())


async def clogged_pair() -> tuple[DirectSocketStream, trio.SocketStream]:
    """Return a connection whose near end cannot send, and its far end."""
    near, far = await tcp_pair()
    for _ in range(3):  # The kernel accepts more once or twice.
        with suppress(BlockingIOError):
            while True:
                os.write(near.socket.fileno(), bytes(65536))
        await trio.lowlevel.checkpoint()
    return adopt_stream(near), far


class Steps(trio.abc.Instrument):
    """Counts the steps of the connections' tasks."""

    def __init__(self) -> None:
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += task.name == "trio_upgrade connection"


class TestFirstStep:
    """How much happens in the first step."""

    @pytest.mark.parametrize(
        ("wire", "steps"),
        [
            # To the switch, and to the handler's first read.
            (UP, 1),
            (UP + b"tail", 1),
            # To the end.
            (get("/", "Connection: close"), 1),
            (b"\x00", 1),
        ],
    )
    async def test_steps(self, wire: bytes, steps: int) -> None:
        """No other task runs between the start of a connection's task and the answer."""
        steps_at_answer: list[int] = []
        counted = Steps()

        async def handler(_request: Request, stream: UpgradedStream, _head) -> None:
            steps_at_answer.append(counted.count)
            await stream.receive_some()

        async def app(request: Request) -> Response | Upgrade:
            steps_at_answer.append(counted.count)
            return Upgrade("echo", handler) if request.upgrades else Response(200)

        async with trio.open_nursery() as nursery:
            listener = await listen()
            peer = await dial(listener)
            await peer.send_all(wire)
            trio.lowlevel.add_instrument(counted)
            server: Server = await nursery.start(serve_listeners, app, [listener])
            assert (await peer.receive_some()).startswith(b"HTTP/1.1 ")
            trio.lowlevel.remove_instrument(counted)
            assert set(steps_at_answer) <= {steps}
            await peer.aclose()
            await server.drain(0)

    @scoped
    @pytest.mark.parametrize(
        ("wire", "expected"),
        [
            (UP + b"tail", SWITCHED + b"tail"),
            (
                get("/1") + get("/2") + UP + b"t",
                okay(b"/1") + okay(b"/2") + SWITCHED + b"t",
            ),
            (
                get("/1", "Content-Length: 3")
                + b"abc"
                + get("/2", "Connection: close"),
                okay(b"/1") + closing(okay(b"/2")),
            ),
            (
                get("/1") + b"GET / HTTP/1.1\r\n\r\n",
                okay(b"/1") + refused(f"{NO_HOST}\n".encode()),
            ),
            (b"\r\n" + get("/1"), okay(b"/1")),
            (
                b"\r\n\r\n" + get("/1"),
                refused(f"{TWO_BLANKS}\n".encode()),
            ),
        ],
        ids=["switch", "pipelined", "body", "malformed", "blank", "two blanks"],
    )
    async def test_every_split(
        self, wire: bytes, expected: bytes, limits: Limits
    ) -> None:
        """The result is the same, whichever bytes come before the first step."""

        async def app(request: Request) -> Response | Upgrade:
            if request.upgrades:
                return await echo_app(request)
            return Response(200, request.path.encode())

        for packets in split_points(wire):
            first, *later = packets
            near, far = direct(await tcp_pair())
            await far.send_all(first)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(
                    partial(serve_stream, app, near, limits=limits, strict=True)
                )
                for packet in later:
                    await trio.testing.wait_all_tasks_blocked()
                    await far.send_all(packet)
                await far.send_eof()
                assert await receive_all(far) == expected, packets
            await far.aclose()

    @pytest.mark.parametrize(
        ("first", "reason"),
        [
            (b"", EndReason.PEER),
            (b"\r\n", EndReason.PEER),
            (b"\x00", EndReason.MALFORMED),
            (get("/", "Connection: close"), EndReason.ANSWERED),
            (UP, EndReason.RETURNED),
        ],
    )
    async def test_reason(self, first: bytes, reason: EndReason) -> None:
        """The reason is right, also if the end of stream came before the first step."""
        near, far = direct(await tcp_pair())
        await far.send_all(first)
        await far.send_eof()
        recorder = Recorder()

        await serve_stream(echo_app, near, observer=recorder, strict=True)

        assert recorder.reasons == [reason]
        await far.aclose()

    async def test_reset(self) -> None:
        """A connection that was reset before it is served is LOST, without an error."""
        near, far = direct(await tcp_pair())
        await abort(far)
        recorder = Recorder()

        await serve_stream(echo_app, near, observer=recorder, strict=True)

        assert recorder.reasons == [EndReason.LOST]

    @pytest.mark.parametrize("wire", [UP, get("/", "Connection: close"), b"\x00", b""])
    async def test_is_a_checkpoint(self, wire: bytes) -> None:
        """serve_stream() is a checkpoint, also if all bytes were received before."""

        async def handler(_request: Request, _stream: UpgradedStream, _head) -> None:
            pass

        async def app(request: Request) -> Response | Upgrade:
            return Upgrade("echo", handler) if request.upgrades else Response(200)

        near, far = direct(await tcp_pair())
        await far.send_all(wire)
        await far.send_eof()

        with trio.testing.assert_checkpoints():
            await serve_stream(app, near, strict=True)

        await far.aclose()

    async def test_cancelled_before(self) -> None:
        """A stream is closed, too, if serve_stream() is cancelled before it begins."""
        near, far = direct(await tcp_pair())
        with trio.CancelScope() as scope:
            scope.cancel()
            await serve_stream(echo_app, near)

        assert near.fileno() == -1
        await far.aclose()

    async def test_cancelled_before_it_is_served(self) -> None:
        """If serve_stream() is already cancelled, no request is served."""
        near, far = direct(await tcp_pair())
        await far.send_all(get("/"))
        called = []

        async def app(request: Request) -> Response:
            called.append(request)
            return Response(200)

        with trio.CancelScope() as scope:
            scope.cancel()
            await serve_stream(app, near)

        assert not called
        with pytest.raises(trio.BrokenResourceError):
            await far.receive_some()
        await far.aclose()


class TestBounds:
    """Limits hold with and without a scope of the connection."""

    async def test_head_that_does_not_come(self, autojump_clock) -> None:
        """The deadline of a request head is the same if a part was received before."""
        for first, answer in ((b"", b""), (b"GET", b"HTTP/1.1 408 ")):
            near, far = direct(await tcp_pair())
            await far.send_all(first)
            recorder, began = Recorder(), trio.current_time()

            await serve_stream(
                echo_app, near, limits=Limits(linger=0), observer=recorder
            )

            assert trio.current_time() - began == 10
            assert recorder.reasons == [EndReason.SLOW_HEADER]
            assert (await far.receive_some())[:13] == answer
            await far.aclose()

    @scoped
    async def test_second_head(self, limits: Limits, autojump_clock) -> None:
        """After the first request the connection is idle until the next one begins."""
        for second, after in ((b"", 5), (b"GET", 5 + 10)):
            near, far = direct(await tcp_pair())
            await far.send_all(get("/"))
            recorder, began = Recorder(), trio.current_time()

            async def send_later(far=far, second=second) -> None:
                await trio.sleep(4)
                await far.send_all(second)

            async with trio.open_nursery() as nursery:
                if second:
                    nursery.start_soon(send_later)
                    after = 4 + 10
                await serve_stream(echo_app, near, limits=limits, observer=recorder)

            # The peer does not end its side, so the close lingers for 2 seconds more.
            assert trio.current_time() - began == pytest.approx(after + 2)
            assert recorder.reasons == [
                EndReason.SLOW_HEADER if second else EndReason.IDLE
            ]
            await far.aclose()

    @scoped
    @pytest.mark.parametrize("streamed", [False, True])
    @pytest.mark.parametrize("size", [10, 10_000_000])
    async def test_slow_reader(
        self, limits: Limits, streamed: bool, size: int, autojump_clock, caplog
    ) -> None:
        """A client that does not read is reset, and the log has its address."""
        near, far = await clogged_pair()
        await far.send_all(get("/"))
        recorder = Recorder()

        async def chunks():
            while True:
                yield b"x" * size

        async def app(_: Request) -> Response:
            return Response(200, chunks() if streamed else b"x" * size)

        caplog.set_level("DEBUG", "trio_upgrade.server")
        began = trio.current_time()
        with trio.CancelScope() as scope:
            await serve_stream(app, near, limits=limits, observer=recorder, strict=True)

        assert not scope.cancelled_caught
        assert trio.current_time() - began == 30
        assert recorder.reasons == [EndReason.SLOW_READER]
        # This line shows the clients that do it on purpose.
        address = far.socket.getsockname()
        assert caplog.messages == [f"ended {address}: the peer did not read"]
        with pytest.raises(trio.BrokenResourceError):
            await receive_all(far)
        await far.aclose()

    @scoped
    @pytest.mark.parametrize("then", ["raises", "goes on", "fails"])
    async def test_slow_reader_of_a_switch(
        self, limits: Limits, then: str, autojump_clock
    ) -> None:
        """accept_upgrade() raises if the client does not read the 101 in time."""
        near, far = await clogged_pair()
        await far.send_all(UP)
        recorder, met = Recorder(), []

        async def app(request: Request) -> Response:
            try:
                await request.accept_upgrade("echo")
            except trio.BrokenResourceError as exc:
                met.append(exc)
                if then == "fails":
                    raise LookupError("oops") from exc
                if then == "raises":
                    raise
            return Response(200)

        began = trio.current_time()
        await serve_stream(app, near, limits=limits, observer=recorder)

        assert len(met) == 1
        assert trio.current_time() - began == 30
        # An error of the app says more.
        reason = EndReason.ERROR if then == "fails" else EndReason.SLOW_READER
        assert recorder.reasons == [reason]
        await abort(far)

    @scoped
    async def test_others_live_on(self, limits: Limits, autojump_clock) -> None:
        """The end of a slow reader does not end other connections."""
        recorder = Recorder()

        async def app(request: Request) -> Response | Upgrade:
            if request.path == "/large":
                # More than any kernel keeps for a peer that does not read.
                return Response(200, bytes(64_000_000))
            return await echo_app(request)

        async with trio.open_nursery() as nursery:
            listener = await listen()
            serve = partial(
                serve_listeners, app, [listener], limits=limits, observer=recorder
            )
            server: Server = await nursery.start(serve)
            upgraded, slow = await dial(listener), await dial(listener)
            await upgraded.send_all(UP)
            await slow.send_all(get("/large"))
            await trio.sleep(100)
            assert recorder.reasons == [EndReason.SLOW_READER]
            assert await upgraded.receive_some() == SWITCHED
            await upgraded.send_all(b"still here")
            assert await upgraded.receive_some() == b"still here"
            await upgraded.aclose()
            await abort(slow)
            await server.drain(None)

        assert recorder.reasons == [EndReason.SLOW_READER, EndReason.RETURNED]

    @pytest.mark.parametrize("answers", [False, True])
    async def test_response_timeout(self, answers: bool, autojump_clock) -> None:
        """The limit on the app's time holds for the first request, too."""
        near, far = direct(await tcp_pair())
        await far.send_all(get("/", "Connection: close"))
        await far.send_eof()
        recorder = Recorder()

        async def app(_: Request) -> Response:
            await trio.sleep(3 if answers else 30)
            return Response(200, b"in time")

        await serve_stream(
            app, near, limits=Limits(response_timeout=5), observer=recorder
        )

        expected = EndReason.ANSWERED if answers else EndReason.SLOW_RESPONSE
        assert recorder.reasons == [expected]
        status = b"200" if answers else b"503"
        assert (await receive_all(far)).startswith(b"HTTP/1.1 " + status)
        await far.aclose()


class TestDrain:
    """The server drains before, during or after the first step."""

    async def test_before_the_first_step(self) -> None:
        """A connection that was accepted but not begun is served its last request."""
        recorder = Recorder()

        class Drain(trio.abc.Instrument):
            def task_spawned(self, task: trio.lowlevel.Task) -> None:
                if task.name == "trio_upgrade connection":
                    server.start_drain(None)

        async with trio.open_nursery() as nursery:
            listener = await listen()
            peer = await dial(listener)
            await peer.send_all(get("/"))
            trio.lowlevel.add_instrument(drain := Drain())
            serve = partial(serve_listeners, echo_app, [listener], observer=recorder)
            server: Server = await nursery.start(serve)
            assert await receive_all(peer) == closing(okay(b"/"))
            trio.lowlevel.remove_instrument(drain)
            await peer.aclose()

        assert recorder.reasons == [EndReason.ANSWERED]

    @pytest.mark.parametrize("grace", [0, 5])
    async def test_grace_that_ends(self, grace: float, autojump_clock) -> None:
        """The app may run until the end of the grace, then it is cancelled."""
        recorder, cancelled = Recorder(), []

        async def app(request: Request) -> Response:
            if request.path == "/slow":
                try:
                    await trio.sleep_forever()
                finally:
                    cancelled.append(trio.current_time() - began)
            await trio.sleep(2)
            return Response(200, b"in time")

        async with trio.open_nursery() as nursery:
            listener = await listen()
            peers = []
            for path in ("/slow", "/fast"):
                peer = await dial(listener)
                await peer.send_all(get(path))
                peers.append(peer)
            serve = partial(serve_listeners, app, [listener], observer=recorder)
            server: Server = await nursery.start(serve)
            await trio.testing.wait_all_tasks_blocked()
            began = trio.current_time()
            await server.drain(grace)
            assert await receive_all(peers[0]) == b""
            assert bool(await receive_all(peers[1])) == bool(grace)
            for peer in peers:
                await peer.aclose()

        assert cancelled == [grace]
        ended = EndReason.ANSWERED if grace else EndReason.DRAINED
        assert sorted(recorder.reasons, key=str) == sorted(
            [ended, EndReason.DRAINED], key=str
        )

    async def test_joined_stream(self, autojump_clock) -> None:
        """A stream that joined a server ends with its grace, and nothing is raised."""
        recorder = Recorder()

        async def app(_: Request) -> Response:
            await trio.sleep_forever()
            raise AssertionError

        async with trio.open_nursery() as nursery:
            listener = await listen()
            serve = partial(serve_listeners, app, [listener], observer=recorder)
            server: Server = await nursery.start(serve)
            near, far = direct(await tcp_pair())
            await far.send_all(get("/"))
            nursery.start_soon(server.drain, 3)
            await serve_stream(app, near, server=server)
            assert await receive_all(far) == b""
            await far.aclose()

        assert recorder.reasons == [EndReason.DRAINED]

    @pytest.mark.parametrize("at_once", [False, True])
    async def test_app_that_fails_when_cancelled(
        self, at_once: bool, autojump_clock
    ) -> None:
        """If the app raises an error when it is cancelled, the reason is ERROR."""
        recorder = Recorder()

        async def app(_: Request) -> Response:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                try:
                    await trio.sleep_forever()
                finally:
                    raise LookupError("oops")

        near, far = direct(await tcp_pair())

        servers: list[Server] = []

        async def asked(request: Request) -> Response:
            servers.append(request.server)
            return await app(request)

        async def drain(request: bytes) -> None:
            await trio.testing.wait_all_tasks_blocked()
            await far.send_all(request)
            await trio.testing.wait_all_tasks_blocked()
            servers[0].start_drain(0)

        if at_once:
            await far.send_all(get("/"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain, b"" if at_once else get("/"))
            await serve_stream(asked, near, observer=recorder)
        assert recorder.reasons == [EndReason.ERROR]
        await far.aclose()

    async def test_while_a_100_is_sent(self, autojump_clock) -> None:
        """If the drain begins while the 100 is sent, the offer gets a 503."""
        near, far = await clogged_pair()
        offer = UP[:-2] + b"Expect: 100-continue\r\n\r\n"
        await far.send_all(offer)
        recorder = Recorder()

        async def app(request: Request) -> Response | Upgrade:
            async def drain() -> None:
                await trio.testing.wait_all_tasks_blocked()
                request.server.start_drain(None)
                while (await far.receive_some())[-1:] == b"\0":
                    pass

            nursery.start_soon(drain)
            return await echo_app(request)

        async with trio.open_nursery() as nursery:
            await serve_stream(app, near, observer=recorder)

        assert not recorder.switches
        assert [record.status for record in recorder.requests] == [503]
        await abort(far)
