"""Servers that are replaced under load lose nothing; `nox -s restart` does more of it."""

from __future__ import annotations

import sys
from functools import partial

import pytest
import trio
import trio.lowlevel

from benchmarks.restart.load import Tally, get, loading
from benchmarks.restart.restart import endless, inherited, rolling

from ..interop.programs import HOST

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="needs descriptors and SIGTERM: not on Windows"
)


@pytest.mark.ids("F20")
async def test_nothing_is_lost_on_an_inherited_socket() -> None:
    """A server that is replaced twice under load leaves no connection unanswered."""
    tally = await inherited(2)

    assert not tally.lost
    assert tally.answered == tally.connections > 100


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc: only on Linux")
@pytest.mark.parametrize("kind", ["one", "share"])
@pytest.mark.ids("F20")
async def test_nothing_is_lost_by_run_workers(kind: str) -> None:
    """Workers are replaced twice under load, one while blocked: all are answered."""
    tally = await rolling(2, kind=kind)

    assert not tally.lost
    assert tally.answered == tally.connections > 50


@pytest.mark.ids("F20")
async def test_drain_ends_although_connections_come_without_a_pause() -> None:
    """It ends within its grace, however many connections are opened meanwhile."""
    tally = await endless(1)

    assert not tally.lost
    assert tally.connections > 100


################################################################
# The load
################################################################

WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n1\n"


@pytest.mark.parametrize(
    ("answer", "lost"),
    [
        (WHOLE, {}),
        (WHOLE[:-1], {"200": 1}),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\nno\n", {"503": 1}),
        (b"", {"ended without an answer": 1}),
    ],
)
async def test_every_loss_is_counted(
    answer: bytes, lost: dict[str, int], nursery: trio.Nursery
) -> None:
    """Only a whole 200 counts as an answer."""

    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(answer)

    start = partial(trio.serve_tcp, serve, 0, host=HOST)
    listeners: list[trio.SocketListener] = await nursery.start(start)
    tally = Tally()
    await get(listeners[0].socket.getsockname()[1], tally)

    assert tally.lost == lost
    assert (tally.connections, tally.answered) == (1, int(not lost))


async def test_refused_connections_are_counted() -> None:
    """A port on which no server listens is a loss, too."""
    (listener,) = await trio.open_tcp_listeners(0, host=HOST)
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    async with loading(port) as tally:
        while not tally.lost:
            await trio.lowlevel.checkpoint()

    assert [*tally.lost] == ["refused"]
    assert tally.lost["refused"] == tally.connections
    assert str(tally).endswith(" refused lost")
