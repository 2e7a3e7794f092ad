"""The bookkeeping of a pool: who gets a slot, in which order, and what holds it."""

from __future__ import annotations

import random
from typing import Any

import pytest
import trio
import trio.testing

from trio_upgrade import open_connection
from trio_upgrade._client.pool_lease import Lease, PoolSlots
from trio_upgrade._client.pool_table import SlotTable, Ticket
from trio_upgrade._client.request_head import CheckedRequest
from trio_upgrade._client.urls import parse_url
from trio_upgrade.testing import ScriptedPeer

from ..wire import okay


def make_ticket(origin: str) -> Ticket[str, int]:
    return Ticket(origin, lambda: None)


def ask(table: SlotTable[str, int], origin: str) -> Ticket[str, int]:
    ticket = make_ticket(origin)
    table.ask(ticket)
    return ticket


class TestTable:
    """SlotTable, without connections."""

    def test_order_within_an_origin(self) -> None:
        """The first that asked is the first that is granted; a withdrawn one is not."""
        table: SlotTable[str, int] = SlotTable(1, None)
        first, *waiting = [ask(table, "a") for _ in range(4)]
        assert [ticket.granted for ticket in waiting] == [False] * 3
        table.withdraw(waiting[0])
        table.put("a", 7, 0.0)

        assert (first.granted, first.connection) == (True, None)
        assert (waiting[1].granted, waiting[1].connection) == (True, 7)
        assert not waiting[0].granted
        assert not waiting[2].granted
        table.withdraw(waiting[0])
        assert table.waiting == 1

    def test_order_among_origins(self) -> None:
        """The request that has waited for longest gets a free slot, if its origin may."""
        table: SlotTable[str, int] = SlotTable(2, 1)
        held = [ask(table, "a"), ask(table, "b")]
        full, third, fourth = (ask(table, origin) for origin in "acd")
        assert all(ticket.granted for ticket in held)
        table.release("b")
        # The one for "a" has waited longer, but "a" is full.
        assert [ticket.granted for ticket in (full, third, fourth)] == [0, 1, 0]
        table.release("a")
        assert [ticket.granted for ticket in (full, third, fourth)] == [1, 1, 0]

    def test_eviction(self) -> None:
        """The connection that was idle for longest makes room; the last used is taken."""
        table: SlotTable[str, int] = SlotTable(3, None)
        for origin in "aab":
            ask(table, origin)
        table.put("a", 1, 1.0)
        table.put("b", 3, 2.0)
        table.put("a", 2, 3.0)
        ticket = ask(table, "c")
        assert (ticket.connection, ticket.evicted) == (None, 1)
        ticket = ask(table, "a")
        assert (ticket.connection, ticket.evicted) == (2, None)
        assert (table.taken, table.idle) == (3, 1)
        assert table.take_expired(1.9) is None
        assert table.take_expired(2.0) == ("b", 3)
        assert table.take_expired(9.0) is None
        assert table.taken == 3

    def test_close(self) -> None:
        """All idle ones come out, and all that waits is woken without a grant."""
        woken: list[int] = []
        table: SlotTable[str, int] = SlotTable(2, 1)
        ask(table, "a")
        ask(table, "b")
        table.put("b", 5, 0.0)
        waiting: Ticket[str, int] = Ticket("a", lambda: woken.append(1))
        table.ask(waiting)

        assert table.close() == [5]
        assert (woken, waiting.granted) == ([1], False)
        assert (table.taken, table.waiting, table.idle) == (1, 0, 0)

    @pytest.mark.parametrize("seed", range(20))
    def test_bounds_hold(self, seed) -> None:
        """Whatever happens: the bounds, the order, and no slot lost or held twice."""
        dice = random.Random(seed)
        table: SlotTable[str, int] = SlotTable(4, 2)
        held: list[Ticket[str, int]] = []
        waiting: list[Ticket[str, int]] = []
        open_to: dict[int, str] = {}
        made = 0
        for now in range(1000):
            deed = dice.choice(["ask", "ask", "put", "release", "withdraw", "expire"])
            if deed == "ask":
                ticket = make_ticket(dice.choice("abc"))
                waiting.append(ticket)
                table.ask(ticket)
            elif deed == "withdraw" and waiting:
                table.withdraw(waiting.pop(dice.randrange(len(waiting))))
            elif deed == "expire":
                if expired := table.take_expired(now - 50):
                    assert open_to.pop(expired[1]) == expired[0]
                    table.release(expired[0])
            elif held:
                ticket = held.pop(dice.randrange(len(held)))
                if deed == "put" and ticket.connection is not None:
                    table.put(ticket.origin, ticket.connection, now)
                else:
                    open_to.pop(ticket.connection or 0, None)
                    table.release(ticket.origin)
            granted = [ticket for ticket in waiting if ticket.granted]
            waiting = [ticket for ticket in waiting if not ticket.granted]
            for ticket in granted:
                if ticket.evicted is not None:
                    del open_to[ticket.evicted]
                if ticket.connection is None:
                    made += 1
                    ticket.connection = made
                    open_to[made] = ticket.origin
                assert open_to[ticket.connection] == ticket.origin
                # No older one for the same origin still waits.
                assert not [
                    other
                    for other in waiting
                    if other.origin == ticket.origin and other.number < ticket.number
                ]
            held += granted

            assert table.waiting == len(waiting)
            assert table.taken == len(open_to) <= 4
            assert table.taken == len(held) + table.idle
            for origin in "abc":
                assert [*open_to.values()].count(origin) <= 2
            if waiting:
                origins = [*open_to.values()]
                full = all(origins.count(ticket.origin) == 2 for ticket in waiting)
                assert full or (table.taken == 4 and table.idle == 0)


class Connection:
    """As much of a connection as a lease needs."""

    def __init__(self, *reusable: bool) -> None:
        self._reusable = list(reusable)
        self.closed = 0

    @property
    def reusable(self) -> bool:
        return self._reusable.pop(0)

    async def close_without_wait(self) -> None:
        self.closed += 1

    async def cut(self) -> None:
        self.closed += 1


class TestLease:
    """What happens at the same moment."""

    @pytest.mark.parametrize("closed", [False, True])
    async def test_granted_when_cancelled(self, closed) -> None:
        """A connection that comes too late is idle again, or closed with the pool."""
        slots, origin, connection = PoolSlots(1, None, None), "x", Connection(True)
        first, second = (Lease(slots, origin) for _ in range(2))  # type: ignore[arg-type]
        await first.acquire()

        async def wait() -> None:
            try:
                await second.acquire()
            finally:
                await second.drop()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
            # In the same step, so that the other task has not run yet.
            first._give_back(connection)  # type: ignore[arg-type]
            assert second.connection is not None
            if closed:
                await slots.close()

        assert connection.closed == (2 if closed else 0)
        assert (slots.table.taken, slots.table.idle) == ((0, 0) if closed else (1, 1))

    async def test_ended_when_given_back(self) -> None:
        """One that has ended while expired ones were closed is not given back."""
        slots, connection = PoolSlots(1, None, None), Connection(True, False)
        lease = Lease(slots, "x")  # type: ignore[arg-type]
        await lease.acquire()
        lease.connection = connection  # type: ignore[assignment]
        await lease.finish()

        assert connection.closed == 1
        assert (slots.table.taken, slots.table.idle) == (0, 0)


async def test_end_within_the_exchange() -> None:
    """The end of an early response is not reported before the exchange is over."""

    async def endless() -> Any:
        while True:
            await trio.lowlevel.checkpoint()
            yield b"x"

    async def report() -> None:
        raise AssertionError  # pragma: no cover

    peer = ScriptedPeer(okay(), then="silence").hold_until_sent(b"x")
    async with await open_connection("http://x", stream=peer) as connection:
        request = CheckedRequest("PUT", "/", [], endless(), parse_url("http://x"))
        _, _, body = await connection.exchange(request, report)

        assert connection.body_ended
        assert await body.read(None) == b"okay"
        assert not connection.reusable
        await connection.cut()
        await connection.cut()
    assert peer.closed
