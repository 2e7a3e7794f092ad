# A block of an app that is cancelled when its client leaves.  The task that watches runs
# in the server, beside the reaper of the deadlines, and not in a nursery of the block: a
# nursery would put what the body raises into a group.
#
# The task is started only for a block that is still running after a moment, as that of a
# SilenceWatch is: it would take more time than a short request does.
from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, final

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from .deadlines import Deadlines


@final
class DisconnectScope(AbstractAsyncContextManager[trio.CancelScope, bool]):
    """The block; made by :meth:`Request.cancelled_on_disconnect`.

    Args:
        wait: Waits for the client; returns whether it is gone.
        deadlines: They run the task that watches; None if nothing is to be watched.
    """

    __slots__ = ("_deadlines", "_failure", "_scope", "_wait", "_watching")

    def __init__(
        self, wait: Callable[[], Awaitable[bool]], deadlines: Deadlines | None
    ) -> None:
        self._wait = wait
        self._deadlines = deadlines
        self._scope = trio.CancelScope()
        self._watching = trio.CancelScope()
        # What a stream of the user's raised while the client was watched.
        self._failure: Exception | None = None

    async def __aenter__(self) -> trio.CancelScope:
        await trio.lowlevel.checkpoint()
        self._scope.__enter__()
        if self._deadlines is not None:
            self._deadlines.unwatched.arm(self._watch)
        return self._scope

    async def _watch(self) -> None:
        try:
            with self._watching:
                if await self._wait():
                    self._scope.cancel(reason="the client is gone")
        except Exception as exc:
            # It must not end the server.  The block raises it.
            self._failure = exc
            self._scope.cancel(reason="the client cannot be watched")

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        # The task that watches may hold the turn to receive until it runs again; who
        # takes the turn next waits for that.
        if self._deadlines is not None:
            self._deadlines.unwatched.disarm(self._watch)
        self._watching.cancel()
        swallowed = self._scope.__exit__(exc_type, exc_value, traceback)
        failure, self._failure = self._failure, None
        try:
            if failure is not None and (swallowed or exc_value is None):
                raise failure from None
        finally:
            del failure
        return swallowed
