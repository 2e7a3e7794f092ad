# One member of a room, and the messages that wait for it.
#
#   idle ---- message ----> sent, as far as the kernel takes it
#     ^                         |
#     |                         | the rest
#     |                         v
#     +---- nothing waits ---- a writer task ---- too much waits ----> dropped
#
# An idle member has no queue and no task: there may be thousands.
from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, final

import trio

from .._errors import UsageError
from .._streams.closing import move_on_after

if TYPE_CHECKING:
    from types import TracebackType

    from .outlets import Outlet

# Messages that wait are sent together, up to this number of bytes.
_MOST_AT_ONCE = 65536
_WRITER = "trio_upgrade room writer"
_RESET = "trio_upgrade room reset"
# Why the members of a room that closes are dropped.
CLOSED_ROOM = "the room was closed"
_GONE = "its peer is gone"
_CLOSED = "its stream was closed"


@final
class RoomState:
    """What the members of a room share.

    Args:
        pending: Messages that may wait for one member.
        pending_bytes: Bytes that may wait for one member.
        linger: Seconds that a member which leaves has to read its last messages.

    Attributes:
        nursery: Runs the writers, once the room is open.
        is_closed: Whether the room admits no more members.
        deliveries: The members, in the order in which they came.
    """

    __slots__ = (
        "deliveries",
        "is_closed",
        "linger",
        "nursery",
        "pending",
        "pending_bytes",
    )

    def __init__(self, pending: int, pending_bytes: int, linger: float | None) -> None:
        self.pending: int = pending
        self.pending_bytes: int = pending_bytes
        self.linger: float | None = linger
        self.nursery: trio.Nursery
        self.is_closed: bool = False
        # A dict, because it keeps the order.
        self.deliveries: dict[Delivery, None] = {}


@final
class Delivery:
    """Sends messages to one member, which is in the room while the handler's block runs.

    Attributes:
        outlet: How the member is sent to.
        scope: Around the handler's block.
        dropped: See :class:`RoomMember`.
        cause: See :class:`RoomMember`.
    """

    __slots__ = (
        "_bytes",
        "_cut_off",
        "_state",
        "_waiting",
        "_written",
        "cause",
        "dropped",
        "outlet",
        "scope",
    )

    def __init__(self, state: RoomState, outlet: Outlet) -> None:
        self._state = state
        self.outlet: Outlet = outlet
        self.scope: trio.CancelScope = trio.CancelScope()
        # Messages after the one that the writer is sending, and their bytes; None if
        # there is no writer.
        self._waiting: deque[bytes] | None = None
        self._bytes = 0
        # Set when the writer ends; None if no task waits for that.
        self._written: trio.Event | None = None
        # Whether the stream has to be reset, as a part of what was sent is missing.
        self._cut_off = False
        self.dropped: str | None = None
        self.cause: Exception | None = None

    @property
    def pending(self) -> int:
        """How many messages wait, without the one that is being sent."""
        return len(self._waiting or ())

    @property
    def is_writing(self) -> bool:
        """Whether a message is being sent."""
        return self._waiting is not None

    @property
    def is_member(self) -> bool:
        """Whether it has neither left nor was dropped."""
        return self in self._state.deliveries

    def join(self) -> None:
        """Join the room and enter the scope.

        Raises:
            UsageError: The room is closed.
            RuntimeError: This was called before.
        """
        if self._state.is_closed:
            raise UsageError("the room is closed")
        self.scope.__enter__()
        self._state.deliveries[self] = None

    async def leave(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """Leave the room and the scope; the arguments are those of ``__aexit__``."""
        self._state.deliveries.pop(self, None)
        try:
            return self.scope.__exit__(exc_type, exc_value, traceback)
        finally:
            if exc_value is None and self.dropped is None:
                await self._finish()
            elif self._waiting:
                # The message that is being sent is left to the end of the stream.
                self._waiting.clear()
            if self._cut_off:
                # The handler must not return before: its stream would be ended in stages.
                await self._reset()

    async def _finish(self) -> None:
        # Wait until everything is sent, which a peer that does not read can delay.
        if self._waiting is None:
            return
        try:
            with move_on_after(self._state.linger):
                await self.wait_written()
                return
        finally:
            if self._waiting:
                self._waiting.clear()
        self.dropped = "it did not read the last messages in time"
        self._cut_off = True

    def send(self, data: bytes) -> None:
        """Send the bytes of a message, let them wait, or drop the member."""
        waiting = self._waiting
        if waiting is not None:
            self._add(waiting, data)
            return
        try:
            rest = self.outlet.send_nowait(data)
        except trio.BrokenResourceError as exc:
            self.drop(_GONE, exc)
        except trio.ClosedResourceError as exc:
            self.drop(_CLOSED, exc)
        else:
            if rest is not None:
                self._waiting = deque()
                self._state.nursery.start_soon(self._write, rest, name=_WRITER)

    def _add(self, waiting: deque[bytes], data: bytes) -> None:
        state = self._state
        if len(waiting) >= state.pending:
            self.drop(f"it reads too slowly: {state.pending} messages wait", cut=True)
        elif self._bytes + len(data) > state.pending_bytes:
            self.drop(
                f"it reads too slowly: more than {state.pending_bytes} bytes wait",
                cut=True,
            )
        elif data:
            waiting.append(data)
            self._bytes += len(data)

    async def _write(self, data: bytes | memoryview) -> None:
        try:
            while True:
                await self.outlet.send(data)
                if not self._waiting:
                    break
                data = self._take(self._waiting)
        except trio.BrokenResourceError as exc:
            self.drop(_GONE, exc)
        except trio.ClosedResourceError as exc:
            self.drop(_CLOSED, exc)
        except trio.BusyResourceError as exc:
            self.drop("another task was sending on its stream", exc, cut=True)
        except Exception as exc:
            # The bug of one stream must not end the room.
            self.drop(f"its stream failed: {exc!r}", exc, cut=True)
        except BaseException:
            # Cancelled with the room, in the middle of a message.
            self.drop(CLOSED_ROOM, cut=True)
            raise
        finally:
            self._waiting = None
            self._bytes = 0
            if self._written is not None:
                self._written.set()
                self._written = None

    def _take(self, waiting: deque[bytes]) -> bytes:
        parts = [waiting.popleft()]
        size = len(parts[0])
        while waiting and size + len(waiting[0]) <= _MOST_AT_ONCE:
            size += len(waiting[0])
            parts.append(waiting.popleft())
        self._bytes -= size
        return b"".join(parts)

    def drop(
        self, reason: str, cause: Exception | None = None, *, cut: bool = False
    ) -> None:
        """Take the member out of the room, and cancel the block of its handler.

        Args:
            reason: For :attr:`dropped`.
            cause: For :attr:`cause`.
            cut: Whether a part of what was sent is missing, so that the stream has to be
                reset.
        """
        if not self.is_member:
            # It has left, and its handler owns the stream.
            return
        del self._state.deliveries[self]
        self.dropped, self.cause = reason, cause
        if self._waiting:
            self._waiting.clear()
        self.scope.cancel(reason)
        if cut:
            self._cut_off = True
            # The handler may need a while to leave.
            self._state.nursery.start_soon(self._reset, name=_RESET)

    async def _reset(self) -> None:
        # Without a wait.  Cancelled stays inside, as it would replace what the body of
        # the handler's block raises; and a stream that cannot be closed is none of the
        # room's business any more.
        with trio.CancelScope(shield=True) as scope, suppress(Exception):
            scope.cancel()
            await self.outlet.cut()

    async def wait_written(self) -> None:
        """Wait until nothing waits to be sent."""
        if self._waiting is not None:
            if self._written is None:
                self._written = trio.Event()
            await self._written.wait()
