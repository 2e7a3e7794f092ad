# Exact deadlines for many connections.  One ordered dict for each kind of deadline: all
# of a kind last equally long, so what was armed first is due first.  Arming is two dict
# operations; a cancel scope for each phase would cost a request 7 to 18 percent, and
# moving the deadline of one scope about half of that.  One task looks at the heads of
# the dicts when the earliest is due.
from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol, final

import trio

from .records import EndReason

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._limits import Limits


class Expirable(Protocol):
    """What a deadline is for."""

    def expire(self, reason: EndReason) -> None: ...


@final
class DeadlineQueue:
    """All running deadlines of one kind.

    Args:
        owner: Whose reaper it is looked after by.
        seconds: How long each lasts, None for ever.
        reason: What its passing means.
    """

    __slots__ = ("_due", "_owner", "_reason", "_seconds")

    def __init__(
        self, owner: Deadlines, seconds: float | None, reason: EndReason
    ) -> None:
        self._owner = owner
        self._seconds = seconds
        self._reason = reason
        self._due: dict[Expirable, float] = {}

    def arm(self, what: Expirable) -> None:
        """Begin a deadline, or begin it anew."""
        if self._seconds is None:
            return
        due = self._due
        # A key that is there keeps its place, and the order is what all rests on.
        due.pop(what, None)
        deadline = due[what] = trio.current_time() + self._seconds
        if deadline < self._owner.wakes_at:
            self._owner.wake()

    def disarm(self, what: Expirable) -> None:
        """End a deadline, if it runs."""
        self._due.pop(what, None)

    def expire(self, now: float) -> float:
        """Expire whatever is due; return when the next one is."""
        expired: list[Expirable] = []
        earliest = math.inf
        for what, deadline in self._due.items():
            if deadline > now:
                earliest = deadline
                break
            expired.append(what)
        for what in expired:
            del self._due[what]
            what.expire(self._reason)
        return earliest


@final
class Deadlines:
    """The deadlines of a server.

    Args:
        limits: How long each is.
        end_grace: Called when the grace of a drain is over.

    Attributes:
        header: From accept to the end of the first head, TLS included; of the later
            ones from their first byte.
        keep_alive: Between requests.
        response: From a head to its answer.
        wakes_at: When the reaper will look next.
    """

    __slots__ = (
        "_end_grace",
        "_grace_ends",
        "_grace_is_over",
        "_woken",
        "header",
        "keep_alive",
        "response",
        "wakes_at",
    )

    def __init__(self, limits: Limits, end_grace: Callable[[], None]) -> None:
        self._end_grace = end_grace
        self._grace_ends = math.inf
        self._grace_is_over = False
        make = DeadlineQueue
        self.header: DeadlineQueue = make(
            self, limits.header_timeout, EndReason.SLOW_HEADER
        )
        self.keep_alive: DeadlineQueue = make(
            self, limits.keep_alive_timeout, EndReason.IDLE
        )
        self.response: DeadlineQueue = make(
            self, limits.response_timeout, EndReason.SLOW_RESPONSE
        )
        self.wakes_at: float = math.inf
        self._woken = trio.Event()

    def wake(self) -> None:
        """Let the reaper look anew: something is due before it would."""
        self._woken.set()

    def begin_grace(self, deadline: float) -> None:
        """Let the grace end at this time, or when it would have anyway."""
        self._grace_ends = min(self._grace_ends, deadline)
        self.wake()

    def disarm(self, what: Expirable) -> None:
        """End every deadline of this one."""
        for queue in self._queues():
            queue.disarm(what)

    async def run(self) -> None:
        """Expire what is due, until cancelled."""
        while True:
            now = trio.current_time()
            self._woken = trio.Event()
            wakes_at = min(queue.expire(now) for queue in self._queues())
            if now < self._grace_ends:
                wakes_at = min(wakes_at, self._grace_ends)
            elif not self._grace_is_over:
                self._grace_is_over = True
                self._end_grace()
            self.wakes_at = wakes_at
            with trio.move_on_at(self.wakes_at):
                await self._woken.wait()

    def _queues(self) -> tuple[DeadlineQueue, ...]:
        return self.header, self.keep_alive, self.response
