"""Deadlines alone: exact, in order, and gone when they are disarmed."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_upgrade import EndReason, Limits
from trio_upgrade._server.connection_task import ConnectionTask
from trio_upgrade._server.deadlines import DeadlineQueue, Deadlines

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LIMITS = Limits(header_timeout=10, keep_alive_timeout=5, response_timeout=20)


class Expiring(ConnectionTask):
    """Records when and why it has expired."""

    def __init__(self) -> None:
        super().__init__(trio.CancelScope())
        self.history: list[tuple[float, EndReason]] = []

    def expire(self, reason: EndReason) -> None:
        self.history.append((trio.current_time(), reason))


@pytest.fixture
async def deadlines(nursery, autojump_clock) -> AsyncIterator[Deadlines]:
    """The deadlines of a server, with a running reaper."""
    deadlines = Deadlines(LIMITS, lambda: None)
    nursery.start_soon(deadlines.run)
    await trio.testing.wait_all_tasks_blocked()
    return deadlines  # type: ignore[return-value]


def queues(deadlines) -> list[tuple[DeadlineQueue[Any], float, EndReason]]:
    return [
        (deadlines.header, 10, EndReason.SLOW_HEADER),
        (deadlines.keep_alive, 5, EndReason.IDLE),
        (deadlines.response, 20, EndReason.SLOW_RESPONSE),
    ]


@pytest.mark.ids("R18", "R20", "R22")
@pytest.mark.parametrize("kind", range(3))
async def test_exact(autojump_clock, deadlines, kind: int) -> None:
    """Each kind expires exactly at its limit, once, with its reason."""
    queue, seconds, reason = queues(deadlines)[kind]
    await trio.sleep(0.125)
    connection = Expiring()
    queue.arm(connection)

    await trio.sleep(100)

    assert connection.history == [(0.125 + seconds, reason)]


async def test_order(autojump_clock, deadlines) -> None:
    """Deadlines of one kind expire in the order in which they were armed."""
    connections = [Expiring() for _ in range(3)]
    for connection in connections:
        deadlines.header.arm(connection)
        await trio.sleep(1)

    await trio.sleep(100)

    assert [connection.history[0][0] for connection in connections] == [10, 11, 12]


async def test_at_the_same_time(autojump_clock, deadlines) -> None:
    """Deadlines that are due at the same time all expire."""
    connections = [Expiring() for _ in range(3)]
    for connection in connections:
        deadlines.header.arm(connection)

    await trio.sleep(10.5)

    assert [len(connection.history) for connection in connections] == [1, 1, 1]


@pytest.mark.ids("F42")
async def test_many_at_the_same_time(mock_clock, nursery) -> None:
    """Deadlines that are due in one pass expire in batches, with other tasks between."""
    deadlines = Deadlines(LIMITS, lambda: None)
    nursery.start_soon(deadlines.run)
    connections = [Expiring() for _ in range(1000)]
    for connection in connections:
        deadlines.header.arm(connection)
    await trio.testing.wait_all_tasks_blocked()
    mock_clock.jump(11)
    counts = [0]
    while counts[-1] < 1000:
        await trio.lowlevel.checkpoint()
        counts.append(sum(len(connection.history) for connection in connections))

    steps = [after - before for before, after in pairwise(counts)]
    assert max(steps) <= 2 * 64
    assert all(len(connection.history) == 1 for connection in connections)
    await trio.testing.wait_all_tasks_blocked()


async def test_earlier_deadline_of_another_kind(autojump_clock, deadlines) -> None:
    """A deadline that is armed later and due earlier is not late."""
    slow, quick = Expiring(), Expiring()
    deadlines.response.arm(slow)
    await trio.sleep(1)
    deadlines.keep_alive.arm(quick)

    await trio.sleep(100)

    assert quick.history == [(6, EndReason.IDLE)]
    assert slow.history == [(20, EndReason.SLOW_RESPONSE)]


async def test_rearm(autojump_clock, deadlines) -> None:
    """A deadline that is armed again starts again, and delays no later one."""
    first, second = Expiring(), Expiring()
    deadlines.header.arm(first)
    deadlines.header.arm(second)
    await trio.sleep(4)
    deadlines.header.arm(first)

    await trio.sleep(100)

    assert second.history == [(10, EndReason.SLOW_HEADER)]
    assert first.history == [(14, EndReason.SLOW_HEADER)]


async def test_disarm(autojump_clock, deadlines) -> None:
    """A disarmed deadline does not expire, even if it was disarmed twice."""
    connection = Expiring()
    deadlines.header.arm(connection)
    deadlines.header.disarm(connection)
    deadlines.header.disarm(connection)
    for queue, _, _ in queues(deadlines):
        queue.arm(connection)
    deadlines.disarm(connection)

    await trio.sleep(100)

    assert connection.history == []


async def test_disarmed_at_the_last_moment(autojump_clock, deadlines) -> None:
    """A deadline can be disarmed shortly before it is due."""
    connection = Expiring()
    deadlines.header.arm(connection)
    await trio.sleep(9.5)
    deadlines.header.disarm(connection)
    deadlines.header.arm(connection)

    await trio.sleep(9.5)

    assert connection.history == []


@pytest.mark.parametrize("seconds", [None, math.inf])
async def test_none(seconds: float | None, nursery, autojump_clock) -> None:
    """None and infinity disable a deadline."""
    limits = Limits(
        header_timeout=seconds,
        keep_alive_timeout=seconds,
        response_timeout=seconds,
        send_timeout=seconds,
    )
    deadlines = Deadlines(limits, lambda: None)
    nursery.start_soon(deadlines.run)
    connection = Expiring()
    for queue, _, _ in queues(deadlines):
        queue.arm(connection)

    await trio.sleep(10_000)

    assert connection.history == []
    assert deadlines.wakes_at == math.inf


async def test_zero(nursery, autojump_clock) -> None:
    """A deadline of zero seconds expires at once."""
    deadlines = Deadlines(Limits(header_timeout=0), lambda: None)
    nursery.start_soon(deadlines.run)
    connection = Expiring()
    deadlines.header.arm(connection)

    await trio.testing.wait_all_tasks_blocked()

    assert connection.history == [(0, EndReason.SLOW_HEADER)]


class TestCost:
    """The reaper is woken only for a deadline before its next check."""

    async def test_wakes_seldom(self, autojump_clock, deadlines) -> None:
        """A thousand exchanges within the limits wake it fewer than ten times."""

        class Steps(trio.abc.Instrument):
            count = 0

            def before_task_step(self, task: trio.lowlevel.Task) -> None:
                if "Deadlines.run" in task.name:
                    self.count += 1

        steps = Steps()
        connection = Expiring()
        trio.lowlevel.add_instrument(steps)
        for _ in range(1000):
            deadlines.keep_alive.arm(connection)
            await trio.sleep(0.001)
            deadlines.keep_alive.disarm(connection)
            deadlines.response.arm(connection)
            await trio.lowlevel.checkpoint()
            deadlines.response.disarm(connection)
        trio.lowlevel.remove_instrument(steps)

        assert connection.history == []
        assert steps.count < 10


class TestGrace:
    """The end of a drain's grace is a deadline, too."""

    @pytest.fixture
    def ends(self) -> list[float]:
        return []

    @pytest.fixture
    def deadlines(self, ends, nursery, autojump_clock) -> Deadlines:
        deadlines = Deadlines(LIMITS, lambda: ends.append(trio.current_time()))
        nursery.start_soon(deadlines.run)
        return deadlines

    async def test_ends_once(self, autojump_clock, deadlines, ends) -> None:
        """The grace ends exactly on time, and once."""
        deadlines.begin_grace(7)
        deadlines.header.arm(Expiring())

        await trio.sleep(100)

        assert ends == [7]

    @pytest.mark.parametrize("order", [(7, 3), (3, 7), (math.inf, 3), (3, math.inf)])
    async def test_the_shorter_wins(
        self, autojump_clock, order, deadlines, ends
    ) -> None:
        """The grace can be shortened, not lengthened."""
        for deadline in order:
            deadlines.begin_grace(deadline)
            await trio.testing.wait_all_tasks_blocked()

        await trio.sleep(100)

        assert ends == [3]

    async def test_shortened_after_its_end(
        self, autojump_clock, deadlines, ends
    ) -> None:
        """A grace that has ended does not end again."""
        deadlines.begin_grace(3)
        await trio.sleep(5)
        deadlines.begin_grace(2)
        await trio.sleep(5)

        assert ends == [3]

    async def test_does_not_hide_the_others(
        self, autojump_clock, deadlines, ends
    ) -> None:
        """Deadlines before and after the end of the grace stay exact."""
        early, late = Expiring(), Expiring()
        deadlines.begin_grace(7)
        deadlines.keep_alive.arm(early)
        deadlines.header.arm(late)

        await trio.sleep(100)

        assert ends == [7]
        assert early.history == [(5, EndReason.IDLE)]
        assert late.history == [(10, EndReason.SLOW_HEADER)]


async def test_armed_before_it_runs(nursery, autojump_clock) -> None:
    """A deadline that was armed before the reaper runs still expires."""
    deadlines = Deadlines(LIMITS, lambda: None)
    connection = Expiring()
    deadlines.header.arm(connection)
    await trio.sleep(3)
    nursery.start_soon(deadlines.run)

    await trio.sleep(100)

    assert connection.history == [(10, EndReason.SLOW_HEADER)]
