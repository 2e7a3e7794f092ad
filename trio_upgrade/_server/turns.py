# A drain that spreads its goodbyes: each connection has a turn at which it is ended or
# told.  The peers of connections that all end in the same moment come back in the same
# moment, and the server that takes them makes thousands of handshakes while the clients
# that it had before wait.
#
# The turns stand at equal distances.  Random ones would form clumps, and could not be
# tested; clients that wait a random time before they connect again lose nothing by it.
from __future__ import annotations

import math
from itertools import islice
from typing import TYPE_CHECKING, final

import trio

from .end_reason import EndReason

if TYPE_CHECKING:
    from collections.abc import Collection

    from .connection_task import ConnectionTask

# Turns that come in one pass of the reaper, before other tasks run.
_BATCH = 64


@final
class Turns:
    """The connections that will be told of the drain, in the order of their turns.

    Empty until a drain begins that spreads its goodbyes, and again when it has told all.
    """

    __slots__ = ("_due", "_last", "_tasks", "_told")

    def __init__(self) -> None:
        self._due: dict[ConnectionTask, float] = {}
        # The connections by their tasks.
        self._tasks: dict[trio.lowlevel.Task | None, ConnectionTask] = {}
        # What the tasks of a connection wait for, if any does.
        self._told: dict[ConnectionTask, trio.Event] = {}
        self._last = math.inf

    def spread(self, connections: Collection[ConnectionTask], seconds: float) -> None:
        """Give connections turns at equal distances, the first one now."""
        now = trio.current_time()
        self._last = now + seconds
        self._tasks = {connection.task: connection for connection in connections}
        self._due = {
            connection: now + seconds * number / len(connections)
            for number, connection in enumerate(connections)
        }

    def shorten(self, seconds: float) -> None:
        """Spread the turns that are left over these seconds, unless they are sooner."""
        if trio.current_time() + seconds < self._last:
            self.spread([*self._due], seconds)

    def remove(self, connection: ConnectionTask) -> None:
        """Remove a connection, which is closed."""
        if self._due.pop(connection, None) is not None:
            self._tell(connection)

    def expire(self, now: float) -> float:
        """Tell the connections whose turn has come, at most a batch.

        Returns:
            When the next turn is; not after ``now`` if others are due already.
        """
        for connection, due in list(islice(self._due.items(), _BATCH)):
            if due > now:
                return due
            del self._due[connection]
            self._tell(connection)
            if connection.idle and connection.requests:
                connection.expire(EndReason.DRAINED)
        return next(iter(self._due.values()), math.inf)

    def _tell(self, connection: ConnectionTask) -> None:
        if connection in self._told:
            self._told.pop(connection).set()
        if not self._due:
            self._tasks = {}

    async def wait(self, task: trio.lowlevel.Task) -> None:
        """Wait for the turn of the connection that a task works for, if it has one."""
        connection = self._find(task)
        while connection in self._due:
            await self._told.setdefault(connection, trio.Event()).wait()

    def _find(self, task: trio.lowlevel.Task | None) -> ConnectionTask | None:
        # The task of a connection, or a descendant of it.
        while task is not None and task not in self._tasks:
            nursery = task.parent_nursery
            task = None if nursery is None else nursery.parent_task
        return None if task is None else self._tasks[task]
