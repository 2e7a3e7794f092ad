# TLS on its transport, below the methods of TLSStream.
#
# Two tasks use a stream, one to receive and one to send, and in TLS each may have to do
# the other's work: a reader sends when it answers a key update, a writer reads when the
# peer renegotiates, and both make the handshake if they come first.  Three rules keep
# them apart:
#
# - OpenSSL is only used between two checkpoints, and its output is pushed at once, in
#   order: to the kernel as far as that takes it, the rest to the end of _unsent.
# - Only waiting has an owner.  One task waits for input and one for output; a task that
#   needs the same wait is parked until the owner has made progress or was cancelled, and
#   then tries again.
# - Nothing is encrypted before _unsent is empty.  So a cancelled send leaves whole
#   records to be sent first, and a slow peer costs us one part of a long message.
from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from typing import NoReturn, cast

import trio

from .socket_stream import RECEIVE_SIZE, DirectSocketStream
from .tls_session import TLSSession
from .tls_transport import StreamTransport

# Ciphertext to receive at a time: four full records, each with its header and tag.
_CIPHERTEXT_SIZE = RECEIVE_SIZE + 1024
# Times that input is received and dropped before a close, if the peer goes on sending.
_MOST_DISCARDED = 8
# Linux only.
_TCP_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)


class TLSConnection(TLSSession):
    """A TLS session and the stream that it runs over.

    Args:
        transport_stream: The stream to send ciphertext on.
        ssl_context: The context for our side.
        server_side: Whether we are the server.
        server_hostname: The name that the server's certificate must have.
        https_compatible: Whether the peer may end without a close_notify.
        received: Bytes that were already received from the transport.
    """

    __slots__ = (
        "_answer",
        "_closed",
        "_https_compatible",
        "_output",
        "_parked",
        "_reading",
        "_transport",
        "_unsent",
        "_writing",
        "transport_stream",
    )

    def __init__(
        self,
        transport_stream: trio.abc.Stream,
        ssl_context: ssl.SSLContext,
        *,
        server_side: bool,
        server_hostname: str | bytes | None,
        https_compatible: bool,
        received: bytes,
    ) -> None:
        super().__init__(
            ssl_context,
            server_side=server_side,
            server_hostname=server_hostname,
            received=received,
        )
        self.transport_stream: trio.abc.Stream = transport_stream
        self._transport: DirectSocketStream | StreamTransport = (
            transport_stream
            if isinstance(transport_stream, DirectSocketStream)
            else StreamTransport(transport_stream)
        )
        self._https_compatible = https_compatible
        self._closed = False
        # Ciphertext that the kernel has not taken so far.
        self._unsent: bytes | memoryview = b""
        # The number of bytes of ciphertext so far, sent or not; and how many of them have
        # to be sent before a reader can wait for the peer, because they answer it.
        self._output = self._answer = 0
        # Whether a task waits for the transport's input, its output.
        self._reading = self._writing = False
        # Tasks that need the same wait; made when first needed.
        self._parked: trio.lowlevel.ParkingLot | None = None

    # Between two checkpoints.

    def _try_handshake(self) -> bool:
        first = not self._handshaken
        try:
            over = self._step_handshake()
        except OSError as exc:
            self._fail(exc)
        if self._has_output():
            self._push()
            self._answer = self._output
        transport = self._transport
        if (
            over
            and first
            and self.server_side
            and _TCP_QUICKACK is not None
            and isinstance(transport, DirectSocketStream)
        ):
            # A client with Nagle's algorithm on holds its first data back until its last
            # flight is acknowledged.  We have nothing to send, so the kernel would delay
            # the acknowledgement by 40 ms.  OSError: not TCP, or already broken.
            with suppress(OSError):
                transport.setsockopt(socket.IPPROTO_TCP, _TCP_QUICKACK, 1)
        return over

    def _check_closed(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream was already closed")

    def _receive(self, max_bytes: int) -> bytes | None:
        if self._closed:
            self._check_closed()
        if self._dry and not self._fill():
            return None
        while True:
            try:
                data = self._decrypt(max_bytes)
            except OSError as exc:
                self._fail(exc)
            if self._has_output():
                # If it cannot be sent, the received data has still to be returned.
                with suppress(trio.BrokenResourceError):
                    self._push()
                self._answer = self._output
            if data is not None or not self._fill():
                return data

    def _fill(self) -> bool:
        # Feed what the transport has; return whether it had bytes, or has ended.
        if self._backlog:
            self._feed_backlog()
            return True
        if self._reading:
            return False
        try:
            data = self._transport.receive_some_nowait(_CIPHERTEXT_SIZE)
        except trio.BrokenResourceError as exc:
            # The kernel reports a reset only once, and then a mere end.
            self._break(cast("OSError", exc.__cause__))
            raise
        if data is None:
            return False
        if data:
            self._feed(data)
        elif self._https_compatible and self._handshaken:
            self._meet_end()
        else:
            self._fail(_unexpected_end())
        return True

    def _give_away(self) -> trio.abc.Stream:
        self._closed = True
        transport = self.transport_stream
        # As SSLStream does: it is the caller's now, so no other code may find it here.
        self.transport_stream = cast("trio.abc.Stream", None)
        return transport

    def _discard_input(self) -> None:
        # A close with unread input is a reset, in which the peer may lose what we have
        # sent.  Servers that send session tickets at once leave such input.
        if isinstance(self._transport, DirectSocketStream) and not self._reading:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                for _ in range(_MOST_DISCARDED):
                    if not self._transport.receive_some_nowait(_CIPHERTEXT_SIZE):
                        break

    def _write(self, data: bytes | bytearray | memoryview) -> bool:
        # Encrypt and push; return False if bytes of the peer have to come first.
        self._check_closed()
        if not data:
            return True
        try:
            encrypted = self._encrypt(data)
        except OSError as exc:
            self._fail(exc)
        self._push()
        return encrypted

    def _push(self) -> None:
        # Send what OpenSSL has made, as far as the kernel takes it.
        output = self._take_output()
        self._output += len(output)
        self._unsent = b"".join((self._unsent, output)) if self._unsent else output
        self._send_unsent()

    def _send_unsent(self) -> None:
        # A task that waits for output sends what was added meanwhile.
        unsent = self._unsent
        if self._writing or not unsent:
            return
        sent = self._transport.send_some_nowait(unsent)
        if sent == len(unsent):
            self._unsent = b""
        else:
            self._unsent = memoryview(unsent)[sent:]

    def _is_answering(self) -> bool:
        return self._output - len(self._unsent) < self._answer

    def _fail(self, exc: OSError) -> NoReturn:
        # SSLError is an OSError.  Only errors of TLS and of receiving come here; if
        # sending fails, the peer's last words can still be read.
        self._break(exc)
        if self._has_output():
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                self._push()
                self._answer = self._output
        # Without the traceback, whose frames refer to this object.
        cause = exc.with_traceback(None)
        raise trio.BrokenResourceError(f"TLS connection broken: {exc}") from cause

    # Waiting.

    async def _write_slowly(self, data: bytes | bytearray | memoryview) -> None:
        while not self._write(data):
            await self._wait_for_input()
        await self._flush(self._output)

    async def _flush(self, target: int) -> None:
        # Wait until so many bytes of our output are sent.  Not until nothing is left:
        # another task may always add some, and its peer may wait for this one.
        while self._output - len(self._unsent) < target:
            await self._flush_some()

    async def _flush_some(self) -> None:
        if self._writing:
            await self._park()
        else:
            await self._wait_writable()
            self._send_unsent()

    async def _wait_for_input(self) -> None:
        # Wait until bytes of the peer were fed, by this task or by another one.
        if self._reading:
            await self._park()
            return
        while not self._fill():
            await self._wait_for_bytes()
        if self._peer_ended:
            self._fail(_unexpected_end())

    async def _wait_for_bytes(self) -> None:
        transport = self._transport
        self._reading = True
        try:
            if isinstance(transport, StreamTransport):
                await transport.wait_readable()
            else:
                transport.receiving = True
                try:
                    await trio.lowlevel.wait_readable(transport)
                finally:
                    transport.receiving = False
        finally:
            self._reading = False
            if self._parked is not None:
                self._parked.unpark_all()

    async def _wait_writable(self) -> None:
        self._writing = True
        try:
            await self._transport.wait_send_all_might_not_block()
        finally:
            self._writing = False
            if self._parked is not None:
                self._parked.unpark_all()

    async def _park(self) -> None:
        if self._parked is None:
            self._parked = trio.lowlevel.ParkingLot()
        await self._parked.park()

    async def _send_answer(self) -> None:
        # The reader meets the error itself.
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._flush(self._answer)

    async def _send_alert(self) -> None:
        # A kernel takes an alert at once, if it takes anything.
        if self._unsent and isinstance(self._transport, StreamTransport):
            await self._send_answer()


def _unexpected_end() -> ssl.SSLEOFError:
    # As OpenSSL words it.
    return ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "EOF occurred in violation of protocol")
