# HTTP on one Trio stream, for either role: receives and sends the codec's bytes, and
# decides what a failed or cancelled send means.  The stream is closed by its owner, never
# here.
from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Generic, TypeVar

import trio

from ._body import Body
from ._errors import BadBody
from ._http.message_codec import MessageCodec
from ._streams.socket_stream import DirectSocketStream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

CodecT = TypeVar("CodecT", bound=MessageCodec)

# Trio's own default, in bytes.  It also limits how many bytes of another protocol can be
# received together with a message head.
RECEIVE_SIZE = 64 * 1024
# Longer data is sent in pieces of this size if the peer has a deadline for each piece.
PIECE = 64 * 1024
# A body of up to this size is sent together with its message head; for a longer one, to
# copy costs more than a second send.
SMALL_BODY = 64 * 1024
# The errors of TLS which only say that the peer went away.
_BARE_ENDS = (ssl.SSLEOFError, ssl.SSLZeroReturnError)


def find_tls_error(exc: BaseException | None) -> ssl.SSLError | None:
    """Return the TLS error that broke a stream; None if another thing broke it."""
    while exc is not None:
        if isinstance(exc, ssl.SSLError) and not isinstance(exc, _BARE_ENDS):
            return exc
        exc = exc.__cause__
    return None


class HTTPStream(Generic[CodecT]):
    """HTTP/1.1 on one stream; the base of both roles.  Not for two tasks at a time.

    Args:
        stream: The stream that HTTP is spoken on.
        codec: The HTTP state of the connection.

    Attributes:
        broken: Whether a message was cut in the middle; nothing more can be sent then.
        ended: Whether the peer's end of stream was read.
        lost: Whether the transport itself is broken.
    """

    __slots__ = ("_codec", "_direct", "_stream", "broken", "ended", "lost")

    def __init__(self, stream: trio.abc.Stream, codec: CodecT) -> None:
        self._stream = stream
        self._direct = stream if isinstance(stream, DirectSocketStream) else None
        self._codec = codec
        self.broken: bool = False
        self.ended: bool = False
        self.lost: bool = False

    ################################################################
    # Receiving
    ################################################################

    @property
    def has_buffered(self) -> bool:
        """Whether bytes have been read that are not parsed yet."""
        return self._codec.has_buffered

    @property
    def body_ended(self) -> bool:
        """Whether the message that is being read was read to its end."""
        return self._codec.body_ended

    @property
    def body_left(self) -> int | None:
        """How many bytes of its body are still to come; None if unknown."""
        return self._codec.body_left

    @property
    def framing_bytes(self) -> int:
        """How many bytes of its body that were received are not data."""
        return self._codec.framing_bytes

    def make_body(
        self,
        receive: Callable[[], Awaitable[bytes]],
        limit: int,
        receive_buffered: Callable[[], Awaitable[bytes | None]] | None = None,
        *,
        ends_at_length: bool = False,
    ) -> Body:
        """Return the body of the message that is being read.

        Args:
            receive: Gives its pieces, as :meth:`receive_body` does.
            limit: The most bytes that ``Body.read()`` takes, if it is not told otherwise.
            receive_buffered: Gives them as :meth:`receive_buffered_body` does.
            ends_at_length: Whether ``receive`` reaches the end with the last byte of a
                known length.
        """
        codec = self._codec
        return Body(
            receive,
            codec.body_left,
            limit,
            codec.get_trailers,
            receive_buffered,
            ends_at_length=ends_at_length,
        )

    async def receive(self) -> bool:
        """Receive bytes for the codec; return False at the peer's end of stream.

        Raises:
            trio.BrokenResourceError: The connection is broken.
        """
        try:
            received = await self._stream.receive_some(RECEIVE_SIZE)
        except trio.BrokenResourceError:
            self.note_loss()
            raise
        if not received:
            self.ended = True
            return False
        self._codec.receive_data(received)
        return True

    async def receive_body(self) -> bytes:
        """Receive the next piece of the body; empty at its end.

        Always a checkpoint; a cancelled call loses nothing.

        Raises:
            BadBody: The framing is broken, or the peer left before the body's end.
        """
        chunk = await self.receive_buffered_body()
        while chunk is None:
            if self.ended:
                self._codec.receive_eof()
            else:
                try:
                    await self.receive()
                except trio.BrokenResourceError as exc:
                    raise BadBody("the peer broke the connection in a body") from exc
            chunk = self._codec.next_body()
        return chunk

    async def receive_buffered_body(self) -> bytes | None:
        """Return the next piece of the body, or None if it was not received yet.

        A checkpoint unless it returns None.

        Raises:
            BadBody: As :meth:`receive_body` does.
        """
        if not self._codec.may_have_body:
            return None
        await trio.lowlevel.checkpoint_if_cancelled()
        chunk = self._codec.next_body()
        if chunk is not None:
            await trio.lowlevel.cancel_shielded_checkpoint()
        return chunk

    ################################################################
    # Sending
    ################################################################

    async def send(self, data: bytes) -> None:
        """Send all of the data; a failed or cancelled send breaks the connection."""
        if not data:
            return
        try:
            await self._transmit(data)
        except BaseException as exc:
            self._note_failure(exc)
            raise

    async def send_short(self, data: bytes) -> None:
        """Send short data, without a checkpoint if the kernel takes it now.

        For data that is sent once for each message received: receiving that message was
        a checkpoint.
        """
        if self._direct is not None and 0 < len(data) <= PIECE:
            try:
                sent = self._direct.send_some_nowait(data)
            except BaseException as exc:
                self._note_failure(exc)
                raise
            if sent == len(data):
                return
            data = data[sent:]
        await self.send(data)

    def _note_failure(self, exc: BaseException) -> None:
        # A part of the data may have been sent, so it would be wrong to go on as if all
        # of it was sent, or nothing.
        self.broken = True
        self.lost = self.lost or isinstance(exc, trio.BrokenResourceError)

    def note_loss(self) -> None:
        """Note that the transport is broken, or closed by its owner."""
        self.broken = self.lost = True

    def cut(self) -> None:
        """Note that a message ends in its middle: nothing more can be sent after it."""
        self.broken = True

    async def _transmit(self, data: bytes) -> None:
        await self._stream.send_all(data)

    def detach(self) -> tuple[bytes, bool]:
        """Free the HTTP state; the last call.

        Returns:
            The bytes that were read beyond the last message, and whether the peer's end
            of stream was read after them.
        """
        rest = self._codec.detach()
        del self._codec
        return rest, self.ended
