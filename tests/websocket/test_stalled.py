"""Peers that read nothing, messages that were cut, tasks that outlive the block."""

from __future__ import annotations

import zlib
from functools import partial

import pytest
import trio
import trio.testing
from websockets.exceptions import ConnectionClosed, ConnectionClosedError
from websockets.protocol import State

from trio_upgrade import EndReason, Limits, serve_stream
from trio_upgrade.testing import ScriptedPeer
from trio_upgrade.websocket import open_websocket, reconnecting_websocket

from ..recording import Recorder
from ..servers import TimedCase
from ..wire import get
from .test_opening import Peer
from .wires import FIELDS, OFFER, SWITCHED, app_for, masked, plain_close, serve, wait

LIMITS = Limits(linger=0)


class Stalled(trio.abc.HalfCloseableStream):
    """A peer that reads nothing after the head, or not before some seconds."""

    def __init__(self, *script: bytes, until: float = float("inf")) -> None:
        self.script = ScriptedPeer(*script, then="silence")
        self.until = until
        self.gone = trio.Event()

    @property
    def closed(self) -> bool:
        """Whether the stream was closed."""
        return self.script.closed

    async def send_all(self, data) -> None:
        if self.script.sent:
            with trio.move_on_at(self.until):
                await self.gone.wait()
        await self.script.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.script.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes=None) -> bytes:
        return await self.script.receive_some(max_bytes)

    async def send_eof(self) -> None:
        await self.script.send_eof()

    async def aclose(self) -> None:
        self.gone.set()
        await self.script.aclose()

    def reset(self) -> None:
        """Reset the connection."""
        self.gone.set()
        self.script.finish("reset")


async def flood(websocket) -> None:
    """Send until the peer reads no more."""
    while True:
        await websocket.send(b"Hello")


class TestPeerThatReadsNothing:
    """No Close and no ping can be sent."""

    @pytest.mark.parametrize(("ping_timeout", "seconds"), [(5, 25), (None, 3600)])
    async def test_keepalive(self, ping_timeout, seconds, autojump_clock) -> None:
        """It is noticed when its pong is due, although the handler is sending."""
        case = TimedCase(LIMITS)
        app = app_for(flood, ping_interval=20, ping_timeout=ping_timeout)
        with trio.move_on_after(3600):
            assert await case.serve(app, Stalled(OFFER)) == pytest.approx(seconds)

        assert trio.current_time() == pytest.approx(seconds)
        assert case.reason is not EndReason.ERROR

    async def test_return(self, autojump_clock) -> None:
        """A handler that returns while a task sends waits no longer than it says."""

        async def handler(websocket) -> None:
            websocket.nursery.start_soon(flood, websocket)
            await trio.sleep(1)

        case = TimedCase(LIMITS)
        app = app_for(handler, close_timeout=3)

        assert await case.serve(app, Stalled(OFFER)) == pytest.approx(4)
        assert case.reason is EndReason.RETURNED

    async def test_close_that_comes_late(self, autojump_clock) -> None:
        """The time to send the Close is a part of close_timeout."""

        async def handler(websocket) -> None:
            websocket.nursery.start_soon(flood, websocket)
            await trio.sleep(1)

        case = TimedCase(LIMITS)
        app = app_for(handler, close_timeout=3)
        peer = Stalled(OFFER, until=2)

        assert await case.serve(app, peer) == pytest.approx(4)
        assert peer.script.sent.endswith(plain_close(1000))

    async def test_drain(self, autojump_clock) -> None:
        """A drain waits no longer than its grace."""

        async def handler(websocket) -> None:
            websocket.http_request.server.start_drain(5)
            await flood(websocket)

        case = TimedCase(LIMITS)

        assert await case.serve(app_for(handler), Stalled(OFFER)) == pytest.approx(5)


async def test_compressed_messages_that_nobody_receives() -> None:
    """What one read brings is bounded: 60 messages of 1 MiB fit into 64 KiB."""
    compressor = zlib.compressobj(wbits=-12)
    packet = b""
    for _ in range(60):
        content = compressor.compress(bytes(2**20))
        content += compressor.flush(zlib.Z_SYNC_FLUSH)
        frame = bytearray(masked(content[:-4]))
        frame[0] |= 0x40
        packet += frame
    extension = "Sec-WebSocket-Extensions: permessage-deflate"
    peer = ScriptedPeer(get("/", *FIELDS, extension), packet, then="silence")
    received = []

    async def handler(websocket) -> None:
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert peer.packets_left == 1
        received.extend([len(await websocket.recv()) for _ in range(60)])
        peer.finish()

    await serve_stream(app_for(handler), peer, limits=LIMITS, strict=True)

    assert received == [2**20] * 60


class TestPings:
    """When they are sent."""

    async def test_interval_below_the_timeout(self, autojump_clock) -> None:
        """The interval counts from ping to ping, and each pong has its own time."""
        case = TimedCase(LIMITS)
        peer = ScriptedPeer(OFFER, then="silence")
        app = app_for(wait, ping_interval=10, ping_timeout=25, close_timeout=0)
        with trio.move_on_after(3600):
            await case.serve(app, peer)

        assert trio.current_time() == pytest.approx(3600)
        assert peer.sent.count(b"\x89\x04") == 3
        assert b"keepalive ping timeout" in peer.sent

    async def test_pongs(self, nursery, autojump_clock) -> None:
        """A peer that answers stays connected, and its latency is known."""
        near, far = trio.testing.memory_stream_pair()
        app = app_for(wait, ping_interval=10, ping_timeout=5)
        nursery.start_soon(partial(serve_stream, app, far))
        async with open_websocket(
            "ws://a", stream=near, ping_interval=10, ping_timeout=None
        ) as websocket:
            await trio.sleep(3600)

            assert websocket.state is State.OPEN
        nursery.cancel_scope.cancel()

    async def test_no_ping_after_the_close(self, autojump_clock) -> None:
        """A handler may go on when its WebSocket is over."""
        case = TimedCase(LIMITS)

        async def handler(websocket) -> None:
            await websocket.aclose()
            await trio.sleep(100)

        app = app_for(handler, close_timeout=0)

        assert await case.serve(app, ScriptedPeer(OFFER, then="silence")) == 100

    async def test_connection_that_ends_while_a_ping_waits(
        self, autojump_clock
    ) -> None:
        """It is an end as any other."""
        peer = Stalled(OFFER)

        async def handler(websocket) -> None:
            with pytest.raises(ConnectionClosed):
                await flood(websocket)

        async def finish() -> None:
            await trio.sleep(21)
            peer.reset()

        case = TimedCase(LIMITS)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(finish)
            await case.serve(app_for(handler), peer)

        assert trio.current_time() == pytest.approx(21)


@pytest.mark.parametrize("last", [None, "send", "close"])
async def test_message_that_was_cut(last, autojump_clock) -> None:
    """Nothing is sent in the midst of a frame: the WebSocket ends by a reset."""

    async def handler(websocket) -> None:
        with trio.move_on_after(1):
            await websocket.send(b"Hello")
        if last == "send":
            with pytest.raises(ConnectionClosedError) as caught:
                await websocket.send(b"World")
            assert "was cut" in str(caught.value.__cause__)
        elif last == "close":
            await websocket.aclose()

    peer = Stalled(OFFER, until=2)
    recorder = Recorder()
    await serve_stream(
        app_for(handler), peer, limits=LIMITS, observer=recorder, strict=True
    )

    assert trio.current_time() == pytest.approx(1)
    assert peer.script.sent == SWITCHED
    assert not peer.script.got_eof
    assert recorder.reasons == [EndReason.RETURNED]


class TestTasksOfTheProgram:
    """A task in websocket.nursery finds the WebSocket closed by the end of its block."""

    async def send_late(self, websocket) -> None:
        """Send when the block has been left."""
        while websocket.state is State.OPEN:
            await trio.lowlevel.checkpoint()
        await websocket.send("Hello")

    @pytest.mark.parametrize("error", [False, True])
    async def test_client(self, error) -> None:
        """The block is left as it is without the task."""
        peer = Peer(plain_close(1000))
        peer.script.hold_until_sent(b"\x88\x82")
        peer.script.finish()
        peer.script.hold_until_sent(b"")
        failure: list[BaseException] = []
        try:
            async with open_websocket("ws://a", stream=peer) as websocket:
                websocket.nursery.start_soon(self.send_late, websocket)
                if error:
                    raise ValueError
        except BaseException as exc:
            failure.append(exc)

        assert [type(exc) for exc in failure] == ([ValueError] if error else [])

    @pytest.mark.parametrize("error", [False, True])
    async def test_server(self, error, autojump_clock) -> None:
        """So is the handler."""

        async def handler(websocket) -> None:
            websocket.nursery.start_soon(self.send_late, websocket)
            await websocket.recv()
            if error:
                raise ValueError

        peer = ScriptedPeer(OFFER, masked("Hello"), then="silence")
        recorder = Recorder()
        await serve_stream(
            app_for(handler, close_timeout=1), peer, limits=LIMITS, observer=recorder
        )

        expected = [EndReason.ERROR if error else EndReason.RETURNED]
        assert recorder.reasons == expected
        assert [type(e.error) for e in recorder.errors] == [ValueError][: int(error)]

    async def test_its_own_fault(self) -> None:
        """Another failure of the task is not dropped."""

        async def fail(websocket) -> None:
            with pytest.raises(ConnectionClosed):
                await self.send_late(websocket)
            raise KeyError

        peer = Peer(plain_close(1000))
        peer.script.finish()
        with pytest.raises(KeyError):
            async with open_websocket("ws://a", stream=peer) as websocket:
                websocket.nursery.start_soon(fail, websocket)

    async def test_reconnecting(self, nursery) -> None:
        """The loop goes on with the next connection."""

        async def closes(websocket) -> None:
            await websocket.aclose(4000)

        async def use_until_closed(websocket) -> None:
            while True:
                await websocket.recv()

        _, url = await serve(nursery, closes)
        turns = 0
        async with reconnecting_websocket(
            url, first_delay=0, longest_delay=0
        ) as connections:
            async for websocket in connections:
                turns += 1
                if turns == 3:
                    break
                websocket.nursery.start_soon(use_until_closed, websocket)
                await websocket.wait_closed()
                await trio.testing.wait_all_tasks_blocked(0.01)

        assert turns == 3

    async def test_reconnecting_fault(self, nursery) -> None:
        """Another failure of a task ends the loop, alone."""

        async def fail() -> None:
            raise KeyError

        _, url = await serve(nursery, wait)
        with pytest.raises(KeyError):
            async with reconnecting_websocket(url) as connections:
                async for websocket in connections:
                    websocket.nursery.start_soon(fail)
                    await trio.sleep_forever()
