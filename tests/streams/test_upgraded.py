"""UpgradedStream: Trio's stream contract, the replay, detach()."""

from __future__ import annotations

import gc

import pytest
import trio
import trio.testing

from trio_upgrade import HalfCloseUnsupported, UpgradedStream, pipe
from trio_upgrade.testing import ScriptedPeer

from ..sockets import clogged_tcp_pair, tcp_pair
from ..tls import make_tls_contexts, wrap_tls


def upgraded(pair):
    return UpgradedStream(pair[0]), UpgradedStream(pair[1])


class TestContract:
    """Trio's own checks of a stream, over every kind of transport."""

    async def test_half_closeable_over_tcp(self) -> None:
        """Over TCP it is a half-closeable stream, buffers full or not."""

        async def make():
            return upgraded(await tcp_pair())

        async def make_clogged():
            return upgraded(await clogged_tcp_pair())

        await trio.testing.check_half_closeable_stream(make, make_clogged)

    async def test_half_closeable_over_memory(self) -> None:
        """Over memory streams it is a half-closeable stream."""

        async def make():
            return upgraded(trio.testing.memory_stream_pair())

        await trio.testing.check_half_closeable_stream(make, None)

    async def test_two_way_over_lockstep(self) -> None:
        """Over streams without any buffer it is a two-way stream."""

        async def make():
            return upgraded(trio.testing.lockstep_stream_pair())

        await trio.testing.check_two_way_stream(make, make)

    @pytest.mark.parametrize("https_compatible", [False, True])
    async def test_two_way_over_tls(self, https_compatible: bool) -> None:
        """Over TLS it is a two-way stream, buffers full or not."""
        contexts = make_tls_contexts()

        async def make():
            pair = trio.testing.memory_stream_pair()
            return upgraded(wrap_tls(pair, contexts, https_compatible=https_compatible))

        async def make_clogged():
            pair = trio.testing.lockstep_stream_pair()
            near, far = wrap_tls(pair, contexts, https_compatible=https_compatible)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(near.do_handshake)
                nursery.start_soon(far.do_handshake)
            return upgraded((near, far))

        await trio.testing.check_two_way_stream(make, make_clogged)


class TestReplay:
    """The early bytes come first, once, and completely."""

    @pytest.mark.parametrize("max_bytes", [None, 1, 2, 3, 4, 5, 6, 100])
    async def test_head_then_wire(self, max_bytes: int | None) -> None:
        """Head and wire come in order, whatever ``max_bytes`` is."""
        stream = UpgradedStream(ScriptedPeer(b"wire", b"more"), b"heads")

        got = bytearray()
        while chunk := await stream.receive_some(max_bytes):
            assert max_bytes is None or len(chunk) <= max_bytes
            got += chunk

        assert got == b"headswiremore"
        assert stream.peer_ended

    async def test_head_is_a_snapshot(self) -> None:
        """Reading ``head`` consumes no bytes; it changes only when all was received."""
        stream = UpgradedStream(ScriptedPeer(), b"head")

        assert stream.head == b"head"
        assert await stream.receive_some(2) == b"he"
        assert stream.head == b"head"
        assert await stream.receive_some(1) == b"a"
        assert stream.head == b"head"

    @pytest.mark.ids("F35")
    @pytest.mark.parametrize("ended", [False, True])
    @pytest.mark.parametrize("max_bytes", [None, 1, 3, 4, 5])
    async def test_head_is_let_go(self, max_bytes: int | None, ended: bool) -> None:
        """Once all of it was received, the stream keeps no copy and ``head`` is empty."""
        head = bytes(range(4))
        stream = UpgradedStream(ScriptedPeer(b"wire"), head, ended=ended)
        received = bytearray()
        while len(received) < len(head):
            assert stream.head is head
            received += await stream.receive_some(max_bytes)

        assert received == head
        assert stream.head == b""
        assert head not in gc.get_referents(stream)
        assert await stream.receive_some() == (b"" if ended else b"wire")
        assert stream.peer_ended is ended
        assert stream.received == len(head) + (0 if ended else 4)

    @pytest.mark.ids("F35")
    @pytest.mark.parametrize("read", [0, 1, 4])
    async def test_head_of_a_stream_that_is_over(self, read: int) -> None:
        """After aclose() or detach() ``head`` is empty."""
        streams = [UpgradedStream(ScriptedPeer(), b"head", ended=True) for _ in "ab"]
        for stream in streams:
            if read:
                await stream.receive_some(read)
        await streams[0].aclose()

        assert streams[1].detach()[1] == b"head"[read:]
        assert [stream.head for stream in streams] == [b"", b""]

    @pytest.mark.ids("S33")
    async def test_end_comes_after_the_head_however_late(self, autojump_clock) -> None:
        """The peer's end, read before the switch, comes after the head at every read."""
        stream = UpgradedStream(ScriptedPeer(then="silence"), b"head", ended=True)
        await trio.sleep(3600)  # On the mock clock: the app may read late.

        assert await stream.receive_some() == b"head"
        assert not stream.peer_ended
        assert await stream.receive_some() == b""
        assert await stream.receive_some() == b""
        assert stream.peer_ended

    async def test_every_replay_is_a_checkpoint(self) -> None:
        """Every receive is a checkpoint, also if its bytes are already in memory."""
        stream = UpgradedStream(ScriptedPeer(then="silence"), b"head", ended=True)

        for expected in (b"head", b"", b""):
            with trio.testing.assert_checkpoints():
                assert await stream.receive_some() == expected

    async def test_cancelled_replay_loses_nothing(self) -> None:
        """A cancelled receive has consumed no bytes."""
        stream = UpgradedStream(ScriptedPeer(b"wire"), b"head")
        with trio.CancelScope() as scope:
            scope.cancel()
            await stream.receive_some()

        assert scope.cancelled_caught
        assert await stream.receive_some() == b"head"
        assert await stream.receive_some() == b"wire"

    @pytest.mark.parametrize("max_bytes", [0, -1])
    async def test_max_bytes_must_be_positive(self, max_bytes: int) -> None:
        """The replay refuses the sizes that Trio's streams refuse."""
        stream = UpgradedStream(ScriptedPeer(), b"head")

        with pytest.raises(ValueError, match="max_bytes"):
            await stream.receive_some(max_bytes)
        with pytest.raises(TypeError):
            await stream.receive_some(1.5)  # type: ignore[arg-type]

    async def test_two_readers_conflict(self) -> None:
        """A second task that receives during a replay gets BusyResourceError."""
        stream = UpgradedStream(ScriptedPeer(then="silence"), b"head")

        with pytest.RaisesGroup(trio.BusyResourceError):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.receive_some)
                nursery.start_soon(stream.receive_some)

    async def test_closed_stream_drops_the_head(self) -> None:
        """After aclose() receiving raises, even if the head was not read."""
        stream = UpgradedStream(ScriptedPeer(), b"head", ended=True)
        await stream.aclose()

        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some()

    async def test_closed_while_replaying(self) -> None:
        """A reader that waits in the replay's checkpoint gets ClosedResourceError."""
        for _ in range(30):  # Trio runs the two in either order.
            stream = UpgradedStream(ScriptedPeer(), b"head")

            with pytest.RaisesGroup(trio.ClosedResourceError):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(stream.receive_some)
                    nursery.start_soon(stream.aclose)


class TestTransport:
    """The stream can do what its transport can do."""

    def test_half_closeable_as_its_transport_is(self) -> None:
        """isinstance() and can_send_eof say what the transport can do."""
        contexts = make_tls_contexts()
        near, _ = trio.testing.memory_stream_pair()
        tls, _ = wrap_tls(
            trio.testing.memory_stream_pair(), contexts, https_compatible=True
        )

        assert isinstance(UpgradedStream(near), trio.abc.HalfCloseableStream)
        assert UpgradedStream(near).can_send_eof
        assert not isinstance(UpgradedStream(tls), trio.abc.HalfCloseableStream)
        assert not UpgradedStream(tls).can_send_eof
        assert UpgradedStream(tls).transport is tls

    async def test_send_eof_where_there_is_none(self) -> None:
        """Over TLS send_eof raises; it never silently closes both directions."""
        tls, _ = wrap_tls(
            trio.testing.memory_stream_pair(),
            make_tls_contexts(),
            https_compatible=True,
        )

        with pytest.raises(HalfCloseUnsupported, match="SSLStream"):
            await UpgradedStream(tls).send_eof()

    @pytest.mark.parametrize(
        ("method", "args"),
        [
            ("receive_some", ()),
            ("send_all", (b"x",)),
            ("send_eof", ()),
            ("wait_send_all_might_not_block", ()),
        ],
    )
    async def test_broken_is_noted(self, method: str, args: tuple[bytes, ...]) -> None:
        """Any call that finds the connection broken raises, and sets ``broken``."""

        class Broken(trio.abc.HalfCloseableStream):
            async def fail(self, *_: object) -> None:
                raise trio.BrokenResourceError

            send_all = receive_some = send_eof = fail  # type: ignore[assignment]
            wait_send_all_might_not_block = aclose = fail

        stream = UpgradedStream(Broken())

        assert not stream.broken
        with pytest.raises(trio.BrokenResourceError):
            await getattr(stream, method)(*args)
        assert stream.broken


class TestDetach:
    """detach() returns the transport and the unread bytes."""

    @pytest.mark.parametrize("read", [0, 1, 3, 4])
    async def test_transport_and_unread_head(self, read: int) -> None:
        """The pair is the transport and the unread part of the head."""
        peer = ScriptedPeer(b"wire")
        stream = UpgradedStream(peer, b"head")
        if read:
            assert await stream.receive_some(read) == b"head"[:read]

        transport, head = stream.detach()

        assert transport is peer
        assert head == b"head"[read:]
        assert await transport.receive_some() == b"wire"
        assert stream.detached

    async def test_forgets_the_transport(self) -> None:
        """The stream then counts as closed, and aclose() leaves the transport open."""
        peer = ScriptedPeer(then="silence")
        stream = UpgradedStream(peer, b"head", ended=True)
        stream.detach()

        for call in (
            stream.receive_some,
            stream.send_eof,
            stream.wait_send_all_might_not_block,
        ):
            with pytest.raises(trio.ClosedResourceError, match="detached"):
                await call()
        with pytest.raises(trio.ClosedResourceError, match="detached"):
            await stream.send_all(b"x")
        with pytest.raises(trio.ClosedResourceError, match="detached"):
            stream.detach()
        with pytest.raises(trio.ClosedResourceError, match="detached"):
            _ = stream.transport
        with trio.testing.assert_checkpoints():
            await stream.aclose()
        assert not peer.closed

    async def test_detached_while_replaying(self) -> None:
        """A reader that waits in the replay's checkpoint consumes no byte."""
        for _ in range(30):  # Trio runs the two in either order.
            stream = UpgradedStream(ScriptedPeer(), b"head")
            heads: list[bytes] = []

            async def detach(stream: UpgradedStream, heads: list[bytes]) -> None:
                heads.append(stream.detach()[1])

            with pytest.RaisesGroup(trio.ClosedResourceError):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(stream.receive_some)
                    nursery.start_soon(detach, stream, heads)

            assert heads == [b"head"]

    @pytest.mark.ids("S1")
    async def test_literal_port_of_a_node_handler(self) -> None:
        """``socket.write(head); socket.pipe(socket)`` echoes each byte once."""
        peer = ScriptedPeer(b"wire", b"more")
        stream = UpgradedStream(peer, b"head")

        socket, head = stream.detach()
        await socket.send_all(head)
        await pipe(socket, socket)

        assert peer.sent == b"headwiremore"
        assert peer.got_eof
