# One HTTP exchange after the other on one Trio stream: the codec's bytes, read and sent.
# Here is what a failed or cancelled send means.  The stream is closed by its owner,
# never here.
from __future__ import annotations

import selectors
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, final

import trio

from ._errors import BadBody, PeerGone
from ._http import HTTPCodec, Role

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Iterable

    from ._headers import Field
    from ._limits import Limits
    from ._messages import RequestHead

# As Trio's own default.  It also bounds how much of another protocol can come in with
# the head.
_RECEIVE_SIZE = 64 * 1024
# What is longer is sent in pieces where somebody watches that the peer reads.
_PIECE = 64 * 1024
# Up to here a body is sent in one piece with its head; beyond, copying costs more than
# a second send does.
SMALL_BODY = 64 * 1024
# Windows has no poll().
_Selector: type[selectors.BaseSelector] = getattr(
    selectors, "PollSelector", selectors.SelectSelector
)


class Watch(Protocol):
    """Who bounds the time that things take here."""

    def head_began(self) -> None: ...

    def sending_began(self) -> None: ...

    def sending_ended(self) -> None: ...


@final
class HTTPConnection:
    """HTTP/1.1 on one stream, either role; not for two tasks at a time.

    Args:
        stream: What it is spoken on.
        role: Which side we are.
        limits: The bounds.
        watch: Is told when something begins that may take too long; None for nobody.

    Attributes:
        codec: The state of the exchange.
        broken: Something was cut in the middle; nothing more can be said.
        ended: The peer's end was read.
        lost: It is broken because the transport itself broke.
    """

    __slots__ = ("_stream", "_watch", "broken", "codec", "ended", "lost")

    def __init__(
        self,
        stream: trio.abc.Stream,
        role: Role,
        limits: Limits,
        *,
        watch: Watch | None = None,
    ) -> None:
        self._stream = stream
        self._watch = watch
        self.codec: HTTPCodec = HTTPCodec(role, limits)
        self.broken: bool = False
        self.ended: bool = False
        self.lost: bool = False

    async def receive_request(self) -> RequestHead | None:
        """Receive the next request head.

        Returns:
            The head; None if the client ended the connection instead.

        Raises:
            MalformedMessage: It is none, or over a limit; a response can be sent.
            trio.BrokenResourceError: The connection is broken.
        """
        self.codec.start_exchange()
        raw = await self._receive_head()
        return None if raw is None else self.codec.parse_request(raw)

    async def has_unasked_input(self) -> bool:
        """Tell whether the server has sent something that no request asked for.

        Bytes that were read already count, and on a plain socket what waits in the
        kernel. If it is the server's end that waits, :attr:`ended` is set.
        """
        if self.codec.has_read_ahead:
            return True
        # Below TLS it may be the protocol's own: a session ticket say.
        if not isinstance(self._stream, trio.SocketStream):
            return False
        if not _is_readable(self._stream.socket):
            return False
        try:
            return bool(await self._receive())
        except trio.BrokenResourceError:
            return False

    async def receive_response_head(self) -> bytes:
        """Receive the bytes of the next response head, an informational one too.

        Raises:
            MalformedMessage: It is over a limit, or no HTTP.
            PeerGone: The server ended the connection before or within it.
            trio.BrokenResourceError: The connection is broken.
        """
        raw = await self._receive_head()
        if raw is None:
            stage = "within" if self.codec.has_read_ahead else "before"
            raise PeerGone(f"the server ended the connection {stage} its answer")
        return raw

    async def _receive_head(self) -> bytes | None:
        codec, began = self.codec, False
        while (head := codec.take_head()) is None:
            if self.ended:
                # Seen before, by somebody who was waiting for it.
                return None
            if self._watch is not None and not began and codec.has_read_ahead:
                began = True
                self._watch.head_began()
            received = await self._receive()
            if received:
                codec.feed(received)
        return head

    async def receive_body(self) -> bytes:
        """Receive the next piece of the body; empty at its end.

        Always a checkpoint; cancelled, it has lost nothing.

        Raises:
            BadBody: The framing is broken, or the peer left before the body's end.
        """
        codec = self.codec
        chunk = await self.receive_body_here()
        while chunk is None:
            if self.ended:
                codec.feed_body_end()
            else:
                try:
                    codec.feed(await self._receive())
                except trio.BrokenResourceError as exc:
                    raise BadBody("the peer broke the connection in a body") from exc
            chunk = codec.next_body()
        return chunk

    async def receive_body_here(self) -> bytes | None:
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

    async def wait_disconnect(self, read_ahead: int, *, ignore_end: bool) -> None:
        """Wait until the peer resets the connection, or ends its side.

        What comes meanwhile is kept, up to ``read_ahead`` bytes and a receive; with
        more, or behind an end that is ignored, this waits for ever.
        """
        await trio.lowlevel.checkpoint()
        while not (self.ended or self.lost or self.codec.has_ahead(read_ahead)):
            with suppress(trio.BrokenResourceError):
                self.codec.feed(await self._receive())
        if not self.lost and (ignore_end or not self.ended):
            await trio.sleep_forever()

    async def _receive(self) -> bytes | bytearray:
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
        await self._send(head)

    async def send_request_body(self, head: bytes, body: bytes) -> None:
        """Send the body of a request, behind what is left to send of its head.

        Raises:
            trio.BrokenResourceError: As :meth:`send_request` does.
        """
        content = self.codec.write_body(body)
        if len(body) <= SMALL_BODY:
            await self._send(head + content)
        else:
            await self._send(head)
            await self._send(content)

    async def send_tunnel(self, reason: str, fields: Iterable[Field]) -> None:
        """Send the 200 that makes a CONNECT a tunnel.

        Raises:
            trio.BrokenResourceError: As :meth:`send_informational` does.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._send(self.codec.write_tunnel(reason, fields))

    async def send_informational(
        self, status: int, reason: str, fields: Iterable[Field]
    ) -> None:
        """Send a 1xx, the 101 of a legal switch among them.

        Raises:
            trio.BrokenResourceError: The connection is broken. So it is, too, once a
                cancellation has come in the middle.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._send(self.codec.write_informational(status, reason, fields))

    async def send_response(
        self,
        status: int,
        reason: str,
        fields: Iterable[Field],
        body: bytes | AsyncIterable[bytes],
        *,
        close: bool,
    ) -> None:
        """Send a final response; see :meth:`HTTPCodec.write_response_head`.

        Args:
            status: The status code.
            reason: The reason phrase.
            fields: The fields.
            body: Bytes, or an iterable, which its owner closes. It is not sent where
                method or status allow no content.
            close: Whether to announce that the connection ends.

        Raises:
            ValueError: A Content-Length among the fields is not the body's. Of a body
                in bytes nothing was sent; otherwise the connection is broken.
            trio.BrokenResourceError: The connection is broken. So it is, too, after a
                cancellation or an error of the iterable in the middle.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        codec = self.codec
        head, has_content = codec.write_response_head(
            status,
            reason,
            fields,
            length=len(body) if isinstance(body, bytes) else None,
            close=close,
        )
        if not has_content:
            await self._send(head + codec.write_end())
        elif not isinstance(body, bytes):
            await self._send(head)
            await self._send_iterable(body)
        elif len(body) <= SMALL_BODY:
            content = codec.write_body(body)
            await self._send(b"".join((head, content, codec.write_end())))
        else:
            await self._send(head)
            await self._send(codec.write_body(body))
            codec.write_end()

    async def _send_iterable(self, body: AsyncIterable[bytes]) -> None:
        try:
            async for chunk in body:
                await self._send(self.codec.write_body(chunk))
            await self._send(self.codec.write_end())
        except BaseException:
            # The response is begun and cannot be ended properly.
            self.broken = True
            raise

    async def _send(self, data: bytes) -> None:
        if not data:
            return
        try:
            if self._watch is None:
                await self._stream.send_all(data)
            else:
                await self._send_watched(data, self._watch)
        except BaseException as exc:
            # Some of it may have gone out: neither h11 nor anybody else may go on as
            # if all of it had, or nothing.
            self.broken = True
            self.lost = self.lost or isinstance(exc, trio.BrokenResourceError)
            self.codec.fail()
            raise

    async def _send_watched(self, data: bytes, watch: Watch) -> None:
        try:
            if len(data) <= _PIECE:
                watch.sending_began()
                await self._stream.send_all(data)
                return
            with memoryview(data) as view:
                for start in range(0, len(data), _PIECE):
                    watch.sending_began()
                    await self._stream.send_all(view[start : start + _PIECE])
        finally:
            watch.sending_ended()

    @property
    def reusable(self) -> bool:
        """Whether the exchange is over and another one can follow."""
        return not self.broken and self.codec.reusable

    @property
    def may_answer(self) -> bool:
        """Whether a server can still begin a final response."""
        return not self.broken and self.codec.may_answer

    def hand_over(self) -> tuple[bytes, bool]:
        """Free the HTTP state and give up what was read beyond it: the last call.

        Returns:
            The bytes, and whether the peer's end was read behind them.
        """
        return self.codec.hand_over(), self.ended


def _is_readable(sock: trio.socket.SocketType) -> bool:
    # Not the default one: epoll and kqueue take a descriptor, and there may be none left.
    with _Selector() as selector:
        selector.register(sock.fileno(), selectors.EVENT_READ)
        return bool(selector.select(0))
