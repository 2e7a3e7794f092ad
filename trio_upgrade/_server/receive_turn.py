# The turn to receive on a connection that serves a request.  Tasks of the app may wait
# for the client's end while another task reads the body or switches, but a stream has
# one reader at a time.
#
#               +--> watching: a task waits for the client's end; it gives way
#      free ----+        |
#       ^       +--> claimed: a task reads the body, or switches; it gives way to none but
#       |                |    the connection, once the request is over
#       +----------------+
#            each time the parked tasks are woken, and one of them may take the turn
#
# To give way, a task's receive is cancelled; a cancelled receive loses no bytes.  The
# alternative, a task of ours that always receives, would run for every request.
from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, final

import trio

if TYPE_CHECKING:
    from collections.abc import Generator


@final
class ReceiveTurn:
    """Lets one task of several receive; made when a second task might."""

    __slots__ = ("_claimed", "_parked", "_scope")

    def __init__(self) -> None:
        # Whether a task has the turn, or waits for it, that does not give way.
        self._claimed = False
        # The scope of the receive that goes on; None if no task receives.
        self._scope: trio.CancelScope | None = None
        self._parked = trio.lowlevel.ParkingLot()

    @property
    def is_free(self) -> bool:
        """Whether no task receives or has claimed the turn."""
        return not self._claimed and self._scope is None

    @contextmanager
    def take(self, scope: trio.CancelScope) -> Generator[None, None, None]:
        """Receive inside this scope, which is cancelled if the turn must end."""
        self._scope = scope
        try:
            with scope:
                yield
        finally:
            self._scope = None
            self.wake()

    def claim(self) -> None:
        """Let no other task begin to receive; await :meth:`wait_idle` before receiving.

        Raises:
            trio.BusyResourceError: Another task has claimed the turn.
        """
        if self._claimed:
            raise trio.BusyResourceError("another task is reading the body")
        self._claimed = True

    def release(self) -> None:
        """Undo :meth:`claim`."""
        self._claimed = False
        self.wake()

    async def wait_idle(self) -> None:
        """End the receive that goes on, if any; for the task that claimed the turn."""
        while self._scope is not None:
            self._scope.cancel()
            await self._parked.park()

    def interrupt(self) -> None:
        """End the receive that goes on, whichever task it is of: the request is over."""
        if self._scope is not None:
            self._scope.cancel()
        self.wake()

    async def wait_free(self) -> None:
        """End the receive that goes on, and wait until no task has the turn.

        For the connection, once the request is over.
        """
        while not self.is_free:
            self.interrupt()
            await self._parked.park()

    async def wait_changed(self) -> None:
        """Wait until another task has received, or given up the turn."""
        await self._parked.park()

    def wake(self) -> None:
        """Let the parked tasks look again."""
        self._parked.unpark_all()
