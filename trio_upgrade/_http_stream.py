# One HTTP exchange after the other on one Trio stream: the codec's bytes, read and sent.
# Here is what a failed or cancelled send means.  The stream is closed by its owner,
# never here.
from __future__ import annotations

import selectors
from typing import TYPE_CHECKING, Protocol

import trio

from ._errors import BadBody, PeerGone
from ._http.codec import HTTPCodec, Role
from ._streams.socket_stream import DirectSocketStream
from ._streams.underlying import find_underlying_socket

if TYPE_CHECKING:
    from ._limits import Limits

# As Trio's own default.  It also bounds how much of another protocol can come in with
# the head.
_RECEIVE_SIZE = 64 * 1024
# What is longer is sent in pieces where the peer has to take each in time.
PIECE = 64 * 1024
# Not the default one: epoll takes a descriptor, of which there may be none left.
# Windows has no poll().
_Selector: type[selectors.BaseSelector] = getattr(
    selectors, "PollSelector", selectors.SelectSelector
)
# Up to here a body is sent in one piece with its head; beyond, copier costs more than
# a second send does.
SMALL_BODY = 64 * 1024
# More checkpoints than a read through two layers of TLS passes whose bytes are here, with
# some records before them that are TLS's own.
_TICKS_OF_A_READ = 24


class Watch(Protocol):
    """Who bounds the time that a head takes."""

    def head_awaited(self) -> None: ...

    def head_began(self) -> None: ...


class HTTPStream:
    """HTTP/1.1 on one stream, either role; not for two tasks at a time.

    Args:
        stream: What it is spoken on.
        role: Which side we are.
        limits: The bounds.
        watch: Is told when a head is waited for; None for nobody.

    Attributes:
        codec: The state of the exchange.
        broken: Something was cut in the middle; nothing more can be said.
        ended: The peer's end was read.
        lost: It is broken because the transport itself broke.
    """

    __slots__ = ("_direct", "_stream", "_watch", "broken", "codec", "ended", "lost")

    def __init__(
        self,
        stream: trio.abc.Stream,
        role: Role,
        limits: Limits,
        *,
        watch: Watch | None = None,
    ) -> None:
        self._stream = stream
        self._direct = stream if isinstance(stream, DirectSocketStream) else None
        self._watch = watch
        self.codec: HTTPCodec = HTTPCodec(role, limits)
        self.broken: bool = False
        self.ended: bool = False
        self.lost: bool = False

    async def has_unasked_input(self) -> bool:
        """Tell whether the server has sent something that no request asked for.

        Bytes that were read already count, and what waits in the kernel, in TLS too. If
        it is the server's end that waits, :attr:`ended` is set. Of a stream without a
        kernel socket below it nobody can tell.
        """
        if self.codec.has_read_ahead:
            return True
        sock = find_underlying_socket(self._stream)
        if sock is None:
            return False
        try:
            if isinstance(self._stream, trio.SocketStream | DirectSocketStream):
                return _is_readable(sock) and bool(await self.receive())
            return await self._receive_briefly()
        except trio.BrokenResourceError:
            return False

    async def _receive_briefly(self) -> bool:
        # What waits below TLS may be the protocol's own, a session ticket say, and what
        # waits within it no socket shows: so read, until that has to wait for the peer.
        received: bytes | bytearray = b""
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                _cancel_soon, nursery.cancel_scope, name="trio_upgrade unasked input"
            )
            try:
                received = await self.receive()
            except Exception as exc:
                # Kept: out of a nursery it would come as a group.
                failure = exc
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return bool(received)

    async def receive_response_head(self) -> bytes:
        """Receive the bytes of the next response head, an informational one too.

        Raises:
            MalformedMessage: It is over a limit, or no HTTP.
            PeerGone: The server ended the connection before or within it.
            trio.BrokenResourceError: The connection is broken.
        """
        raw = await self.receive_head()
        if raw is None:
            stage = "within" if self.codec.has_read_ahead else "before"
            raise PeerGone(f"the server ended the connection {stage} its answer")
        return raw

    async def receive_head(self) -> bytes | None:
        """Receive the bytes of a head; None if the peer ended the connection instead."""
        codec, watch = self.codec, self._watch
        awaited = began = False
        if codec.has_read_ahead:
            # It may be here already, and then others get their turn all the same.
            await trio.lowlevel.checkpoint()
        while (head := codec.next_head()) is None:
            if self.ended:
                # Seen before, by somebody who was waiting for it.
                return None
            if watch is not None and not awaited:
                awaited = True
                watch.head_awaited()
            if watch is not None and not began and codec.has_read_ahead:
                began = True
                watch.head_began()
            received = await self.receive()
            if received:
                codec.receive_data(received)
        return head

    def receive_nowait(self) -> None:
        """Take in what is here, without a checkpoint; from a kernel socket only.

        Raises:
            trio.BrokenResourceError: The connection is broken.
        """
        assert self._direct is not None
        try:
            received = self._direct.receive_some_nowait(_RECEIVE_SIZE)
        except trio.BrokenResourceError:
            self.broken = self.lost = True
            raise
        # An end is met again by whoever has to wait.
        if received:
            self.codec.receive_data(received)

    async def receive_body(self) -> bytes:
        """Receive the next piece of the body; empty at its end.

        Always a checkpoint; cancelled, it has lost nothing.

        Raises:
            BadBody: The framing is broken, or the peer left before the body's end.
        """
        codec = self.codec
        chunk = await self.receive_buffered_body()
        while chunk is None:
            if self.ended:
                codec.receive_eof()
            else:
                try:
                    codec.receive_data(await self.receive())
                except trio.BrokenResourceError as exc:
                    raise BadBody("the peer broke the connection in a body") from exc
            chunk = codec.next_body()
        return chunk

    async def receive_buffered_body(self) -> bytes | None:
        """Receive the next piece of the body, or None if that has to be waited for.

        A checkpoint unless it returns None.

        Raises:
            BadBody: As :meth:`receive_body` does.
        """
        codec = self.codec
        if not (codec.body_ended or codec.body_pending or codec.has_read_ahead):
            return None
        await trio.lowlevel.checkpoint_if_cancelled()
        chunk = codec.next_body()
        if chunk is not None:
            await trio.lowlevel.cancel_shielded_checkpoint()
        return chunk

    async def receive(self) -> bytes | bytearray:
        """Receive something; empty at the peer's end."""
        try:
            received = await self._stream.receive_some(_RECEIVE_SIZE)
        except trio.BrokenResourceError:
            self.broken = self.lost = True
            raise
        if not received:
            self.ended = True
        return received

    async def send_request(self, head: bytes) -> None:
        """Send the head of a request that has no body, or of one that comes later.

        Raises:
            trio.BrokenResourceError: The connection is broken. So it is, too, after a
                cancellation.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        await self.send_short(head)

    async def send_request_body(
        self, head: bytes, body: bytes | bytearray | memoryview
    ) -> None:
        """Send a body, or a piece of one, behind what is left to send of the head.

        Raises:
            ValueError: It is more than Content-Length says.
            trio.BrokenResourceError: As :meth:`send_request` does.
        """
        content = self.codec.write_body(bytes(body))
        if head and len(body) <= SMALL_BODY:
            await trio.lowlevel.checkpoint_if_cancelled()
            await self.send_short(head + content)
        else:
            await self.send(head)
            await self.send(content)

    async def send(self, data: bytes) -> None:
        """Send something; cut in the middle, the connection is broken."""
        if not data:
            return
        try:
            await self._transmit(data)
        except BaseException as exc:
            self._note_failure(exc)
            raise

    async def send_short(self, data: bytes) -> None:
        """Send something that is short, without a checkpoint if the kernel takes it.

        For what is sent once for each head that comes: receiving one is a checkpoint.
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
        # Some of it may have gone out: neither h11 nor anybody else may go on as if all
        # of it had, or nothing.
        self.broken = True
        self.lost = self.lost or isinstance(exc, trio.BrokenResourceError)
        self.codec.fail()

    async def _transmit(self, data: bytes) -> None:
        await self._stream.send_all(data)

    @property
    def reusable(self) -> bool:
        """Whether the exchange is over and another one can follow."""
        return not self.broken and self.codec.reusable

    def hand_over(self) -> tuple[bytes, bool]:
        """Free the HTTP state and give up what was read beyond it: the last call.

        Returns:
            The bytes, and whether the peer's end was read behind them.
        """
        rest = self.codec.hand_over()
        del self.codec
        return rest, self.ended


async def _cancel_soon(scope: trio.CancelScope) -> None:
    for _ in range(_TICKS_OF_A_READ):
        await trio.lowlevel.checkpoint()
    scope.cancel()


def _is_readable(sock: trio.socket.SocketType) -> bool:
    descriptor = sock.fileno()
    if descriptor < 0:
        # Closed by its owner: the receive that follows says so.
        return True
    with _Selector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        return bool(selector.select(0))
