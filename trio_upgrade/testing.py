# Helpers for the tests of programs that use trio_upgrade, and for our own.  No pytest
# here: they work under any test runner.
"""Test apps and clients without a socket, byte for byte."""

from __future__ import annotations

import operator
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Literal, final

import trio
import trio.testing

# As a user's program would: an add-on has no way in that others have not.
from . import Limits, open_connection, serve_stream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from . import App, ClientConnection

__all__ = ["ScriptedPeer", "open_pair", "split_points"]


async def open_pair(
    nursery: trio.Nursery,
    app: App,
    *,
    limits: Limits = Limits(),
    strict: bool = True,
) -> ClientConnection:
    """Connect a client to an app over memory streams.

    ::

        async with await open_pair(nursery, app) as connection:
            async with await connection.upgrade("/chat", "echo") as (_, stream, _):
                ...

    Args:
        nursery: Runs the server's side, which ends with the connection.
        app: What is tested.
        limits: The bounds of both sides.
        strict: Whether the app's exceptions come out of the nursery.
    """
    near, far = trio.testing.memory_stream_pair()
    nursery.start_soon(partial(serve_stream, app, far, limits=limits, strict=strict))
    return await open_connection("http://testserver", limits=limits, stream=near)


def split_points(data: bytes) -> Iterator[tuple[bytes, ...]]:
    """Yield every way that matters to cut bytes into packets.

    Whole, in two at every point, and byte by byte. Whatever reads a wire has to give
    the same result for each.
    """
    yield (data,)
    for point in range(1, len(data)):
        yield data[:point], data[point:]
    if len(data) > 1:
        yield tuple(data[point : point + 1] for point in range(len(data)))


@final
class ScriptedPeer(trio.abc.HalfCloseableStream):
    """The near end of a connection whose far end follows a script.

    It is a stream: give it to :func:`serve_stream`, or to a client as ``stream=``. Each
    ``receive_some`` returns one packet of the script, which makes packet boundaries
    exact; what is sent is recorded.

    Args:
        script: Packets, in order.
        then: What follows them: the peer's ``"end"``, a ``"reset"``, or ``"silence"``.

    Attributes:
        sent: Everything that was sent to the peer.
        got_eof: Whether our direction was ended.
        closed: Whether this end was closed.
    """

    def __init__(
        self, *script: bytes, then: Literal["end", "reset", "silence"] = "end"
    ) -> None:
        self.sent: bytearray = bytearray()
        self.got_eof: bool = False
        self.closed: bool = False
        self._script = deque(packet for packet in script if packet)
        self._then = then
        self._held_until = b""
        self._changed = trio.Event()

    @property
    def packets_left(self) -> int:
        """How many packets of the script were not received yet."""
        return len(self._script)

    def hold_until_sent(self, marker: bytes) -> ScriptedPeer:
        """Hold the script back until :attr:`sent` contains ``marker``; return self."""
        self._held_until = marker
        return self

    def feed(self, *packets: bytes) -> None:
        """Add packets to the script while it runs."""
        self._script.extend(packet for packet in packets if packet)
        self._wake()

    def finish(self, then: Literal["end", "reset"] = "end") -> None:
        """Let the peer end, or reset, the connection behind its packets."""
        self._then = then
        self._wake()

    async def wait_sent(self, marker: bytes) -> None:
        """Wait until :attr:`sent` contains ``marker``.

        Raises:
            trio.ClosedResourceError: The connection was closed, so it never will.
        """
        await trio.lowlevel.checkpoint()
        while marker not in self.sent:
            if self.closed:
                raise trio.ClosedResourceError(f"closed without sending {marker!r}")
            await self._changed.wait()

    async def wait_closed(self) -> None:
        """Wait until this end is closed."""
        await trio.lowlevel.checkpoint()
        while not self.closed:
            await self._changed.wait()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return the script's next packet, in parts if it is longer than asked for."""
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError("max_bytes must be >= 1")
        await trio.lowlevel.checkpoint()
        while True:
            self._check_open()
            if self._held_until in self.sent:
                if self._script:
                    packet = self._script.popleft()
                    if max_bytes is not None and len(packet) > max_bytes:
                        self._script.appendleft(packet[max_bytes:])
                        packet = packet[:max_bytes]
                    return packet
                if self._then == "end":
                    return b""
                if self._then == "reset":
                    raise trio.BrokenResourceError("the script resets the connection")
            await self._changed.wait()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Record what is sent."""
        await trio.lowlevel.checkpoint()
        self._check_open()
        if self.got_eof:
            raise trio.ClosedResourceError("send_all after send_eof")
        if self._then == "reset" and not self._script:
            raise trio.BrokenResourceError("the script resets the connection")
        self.sent += data
        self._wake()

    async def wait_send_all_might_not_block(self) -> None:
        """Return at once: the peer always reads."""
        await trio.lowlevel.checkpoint()
        self._check_open()

    async def send_eof(self) -> None:
        """Record the end of our direction."""
        await trio.lowlevel.checkpoint()
        self._check_open()
        self.got_eof = True
        self._wake()

    async def aclose(self) -> None:
        """Record the close."""
        self.closed = True
        self._wake()
        await trio.lowlevel.checkpoint()

    def _check_open(self) -> None:
        if self.closed:
            raise trio.ClosedResourceError("this end was closed")

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
