# Bytes from one stream to another until the first one ends: the ways to do it, and the
# choice between them.  Any Trio streams are copied by their public methods.  Between two
# kernel sockets the descriptors are used, and many turns made at a wake-up: that is the
# one place where Trio's checkpoint per call is given up, for a budget.  What keeps
# flowing there is spliced.
#
# Tried and left out: one reused bytearray with readv(2), which is no faster than fresh
# bytes and would have to be held by each idle copy, or be made anew at each wake-up.
from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TypeAlias, final

import trio

from ._socket import RECEIVE_SIZE, DirectSocketStream, translate_error
from ._splice import CAN_SPLICE, splice
from ._stream import look_below, note

# Full turns between two checkpoints. With RECEIVE_SIZE this is 512 KiB, about 0.2 ms,
# and what a checkpoint costs is below a tenth of that.
_TURNS = 8
# Full turns one after the other that make it worth to open a pipe.
_BULK = 16
# On Windows a socket is no file descriptor.
_DESCRIPTORS = os.name == "posix"


@final
@dataclass(slots=True, eq=False)
class Transfer:
    """How many bytes a copy has moved, while it runs and ever after.

    Give it as ``progress=`` and look at it whenever you like; it is also right when the
    copy has failed or was cancelled. It only ever counts up, so it may be given to
    several copies, one after the other or at the same time, and counts them all.

    Attributes:
        left_to_right: Bytes from left to right; from source to sink, where there is
            only one direction. They count as soon as the sink has taken them.
        right_to_left: Bytes in the other direction.
    """

    left_to_right: int = 0
    right_to_left: int = 0

    @property
    def bytes(self) -> int:
        """Both directions together."""
        return self.left_to_right + self.right_to_left


@final
class Tally:
    """What is known of one direction while it is copied.

    Attributes:
        bytes: How many were moved.
        read: How many were read by descriptor.
        at_sink: Whether the sink was used last, and not the source.
        timed: Whether somebody wants to know :attr:`moved_at`.
        moved_at: When a byte came or went last, on Trio's clock.
    """

    __slots__ = (
        "_backward",
        "_transfer",
        "at_sink",
        "bytes",
        "moved_at",
        "read",
        "timed",
    )

    def __init__(self, transfer: Transfer | None, *, backward: bool = False) -> None:
        self._transfer = transfer
        self._backward = backward
        self.bytes: int = 0
        self.read: int = 0
        self.at_sink: bool = False
        self.timed: bool = False
        self.moved_at: float = 0.0

    def add(self, count: int) -> None:
        """Count bytes that have gone; 0 says that some have come."""
        self.bytes += count
        if self.timed:
            self.moved_at = trio.current_time()
        if self._transfer is not None:
            if self._backward:
                self._transfer.right_to_left += count
            else:
                self._transfer.left_to_right += count


async def copy(
    source: trio.abc.ReceiveStream, sink: trio.abc.SendStream, tally: Tally
) -> None:
    """Copy until the source ends; the end itself is not passed on.

    Raises what the streams raise; :attr:`Tally.at_sink` tells which of them it was.
    """
    port = _find_port(look_below(sink, to_receive=False))
    try:
        if port is not None:
            while (below := look_below(source, to_receive=True)) is None:
                # There is a head to be replayed first, and perhaps the end behind it.
                if not await _copy_chunk(source, sink, tally):
                    return
            origin = _find_port(below)
            if origin is not None:
                before = tally.bytes
                try:
                    await _copy_descriptors(origin, port, tally)
                    note(source, ended=True)
                finally:
                    note(source, received=tally.read)
                    note(sink, sent=tally.bytes - before)
                return
        while await _copy_chunk(source, sink, tally):
            pass
    except trio.BrokenResourceError:
        note(sink if tally.at_sink else source, broken=True)
        raise


async def _copy_chunk(
    source: trio.abc.ReceiveStream, sink: trio.abc.SendStream, tally: Tally
) -> bool:
    # What was received is let go of on return, so that an idle copy holds nothing.
    tally.at_sink = False
    chunk = await source.receive_some()
    if not chunk:
        return False
    tally.at_sink = True
    tally.add(0)
    await sink.send_all(chunk)
    tally.add(len(chunk))
    return True


async def _copy_descriptors(source: Port, sink: Port, tally: Tally) -> None:
    if source.receiving:
        raise trio.BusyResourceError("another task is receiving from this stream")
    source.receiving = True
    try:
        await trio.lowlevel.checkpoint()
        turns = full = 0
        while True:
            if full >= _BULK and CAN_SPLICE:
                chunk = b""
                await trio.lowlevel.checkpoint()
                turns = full = 0
                if await splice(source, sink, tally, size=RECEIVE_SIZE, turns=_TURNS):
                    return
            tally.at_sink = False
            try:
                chunk = os.read(source.fileno(), RECEIVE_SIZE)
            except BlockingIOError:
                chunk = b""  # An idle copy holds nothing.
                await trio.lowlevel.wait_readable(source.fileno())
                turns = 0
                continue
            if not chunk:
                return
            tally.read += len(chunk)
            tally.at_sink = True
            if turns == 0:
                # Only where others have run can another one be sending.
                sink.check_sendable()
            sent = _write(sink, chunk)
            tally.add(sent)
            turns += 1
            full = full + 1 if len(chunk) == RECEIVE_SIZE else 0
            if sent < len(chunk):
                await _write_rest(sink, chunk, sent, tally)
                # What was left has gone since the last wait, and counts as well.
                await trio.lowlevel.checkpoint()
                turns = 0
            elif len(chunk) < RECEIVE_SIZE or turns == _TURNS:
                # After a short read the source is most likely dry. One pass of the
                # scheduler may bring more, and costs less than to wait for it.
                await trio.lowlevel.checkpoint()
                turns = 0
            else:
                await trio.lowlevel.checkpoint_if_cancelled()
    except OSError as exc:
        raise translate_error(exc) from exc
    finally:
        source.receiving = False


async def _write_rest(sink: Port, chunk: bytes, sent: int, tally: Tally) -> None:
    with memoryview(chunk) as view:
        while sent < len(chunk):
            # The stream's own method, so that its guard is ours until we write.
            await sink.wait_send_all_might_not_block()
            with view[sent:] as rest:
                count = _write(sink, rest)
            tally.add(count)
            sent += count


def _write(sink: Port, data: bytes | memoryview) -> int:
    try:
        return os.write(sink.fileno(), data)
    except BlockingIOError:
        return 0


@final
class _TrioPort:
    # What the loop needs of a trio.SocketStream.
    __slots__ = ("_stream", "receiving")

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        # Trio has no such guard: whoever waits second is told.
        self.receiving = False

    def fileno(self) -> int:
        return self._stream.socket.fileno()

    def check_sendable(self) -> None:
        # Trio's guard is private, and a write past it would land in the middle of what
        # another task sends. Its own method asks for us: run up to its checkpoint, it
        # has looked at everything and done nothing.
        probe = self._stream.send_all(b"")
        try:
            probe.send(None)
        finally:
            probe.close()

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()


Port: TypeAlias = DirectSocketStream | _TrioPort


def _find_port(stream: object) -> Port | None:
    if _DESCRIPTORS and isinstance(stream, DirectSocketStream):
        return stream
    if _DESCRIPTORS and isinstance(stream, trio.SocketStream):
        return _TrioPort(stream)
    return None
