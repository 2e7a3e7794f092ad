# Bytes from one stream to another until the first one ends: the ways to do it, and the
# choice between them.  Any Trio streams are copied by their public methods.  Between two
# kernel sockets the descriptors are used, and many turns made at a wake-up: Trio's
# checkpoint for each call is given up there, for a budget.  What keeps flowing is
# spliced.
#
# Tried and left out: one reused bytearray with readv(2), which is no faster than fresh
# bytes and would have to be held by each idle copy, or be made anew at each wake-up.
from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeAlias, final

import trio

from .._streams.socket_stream import RECEIVE_SIZE, DirectSocketStream, translate_error
from .._streams.upgraded import find_underlying, record_transfer
from .progress import Progress, Tally
from .splice import CAN_SPLICE, splice

if TYPE_CHECKING:
    from collections.abc import Awaitable

# Full turns between two checkpoints. With RECEIVE_SIZE this is 512 KiB, about 0.2 ms,
# and what a checkpoint costs is below a tenth of that.
_TURNS = 8
# Full turns one after the other that make it worth to open a pipe.
_BULK = 16
# Short turns until the next attempt to read on at once, if those before were in vain: at
# first and at most.  An attempt costs a fifth of a turn.
_PATIENCE = 16
_MOST_PATIENCE = 256
# On Windows a socket is no file descriptor.
_DESCRIPTORS = os.name == "posix"


@final
class Copier(Tally):
    """One direction, from a source to a sink; the end itself is not passed on.

    Whoever runs it awaits what :meth:`step` returns, again and again, as :meth:`run`
    does. The work is done between two such waits and not in a coroutine, because each
    one that waits takes memory, and thousands do.

    Args:
        source: Where it comes from.
        sink: Where it goes.
        progress: Counts along, if there is one.
        backward: Whether that is from right to left.
    """

    __slots__ = (
        "_before",
        "_ended",
        "_full",
        "_next_patience",
        "_patience",
        "_sink_fd",
        "_source_fd",
        "_turns",
        "sink",
        "source",
    )

    def __init__(
        self,
        source: trio.abc.ReceiveStream,
        sink: trio.abc.SendStream,
        progress: Progress | None = None,
        *,
        backward: bool = False,
    ) -> None:
        super().__init__(progress, backward=backward)
        self.source = source
        self.sink = sink
        self._ended = False
        # The two sockets, while they are copied by descriptor.
        self._source_fd: Descriptor | None = None
        self._sink_fd: Descriptor | None = None
        # What was moved by the streams' methods, which count for themselves.
        self._before = 0
        # Turns since the last checkpoint, and full ones one after the other.
        self._turns = self._full = 0
        # Short turns until the next attempt to read on at once, and how many there will
        # be if that is in vain.
        self._patience = self._next_patience = _PATIENCE

    async def run(self) -> None:
        """Copy until the source ends.

        Raises what the streams raise; :attr:`Tally.at_sink` tells which it was.
        """
        try:
            while (pause := self.step()) is not None:
                await pause
        except BaseException as exc:
            self.stop(exc)
            raise
        self.stop()

    def step(self) -> Awaitable[object] | None:
        """Copy what can be copied now: one turn of a chunk at most, by descriptor.

        Returns:
            What to await before the next step; None at the end.
        """
        source_fd, sink_fd = self._source_fd, self._sink_fd
        if self._ended:
            return None
        if source_fd is None or sink_fd is None:
            return self._begin()
        if self._full >= _BULK and CAN_SPLICE:
            self._turns = self._full = 0
            return self._splice(source_fd, sink_fd)
        # All in this one frame, as each small message comes through here.
        self.at_sink = False
        try:
            chunk = os.read(source_fd.fileno(), RECEIVE_SIZE)
        except BlockingIOError:
            if self._turns:
                self._turns = 0
                self._patience = self._next_patience
                self._next_patience = min(2 * self._patience, _MOST_PATIENCE)
            return trio.lowlevel.wait_readable(source_fd.fileno())
        except OSError as exc:
            raise translate_error(exc) from exc
        if not chunk:
            self._ended = True
            return None
        size = len(chunk)
        self.read += size
        self.at_sink = True
        if self._turns:
            self._next_patience = 1
        else:
            # Only where others have run can another one be sending.
            sink_fd.check_sendable()
        try:
            sent = os.write(sink_fd.fileno(), chunk)
        except BlockingIOError:
            sent = 0
        except OSError as exc:
            raise translate_error(exc) from exc
        if self.moved_at is None and self._progress is None:
            self.bytes += sent
        else:
            self.add(sent)
        self._full = self._full + 1 if size == RECEIVE_SIZE else 0
        if sent < size:
            self._turns = 0
            return self._write_rest(sink_fd, chunk, sent)
        if self._patience and not self._full:
            self._patience -= 1
        elif self._turns < _TURNS - 1:
            # A peer on the same core may have answered during the write.
            self._turns += 1
            return trio.lowlevel.checkpoint_if_cancelled()
        # After a short read the source is most likely dry. One pass of the scheduler
        # may bring more, and costs less than to wait for it.
        self._turns = 0
        return trio.lowlevel.checkpoint()

    def stop(self, exc: BaseException | None = None) -> None:
        """Tell the streams what was done below them; others may use them again."""
        source, sink = self.source, self.sink
        if self._source_fd is not None:
            self._source_fd.receiving = False
            sent = self.bytes - self._before
            if _is_same(sink, source):
                record_transfer(sink, received=self.read, sent=sent, ended=self._ended)
            else:
                record_transfer(source, received=self.read, ended=self._ended)
                record_transfer(sink, sent=sent)
        if isinstance(exc, trio.BrokenResourceError):
            record_transfer(sink if self.at_sink else source, broken=True)

    async def pass_end(self) -> None:
        """End the sink, behind the copy, or close it where that is the way to do it.

        A checkpoint only where the stream has one.
        """
        sink = self.sink
        if isinstance(self._sink_fd, DirectSocketStream):
            try:
                self._sink_fd.end()
            except trio.BrokenResourceError:
                record_transfer(sink, broken=True)
                raise
        elif isinstance(sink, trio.abc.HalfCloseableStream):
            await sink.send_eof()
        elif not _is_same(sink, self.source):
            await sink.aclose()

    def _begin(self) -> Awaitable[object]:
        # The engine for this pair at this moment.
        sink_fd = _find_descriptor(find_underlying(self.sink, to_receive=False))
        if sink_fd is None:
            return self._copy_chunks(once=False)
        below = find_underlying(self.source, to_receive=True)
        if below is None:
            # There is a head to be replayed first, and perhaps the end behind it.
            return self._copy_chunks(once=True)
        source_fd = _find_descriptor(below)
        if source_fd is None:
            return self._copy_chunks(once=False)
        if source_fd.receiving:
            raise trio.BusyResourceError("another task is receiving from this stream")
        source_fd.receiving = True
        self._source_fd, self._sink_fd = source_fd, sink_fd
        self._before = self.bytes
        # At once there would hardly be anything: this comes right behind the switch.
        return trio.lowlevel.checkpoint()

    async def _copy_chunks(self, *, once: bool) -> None:
        source, sink = self.source, self.sink
        while True:
            self.at_sink = False
            chunk = await source.receive_some()
            if not chunk:
                self._ended = True
                return
            self.at_sink = True
            self.add(0)
            await sink.send_all(chunk)
            self.add(len(chunk))
            del chunk  # An idle copy holds nothing.
            if once:
                return

    async def _write_rest(self, sink_fd: Descriptor, chunk: bytes, sent: int) -> None:
        try:
            with memoryview(chunk) as view:
                while sent < len(chunk):
                    # The stream's own method, so that its guard is ours until we write.
                    await sink_fd.wait_send_all_might_not_block()
                    with view[sent:] as rest:
                        count = _write(sink_fd, rest)
                    self.add(count)
                    sent += count
        except OSError as exc:
            raise translate_error(exc) from exc
        # What was left has gone since the last wait, and counts as well.
        await trio.lowlevel.checkpoint()

    async def _splice(self, source_fd: Descriptor, sink_fd: Descriptor) -> None:
        await trio.lowlevel.checkpoint()
        try:
            ended = await splice(
                source_fd, sink_fd, self, size=RECEIVE_SIZE, turns=_TURNS
            )
        except OSError as exc:
            raise translate_error(exc) from exc
        self._ended = ended


def _write(sink: Descriptor, data: memoryview) -> int:
    try:
        return os.write(sink.fileno(), data)
    except BlockingIOError:
        return 0


def _is_same(one: object, other: object) -> bool:
    # Typed wide: checkers hold that a SendStream is never a ReceiveStream.
    return one is other


@final
class _TrioDescriptor:
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


Descriptor: TypeAlias = DirectSocketStream | _TrioDescriptor


def _find_descriptor(stream: object) -> Descriptor | None:
    if _DESCRIPTORS and isinstance(stream, DirectSocketStream):
        return stream
    if _DESCRIPTORS and isinstance(stream, trio.SocketStream):
        return _TrioDescriptor(stream)
    return None
