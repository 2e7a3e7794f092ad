"""A drain that spreads its goodbyes: each connection is told at its turn."""

from __future__ import annotations

import math
import signal
import sys
from functools import partial

import pytest
import trio
import trio.testing

from trio_upgrade import EndReason, Upgrade, drain_on_signal, serve_stream
from trio_upgrade.testing import ScriptedPeer

from ..wire import SWITCHED, UP, closing, get, okay

POLITE = UP.replace(b"/u", b"/polite")


async def join_idle(scene, count: int) -> list[ScriptedPeer]:
    return [await scene.join(get("/1")) for _ in range(count)]


class Ends:
    """When each of some connections was closed."""

    def __init__(self, nursery: trio.Nursery, peers: list[ScriptedPeer]) -> None:
        self.times: list[float] = []
        for peer in peers:
            nursery.start_soon(self._watch, peer)

    async def _watch(self, peer: ScriptedPeer) -> None:
        await peer.wait_closed()
        self.times.append(trio.current_time())


@pytest.mark.ids("F20")
async def test_idle(make_scene, nursery, autojump_clock) -> None:
    """Idle connections end one after the other, the first one at once."""
    scene = await make_scene(keep_alive_timeout=None).open()
    peers = await join_idle(scene, 4)
    ends = Ends(nursery, peers)

    await scene.server.drain(100, jitter=20)
    await trio.testing.wait_all_tasks_blocked()

    assert ends.times == [0, 5, 10, 15]
    assert scene.recorder.reasons == [EndReason.DRAINED] * 4
    assert all(peer.sent == okay(b"/1") for peer in peers)


async def test_many_at_one_time(make_scene, nursery, autojump_clock) -> None:
    """Turns that have come while other tasks ran are taken all."""
    scene = await make_scene(keep_alive_timeout=None).open()
    ends = Ends(nursery, await join_idle(scene, 200))

    await scene.server.drain(100, jitter=1e-9)
    await trio.testing.wait_all_tasks_blocked()

    assert len(ends.times) == 200
    assert ends.times[-1] < 1e-9


async def test_upgraded(make_scene, nursery, autojump_clock) -> None:
    """Handlers that wait for the drain are told at their turns."""
    scene = await make_scene().open()
    peers = [await scene.join(POLITE) for _ in range(4)]
    ends = Ends(nursery, peers)

    await scene.server.drain(100, jitter=8)
    await trio.testing.wait_all_tasks_blocked()

    assert ends.times == [0, 2, 4, 6]
    assert all(peer.sent == SWITCHED + b"goodbye" for peer in peers)
    assert set(scene.recorder.reasons) == {EndReason.RETURNED}


@pytest.mark.parametrize("jitter", [None, 0, 0.0])
async def test_without_jitter(jitter, make_scene, nursery, autojump_clock) -> None:
    """Without a jitter all are told in the same moment."""
    scene = await make_scene().open()
    idle = await join_idle(scene, 3)
    ends = Ends(nursery, [*idle, *[await scene.join(POLITE) for _ in range(3)]])

    await scene.server.drain(100, jitter=jitter)
    await trio.testing.wait_all_tasks_blocked()

    assert ends.times == [0] * 6


async def test_at_most_the_grace(make_scene, nursery, autojump_clock) -> None:
    """The turns fit into the grace: every handler is told before it is cut."""
    scene = await make_scene().open()
    peers = [await scene.join(POLITE) for _ in range(2)]
    ends = Ends(nursery, peers)

    await scene.server.drain(6, jitter=600)
    await trio.testing.wait_all_tasks_blocked()

    assert ends.times == [0, 3]
    assert all(peer.sent.endswith(b"goodbye") for peer in peers)


@pytest.mark.ids("F20")
async def test_request_before_the_turn(make_scene, autojump_clock) -> None:
    """A request on an idle connection whose turn has not come is its last, answered."""
    scene = await make_scene(keep_alive_timeout=None).open()
    peers = await join_idle(scene, 2)
    scene.server.start_drain(100, jitter=20)
    await trio.sleep(1)
    (late,) = [peer for peer in peers if not peer.closed]
    late.feed(get("/2"))
    await trio.sleep(1)

    assert late.closed
    assert late.sent == okay(b"/1") + closing(okay(b"/2"))
    await scene.over.wait()
    assert trio.current_time() == 2


async def test_offer_before_the_turn(make_scene, autojump_clock) -> None:
    """Offers are refused from the beginning of the drain."""
    scene = await make_scene(keep_alive_timeout=None).open()
    peers = await join_idle(scene, 2)
    scene.server.start_drain(100, jitter=20)
    await trio.sleep(1)
    (late,) = [peer for peer in peers if not peer.closed]
    late.feed(UP)
    await scene.over.wait()

    assert b"HTTP/1.1 503 " in late.sent


async def test_busy_at_the_turn(make_scene, autojump_clock) -> None:
    """A request that is in the app at its turn is answered, as in any drain."""
    scene = await make_scene().open()
    peers = [await scene.join(get("/wait")) for _ in range(3)]

    await scene.server.drain(100, jitter=6)

    assert all(peer.sent == closing(okay(b"/wait")) for peer in peers)
    assert trio.current_time() == 5


@pytest.mark.parametrize("jitter", [None, 0, 4])
async def test_shorter(jitter, make_scene, nursery, autojump_clock) -> None:
    """A later call tells those that are left sooner."""
    scene = await make_scene().open()
    ends = Ends(nursery, [await scene.join(POLITE) for _ in range(5)])
    scene.server.start_drain(100, jitter=50)
    await trio.sleep(15)
    assert ends.times == [0, 10]

    scene.server.start_drain(100, jitter=jitter)
    await scene.over.wait()
    await trio.testing.wait_all_tasks_blocked()

    step = (jitter or 0) / 3
    assert ends.times[2:] == pytest.approx([15, 15 + step, 15 + 2 * step])


async def test_not_longer(make_scene, nursery, autojump_clock) -> None:
    """A later call that would tell them later changes nothing."""
    scene = await make_scene().open()
    ends = Ends(nursery, [await scene.join(POLITE) for _ in range(2)])
    scene.server.start_drain(100, jitter=10)
    await trio.sleep(3)

    await scene.server.drain(200, jitter=100)
    await trio.testing.wait_all_tasks_blocked()

    assert ends.times == [0, 5]


async def test_drain_without_jitter_is_not_spread_later(
    make_scene, nursery, autojump_clock
) -> None:
    """A jitter that comes after the beginning of the drain comes too late."""
    scene = await make_scene().open()
    ends = Ends(nursery, [await scene.join(POLITE) for _ in range(2)])
    scene.server.start_drain(100)

    await scene.server.drain(100, jitter=10)
    await trio.testing.wait_all_tasks_blocked()

    assert ends.times == [0, 0]


async def test_other_tasks(make_scene, autojump_clock) -> None:
    """A task of no connection learns at once of the drain; one of a connection later."""
    scene = await make_scene(keep_alive_timeout=None).open()
    told: list[tuple[str, float]] = []

    async def wait(name: str) -> None:
        await scene.server.wait_draining()
        told.append((name, trio.current_time()))

    async def handler(_request, _stream, _head) -> None:
        async with trio.open_nursery() as inner:
            inner.start_soon(wait, "below")
            await wait("handler")

    async def app(_request) -> Upgrade:
        return Upgrade("echo", handler)

    # In any order: the idle one or the handler is told at once, the other one after 3 s.
    (idle,) = await join_idle(scene, 1)
    peer = ScriptedPeer(UP, then="silence")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(serve_stream, app, peer, server=scene.server))
        nursery.start_soon(wait, "outside")
        await trio.testing.wait_all_tasks_blocked()
        scene.server.start_drain(10, jitter=6)
        assert scene.server.is_draining
        await trio.testing.wait_all_tasks_blocked()
        handler_first = not idle.closed
        await trio.sleep(1)
        # It is told at the turn of its connection as well, if it waits only now.
        await wait("late")
        await scene.over.wait()

    turn = 0 if handler_first else 3
    assert dict(told) == {"outside": 0, "handler": turn, "below": turn, "late": 1}


async def test_waiter_that_outlives_its_connection(make_scene, autojump_clock) -> None:
    """A task that was below the task of a connection goes on when the connection ends."""
    scene = await make_scene().open()
    times: list[float] = []

    async def wait() -> None:
        await scene.server.wait_draining()
        times.append(trio.current_time())

    async def serve(peer: ScriptedPeer) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await serve_stream(app, peer, server=scene.server)

    async def app(_request) -> Upgrade:
        return Upgrade("echo", handler)

    async def handler(_request, stream, _head) -> None:
        await stream.receive_some()

    peers = [ScriptedPeer(UP, then="silence") for _ in range(2)]
    for peer in peers:
        scene.nursery.start_soon(serve, peer)
    await trio.testing.wait_all_tasks_blocked()
    scene.server.start_drain(100, jitter=100)
    await trio.sleep(1)
    assert times == [0]
    for peer in peers:
        peer.feed(b"over")
    await scene.over.wait()
    await trio.testing.wait_all_tasks_blocked()

    assert times == [0, 1]


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals: not on Windows")
async def test_signal(make_scene, nursery, autojump_clock) -> None:
    """A drain by a signal may have a jitter; a second signal ends all."""
    scene = await make_scene().open()
    ends = Ends(nursery, [await scene.join(POLITE) for _ in range(4)])
    async with trio.open_nursery() as inner:
        inner.start_soon(
            partial(drain_on_signal, scene.server, signal.SIGTERM, grace=9, jitter=8)
        )
        await trio.testing.wait_all_tasks_blocked()
        signal.raise_signal(signal.SIGTERM)
        await trio.sleep(3)
        assert ends.times == [0, 2]
        signal.raise_signal(signal.SIGTERM)
    await trio.testing.wait_all_tasks_blocked()

    assert ends.times == [0, 2, 3, 3]


@pytest.mark.ids("F39")
@pytest.mark.parametrize(
    ("jitter", "error", "message"),
    [
        (-1, ValueError, "a jitter must not be negative"),
        (math.nan, ValueError, "a jitter must not be negative"),
        (math.inf, ValueError, "a jitter must be finite"),
        ("1", TypeError, "a jitter must be seconds or None, not str"),
    ],
)
async def test_mistakes(jitter, error, message, make_scene) -> None:
    """A jitter that is none is an error before anything is done."""
    scene = await make_scene().open()
    with pytest.raises(error, match=message):
        scene.server.start_drain(1, jitter=jitter)
    with pytest.raises(error, match=message):
        await scene.server.drain(1, jitter=jitter)
    with pytest.raises(error, match=message):
        await drain_on_signal(scene.server, signal.SIGTERM, grace=1, jitter=jitter)

    assert not scene.server.is_draining
