"""Deadlines alone: exact, in order, and gone when they are disarmed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

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
    """Keeps when and why it has expired."""

    def __init__(self) -> None:
        super().__init__(trio.CancelScope())
        self.history: list[tuple[float, EndReason]] = []

    def expire(self, reason: EndReason) -> None:
        self.history.append((trio.current_time(), reason))


@pytest.fixture
async def deadlines(nursery, autojump_clock) -> AsyncIterator[Deadlines]:
    """The deadlines of a server, looked after."""
    deadlines = Deadlines(LIMITS, lambda: None)
    nursery.start_soon(deadlines.run)
    await trio.testing.wait_all_tasks_blocked()
    return deadlines  # type: ignore[return-value]


def queues(deadlines) -> list[tuple[DeadlineQueue, float, EndReason]]:
    return [
        (deadlines.header, 10, EndReason.SLOW_HEADER),
        (deadlines.keep_alive, 5, EndReason.IDLE),
        (deadlines.response, 20, EndReason.SLOW_RESPONSE),
    ]


@pytest.mark.ids("R18", "R20", "R22")
@pytest.mark.parametrize("kind", range(3))
async def test_exact(autojump_clock, deadlines, kind: int) -> None:
    """Each kind ends when its limit says, once, with its reason."""
    queue, seconds, reason = queues(deadlines)[kind]
    await trio.sleep(0.125)
    what = Expiring()
    queue.arm(what)

    await trio.sleep(100)

    assert what.history == [(0.125 + seconds, reason)]


async def test_order(autojump_clock, deadlines) -> None:
    """Those of one kind end in the order in which they were armed."""
    whats = [Expiring() for _ in range(3)]
    for what in whats:
        deadlines.header.arm(what)
        await trio.sleep(1)

    await trio.sleep(100)

    assert [what.history[0][0] for what in whats] == [10, 11, 12]


async def test_at_the_same_time(autojump_clock, deadlines) -> None:
    """Those that end together are all ended."""
    whats = [Expiring() for _ in range(3)]
    for what in whats:
        deadlines.header.arm(what)

    await trio.sleep(10.5)

    assert [len(what.history) for what in whats] == [1, 1, 1]


async def test_an_earlier_one_of_another_kind(autojump_clock, deadlines) -> None:
    """One that is armed later and ends earlier is not late."""
    slow, quick = Expiring(), Expiring()
    deadlines.response.arm(slow)
    await trio.sleep(1)
    deadlines.keep_alive.arm(quick)

    await trio.sleep(100)

    assert quick.history == [(6, EndReason.IDLE)]
    assert slow.history == [(20, EndReason.SLOW_RESPONSE)]


async def test_rearm(autojump_clock, deadlines) -> None:
    """Armed anew it begins anew, and holds up nobody that was behind it."""
    first, second = Expiring(), Expiring()
    deadlines.header.arm(first)
    deadlines.header.arm(second)
    await trio.sleep(4)
    deadlines.header.arm(first)

    await trio.sleep(100)

    assert second.history == [(10, EndReason.SLOW_HEADER)]
    assert first.history == [(14, EndReason.SLOW_HEADER)]


async def test_disarm(autojump_clock, deadlines) -> None:
    """What is disarmed does not end, also if it never was armed."""
    what = Expiring()
    deadlines.header.arm(what)
    deadlines.header.disarm(what)
    deadlines.header.disarm(what)
    for queue, _, _ in queues(deadlines):
        queue.arm(what)
    deadlines.disarm(what)

    await trio.sleep(100)

    assert what.history == []


async def test_disarmed_at_the_last_moment(autojump_clock, deadlines) -> None:
    """At its very end it can still be disarmed, if nobody has looked yet."""
    what = Expiring()
    deadlines.header.arm(what)
    await trio.sleep(9.5)
    deadlines.header.disarm(what)
    deadlines.header.arm(what)

    await trio.sleep(9.5)

    assert what.history == []


@pytest.mark.parametrize("seconds", [None, math.inf])
async def test_none(seconds: float | None, nursery, autojump_clock) -> None:
    """None and infinity never end."""
    limits = Limits(
        header_timeout=seconds,
        keep_alive_timeout=seconds,
        response_timeout=seconds,
        send_timeout=seconds,
    )
    deadlines = Deadlines(limits, lambda: None)
    nursery.start_soon(deadlines.run)
    what = Expiring()
    for queue, _, _ in queues(deadlines):
        queue.arm(what)

    await trio.sleep(10_000)

    assert what.history == []
    assert deadlines.wakes_at == math.inf


async def test_zero(nursery, autojump_clock) -> None:
    """Zero ends at once."""
    deadlines = Deadlines(Limits(header_timeout=0), lambda: None)
    nursery.start_soon(deadlines.run)
    what = Expiring()
    deadlines.header.arm(what)

    await trio.testing.wait_all_tasks_blocked()

    assert what.history == [(0, EndReason.SLOW_HEADER)]


class TestCost:
    """The reaper is asked to look only when something ends before it would."""

    async def test_looks_once_for_many(self, autojump_clock, deadlines) -> None:
        """Thousands of exchanges within a timeout wake it a handful of times."""

        class Steps(trio.abc.Instrument):
            count = 0

            def before_task_step(self, task: trio.lowlevel.Task) -> None:
                if "Deadlines.run" in task.name:
                    self.count += 1

        steps = Steps()
        what = Expiring()
        trio.lowlevel.add_instrument(steps)
        for _ in range(1000):
            deadlines.keep_alive.arm(what)
            await trio.sleep(0.001)
            deadlines.keep_alive.disarm(what)
            deadlines.response.arm(what)
            await trio.lowlevel.checkpoint()
            deadlines.response.disarm(what)
        trio.lowlevel.remove_instrument(steps)

        assert what.history == []
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
        """It ends exactly, and once."""
        deadlines.begin_grace(7)
        deadlines.header.arm(Expiring())

        await trio.sleep(100)

        assert ends == [7]

    @pytest.mark.parametrize("order", [(7, 3), (3, 7), (math.inf, 3), (3, math.inf)])
    async def test_the_shorter_wins(
        self, autojump_clock, order, deadlines, ends
    ) -> None:
        """It can be cut and not be lengthened."""
        for deadline in order:
            deadlines.begin_grace(deadline)
            await trio.testing.wait_all_tasks_blocked()

        await trio.sleep(100)

        assert ends == [3]

    async def test_cut_after_its_end(self, autojump_clock, deadlines, ends) -> None:
        """What has ended does not end again."""
        deadlines.begin_grace(3)
        await trio.sleep(5)
        deadlines.begin_grace(2)
        await trio.sleep(5)

        assert ends == [3]

    async def test_does_not_hide_the_others(
        self, autojump_clock, deadlines, ends
    ) -> None:
        """Whatever ends before it, or after it, is exact all the same."""
        early, late = Expiring(), Expiring()
        deadlines.begin_grace(7)
        deadlines.keep_alive.arm(early)
        deadlines.header.arm(late)

        await trio.sleep(100)

        assert ends == [7]
        assert early.history == [(5, EndReason.IDLE)]
        assert late.history == [(10, EndReason.SLOW_HEADER)]


async def test_armed_before_it_runs(nursery, autojump_clock) -> None:
    """What was armed before the reaper's first look is not forgotten."""
    deadlines = Deadlines(LIMITS, lambda: None)
    what = Expiring()
    deadlines.header.arm(what)
    await trio.sleep(3)
    nursery.start_soon(deadlines.run)

    await trio.sleep(100)

    assert what.history == [(10, EndReason.SLOW_HEADER)]
