# The state that the connections of one server share: limits, options, deadlines, counts,
# the drain.  Server is the part of it that users see.
from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, final

import trio

from .._errors import Unavailable
from .._util import check_seconds
from .dates import DateClock
from .deadlines import Deadlines
from .end_reason import EndReason
from .episode import Episode
from .observers import LOGGER
from .statistics import ServerStatistics

if TYPE_CHECKING:
    from .._limits import Limits
    from .._streams.trusted_peers import TrustedPeers
    from .connection_task import ConnectionTask
    from .observers import Observers


def check_grace(grace: float | None) -> float:
    """Return the seconds of a grace, infinity for None.

    Raises:
        TypeError: It is neither a number nor None.
        ValueError: It is negative.
    """
    check_seconds("a grace", grace)
    return math.inf if grace is None else grace


def check_jitter(jitter: float | None) -> float:
    """Return the seconds of a jitter, 0 for None.

    Raises:
        TypeError: It is neither a number nor None.
        ValueError: It is negative or infinite.
    """
    check_seconds("a jitter", jitter)
    if jitter == math.inf:
        raise ValueError("a jitter must be finite: the last ones would never be told")
    return jitter or 0


@final
class ServerState:
    """The state of a server that its connections share.

    Args:
        limits: The limits of the connections.
        strict: Whether exceptions of the app are raised from the serving function.
        close_on_optimistic_data: Whether a refused offer ends its connection if bytes
            after the request have already come.
        observers: The user's observer and the log.
        proxy_protocol: The peers whose connections begin with a PROXY protocol header;
            None if there are none.

    Attributes:
        dates: The Date field of responses.
        deadlines: The deadlines of the connections.
        leaving: Whether the server will drain soon, or drains.
        draining: Set when the drain begins.
        ended: Set when every socket is closed.
        must_close_now: Whether connections must end without waiting for anything.
        total_requests: Requests since the start.
        total_refused: Header sections refused, or too slow, since the start.
        total_responses: Final answers since the start, by the first digit of the status.
        total_upgraded: Switches since the start.
        total_errors: Exceptions of apps and handlers since the start.
        total_tls_failed: Failures of TLS since the start.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        strict: bool,
        close_on_optimistic_data: bool,
        observers: Observers,
        proxy_protocol: TrustedPeers | None = None,
    ) -> None:
        self.limits: Limits = limits
        self.strict: bool = strict
        self.close_on_optimistic_data: bool = close_on_optimistic_data
        self.observers: Observers = observers
        self.proxy_protocol: TrustedPeers | None = proxy_protocol
        self.dates: DateClock = DateClock()
        self.deadlines: Deadlines = Deadlines(limits, self._end_grace)
        self.leaving: bool = False
        self.draining: trio.Event = trio.Event()
        self.ended: trio.Event = trio.Event()
        self.must_close_now: bool = False
        self.total_requests: int = 0
        self.total_refused: int = 0
        self.total_responses: list[int] = [0] * 10
        self.total_upgraded: int = 0
        self.total_errors: int = 0
        self.total_tls_failed: int = 0
        self._connections: set[ConnectionTask] = set()
        # Cancelled by a drain; a loop that has accepted its last connection is removed.
        self._accepting: set[trio.CancelScope] = set()
        self._full = Episode()
        self._total_connections = 0
        self._upgraded = 0
        # Set when a connection or an accept loop is removed, if a task waits for that.
        self._removed = trio.Event()
        self._removal_awaited = False

    ################################################################
    # Connections
    ################################################################

    async def wait_capacity(self) -> None:
        """Wait until another connection may be served; no checkpoint if it may now."""
        limit = self.limits.connections
        while limit is not None and len(self._connections) >= limit:
            if self._full.begins():
                LOGGER.warning(
                    "as many connections as Limits.connections allows, %d: others wait",
                    limit,
                )
            self._removal_awaited = True
            await self._removed.wait()

    @property
    def capacity(self) -> int:
        """How many more connections may be served."""
        limit = self.limits.connections
        return sys.maxsize if limit is None else limit - len(self._connections)

    def add(self, connection: ConnectionTask) -> None:
        """Add a connection to the counts and to the drain."""
        self._connections.add(connection)
        self._total_connections += 1
        if self.must_close_now:
            connection.expire(EndReason.DRAINED)

    def remove(self, connection: ConnectionTask, *, upgraded: bool) -> None:
        """Remove a connection, which is closed."""
        self._connections.discard(connection)
        self.deadlines.turns.remove(connection)
        if upgraded:
            self._upgraded -= 1
        if self._removal_awaited:
            self._wake_waiting()

    def _wake_waiting(self) -> None:
        self._removal_awaited = False
        self._removed.set()
        self._removed = trio.Event()

    def serves_task(self, task: trio.lowlevel.Task) -> bool:
        """Tell whether a task is that of a connection, or a descendant of such a task."""
        current: trio.lowlevel.Task | None = task
        below: trio.Nursery | None = None
        while current is not None:
            for connection in self._connections:
                # Nurseries that the task opened before it began to serve do not count.
                inside = current.child_nurseries[connection.depth :]
                if connection.task is current and (below is None or below in inside):
                    return True
            below = current.parent_nursery
            current = None if below is None else below.parent_task
        return False

    def statistics(self, *, waiting: int = 0) -> ServerStatistics:
        """Return the current counts.

        Args:
            waiting: How many connections wait in the backlogs of the listeners.
        """
        responses = self.total_responses
        return ServerStatistics(
            waiting=waiting,
            connections=len(self._connections),
            idle=sum(connection.idle for connection in self._connections),
            upgraded=self._upgraded,
            total_connections=self._total_connections,
            total_requests=self.total_requests,
            total_refused=self.total_refused,
            total_2xx=responses[2],
            total_3xx=responses[3],
            total_4xx=responses[4],
            total_5xx=responses[5],
            total_other=sum(responses[6:]),
            total_upgraded=self.total_upgraded,
            total_errors=self.total_errors,
            total_tls_failed=self.total_tls_failed,
            is_draining=self.draining.is_set(),
        )

    ################################################################
    # Switches
    ################################################################

    def reserve_upgrade(self) -> None:
        """Count one more upgraded connection, before anything is awaited.

        Raises:
            Unavailable: There are as many as the limit, or the server drains.
        """
        self.check_draining()
        limit = self.limits.upgraded
        if limit is not None and self._upgraded >= limit:
            raise Unavailable("this server has as many upgraded connections as it may")
        self._upgraded += 1

    def release_upgrade(self) -> None:
        """Undo :meth:`reserve_upgrade`: there was no switch."""
        self._upgraded -= 1

    def check_draining(self) -> None:
        """Check that switches are allowed.

        Raises:
            Unavailable: The server drains.
        """
        if self.draining.is_set():
            raise Unavailable("this server is shutting down")

    ################################################################
    # The end
    ################################################################

    def add_accepting(self, scope: trio.CancelScope) -> None:
        """Add the scope that a loop accepts in; the drain cancels it."""
        self._accepting.add(scope)

    def remove_accepting(self, scope: trio.CancelScope) -> None:
        """Remove the scope of a loop whose last connection was added."""
        self._accepting.discard(scope)
        if self._removal_awaited:
            self._wake_waiting()

    def start_drain(self, grace: float | None, jitter: float | None = None) -> None:
        """Begin to drain, or shorten the grace and the jitter of a drain that runs."""
        seconds = check_grace(grace)
        spread = min(check_jitter(jitter), seconds)
        deadlines = self.deadlines
        deadlines.begin_grace(trio.current_time() + seconds)
        if self.draining.is_set():
            deadlines.turns.shorten(spread)
            return
        self.leaving = True
        self.draining.set()
        for scope in self._accepting:
            scope.cancel(reason="the server drains")
        if spread:
            deadlines.turns.spread(self._connections, spread)
        for connection in list(self._connections):
            if connection.idle and not connection.requests:
                # Its first request may be on the way.
                deadlines.last.arm(connection)
            elif connection.idle and not spread:
                connection.expire(EndReason.DRAINED)
        self._wake_waiting()

    async def wait_drained(self) -> None:
        """Wait until the drain has begun and every connection is closed."""
        await self.draining.wait()
        while self._connections or self._accepting:
            self._removal_awaited = True
            await self._removed.wait()

    def end(self) -> None:
        """End the connections that joined by ``serve_stream``: the serving function ends.

        Without its reaper they would have no deadlines.
        """
        self._expire_all(EndReason.CANCELLED)
        self.ended.set()

    def _end_grace(self) -> None:
        self._expire_all(EndReason.DRAINED)

    def _expire_all(self, reason: EndReason) -> None:
        self.must_close_now = True
        for connection in list(self._connections):
            connection.expire(reason)
