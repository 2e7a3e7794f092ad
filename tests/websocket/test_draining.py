"""A drain with WebSockets: 1001, and never longer than the grace."""

from __future__ import annotations

from functools import partial

import pytest
import trio
import trio.testing
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK

from trio_upgrade import EndReason, Limits, serve_listeners, serve_stream
from trio_upgrade.testing import ScriptedPeer
from trio_upgrade.websocket import open_websocket

from ..servers import MemoryListener, TimedCase
from .wires import OFFER, SWITCHED, app_for, echo, plain_close, serve, wait

LIMITS = Limits(linger=0)


@pytest.mark.parametrize("code", [1001, 1012])
async def test_close(code, nursery) -> None:
    """The peer gets a Close with the code, and the server ends before the grace."""
    ended = []

    async def handler(websocket) -> None:
        async for message in websocket:
            await websocket.send(message)
        ended.append(websocket.close_code)

    server, url = await serve(nursery, handler, drain_code=code)
    async with open_websocket(url) as websocket:
        await websocket.send("Hello")
        assert await websocket.recv() == "Hello"
        with trio.fail_after(5):
            server.start_drain(60)
            with pytest.raises((ConnectionClosedOK, ConnectionClosedError)) as caught:
                await websocket.recv()
            await server.wait_ended()

    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == code
    assert ended == ([1001] if code == 1001 else [])


async def test_jitter(autojump_clock) -> None:
    """Each peer gets its Close at its own time, whatever pings go out meanwhile."""
    times: list[float] = []

    async def talk(peer: ScriptedPeer) -> None:
        await peer.wait_sent(plain_close(1001))
        times.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        app = app_for(wait, close_timeout=0, ping_interval=1, ping_timeout=None)
        server = await nursery.start(partial(serve_listeners, app, [MemoryListener()]))
        for _ in range(4):
            peer = ScriptedPeer(OFFER, then="silence")
            nursery.start_soon(partial(serve_stream, app, peer, server=server))
            nursery.start_soon(talk, peer)
        await trio.testing.wait_all_tasks_blocked()
        await server.drain(60, jitter=20)

    assert times == [0, 5, 10, 15]


async def test_deaf_handler(nursery) -> None:
    """The peer gets its Close although the handler does not receive."""
    server, url = await serve(nursery, wait)
    async with open_websocket(url) as websocket:
        server.start_drain(60)
        with pytest.raises(ConnectionClosedOK, match="1001"):
            await websocket.recv()
        server.start_drain(0)


@pytest.mark.parametrize(
    ("grace", "close_timeout", "seconds"), [(3, 10, 3), (3, 1, 1), (0, 10, 0)]
)
async def test_silent_peer(grace, close_timeout, seconds, autojump_clock) -> None:
    """A peer that does not answer has the grace, or close_timeout if that is less."""

    async def handler(websocket) -> None:
        websocket.http_request.server.start_drain(grace)
        await echo(websocket)

    case = TimedCase(LIMITS)
    peer = ScriptedPeer(OFFER, then="silence")
    spent = await case.serve(app_for(handler, close_timeout=close_timeout), peer)

    assert spent == pytest.approx(seconds)
    assert peer.sent.startswith(SWITCHED)
    if grace:
        assert peer.sent == SWITCHED + plain_close(1001)


async def test_handler_that_returns(autojump_clock) -> None:
    """A handler that ends because of the drain says 1001 as well."""

    async def handler(websocket) -> None:
        websocket.http_request.server.start_drain(5)

    case = TimedCase(LIMITS)
    peer = ScriptedPeer(OFFER, then="silence")
    await case.serve(app_for(handler, close_timeout=1), peer)

    assert peer.sent == SWITCHED + plain_close(1001)
    assert case.reason is EndReason.RETURNED


async def test_last_words(nursery) -> None:
    """Without a code the handler closes, after its last words."""

    async def handler(websocket) -> None:
        await websocket.http_request.server.wait_draining()
        await websocket.send("goodbye")

    server, url = await serve(nursery, handler, drain_code=None)
    async with open_websocket(url) as websocket:
        server.start_drain(5)
        assert await websocket.recv() == "goodbye"
        with pytest.raises(ConnectionClosedOK, match="1001"):
            await websocket.recv()


async def test_task_of_the_handler(nursery) -> None:
    """A handler may wait for the drain in the nursery of its WebSocket."""
    told = trio.Event()

    async def handler(websocket) -> None:
        async def tell() -> None:
            await websocket.http_request.server.wait_draining()
            told.set()

        websocket.nursery.start_soon(tell)
        await echo(websocket)

    server, url = await serve(nursery, handler)
    async with open_websocket(url) as websocket:
        server.start_drain(5)
        await told.wait()
        with pytest.raises(ConnectionClosedOK, match="1001"):
            await websocket.recv()


async def test_offer_during_the_drain(nursery) -> None:
    """A later offer gets a 503, as every offer does."""

    async def app(request):
        request.server.start_drain(5)
        return await app_for(echo)(request)

    case = TimedCase(LIMITS)
    peer = ScriptedPeer(OFFER)
    await case.serve(app, peer)

    assert peer.sent.startswith(b"HTTP/1.1 503 ")
