"""How a connection ends: in stages, by a reset, or forcefully."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trio_upgrade import UpgradedStream
from trio_upgrade._streams.closing import (
    close_forcefully,
    close_in_stages,
    close_nowait,
    end_stream,
)
from trio_upgrade._streams.socket_stream import adopt_stream
from trio_upgrade.testing import ScriptedPeer

from ..sockets import clogged_tcp_pair, direct, tcp_pair
from ..tls import make_tls_contexts, wrap_tls


async def test_stages_in_order() -> None:
    """Our end goes first, then input is dropped until the peer's end (RFC 9112 §9.6)."""
    peer = ScriptedPeer(b"unread", then="silence")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(close_in_stages, peer)
        await trio.testing.wait_all_tasks_blocked()

        assert peer.got_eof
        assert peer.packets_left == 0
        assert not peer.closed
        peer.finish()

    assert peer.closed


async def test_no_stages_after_the_peers_end() -> None:
    """A stream whose peer has ended is only closed: there is nothing to wait for."""
    peer = ScriptedPeer()
    stream = UpgradedStream(peer)
    assert await stream.receive_some() == b""

    await close_in_stages(stream)

    assert peer.closed
    assert not peer.got_eof


async def test_zero_linger(autojump_clock) -> None:
    """With linger 0 the close does not wait for the peer."""
    peer = ScriptedPeer(then="silence")
    started = trio.current_time()

    await end_stream(peer, None, 0)

    assert peer.closed
    assert trio.current_time() == started


@pytest.mark.parametrize("then", ["reset", "end"])
async def test_broken_or_closed_already(then) -> None:
    """A reset by the peer, or a stream that is already closed, is not an error."""
    peer = ScriptedPeer(then=then)
    if then == "end":
        await peer.aclose()

    await close_in_stages(peer)

    assert peer.closed


async def test_cancelled_closes() -> None:
    """A cancellation closes the stream forcefully and goes on."""
    peer = ScriptedPeer(then="silence")
    with trio.CancelScope() as scope:
        scope.cancel()
        await close_in_stages(peer)

    assert scope.cancelled_caught
    assert peer.closed


async def test_tls_that_is_not_read_is_bounded(autojump_clock) -> None:
    """The wait for a close_notify that cannot be sent ends after linger seconds."""
    contexts = make_tls_contexts()
    near, far = wrap_tls(
        trio.testing.lockstep_stream_pair(), contexts, https_compatible=False
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(near.do_handshake)
        nursery.start_soon(far.do_handshake)
    started = trio.current_time()

    await end_stream(UpgradedStream(near), None, 5)

    assert trio.current_time() - started == 5
    with pytest.raises(trio.ClosedResourceError):
        await near.send_all(b"x")


async def test_tls_sends_its_end_and_reads_on() -> None:
    """Over TLS close_notify goes first; then input is read below TLS (RFC 9112 §9.8)."""
    near, far = trio.testing.memory_stream_pair()
    contexts = make_tls_contexts()
    ours, theirs = wrap_tls((near, far), contexts, https_compatible=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.do_handshake)
        nursery.start_soon(theirs.do_handshake)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(close_in_stages, UpgradedStream(ours))
        await trio.testing.wait_all_tasks_blocked()

        # A close_notify, not the bare end of TCP, which https_compatible would accept:
        # the other direction still works after it.
        assert await theirs.receive_some() == b""
        await theirs.send_all(b"still talking")
        await trio.testing.wait_all_tasks_blocked()
        await theirs.aclose()

    with pytest.raises(trio.ClosedResourceError):
        await near.send_all(b"x")


async def test_tls_that_the_app_has_unwrapped() -> None:
    """A transport that the app has unwrapped from TLS is not closed."""
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

    await close_in_stages(UpgradedStream(ours))

    assert set(taken) == {near, far}
    await near.send_all(b"still open")
    assert await far.receive_some() == b"still open"


async def test_clogged_tcp_is_bounded(autojump_clock) -> None:
    """A peer that neither reads nor ends delays the close by linger seconds at most."""
    near, far = await clogged_tcp_pair()
    async with far:
        await end_stream(near, None, 5)

        assert near.socket.fileno() == -1


class TestReset:
    """After an error the peer gets a reset, whatever the stack of streams."""

    async def check(self, stream: trio.abc.Stream, far: trio.abc.Stream) -> None:
        await end_stream(stream, LookupError("oops"), None)

        with pytest.raises(trio.BrokenResourceError):
            await far.receive_some()
        await far.aclose()

    async def test_tcp(self) -> None:
        """An error resets TCP below our own stream."""
        near, far = await tcp_pair()

        await self.check(UpgradedStream(near), far)

    async def test_tls(self) -> None:
        """An error resets TCP below TLS."""
        near, far = await tcp_pair()
        tls_near, tls_far = wrap_tls(
            (near, far), make_tls_contexts(), https_compatible=True
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tls_near.do_handshake)
            nursery.start_soon(tls_far.do_handshake)

        await self.check(UpgradedStream(tls_near), far)

    async def test_group_of_errors(self) -> None:
        """A group of errors is an error."""
        near, far = await tcp_pair()

        await end_stream(near, ExceptionGroup("", [LookupError()]), None)

        with pytest.raises(trio.BrokenResourceError):
            await far.receive_some()
        await far.aclose()

    async def test_error_beside_a_cancellation(self) -> None:
        """An error resets, even in a group with a KeyboardInterrupt."""
        near, far = await tcp_pair()
        cause = BaseExceptionGroup("", [KeyboardInterrupt(), LookupError()])

        await end_stream(near, cause, None)

        with pytest.raises(trio.BrokenResourceError):
            await far.receive_some()
        await far.aclose()

    async def test_not_after_our_end(self) -> None:
        """After send_eof there is no reset: the last bytes arrive, then the end."""
        for wrap in (lambda near: near, UpgradedStream, adopt_stream):
            near, far = await tcp_pair()
            stream = wrap(near)
            await stream.send_all(b"last words")
            await stream.send_eof()

            await end_stream(stream, LookupError("oops"), None)

            assert await far.receive_some() == b"last words"
            assert await far.receive_some() == b""
            await far.aclose()


async def test_close_nowait() -> None:
    """Only a plain socket whose peer has ended is closed without a wait."""
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


@pytest.mark.ids("F41")
@pytest.mark.parametrize("cancelled", [False, True])
async def test_socket_is_closed_without_a_checkpoint(cancelled: bool) -> None:
    """A socket of ours is closed directly, with the streams on it; then a second time."""
    near, far = direct(await tcp_pair())
    stream = UpgradedStream(UpgradedStream(near, b"head"), b"more")

    with trio.CancelScope() as scope, trio.testing.assert_no_checkpoints():
        if cancelled:
            scope.cancel()
        await close_forcefully(stream)
        await close_forcefully(stream)

    assert near.fileno() == -1
    with pytest.raises(trio.ClosedResourceError):
        await stream.receive_some()
    assert await far.receive_some() == b""
    await far.aclose()
