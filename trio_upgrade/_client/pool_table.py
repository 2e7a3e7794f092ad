# Which request of a pool gets a connection, and when: pure bookkeeping, without Trio and
# without I/O, so that every order of events can be tested.
#
# A slot is the right to have one connection open.  It is held by a connection that is
# idle, or by a request from the moment it is granted until its connection is closed or
# idle again:
#
#                 ask()                      grant: a slot, to dial
#     a request ---------> waits in order -+--------------------------> in use
#                            |             | grant: an idle connection   |   |
#                            | withdraw()  +<-------- idle <------------+   |
#                            v                          |    put()          |
#                          gone           take_expired() or evicted         |
#                                                       v      release()    |
#                                                     closed <--------------+
#
# Requests are granted in the order in which they asked, but one whose origin is full does
# not hold up those for other origins.  If all slots are taken, the connection that has
# been idle for longest is evicted; the request that gets its slot has to close it first,
# so that there are never more connections than slots.
from __future__ import annotations

import math
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Generic, TypeVar, final

if TYPE_CHECKING:
    from collections.abc import Callable

OriginT = TypeVar("OriginT")
ConnectionT = TypeVar("ConnectionT")


@final
class Ticket(Generic[OriginT, ConnectionT]):
    """A request that asks for a slot, waits for one, or has one.

    Args:
        origin: What its connection must be opened to.
        wake: Called when it is granted, and when the pool is closed.

    Attributes:
        origin: As given.
        wake: As given.
        number: Its place in the order.
        granted: Whether it has a slot.
        connection: The idle connection that came with the slot; None: dial.
        evicted: A connection to close before that; None: none.
    """

    __slots__ = ("connection", "evicted", "granted", "number", "origin", "wake")

    def __init__(self, origin: OriginT, wake: Callable[[], object]) -> None:
        self.origin = origin
        self.wake = wake
        self.number: int = 0
        self.granted: bool = False
        self.connection: ConnectionT | None = None
        self.evicted: ConnectionT | None = None


@final
class _Origin(Generic[OriginT, ConnectionT]):
    # The connections to one origin, and the requests that wait for one.
    __slots__ = ("idle", "slots", "waiting")

    def __init__(self) -> None:
        # All slots of this origin, those of idle connections included.
        self.slots = 0
        # The one that was idle for longest first.
        self.idle: deque[ConnectionT] = deque()
        # In order; only the values of `None` are used.
        self.waiting: OrderedDict[Ticket[OriginT, ConnectionT], None] = OrderedDict()


@final
class SlotTable(Generic[OriginT, ConnectionT]):
    """The slots of a pool.

    Args:
        total: The number of slots.
        per_origin: The number of slots that one origin can have; None: all.

    Attributes:
        taken: How many slots are taken, by idle connections too.
        waiting: How many requests wait.
    """

    def __init__(self, total: int, per_origin: int | None) -> None:
        self._total = total
        self._per_origin = math.inf if per_origin is None else per_origin
        self._origins: dict[OriginT, _Origin[OriginT, ConnectionT]] = {}
        # Origins with requests that wait: few; looked through at each grant.
        self._queues: dict[OriginT, _Origin[OriginT, ConnectionT]] = {}
        # All idle connections with their origins and since when, oldest first.
        self._idle: OrderedDict[ConnectionT, tuple[OriginT, float]] = OrderedDict()
        self._asked = 0
        self.taken: int = 0
        self.waiting: int = 0

    @property
    def idle(self) -> int:
        """How many connections are idle."""
        return len(self._idle)

    def ask(self, ticket: Ticket[OriginT, ConnectionT]) -> None:
        """Ask for a slot; the ticket may be granted at once."""
        self._asked += 1
        ticket.number = self._asked
        record = self._origins.get(ticket.origin)
        if record is None:
            record = self._origins[ticket.origin] = _Origin()
        record.waiting[ticket] = None
        self._queues[ticket.origin] = record
        self.waiting += 1
        self._grant_all()

    def withdraw(self, ticket: Ticket[OriginT, ConnectionT]) -> None:
        """Take back a ticket that waits, so that those after it move up."""
        queue = self._queues.get(ticket.origin)
        if queue is not None and ticket in queue.waiting:
            self._leave_queue(ticket)
            self._forget_if_unused(ticket.origin)

    def put(self, origin: OriginT, connection: ConnectionT, now: float) -> None:
        """Make the connection of a slot idle, or pass it on to a request that waits."""
        self._origins[origin].idle.append(connection)
        self._idle[connection] = origin, now
        self._grant_all()

    def release(self, origin: OriginT) -> None:
        """Free a slot whose connection is closed, or was never opened."""
        self._origins[origin].slots -= 1
        self.taken -= 1
        self._grant_all()
        self._forget_if_unused(origin)

    def take_expired(self, before: float) -> tuple[OriginT, ConnectionT] | None:
        """Take out a connection that has been idle since ``before`` or longer.

        Returns:
            Its origin, whose slot has to be released when it is closed, and the
            connection; None if there is none.
        """
        for connection, (origin, since) in self._idle.items():
            if since <= before:
                self._take_idle(connection)
                return origin, connection
            # The oldest is first.
            break
        return None

    def close(self) -> list[ConnectionT]:
        """Take out all idle connections, and wake all requests that wait, not granted.

        Returns:
            The connections, which have to be closed. Their slots are free.
        """
        idle = [*self._idle]
        for connection in idle:
            origin = self._take_idle(connection)
            self._origins[origin].slots -= 1
            self.taken -= 1
        tickets = [
            ticket for queue in self._queues.values() for ticket in queue.waiting
        ]
        for ticket in tickets:
            self._leave_queue(ticket)
            ticket.wake()
        for origin in [*self._origins]:
            self._forget_if_unused(origin)
        return idle

    def _grant_all(self) -> None:
        while self._queues:
            able = [
                queue for queue in self._queues.values() if self._can_be_granted(queue)
            ]
            if not able:
                return
            first = min(able, key=_first_number)
            self._grant(next(iter(first.waiting)), first)

    def _can_be_granted(self, origin: _Origin[OriginT, ConnectionT]) -> bool:
        if origin.idle:
            return True
        free = self.taken < self._total or bool(self._idle)
        return free and origin.slots < self._per_origin

    def _grant(
        self,
        ticket: Ticket[OriginT, ConnectionT],
        origin: _Origin[OriginT, ConnectionT],
    ) -> None:
        self._leave_queue(ticket)
        if origin.idle:
            # The one used last: the others get the chance to expire.
            ticket.connection = origin.idle[-1]
            self._take_idle(ticket.connection)
        else:
            if self.taken >= self._total:
                ticket.evicted = next(iter(self._idle))
                its_origin = self._take_idle(ticket.evicted)
                self._origins[its_origin].slots -= 1
                self.taken -= 1
                self._forget_if_unused(its_origin)
            origin.slots += 1
            self.taken += 1
        ticket.granted = True
        ticket.wake()

    def _leave_queue(self, ticket: Ticket[OriginT, ConnectionT]) -> None:
        queue = self._queues[ticket.origin]
        del queue.waiting[ticket]
        self.waiting -= 1
        if not queue.waiting:
            del self._queues[ticket.origin]

    def _take_idle(self, connection: ConnectionT) -> OriginT:
        origin, _ = self._idle.pop(connection)
        self._origins[origin].idle.remove(connection)
        return origin

    def _forget_if_unused(self, origin: OriginT) -> None:
        record = self._origins.get(origin)
        if record is not None and not record.slots and not record.waiting:
            del self._origins[origin]


def _first_number(origin: _Origin[OriginT, ConnectionT]) -> int:
    return next(iter(origin.waiting)).number
