"""A chunk that a copy has read and not sent: nothing can follow it in the sink.

How it was copied does not matter; test_engine.py has the copies by descriptor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from trio_upgrade import UpgradedStream, pipe, stream_scope
from trio_upgrade.testing import ScriptedPeer

from ..copying import close
from ..sockets import clogged_tcp_pair, direct, tcp_pair
from ..tls_streams import clog, opened

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..sockets import Pair


async def _make_tcp() -> Pair:
    return direct(await clogged_tcp_pair())


async def _make_tls() -> Pair:
    near, far = await opened()
    await clog(near)
    return near, far


MAKERS: dict[str, Callable[[], Awaitable[Pair]]] = {"tcp": _make_tcp, "tls": _make_tls}
every_full_sink = pytest.mark.parametrize("kind", MAKERS)


async def cancel_waiting(source: trio.abc.Stream, sink: trio.abc.Stream) -> None:
    """Copy, and cancel that as soon as it waits."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pipe, source, sink)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def refuses(sink: UpgradedStream) -> bool:
    """Return whether the sink refuses to send because bytes are missing."""
    with trio.CancelScope() as scope:
        # Not sent either way: the sink is full.
        scope.cancel()
        try:
            await sink.send_all(b"next")
        except trio.BrokenResourceError as exc:
            return "send was cut" in str(exc)
    return False


@every_full_sink
async def test_chunk_of_another_stream(kind: str) -> None:
    """A source that is no socket is copied by its methods."""
    near, far = await MAKERS[kind]()
    sink = UpgradedStream(near)
    await cancel_waiting(ScriptedPeer(b"lost"), sink)

    assert await refuses(sink)
    await close((near, far))


@every_full_sink
async def test_head(kind: str) -> None:
    """The head of a source is sent by the method of the sink, too."""
    source, client = direct(await tcp_pair())
    near, far = await MAKERS[kind]()
    sink = UpgradedStream(near)
    await cancel_waiting(UpgradedStream(source, b"lost"), sink)

    assert await refuses(sink)
    await close((near, far), (source, client))


@every_full_sink
async def test_waiting_loses_nothing(kind: str) -> None:
    """A copy that has no chunk leaves a sink as usable as it was, however full."""
    near, far = await MAKERS[kind]()
    sink = UpgradedStream(near)
    quiet, client = trio.testing.memory_stream_pair()
    await cancel_waiting(quiet, sink)

    assert not await refuses(sink)
    await close((near, far), (quiet, client))


async def test_end_of_the_scope() -> None:
    """The peer of such a sink gets a reset, although the body has returned."""
    near, far = direct(await clogged_tcp_pair())
    async with stream_scope(UpgradedStream(near)) as sink:
        await cancel_waiting(ScriptedPeer(b"lost"), sink)

    with pytest.raises(trio.BrokenResourceError):
        while await far.receive_some():
            pass
    await far.aclose()


async def test_sink_closed_meanwhile() -> None:
    """A sink that was closed under the copy says so later, and not that it was cut."""
    near, far = direct(await clogged_tcp_pair())
    sink = UpgradedStream(near)
    with pytest.RaisesGroup(trio.ClosedResourceError):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pipe, ScriptedPeer(b"lost"), sink)
            await trio.testing.wait_all_tasks_blocked()
            await sink.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await sink.send_all(b"next")
    await far.aclose()
