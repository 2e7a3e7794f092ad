# Exact deadlines for many connections.  There is one ordered dict for each kind of
# deadline: all of a kind last equally long, so the one that was armed first is due first.
# Arming costs two dict operations; a cancel scope for each phase would cost a request 7
# to 18 percent, and moving the deadline of one scope about half of that.  One task, the
# reaper, checks the first entry of each dict when the earliest is due.  Connection and
# Exchange arm and disarm them.
from __future__ import annotations

import math
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar, final

import trio

from .end_reason import EndReason
from .turns import Turns

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .._limits import Limits
    from .connection_task import ConnectionTask

    Watch: TypeAlias = Callable[[], Awaitable[None]]

T = TypeVar("T")

# Seconds that a new connection has for its first request once a drain has begun, as in
# Go's http.Server: its client may have sent the request already.
_LAST_SECONDS = 5.0
# Connections of one kind to expire before other tasks get their turn.  If 10,000 are due
# in one pass, a request of another connection would otherwise wait for the end of all.
_BATCH = 64
# Seconds until the client of an answer that the app sends piece by piece, or of a block
# that its leaving cancels, is watched.  A shorter time would cost short answers a task.
# With 0.1 the upstream of a proxy was told after 102 ms that its client has left; 0.1 is
# what proxies promise.
_UNWATCHED_SECONDS = 0.05


@final
class DeadlineQueue(Generic[T]):
    """All running deadlines of one kind, each of a connection or of an answer.

    Args:
        owner: The deadlines that this queue is a part of; its reaper checks this queue.
        seconds: How long each deadline lasts; None disables it.
        expire: Called with the connection whose deadline has passed.
    """

    __slots__ = ("_due", "_expire", "_owner", "_seconds")

    def __init__(
        self, owner: Deadlines, seconds: float | None, expire: Callable[[T], None]
    ) -> None:
        self._owner = owner
        self._seconds = seconds
        self._expire = expire
        self._due: dict[T, float] = {}

    def arm(self, connection: T) -> None:
        """Start a connection's deadline, or start it again."""
        if self._seconds is None:
            return
        due = self._due
        # Popped first, since a key that is present would keep its old place in the order.
        due.pop(connection, None)
        deadline = due[connection] = trio.current_time() + self._seconds
        if deadline < self._owner.wakes_at:
            self._owner.wake()

    def is_armed(self, connection: T) -> bool:
        """Tell whether a connection's deadline runs."""
        return connection in self._due

    def disarm(self, connection: T) -> None:
        """Stop a connection's deadline, if it runs."""
        self._due.pop(connection, None)

    def expire(self, now: float) -> float:
        """Expire the connections that are due, at most a batch.

        Returns:
            When the next one is due; not after ``now`` if others are due already.
        """
        first = list(islice(self._due.items(), _BATCH))
        for connection, deadline in first:
            if deadline > now:
                return deadline
            del self._due[connection]
            self._expire(connection)
        return next(iter(self._due.values()), math.inf)


@final
class Deadlines:
    """The deadlines of a server.

    Args:
        limits: They say how long each deadline lasts.
        end_grace: Called when the grace of a drain is over.

    Attributes:
        header: From accept to the end of the first header section, TLS included; for
            later ones from their first byte.
        keep_alive: Between two requests.
        response: From the end of a header section to the beginning of its answer.
        last: From the beginning of a drain to the first byte of the last request, for
            connections that may have one.
        unwatched: From the beginning of an answer that the app sends piece by piece, or
            of a block that the client's leaving cancels, to that of its watch.
        turns: When connections are told of a drain that spreads its goodbyes.
        wakes_at: When the reaper will check next, by Trio's clock.
    """

    __slots__ = (
        "_end_grace",
        "_grace_ends",
        "_grace_is_over",
        "_watches",
        "_woken",
        "header",
        "keep_alive",
        "last",
        "response",
        "turns",
        "unwatched",
        "wakes_at",
    )

    def __init__(self, limits: Limits, end_grace: Callable[[], None]) -> None:
        self._end_grace = end_grace
        self._grace_ends = math.inf
        self._grace_is_over = False
        # The nursery of the tasks that watch clients; None while the reaper does not run.
        self._watches: trio.Nursery | None = None
        self.header: DeadlineQueue[ConnectionTask] = DeadlineQueue(
            self, limits.header_timeout, _end_by(EndReason.SLOW_HEADER)
        )
        self.keep_alive: DeadlineQueue[ConnectionTask] = DeadlineQueue(
            self, limits.keep_alive_timeout, _end_by(EndReason.IDLE)
        )
        self.response: DeadlineQueue[ConnectionTask] = DeadlineQueue(
            self, limits.response_timeout, _end_by(EndReason.SLOW_RESPONSE)
        )
        self.last: DeadlineQueue[ConnectionTask] = DeadlineQueue(
            self, _LAST_SECONDS, _end_by(EndReason.DRAINED)
        )
        self.unwatched: DeadlineQueue[Watch] = DeadlineQueue(
            self, _UNWATCHED_SECONDS, self.start_watch
        )
        self.turns: Turns = Turns()
        self.wakes_at: float = math.inf
        self._woken = trio.Event()

    def wake(self) -> None:
        """Make the reaper check now: a new deadline is due before its next check."""
        self._woken.set()

    def begin_grace(self, deadline: float) -> None:
        """End the grace at this time, or earlier if it was set to end earlier."""
        self._grace_ends = min(self._grace_ends, deadline)
        self.wake()

    def disarm(self, connection: ConnectionTask) -> None:
        """Stop every deadline of a connection."""
        for queue in (self.header, self.keep_alive, self.response, self.last):
            queue.disarm(connection)

    def start_watch(self, watch: Watch) -> None:
        """Run a task that watches a client, which must not raise an Exception.

        It runs until it returns, or until the server ends: then every connection ends,
        and nothing needs to be watched any more.
        """
        if self._watches is not None:
            self._watches.start_soon(watch, name="trio_upgrade watch")

    async def run(self) -> None:
        """Run the reaper: expire the connections that are due, until cancelled."""
        async with trio.open_nursery() as self._watches:
            try:
                await self._reap()
            finally:
                self._watches = None

    async def _reap(self) -> None:
        while True:
            now = trio.current_time()
            self._woken = trio.Event()
            wakes_at = min(queue.expire(now) for queue in self._queues())
            wakes_at = min(wakes_at, self.turns.expire(now))
            if now < self._grace_ends:
                wakes_at = min(wakes_at, self._grace_ends)
            elif not self._grace_is_over:
                self._grace_is_over = True
                self._end_grace()
            self.wakes_at = wakes_at
            if wakes_at <= now:
                await trio.lowlevel.checkpoint()
                continue
            with trio.move_on_at(wakes_at):
                await self._woken.wait()

    def _queues(self) -> tuple[DeadlineQueue[Any], ...]:
        return self.header, self.keep_alive, self.response, self.last, self.unwatched


def _end_by(reason: EndReason) -> Callable[[ConnectionTask], None]:
    return lambda connection: connection.expire(reason)
