"""How a server ends: drains, signals, cancellations."""

from __future__ import annotations

import signal
import sys
from functools import partial

import pytest
import trio
import trio.testing

from trio_upgrade import (
    Limits,
    Request,
    Response,
    Server,
    Upgrade,
    UpgradedStream,
    UsageError,
    drain_on_signal,
    open_connection,
    open_upgrade,
    serve_listeners,
    serve_stream,
    serve_tcp,
)
from trio_upgrade.testing import ScriptedPeer

from ..apps import drainable_app
from ..servers import MemoryListener, Scene
from ..wire import SWITCHED, UP, closing, get, okay


class TestCallers:
    """Which tasks may drain, how often, and for how long."""

    async def test_several_tasks(self, make_scene, autojump_clock) -> None:
        """Any number of tasks may drain; all return when the drain is over."""
        scene = await make_scene().open()
        await scene.join(UP)
        ends = []

        async def drain(after: float, grace: float | None) -> None:
            await trio.sleep(after)
            await scene.server.drain(grace)
            ends.append(trio.current_time())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain, 0, None)
            nursery.start_soon(drain, 1, 50)
            nursery.start_soon(drain, 2, 20)
            nursery.start_soon(drain, 3, 1000)
            nursery.start_soon(drain, 100, 0)

        assert ends == [22, 22, 22, 22, 100]

    async def test_cancelled(self, make_scene, autojump_clock) -> None:
        """If the caller is cancelled, the drain goes on."""
        scene = await make_scene().open()
        await scene.join(UP)
        with trio.move_on_after(1) as scope:
            await scene.server.drain(10)

        assert scope.cancelled_caught
        await scene.over.wait()
        assert trio.current_time() == 10

    @pytest.mark.parametrize("grace", [-1, -0.5, float("nan")])
    async def test_negative(self, grace: float, make_scene) -> None:
        """A negative grace is refused, and nothing is done."""
        scene = await make_scene().open()

        with pytest.raises(ValueError, match="must not be negative"):
            scene.server.start_drain(grace)
        with pytest.raises(ValueError, match="must not be negative"):
            await scene.server.drain(grace)
        with pytest.raises(ValueError, match="must not be negative"):
            await drain_on_signal(scene.server, signal.SIGTERM, grace=grace)

        assert not scene.server.is_draining

    async def test_from_a_handler(self, make_scene, autojump_clock) -> None:
        """A handler may start a drain; neither it nor its children may wait for it."""
        raised = []

        async def child(server: Server) -> None:
            with pytest.raises(UsageError, match="wait for its own end"):
                await server.drain(1)
            raised.append(server.is_draining)

        async def starting(request: Request) -> Response:
            await child(request.server)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(child, request.server)
            request.server.start_drain(1)
            return Response(200)

        scene = await make_scene().open(starting)
        near = await scene.listener.connect()
        await near.send_all(get("/"))
        await scene.over.wait()

        assert raised == [False, False]
        assert await near.receive_some() == closing(okay(b""))

    async def test_beside_a_connection(self, make_scene, autojump_clock) -> None:
        """A task that is only the sibling of a serving task may wait."""
        scene = await make_scene().open()
        peer = ScriptedPeer(then="silence")

        async def drain() -> None:
            await trio.testing.wait_all_tasks_blocked()
            await scene.server.drain(1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain)
            await serve_stream(drainable_app, peer, server=scene.server)

        assert scene.over.is_set()

    async def test_private_server(self, autojump_clock) -> None:
        """A stream that is served alone can drain its private server."""
        peer = ScriptedPeer(get("/"), then="silence")

        async def draining(request: Request) -> Response:
            request.server.start_drain(None)
            return Response(200)

        await serve_stream(draining, peer, limits=Limits(linger=0))

        assert peer.sent == closing(okay(b""))
        assert peer.closed

    async def test_stream_served_within_a_handler(
        self, make_scene, autojump_clock
    ) -> None:
        """HTTP spoken again after a switch is a connection of the same server."""

        async def handler(request: Request, stream: UpgradedStream, _: bytes) -> None:
            await serve_stream(drainable_app, stream, server=request.server)

        async def nesting(_: Request) -> Upgrade:
            return Upgrade("echo", handler)

        scene = await make_scene().open(nesting)
        near = await scene.listener.connect()
        await near.send_all(UP + get("/1"))
        assert await near.receive_some() == SWITCHED
        assert await near.receive_some() == okay(b"/1")
        assert scene.server.statistics().connections == 2
        assert scene.server.limits is scene.limits

        await scene.server.drain(10)

        assert trio.current_time() == 0
        assert scene.server.statistics().connections == 0


class TestCancelled:
    """A cancelled server closes everything at once."""

    async def test_no_traceback(self, autojump_clock, caplog) -> None:
        """The server does not wait, log or leave anything, and waiting tasks return."""
        listener = MemoryListener()
        ended = []

        async def wait(server: Server) -> None:
            await server.wait_ended()
            ended.append(trio.current_time())

        async with trio.open_nursery() as outer:
            async with trio.open_nursery() as nursery:
                server = await nursery.start(serve_listeners, drainable_app, [listener])
                outer.start_soon(wait, server)
                streams = [await listener.connect() for _ in range(3)]
                joined = ScriptedPeer(UP, then="silence")
                outer.start_soon(
                    partial(serve_stream, drainable_app, joined, server=server)
                )
                await streams[0].send_all(UP)
                await streams[1].send_all(get("/wait"))
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()

        assert ended == [0]
        assert joined.closed
        assert server.statistics().connections == 0
        assert not caplog.records
        await server.drain(5)

    async def test_during_a_drain(self, make_scene, autojump_clock, caplog) -> None:
        """A server that is cancelled during a drain ends at once."""
        async with trio.open_nursery() as nursery:
            scene = await Scene(nursery, Limits()).open()
            await scene.join(UP)
            scene.server.start_drain(100)
            await trio.sleep(1)
            nursery.cancel_scope.cancel()

        assert trio.current_time() == 1
        assert not caplog.records

    async def test_reset_at_the_same_time(self, caplog) -> None:
        """A reset during the cancellation is no error of the handler."""

        async def receive(stream: UpgradedStream) -> None:
            try:
                await stream.receive_some()
            except trio.Cancelled:
                peer.finish("reset")
                with trio.CancelScope(shield=True):
                    await stream.receive_some()

        async def handler(_: Request, stream: UpgradedStream, _head: bytes) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive, stream)
                nursery.start_soon(trio.sleep_forever)

        async def switching(_: Request) -> Upgrade:
            return Upgrade("echo", handler)

        peer = ScriptedPeer(UP, then="silence")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(serve_stream, switching, peer, strict=True))
            await peer.wait_sent(SWITCHED)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

        assert peer.closed
        assert not caplog.records


async def test_hundred_upgraded_connections(caplog) -> None:
    """Even if half of them do not cooperate, the drain ends with the grace.

    These are reset: their transfers are not whole.
    """
    half = 50
    ends: list[bytes] = []
    resets = 0

    async def client(path: str) -> None:
        nonlocal resets
        async with await open_upgrade(server.url + path, "echo") as (_, stream, _):
            got = bytearray()
            ready.append(path)
            try:
                async for chunk in stream:
                    got += chunk
                ends.append(bytes(got))
            except trio.BrokenResourceError:
                resets += 1

    ready: list[str] = []
    async with trio.open_nursery() as nursery:
        server = await nursery.start(
            partial(serve_tcp, drainable_app, 0, host="127.0.0.1")
        )
        for path in ["/polite", "/u"] * half:
            nursery.start_soon(client, path)
        # Also an idle connection that has not switched.
        async with await open_connection(server.url) as idle:
            await (await idle.request("GET", "/1")).read()
            # A client can have the 101 a little before the server counts the switch.
            while server.statistics().upgraded < 2 * half or len(ready) < 2 * half:
                await trio.lowlevel.checkpoint()
            began = trio.current_time()

            await server.drain(0.5)

            assert 0.5 <= trio.current_time() - began < 1.5
        counts = server.statistics()
        assert (counts.connections, counts.upgraded, counts.idle) == (0, 0, 0)
        assert all(listener.socket.fileno() == -1 for listener in server.listeners)

    assert ends == [b"goodbye"] * half
    assert resets == half
    assert not caplog.records


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals: not on Windows")
class TestSignals:
    """drain_on_signal, which the examples use."""

    async def test_drains(self, make_scene, autojump_clock) -> None:
        """The first signal drains; the function returns when the drain is over."""
        scene = await make_scene().open()
        await scene.join(UP)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                partial(drain_on_signal, scene.server, signal.SIGTERM, grace=9)
            )
            await trio.testing.wait_all_tasks_blocked()
            signal.raise_signal(signal.SIGTERM)

        assert trio.current_time() == 9

    @pytest.mark.parametrize("extra", [0, 3])
    async def test_second_signal(self, extra, make_scene, autojump_clock) -> None:
        """A second signal, of either kind, ends the grace; more of them do no harm."""
        scene = await make_scene().open()
        await scene.join(UP)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                partial(
                    drain_on_signal,
                    *(scene.server, signal.SIGTERM, signal.SIGINT),
                    grace=None,
                )
            )
            await trio.testing.wait_all_tasks_blocked()
            signal.raise_signal(signal.SIGTERM)
            await trio.sleep(2)
            assert not scene.over.is_set()
            signal.raise_signal(signal.SIGINT)
            for _ in range(extra):
                await trio.lowlevel.checkpoint()
                signal.raise_signal(signal.SIGINT)

        assert trio.current_time() == 2

    async def test_delay(self, make_scene, autojump_clock) -> None:
        """During the delay the server serves as before, and says that it will leave."""
        scene = await make_scene().open()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                partial(drain_on_signal, scene.server, signal.SIGTERM, grace=9, delay=3)
            )
            await trio.testing.wait_all_tasks_blocked()
            assert not scene.server.is_leaving
            signal.raise_signal(signal.SIGTERM)
            await trio.sleep(2)
            assert scene.server.is_leaving
            assert not scene.server.is_draining
            peer = await scene.join(UP)
            assert peer.sent == SWITCHED

        assert trio.current_time() == 3 + 9

    async def test_second_signal_in_the_delay(self, make_scene, autojump_clock) -> None:
        """A second signal ends both the delay and the grace."""
        scene = await make_scene().open()
        await scene.join(UP)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                partial(drain_on_signal, scene.server, signal.SIGTERM, grace=9, delay=7)
            )
            await trio.testing.wait_all_tasks_blocked()
            signal.raise_signal(signal.SIGTERM)
            await trio.sleep(2)
            signal.raise_signal(signal.SIGTERM)

        assert trio.current_time() == 2

    async def test_drain_is_leaving(self, make_scene) -> None:
        """A server that drains is leaving, however the drain began."""
        scene = await make_scene().open()
        scene.server.start_drain(0)

        assert scene.server.is_leaving

    @pytest.mark.parametrize("delay", [-1, float("nan")])
    async def test_negative_delay(self, delay: float, make_scene) -> None:
        """A negative delay is an error before anything is done."""
        scene = await make_scene().open()
        with pytest.raises(ValueError, match="a delay must not be negative"):
            await drain_on_signal(scene.server, signal.SIGTERM, grace=1, delay=delay)

    @pytest.mark.ids("F39")
    @pytest.mark.parametrize("delay", ["5", True])
    async def test_wrong_delay(self, delay, make_scene) -> None:
        """A delay that is no number is named as such."""
        scene = await make_scene().open()
        with pytest.raises(TypeError, match="a delay must be seconds"):
            await drain_on_signal(scene.server, signal.SIGTERM, grace=1, delay=delay)

    async def test_ended_otherwise(self, make_scene) -> None:
        """The function returns, too, if the server ends in another way."""
        scene = await make_scene().open()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                partial(drain_on_signal, scene.server, signal.SIGTERM, grace=9)
            )
            scene.server.start_drain(0)

        assert scene.over.is_set()

    async def test_no_signal(self, make_scene) -> None:
        """At least one signal has to be given."""
        scene = await make_scene().open()
        with pytest.raises(TypeError, match="at least one signal"):
            await drain_on_signal(scene.server, grace=1)
