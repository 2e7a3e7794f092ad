# What the connections of one server share: bounds, deadlines, counts, the drain, and
# whoever watches.  Its public face is Server.
from __future__ import annotations

import logging
import math
import sys
from typing import TYPE_CHECKING, Protocol, TypeVar, final

import trio

from .._errors import Unavailable
from .._streams.upgraded import UpgradedStream
from .dates import DateClock
from .deadlines import Deadlines, Expirable
from .records import EndReason, EndRecord, ErrorRecord, ServerStatistics

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._limits import Limits
    from .._streams.underlying import Peer
    from .records import RequestRecord, SwitchRecord
    from .request import Request

RecordT = TypeVar("RecordT")

_LOGGER = logging.getLogger("trio_upgrade.server")


class Served(Expirable, Protocol):
    """One connection, as the state sees it."""

    @property
    def idle(self) -> bool: ...

    @property
    def task(self) -> trio.lowlevel.Task | None: ...

    @property
    def depth(self) -> int: ...

    @property
    def protocol(self) -> str | None: ...

    @property
    def requests(self) -> int: ...

    @property
    def began(self) -> float: ...


def check_grace(grace: float | None) -> float:
    """Return the seconds of a grace, infinity for None.

    Raises:
        ValueError: It is negative.
    """
    seconds = math.inf if grace is None else grace
    if not seconds >= 0:
        raise ValueError(f"a grace must not be negative, not {grace!r}")
    return seconds


@final
class ServerState:
    """The shared part of a server.

    Args:
        limits: The bounds.
        strict: Whether exceptions of the app come out.
        close_on_optimistic_data: Whether a refused offer ends its connection if bytes
            follow it already.
        observer: Has any of ``request``, ``switched``, ``ended`` and ``error``.

    Attributes:
        dates: The Date of responses.
        deadlines: Those of the connections.
        draining: Set when the drain begins.
        ended: Set when all is over.
        is_over: Whether nobody is waited for any more, not even for a polite close.
        on_request: Of the observer; None where it has none, as the other three.
        wants_peers: Whether it wants to know of the ends, or errors, of connections.
        wants_times: Whether it wants to know how long requests and switches took.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        strict: bool,
        close_on_optimistic_data: bool,
        observer: object | None,
    ) -> None:
        self.limits: Limits = limits
        self.strict: bool = strict
        self.close_on_optimistic_data: bool = close_on_optimistic_data
        self.dates: DateClock = DateClock()
        self.deadlines: Deadlines = Deadlines(limits, self._end_grace)
        self.draining: trio.Event = trio.Event()
        self.ended: trio.Event = trio.Event()
        self.is_over: bool = False
        self.on_request: Callable[[RequestRecord], object] | None
        self.on_request = getattr(observer, "request", None)
        self.on_switch: Callable[[SwitchRecord], object] | None
        self.on_switch = getattr(observer, "switched", None)
        self.on_end: Callable[[EndRecord], object] | None
        self.on_end = getattr(observer, "ended", None)
        self.on_error: Callable[[ErrorRecord], object] | None
        self.on_error = getattr(observer, "error", None)
        self.wants_peers: bool = self.on_end is not None or self.on_error is not None
        self.wants_times: bool = (
            self.on_request is not None or self.on_switch is not None
        )
        self.total_requests: int = 0
        self.total_errors: int = 0
        self._connections: set[Served] = set()
        self._accepting: list[trio.CancelScope] = []
        self._total_connections = 0
        self._upgraded = 0
        self._total_upgraded = 0
        # Set when a connection has left, if somebody waits for that.
        self._left = trio.Event()
        self._awaited = False

    ################################################################
    # Connections
    ################################################################

    async def wait_capacity(self) -> None:
        """Wait until another connection may be served; no checkpoint if it may now."""
        bound = self.limits.connections
        while bound is not None and len(self._connections) >= bound:
            self._awaited = True
            await self._left.wait()

    @property
    def capacity(self) -> int:
        """How many more connections may be served."""
        bound = self.limits.connections
        return sys.maxsize if bound is None else bound - len(self._connections)

    def add(self, connection: Served) -> None:
        """Count a connection in."""
        self._connections.add(connection)
        self._total_connections += 1
        if self.is_over:
            connection.expire(EndReason.DRAINED)

    def remove(self, connection: Served, *, upgraded: bool) -> None:
        """Count a connection out; it is closed."""
        self._connections.discard(connection)
        if upgraded:
            self._upgraded -= 1
        if self._awaited:
            self._tell_left()

    def _tell_left(self) -> None:
        self._awaited = False
        self._left.set()
        self._left = trio.Event()

    def reserve_upgrade(self) -> None:
        """Take one of the places for upgraded connections, before anything is awaited.

        Raises:
            Unavailable: There is none, or the server drains.
        """
        self.check_draining()
        bound = self.limits.upgraded
        if bound is not None and self._upgraded >= bound:
            raise Unavailable("this server has as many upgraded connections as it may")
        self._upgraded += 1

    def release_upgrade(self) -> None:
        """Give the place back: there was no switch."""
        self._upgraded -= 1

    def check_draining(self) -> None:
        """Check if there may be a switch at all.

        Raises:
            Unavailable: The server drains.
        """
        if self.draining.is_set():
            raise Unavailable("this server is shutting down")

    def count_switch(self) -> None:
        """Count a switch, whose place was reserved."""
        self._total_upgraded += 1

    def serves_task(self, task: trio.lowlevel.Task) -> bool:
        """Tell whether a task is one of a connection, or was started below one."""
        current: trio.lowlevel.Task | None = task
        below: trio.Nursery | None = None
        while current is not None:
            for connection in self._connections:
                # What the task opened before it began to serve is not waited for.
                inside = current.child_nurseries[connection.depth :]
                if connection.task is current and (below is None or below in inside):
                    return True
            below = current.parent_nursery
            current = None if below is None else below.parent_task
        return False

    def statistics(self) -> ServerStatistics:
        """Return the counts of now."""
        return ServerStatistics(
            connections=len(self._connections),
            idle=sum(connection.idle for connection in self._connections),
            upgraded=self._upgraded,
            total_connections=self._total_connections,
            total_requests=self.total_requests,
            total_upgraded=self._total_upgraded,
            total_errors=self.total_errors,
            is_draining=self.draining.is_set(),
        )

    def report_error(
        self, peer: Peer, request: Request | None, error: Exception
    ) -> None:
        """Tell of what an app has raised, or of what broke in serving: log, observer.

        A strict server raises it as well, so that nobody need log it.
        """
        if self.on_error is not None:
            self.notify(self.on_error, ErrorRecord(peer, request, error))
        if self.strict:
            return
        if request is None:
            _LOGGER.error("error while serving a connection", exc_info=error)
        else:
            message = "error in the app, serving %r to %s"
            _LOGGER.error(message, request, peer, exc_info=error)

    def report_end(
        self,
        connection: Served,
        stream: trio.abc.Stream,
        peer: Peer,
        reason: EndReason,
    ) -> None:
        """Tell the observer of the end of a connection, and of what went through it."""
        assert self.on_end is not None
        switched = stream if isinstance(stream, UpgradedStream) else None
        record = EndRecord(
            peer=peer,
            reason=reason,
            protocol=connection.protocol,
            requests=connection.requests,
            received=0 if switched is None else switched.received,
            sent=0 if switched is None else switched.sent,
            seconds=trio.current_time() - connection.began,
        )
        self.notify(self.on_end, record)

    def notify(self, callback: Callable[[RecordT], object], record: RecordT) -> None:
        """Call an observer; what it raises is logged and stops nothing."""
        try:
            callback(record)
        except Exception as exc:
            _LOGGER.error("error in the observer, at %r", record, exc_info=exc)

    ################################################################
    # The end
    ################################################################

    def accept_until_drained(self) -> trio.CancelScope:
        """Return a scope to accept in, which the drain cancels."""
        scope = trio.CancelScope()
        self._accepting.append(scope)
        return scope

    def start_drain(self, grace: float | None) -> None:
        """Begin to drain, or shorten the grace of a drain that has begun."""
        self.deadlines.begin_grace(trio.current_time() + check_grace(grace))
        if self.draining.is_set():
            return
        self.draining.set()
        for scope in self._accepting:
            scope.cancel(reason="the server drains")
        for connection in list(self._connections):
            if connection.idle:
                connection.expire(EndReason.DRAINED)
        self._tell_left()

    async def wait_drained(self) -> None:
        """Wait until the drain has begun and every connection is closed."""
        await self.draining.wait()
        while self._connections:
            self._awaited = True
            await self._left.wait()

    def end(self) -> None:
        """Take in that nobody serves any more; what has joined from elsewhere ends, too.

        Without the reaper it would have no deadlines.
        """
        self._expire_all(EndReason.CANCELLED)
        self.ended.set()

    def _end_grace(self) -> None:
        self._expire_all(EndReason.DRAINED)

    def _expire_all(self, reason: EndReason) -> None:
        self.is_over = True
        for connection in list(self._connections):
            connection.expire(reason)
