"""What a connection brings with it: read, decided and answered in its task's first step.

Over kernel sockets, the only streams that are read without a checkpoint.  There is no
scope of its own then, so every bound is tested here once more.
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
from trio_upgrade._streams.closing import reset_on_close
from trio_upgrade._streams.socket_listener import DirectSocketListener, adopt_listener
from trio_upgrade._streams.socket_stream import DirectSocketStream, adopt_stream
from trio_upgrade.testing import split_points

from ..apps import echo_app
from ..recording import Recorder
from ..sockets import direct, tcp_pair
from ..wire import SWITCHED, UP, closing, get, okay


def refused(text: bytes) -> bytes:
    content = "Content-Type: text/plain; charset=utf-8"
    return closing(okay(text, content, status="400 Bad Request"))


# Whether the app's time is bounded, for which it needs a scope from the beginning.
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
    """Two ends, of which the near one has no room to send."""
    near, far = await tcp_pair()
    for _ in range(3):  # The kernel makes room once or twice more.
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
    """How far it goes."""

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
        """No turn of anybody else comes between the task's beginning and the answer."""
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
                okay(b"/1") + refused(b"no Host field\n"),
            ),
            (b"\r\n" + get("/1"), okay(b"/1")),
            (
                b"\r\n\r\n" + get("/1"),
                refused(b"no HTTP message begins with octet 0x0d\n"),
            ),
        ],
        ids=["switch", "pipelined", "body", "malformed", "blank", "two blanks"],
    )
    async def test_every_split(
        self, wire: bytes, expected: bytes, limits: Limits
    ) -> None:
        """What is there at first, and what comes later, mean the same as always."""

        async def app(request: Request) -> Response | Upgrade:
            if request.upgrades:
                return await echo_app(request)
            return Response(200, request.path)

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
        """Why it ended is told as ever, also where the end was there at once."""
        near, far = direct(await tcp_pair())
        await far.send_all(first)
        await far.send_eof()
        recorder = Recorder()

        await serve_stream(echo_app, near, observer=recorder, strict=True)

        assert recorder.reasons == [reason]
        await far.aclose()

    async def test_reset(self) -> None:
        """Gone before it was served: nobody's fault."""
        near, far = direct(await tcp_pair())
        await abort(far)
        recorder = Recorder()

        await serve_stream(echo_app, near, observer=recorder, strict=True)

        assert recorder.reasons == [EndReason.LOST]

    @pytest.mark.parametrize("wire", [UP, get("/", "Connection: close"), b"\x00", b""])
    async def test_one_checkpoint_at_least(self, wire: bytes) -> None:
        """To serve a stream is one, however much of it is there already."""

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
        """A stream that is served too late is closed all the same."""
        near, far = direct(await tcp_pair())
        with trio.CancelScope() as scope:
            scope.cancel()
            await serve_stream(echo_app, near)

        assert near.fileno() == -1
        await far.aclose()

    async def test_cancelled_before_it_is_served(self) -> None:
        """Nobody works for a request of one, though it be there already."""
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
    """What ends it, with and without a scope of its own."""

    async def test_head_that_does_not_come(self, autojump_clock) -> None:
        """A part of it at once sets no deadline off, nor does it take one away."""
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
        """Behind the first request it is idle, until the next begins."""
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

            # The peer does not end its side: 2 more to linger, unless it was idle.
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
        """One that takes nothing is reset; other connections do not notice."""
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
        # By this line they are found who do it on purpose.
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
        """An app that switches by itself learns that the connection is broken."""
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
        # That it failed by itself says more.
        reason = EndReason.ERROR if then == "fails" else EndReason.SLOW_READER
        assert recorder.reasons == [reason]
        await abort(far)

    @scoped
    async def test_others_live_on(self, limits: Limits, autojump_clock) -> None:
        """What ends one connection of a server ends no other."""
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
    async def test_decision(self, answers: bool, autojump_clock) -> None:
        """The app's time is bounded as ever, where it is bounded."""
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
    """A server that drains while all this goes on."""

    async def test_before_the_first_step(self) -> None:
        """What was accepted, and not begun, is not begun any more."""
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
            assert await receive_all(peer) == b""
            trio.lowlevel.remove_instrument(drain)
            await peer.aclose()

        assert recorder.reasons == [EndReason.DRAINED]
        assert not recorder.requests

    @pytest.mark.parametrize("grace", [0, 5])
    async def test_grace_that_ends(self, grace: float, autojump_clock) -> None:
        """Who is in the app is waited for that long, then cancelled with all others."""
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

    async def test_one_that_has_joined(self, autojump_clock) -> None:
        """A stream served for another server's sake ends alone, and without a trace."""
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
    async def test_app_that_fails_then(self, at_once: bool, autojump_clock) -> None:
        """That it failed says more than that it had to end, however it was served."""
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

    async def test_while_a_100_is_on_its_way(self, autojump_clock) -> None:
        """An offer that had to wait for that is not switched any more."""
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
