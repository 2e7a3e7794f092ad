# Watches the client of an answer that the app sends piece by piece.  While the app is
# silent, no failed send tells that the client is gone, and a generator that waits for
# news could wait for ever.
#
# The watch is an entry in a queue of deadlines first, and becomes a task only for an
# answer that is still under way after 50 ms.  A task for each answer would take more time
# than a short answer does.
#
# An end of the client's side may be a half-close (`nc -N`), and the client reads on: an
# answer that makes progress is not cut.
from __future__ import annotations

from typing import TYPE_CHECKING, final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._limits import Limits
    from .deadlines import Deadlines
    from .http import ServerHTTP
    from .receive_turn import ReceiveTurn

# Seconds between two looks, if the client has ended its side and a send goes on.
_BETWEEN_LOOKS = 0.1


@final
class SilenceWatch:
    """Cuts an answer in which the app is silent and whose client is gone.

    Args:
        http: The HTTP half that sends the answer.
        get_turn: Returns the turn to receive from it.
        deadlines: They run the task that watches.
        limits: The limits.
    """

    __slots__ = ("_deadlines", "_get_turn", "_http", "_limits", "_scope", "_stopped")

    def __init__(
        self,
        http: ServerHTTP,
        get_turn: Callable[[ServerHTTP], ReceiveTurn],
        deadlines: Deadlines,
        limits: Limits,
    ) -> None:
        self._http = http
        self._get_turn = get_turn
        self._deadlines = deadlines
        self._limits = limits
        # Of the task; None until it runs.
        self._scope: trio.CancelScope | None = None
        self._stopped = False
        deadlines.unwatched.arm(self.run)

    def stop(self) -> None:
        """End the watch: the answer is over."""
        self._stopped = True
        self._deadlines.unwatched.disarm(self.run)
        if self._scope is not None:
            self._scope.cancel()

    async def run(self) -> None:
        """Watch until the client is gone or the watch is stopped."""
        if self._stopped:
            # After this task was started and before it ran.  Now the connection may
            # itself be receiving the next request.
            return
        self._scope = trio.CancelScope()
        try:
            with self._scope:
                await self._wait_gone()
                self._http.drop_client(None)
        except Exception as exc:
            # A stream of the user's may raise anything.  It must not end the server.
            self._http.drop_client(exc)

    async def _wait_gone(self) -> None:
        http, linger = self._http, self._limits.linger
        while not http.lost:
            if not http.ended:
                await http.watch(self._get_turn(http), self._limits.read_ahead)
                continue
            if linger is None:
                await trio.sleep_forever()
            now = trio.current_time()
            if http.silent_since + linger <= now:
                return
            soon = now + max(linger, _BETWEEN_LOOKS)
            await trio.sleep_until(min(http.silent_since + linger, soon))
