# The stream that a connection of websockets gets.  It adds to the upgraded stream some
# things that the connection does not do by itself:
#
# - After the closing handshake the connection reads until the peer ends TCP, without a
#   limit on the time; here it gets an end after `close_timeout`.
# - It closes the stream without a look at how the WebSocket ended.  Here the stream is
#   reset if the closing handshake was not made, so that a task that is cancelled cannot
#   make a cut look like an end.
# - It half-closes only where the class of the stream says that this works.
# - It takes all that one read gives, and only then looks at `max_queue`.  64 KiB can be
#   60 messages of 1 MiB each, compressed; here a read of compressed frames is small.
# - It would send on after a send that was cancelled: in the midst of a frame, or what is
#   compressed with words that the peer has never received.  Here nothing is sent any
#   more, and the WebSocket ends by a reset.
from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, final

import trio
from websockets.protocol import State

from .. import stream_scope

if TYPE_CHECKING:
    from websockets.protocol import Protocol

    from .. import UpgradedStream

# Bytes of compressed frames to receive at once: some 4 MiB at the most, decompressed.
_COMPRESSED_BYTES = 4096
# Seconds for the stream to close itself once its end was announced.
_CLOSE_SECONDS = 1.0


@final
class WebSocketTransport(trio.abc.HalfCloseableStream):
    """An upgraded stream, ended as the state of its WebSocket demands.

    Args:
        stream: The stream; its owner closes it, too.
        protocol: The state of the WebSocket, its extensions negotiated.
        close_timeout: Seconds that the peer has to end the connection after the closing
            handshake; None disables the limit.

    Attributes:
        transport_stream: The stream.
        sends_unchanged: Whether a sender may use that stream instead of this one: rooms
            send to thousands of them.
    """

    sends_unchanged = True

    __slots__ = (
        "_close_timeout",
        "_ends_at",
        "_eof_sent",
        "_protocol",
        "_receive_size",
        "_torn",
        "transport_stream",
    )

    def __init__(
        self,
        stream: UpgradedStream,
        protocol: Protocol,
        close_timeout: float | None,
    ) -> None:
        self.transport_stream: UpgradedStream = stream
        self._protocol = protocol
        self._receive_size = _COMPRESSED_BYTES if protocol.extensions else None
        self._close_timeout = close_timeout
        self._ends_at: float | None = None
        self._eof_sent = False
        self._torn = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive from the stream; after the closing handshake for a limited time.

        Args:
            max_bytes: None leaves the choice to this stream.
        """
        if max_bytes is None:
            max_bytes = self._receive_size
        if not self._protocol.close_expected():
            return await self.transport_stream.receive_some(max_bytes)
        if self._ends_at is None:
            timeout = math.inf if self._close_timeout is None else self._close_timeout
            self._ends_at = trio.current_time() + timeout
        with trio.move_on_at(self._ends_at):
            return await self.transport_stream.receive_some(max_bytes)
        if not self._eof_sent:
            await self._cut()
        return b""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send on the stream.

        Raises:
            trio.BrokenResourceError: As the stream raises it, or an earlier call was
                cancelled.
        """
        self._check_whole()
        try:
            await self.transport_stream.send_all(data)
        except trio.Cancelled:
            self._torn = True
            raise

    async def wait_send_all_might_not_block(self) -> None:
        """Wait on the stream."""
        await self.transport_stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """End our direction, or the whole stream if it has no half-close.

        Raises:
            trio.BrokenResourceError: As for :meth:`send_all`.
        """
        self._check_whole()
        self._eof_sent = True
        if self.transport_stream.can_send_eof:
            await self.transport_stream.send_eof()
        else:
            await self.transport_stream.aclose()

    async def aclose(self) -> None:
        """Close the stream without a wait, by a reset unless its end was announced.

        Never raises Cancelled: the task that receives closes the stream when it is
        cancelled, and has to wake the tasks that use the WebSocket after that.
        """
        if self._eof_sent or self._protocol.state is State.CLOSED:
            # No stream with a half-close has more to wait for.  To cancel the call at
            # once, as for a stream of which that is not known, takes twice the time.
            with trio.move_on_after(_CLOSE_SECONDS, shield=True):
                await self.transport_stream.aclose()
        else:
            await self._cut()
            await trio.lowlevel.cancel_shielded_checkpoint()

    def _check_whole(self) -> None:
        if self._torn:
            raise trio.BrokenResourceError("a message was cut by a cancellation")

    async def _cut(self) -> None:
        # Without a checkpoint, as nothing is waited for.
        with suppress(_Cut):
            async with stream_scope(self.transport_stream):
                raise _Cut


class _Cut(Exception):
    # An exception that leaves stream_scope() resets its stream.
    pass
