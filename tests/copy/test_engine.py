"""The copy engines: one suite for all of them, over every kind of stream.

Each test copies from a source to a sink. Each of these is our end of a connection, and
the test uses the other end as the peer.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import termios
import tracemalloc
from contextlib import suppress
from functools import partial
from types import CoroutineType
from typing import TYPE_CHECKING, NoReturn, cast

import pytest
import trio
import trio.testing

from trio_upgrade import Progress, UpgradedStream, pipe
from trio_upgrade._copy import descriptors, engine
from trio_upgrade._copy.engine import Copier
from trio_upgrade._copy.splice import CAN_SPLICE
from trio_upgrade._streams.resetting import reset_on_close
from trio_upgrade._streams.socket_stream import DirectSocketStream
from trio_upgrade._streams.tls import TLSStream
from trio_upgrade._streams.upgraded import find_underlying
from trio_upgrade.testing import ScriptedPeer

from ..cancelling import CancelAtStep
from ..copying import DIRECT_TLS, OWN_TLS, WAYS, close, make, receive
from ..sockets import clog, direct, tcp_pair
from ..stream_pairs import MAKERS
from ..tls_streams import VERSIONS, clog as clog_tls, new

if TYPE_CHECKING:
    import socket


CHUNK = 65536
MIB = 1024 * 1024

SOCKETS = [kind for kind in MAKERS if "memory" not in kind and "tls" not in kind]
SPLICED = [kind for kind in SOCKETS if "stapled" not in kind]
every_way = pytest.mark.parametrize(("source_kind", "sink_kind"), WAYS)
every_socket = pytest.mark.parametrize("kind", [*SOCKETS, *DIRECT_TLS])


async def send_and_end(stream, *chunks) -> None:
    for chunk in chunks:
        await stream.send_all(chunk)
    await end(stream)


async def end(stream) -> None:
    """End our direction; TLS is closed, which loses no sent bytes."""
    if isinstance(stream, trio.abc.HalfCloseableStream):
        await stream.send_eof()
    elif isinstance(stream, trio.SSLStream):
        with suppress(trio.BrokenResourceError):
            await stream.aclose()


@every_way
async def test_order_count_and_end(source_kind: str, sink_kind: str) -> None:
    """All bytes arrive in order and are counted; then the end arrives."""
    (source, sender), (sink, receiver) = await make(source_kind, sink_kind)
    chunks = [bytes([n % 256]) * (n * 997 % 90_000 + 1) for n in range(60)]
    got, progress = bytearray(), Progress()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_and_end, sender, *chunks)
        nursery.start_soon(receive, receiver, got)
        count = await pipe(source, sink, tls_ends=True, progress=progress)

    assert got == b"".join(chunks)
    assert count == len(got) == progress.left_to_right == progress.bytes
    assert progress.right_to_left == 0
    await close((source, sender), (sink, receiver))


@every_way
async def test_trickle(source_kind: str, sink_kind: str) -> None:
    """Bytes that arrive one by one are passed on one by one."""
    (source, sender), (sink, receiver) = await make(source_kind, sink_kind)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pipe, source, sink)
        for number in range(100):
            await sender.send_all(bytes([number]))
            assert await receiver.receive_some() == bytes([number])
        nursery.cancel_scope.cancel()
    await close((source, sender), (sink, receiver))


async def check_much(source_kind: str, sink_kind: str, mib: int) -> None:
    (source, sender), (sink, receiver) = await make(source_kind, sink_kind)
    block = os.urandom(MIB)
    blocks = 0

    async def check() -> None:
        nonlocal blocks
        got = bytearray()
        while chunk := await receiver.receive_some():
            got += chunk
            while len(got) >= MIB:
                assert got.startswith(block)
                del got[:MIB]
                blocks += 1
        assert not got

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_and_end, sender, *[block] * mib)
        nursery.start_soon(check)
        assert await pipe(source, sink, tls_ends=True) == mib * MIB
    assert blocks == mib
    await close((source, sender), (sink, receiver))


@every_way
async def test_much(source_kind: str, sink_kind: str) -> None:
    """64 MiB arrive between sockets; 4 MiB over streams in Python, which are slow."""
    sockets = source_kind in SOCKETS and sink_kind in SOCKETS
    await check_much(source_kind, sink_kind, 64 if sockets else 4)


@pytest.mark.gigabyte
@every_way
async def test_a_gigabyte(source_kind: str, sink_kind: str) -> None:
    """1 GiB arrives as it was sent."""
    await check_much(source_kind, sink_kind, 1024)


@pytest.mark.ids("P3")
@every_socket
async def test_back_pressure(kind: str) -> None:
    """If the peer does not read, one chunk is in memory and the rest stays unread."""
    (source, sender), (sink, receiver) = await make(kind, kind)
    progress, filled = Progress(), 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(pipe, source, sink, progress=progress))
        while more := await clog_any(sender):
            filled += more
            await trio.testing.wait_all_tasks_blocked()

        assert 0 < progress.bytes < filled
        if kind in DIRECT_TLS:
            # The chunk is in memory as ciphertext, with some bytes more for each record.
            assert 0 < sink.transport.unsent < CHUNK + 1024
        elif "unix" in kind:
            # Not for TCP: the sender has a second queue, and the test cannot find out how
            # much of it has arrived.
            assert 0 < filled - count_queued(source) - progress.bytes <= CHUNK
        nursery.cancel_scope.cancel()
    await close((source, sender), (sink, receiver))


async def clog_any(stream) -> int:
    """Fill a stream until it accepts no more; return the number of bytes sent."""
    below = find_underlying(stream, to_receive=False)
    if isinstance(below, TLSStream):
        return await clog_tls(below)
    return await clog(cast("DirectSocketStream", below))


def find_socket_stream(stream) -> trio.SocketStream | DirectSocketStream:
    below = find_underlying(getattr(stream, "send_stream", stream), to_receive=False)
    assert isinstance(below, trio.SocketStream | DirectSocketStream)
    return below


def count_queued(stream) -> int:
    """Return the number of bytes that the kernel has ready for a stream."""
    fd = find_socket_stream(stream).socket.fileno()
    (count,) = struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))
    return int(count)


async def receive_if_whole(stream, into: bytearray) -> None:
    with suppress(trio.BrokenResourceError):
        await receive(stream, into)


@pytest.mark.parametrize("kind", ["memory", "tls1.3-memory", *SOCKETS, *DIRECT_TLS])
async def test_cancelled_at_every_step(kind: str) -> None:
    """Bytes read before a cancellation were sent and counted; the rest is still there."""
    pieces = [b"one", b"two" * 1000, b"three", b"four" * 30_000, b"five"]
    whole = b"".join(pieces)
    # The generic loop uses Trio's own methods, which may lose the bytes being sent.
    exact = "memory" not in kind and "stapled" not in kind
    for step in range(1, 1000):
        (source, sender), (sink, receiver) = await make(kind, kind)
        progress = Progress()
        got, left = bytearray(), bytearray()

        async def feed(sender=sender) -> None:
            for piece in pieces:
                await trio.testing.wait_all_tasks_blocked()
                await sender.send_all(piece)
            await sender.send_eof()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed)
            nursery.start_soon(receive_if_whole, receiver, got)
            instrument = CancelAtStep(step)
            trio.lowlevel.add_instrument(instrument)
            with instrument.scope:
                await pipe(source, sink, progress=progress)
            trio.lowlevel.remove_instrument(instrument)
            try:
                await sink.send_eof()
            except trio.BrokenResourceError:
                # TLS in which a send was cut is never ended like a whole one.
                assert kind in OWN_TLS
                assert not exact
                await trio.aclose_forcefully(sink)
            await receive(source, left)
        await close((source, sender), (sink, receiver))

        assert whole.startswith(got)
        assert whole.endswith(left)
        assert progress.bytes <= len(got)
        if exact:
            assert got + left == whole, f"cancelled at step {step}"
            assert progress.bytes == len(got)
        if not instrument.scope.cancelled_caught:
            break
    assert got == whole
    assert step > len(pieces)


@pytest.mark.parametrize("kind", SPLICED)
async def test_cancelled_in_the_middle_of_a_chunk(kind: str) -> None:
    """The part of a chunk that was sent is counted, and nothing can follow it."""
    (source, sender), (sink, receiver) = await make(kind, kind)
    filled, progress, got = 0, Progress(), bytearray()
    while more := await clog(find_socket_stream(sink)):
        filled += more
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(pipe, source, sink, progress=progress))
        await sender.send_all(b"x" * CHUNK)
        while not progress.bytes:
            got += await receiver.receive_some(4096)
            await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    await sender.send_eof()
    rest = bytearray()
    await receive(source, rest)
    if progress.bytes < CHUNK - len(rest) and not isinstance(sink, trio.SocketStream):
        for send in (partial(sink.send_all, b"y"), sink.send_eof):
            with pytest.raises(trio.BrokenResourceError, match="send was cut"):
                await send()
    await sink.aclose()
    await receive(receiver, got)

    assert len(got) == filled + progress.bytes
    await close((source, sender), (sink, receiver))


@every_socket
@pytest.mark.parametrize("side", ["source", "sink"])
async def test_reset(kind: str, side: str) -> None:
    """A peer's reset is raised; the copy and the streams know which peer it was."""
    (source, sender), (sink, receiver) = await make(kind, kind)
    copier = Copier(source, sink)
    await sender.send_all(b"x")
    if side == "source":
        # A Unix socket sends a reset if it is closed with unread input.
        await source.send_all(b"unread")
    else:
        await sink.send_all(b"unread")
    peer = sender if side == "source" else receiver
    reset_on_close(peer)
    await trio.aclose_forcefully(peer)

    with pytest.raises(trio.BrokenResourceError):
        await copier.run()
        await sender.send_all(b"y")
        copier = Copier(source, sink)
        await copier.run()
    assert copier.at_sink == (side == "sink")
    if isinstance(source, UpgradedStream):
        assert (source.broken, sink.broken) == (side == "source", side == "sink")
    if kind == "upgraded":
        assert source.transport.broken == source.broken
    await close((source, sender), (sink, receiver))


@pytest.mark.parametrize("kind", ["tcp", "unix", "trio-tcp", "trio-unix", *DIRECT_TLS])
async def test_reset_of_a_full_sink(kind: str) -> None:
    """A copy that waits for a full sink raises its reset, and frees the source."""
    (source, sender), (sink, receiver) = await make(kind, kind)
    await clog_any(sink)
    copier = Copier(source, sink)
    await sender.send_all(b"x" * 1000)
    async with trio.open_nursery() as nursery:

        async def reset() -> None:
            await trio.testing.wait_all_tasks_blocked()
            reset_on_close(receiver)
            await trio.aclose_forcefully(receiver)

        nursery.start_soon(reset)
        with pytest.raises(trio.BrokenResourceError):
            await copier.run()
    assert copier.at_sink
    # The source is not marked as in use: another task may receive.
    await sender.send_all(b"y")
    # TLS was not even read.
    assert (await source.receive_some()).lstrip(b"x") == b"y"
    await close((source, sender), (sink, receiver))


class TestOthersOnTheSameStream:
    """A task that conflicts with a copy gets the same errors as from the methods."""

    @pytest.mark.parametrize("kind", [*SOCKETS, *DIRECT_TLS, "memory"])
    async def test_receiving(self, kind: str) -> None:
        """A copy and a task cannot both receive from the source, in either order."""
        (source, sender), (sink, receiver) = await make(kind, kind)
        for first, second in [(0, 1), (1, 0)]:
            tasks = [partial(pipe, source, sink), source.receive_some]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(tasks[first])
                await trio.testing.wait_all_tasks_blocked()
                with pytest.raises(trio.BusyResourceError):
                    await tasks[second]()
                nursery.cancel_scope.cancel()
        await close((source, sender), (sink, receiver))

    @every_socket
    @pytest.mark.parametrize("room", [False, True], ids=["full", "some room"])
    async def test_sending_before(self, kind: str, room: bool) -> None:
        """A copy never writes into another task's data, be the sink full or not."""
        (source, sender), (sink, receiver) = await make(kind, kind)
        got = bytearray()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sink.send_all, b"a" * 16 * MIB)
            await trio.testing.wait_all_tasks_blocked()
            if room:
                got += await receiver.receive_some(8192)
            await sender.send_all(b"b")
            with pytest.raises(trio.BusyResourceError):
                await pipe(source, sink)
            nursery.cancel_scope.cancel()
        await sink.aclose()
        with suppress(trio.BrokenResourceError):
            await receive(receiver, got)

        assert not got.strip(b"a")
        await close((source, sender), (sink, receiver))

    @every_socket
    async def test_sending_meanwhile(self, kind: str) -> None:
        """A copy that has sent before never writes into another task's data either."""
        (source, sender), (sink, receiver) = await make(kind, kind)
        async with trio.open_nursery() as nursery:

            async def run() -> None:
                with pytest.raises(trio.BusyResourceError):
                    await pipe(source, sink)
                nursery.cancel_scope.cancel()

            nursery.start_soon(run)
            await sender.send_all(b"x")
            assert await receiver.receive_some() == b"x"
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(sink.send_all, b"a" * 16 * MIB)
            await trio.testing.wait_all_tasks_blocked()
            await receiver.receive_some(8192)
            await sender.send_all(b"b")
        await close((source, sender), (sink, receiver))

    @every_socket
    async def test_two_copies_of_one_source(self, kind: str) -> None:
        """The second copy gets BusyResourceError, and the first one goes on."""
        (source, sender), (sink, receiver) = await make(kind, kind)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pipe, source, sink)
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(2):
                with pytest.raises(trio.BusyResourceError):
                    await pipe(source, sink)
            below = find_underlying(source, to_receive=False)
            assert not isinstance(below, DirectSocketStream) or below.receiving
            await sender.send_all(b"x")
            assert await receiver.receive_some() == b"x"
            nursery.cancel_scope.cancel()
        await close((source, sender), (sink, receiver))

    async def test_methods_of_a_subclass(self) -> None:
        """The methods of a user's subclass of a stream are not bypassed."""

        class Loud(UpgradedStream):
            async def receive_some(
                self, max_bytes: int | None = None
            ) -> bytes | bytearray:
                return (await super().receive_some(max_bytes)).upper()

        source, sender = await MAKERS["tcp"]()
        sink, receiver = await MAKERS["tcp"]()
        await sender.send_all(b"quiet")
        await end(sender)
        loud = Loud(source)
        assert await pipe(loud, sink) == 5

        assert await receiver.receive_some() == b"QUIET"
        assert loud.received == 5
        await close((source, sender), (sink, receiver))

    @every_socket
    async def test_sending_after(self, kind: str) -> None:
        """Other tasks may send while the copy waits for data, but not while it sends."""
        (source, sender), (sink, receiver) = await make(kind, kind)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pipe, source, sink)
            await trio.testing.wait_all_tasks_blocked()
            await sink.send_all(b"between")
            assert await receiver.receive_some() == b"between"
            nursery.start_soon(sender.send_all, bytes(16 * MIB))
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await sink.send_all(b"x")
            nursery.cancel_scope.cancel()
        await close((source, sender), (sink, receiver))

    @every_socket
    @pytest.mark.parametrize("when", ["waiting for data", "before there was any"])
    @pytest.mark.parametrize("which", ["source", "sink"])
    async def test_closing(self, kind: str, when: str, which: str) -> None:
        """A stream that another task closes makes the copy raise ClosedResourceError."""
        (source, sender), (sink, receiver) = await make(kind, kind)

        async def run() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await pipe(source, sink)

        async with trio.open_nursery() as nursery:
            if when == "waiting for data":
                nursery.start_soon(run)
                await trio.testing.wait_all_tasks_blocked()
            await (source if which == "source" else sink).aclose()
            if when != "waiting for data":
                nursery.start_soon(run)
            with suppress(trio.BrokenResourceError):
                await sender.send_all(b"x")
        await close((source, sender), (sink, receiver))

    async def test_sink_whose_end_was_sent(self) -> None:
        """A copy to a sink whose direction was ended raises ClosedResourceError."""
        for kind in [*SOCKETS, *DIRECT_TLS]:
            (source, sender), (sink, receiver) = await make(kind, kind)
            await sink.send_eof()
            await sender.send_all(b"x")
            with pytest.raises(trio.ClosedResourceError):
                await pipe(source, sink)
            await close((source, sender), (sink, receiver))


class TestTLS:
    """Our TLS over a kernel socket is copied without a checkpoint for each call."""

    @pytest.mark.parametrize("way", [("tls1.2-tcp", "tcp"), ("tcp", "tls1.3-tcp")])
    async def test_turns(self, way: tuple[str, str]) -> None:
        """The copy reads on at once while chunks are full, or waits for the source."""
        (source, sender), (sink, receiver) = await make(*way)
        copier = Copier(source, sink)
        names = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive, receiver, bytearray())
            nursery.start_soon(sender.send_all, bytes(MIB))
            with trio.CancelScope() as scope:
                while (pause := copier.step()) is not None:
                    assert isinstance(pause, CoroutineType)
                    names.append(pause.__name__)
                    if copier.bytes == MIB and "wait" in names[-1]:
                        scope.cancel()
                    await pause
            copier.stop()
            nursery.cancel_scope.cancel()
        await close((source, sender), (sink, receiver))

        assert copier.bytes == MIB
        assert "checkpoint_if_cancelled" in names
        assert names[-1] in ("wait_readable", "_wait_for_bytes")
        assert "_copy_chunks" not in names

    @pytest.mark.parametrize("kind", DIRECT_TLS)
    async def test_cancelled_with_a_full_sink(self, kind: str) -> None:
        """The sink has taken the whole chunk: nothing is lost, and the end is proper."""
        (source, sender), (sink, receiver) = await make(kind, kind)
        filled, progress, got = 0, Progress(), bytearray()
        while more := await clog_any(sink):
            filled += more
        sent = b"y" * CHUNK
        for chunk in (sent, b"z"):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(pipe, source, sink, progress=progress))
                nursery.start_soon(sender.send_all, chunk)
                if chunk is sent:
                    while not progress.bytes:
                        got += await receiver.receive_some(4096)
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive, receiver, got)
            nursery.start_soon(end, sender)
            await pipe(source, sink, tls_ends=True, progress=progress)

        assert got == b"x" * filled + sent + b"z"
        assert progress.bytes == CHUNK + 1
        await close((source, sender), (sink, receiver))

    @pytest.mark.parametrize("kind", DIRECT_TLS)
    async def test_cancelled_again_and_again(self, kind: str) -> None:
        """However many copies are cancelled, one chunk is in memory."""
        (source, sender), (sink, receiver) = await make("tcp", kind)
        while await clog_any(sink):
            pass
        for _ in range(3):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pipe, source, sink)
                await sender.send_all(bytes(CHUNK // 2))
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
            assert 0 < sink.transport.unsent < CHUNK + 1024
        await close((source, sender), (sink, receiver))

    @pytest.mark.parametrize("version", VERSIONS)
    @pytest.mark.parametrize("which", ["source", "sink", "both", "echo"])
    async def test_handshake_first(self, version: str, which: str) -> None:
        """A copy makes the handshake that is missing, and then makes its turns."""
        source, sender = await (MAKERS["tcp"]() if which == "sink" else new(version))
        if which == "echo":
            sink, receiver = source, sender
        else:
            plain = which == "source"
            sink, receiver = await (MAKERS["tcp"]() if plain else new(version))
        got = bytearray()
        copier = Copier(source, sink)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive, receiver, got)
            nursery.start_soon(send_and_end, sender, b"one")
            await copier.run()
            await copier.pass_end(tls_ends=True)

        assert got == b"one"
        assert copier._tls_pair is not None
        assert copier._tls_pair[0] is source
        await close((source, sender), (sink, receiver))

    @pytest.mark.parametrize("version", VERSIONS)
    async def test_cancelled_in_the_handshake(self, version: str) -> None:
        """Nothing is read before the handshakes are over, so nothing is lost."""
        (source, sender), (sink, receiver) = await MAKERS["tcp"](), await new(version)
        await send_and_end(sender, b"one")
        with trio.move_on_after(0.05) as scope:
            await pipe(source, sink)
        assert scope.cancelled_caught
        got = bytearray()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive, receiver, got)
            assert await pipe(source, sink, tls_ends=True) == 3
        assert got == b"one"
        await close((source, sender), (sink, receiver))

    async def test_over_other_streams(self) -> None:
        """TLS over a stream that is no kernel socket is copied by its methods."""
        for way in [("tls1.3-memory", "tcp"), ("tcp", "tls1.3-memory")]:
            (source, sender), (sink, receiver) = await make(*way)
            await send_and_end(sender, b"x")
            copier = Copier(source, sink)
            await copier.run()
            assert copier._tls_pair is None
            await close((source, sender), (sink, receiver))

    async def test_reset_of_a_plain_sink(self) -> None:
        """A socket that was reset raises, beside TLS too."""
        (source, sender), (sink, receiver) = await make("tls1.3-tcp", "tcp")
        reset_on_close(receiver)
        await receiver.aclose()
        await sender.send_all(b"x")
        copier = Copier(source, sink)
        with pytest.raises(trio.BrokenResourceError):
            await copier.run()
        assert copier.at_sink
        await close((source, sender), (sink, receiver))

    async def test_reset_of_a_plain_source(self) -> None:
        """The same for a source, which is no longer in use then."""
        (source, sender), (sink, receiver) = await make("tcp", "tls1.3-tcp")
        reset_on_close(sender)
        await sender.aclose()
        copier = Copier(source, sink)
        with pytest.raises(trio.BrokenResourceError):
            await copier.run()
        assert not copier.at_sink
        assert not source.receiving
        await close((source, sender), (sink, receiver))

    async def test_slow_reader(self, autojump_clock) -> None:
        """A full plain sink gets the rest of the chunk later."""
        (source, sender), (sink, receiver) = await make("tls1.3-tcp", "unix")
        filled, got = 0, bytearray()
        while more := await clog_any(sink):
            filled += more
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pipe, source, sink)
            await send_and_end(sender, b"y" * CHUNK)
            while len(got) < filled + CHUNK:
                await trio.sleep(1)
                got += await receiver.receive_some(50_000)
        assert got == b"x" * filled + b"y" * CHUNK
        await close((source, sender), (sink, receiver))


class TestReplay:
    """A head is sent first, by the methods of its stream; then the socket is used."""

    @pytest.mark.parametrize("echo", [False, True])
    async def test_heads(self, echo: bool) -> None:
        """The heads of nested streams come before the wire, and the end is recorded."""
        ours, peer = direct(await tcp_pair())
        source = UpgradedStream(UpgradedStream(ours, b"inner "), b"outer ")
        script, got = ScriptedPeer(), bytearray()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_and_end, peer, b"wire")
            assert await pipe(source, source if echo else script) == 16
        if echo:
            await receive(peer, got)
        assert got + script.sent == b"outer inner wire"
        assert source.received == len(b"outer inner wire")
        assert source.sent == len(got)
        assert source.peer_ended
        await close((source, peer))

    async def test_end_that_came_with_the_head(self) -> None:
        """An end of stream that was read with the head ends the copy."""
        ours, peer = direct(await tcp_pair())
        source = UpgradedStream(ours, b"head", ended=True)

        assert await pipe(source, source) == 4
        assert await peer.receive_some() == b"head"
        await close((source, peer))


@pytest.mark.skipif(not CAN_SPLICE, reason="needs splice(2)")
class TestSplice:
    """Bulk data goes through a kernel pipe, with the same results."""

    @pytest.mark.parametrize("kind", SPLICED)
    async def test_cancelled_at_every_step(self, kind: str, monkeypatch) -> None:
        """A cancellation loses at most one chunk, and leaves no descriptor open."""
        monkeypatch.setattr(engine, "_SPLICE_AFTER", 1)
        whole = os.urandom(CHUNK * 12)
        for step in range(1, 1000):
            (source, sender), (sink, receiver) = await make(kind, kind)
            progress, got, left = Progress(), bytearray(), bytearray()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send_and_end, sender, whole)
                nursery.start_soon(receive, receiver, got)
                instrument = CancelAtStep(step)
                trio.lowlevel.add_instrument(instrument)
                before = count_descriptors()
                with instrument.scope:
                    await pipe(source, sink, progress=progress)
                assert count_descriptors() == before
                trio.lowlevel.remove_instrument(instrument)
                await sink.send_eof()
                await receive(source, left)
            await close((source, sender), (sink, receiver))

            assert progress.bytes == len(got)
            assert whole.startswith(got)
            assert whole.endswith(left)
            assert len(whole) - len(got) - len(left) <= CHUNK
            if not instrument.scope.cancelled_caught:
                break
        assert got == whole
        assert step > 3

    @pytest.mark.parametrize("kind", SPLICED)
    async def test_pipe_is_held_only_while_it_flows(
        self, kind: str, monkeypatch
    ) -> None:
        """The two descriptors are closed when the source is silent again."""
        monkeypatch.setattr(engine, "_SPLICE_AFTER", 1)
        (source, sender), (sink, receiver) = await make(kind, kind)
        before, most, got = count_descriptors(), 0, 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pipe, source, sink)
            nursery.start_soon(sender.send_all, bytes(8 * MIB))
            while got < 8 * MIB:
                got += len(await receiver.receive_some())
                most = max(most, count_descriptors())
            await trio.testing.wait_all_tasks_blocked()

            assert count_descriptors() == before < most
            nursery.cancel_scope.cancel()
        await close((source, sender), (sink, receiver))

    @pytest.mark.parametrize(
        ("function", "error"), [("pipe2", errno.EMFILE), ("splice", errno.EINVAL)]
    )
    async def test_done_without(self, function: str, error: int, monkeypatch) -> None:
        """If no pipe can be opened, or a socket cannot be spliced, the copy reads."""
        calls = []

        def refuse(*args: int, **kwargs: int) -> NoReturn:
            calls.append(args)
            raise OSError(error, "scripted")

        monkeypatch.setattr(engine, "_SPLICE_AFTER", 1)
        monkeypatch.setattr(os, function, refuse)
        before = count_descriptors()
        await check_much("tcp", "tcp", 8)

        assert calls
        assert count_descriptors() == before

    @pytest.mark.parametrize("kind", ["tcp", "trio-tcp", "upgraded"])
    @pytest.mark.parametrize("side", ["source", "sink"])
    async def test_reset(self, kind: str, side: str, monkeypatch) -> None:
        """A reset during splicing is raised, and the copy knows which peer it was."""
        monkeypatch.setattr(engine, "_SPLICE_AFTER", 1)
        (source, sender), (sink, receiver) = await make(kind, kind)
        copier = Copier(source, sink)
        peer = sender if side == "source" else receiver

        async def flow() -> None:
            with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
                while True:
                    await sender.send_all(bytes(MIB))

        async def drain() -> None:
            got = 0
            while got < 8 * MIB:
                got += len(await receiver.receive_some())
            reset_on_close(peer)
            await peer.aclose()
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await receive(receiver, bytearray())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flow)
            nursery.start_soon(drain)
            with pytest.raises(trio.BrokenResourceError):
                await copier.run()
            await close((source, sender), (sink, receiver))
        assert copier.at_sink == (side == "sink")


def count_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class Endless:
    """Replaces a socket: a file that never blocks."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDWR)
        self.calls = 0
        self.on_call = lambda calls: None

    def fileno(self) -> int:
        self.calls += 1
        self.on_call(self.calls)
        return self._fd

    def close(self) -> None:
        os.close(self._fd)


def endless(path: str) -> tuple[DirectSocketStream, Endless]:
    file = Endless(path)
    return DirectSocketStream(cast("socket.socket", file)), file


class FullAtFirst:
    """Replaces a sink: full until the second wait for it."""

    def __init__(self, room: Endless) -> None:
        self.waits = 0
        self._room = room
        self._pipe = os.pipe2(os.O_NONBLOCK)
        with suppress(BlockingIOError):
            while True:
                os.write(self._pipe[1], bytes(CHUNK))

    def fileno(self) -> int:
        return self._room.fileno() if self.waits > 1 else self._pipe[1]

    def check_sendable(self) -> None:
        pass

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()
        self.waits += 1

    def close(self) -> None:
        for descriptor in self._pipe:
            os.close(descriptor)


class Meter(trio.abc.Instrument):
    """Measures the longest step of a task, in bytes and in turns."""

    def __init__(self, progress: Progress, file: Endless) -> None:
        self.most = (0, 0)
        self.steps = 0
        self._before = (0, 0)
        self._progress = progress
        self._file = file
        self._task = trio.lowlevel.current_task()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._before = (self._progress.bytes, self._file.calls)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self.steps += 1
            moved = self._progress.bytes - self._before[0]
            self.most = max(self.most, (moved, self._file.calls - self._before[1]))


class TestBudget:
    """Between two checkpoints an engine keeps to its budget."""

    async def test_turns_and_bytes(self) -> None:
        """The budget is eight turns and 512 KiB if neither side has to wait."""
        (source, zeros), (sink, null) = endless("/dev/zero"), endless("/dev/null")
        progress = Progress()
        meter = Meter(progress, zeros)
        zeros.on_call = lambda calls: scope.cancel() if calls == 1000 else None
        trio.lowlevel.add_instrument(meter)
        with trio.CancelScope() as scope:
            await pipe(source, sink, progress=progress)
        trio.lowlevel.remove_instrument(meter)

        assert meter.most == (8 * CHUNK, 8)
        assert 1000 // 8 <= meter.steps < 1000 // 8 + 8
        zeros.close()
        null.close()

    async def test_rest_of_a_chunk_counts(self) -> None:
        """A chunk that had to wait for the sink counts for the budget."""
        (source, zeros), (_, null) = endless("/dev/zero"), endless("/dev/null")
        progress = Progress()
        meter = Meter(progress, zeros)
        sink = FullAtFirst(null)
        zeros.on_call = lambda calls: scope.cancel() if calls == 100 else None
        trio.lowlevel.add_instrument(meter)
        with trio.CancelScope() as scope:
            copier = Copier(source, source, progress)
            first = copier.step()
            assert first is not None
            await first
            copier._sink_fd = cast("DirectSocketStream", sink)
            await copier.run()
        trio.lowlevel.remove_instrument(meter)

        assert sink.waits == 2
        assert meter.most[0] == 8 * CHUNK
        sink.close()
        zeros.close()
        null.close()

    async def test_cancelled_between_turns(self) -> None:
        """After a cancellation in the middle of its budget a copy makes no more turns."""
        (source, zeros), (sink, null) = endless("/dev/zero"), endless("/dev/null")
        zeros.on_call = lambda calls: scope.cancel() if calls == 3 else None
        progress = Progress()
        with trio.CancelScope() as scope:
            await pipe(source, sink, progress=progress)

        assert progress.bytes == 3 * CHUNK
        zeros.close()
        null.close()

    async def test_short_messages(self) -> None:
        """After short turns the copy reads on at once, within its budget, or waits."""
        near, far = direct(await tcp_pair())
        copier = Copier(near, near)

        async def step(message: bytes = b"") -> str:
            await far.send_all(message)
            pause = copier.step()
            assert isinstance(pause, CoroutineType)
            with trio.move_on_after(0):
                await pause
            return pause.__name__

        async def turns(count: int) -> str:
            names = [await step(b"x") for _ in range(count)]
            marks = {"checkpoint": "|", "checkpoint_if_cancelled": "."}
            return "".join(marks[name] for name in names)

        async def fail() -> None:
            # The turn before the attempt, and the attempt.
            assert await turns(1) == "."
            assert await step() == "wait_readable"

        await step()
        assert await turns(16) == "|" * 16
        assert await turns(24) == ".......|" * 3
        await fail()
        # The next attempt comes soon after a success, and ever later after failures.
        for patience in (1, 2, 4, 8, 16, 32, 64, 128, 256, 256):
            assert await turns(patience) == "|" * patience
            await fail()
        assert await turns(256) == "|" * 256
        assert await turns(2) == ".."
        assert await step() == "wait_readable"
        assert await turns(2) == "|."
        copier.stop()
        await close((near, far))

    @every_way
    async def test_others_get_their_turn(
        self, source_kind: str, sink_kind: str
    ) -> None:
        """No step of a real copy exceeds the budget, over any kind of stream."""
        (source, sender), (sink, receiver) = await make(source_kind, sink_kind)
        progress = Progress()
        meter = Meter(progress, Endless(os.devnull))
        trio.lowlevel.add_instrument(meter)
        async with trio.open_nursery() as nursery:
            mib = 8 if source_kind in SOCKETS else 2
            nursery.start_soon(send_and_end, sender, bytes(mib * MIB))
            nursery.start_soon(receive, receiver, bytearray())
            await pipe(source, sink, tls_ends=True, progress=progress)
        trio.lowlevel.remove_instrument(meter)
        meter._file.close()

        assert 0 < meter.most[0] <= (8 * CHUNK if source_kind in SOCKETS else 2 * MIB)
        await close((source, sender), (sink, receiver))


@every_socket
async def test_idle_copy_holds_no_buffer(kind: str) -> None:
    """While the source is silent, the copy keeps none of the bytes."""
    (source, sender), (sink, receiver) = await make(kind, kind)
    tracemalloc.start()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pipe, source, sink)
        await sender.send_all(bytes(CHUNK))
        left = CHUNK
        while left:
            left -= len(await receiver.receive_some(left))
        await trio.testing.wait_all_tasks_blocked()
        snapshot = tracemalloc.take_snapshot()
        nursery.cancel_scope.cancel()
    tracemalloc.stop()

    largest = max(snapshot.traces, key=lambda trace: trace.size)
    assert largest.size < CHUNK // 2, largest
    await close((source, sender), (sink, receiver))


async def test_without_descriptors(monkeypatch) -> None:
    """If a socket is no file descriptor, the methods of the stream are used."""
    monkeypatch.setattr(descriptors, "_SOCKETS_ARE_FILES", False)
    for kind in SOCKETS:
        await check_much(kind, kind, 1)


async def test_trio_send_all_checks_before_its_first_checkpoint() -> None:
    """Up to its first checkpoint, Trio's send_all(b"") makes all its checks and no more.

    TrioDescriptor.check_sendable() relies on that, and that close() then frees Trio's
    guard. If this fails on a new Trio, it needs another way to ask for that guard.
    """

    def probe(stream: trio.SocketStream) -> None:
        coroutine = stream.send_all(b"")
        try:
            coroutine.send(None)  # StopIteration: it had no checkpoint.
        finally:
            coroutine.close()

    def statistics() -> tuple[object, ...]:
        now = trio.lowlevel.current_statistics()
        # The repr(), because Trio's objects compare by identity.
        return now.tasks_living, now.tasks_runnable, repr(now.io_statistics)

    near, far = await tcp_pair()
    before = statistics()
    for _ in range(2):  # The second one would meet a guard that was not freed.
        probe(near)
    assert statistics() == before
    with trio.CancelScope() as scope:
        scope.cancel()
        probe(near)
        await trio.lowlevel.checkpoint()
    await near.send_all(b"x")
    assert await far.receive_some() == b"x"

    await clog(near)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(near.send_all, b"y")
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(2):  # The first one must not free the other task's guard.
            with pytest.raises(trio.BusyResourceError):
                probe(near)
        nursery.cancel_scope.cancel()
    probe(near)

    await near.send_eof()
    with pytest.raises(trio.ClosedResourceError):
        probe(near)
    await far.aclose()
    with pytest.raises(trio.ClosedResourceError):
        probe(far)
    await near.aclose()
