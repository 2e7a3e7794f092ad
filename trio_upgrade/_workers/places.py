# The listening sockets of all workers, as the supervisor holds them.  It keeps them open
# while workers come and go, so that what waits in a backlog waits for the next worker.
from __future__ import annotations

from typing import TYPE_CHECKING, final

from .._streams.tcp_listeners import find_addresses, open_beside

if TYPE_CHECKING:
    from .._streams.socket_listener import DirectSocketListener

# How many connections a worker accepts at a time from a socket that it shares.  With the
# usual number the first one awake takes all that came together: of 32 connections two
# workers had 30 and 2, with this number 19 and 13, as with a socket for each of them.
_SHARED_BATCH = 4


@final
class Places:
    """The listening sockets: one for all places, or one for each place.

    Args:
        listeners: Those of the first place. They are owned from now on.
        places: The number of places.
        shared: Whether they are those of the other places, too. Otherwise these have
            their own on the same addresses, for which ``reuse_port`` is needed.
        backlog: For further ones; None means the kernel's maximum.

    Raises:
        OSError: An address cannot be listened on once more. Everything is closed.
    """

    def __init__(
        self,
        listeners: list[DirectSocketListener],
        places: int,
        *,
        shared: bool,
        backlog: int | None,
    ) -> None:
        self._shared = shared
        self._backlog = backlog
        self._addresses = find_addresses(listeners)
        # None where connections would wait for nothing.
        self._listeners: list[list[DirectSocketListener] | None] = [listeners]
        if shared and places > 1:
            for listener in listeners:
                listener.batch = _SHARED_BATCH
        try:
            for place in range(1, places):
                self._listeners.append(listeners if shared else None)
                self.open(place)
        except BaseException:
            self.close()
            raise

    def open(self, place: int) -> list[DirectSocketListener]:
        """Return the listeners of a place.

        Raises:
            OSError: They were closed, and cannot be opened again.
        """
        listeners = self._listeners[place]
        if listeners is None:
            listeners = open_beside(self._addresses, backlog=self._backlog)
            self._listeners[place] = listeners
        return listeners

    def vacate(self, place: int) -> None:
        """Close the listeners of a place, unless other places have them, too."""
        listeners = self._listeners[place]
        if not self._shared and listeners is not None:
            self._listeners[place] = None
            _close(listeners)

    def close(self, *, but: int | None = None) -> None:
        """Close the listeners of all places, but not those of one."""
        kept = None if but is None else self._listeners[but]
        for listeners in self._listeners:
            if listeners is not None and listeners is not kept:
                _close(listeners)


def _close(listeners: list[DirectSocketListener]) -> None:
    for listener in listeners:
        listener.close_outside_trio()
