# One message to many streams, none of which can delay the others.
from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, cast, final

import trio

from .._streams.closing import move_on_after
from .._util import check_seconds, name_kind, public
from .delivery import CLOSED_ROOM, Delivery, RoomState
from .outlets import make_outlet

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from .outlets import WebSocket


@public
def open_room(
    *, pending: int = 64, pending_bytes: int = 2**20, linger: float | None = 2.0
) -> AbstractAsyncContextManager[Room, None]:
    """Return a scope that opens a room: one message to many upgraded streams.

    ::

        async with open_room() as room:

            async def talk(request, stream, head):
                async with room.join(stream) as member:
                    while chunk := await stream.receive_some():
                        room.send_nowait(chunk, skip=member)

            async def app(request):
                return Upgrade("chat", talk)

            await serve_tcp(app, 1337)

    WebSockets do the same in the handler of ``accept_websocket(request, talk)``, with
    ``async for message in websocket``.

    A message goes at once to every member whose kernel socket takes it. For the others
    it waits, and a task of the room sends it; a member that reads slowly delays no other,
    and is dropped when too much waits for it.

    Leaving the scope closes the room. Members that are still in it are sent what waits
    for them, for ``linger`` seconds, and are then dropped; after an exception or a
    cancellation they are dropped at once. So the scope should be around that of the
    server.

    Args:
        pending: Messages that may wait for one member, besides the one that is being
            sent. 64 are a burst, and not yet a history.
        pending_bytes: Bytes that may wait for one member, besides the message that is
            being sent. Messages that wait for several members are in memory once.
        linger: Seconds that a member which leaves has to read its last messages; None
            disables the limit.

    Returns:
        An async context manager that gives the :class:`Room`.

    Raises:
        TypeError: An argument has another type.
        ValueError: ``pending`` or ``pending_bytes`` is below 1, or ``linger`` negative.
    """
    _check_bound("pending", pending)
    _check_bound("pending_bytes", pending_bytes)
    check_seconds("linger", linger)
    return _RoomScope(RoomState(pending, pending_bytes, linger))


def _check_bound(argument: str, bound: object) -> None:
    if isinstance(bound, bool) or not isinstance(bound, int):
        raise TypeError(f"{argument} must be an int, not {name_kind(bound)}")
    if bound < 1:
        raise ValueError(f"{argument} must be at least 1, not {bound}")


@final
class _RoomScope(AbstractAsyncContextManager["Room", None]):
    __slots__ = ("_manager", "_state")

    def __init__(self, state: RoomState) -> None:
        self._state = state
        self._manager = trio.open_nursery()

    async def __aenter__(self) -> Room:
        self._state.nursery = await self._manager.__aenter__()
        return Room(self._state)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        state = self._state
        state.is_closed = True
        try:
            if exc_value is None:
                with move_on_after(state.linger):
                    for delivery in tuple(state.deliveries):
                        await delivery.wait_written()
        finally:
            for delivery in tuple(state.deliveries):
                delivery.drop(CLOSED_ROOM, cut=delivery.is_writing)
            # The tasks do not wait any more, so this does not either.  The shield keeps
            # the body's exception: a Cancelled from here would replace it.
            state.nursery.cancel_scope.shield = True
            state.nursery.cancel_scope.cancel(CLOSED_ROOM)
            await self._manager.__aexit__(None, None, None)


@public
@final
class Room:
    """The members that get each message; made by :func:`open_room`.

    Its length is the number of members, so an empty room is false.
    """

    __slots__ = ("_state",)

    def __init__(self, state: RoomState) -> None:
        self._state = state

    def __len__(self) -> int:
        return len(self._state.deliveries)

    def join(
        self, member: trio.abc.SendStream | WebSocket
    ) -> AbstractAsyncContextManager[RoomMember, bool | None]:
        """Return a scope inside which a stream or a WebSocket is a member.

        Entering it does not wait. If the member is dropped meanwhile, the body of the
        scope is cancelled, and the program goes on after it, where
        :attr:`RoomMember.dropped` says why. The reasons are:

        - too much waits for it. Its stream is then reset, as it has lost messages;
        - its peer is gone, its stream was closed, or raised another exception;
        - the room was closed.

        Leaving the scope without an exception waits until its messages are sent, at most
        for the room's ``linger`` seconds; then the stream is reset. By an exception or a
        cancellation it is left at once: what waits is forgotten, and a message that is
        being sent is left to the end of the stream.

        Args:
            member: A Trio stream, to which only the room sends as long as it is a member
                (others may get BusyResourceError, or have the member dropped, so use
                :meth:`RoomMember.send_nowait`); or a WebSocket of ``websockets``, a
                ``ServerConnection``, to which others may send as well. Its handler
                goes on to receive from it, and closes it.

        Returns:
            An async context manager that gives the :class:`RoomMember`.

        Raises:
            TypeError: It is neither; a WebSocket of a client is not, because its frames
                have to be masked one by one (RFC 6455 §5.3).
            UsageError: The room was closed. Raised on entering the scope.
        """
        return _Membership(Delivery(self._state, make_outlet(member)))

    def send_nowait(
        self,
        message: str | bytes | bytearray | memoryview,
        *,
        skip: RoomMember | None = None,
    ) -> None:
        """Send a message to all members, without a wait.

        All members get all messages in one order. The message is encoded once. For
        WebSockets it is one frame, which is not compressed, so that it is the same for
        all of them. A WebSocket whose closing handshake has begun gets none.

        After the room was closed nothing happens.

        Args:
            message: A str is sent in UTF-8, to a WebSocket as text; bytes are sent as
                they are, to a WebSocket as binary.
            skip: A member that does not get it, for example its author.

        Raises:
            TypeError: The message has another type, or ``skip`` is no member.
            ValueError: A str cannot be encoded. Nothing was sent.
        """
        message = _check_message(message)
        if skip is not None and not isinstance(cast("object", skip), RoomMember):
            raise TypeError(
                "skip must be a member, from async with room.join(...) as member, not "
                f"{name_kind(skip)}"
            )
        skipped = skip and skip._delivery  # pyright: ignore[reportPrivateUsage]
        if self._state.is_closed:
            return
        encoded: dict[Callable[[str | bytes], bytes], bytes] = {}
        for delivery in tuple(self._state.deliveries):
            if delivery is skipped:
                continue
            encode = delivery.outlet.encode
            data = encoded.get(encode)
            if data is None:
                data = encoded[encode] = encode(message)
            delivery.send(data)


@final
class _Membership(AbstractAsyncContextManager["RoomMember", "bool | None"]):
    __slots__ = ("_delivery",)

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery

    async def __aenter__(self) -> RoomMember:
        self._delivery.join()
        return RoomMember(self._delivery)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        return await self._delivery.leave(exc_type, exc_value, traceback)


@public
@final
class RoomMember:
    """One stream in a :class:`Room`; made by :meth:`Room.join`."""

    __slots__ = ("_delivery",)

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery

    @property
    def dropped(self) -> str | None:
        """Why the room has dropped the member, for example because it reads too slowly.

        None as long as it has not.
        """
        return self._delivery.dropped

    @property
    def cause(self) -> Exception | None:
        """The exception that its stream has raised, if it was dropped because of that."""
        return self._delivery.cause

    @property
    def pending(self) -> int:
        """How many messages wait for it, without the one that is being sent."""
        return self._delivery.pending

    def send_nowait(self, message: str | bytes | bytearray | memoryview) -> None:
        """Send a message to this member alone, in order with those to the room.

        The rules are those of :meth:`Room.send_nowait`: over the bound the member is
        dropped. If it was dropped, or has left, nothing happens.

        Args:
            message: A str is sent in UTF-8, to a WebSocket as text; bytes are sent as
                they are, to a WebSocket as binary.

        Raises:
            TypeError: The message has another type.
        """
        data = self._delivery.outlet.encode(_check_message(message))
        if self._delivery.is_member:
            self._delivery.send(data)


def _check_message(message: object) -> str | bytes:
    """Return a message that cannot change any more.

    Raises:
        TypeError: It is neither a str nor bytes.
    """
    if isinstance(message, str | bytes):
        return message
    if isinstance(message, bytearray):
        return bytes(message)
    if isinstance(message, memoryview):
        return message.tobytes()
    raise TypeError(f"a message must be str or bytes, not {name_kind(message)}")
