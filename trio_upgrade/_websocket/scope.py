# A WebSocket, the tasks of it, and how both end.  Servers and clients share this.
#
# How the WebSocket ends is told by how its block was left:
#
#     normally        a closing handshake with 1000, at most close_timeout
#     an error        a closing handshake with 1011, at most a second
#     Cancelled       no closing handshake
#
# Then the tasks are cancelled.  The one that receives closes the stream: by a reset if
# the closing handshake was not made (see WebSocketTransport).
from __future__ import annotations

import math
from contextlib import AbstractAsyncContextManager, suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, final

import trio
from websockets.exceptions import ConcurrencyError, ConnectionClosed
from websockets.frames import CloseCode
from websockets.protocol import State
from websockets.trio.connection import Connection

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

ConnectionT = TypeVar("ConnectionT", bound=Connection)

# Seconds that a peer has to answer a 1011: the error waits for it.
_ERROR_CLOSE_TIMEOUT = 1.0
# Seconds to send a Close, also if close_timeout is less.
_SEND_SECONDS = 1.0


@final
class WebSocketScope(
    AbstractAsyncContextManager[ConnectionT, None], Generic[ConnectionT]
):
    """A block that has a WebSocket and runs its tasks.

    What the block raises leaves it as it is: a single exception is in no group, although
    there is a nursery.

    Args:
        make: Makes the connection in the nursery for its tasks, and starts these, without
            a checkpoint.
        close_code: Returns the code for a block that is left normally.

    Attributes:
        nursery: The nursery of its tasks.
        websocket: The WebSocket.
        state_left: The state of the WebSocket when the block was left.
    """

    __slots__ = (
        "_close_code",
        "_make",
        "_manager",
        "nursery",
        "state_left",
        "websocket",
    )

    def __init__(
        self,
        make: Callable[[trio.Nursery], ConnectionT],
        close_code: Callable[[], int] = lambda: CloseCode.NORMAL_CLOSURE,
    ) -> None:
        self._make = make
        self._close_code = close_code
        self._manager = trio.open_nursery()
        self.nursery: trio.Nursery
        self.websocket: ConnectionT
        self.state_left: State = State.OPEN

    async def __aenter__(self) -> ConnectionT:
        self.nursery = await self._manager.__aenter__()
        self.websocket = self._make(self.nursery)
        return self.websocket

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.state_left = self.websocket.state

        async def end() -> None:
            await end_websocket(self.websocket, self.nursery, exc, self._close_code())

        await leave_nursery(self._manager, exc, end)


async def leave_nursery(
    manager: AbstractAsyncContextManager[trio.Nursery, bool | None],
    exc: BaseException | None,
    end: Callable[[], Awaitable[None]],
) -> None:
    """Leave a nursery whose tasks the user does not know, after a last function.

    Args:
        manager: What :func:`trio.open_nursery` returned.
        exc: The exception that left the block; it goes on as it is.
        end: Ends the block, and cancels the tasks. A task that uses the WebSocket
            meanwhile finds it closed, and this is no failure.

    Raises:
        trio.Cancelled: The end was cancelled, and nothing else goes on.
    """
    try:
        try:
            await end()
        except BaseException as failure:
            if not await manager.__aexit__(
                type(failure), failure, failure.__traceback__
            ):
                raise
        else:
            await manager.__aexit__(None, None, None)
    except BaseException as failure:
        kept = find_failure(failure)
        if isinstance(kept, trio.Cancelled):
            if exc is None:
                raise kept from kept.__cause__
        elif not says_closed(kept) or not (exc is None or isinstance(exc, Exception)):
            raise kept from kept.__cause__


async def end_websocket(
    websocket: Connection,
    nursery: trio.Nursery,
    exc: BaseException | None,
    close_code: int,
) -> None:
    """End a WebSocket as its block was left, and cancel its tasks.

    Args:
        websocket: The WebSocket.
        nursery: The nursery of its tasks.
        exc: The exception that left the block; None if it was left normally.
        close_code: The code in the second case.
    """
    try:
        if exc is None:
            # aclose() counts close_timeout from when the Close is sent.  To a peer that
            # reads nothing it may never be.
            timeout = websocket.close_timeout
            seconds = math.inf if timeout is None else max(timeout, _SEND_SECONDS)
            await _close(websocket, nursery, close_code, seconds)
        elif isinstance(exc, Exception):
            # A group with a Cancelled in it is no Exception.
            await _close(
                websocket, nursery, CloseCode.INTERNAL_ERROR, _ERROR_CLOSE_TIMEOUT
            )
    finally:
        nursery.cancel_scope.cancel()


async def _close(
    websocket: Connection, nursery: trio.Nursery, code: int, seconds: float
) -> None:
    if websocket.state is State.CLOSED:
        return
    nursery.start_soon(_discard, websocket)
    with trio.move_on_after(seconds):
        await websocket.aclose(code)


async def _discard(websocket: Connection) -> None:
    # With a full queue of messages the connection would not read on to the peer's Close.
    # ConcurrencyError: another task receives, or has left a message half read.
    with suppress(ConnectionClosed, ConcurrencyError):
        while True:
            await websocket.recv(decode=False)


def find_failure(exc: BaseException) -> BaseException:
    """Return the exception that leaves a nursery of which only one failure matters.

    A failure of a task comes alone; Cancelled, of which each task has its own, once.
    """
    if not isinstance(exc, BaseExceptionGroup):
        return exc
    group = cast("BaseExceptionGroup[BaseException]", exc)
    cancelled, failures = group.split(trio.Cancelled)
    found: Any = failures or cancelled
    while isinstance(found, BaseExceptionGroup):
        inner = cast("BaseExceptionGroup[BaseException]", found).exceptions
        if failures is not None and len(inner) > 1:
            break
        found = next(iter(inner))
    return cast("BaseException", found)


def says_closed(exc: BaseException) -> bool:
    """Tell whether an exception says only that a WebSocket is closed."""
    if isinstance(exc, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", exc)
        return all(map(says_closed, group.exceptions))
    return isinstance(exc, ConnectionClosed)
