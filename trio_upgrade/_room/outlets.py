# How messages get to one member: bytes on a Trio stream, or frames of a WebSocket.
#
# A broadcast to thousands must not start a task for each of them: tried, that takes three
# to five times as long.  So an outlet first offers a message to the kernel, without a
# wait; only what the kernel does not take is left to a task, which calls send().  Between
# the two no other task may send, or messages would be cut into one another.
from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias, final

import trio

from .._streams.closing import cut_stream
from .._streams.socket_stream import DirectSocketStream
from .._streams.tls import TLSStream
from .._streams.upgraded import UpgradedStream, find_underlying, record_transfer
from .._util import name_kind

if TYPE_CHECKING:
    from typing import Any

    Direct: TypeAlias = DirectSocketStream | TLSStream

# The first byte of a whole message: FIN and the opcode (RFC 6455 §5.2).
_TEXT, _BINARY = 0x81, 0x82
# Lengths above these are sent in 2 and in 8 bytes.
_MOST_IN_HEADER, _MOST_IN_TWO = 125, 0xFFFF
# The value of websockets.protocol.State.OPEN; that package need not be installed.
_OPEN = 1


class Outlet(Protocol):
    """Sends messages to one member."""

    @staticmethod
    def encode(message: str | bytes) -> bytes:
        """Return the bytes of a message, which are the same for all such members."""
        ...

    def send_nowait(self, data: bytes) -> bytes | memoryview | None:
        """Send what can be sent without a wait.

        Returns:
            None if that was everything; otherwise the bytes that :meth:`send` has to be
            called with before the next message, also if they are none.

        Raises:
            trio.BrokenResourceError: The peer is gone.
            trio.ClosedResourceError: The stream was closed.
        """
        ...

    async def send(self, data: bytes | memoryview) -> None:
        """Send all of ``data``; raise what the stream raises."""
        ...

    async def cut(self) -> None:
        """End the stream by a reset; a second call does nothing."""
        ...


class WebSocket(Protocol):
    """What a room needs of ``websockets.trio.server.ServerConnection``.

    Most of it has public names, but no documentation: a test of ours fails when a
    release of that package changes it.
    """

    stream: trio.abc.Stream
    protocol: Any
    send_lock: trio.Lock
    send_in_progress: trio.Event | None

    async def send_data(self) -> None:
        """Send what the protocol has to send."""
        ...


def make_outlet(member: object) -> Outlet:
    """Return the outlet for what a handler has joined a room with.

    Raises:
        TypeError: It is neither a Trio stream nor a server's WebSocket.
    """
    if isinstance(member, trio.abc.SendStream):
        return StreamOutlet(member)
    websocket: Any = member
    if isinstance(member, type) or not all(
        hasattr(websocket, name)
        for name in ("stream", "protocol", "send_lock", "send_in_progress", "send_data")
    ):
        raise TypeError(
            f"a member must be a Trio stream or a WebSocket, not {name_kind(member)}"
        )
    if websocket.protocol.side:
        # A client masks each frame by a key of its own (RFC 6455 §5.3).
        raise TypeError("a WebSocket in a room must be a server's, not a client's")
    return WebSocketOutlet(websocket)


@final
class StreamOutlet:
    """Bytes on any Trio stream, of which a room is the only sender."""

    __slots__ = ("_begun", "_held", "_stream")

    def __init__(self, stream: trio.abc.SendStream) -> None:
        self._stream = stream
        # Whether the kernel has taken a part of what send() is called for.
        self._begun = False
        # The stream below, while other senders are kept out until send() is called.
        self._held: Direct | None = None

    @staticmethod
    def encode(message: str | bytes) -> bytes:
        """Return the bytes of a message, those of a str in UTF-8."""
        return message.encode() if isinstance(message, str) else message

    def send_nowait(self, data: bytes) -> bytes | memoryview | None:
        """Offer the bytes to the kernel; see :meth:`Outlet.send_nowait`."""
        if not data:
            return None
        below = _find_direct(self._stream)
        if below is None:
            return data
        rest = _offer(self._stream, below, data)
        if rest is not None:
            below.sending = True
            self._held = below
            self._begun = 0 < len(rest) < len(data)
        return rest

    async def send(self, data: bytes | memoryview) -> None:
        """Send all bytes; see :meth:`Outlet.send`."""
        if self._held is not None:
            # send_all() sets it again before its first checkpoint.
            self._held.sending = False
            self._held = None
        try:
            await self._stream.send_all(data)
        except trio.Cancelled:
            # The stream may have sent nothing of the rest, and then notes no cut.
            if self._begun:
                record_transfer(self._stream, cut=True)
            raise
        self._begun = False

    async def cut(self) -> None:
        """Reset the stream; see :meth:`Outlet.cut`."""
        await _reset(self._stream)


@final
class WebSocketOutlet:
    """Frames of a WebSocket, beside those that its handler and its keep-alive send.

    They are never compressed, so that one frame serves all members: an endpoint that has
    negotiated permessage-deflate may send messages as they are (RFC 7692 §6), and they
    do not count as context for later ones.
    """

    __slots__ = ("_stream", "_websocket")

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        stream: Any = websocket.stream
        # Below the layer of trio_upgrade.websocket, which passes bytes on as they are.
        if getattr(stream, "sends_unchanged", False):
            stream = stream.transport_stream
        self._stream: trio.abc.Stream = stream

    @staticmethod
    def encode(message: str | bytes) -> bytes:
        """Return a text frame of a str, a binary frame of bytes (RFC 6455 §5.2)."""
        text = isinstance(message, str)
        data = message.encode() if isinstance(message, str) else message
        size = len(data)
        header = bytearray((_TEXT if text else _BINARY,))
        if size <= _MOST_IN_HEADER:
            header.append(size)
        elif size <= _MOST_IN_TWO:
            header.append(126)
            header += size.to_bytes(2, "big")
        else:
            header.append(127)
            header += size.to_bytes(8, "big")
        return bytes(header) + data

    def send_nowait(self, data: bytes) -> bytes | memoryview | None:
        """Offer the frame to the kernel; see :meth:`Outlet.send_nowait`."""
        websocket = self._websocket
        protocol = websocket.protocol
        if protocol.state != _OPEN:
            # The closing handshake has begun: no message may be sent (RFC 6455 §5.5.1).
            return None
        if (
            protocol.writes
            or websocket.send_lock.locked()
            or websocket.send_in_progress is not None
            or (below := _find_direct(self._stream)) is None
        ):
            return data
        rest = _offer(self._stream, below, data)
        if rest is None:
            return None
        # The library sends this before anything else, whichever task comes first.
        protocol.writes.append(bytes(rest))
        return b""

    async def send(self, data: bytes | memoryview) -> None:
        """Send whole frames between others; see :meth:`Outlet.send`."""
        websocket = self._websocket
        if data:
            # Not between the fragments of another message (RFC 6455 §5.4).
            while websocket.send_in_progress is not None:
                await websocket.send_in_progress.wait()
            if websocket.protocol.state != _OPEN:
                return
            websocket.protocol.writes.append(data)
        await websocket.send_data()

    async def cut(self) -> None:
        """Reset the stream below; see :meth:`Outlet.cut`."""
        await _reset(self._stream)


def _find_direct(stream: object) -> Direct | None:
    # The stream below that can be sent to without a wait, unless a task is sending.
    below = find_underlying(stream, to_receive=False)
    kind = type(below)
    if kind is DirectSocketStream:
        assert isinstance(below, DirectSocketStream)
        return None if below.sending else below
    if kind is TLSStream:
        assert isinstance(below, TLSStream)
        # Bytes of a cancelled call may be unsent.
        ready = below.can_do_nowait and not below.sending and not below.unsent
        return below if ready else None
    return None


def _offer(stream: object, below: Direct, data: bytes) -> memoryview | None:
    # Returns what was not sent; None if everything was.
    try:
        sent = below.send_some_nowait(data)
    except trio.BrokenResourceError:
        record_transfer(stream, broken=True)
        raise
    record_transfer(stream, sent=sent)
    if sent == len(data) and not (isinstance(below, TLSStream) and below.unsent):
        return None
    return memoryview(data)[sent:]


async def _reset(stream: trio.abc.AsyncResource) -> None:
    if isinstance(stream, UpgradedStream):
        await stream.reset()
    elif isinstance(stream, trio.abc.Stream):
        await cut_stream(stream)
    else:
        await trio.aclose_forcefully(stream)
