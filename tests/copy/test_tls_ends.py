"""Whether an end is passed into TLS: by default only when both directions are over."""

from __future__ import annotations

from functools import partial

import pytest
import trio
import trio.testing

from trio_upgrade import UpgradedStream, pipe, relay
from trio_upgrade._copy.engine import takes_end
from trio_upgrade.testing import ScriptedPeer

from ..sockets import direct, tcp_pair
from ..tls_streams import VERSIONS, clog, close_all, opened, receive_all
from ..wrapper import HalfCloseableWrapper, Wrapper


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("wrap", [UpgradedStream, HalfCloseableWrapper])
async def test_relay(wrap, version: str) -> None:
    """The peer's late answer comes, and after it our close_notify."""
    client, left = direct(await tcp_pair())
    right, server = await opened(version)
    far = server if wrap is UpgradedStream else HalfCloseableWrapper(server)
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            result = await relay(left, wrap(right))
            assert (result.cause, result.ended_by) == ("eof", "left")

        nursery.start_soon(run)
        await client.send_all(b"question")
        await client.send_eof()
        assert await far.receive_some() == b"question"
        with trio.move_on_after(0.1) as scope:
            await far.receive_some()
        assert scope.cancelled_caught
        await far.send_all(b"late answer")
        await server.send_eof()
        assert await receive_all(client) == b"late answer"
        assert await far.receive_some() == b""
        await server.aclose()
    await close_all(client, left, right)


@pytest.mark.parametrize("version", VERSIONS)
async def test_relay_with_tls_ends(version: str) -> None:
    """The end goes into TLS at once, and the other direction goes on."""
    client, left = direct(await tcp_pair())
    right, server = await opened(version)
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            await relay(left, UpgradedStream(right), tls_ends=True)

        nursery.start_soon(run)
        await client.send_all(b"question")
        await client.send_eof()
        assert await receive_all(server) == b"question"
        await server.send_all(b"late answer")
        await server.send_eof()
        assert await receive_all(client) == b"late answer"
    # It has passed on both ends, so it leaves the streams to their owner.
    await close_all(client, left, right, server)


@pytest.mark.parametrize("version", VERSIONS)
async def test_pipe_with_tls_ends(version: str) -> None:
    """The end of the source is our close_notify; the sink stays open."""
    sink, peer = await opened(version)
    stream = UpgradedStream(sink)
    assert await pipe(ScriptedPeer(b"one", b"two"), stream, tls_ends=True) == 6
    assert await receive_all(peer) == b"onetwo"
    await peer.send_all(b"late")
    assert await stream.receive_some() == b"late"
    await close_all(stream, peer)


@pytest.mark.parametrize("version", VERSIONS)
async def test_end_that_another_copy_left(version: str) -> None:
    """A copy can go on after one that was cancelled while it passed the end on."""
    sink, peer = await opened(version)
    filled = await clog(sink)
    # What a cancelled send_eof() leaves.
    sink._end()
    sink._push()
    near, far = direct(await tcp_pair())
    await far.send_eof()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(pipe, near, sink, tls_ends=True))
        await trio.testing.wait_all_tasks_blocked()
        assert len(await receive_all(peer)) == filled
    assert sink.eof_sent
    await close_all(near, far, sink, peer)


async def test_takes_end() -> None:
    """TLS anywhere in a stack counts; a stream without half-close never takes an end."""
    near, far = direct(await tcp_pair())
    tls, peer = await opened()
    for stream in near, UpgradedStream(near), HalfCloseableWrapper(near):
        assert takes_end(stream, tls_ends=False)
    for stream in tls, UpgradedStream(tls), HalfCloseableWrapper(tls):
        assert not takes_end(stream, tls_ends=False)
        assert takes_end(stream, tls_ends=True)
    assert not takes_end(Wrapper(near), tls_ends=True)
    await close_all(near, far, tls, peer)
