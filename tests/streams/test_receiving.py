"""receive_exactly() and receive_until(): nothing is lost, however they end."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_upgrade import (
    EndOfStream,
    TooLong,
    TrioUpgradeError,
    UpgradedStream,
    pipe,
    relay,
)
from trio_upgrade.testing import ScriptedPeer, split_points

from ..sockets import direct, tcp_pair
from ..stream_pairs import MAKERS
from ..tls import make_tls_contexts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    Receive = Callable[[UpgradedStream], Awaitable[object]]

WIRE = b"one\r\ntwo\r\nrest"
# Each as it is called where it can never succeed in reading "half".
EXACTLY: Receive = lambda stream: stream.receive_exactly(100)  # noqa: E731
UNTIL: Receive = lambda stream: stream.receive_until(b"\r\n", 100)  # noqa: E731
BOTH = pytest.mark.parametrize("receive", [EXACTLY, UNTIL], ids=["exactly", "until"])


def each_cut(wire: bytes, then: str = "end") -> Iterator[UpgradedStream]:
    """Yield streams with the wire in every packets, and with every part of it as head."""
    for packets in split_points(wire):
        for early in (0, 1, len(packets)):
            head = b"".join(packets[:early])
            peer = ScriptedPeer(*packets[early:], then=then)  # type: ignore[arg-type]
            yield UpgradedStream(peer, head)


async def read_rest(stream: trio.abc.ReceiveStream) -> bytes:
    return b"".join([bytes(chunk) async for chunk in stream])


async def test_lines_then_bytes() -> None:
    """Each call returns its bytes, whatever the packets are; the rest stays."""
    for stream in each_cut(WIRE):
        first = await stream.receive_until(b"\r\n", 10)
        assert type(first) is bytes
        assert first == b"one\r\n"
        assert stream.received == 5
        assert await stream.receive_exactly(3) == b"two"
        assert await stream.receive_until(b"\r\n", 2) == b"\r\n"
        assert await stream.receive_exactly(0) == b""
        assert await stream.receive_some(1) == b"r"
        assert await read_rest(stream) == b"est"
        assert stream.received == len(WIRE)
        assert stream.peer_ended


async def test_exactly_reads_no_further() -> None:
    """receive_exactly leaves later bytes to the transport."""
    peer = ScriptedPeer(b"abcdef")
    stream = UpgradedStream(peer, b"x")

    assert await stream.receive_exactly(3) == b"xab"
    assert stream.head == b""
    assert await peer.receive_some() == b"cdef"


async def test_long() -> None:
    """More than one chunk is received in pieces of 64 KiB, and put together."""
    near, far = direct(await tcp_pair())
    data = bytes(range(256)) * 1000
    async with far, trio.open_nursery() as nursery:
        nursery.start_soon(far.send_all, data + b"\n" + data)
        stream = UpgradedStream(near)
        assert await stream.receive_exactly(len(data)) == data
        assert await stream.receive_until(b"\n", 1) == b"\n"
        assert await stream.receive_exactly(len(data)) == data
        await stream.aclose()


@BOTH
async def test_end_of_stream(receive: Receive) -> None:
    """At the end all bytes are again the next to be read, then the end."""
    for wire in (b"", b"h", b"half"):
        for stream in each_cut(wire):
            for _ in range(2):
                with pytest.raises(EndOfStream) as caught:
                    await receive(stream)

                assert caught.value.available == len(wire)
                assert isinstance(caught.value, (TrioUpgradeError, EOFError))
            assert stream.peer_ended
            assert stream.received == 0
            assert await read_rest(stream) == wire
            assert await read_rest(stream) == b""
            assert stream.received == len(wire)


async def test_messages() -> None:
    """The errors say what was wanted and how many bytes there were."""
    stream = UpgradedStream(ScriptedPeer(b"abc"))

    with pytest.raises(EndOfStream, match="before 5 bytes, after 3 bytes"):
        await stream.receive_exactly(5)
    with pytest.raises(EndOfStream, match=r"before b'\\n', after 3 bytes"):
        await stream.receive_until(b"\n", 9)
    with pytest.raises(TooLong, match=r"b'\\n' did not come within 2 bytes") as caught:
        await stream.receive_until(b"\n", 2)
    assert caught.value.limit == 2


async def test_too_long() -> None:
    """The separator has to end within the limit; the bytes are read again."""
    for stream in each_cut(b"12345\r\n67"):
        for limit in (2, 5, 6):
            with pytest.raises(TooLong):
                await stream.receive_until(b"\r\n", limit)
        assert await stream.receive_until(b"\r\n", 7) == b"12345\r\n"
        assert await read_rest(stream) == b"67"


@BOTH
async def test_reset(receive: Receive) -> None:
    """What came before a reset can still be read; then the stream is broken."""
    for stream in each_cut(b"half", "reset"):
        with pytest.raises(trio.BrokenResourceError):
            await receive(stream)

        assert stream.broken
        got = bytearray()
        with pytest.raises(trio.BrokenResourceError):
            while True:
                got += await stream.receive_some(3)
        assert got == b"half"


@BOTH
@pytest.mark.parametrize("head", [b"", b"ha"])
async def test_cancelled(receive: Receive, head: bytes) -> None:
    """A cancelled call has received nothing, at whichever packet it is cancelled."""
    peer = ScriptedPeer(b"half"[len(head) :], then="silence")
    stream = UpgradedStream(peer, head)
    for packet in (b"", b"-", b"way"):
        peer.feed(packet)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive, stream)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert stream.head == head

    peer.finish()
    assert await stream.receive_exactly(4) == b"half"
    assert stream.head == b""
    assert await read_rest(stream) == b"-way"


@pytest.mark.parametrize("size", [0, 3])
async def test_checkpoint(size: int) -> None:
    """A call is a checkpoint also if it needs no byte of the transport."""
    stream = UpgradedStream(ScriptedPeer(), b"ab\n")

    with trio.testing.assert_checkpoints():
        assert len(await stream.receive_exactly(size)) == size
    stream = UpgradedStream(ScriptedPeer(), b"ab\n")
    with trio.testing.assert_checkpoints():
        assert await stream.receive_until(b"\n", 3) == b"ab\n"
    with trio.CancelScope() as scope:
        scope.cancel()
        await stream.receive_exactly(0)
    assert scope.cancelled_caught


@BOTH
@pytest.mark.parametrize("head", [b"", b"x"])
async def test_busy(receive: Receive, head: bytes) -> None:
    """While one task receives, every other way to receive is refused."""
    other, far = direct(await tcp_pair())
    near, peer = await MAKERS["trio-tcp"]()
    stream = UpgradedStream(near, head)
    ways: list[Receive] = [
        EXACTLY,
        UNTIL,
        lambda stream: stream.receive_some(),
        lambda stream: pipe(stream, other),
    ]
    async with far, other, peer, stream, trio.open_nursery() as nursery:
        nursery.start_soon(receive, stream)
        await trio.testing.wait_all_tasks_blocked()
        for way in ways:
            with pytest.raises(trio.BusyResourceError):
                await way(stream)
        nursery.cancel_scope.cancel()


@BOTH
async def test_busy_the_other_way(receive: Receive) -> None:
    """While another task receives or copies, these methods are refused."""
    near, far = direct(await tcp_pair())
    other, sink = direct(await tcp_pair())
    stream = UpgradedStream(near)
    async with far, near, other, sink:
        for start in (stream.receive_some, lambda: pipe(stream, sink)):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(start)
                await trio.testing.wait_all_tasks_blocked()
                with pytest.raises(trio.BusyResourceError):
                    await receive(stream)
                nursery.cancel_scope.cancel()


@BOTH
@pytest.mark.parametrize("head", [b"", b"head\r\n" * 20])
@pytest.mark.parametrize("way", ["aclose", "reset", "detach"])
async def test_closed_meanwhile(receive: Receive, head: bytes, way: str) -> None:
    """A stream that another task closes raises ClosedResourceError and keeps nothing."""
    peer = ScriptedPeer(b"x", then="silence")
    stream = UpgradedStream(peer, head)

    async def close() -> None:
        if not head:
            await trio.testing.wait_all_tasks_blocked()
        if way == "detach":
            stream.detach()
            peer.feed(b"late")
        else:
            await getattr(stream, way)()

    # Trio runs the two in either order. A receive of early bytes is at its checkpoint.
    with pytest.RaisesGroup(trio.ClosedResourceError):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(close)
            nursery.start_soon(receive, stream)
    assert stream.head == b""
    with pytest.raises(trio.ClosedResourceError):
        await stream.receive_some()


class TestAfterwards:
    """Bytes that were received too far, or given back, reach the next reader."""

    async def given_back(self, near: Any, far: Any) -> UpgradedStream:
        stream = UpgradedStream(near, b"head")
        await far.send_all(b"two\nthree")
        assert await stream.receive_until(b"\n", 99) == b"headtwo\n"
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.receive_exactly, 99)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        return stream

    @pytest.mark.parametrize("maker", MAKERS)
    async def test_copies(self, maker: str) -> None:
        """Copies begin with them, whatever the streams are."""
        for both in (False, True):
            near, far = await MAKERS[maker]()
            sink, receiver = direct(await tcp_pair())
            stream = await self.given_back(near, far)
            async with near, far, sink, receiver, trio.open_nursery() as nursery:
                copy: Any = relay if both else pipe
                nursery.start_soon(copy, stream, sink)
                got = bytearray()
                while got != b"three":
                    got += await receiver.receive_some()
                await far.send_all(b"four")
                assert await receiver.receive_some() == b"four"
                nursery.cancel_scope.cancel()
            assert stream.received == len(b"headtwo\nthreefour")

    async def test_detach(self) -> None:
        """detach() returns them."""
        near, far = direct(await tcp_pair())
        stream = await self.given_back(near, far)

        transport, unread = stream.detach()

        assert type(unread) is bytes
        assert (transport, unread) == (near, b"three")
        await near.aclose()
        await far.aclose()

    async def test_start_tls(self) -> None:
        """TLS begins with them: a line may come in one packet with the handshake."""
        near, far = direct(await tcp_pair())
        client_context, server_context = make_tls_contexts()
        stream = UpgradedStream(near)
        outgoing, incoming = ssl.MemoryBIO(), ssl.MemoryBIO()
        hello = client_context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            hello.do_handshake()
        await far.send_all(b"ready\n" + outgoing.read())
        assert await stream.receive_until(b"\n", 99) == b"ready\n"

        async with trio.open_nursery() as nursery:

            async def shake() -> None:
                while True:
                    incoming.write(await far.receive_some())
                    try:
                        hello.do_handshake()
                    except ssl.SSLWantReadError:
                        continue
                    finally:
                        if data := outgoing.read():
                            await far.send_all(data)
                    return

            nursery.start_soon(shake)
            tls = await stream.start_tls(server_context, server_side=True)
        hello.write(b"secret")
        await far.send_all(outgoing.read())
        assert await tls.receive_exactly(6) == b"secret"
        await trio.aclose_forcefully(tls)
        await far.aclose()

    async def test_end_that_was_read_early(self) -> None:
        """An end that came with the head is met after the head."""
        stream = UpgradedStream(ScriptedPeer(b"never"), b"line\nrest", ended=True)

        assert await stream.receive_until(b"\n", 9) == b"line\n"
        with pytest.raises(EndOfStream):
            await stream.receive_exactly(5)
        assert await read_rest(stream) == b"rest"
        with trio.testing.assert_checkpoints(), pytest.raises(EndOfStream):
            await stream.receive_exactly(1)


async def test_each_byte_is_searched_once() -> None:
    """A line that comes byte by byte takes time in proportion to its length."""
    size = 20_000
    line = b"x" * size + b"\n"
    peer = ScriptedPeer(*(line[i : i + 1] for i in range(len(line))))
    stream = UpgradedStream(peer)
    starts: list[int] = []

    class Spy(bytearray):
        def find(self, separator, start=0, stop=None):
            starts.append(len(self) - start)
            return super().find(separator, start, stop)

    # As if two bytes had been given back.
    stream._unread, stream._position = Spy(b"xx"), 0

    assert len(await stream.receive_until(b"\n", size + 3)) == size + 3
    assert sum(starts) == size + 3


async def test_arguments() -> None:
    """Mistakes in the call raise at once, and change nothing."""
    stream = UpgradedStream(ScriptedPeer(), b"abc")
    wrong: Any = "\n"

    with pytest.raises(ValueError, match="size must not be negative, not -1"):
        await stream.receive_exactly(-1)
    with pytest.raises(TypeError):
        await stream.receive_exactly(1.5)  # type: ignore[arg-type]
    for separator, limit in ((b"", 5), (b"\r\n", 1)):
        with pytest.raises(ValueError, match=f"1 to {limit} bytes"):
            await stream.receive_until(separator, limit)
    with pytest.raises(TypeError):
        await stream.receive_until(wrong, 5)
    assert await stream.receive_exactly(3) == b"abc"
