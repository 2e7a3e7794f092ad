"""pipe(): a copy in one direction."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trio_upgrade import Progress, UpgradedStream, pipe
from trio_upgrade._streams.resetting import reset_on_close
from trio_upgrade.testing import ScriptedPeer

from ..copying import ALL, OWN_TLS, close, receive
from ..sockets import direct, tcp_pair
from ..tls import make_tls_contexts, wrap_tls


class SinkOnly(trio.abc.SendStream):
    """A stream that can only be sent to."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self.sent += data

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        self.closed = True
        await trio.lowlevel.checkpoint()


async def test_echo_returns_the_count_and_passes_the_end_on() -> None:
    """``pipe(stream, stream)`` sends all bytes back, then our own end."""
    peer = ScriptedPeer(b"one", b"two", b"three")

    assert await pipe(peer, peer) == 11
    assert peer.sent == b"onetwothree"
    assert peer.got_eof
    assert not peer.closed


async def test_end_false_leaves_the_sink_open() -> None:
    """With end=False the sink is still open for sending afterwards."""
    source, sink = ScriptedPeer(b"one"), ScriptedPeer()

    assert await pipe(source, sink, end=False) == 3

    await sink.send_all(b"more")
    assert sink.sent == b"onemore"
    assert not sink.got_eof


async def test_end_closes_a_sink_that_cannot_half_close() -> None:
    """A sink without send_eof is closed, which is the only way to pass on the end."""
    sink = SinkOnly()

    assert await pipe(ScriptedPeer(b"one"), sink) == 3
    assert sink.sent == b"one"
    assert sink.closed


async def test_end_false_leaves_a_sink_that_cannot_half_close() -> None:
    """With end=False such a sink stays open as well."""
    sink = SinkOnly()

    await pipe(ScriptedPeer(b"one"), sink, end=False)

    assert not sink.closed


async def test_echo_that_cannot_half_close_leaves_the_stream_to_its_owner() -> None:
    """A stream that is both source and sink is not closed: its owner does that."""

    class Plain(SinkOnly, trio.abc.Stream):
        def __init__(self) -> None:
            super().__init__()
            self.packets = [b"question", b""]

        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            await trio.lowlevel.checkpoint()
            return self.packets.pop(0)

    stream = Plain()

    assert await pipe(stream, stream) == 8
    assert stream.sent == b"question"
    assert not stream.closed


async def test_echo_over_tls() -> None:
    """Over TLS all bytes come back, and the peer's close_notify ends the copy."""
    contexts = make_tls_contexts()
    near, far = wrap_tls(
        trio.testing.memory_stream_pair(), contexts, https_compatible=False
    )

    async def ask() -> None:
        await near.send_all(b"question")
        assert await near.receive_some() == b"question"
        await near.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        assert await pipe(far, far) == 8
        await far.aclose()


class TestEndsOfTLS:
    """An end goes into TLS when both directions are over, or with ``tls_ends``."""

    @pytest.mark.ids("F13")
    @pytest.mark.parametrize("kind", OWN_TLS)
    async def test_left_open(self, kind: str) -> None:
        """While the peer may still send, TLS stays open by default."""
        sink, peer = await ALL[kind]()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.receive_some)
            assert await pipe(ScriptedPeer(b"one"), sink) == 3
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sink.send_all, b"more")
            assert await peer.receive_some() == b"more"
            nursery.start_soon(peer.send_all, b"late answer")
            assert await sink.receive_some() == b"late answer"
        await close((sink, peer))

    @pytest.mark.ids("F13")
    @pytest.mark.parametrize("kind", OWN_TLS)
    async def test_tls_ends(self, kind: str) -> None:
        """With tls_ends the peer sees the end at once, and can still answer."""
        sink, peer = await ALL[kind]()
        got = bytearray()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive, peer, got)
            assert await pipe(ScriptedPeer(b"one"), sink, tls_ends=True) == 3
        assert got == b"one"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.send_all, b"late answer")
            assert await sink.receive_some() == b"late answer"
        await close((sink, peer))

    @pytest.mark.ids("F13")
    @pytest.mark.parametrize("kind", OWN_TLS)
    @pytest.mark.parametrize("echo", [False, True])
    async def test_peer_that_has_ended(self, kind: str, echo: bool) -> None:
        """If the peer has ended as well, TLS is ended by default."""
        stream, peer = await ALL[kind]()
        got = bytearray()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.send_eof)
            if not echo:
                assert await stream.receive_some() == b""
            nursery.start_soon(receive, peer, got)
            await pipe(stream if echo else ScriptedPeer(b"one"), stream)
        assert bytes(got) == (b"" if echo else b"one")
        await close((stream, peer))

    async def test_end_false(self) -> None:
        """With end=False nothing is ended, whatever tls_ends says."""
        sink, peer = await ALL["tls1.3-tcp"]()
        await pipe(ScriptedPeer(b"one"), sink, end=False, tls_ends=True)
        await sink.send_all(b"more")
        await close((sink, peer))


async def test_cancelled_while_waiting_loses_nothing() -> None:
    """Bytes received before a cancellation were sent; later bytes can still be read."""
    source, sink = ScriptedPeer(b"one", then="silence"), ScriptedPeer()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pipe, source, sink)
        await sink.wait_sent(b"one")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    source.feed(b"two")
    source.finish()

    assert await pipe(source, sink) == 3
    assert sink.sent == b"onetwo"


async def test_reset_is_raised() -> None:
    """A reset of the source raises Trio's own error and does not end the sink."""
    source, sink = ScriptedPeer(b"one", then="reset"), ScriptedPeer()

    with pytest.raises(trio.BrokenResourceError):
        await pipe(source, sink)
    assert sink.sent == b"one"
    assert not sink.got_eof


async def test_counts_of_the_streams() -> None:
    """Each stream counts its own bytes; the source knows that its peer has ended."""
    (near, sender), (below, receiver) = (
        direct(await tcp_pair()),
        direct(await tcp_pair()),
    )
    source, sink = UpgradedStream(near, b"head "), UpgradedStream(below)
    await sender.send_all(b"and tail")
    await sender.send_eof()

    assert await pipe(source, sink) == 13

    assert (source.received, source.sent, source.peer_ended) == (13, 0, True)
    assert (sink.received, sink.sent, sink.peer_ended) == (0, 13, False)
    assert (source.eof_sent, sink.eof_sent) == (False, True)
    for stream in (source, sender, sink, receiver):
        await stream.aclose()


async def test_end_that_does_not_arrive() -> None:
    """If the sink's peer is gone when the end is passed on, the sink knows that."""
    (source, sender), (near, gone) = direct(await tcp_pair()), direct(await tcp_pair())
    sink = UpgradedStream(near)
    await sender.send_eof()
    reset_on_close(gone)
    await gone.aclose()

    with pytest.raises(trio.BrokenResourceError):
        await pipe(source, sink)
    assert sink.broken
    for stream in (source, sender, sink):
        await stream.aclose()


@pytest.mark.ids("S37")
async def test_back_pressure_bounds_what_is_in_flight() -> None:
    """While the sink accepts no bytes, none are received from the source."""
    source = ScriptedPeer(*[b"x" * 1000] * 100, then="silence")
    near, far = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pipe, source, near)
        await trio.testing.wait_all_tasks_blocked()

        assert source.packets_left == 99

        await far.receive_some(1000)
        await trio.testing.wait_all_tasks_blocked()

        assert source.packets_left == 98
        nursery.cancel_scope.cancel()


async def test_bulk_over_tcp() -> None:
    """Sixteen MiB come back from an echo over TCP as they were sent."""
    near, far = await tcp_pair()
    data = bytes(range(256)) * 4096
    got = bytearray()

    async def send() -> None:
        for _ in range(16):
            await near.send_all(data)
        await near.send_eof()

    async def receive() -> None:
        async for chunk in near:
            got.extend(chunk)

    async with near, far, trio.open_nursery() as nursery:
        nursery.start_soon(send)
        nursery.start_soon(receive)
        assert await pipe(far, far) == 16 * len(data)
    assert got == data * 16


def test_progress_repr() -> None:
    """The repr() of a Progress shows both counts."""
    assert repr(Progress(1, 2)) == "<Progress 1 to right, 2 to left>"
