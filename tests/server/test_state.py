"""ServerState alone, without real connections."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing

from trio_upgrade import EndReason, Limits, Unavailable
from trio_upgrade._server.connection_task import ConnectionTask
from trio_upgrade._server.observers import Observers
from trio_upgrade._server.state import ServerState, check_grace


def make_connection(*, idle: bool = False, requests: int = 0) -> ConnectionTask:
    connection = ConnectionTask(trio.CancelScope())
    connection.idle = idle
    connection.requests = requests
    return connection


def make_state(**bounds) -> ServerState:
    return ServerState(
        Limits(**bounds),
        strict=False,
        close_on_optimistic_data=False,
        observers=Observers(None, strict=False),
    )


@pytest.mark.parametrize(("grace", "seconds"), [(None, math.inf), (0, 0), (2.5, 2.5)])
def test_grace(grace: float | None, seconds: float) -> None:
    """None disables the limit."""
    assert check_grace(grace) == seconds


async def test_capacity_waits() -> None:
    """For each connection that is removed, one waiting task goes on."""
    state = make_state(connections=2)
    admitted = []

    async def enter(connection: ConnectionTask) -> None:
        await state.wait_capacity()
        state.add(connection)
        admitted.append(connection)

    connections = [make_connection() for _ in range(4)]
    async with trio.open_nursery() as nursery:
        for connection in connections:
            nursery.start_soon(enter, connection)
        await trio.testing.wait_all_tasks_blocked()
        assert len(admitted) == 2
        for count in (3, 4):
            state.remove(admitted[0], upgraded=False)
            await trio.testing.wait_all_tasks_blocked()
            assert len(admitted) == count
            admitted[:] = admitted[1:] + admitted[:1]

    assert state.statistics().total_connections == 4


async def test_upgraded() -> None:
    """Switched connections are counted while they last, and may have a limit."""
    state = make_state(upgraded=1)
    connection = make_connection()
    state.add(connection)
    state.reserve_upgrade()
    with pytest.raises(Unavailable, match="as many upgraded connections"):
        state.reserve_upgrade()
    state.release_upgrade()
    state.reserve_upgrade()
    state.total_upgraded += 1
    assert state.statistics().upgraded == 1

    state.remove(connection, upgraded=True)

    assert state.statistics().upgraded == 0
    assert state.statistics().total_upgraded == 1


async def test_drain() -> None:
    """Idle connections are ended, others are not; offers are refused; accepting ends."""
    state = make_state()
    idle = make_connection(idle=True, requests=1)
    fresh = make_connection(idle=True)
    busy = make_connection(requests=1)
    for connection in (idle, fresh, busy):
        state.add(connection)
    accepting = trio.CancelScope()
    state.add_accepting(accepting)

    state.start_drain(10)
    state.start_drain(5)

    assert accepting.cancel_called
    assert idle.expired is EndReason.DRAINED
    assert idle.scope.cancel_called
    assert busy.expired is None
    assert fresh.expired is None
    assert state.deadlines.last.is_armed(fresh)
    with pytest.raises(Unavailable, match="shutting down"):
        state.reserve_upgrade()
    with pytest.raises(Unavailable, match="shutting down"):
        state.check_draining()
    assert state.statistics().is_draining


async def test_end_of_the_grace(nursery) -> None:
    """When the grace is over all are ended; a later connection is ended at once."""
    state = make_state()
    nursery.start_soon(state.deadlines.run)
    early, late = make_connection(), make_connection()
    state.add(early)
    state.start_drain(0)
    await trio.testing.wait_all_tasks_blocked()
    state.add(late)

    assert early.expired is late.expired is EndReason.DRAINED
    assert state.must_close_now


async def test_end() -> None:
    """A joined connection is ended, too, when the serving function ends."""
    state = make_state()
    joined = make_connection()
    state.add(joined)

    state.end()

    assert joined.expired is EndReason.CANCELLED
    assert state.ended.is_set()


async def test_tasks() -> None:
    """A connection's tasks are its own task and the descendants of that, no others."""
    state = make_state()
    connection = make_connection()
    connection.task = trio.lowlevel.current_task()
    state.add(connection)
    found = {}

    async def ask(name: str) -> None:
        found[name] = state.serves_task(trio.lowlevel.current_task())
        if name == "child":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, "grandchild")

    async with trio.open_nursery() as outer:
        connection.depth = len(connection.task.child_nurseries)
        async with trio.open_nursery() as inner:
            outer.start_soon(ask, "sibling")
            inner.start_soon(ask, "child")
    await ask("itself")

    assert found == {
        "sibling": False,
        "child": True,
        "grandchild": True,
        "itself": True,
    }
    connection.task = None
    assert not state.serves_task(trio.lowlevel.current_task())


async def test_capacity() -> None:
    """``capacity`` is how many connections may still be accepted."""
    state = make_state(connections=3)
    state.add(make_connection())

    assert state.capacity == 2
    assert make_state(connections=None).capacity > 1_000_000
