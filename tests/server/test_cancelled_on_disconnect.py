"""request.cancelled_on_disconnect(): a block that ends when its client leaves."""

from __future__ import annotations

from functools import partial

import pytest
import trio
import trio.testing

from trio_upgrade import EndReason, Limits, Request, Response, serve_stream
from trio_upgrade.testing import ScriptedPeer

from ..cancelling import cancel_everywhere
from ..recording import Recorder
from ..servers import run_script
from ..wire import SWITCHED, UP, get, okay

LIMITS = Limits(linger=0)
# Longer than a block is not watched yet.
WATCHED = 0.1
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"


async def search(request: Request) -> Response | None:
    """Work for ever, or until the client leaves."""
    async with request.cancelled_on_disconnect() as scope:
        await trio.sleep_forever()
    assert scope.cancelled_caught
    return None


@pytest.mark.parametrize("then", ["end", "reset"])
async def test_client_leaves(then, caplog) -> None:
    """The block is cancelled at an end of the client's side, and at a reset."""
    recorder = Recorder()
    peer = ScriptedPeer(get("/"), then="silence")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            partial(serve_stream, search, peer, limits=LIMITS, observer=recorder)
        )
        await trio.testing.wait_all_tasks_blocked()
        assert not peer.closed
        peer.finish(then)

    assert not peer.sent
    assert recorder.reasons == [EndReason.LOST]
    assert not [record for record in caplog.records if record.exc_info]


async def test_client_stays(autojump_clock) -> None:
    """A block whose client stays is not cancelled, and the next request is read."""

    async def app(request: Request) -> Response:
        async with request.cancelled_on_disconnect() as scope:
            await trio.sleep(1)
        assert not scope.cancel_called
        return Response(200, request.path.encode())

    for wire in ([get("/1") + get("/2")], [get("/1"), get("/2")]):
        peer = ScriptedPeer(*wire, then="silence")
        await serve_stream(app, peer, limits=LIMITS, strict=True)

        assert peer.sent == okay(b"/1") + okay(b"/2")


async def test_return_inside() -> None:
    """The answer may be returned in the block."""

    async def app(request: Request) -> Response | None:
        async with request.cancelled_on_disconnect():
            return Response(200, b"okay")
        return None

    peer = await run_script(
        app, get("/"), then="silence", limits=Limits(linger=0, keep_alive_timeout=0)
    )
    assert peer.sent == okay()


async def test_gone_before_the_block(autojump_clock) -> None:
    """A client that is gone already cancels the block at its first wait."""

    async def app(request: Request) -> None:
        assert await request.wait_disconnect()
        await search(request)

    peer = await run_script(app, get("/"), limits=LIMITS)
    assert not peer.sent


async def test_end_after_an_offer(autojump_clock) -> None:
    """After an offer an end of the client's side may be a half-close."""

    async def app(request: Request) -> Response:
        async with request.cancelled_on_disconnect() as scope:
            await trio.sleep(1)
        return Response(200, b"%r" % scope.cancelled_caught)

    peer = await run_script(app, UP, limits=LIMITS)
    assert peer.sent == okay(b"False")


async def test_body_and_switch_inside(autojump_clock) -> None:
    """Reading the body and a switch go on inside; after it nothing is cancelled."""
    bodies = []

    async def app(request: Request) -> None:
        async with request.cancelled_on_disconnect() as scope:
            await trio.sleep(WATCHED)
            bodies.append(await request.read())
            stream, _ = await request.accept_upgrade("echo")
            assert await stream.receive_some() == b"early"
            assert await stream.receive_some() == b""
            await trio.sleep(WATCHED)
            await trio.lowlevel.checkpoint()
        assert not scope.cancel_called
        async with request.cancelled_on_disconnect() as scope:
            await trio.sleep(WATCHED)
        assert not scope.cancel_called

    offer = UP.replace(b"\r\n\r\n", b"\r\nContent-Length: 4\r\n\r\n")
    peer = ScriptedPeer(offer, then="silence")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(serve_stream, app, peer, limits=LIMITS, strict=True))
        await trio.sleep(2 * WATCHED)
        peer.feed(b"four")
        await peer.wait_sent(SWITCHED)
        peer.feed(b"early")
        peer.finish()

    assert bodies == [b"four"]


async def test_around_a_respond_block(autojump_clock) -> None:
    """A mere end cancels it at once, also while an answer makes progress."""
    recorder = Recorder()

    async def app(request: Request) -> None:
        async with request.cancelled_on_disconnect():
            async with request.respond(200) as answer:
                while True:
                    await answer.send(b"tick")
                    await trio.sleep(1)

    peer = ScriptedPeer(get("/"), then="silence")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            partial(serve_stream, app, peer, observer=recorder, strict=True)
        )
        await trio.sleep(2.5)
        peer.finish()

    assert peer.sent.count(b"tick") == 3
    assert isinstance(recorder.requests[0].cause, trio.Cancelled)
    assert recorder.reasons == [EndReason.LOST]


async def test_no_task_is_left(autojump_clock) -> None:
    """A short block has no task that watches; that of a longer one ends with it."""
    counts = []

    async def app(request: Request) -> Response:
        counts.append(trio.lowlevel.current_statistics().tasks_living)
        async with request.cancelled_on_disconnect():
            await trio.testing.wait_all_tasks_blocked()
            counts.append(trio.lowlevel.current_statistics().tasks_living)
            await trio.sleep(WATCHED)
            counts.append(trio.lowlevel.current_statistics().tasks_living)
        await trio.testing.wait_all_tasks_blocked()
        counts.append(trio.lowlevel.current_statistics().tasks_living)
        return Response(200)

    await run_script(app, UP, then="end")

    assert counts == [counts[0], counts[0], counts[0] + 1, counts[0]]


@pytest.mark.parametrize("wire", [get("/"), POST + b"four", POST + b"fo"])
async def test_cancelled_at_every_step(wire: bytes, autojump_clock) -> None:
    """Cancelled at any step, nothing is left open."""

    async def app(request: Request) -> Response:
        async with request.cancelled_on_disconnect():
            await request.read()
        return Response(200)

    for then in ("end", "silence"):
        await cancel_everywhere(partial(serve_stream, app), wire, then=then)


class FailingStream(trio.abc.HalfCloseableStream):
    """A stream of a user's that fails in its own way once the request is read."""

    def __init__(self, peer: ScriptedPeer) -> None:
        self.peer = peer
        self.fails = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self.fails:
            await trio.lowlevel.checkpoint()
            raise LookupError("a bug of the stream")
        self.fails = True
        return await self.peer.receive_some(max_bytes)

    async def send_all(self, data) -> None:
        await self.peer.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.peer.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self.peer.send_eof()

    async def aclose(self) -> None:
        await self.peer.aclose()


async def test_stream_that_fails(autojump_clock) -> None:
    """What a stream of the user's raises comes out of the block, alone."""
    raised = []

    async def app(request: Request) -> Response:
        with pytest.raises(LookupError, match="a bug of the stream") as caught:
            async with request.cancelled_on_disconnect():
                await trio.sleep_forever()
        raised.append(caught.value)
        with pytest.raises(LookupError, match="a bug of the stream"):
            async with request.cancelled_on_disconnect():
                with trio.CancelScope(shield=True):
                    await trio.sleep(WATCHED)
        with pytest.raises(ZeroDivisionError):
            async with request.cancelled_on_disconnect():
                with trio.CancelScope(shield=True):
                    await trio.sleep(WATCHED)
                raise ZeroDivisionError
        return Response(200)

    stream = FailingStream(ScriptedPeer(get("/", "Connection: close")))
    with pytest.raises(LookupError):  # From the close, which reads to the end.
        await serve_stream(app, stream, limits=LIMITS, strict=True)

    assert len(raised) == 1
