"""The stream over a WebSocket: Trio's contract, its ends, its cuts and its bounds."""

from __future__ import annotations

from contextlib import AsyncExitStack, suppress
from functools import partial

import pytest
import trio
import trio.testing
from websockets.exceptions import ConnectionClosed
from websockets.frames import Opcode

from trio_upgrade import serve_stream
from trio_upgrade._carrier.stream import (
    MESSAGE_BYTES,
    WebSocketStream,
    is_loss,
    send_pings,
)
from trio_upgrade._carrier.websocket import _SETTINGS as SETTINGS
from trio_upgrade.carrier import open_carrier
from trio_upgrade.websocket import accept_websocket, open_websocket

from ..recording import Recorder
from .scenes import WEBSOCKET, Carriers, linked, read_all

MIB = 2**20
# Messages that one end receives before its program asks for them.
QUEUED = SETTINGS["max_queue"] + 1
# A bit more than that, which any kernel keeps.
SLOW = QUEUED * MESSAGE_BYTES + 20_000


class Pairs:
    """Makes pairs of streams over WebSockets on Trio streams, and closes them."""

    def __init__(self, nursery: trio.Nursery, stack: AsyncExitStack) -> None:
        self.nursery = nursery
        self.stack = stack

    async def make(self, pair) -> tuple[WebSocketStream, WebSocketStream]:
        """Make a WebSocket on a pair of streams; return both ends, the client first."""
        near, far = pair
        served: list[WebSocketStream] = []
        opened = trio.Event()

        async def handler(websocket) -> None:
            served.append(WebSocketStream(websocket))
            opened.set()
            await websocket.wait_closed()

        async def app(request):
            return accept_websocket(request, handler, **SETTINGS)

        self.nursery.start_soon(partial(serve_stream, app, far))
        block = open_websocket("ws://x/", stream=near, **SETTINGS)
        websocket = await self.stack.enter_async_context(block)
        await opened.wait()
        websocket.nursery.start_soon(send_pings, websocket)
        return WebSocketStream(websocket), served[0]

    async def open(self):
        """Make a pair over memory streams."""
        return await self.make(trio.testing.memory_stream_pair())

    async def open_clogged(self):
        """Make a pair whose first sends wait until the other end receives."""
        near, far = await self.make(trio.testing.lockstep_stream_pair())
        for stream in near, far:
            for _ in range(QUEUED):
                await stream.send_all(b"x")
        return near, far


@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_contract(nursery) -> None:
    """The stream passes Trio's own check of streams that half-close."""
    async with AsyncExitStack() as stack:
        pairs = Pairs(nursery, stack)
        await trio.testing.check_half_closeable_stream(pairs.open, pairs.open_clogged)
        nursery.cancel_scope.cancel()


async def test_messages(nursery) -> None:
    """Bytes go out in messages of 64 KiB at most; an empty one is only for the end."""
    got: list[bytes | str] = []

    async def collect(websocket) -> None:
        got.extend([message async for message in websocket])

    async def app(request):
        return accept_websocket(request, collect, subprotocols=["carrier.ssh"])

    carriers = Carriers()
    carriers.app = app  # type: ignore[method-assign]
    url = await carriers.start(nursery)
    async with open_carrier(url, "ssh") as stream:
        await stream.send_all(b"")
        await stream.send_all(bytearray(2 * MESSAGE_BYTES + 1))
        await stream.send_eof()
        await stream.send_eof()
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"x")
        with pytest.raises(trio.ClosedResourceError):
            await stream.wait_send_all_might_not_block()

    assert [len(message) for message in got] == [MESSAGE_BYTES, MESSAGE_BYTES, 1, 0]
    nursery.cancel_scope.cancel()


async def test_small_reads(nursery) -> None:
    """A message is read in parts, of which none joins two messages."""
    async with linked(nursery, WEBSOCKET) as (stream, far):
        await far.stream.send_all(b"abcde")
        await far.stream.send_all(b"f")
        await far.stream.send_eof()

        assert [await stream.receive_some(2) for _ in range(5)] == [
            b"ab",
            b"cd",
            b"e",
            b"f",
            b"",
        ]
        assert await stream.receive_some() == b""
        # The other direction is open.
        await stream.send_all(b"late")
        assert await far.stream.receive_some() == b"late"
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("frames", ["text", "not UTF-8", "long", "1000", "1001"])
async def test_peer_that_breaks_the_rules(nursery, frames) -> None:
    """A text message, a long message, and a Close before the end: all are cuts."""

    async def misbehave(websocket) -> None:
        await websocket.send(b"data")
        match frames:
            case "text":
                await websocket.send("text")
            case "not UTF-8":
                await websocket.send(b"\xff", text=True)
            case "long":
                await websocket.send(bytes(MESSAGE_BYTES + 1))
            case code:
                await websocket.aclose(int(code))
        with trio.move_on_after(5):
            await websocket.wait_closed()

    async def app(request):
        return accept_websocket(request, misbehave, subprotocols=["carrier.ssh"])

    carriers = Carriers()
    carriers.app = app  # type: ignore[method-assign]
    url = await carriers.start(nursery)
    with trio.fail_after(5):
        async with open_carrier(url, "ssh") as stream:
            assert await stream.receive_some() == b"data"
            for _ in range(2):
                with pytest.raises(trio.BrokenResourceError, match="WebSocket is over"):
                    await stream.receive_some()
            with pytest.raises(trio.BrokenResourceError):
                await stream.send_all(b"x")
            with pytest.raises(trio.BrokenResourceError):
                await stream.send_eof()
    nursery.cancel_scope.cancel()


async def test_wait_on_a_broken_stream(nursery) -> None:
    """A wait to send ends with the cut."""
    async with linked(nursery, WEBSOCKET) as (stream, far):
        await trio.aclose_forcefully(far.stream)
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await stream.wait_send_all_might_not_block()
    nursery.cancel_scope.cancel()


async def test_cancelled_send(nursery) -> None:
    """A send that is cut in a frame resets: what follows must not be taken for data."""
    async with linked(nursery, WEBSOCKET) as (stream, far):
        with trio.move_on_after(0.1):
            while True:
                await stream.send_all(b"x" * MIB)
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"y")
        with pytest.raises(trio.BrokenResourceError):
            await read_all(far.stream)
        await stream.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"y")
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("side", ["client", "server"])
async def test_slow_peer_at_the_end(nursery, side, mock_clock) -> None:
    """A peer that reads long after the block was left gets all, and a clean end."""
    async with linked(nursery, WEBSOCKET) as (stream, far):
        near, away = (stream, far.stream) if side == "client" else (far.stream, stream)
        await near.send_all(bytes(SLOW))
        if side == "server":
            far.leave.set()
        async with trio.open_nursery() as closing:
            if side == "client":
                closing.start_soon(near.aclose)
            for _ in range(3):
                await trio.testing.wait_all_tasks_blocked(0.01)
                mock_clock.jump(5)

            assert len(await read_all(away)) == SLOW
    nursery.cancel_scope.cancel()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_peer_that_takes_nothing_at_the_end(nursery, autojump_clock) -> None:
    """A close that cannot send the end resets after five seconds."""
    async with AsyncExitStack() as stack:
        near, _ = await Pairs(nursery, stack).open_clogged()
        began = trio.current_time()
        await near.aclose()

        assert trio.current_time() - began == pytest.approx(5)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("how", ["cancelled", "error"])
@pytest.mark.parametrize("ended", [False, True])
async def test_cut(nursery, how, ended) -> None:
    """A block that is cut resets, but not after send_eof: then all bytes arrive."""
    async with linked(nursery, WEBSOCKET) as (_, far):
        url = f"{far.carriers.server.url}/ssh"
        other = type(far)()
        far.carriers.handler = other.run
        with trio.CancelScope() as scope, suppress(KeyError):
            async with open_carrier(url, "ssh") as stream:
                await other.opened.wait()
                await stream.send_all(bytes(SLOW))
                if ended:
                    await stream.send_eof()
                if how == "error":
                    raise KeyError
                scope.cancel()
                await trio.lowlevel.checkpoint()
        if ended:
            assert len(await read_all(other.stream)) == SLOW
        else:
            with pytest.raises(trio.BrokenResourceError):
                await read_all(other.stream)
    nursery.cancel_scope.cancel()


async def test_cut_after_close(nursery) -> None:
    """An error after aclose() finds nothing to end."""
    async with linked(nursery, WEBSOCKET) as (_, far):
        far.carriers.handler = far.run
        with pytest.raises(KeyError):
            async with open_carrier(f"{far.carriers.server.url}/ssh", "ssh") as stream:
                await stream.aclose()
                raise KeyError
    nursery.cancel_scope.cancel()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_bounded(nursery) -> None:
    """Of a program that does not read, five messages wait here; the rest at the peer."""
    async with AsyncExitStack() as stack:
        pair = await Pairs(nursery, stack).make(trio.testing.lockstep_stream_pair())
        sent = 0
        with trio.move_on_after(0.2):
            while True:
                await pair[0].send_all(bytes(MESSAGE_BYTES))
                sent += 1

        assert sent == QUEUED
        nursery.cancel_scope.cancel()


async def test_unread_for_a_while(nursery, mock_clock) -> None:
    """A program that takes nothing for a while is not cut: its pongs only come late."""
    async with linked(nursery, WEBSOCKET) as (stream, far):
        await far.stream.send_all(bytes(SLOW))
        for _ in range(5):
            await trio.testing.wait_all_tasks_blocked(0.01)
            mock_clock.jump(11)
        # No ping before the last one was answered: they would pile up.
        assert len(far.stream._websocket.pending_pings) == 1  # type: ignore[attr-defined]
        await far.stream.send_eof()

        assert len(await read_all(stream)) == SLOW
    nursery.cancel_scope.cancel()


def note_pings(websocket) -> list[float]:
    """Return a list that gets the time of each ping that comes."""
    times: list[float] = []
    process = websocket.process_event

    def process_event(event) -> None:
        if event.opcode is Opcode.PING:
            times.append(round(trio.current_time() - began))
        process(event)

    websocket.process_event = process_event
    began = trio.current_time()
    return times


async def test_pings_of_the_client(nursery, autojump_clock) -> None:
    """It sends a ping after each 20 seconds."""
    noted: list[list[float]] = []

    async def watch(websocket) -> None:
        noted.append(note_pings(websocket))
        await websocket.wait_closed()

    async def app(request):
        return accept_websocket(request, watch, subprotocols=["carrier.ssh"])

    carriers = Carriers()
    carriers.app = app  # type: ignore[method-assign]
    url = await carriers.start(nursery)
    async with open_carrier(url, "ssh"):
        await trio.sleep(70)

    assert noted == [[20, 40, 60]]
    nursery.cancel_scope.cancel()


async def test_pings_of_the_server(nursery, autojump_clock) -> None:
    """It does the same."""
    carriers = Carriers()
    url = await carriers.start(nursery)
    async with open_websocket(
        url, subprotocols=["carrier.ssh"], ping_interval=None
    ) as websocket:
        times = note_pings(websocket)
        await trio.sleep(70)

    assert times == [20, 40, 60]
    nursery.cancel_scope.cancel()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_ping_while_another_task_waits_to_send(nursery, mock_clock) -> None:
    """A ping that is due while a task waits to send does not break the connection."""
    async with AsyncExitStack() as stack:
        pair = trio.testing.lockstep_stream_pair()
        near, far = await Pairs(nursery, stack).make(pair)
        for _ in range(QUEUED):
            await near.send_all(b"x")
        async with trio.open_nursery() as tasks:
            tasks.start_soon(near.wait_send_all_might_not_block)
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(21)
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(QUEUED):
                assert await far.receive_some() == b"x"
        async with trio.open_nursery() as tasks:
            tasks.start_soon(near.send_all, b"y")
            assert await far.receive_some() == b"y"
        nursery.cancel_scope.cancel()


async def test_close_with_unread_messages(nursery) -> None:
    """Messages that nothing has read do not keep the peer's Close from coming."""
    async with linked(nursery, WEBSOCKET) as (stream, far):
        await stream.send_all(bytes(SLOW))
        began = trio.current_time()
        await far.stream.aclose()

        assert trio.current_time() - began < 4
    nursery.cancel_scope.cancel()


async def test_close_while_another_task_receives(nursery) -> None:
    """A close wakes the task that receives."""
    async with linked(nursery, WEBSOCKET) as (stream, _):
        async with trio.open_nursery() as tasks:

            @tasks.start_soon
            async def receive() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await stream.receive_some()

            await trio.testing.wait_all_tasks_blocked()
            await stream.aclose()
        await stream.aclose()
    nursery.cancel_scope.cancel()


async def test_cancelled_close(nursery) -> None:
    """A close that is cancelled while it waits for the peer closes at once."""
    async with linked(nursery, WEBSOCKET) as (stream, far):
        # More than is received ahead: the peer does not come to our Close.
        await stream.send_all(bytes(SLOW))
        with trio.move_on_after(0.05) as scope:
            await stream.aclose()

        assert scope.cancelled_caught
        assert len(await read_all(far.stream)) == SLOW
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("group", [False, True])
async def test_handler_and_a_cut(nursery, group) -> None:
    """The loss of the client, alone or in a group, is no error of the handler."""
    recorder = Recorder()

    async def handler(request, stream) -> None:
        if group:
            async with trio.open_nursery() as tasks:
                tasks.start_soon(stream.receive_some)
        await stream.receive_some()

    carriers = Carriers(handler)
    carriers.allow_only(WEBSOCKET)
    url = await carriers.start(nursery, observer=recorder)
    with trio.CancelScope() as scope:
        async with open_carrier(url, "ssh"):
            scope.cancel()
            await trio.lowlevel.checkpoint()
    await carriers.server.drain(5)

    assert not recorder.errors


async def test_error_of_the_handler(nursery, caplog) -> None:
    """An error is logged, and to the client a cut; after our end it is none."""
    for ended in False, True:

        async def handler(request, stream, ended=ended) -> None:
            if ended:
                await stream.send_eof()
            raise KeyError

        carriers = Carriers(handler)
        carriers.allow_only(WEBSOCKET)
        url = await carriers.start(nursery, strict=False)
        async with open_carrier(url, "ssh") as stream:
            if ended:
                assert await stream.receive_some() == b""
            else:
                with pytest.raises(trio.BrokenResourceError, match="1011"):
                    await stream.receive_some()
        await carriers.server.drain(5)
    assert len(caplog.records) == 2


def test_losses() -> None:
    """Only losses, also in nested groups, are losses."""
    loss = trio.BrokenResourceError()

    assert is_loss(loss)
    assert is_loss(BaseExceptionGroup("", [ExceptionGroup("", [loss])]))
    assert not is_loss(ExceptionGroup("", [loss, KeyError()]))
    assert not is_loss(ConnectionClosed(None, None))


@pytest.mark.parametrize("value", [0, -1, 1.5])
async def test_wrong_size(nursery, value) -> None:
    """A size is a positive int."""
    async with linked(nursery, WEBSOCKET) as (stream, _):
        with pytest.raises((TypeError, ValueError), match="max_bytes"):
            await stream.receive_some(value)
    nursery.cancel_scope.cancel()
