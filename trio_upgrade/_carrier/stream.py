# A Trio stream over the messages of a WebSocket.
#
#     a binary message      bytes of the stream; where one ends says nothing
#     an empty one          the end of this direction
#     a Close before it     a cut, whatever its code: only the empty message is an end,
#                           because programs that die may send a Close, too
#     a text message        an error of the peer: reset
#
# The connection of websockets has a task that receives; send_pings() is another.
from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn, cast, final

import trio
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

if TYPE_CHECKING:
    from websockets.trio.connection import Connection

MESSAGE_BYTES = 64 * 1024
"""The most bytes of a message; a longer one ends the WebSocket with 1009."""

# Seconds from a pong, or the beginning, to the next ping: middleboxes forget a silent
# connection, the strictest after 30.
_PING_INTERVAL = 20.0
# Seconds that the peer has to answer our Close.  Later the connection is closed without a
# reset: the kernel goes on to deliver what a slow peer has not yet received.
_LINGER = 5.0
# Seconds for an end that only TLS can make wait, after an error or a cancellation.
_CUT_TIMEOUT = 1.0
_LOSSES = (trio.BrokenResourceError, trio.ClosedResourceError)


@final
class WebSocketStream(trio.abc.HalfCloseableStream):
    """A stream whose bytes are the binary messages of a WebSocket.

    A call of ``send_all`` or ``send_eof`` that is cancelled after its checkpoint resets
    the stream: a part of a frame may be on the wire, and what is sent after it would be
    taken for the rest.

    Args:
        websocket: The connection, open. Its nursery gets two tasks when this is closed.
    """

    __slots__ = (
        "_closed",
        "_ended",
        "_eof_sent",
        "_loss",
        "_message",
        "_position",
        "_receiving",
        "_sending",
        "_websocket",
    )

    def __init__(self, websocket: Connection) -> None:
        self._websocket = websocket
        # The tasks of the connection close its stream, too, when they are cancelled.
        websocket.stream = _Transport(websocket.stream, self)
        # The message that is being read, and how far.
        self._message = b""
        self._position = 0
        self._ended = False
        self._eof_sent = False
        self._closed = False
        # What broke the stream: an end of the WebSocket, or our own reset.
        self._loss: BaseException | None = None
        self._sending = False
        self._receiving = False

    @property
    def eof_sent(self) -> bool:
        """Whether the peer was sent our empty message."""
        return self._eof_sent

    @property
    def loss(self) -> ConnectionClosed | None:
        """The end of the WebSocket that broke this stream, None if none did."""
        return self._loss if isinstance(self._loss, ConnectionClosed) else None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes, in messages of 64 KiB at most.

        Raises:
            trio.BrokenResourceError: The WebSocket is over.
            trio.ClosedResourceError: This stream was closed, or its direction ended.
            trio.BusyResourceError: Another task is sending.
        """
        self._claim_sending()
        try:
            await trio.lowlevel.checkpoint()
            self._check_open_to_send()
            view = memoryview(data)
            for start in range(0, len(view), MESSAGE_BYTES):
                await self._send(view[start : start + MESSAGE_BYTES])
        finally:
            self._sending = False

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until a send might not block, as far as the connection can tell.

        Raises:
            trio.BrokenResourceError: The WebSocket is over.
            trio.ClosedResourceError: This stream was closed, or its direction ended.
            trio.BusyResourceError: Another task is sending.
        """
        self._claim_sending()
        try:
            await trio.lowlevel.checkpoint()
            self._check_open_to_send()
            await self._wait_sendable()
        finally:
            self._sending = False

    async def send_eof(self) -> None:
        """End our direction by an empty message; the peer's direction stays open.

        Raises:
            trio.BrokenResourceError: The WebSocket is over.
            trio.ClosedResourceError: This stream was closed.
            trio.BusyResourceError: Another task is sending.
        """
        self._claim_sending()
        try:
            await trio.lowlevel.checkpoint()
            if self._eof_sent and not self._closed:
                return
            self._check_open_to_send()
            await self._send(b"")
            self._eof_sent = True
        finally:
            self._sending = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive bytes of one message; empty after the peer's empty message.

        Args:
            max_bytes: The most bytes to return; None returns the rest of a message.

        Raises:
            trio.BrokenResourceError: The WebSocket is over, and the peer had not ended
                its direction.
            trio.ClosedResourceError: This stream was closed.
            trio.BusyResourceError: Another task is receiving.
        """
        if max_bytes is not None and not isinstance(cast("object", max_bytes), int):
            raise TypeError(f"max_bytes must be an int, not {max_bytes!r}")
        if max_bytes is not None and max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, not {max_bytes}")
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving from this stream")
        self._receiving = True
        try:
            await trio.lowlevel.checkpoint()
            if self._closed:
                raise trio.ClosedResourceError("this stream was closed")
            if self._position == len(self._message) and not self._ended:
                await self._receive()
        finally:
            self._receiving = False
        start, size = self._position, len(self._message)
        stop = size if max_bytes is None else min(size, start + max_bytes)
        chunk = self._message[start:stop]
        self._position = stop
        if stop == size:
            self._message, self._position = b"", 0
        return chunk

    async def aclose(self) -> None:
        """End our direction, and close the WebSocket with 1000 (RFC 6455 §7.1.1).

        The peer has five seconds for its Close, while its messages are dropped. If this
        is cancelled the connection is reset, or after ``send_eof`` only closed.
        """
        if self._closed:
            await trio.lowlevel.checkpoint()
            return
        self._closed = True
        try:
            await trio.lowlevel.checkpoint()
            await self._close()
        finally:
            await self._websocket.stream.aclose()

    def _claim_sending(self) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._sending = True

    def _check_open_to_send(self) -> None:
        if self._closed or self._eof_sent:
            raise trio.ClosedResourceError("this stream, or its direction, was closed")
        if self._loss is not None:
            self._refuse(self._loss)

    def _refuse(self, loss: BaseException) -> NoReturn:
        # Raise what an end of the WebSocket means to the caller.
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed") from None
        self._loss = self._loss or loss
        raise trio.BrokenResourceError(f"the WebSocket is over: {loss}") from loss

    async def _send(self, message: bytes | memoryview) -> None:
        try:
            await self._websocket.send(message)
        except ConnectionClosed as exc:
            self._refuse(exc)
        except BaseException as exc:
            self._loss = exc
            await self._websocket.stream.aclose()
            raise

    async def _wait_sendable(self) -> None:
        try:
            # With the lock: a ping that met this wait would be a second sender.
            async with self._websocket.send_lock:
                await self._websocket.stream.wait_send_all_might_not_block()
        except _LOSSES as exc:
            self._refuse(exc)

    async def _receive(self) -> None:
        try:
            message = await self._websocket.recv()
        except ConnectionClosed as exc:
            self._refuse(exc)
        if isinstance(message, str):
            self._loss = ValueError("a text message")
            await self._websocket.stream.aclose()
            self._refuse(self._loss)
        self._ended = not message
        self._message = message

    async def _close(self) -> None:
        websocket = self._websocket
        if websocket.state is not State.CLOSED:
            # Not in a nursery of ours, whose groups would reach the caller.
            websocket.nursery.start_soon(self._discard)
            websocket.nursery.start_soon(self._give_up)
            with suppress(ConnectionClosed):
                if not self._eof_sent:
                    await websocket.send(b"")
                    self._eof_sent = True
                await websocket.aclose()
            # aclose() of websockets takes a Cancelled for itself.
            await trio.lowlevel.checkpoint_if_cancelled()

    async def _discard(self) -> None:
        # With a full queue the connection would not read on to the peer's Close.
        # Another task that receives has the same effect, until it learns of the close.
        with suppress(ConnectionClosed):
            while not self._receiving:
                await self._websocket.recv(decode=False)

    async def _give_up(self) -> None:
        with trio.move_on_after(_LINGER):
            await self._websocket.wait_closed()
            return
        await self._websocket.stream.aclose()


@final
class _Transport(trio.abc.HalfCloseableStream):
    # The stream below a WebSocket.  The one that it replaces is reset where there was no
    # closing handshake.  But after our empty message the peer knows that it gets all our
    # bytes, and a reset could only destroy the last of them: then it is only closed.
    __slots__ = ("_user", "transport_stream")

    def __init__(self, below: trio.abc.Stream, user: WebSocketStream) -> None:
        self.transport_stream = cast("trio.abc.HalfCloseableStream", below)
        self._user = user

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self.transport_stream.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.transport_stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.transport_stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self.transport_stream.send_eof()

    async def aclose(self) -> None:
        # As the stream below, this does not raise Cancelled.
        if self._user.eof_sent:
            with (
                trio.CancelScope(
                    deadline=trio.current_time() + _CUT_TIMEOUT, shield=True
                ),
                # Busy: a task that is not yet woken by its cancellation is sending.
                suppress(*_LOSSES, trio.BusyResourceError),
            ):
                await self.transport_stream.send_eof()
        await self.transport_stream.aclose()


async def send_pings(websocket: Connection) -> None:
    """Send a ping after each 20 seconds, but none before the last one was answered.

    Without a limit on the time: a peer whose program does not read comes late to our
    ping, and that is no error. The pings of websockets have no such form. With a
    ``ping_timeout`` of None they pile up, and with one above the interval a late pong
    ends them.

    Args:
        websocket: The connection, in whose nursery this runs.
    """
    with suppress(ConnectionClosed):
        while True:
            await trio.sleep(_PING_INTERVAL)
            await (await websocket.ping()).wait()


def is_loss(exc: BaseException) -> bool:
    """Return whether an exception says only that a stream is over, also in a group."""
    if isinstance(exc, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", exc)
        return all(map(is_loss, group.exceptions))
    return isinstance(exc, _LOSSES)
