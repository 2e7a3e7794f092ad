# The connections of a pool while they are open: idle in a slot, or held by a request.
from __future__ import annotations

import math
from typing import TYPE_CHECKING, final

import trio

from .pool_table import SlotTable, Ticket

if TYPE_CHECKING:
    from .connection import ClientConnection
    from .pool_rules import Origin


@final
class PoolSlots:
    """The slots of one pool, and all that holds a connection in one.

    Args:
        connections: The number of slots.
        per_origin: The most slots of one origin; None disables the limit.
        idle_timeout: Seconds that a connection may be idle; None disables it.

    Attributes:
        table: Who has which slot.
        leases: The requests that wait for a slot or have one.
        closed: Whether the pool was closed.
    """

    __slots__ = ("_idle_timeout", "closed", "leases", "table")

    def __init__(
        self, connections: int, per_origin: int | None, idle_timeout: float | None
    ) -> None:
        self._idle_timeout = math.inf if idle_timeout is None else idle_timeout
        self.table: SlotTable[Origin, ClientConnection] = SlotTable(
            connections, per_origin
        )
        self.leases: set[Lease] = set()
        self.closed: bool = False

    def check_open(self) -> None:
        """Check that the pool was not closed.

        Raises:
            trio.ClosedResourceError: It was.
        """
        if self.closed:
            raise trio.ClosedResourceError("this pool is closed")

    async def close_idle(self, seconds: float | None = None) -> None:
        """Close the connections that have been idle for ``seconds`` or longer.

        No checkpoint for kernel sockets of ours, and never cancelled.

        Args:
            seconds: None means the timeout of the pool.
        """
        seconds = self._idle_timeout if seconds is None else seconds
        before = trio.current_time() - seconds
        while (expired := self.table.take_expired(before)) is not None:
            origin, connection = expired
            try:
                await connection.close_without_wait()
            finally:
                # Not before: there are never more connections than slots.
                self.table.release(origin)

    async def close(self) -> None:
        """Close all connections, and let all that waits or goes on fail."""
        self.closed = True
        for connection in self.table.close():
            await connection.close_without_wait()
        for lease in [*self.leases]:
            await lease.cut()


@final
class Lease:
    """What one request has: its place in the order, then a slot, then a connection.

    It is over when the connection is idle again or closed.

    Args:
        slots: The slots of the pool.
        origin: What the connection must be opened to.

    Attributes:
        origin: As given.
        dialling: The scope of the attempt to connect, which the end of the pool cancels.
    """

    __slots__ = ("_over", "_slots", "_ticket", "_wake", "dialling", "origin")

    def __init__(self, slots: PoolSlots, origin: Origin) -> None:
        self.origin = origin
        self.dialling: trio.CancelScope | None = None
        self._slots = slots
        self._wake = trio.Event()
        self._ticket: Ticket[Origin, ClientConnection] = Ticket(origin, self._wake.set)
        self._over = False

    @property
    def connection(self) -> ClientConnection | None:
        """The connection; None before it was dialled."""
        return self._ticket.connection

    @connection.setter
    def connection(self, connection: ClientConnection | None) -> None:
        self._ticket.connection = connection

    async def acquire(self) -> None:
        """Wait for a slot, perhaps with an idle connection in it.

        After an exception :meth:`drop` has still to be called.

        Raises:
            trio.ClosedResourceError: The pool is closed.
        """
        slots, ticket = self._slots, self._ticket
        await slots.close_idle()
        slots.check_open()
        slots.leases.add(self)
        slots.table.ask(ticket)
        if not ticket.granted:
            try:
                await self._wake.wait()
            except BaseException:
                if ticket.connection is not None and not slots.closed:
                    # It came too late, and is as good as it was.
                    self._give_back(ticket.connection)
                raise
        slots.check_open()
        await self._close_evicted()

    async def finish(self) -> None:
        """Give the connection back, after the end of the response has been read."""
        connection = self.connection
        if connection is not None and connection.reusable:
            await self._slots.close_idle()
            # The pool may have been closed meanwhile, and the connection with it.
            if not self._over and connection.reusable:
                self._give_back(connection)
        await self.drop()

    def _give_back(self, connection: ClientConnection) -> None:
        self._leave()
        self._slots.table.put(self.origin, connection, trio.current_time())

    async def drop(self) -> None:
        """Close the connection and free the slot, unless the connection was given back.

        No checkpoint for a kernel socket of ours, and never cancelled.
        """
        if self._over:
            return
        self._leave()
        ticket, table = self._ticket, self._slots.table
        try:
            await self._close_evicted()
            if ticket.connection is not None:
                await ticket.connection.close_without_wait()
        finally:
            if ticket.granted:
                table.release(self.origin)
            else:
                table.withdraw(ticket)

    async def cut(self) -> None:
        """Close the connections that this request has, while its task goes on."""
        if self.dialling is not None:
            self.dialling.cancel(reason="the pool was closed")
        await self._close_evicted()
        if self.connection is not None:
            await self.connection.cut()

    async def _close_evicted(self) -> None:
        # The connection that had the slot before.
        evicted, self._ticket.evicted = self._ticket.evicted, None
        if evicted is not None:
            await evicted.close_without_wait()

    def _leave(self) -> None:
        self._over = True
        self._slots.leases.discard(self)
