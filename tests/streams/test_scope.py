"""stream_scope(): it ends any stream as the library ends its own."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from trio_upgrade import UpgradedStream, open_upgrade, stream_scope
from trio_upgrade.testing import ScriptedPeer

from ..sockets import tcp_pair
from ..wire import SWITCHED
from ..wrapper import Wrapper

# What the peer sees is in tests/conformance/test_ends.py.


@pytest.mark.parametrize("linger", [0, 5, 2.0])
async def test_linger(linger: float, autojump_clock) -> None:
    """After a return the peer has so many seconds; 2 unless it is said."""
    peer = ScriptedPeer(then="silence")
    began = trio.current_time()

    async with (
        stream_scope(peer) if linger == 2.0 else stream_scope(peer, linger=linger)
    ):
        pass

    assert trio.current_time() - began == linger
    assert peer.got_eof
    assert peer.closed


async def test_no_limit(autojump_clock) -> None:
    """None waits for the peer however long it takes."""
    peer = ScriptedPeer(then="silence")
    async with trio.open_nursery() as nursery:

        async def own() -> None:
            async with stream_scope(peer, linger=None):
                pass

        nursery.start_soon(own)
        await trio.sleep(10_000)
        assert not peer.closed
        peer.finish()

    assert peer.closed


async def test_exceptions_are_unchanged() -> None:
    """The scope raises what its body raises, and nothing else."""
    error = LookupError("oops")
    peer = ScriptedPeer()

    with pytest.raises(LookupError) as caught:
        async with stream_scope(peer):
            raise error

    assert caught.value is error
    assert caught.value.__context__ is None
    assert peer.closed
    assert not peer.got_eof


async def test_wrapper() -> None:
    """A stream of a user's is reset below, where it names the stream below."""
    near, far = await tcp_pair()

    with pytest.raises(LookupError):
        async with stream_scope(Wrapper(Wrapper(near))):
            raise LookupError

    with pytest.raises(trio.BrokenResourceError):
        await far.receive_some()
    await far.aclose()


async def test_stream_closed_inside() -> None:
    """A stream that the body has closed, or detached, is left alone."""
    near, far = await tcp_pair()

    async with stream_scope(UpgradedStream(near)) as stream:
        taken, _ = stream.detach()

    await taken.send_all(b"open")
    assert await far.receive_some() == b"open"

    async with stream_scope(near):
        await near.aclose()
    assert await far.receive_some() == b""
    await far.aclose()


async def test_mistakes() -> None:
    """A mistake in the call is said at the call; the stream stays open."""
    peer = ScriptedPeer(SWITCHED)
    wrong: Any = await open_upgrade("http://x/", "echo", stream=peer)

    with pytest.raises(TypeError, match="not UpgradedConnection"):
        stream_scope(wrong)
    with pytest.raises(TypeError, match="not the class ScriptedPeer"):
        stream_scope(ScriptedPeer)  # type: ignore[type-var]
    with pytest.raises(ValueError, match="linger must not be negative"):
        stream_scope(peer, linger=-1)
    assert not peer.closed
    await wrong.aclose()
