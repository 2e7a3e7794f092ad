"""How a connection ends: in stages, by a reset, or forcefully."""

from __future__ import annotations

import socket

import pytest
import trio
import trio.testing

from trio_upgrade import TLSStream, UpgradedStream
from trio_upgrade._streams import closing
from trio_upgrade._streams.closing import (
    close_forcefully,
    close_gracefully,
    close_in_stages,
    close_nowait,
    close_without_linger,
    end_stream,
)
from trio_upgrade._streams.resetting import reset_on_close
from trio_upgrade._streams.socket_stream import DirectSocketStream, adopt_stream
from trio_upgrade.testing import ScriptedPeer

from ..sockets import clog, clogged_tcp_pair, direct, tcp_pair
from ..tls import make_tls_contexts, wrap_tls
from ..tls_streams import (
    TRANSPORTS,
    VERSIONS,
    close_all,
    handshake,
    opened,
    receive_all,
)
from ..wrapper import HalfCloseableWrapper, Wrapper


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


async def end_below(stream: TLSStream) -> None:
    """End TCP, and not TLS."""
    assert isinstance(stream.transport_stream, DirectSocketStream)
    await stream.transport_stream.send_eof()


class TestOurTLS:
    """The stages of a TLSStream: close_notify, the end below, the peer's end, close."""

    @pytest.mark.ids("M14", "M15")
    @pytest.mark.parametrize("version", VERSIONS)
    @pytest.mark.parametrize("compatible", [False, True])
    @pytest.mark.parametrize("kind", ["tcp", "unix", "memory", "tls"])
    async def test_stages(self, kind: str, compatible: bool, version: str) -> None:
        """The peer gets all, then our end, and can still send until its own."""
        near, far = await opened(version, TRANSPORTS[kind], https_compatible=compatible)
        await near.send_all(b"last words")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(close_in_stages, UpgradedStream(near))
            assert await receive_all(far) == b"last words"
            # TCP has ended, too, after the close_notify.
            await far.send_all(b"x" * 100_000)
            await trio.testing.wait_all_tasks_blocked()
            assert nursery.child_tasks
            await far.send_eof()
        with pytest.raises(trio.ClosedResourceError):
            await near.receive_some()
        assert await far.receive_some() == b""
        await far.aclose()

    @pytest.mark.parametrize("end", ["close_notify", "cut", "reset"])
    async def test_peer_is_first(self, end: str) -> None:
        """After the peer's end, in whatever way, there is no wait."""
        near, far = await opened(https_compatible=True)
        stream = UpgradedStream(near)
        if end == "close_notify":
            await far.send_eof()
            assert await stream.receive_some() == b""
        elif end == "cut":
            await end_below(far)
            assert await stream.receive_some() == b""
        else:
            reset_on_close(far)
            far.close()
        with trio.fail_after(5):
            await close_in_stages(stream)
            if end != "reset":
                assert await far.receive_some() == b""
        await close_all(near, far)

    async def test_layers_below(self) -> None:
        """In TLS in TLS each layer is ended by its close_notify."""
        inner = await opened(transport=TRANSPORTS["tcp"], https_compatible=True)
        client, server = make_tls_contexts()
        outer = [
            TLSStream(inner[0], client, server_hostname="localhost"),
            TLSStream(inner[1], server, server_side=True),
        ]
        await handshake(*outer)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(close_in_stages, outer[0])
            assert await outer[1].receive_some() == b""
            # Not a mere end of TCP, after which nothing could be sent.
            assert await inner[1].receive_some() == b""
            await outer[1].send_eof()
        await close_all(*outer)

    @pytest.mark.parametrize("ours", ["outer", "inner"])
    async def test_mixed_layers(self, ours: str) -> None:
        """Trio's TLS above or below ours: both are ended."""
        contexts = make_tls_contexts()
        pair = direct(await tcp_pair())

        def wrap_ours(pair):
            return (
                TLSStream(pair[0], contexts[0], server_hostname="localhost"),
                TLSStream(pair[1], contexts[1], server_side=True),
            )

        def wrap_trio(pair):
            return wrap_tls(pair, contexts, https_compatible=False)

        first, second = (
            (wrap_trio, wrap_ours) if ours == "outer" else (wrap_ours, wrap_trio)
        )
        inner = first(pair)
        outer = second(inner)
        await handshake(*outer)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(close_in_stages, outer[0])
            assert await outer[1].receive_some() == b""
            nursery.start_soon(close_in_stages, outer[1])
        assert pair[0].fileno() == pair[1].fileno() == -1

    @pytest.mark.parametrize("close", [close_forcefully, TLSStream.aclose])
    async def test_failed_handshake_at_once(self, close) -> None:
        """Closed without a wait, the peer still gets the alert, and no reset."""
        near, far = direct(await tcp_pair())
        # More than one receive takes, and less than the kernel does.
        far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 400_000)
        far.setsockopt(socket.IPPROTO_TCP, trio.socket.TCP_NOTSENT_LOWAT, 1_000_000)
        await far.send_all(b"\x16\x03\x01\x00\x05hello" * 10_000)
        tls = TLSStream(near, make_tls_contexts()[1], server_side=True)
        with pytest.raises(trio.BrokenResourceError):
            await tls.do_handshake()
        await close(tls)
        assert (await far.receive_some())[:1] == b"\x15"
        assert await far.receive_some() == b""
        await far.aclose()

    async def test_failed_handshake(self) -> None:
        """Without TLS the transport is ended, and unread input is no reset."""
        near, far = direct(await tcp_pair())
        await far.send_all(b"\x16\x03\x01\x00\x05hello" * 2_000)
        tls = TLSStream(near, make_tls_contexts()[1], server_side=True)
        with pytest.raises(trio.BrokenResourceError):
            await tls.do_handshake()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(close_in_stages, tls)
            assert (await far.receive_some())[:1] == b"\x15"
            assert await far.receive_some() == b""
            await far.aclose()
        assert near.fileno() == -1

    async def test_handshake_not_begun(self) -> None:
        """A stream that was not used makes no handshake to be closed."""
        near, far = direct(await tcp_pair())
        await far.send_eof()
        with trio.fail_after(5):
            await close_in_stages(
                TLSStream(near, make_tls_contexts()[1], server_side=True)
            )
        assert await far.receive_some() == b""
        await far.aclose()

    async def test_below_without_half_close(self) -> None:
        """Over a stream that cannot be half-closed TLS has its end all the same."""
        contexts = make_tls_contexts()
        below = trio.testing.memory_stream_pair()
        near = TLSStream(Wrapper(below[0]), contexts[0], server_hostname="localhost")
        far = TLSStream(Wrapper(below[1]), contexts[1], server_side=True)
        await handshake(near, far)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(close_in_stages, near)
            assert await far.receive_some() == b""
            await far.send_all(b"late")
            await trio.testing.wait_all_tasks_blocked()
            await far.send_eof()
        await close_all(far)

    @pytest.mark.parametrize("wrapped", [False, True])
    async def test_forcefully(self, wrapped: bool) -> None:
        """Closed without a close_notify, and without a checkpoint."""
        near, far = await opened()
        with trio.testing.assert_no_checkpoints():
            await close_forcefully(UpgradedStream(near) if wrapped else near)
        with pytest.raises(trio.BrokenResourceError):
            await far.receive_some()
        await far.aclose()

    async def test_reset(self) -> None:
        """After an error the peer gets a reset and no close_notify."""
        near, far = await opened(https_compatible=True)
        await end_stream(UpgradedStream(near), LookupError("oops"), None)
        with pytest.raises(trio.BrokenResourceError):
            await far.receive_some()
        await close_all(far)

    async def test_gracefully(self, autojump_clock) -> None:
        """An https_compatible stream gets its close_notify, and the time is bounded."""
        near, far = await opened(https_compatible=True)
        started = trio.current_time()
        await close_gracefully(near, 3)
        assert trio.current_time() == started + 3
        assert await far.receive_some() == b""
        await end_below(far)
        await close_all(near, far)


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

    @pytest.mark.ids("F21")
    @pytest.mark.parametrize(
        "wrap",
        [
            lambda near: near,
            adopt_stream,
            UpgradedStream,
            lambda near: UpgradedStream(adopt_stream(near)),
            lambda near: Wrapper(UpgradedStream(near)),
        ],
    )
    async def test_not_after_our_end(self, wrap) -> None:
        """After send_eof there is no reset: all that the kernel has arrives."""
        near, far = await tcp_pair()
        sent = await clog(near)
        stream = wrap(near)
        await getattr(stream, "transport_stream", stream).send_eof()

        await end_stream(stream, LookupError("oops"), None)

        received = 0
        while chunk := await far.receive_some():
            received += len(chunk)
        assert received == sent
        await far.aclose()


class TestWithoutWaiting:
    """A cancelled caller ends the stream all the same, as far as it need not wait."""

    @pytest.mark.ids("F21")
    @pytest.mark.parametrize("linger", [0, 5])
    async def test_cancelled(self, linger: float, autojump_clock) -> None:
        """Our end is sent; the peer is not waited for."""
        peer = ScriptedPeer(b"unread", then="silence")
        with trio.CancelScope() as scope:
            scope.cancel()
            await end_stream(peer, None, linger)

        assert peer.got_eof
        assert peer.packets_left == 0
        assert peer.closed
        assert trio.current_time() == 0

    async def test_cancelled_while_lingering(self) -> None:
        """A cancellation of the linger closes, once our end was sent."""
        peer = ScriptedPeer(then="silence")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(end_stream, peer, None, None)
            await trio.testing.wait_all_tasks_blocked()
            assert peer.got_eof
            nursery.cancel_scope.cancel()

        assert peer.closed

    async def test_aclose_is_not_insistent(self) -> None:
        """Without `insist` a cancelled call closes at once."""
        peer = ScriptedPeer(then="silence")
        with trio.CancelScope() as scope:
            scope.cancel()
            await close_in_stages(peer)

        assert peer.closed
        assert not peer.got_eof

    async def test_tls_that_is_not_read(self, autojump_clock) -> None:
        """A close_notify that the peer does not take is given up at once."""
        contexts = make_tls_contexts()
        near, far = wrap_tls(
            trio.testing.lockstep_stream_pair(), contexts, https_compatible=False
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(near.do_handshake)
            nursery.start_soon(far.do_handshake)

        await close_without_linger(UpgradedStream(near))

        assert trio.current_time() == 0
        with pytest.raises(trio.ClosedResourceError):
            await near.send_all(b"x")

    async def test_peer_that_goes_on_sending(self, monkeypatch) -> None:
        """Input is dropped only for so long: the peer must not delay the close."""
        monkeypatch.setattr(closing, "_MOST_DISCARDED", 1)
        near, far = direct(await tcp_pair())
        await clog(far)

        with trio.testing.assert_no_checkpoints():
            await close_without_linger(UpgradedStream(near))

        assert near.fileno() == -1
        await far.aclose()

    @pytest.mark.parametrize("then", ["busy", "closed", "reset"])
    async def test_others_were_first(self, then: str) -> None:
        """A stream that is in use, closed or broken is closed, without an error."""
        near, far = direct(await clogged_tcp_pair())

        async def send() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await near.send_all(b"x")

        async with trio.open_nursery() as nursery:
            if then == "busy":
                nursery.start_soon(send)
                await trio.testing.wait_all_tasks_blocked()
            elif then == "closed":
                await near.aclose()
            else:
                reset_on_close(far)
                await far.aclose()

            await close_without_linger(near)

            assert near.fileno() == -1
        await far.aclose()

    async def test_stream_of_a_user_that_fails(self) -> None:
        """Any other error comes out as it is, also while the caller is cancelled."""

        class Failing(HalfCloseableWrapper):
            async def send_eof(self) -> None:
                raise LookupError("oops")

        class Broken(HalfCloseableWrapper):
            async def send_eof(self) -> None:
                raise trio.BrokenResourceError

        for kind in (Failing, Broken):
            peer = ScriptedPeer()
            if kind is Failing:
                with pytest.raises(LookupError):
                    await close_without_linger(kind(peer))
            else:
                await close_without_linger(kind(peer))
            assert peer.closed


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
