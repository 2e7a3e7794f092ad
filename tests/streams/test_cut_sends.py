"""After a send that was cut nothing can follow, on any kind of stream.

The next bytes would land after half a message, and the peer could not tell.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from trio_upgrade import (
    Progress,
    Upgrade,
    UpgradedStream,
    open_upgrade,
    pipe,
    serve_stream,
    stream_scope,
)
from trio_upgrade.testing import ScriptedPeer

from ..sockets import clog, clogged_tcp_pair, direct, tcp_pair, unix_pair
from ..tls import make_tls_contexts, tls_pair
from ..tls_streams import opened, receive_all
from ..wire import SWITCHED, UP
from ..wrapper import Wrapper, turn

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio_upgrade import Request

    from ..sockets import Pair

# More than the buffers of two sockets take.
MUCH = b"x" * 32 * 2**20


def upgrade(pair: Pair) -> Pair:
    return UpgradedStream(pair[0]), pair[1]


async def _make_tcp() -> Pair:
    return direct(await tcp_pair())


async def _make_unix() -> Pair:
    return direct(await unix_pair())


async def _make_upgraded() -> Pair:
    return upgrade(upgrade(direct(await tcp_pair())))


async def _make_our_tls() -> Pair:
    return await opened()


async def _make_upgraded_tls() -> Pair:
    return upgrade(await opened())


async def _make_upgraded_trio_tcp() -> Pair:
    return upgrade(await tcp_pair())


async def _make_upgraded_lockstep() -> Pair:
    return upgrade(trio.testing.lockstep_stream_pair())


async def _make_upgraded_trio_tls() -> Pair:
    return upgrade(await tls_pair(await tcp_pair()))


MAKERS: dict[str, Callable[[], Awaitable[Pair]]] = {
    "tcp": _make_tcp,
    "unix": _make_unix,
    "upgraded": _make_upgraded,
    "tls": _make_our_tls,
    "upgraded-tls": _make_upgraded_tls,
    "trio-tcp": _make_upgraded_trio_tcp,
    "lockstep": _make_upgraded_lockstep,
    "trio-tls": _make_upgraded_trio_tls,
}
every_kind = pytest.mark.parametrize("kind", MAKERS)
# Not those whose receive fails after a send that was cut: trio.SSLStream is broken then.
RECEIVING = [kind for kind in MAKERS if kind != "trio-tls"]


async def cut_send(stream: trio.abc.SendStream, data: bytes = MUCH) -> None:
    """Send, and cancel that when a part was sent."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, data)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def close(*streams: trio.abc.AsyncResource) -> None:
    for stream in streams:
        await trio.aclose_forcefully(stream)


@every_kind
async def test_nothing_follows(kind: str) -> None:
    """Every later send fails, however short, and so does the end of our direction."""
    near, far = await MAKERS[kind]()
    await cut_send(near)

    calls: list[Callable[[], Awaitable[None]]] = [
        partial(near.send_all, data) for data in (b"y", b"", b"y")
    ]
    if isinstance(near, trio.abc.HalfCloseableStream):
        calls.append(near.send_eof)
    for call in calls:
        with pytest.raises(trio.BrokenResourceError):
            await call()
    await close(near, far)


@pytest.mark.parametrize("kind", RECEIVING)
async def test_receiving_goes_on(kind: str) -> None:
    """The peer's direction is not touched."""
    near, far = await MAKERS[kind]()
    await cut_send(near)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(far.send_all, b"read")
        assert await near.receive_some() == b"read"
    await close(near, far)


@every_kind
async def test_cancelled_before_the_first_byte(kind: str) -> None:
    """A send of a task that is cancelled already has sent nothing, and cuts nothing."""
    near, far = await MAKERS[kind]()
    with trio.CancelScope() as scope:
        scope.cancel()
        await near.send_all(b"never")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(near.send_all, b"y")
        assert await far.receive_some() == b"y"
    await close(near, far)


async def test_cancelled_in_front_of_a_full_socket() -> None:
    """A send that waits for its first byte to leave can be cancelled and repeated."""
    near, far = direct(await clogged_tcp_pair())
    await cut_send(near, b"y")

    got = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(near.send_all, b"y")
        while not got.endswith(b"y"):
            got += await far.receive_some()
    assert got.count(b"y") == 1
    await close(near, far)


@every_kind
async def test_closed(kind: str) -> None:
    """A stream that was closed says so, also after a send that was cut."""
    near, far = await MAKERS[kind]()
    await cut_send(near)
    await trio.aclose_forcefully(near)

    with pytest.raises(trio.ClosedResourceError):
        await near.send_all(b"y")
    await close(far)


async def test_reset_after_a_cut() -> None:
    """reset() makes it a closed stream as well."""
    near, far = await _make_upgraded_trio_tcp()
    await cut_send(near)
    await near.reset()

    with pytest.raises(trio.ClosedResourceError):
        await near.send_all(b"y")
    await close(far)


async def test_error_of_another_transport() -> None:
    """An unknown part was sent also if the transport raises an error of its own."""

    class Failing(Wrapper):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            await super().send_all(bytes(data)[:1])
            raise OSError("half way")

    peer = ScriptedPeer(turn(b"read"))
    stream = UpgradedStream(Failing(peer))
    with pytest.raises(OSError, match="half way"):
        await stream.send_all(b"xyz")
    with pytest.raises(trio.BrokenResourceError, match="send was cut"):
        await stream.send_all(b"xyz")
    assert turn(peer.sent) == b"x"
    assert await stream.receive_some() == b"read"


@pytest.mark.parametrize("error", [trio.BusyResourceError, TypeError])
async def test_errors_before_the_first_byte(error: type[Exception]) -> None:
    """An error of the call itself has sent nothing, and cuts nothing."""

    class Refusing(Wrapper):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            if data == b"wrong":
                raise error("refused")
            await super().send_all(data)

    stream = UpgradedStream(Refusing(ScriptedPeer()))
    with pytest.raises(error, match="refused"):
        await stream.send_all(b"wrong")
    await stream.send_all(b"right")


async def test_no_data_cannot_be_cut() -> None:
    """A send of nothing that is cancelled while it waits has left nothing out."""

    class Waiting(Wrapper):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            if not data:
                await trio.sleep_forever()
            await super().send_all(data)

    peer = ScriptedPeer()
    stream = UpgradedStream(Waiting(peer))
    await cut_send(stream, b"")
    await stream.send_all(b"y")
    assert turn(peer.sent) == b"y"


async def test_no_tls_after_a_cut() -> None:
    """TLS cannot begin after half a message."""
    stream, far = await _make_upgraded_trio_tcp()
    await cut_send(stream)

    context, _ = make_tls_contexts()
    with pytest.raises(trio.BrokenResourceError, match="send was cut"):
        await stream.start_tls(context, server_hostname="localhost")
    await close(stream, far)


async def test_copy_by_descriptor_into_a_stream_of_trios() -> None:
    """What a cut copy between sockets has lost is known above streams of Trio, too."""
    sink, far = await _make_upgraded_trio_tcp()
    source, near = await tcp_pair()
    await clog(sink.transport)
    async with trio.open_nursery() as nursery:
        progress = Progress()
        nursery.start_soon(partial(pipe, source, sink, progress=progress))
        await near.send_all(b"x" * 65536)
        while not progress.bytes:
            await far.receive_some(4096)
            await trio.testing.wait_all_tasks_blocked()
        assert progress.bytes < 65536
        nursery.cancel_scope.cancel()

    with pytest.raises(trio.BrokenResourceError, match="send was cut"):
        await sink.send_all(b"y")
    await close(source, near, sink, far)


async def test_tls_that_has_failed() -> None:
    """The error of TLS is the one that is raised: it says more."""
    near, far = await opened()
    await cut_send(near)
    await far.transport_stream.send_all(b"\x17\x03\x03\x00\x20" + b"?" * 32)

    with pytest.raises(trio.BrokenResourceError, match="BAD_RECORD_MAC"):
        await near.receive_some()
    with pytest.raises(trio.BrokenResourceError, match="BAD_RECORD_MAC"):
        await near.send_all(b"y")
    await close(near, far)


async def see_end(far: trio.abc.ReceiveStream) -> str:
    with pytest.raises(trio.BrokenResourceError):
        while await far.receive_some():
            pass
        return "end"
    return "reset"


class TestEnds:
    """After a cut send the end of a scope is never a proper end, which would lie."""

    @pytest.mark.parametrize("kind", ["tcp", "upgraded", "trio-tcp", "tls"])
    async def test_stream_scope(self, kind: str) -> None:
        """stream_scope() cuts the stream although its body has returned."""
        near, far = await MAKERS[kind]()
        async with stream_scope(near):
            await cut_send(near)
        assert await see_end(far) == "reset"
        await close(far)

    @pytest.mark.parametrize("peer_ended", [False, True])
    async def test_client(self, peer_ended: bool) -> None:
        """Nor does open_upgrade(), whether the peer has ended or not."""
        near, far = direct(await tcp_pair())
        await far.send_all(SWITCHED)
        async with await open_upgrade("http://x/", "echo", stream=near) as connection:
            if peer_ended:
                await far.send_eof()
                assert await connection.stream.receive_some() == b""
            await cut_send(connection.stream)
        assert await see_end(far) == "reset"
        await close(far)

    @pytest.mark.parametrize("cut", [False, True])
    async def test_server(self, cut: bool) -> None:
        """A handler that has caught the cancellation and returns has not ended well."""
        near, far = direct(await tcp_pair())
        sent = trio.Event()

        async def app(request: Request) -> Upgrade:
            async def handle(_: Request, stream: UpgradedStream, head: bytes) -> None:
                await (cut_send(stream) if cut else stream.send_all(b"whole"))
                sent.set()

            return Upgrade("echo", handle)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_stream, app, near)
            await far.send_all(UP)
            await sent.wait()
            if cut:
                assert await see_end(far) == "reset"
            else:
                assert (await receive_all(far)).endswith(b"whole")
            await far.aclose()
