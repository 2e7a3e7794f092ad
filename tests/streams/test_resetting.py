"""UpgradedStream.reset(): an end that no peer can mistake for a proper one."""

from __future__ import annotations

import ssl

import pytest
import trio
import trio.testing

from trio_upgrade import UpgradedStream, open_upgrade, relay
from trio_upgrade.testing import ScriptedPeer

from ..sockets import direct, tcp_pair, unix_pair
from ..stream_pairs import MAKERS
from ..tls import make_tls_contexts
from ..wire import SWITCHED

# The peer of these gets a bare end: nothing there can be reset, or it is hidden.
ENDED = {"memory", "stapled-tcp", "stapled-unix", "trio-unix", "unix"}


async def check_peer(kind: str, peer: trio.abc.Stream) -> None:
    """Check what the peer gets, on each kind of stream."""
    if kind in ENDED:
        assert await peer.receive_some() == b""
    else:
        with pytest.raises(trio.BrokenResourceError):
            await peer.receive_some()
    await trio.aclose_forcefully(peer)


async def check_closed(stream: UpgradedStream) -> None:
    """Check that each method says that the stream is closed."""
    with pytest.raises(trio.ClosedResourceError):
        await stream.receive_some()
    with pytest.raises(trio.ClosedResourceError):
        await stream.send_all(b"x")
    with pytest.raises(trio.ClosedResourceError):
        await stream.wait_send_all_might_not_block()
    with pytest.raises(trio.ClosedResourceError):
        await stream.send_eof()
    with pytest.raises(trio.ClosedResourceError):
        await stream.start_tls(
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), server_side=True
        )
    with pytest.raises(trio.ClosedResourceError):
        stream.detach()
    await stream.aclose()
    assert stream.was_reset


@pytest.mark.ids("F33")
@pytest.mark.parametrize("kind", MAKERS)
async def test_each_kind(kind: str) -> None:
    """The peer gets a reset where there is one; the stream is closed, head and all."""
    near, peer = await MAKERS[kind]()
    stream = UpgradedStream(near, b"head")
    assert not stream.was_reset

    with trio.testing.assert_checkpoints():
        await stream.reset()

    assert stream.was_reset
    await check_closed(stream)
    with trio.testing.assert_checkpoints():
        await stream.reset()
    await check_peer(kind, peer)


@pytest.mark.ids("F33")
@pytest.mark.parametrize("kind", MAKERS)
async def test_cancelled(kind: str) -> None:
    """A cancelled call resets all the same, and raises Cancelled."""
    near, peer = await MAKERS[kind]()
    stream = UpgradedStream(near)

    with trio.CancelScope() as scope:
        scope.cancel()
        await stream.reset()

    assert scope.cancelled_caught
    await check_closed(stream)
    await check_peer(kind, peer)


@pytest.mark.ids("F33")
@pytest.mark.parametrize("kind", MAKERS)
async def test_waiting_tasks(kind: str) -> None:
    """A task that receives gets ClosedResourceError, as from aclose()."""
    near, peer = await MAKERS[kind]()
    stream = UpgradedStream(near)

    async def receive() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        await stream.reset()
    await check_peer(kind, peer)


@pytest.mark.ids("F33")
async def test_relay() -> None:
    """A relay of two sockets ends with ClosedResourceError, as from aclose()."""
    (left, left_peer), (right, right_peer) = [direct(await tcp_pair()) for _ in "lr"]
    stream = UpgradedStream(left)

    async def copy() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await relay(stream, right)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(copy)
        await trio.testing.wait_all_tasks_blocked()
        await stream.reset()
    await check_peer("tcp", left_peer)
    for rest in (right, right_peer):
        await trio.aclose_forcefully(rest)


@pytest.mark.ids("F33")
async def test_unread_bytes_of_a_unix_socket() -> None:
    """Linux cannot reset a Unix socket, but unread bytes of the peer make it a reset."""
    near, peer = await unix_pair()
    await peer.send_all(b"bad")

    await UpgradedStream(near).reset()

    with pytest.raises(trio.BrokenResourceError):
        await peer.receive_some()
    await peer.aclose()


@pytest.mark.ids("F33")
async def test_detached() -> None:
    """A transport that was given away is left alone, and the call is a checkpoint."""
    near, peer = await tcp_pair()
    stream = UpgradedStream(near)
    stream.detach()

    with trio.testing.assert_checkpoints():
        await stream.reset()

    assert not stream.was_reset
    await near.send_all(b"still open")
    assert await peer.receive_some() == b"still open"
    await near.aclose()
    await peer.aclose()


@pytest.mark.ids("F33")
@pytest.mark.parametrize("old", [False, True])
async def test_after_start_tls(old: bool) -> None:
    """The stream in TLS is reset, by its own method and by that of the old stream."""
    near, far = await tcp_pair()
    client_context, server_context = make_tls_contexts()
    ours, theirs = UpgradedStream(near), UpgradedStream(far)
    tls: list[UpgradedStream] = []

    async def serve() -> None:
        tls.append(await ours.start_tls(server_context, server_side=True))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        peer = await theirs.start_tls(client_context, server_hostname="localhost")

    await (ours if old else tls[0]).reset()

    assert ours.was_reset
    assert tls[0].was_reset
    await check_closed(tls[0])
    with pytest.raises(trio.BrokenResourceError) as caught:
        await peer.receive_some()
    # The reset itself, neither a close_notify nor a bare end.
    causes = [caught.value.__cause__, caught.value.__context__]
    assert "reset" in f"{caught.value} {causes}"
    await trio.aclose_forcefully(peer)


@pytest.mark.ids("F33")
@pytest.mark.parametrize("error", [None, LookupError, trio.ClosedResourceError])
async def test_client(error: type[Exception] | None) -> None:
    """On a client the scope leaves a stream that was reset, and its exception, alone."""
    near, peer = await tcp_pair()
    await peer.send_all(SWITCHED)

    async def use() -> None:
        async with await open_upgrade("http://x/u", "echo", stream=near) as connection:
            await connection.stream.reset()
            if error is not None:
                raise error

    if error is None:
        await use()
    else:
        with pytest.raises(error):
            await use()
    with pytest.raises(trio.BrokenResourceError):
        while await peer.receive_some():
            pass
    await peer.aclose()


@pytest.mark.ids("F33")
async def test_scripted() -> None:
    """A stream of the user's is closed, without an end of our direction."""
    peer = ScriptedPeer(then="silence")

    await UpgradedStream(peer).reset()

    assert peer.closed
    assert not peer.got_eof
