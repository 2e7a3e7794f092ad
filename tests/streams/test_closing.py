"""The ways in which a connection ends."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trio_upgrade import UpgradedStream
from trio_upgrade._streams.closing import close_in_stages, close_nowait, end_stream
from trio_upgrade._streams.socket_stream import adopt_stream
from trio_upgrade.testing import ScriptedPeer

from ..sockets import clogged_tcp_pair, tcp_pair
from ..tls import make_tls_contexts, wrap_tls


async def test_stages_in_order() -> None:
    """Our end is sent first, then input is read and dropped until the peer's end."""
    peer = ScriptedPeer(b"unread", then="silence")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(close_in_stages, peer, None)
        await trio.testing.wait_all_tasks_blocked()

        assert peer.got_eof
        assert peer.packets_left == 0
        assert not peer.closed
        peer.finish()

    assert peer.closed


async def test_no_stages_after_the_peers_end() -> None:
    """Where the peer has ended there is nothing to wait for: it is only closed."""
    peer = ScriptedPeer()
    stream = UpgradedStream(peer)
    assert await stream.receive_some() == b""

    await close_in_stages(stream, None)

    assert peer.closed
    assert not peer.got_eof


async def test_zero_linger(autojump_clock) -> None:
    """With linger 0 nobody is waited for."""
    peer = ScriptedPeer(then="silence")
    started = trio.current_time()

    await close_in_stages(peer, 0)

    assert peer.closed
    assert trio.current_time() == started


@pytest.mark.parametrize("then", ["reset", "end"])
async def test_broken_or_closed_already(then) -> None:
    """A peer that reset, or a stream that was closed before, is no error."""
    peer = ScriptedPeer(then=then)
    if then == "end":
        await peer.aclose()

    await close_in_stages(peer, None)

    assert peer.closed


async def test_cancelled_closes() -> None:
    """Cancelled, it closes at once and the cancellation goes on."""
    peer = ScriptedPeer(then="silence")
    with trio.CancelScope() as scope:
        scope.cancel()
        await close_in_stages(peer, None)

    assert scope.cancelled_caught
    assert peer.closed


async def test_tls_that_is_not_read_is_bounded(autojump_clock) -> None:
    """A close_notify that does not get out is waited for linger seconds."""
    contexts = make_tls_contexts()
    near, far = wrap_tls(
        trio.testing.lockstep_stream_pair(), contexts, https_compatible=False
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(near.do_handshake)
        nursery.start_soon(far.do_handshake)
    started = trio.current_time()

    await close_in_stages(UpgradedStream(near), 5)

    assert trio.current_time() - started == 5
    with pytest.raises(trio.ClosedResourceError):
        await near.send_all(b"x")


async def test_tls_says_its_end_and_reads_on() -> None:
    """Over TLS the close_notify goes out first, and what still comes is read below it."""
    near, far = trio.testing.memory_stream_pair()
    contexts = make_tls_contexts()
    ours, theirs = wrap_tls((near, far), contexts, https_compatible=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.do_handshake)
        nursery.start_soon(theirs.do_handshake)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(close_in_stages, UpgradedStream(ours), None)
        await trio.testing.wait_all_tasks_blocked()

        # A close_notify, not the bare end that https_compatible would forgive: after
        # it the other direction still works.
        assert await theirs.receive_some() == b""
        await theirs.send_all(b"still talking")
        await trio.testing.wait_all_tasks_blocked()
        await theirs.aclose()

    with pytest.raises(trio.ClosedResourceError):
        await near.send_all(b"x")


async def test_tls_that_the_app_has_unwrapped() -> None:
    """A transport that was taken from below TLS belongs to whoever took it."""
    near, far = trio.testing.memory_stream_pair()
    contexts = make_tls_contexts()
    ours, theirs = wrap_tls((near, far), contexts, https_compatible=False)
    taken = []

    async def unwrap(tls: trio.SSLStream[trio.abc.Stream]) -> None:
        taken.append((await tls.unwrap())[0])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.do_handshake)
        nursery.start_soon(theirs.do_handshake)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(unwrap, ours)
        nursery.start_soon(unwrap, theirs)

    await close_in_stages(UpgradedStream(ours), None)

    assert set(taken) == {near, far}
    await near.send_all(b"still open")
    assert await far.receive_some() == b"still open"


async def test_clogged_tcp_is_bounded(autojump_clock) -> None:
    """A peer that neither reads nor ends does not hold the close up."""
    near, far = await clogged_tcp_pair()
    async with far:
        await close_in_stages(near, 5)

        assert near.socket.fileno() == -1


class TestReset:
    """After an error the peer gets a reset, over whatever streams."""

    async def check(self, stream: trio.abc.Stream, far: trio.abc.Stream) -> None:
        await end_stream(stream, LookupError("oops"), None)

        with pytest.raises(trio.BrokenResourceError):
            await far.receive_some()
        await far.aclose()

    async def test_tcp(self) -> None:
        """Over TCP, through our own stream."""
        near, far = await tcp_pair()

        await self.check(UpgradedStream(near), far)

    async def test_tls(self) -> None:
        """Over TLS, by resetting what is underneath."""
        near, far = await tcp_pair()
        tls_near, tls_far = wrap_tls(
            (near, far), make_tls_contexts(), https_compatible=True
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tls_near.do_handshake)
            nursery.start_soon(tls_far.do_handshake)

        await self.check(UpgradedStream(tls_near), far)

    async def test_group_of_errors(self) -> None:
        """A group of nothing but errors is an error."""
        near, far = await tcp_pair()

        await end_stream(near, ExceptionGroup("", [LookupError()]), None)

        with pytest.raises(trio.BrokenResourceError):
            await far.receive_some()
        await far.aclose()

    async def test_error_beside_a_cancellation(self) -> None:
        """An error is one, also in a group with what is none."""
        near, far = await tcp_pair()
        cause = BaseExceptionGroup("", [KeyboardInterrupt(), LookupError()])

        await end_stream(near, cause, None)

        with pytest.raises(trio.BrokenResourceError):
            await far.receive_some()
        await far.aclose()

    async def test_not_under_cancellation(self) -> None:
        """A cancellation closes at once, so what was sent still arrives, then the end."""
        near, far = await tcp_pair()
        await near.send_all(b"last words")

        await end_stream(near, KeyboardInterrupt(), None)

        assert await far.receive_some() == b"last words"
        assert await far.receive_some() == b""
        await far.aclose()


async def test_close_at_once() -> None:
    """Only a plain socket whose peer has ended needs no farewell."""
    near, far = await tcp_pair()
    direct = adopt_stream(near)
    stream = UpgradedStream(direct)
    assert not close_nowait(direct)
    assert not close_nowait(stream)
    await far.send_eof()
    assert await stream.receive_some() == b""
    ended = UpgradedStream(ScriptedPeer())
    await ended.receive_some()
    assert not close_nowait(ended)

    assert close_nowait(stream)
    assert direct.fileno() < 0
    stream.detach()
    assert not close_nowait(stream)
    await far.aclose()
