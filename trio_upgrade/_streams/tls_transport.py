# Any Trio stream in the shape that TLSStream needs.  A DirectSocketStream has this shape
# already, so that TLS over a kernel socket has no adapter in between.
from __future__ import annotations

from typing import TYPE_CHECKING, final

from .socket_stream import refuse_after_cut

if TYPE_CHECKING:
    import trio


@final
class StreamTransport:
    """A Trio stream as the transport of TLS; bytes move only in the ``wait_`` methods.

    Args:
        stream: The stream. It is not owned: the TLS stream closes it.
    """

    __slots__ = ("_cut", "_received", "_sending", "_sent", "_stream")

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        # The result of the last wait_readable().
        self._received: bytes | bytearray | None = None
        # The bytes that the next wait has to send; how many the last one has sent.
        self._sending: bytes | memoryview = b""
        self._sent = 0
        # Whether a send was begun and not completed, so that its rest is unknown.
        self._cut = False

    def receive_some_nowait(self, max_bytes: int) -> bytes | bytearray | None:  # noqa: ARG002
        """Return what :meth:`wait_readable` has received, which may be longer."""
        data, self._received = self._received, None
        return data

    def send_some_nowait(self, data: bytes | memoryview) -> int:
        """Return how many of these bytes the last wait sent; the next sends the rest."""
        sent, self._sent = self._sent, 0
        self._sending = data[sent:]
        return sent

    async def wait_readable(self) -> None:
        """Receive. If cancelled, nothing was received."""
        self._received = await self._stream.receive_some()

    async def wait_send_all_might_not_block(self) -> None:
        """Send what :meth:`send_some_nowait` got, or wait until something can be sent.

        Raises:
            trio.BrokenResourceError: Also if an earlier call was cancelled, because an
                unknown part was sent.
        """
        if not self._sending:
            await self._stream.wait_send_all_might_not_block()
            return
        if self._cut:
            raise refuse_after_cut()
        self._cut = True
        await self._stream.send_all(self._sending)
        self._cut = False
        self._sent = len(self._sending)
