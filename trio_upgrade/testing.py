# Helpers for tests of programs that use trio_upgrade, and for our own tests.  They do not
# use pytest, so they work with any test runner.
"""Test apps and clients without sockets, with exact bytes and packets."""

from __future__ import annotations

import operator
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Literal, final

import trio
import trio.testing

# Only public names, as in a user's program: an add-on gets no private access.
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
        nursery: Runs the task of the server, which ends with the connection.
        app: The app to test.
        limits: The limits of both sides.
        strict: Whether exceptions of the app leave the nursery; if not, they are logged.

    Returns:
        The connection of the client, to be used in ``async with``.
    """
    client_end, server_end = trio.testing.memory_stream_pair()
    nursery.start_soon(
        partial(serve_stream, app, server_end, limits=limits, strict=strict)
    )
    return await open_connection("http://testserver", limits=limits, stream=client_end)


def split_points(data: bytes) -> Iterator[tuple[bytes, ...]]:
    """Yield the ways to cut bytes into packets that a test should try.

    They are: one packet, two packets cut at each point, and one packet for each byte.
    A parser must give the same result for all of them.
    """
    yield (data,)
    for point in range(1, len(data)):
        yield data[:point], data[point:]
    if len(data) > 1:
        yield tuple(data[point : point + 1] for point in range(len(data)))


@final
class ScriptedPeer(trio.abc.HalfCloseableStream):
    """A stream to a peer that follows a script.

    Give it to :func:`serve_stream`, or to a client as ``stream=``. Each
    ``receive_some`` returns one packet of the script, so packet boundaries are exact.
    What is sent to the peer is recorded.

    Args:
        script: The packets that the peer sends, in order.
        then: What the peer does after the last packet: ``"end"`` its direction,
            ``"reset"`` the connection, or ``"silence"``.

    Attributes:
        sent: All bytes that were sent to the peer.
        got_eof: Whether ``send_eof`` was called.
        closed: Whether this stream was closed.

    Raises:
        TypeError: A packet is not bytes.
    """

    def __init__(
        self, *script: bytes, then: Literal["end", "reset", "silence"] = "end"
    ) -> None:
        self.sent: bytearray = bytearray()
        self.got_eof: bool = False
        self.closed: bool = False
        self._script = deque[bytes]()
        self._then = then
        self._held_until = b""
        self._changed = trio.Event()
        self.feed(*script)

    @property
    def packets_left(self) -> int:
        """How many packets of the script have not been received yet."""
        return len(self._script)

    def hold_until_sent(self, marker: bytes) -> ScriptedPeer:
        """Delay the script until :attr:`sent` contains ``marker``; return ``self``."""
        self._held_until = marker
        return self

    def feed(self, *packets: bytes) -> None:
        """Add packets to the end of the script, also while a task waits for them.

        Raises:
            TypeError: A packet is not bytes; no packet was added.
        """
        for packet in packets:
            # A list of packets, given as one of them, would fail much later.
            if not isinstance(packet, bytes):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise TypeError(f"a packet is bytes, not {type(packet).__name__}")
        self._script.extend(packet for packet in packets if packet)
        self._wake()

    def finish(self, then: Literal["end", "reset"] = "end") -> None:
        """Let the peer end or reset the connection after its last packet."""
        self._then = then
        self._wake()

    async def wait_sent(self, marker: bytes) -> None:
        """Wait until :attr:`sent` contains ``marker``.

        Raises:
            trio.ClosedResourceError: The stream was closed, so nothing more is sent.
        """
        await trio.lowlevel.checkpoint()
        while marker not in self.sent:
            if self.closed:
                raise trio.ClosedResourceError(f"closed without sending {marker!r}")
            await self._changed.wait()

    async def wait_closed(self) -> None:
        """Wait until this stream is closed."""
        await trio.lowlevel.checkpoint()
        while not self.closed:
            await self._changed.wait()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return the next packet of the script, or its first ``max_bytes`` bytes."""
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
        """Record the data in :attr:`sent`."""
        await trio.lowlevel.checkpoint()
        self._check_open()
        if self.got_eof:
            raise trio.ClosedResourceError("send_all after send_eof")
        if self._then == "reset" and not self._script:
            raise trio.BrokenResourceError("the script resets the connection")
        self.sent += data
        self._wake()

    async def wait_send_all_might_not_block(self) -> None:
        """Return after a checkpoint: the peer always reads."""
        await trio.lowlevel.checkpoint()
        self._check_open()

    async def send_eof(self) -> None:
        """Record the end of our direction in :attr:`got_eof`."""
        await trio.lowlevel.checkpoint()
        self._check_open()
        self.got_eof = True
        self._wake()

    async def aclose(self) -> None:
        """Record the close in :attr:`closed`."""
        self.closed = True
        self._wake()
        await trio.lowlevel.checkpoint()

    def _check_open(self) -> None:
        if self.closed:
            raise trio.ClosedResourceError("this stream was closed")

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
