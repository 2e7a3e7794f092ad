# The client's HTTP on one Trio stream: requests out, responses in.
from __future__ import annotations

from typing import TYPE_CHECKING, final

import trio

from .._errors import PeerGone
from .._http.client_codec import ClientCodec
from .._http_stream import RECEIVE_SIZE, SMALL_BODY, HTTPStream, find_tls_error
from .._streams.tls import TLSStream
from .._streams.underlying import find_underlying_socket

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._http.headers import Field, Headers
    from .._http.messages import ResponseHead
    from .._limits import Limits
    from .._streams.socket_stream import DirectSocketStream

# More checkpoints than a read through two layers of TLS passes if its bytes are in the
# kernel, with some records before them that are TLS's own.
_CHECKPOINTS_OF_A_READ = 24


@final
class ClientHTTP(HTTPStream[ClientCodec]):
    """HTTP on one connection of a client; not for two tasks at a time.

    Args:
        stream: The stream that HTTP is spoken on.
        limits: The limits.

    Attributes:
        request_sent: Whether any byte of the request was given to the transport.
        answer_begun: Whether any byte has come since the request was begun.
        send_failure: The break that a send met first; None if there was none.
    """

    __slots__ = ("answer_begun", "request_sent", "send_failure")

    def __init__(self, stream: trio.abc.Stream, limits: Limits) -> None:
        super().__init__(stream, ClientCodec(limits))
        self.request_sent: bool = False
        self.answer_begun: bool = False
        self.send_failure: trio.BrokenResourceError | None = None

    ################################################################
    # Requests
    ################################################################

    def write_request(self, method: str, target: str, fields: list[Field]) -> bytes:
        """Begin an exchange; see :meth:`ClientCodec.write_request`."""
        head = self._codec.write_request(method, target, fields)
        self.request_sent = self.answer_begun = False
        return head

    async def send_head(self, head: bytes) -> None:
        """Send the header section of a request whose content comes later.

        Raises:
            trio.BrokenResourceError: The connection is broken. A cancellation breaks
                it, too.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        self.request_sent = self.request_sent or bool(head)
        await self.send_short(head)

    async def send_content(
        self, head: bytes, content: bytes | bytearray | memoryview
    ) -> None:
        """Send content, after the part of the header section that was not sent yet.

        Raises:
            ValueError: It is more than Content-Length says.
            trio.BrokenResourceError: As :meth:`send_head` does.
        """
        data = self._codec.write_body(bytes(content))
        if head and len(content) <= SMALL_BODY:
            await trio.lowlevel.checkpoint_if_cancelled()
            self.request_sent = True
            await self.send_short(head + data)
        else:
            self.request_sent = True
            await self.send(head)
            await self.send(data)

    async def send_end(self, head: bytes, trailers: Sequence[Field] = ()) -> None:
        """Send the end of the request, after any part of its head that was not sent yet.

        Args:
            head: That part.
            trailers: Fields to send after the content, which must be chunked.

        Raises:
            ValueError: Content-Length says more.
            trio.BrokenResourceError: As :meth:`send_head` does.
        """
        await self.send_head(head + self._codec.write_end(trailers))

    def _note_failure(self, exc: BaseException) -> None:
        super()._note_failure(exc)
        if isinstance(exc, trio.BrokenResourceError):
            self.send_failure = self.send_failure or exc
        self._codec.send_failed()

    ################################################################
    # Responses
    ################################################################

    async def receive_response_head(self) -> bytes:
        """Receive the bytes of the next header section, also of a 1xx.

        Raises:
            MalformedMessage: It is over a limit, or no HTTP.
            PeerGone: The server ended the connection before or within it.
            trio.BrokenResourceError: The connection is broken.
        """
        codec = self._codec
        if codec.has_buffered:
            # The response may have been read already. Let other tasks run all the same.
            await trio.lowlevel.checkpoint()
        while (head := codec.next_head()) is None:
            if self.ended or not await self._receive_answer():
                stage = "within" if codec.has_buffered else "before"
                raise PeerGone(
                    f"the server ended the connection {stage} its answer",
                    request_sent=self.request_sent,
                )
            self.answer_begun = True
        return head

    async def _receive_answer(self) -> bool:
        direct = self._direct
        if direct is None:
            return await self.receive()
        while not self.ended:
            # Right after a request the response cannot be here: to look for it before
            # the wait would cost a pass of the scheduler and a system call.
            await direct.wait_readable()
            if self._receive_nowait(direct):
                return True
        return False

    def parse_response(self, raw: bytes) -> ResponseHead:
        """Check and parse a header section; see :meth:`ClientCodec.parse_response`."""
        return self._codec.parse_response(raw)

    async def receive_body(self) -> bytes:
        """Receive the next piece of the body; see :meth:`HTTPStream.receive_body`.

        With the last byte of a known length the end is reached, too: the caller need not
        ask once more.
        """
        chunk = await super().receive_body()
        self._reach_end()
        return chunk

    async def receive_buffered_body(self) -> bytes | None:
        """Return the next piece if it was received already, with the end as above."""
        chunk = await super().receive_buffered_body()
        self._reach_end()
        return chunk

    def _reach_end(self) -> None:
        # Go on to the end of a body of known length if all of its bytes were returned.
        codec = self._codec
        if codec.body_left == 0 and not codec.body_ended:
            codec.next_body()

    def get_trailers(self) -> Headers:
        """Return the fields after the body that was read to its end."""
        return self._codec.get_trailers()

    @property
    def is_reusable(self) -> bool:
        """Whether the exchange is over and another one can follow."""
        return not self.broken and self._codec.is_reusable

    async def has_unasked_input(self) -> bool:
        """Tell whether the server has sent bytes that no request asked for.

        Bytes that were read already count, and bytes that wait in the kernel, in TLS too.
        If the server's end of stream waits after them, :attr:`ended` is set, and
        :attr:`lost` if it is a reset. Without a kernel socket below the stream only bytes
        that were read already count.

        Raises:
            trio.BrokenResourceError: TLS failed.
        """
        if not self.ended and (
            self._direct is not None or find_underlying_socket(self._stream) is not None
        ):
            try:
                # Up to the end, but a server that goes on sending does not hold us.
                while not self._codec.has_buffered_bytes(RECEIVE_SIZE):
                    if not await self._receive_waiting():
                        break
            except trio.BrokenResourceError as exc:
                if find_tls_error(exc) is not None:
                    raise
        return self._codec.has_buffered

    @property
    def has_timeout_answer(self) -> bool:
        """Whether a whole 408 has been read: how a server ends an idle connection."""
        return self._codec.has_timeout_answer

    async def _receive_waiting(self) -> bool:
        # Receive bytes that need no wait for the peer; return whether there were any.
        if self._direct is not None:
            return self._receive_nowait(self._direct)
        stream = self._stream
        if isinstance(stream, TLSStream) and stream.is_direct:
            return self._receive_nowait(stream)
        if isinstance(stream, trio.SocketStream):
            # Imported here because few clients need it, and it imports the listeners.
            from .._streams.readiness import is_readable

            descriptor = stream.socket.fileno()
            # If its owner has closed it, the receive says so.
            return (descriptor < 0 or is_readable(descriptor)) and await self.receive()
        return await self._receive_briefly()

    def _receive_nowait(self, stream: DirectSocketStream | TLSStream) -> bool:
        try:
            received = stream.receive_some_nowait(RECEIVE_SIZE)
        except trio.BrokenResourceError:
            self.note_loss()
            raise
        if received:
            self._codec.receive_data(received)
        elif received is not None:
            self.ended = True
        return bool(received)

    async def _receive_briefly(self) -> bool:
        # Bytes that wait below TLS may be the protocol's own, a session ticket for
        # example, and no socket shows bytes that wait within it: so read, until reading
        # has to wait for the peer.
        received = False
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                _cancel_soon, nursery.cancel_scope, name="trio_upgrade unasked input"
            )
            try:
                received = await self.receive()
            except Exception as exc:
                # Kept, because the nursery would raise it as a group.
                failure = exc
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return received


async def _cancel_soon(scope: trio.CancelScope) -> None:
    for _ in range(_CHECKPOINTS_OF_A_READ):
        await trio.lowlevel.checkpoint()
    scope.cancel()
