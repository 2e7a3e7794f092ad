"""Cancelled at every checkpoint: no socket is left, and no task."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import trio
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from trio_upgrade import Limits, open_upgrade, serve_stream
from trio_upgrade._websocket import dialling
from trio_upgrade.websocket import open_websocket, reconnecting_websocket

from ..cancelling import CancelAtStep, cancel_everywhere
from .test_opening import Peer
from .wires import OFFER, app_for, echo, masked, masked_close, plain, plain_close

if TYPE_CHECKING:
    from trio_upgrade.testing import ScriptedPeer

LIMITS = Limits(linger=0)


async def cancel_client(run, *packets: bytes, end: bool) -> int:
    """Run a client cancelled at one step later each time; return the steps.

    Args:
        run: Runs it on the stream that it gets.
        packets: What the server sends after its 101.
        end: Whether the server ends TCP after the packets.
    """
    for step in range(1, 1000):
        peer = Peer(*packets)
        if end:
            peer.script.finish()
        instrument = CancelAtStep(step)
        trio.lowlevel.add_instrument(instrument)
        try:
            with instrument.scope:
                await run(peer)
        finally:
            trio.lowlevel.remove_instrument(instrument)

        assert peer.script.closed, f"left open when cancelled at step {step}"
        if not instrument.scope.cancelled_caught:
            return step
    raise AssertionError("it did not end")


async def use(websocket) -> None:
    """Receive, send, ping and close."""
    with suppress(ConnectionClosed):
        await websocket.recv()
        await websocket.send("Hello")
        await websocket.send(["a", "b"])
        await websocket.ping()
        await websocket.recv()


async def test_client() -> None:
    """While it opens, receives, sends and closes."""
    opened = []

    async def run(peer) -> None:
        async with open_websocket("ws://a", stream=peer) as websocket:
            opened.append(websocket)
            await use(websocket)

    steps = await cancel_client(run, plain("Hello"), plain_close(1000), end=True)

    assert steps > 7
    assert len(opened) > 4
    assert all(websocket.state is State.CLOSED for websocket in opened)


async def test_client_that_closes(autojump_clock) -> None:
    """While it waits for the peer's part of the closing handshake."""

    async def run(peer) -> None:
        async with open_websocket("ws://a", stream=peer, limits=LIMITS) as websocket:
            await websocket.send("Hello")

    assert await cancel_client(run, end=False) > 5


@pytest.mark.parametrize("then", ["end", "silence"])
async def test_server(then, autojump_clock) -> None:
    """While it receives, sends and closes, whether or not the peer answers."""

    async def handler(websocket) -> None:
        await use(websocket)

    async def run(peer: ScriptedPeer) -> None:
        await serve_stream(app_for(handler), peer, limits=LIMITS, strict=True)

    last = (masked_close(1000),) if then == "end" else ()
    steps = await cancel_everywhere(run, OFFER, masked("Hello"), *last, then=then)

    assert steps > 8


async def test_server_with_a_bug(autojump_clock) -> None:
    """While its error waits for the peer."""

    async def handler(websocket) -> None:
        raise ValueError

    async def run(peer: ScriptedPeer) -> None:
        with suppress(ValueError):
            await serve_stream(app_for(handler), peer, limits=LIMITS, strict=True)
        # The error goes on although its wait was cancelled.
        await trio.lowlevel.checkpoint_if_cancelled()

    assert await cancel_everywhere(run, OFFER, then="silence") > 5


async def test_drained_server(autojump_clock) -> None:
    """While a drain closes it."""

    async def handler(websocket) -> None:
        websocket.http_request.server.start_drain(5)
        await echo(websocket)

    async def run(peer: ScriptedPeer) -> None:
        await serve_stream(app_for(handler), peer, limits=LIMITS, strict=True)

    assert await cancel_everywhere(run, OFFER, then="silence") > 5


async def test_reconnecting(nursery, monkeypatch, autojump_clock) -> None:
    """While it dials, between two connections, and in the loop."""
    for step in range(1, 1000):
        peers: list[Peer] = []

        async def dial(url, *args, peers=peers, **options):
            peers.append(Peer(plain("Hello"), plain_close(1000)))
            peers[-1].script.finish()
            return await open_upgrade(url, *args, **{**options, "stream": peers[-1]})

        monkeypatch.setattr(dialling, "open_upgrade", dial)
        instrument = CancelAtStep(step)
        trio.lowlevel.add_instrument(instrument)
        try:
            with instrument.scope:
                await loop_twice()
        finally:
            trio.lowlevel.remove_instrument(instrument)

        assert all(peer.script.closed for peer in peers), step
        if not instrument.scope.cancelled_caught:
            break

    assert step > 20
    assert len(peers) == 2


async def loop_twice() -> None:
    """Use two connections, one after the other."""
    turns = 0
    async with reconnecting_websocket("ws://a", limits=LIMITS) as connections:
        async for websocket in connections:
            await use(websocket)
            turns += 1
            if turns == 2:
                break
