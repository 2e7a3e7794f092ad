# Bytes from one stream to another until the first one ends.  Any Trio streams are copied
# by their public methods.  Between two kernel sockets the descriptors are used: a turn
# reads one chunk and writes it, and one wake-up may make many turns.  Trio's rule of a
# checkpoint for each call is given up there for a budget, _MAX_TURNS.  Our own TLS over a
# kernel socket, on one side or both, has such turns too: its methods without a checkpoint
# are used, and the descriptor of a plain socket on the other side.
#
# The states, and what leads from one to the next:
#
#   begin ---- a head to replay ---> one chunk by the methods, then begin again
#     |   ---- a handshake to make -> the handshake, then begin again
#     |   ---- other streams -------> all chunks by the methods, then ended
#     v
#   turn  ---- source is dry -------> wait_readable, then turn again
#     |   ---- sink is full --------> write the rest, then turn again
#     |   ---- many full turns -----> splice until the source is dry, then turn again
#     |   ---- end of stream -------> ended
#     v
#   turn again, either at once (after a cancel check) or after a full checkpoint
#
# Two heuristics.  Full turns: after _SPLICE_AFTER of them in a row (_full_turns) bulk
# data is flowing, and splice(2) is worth its pipe.  Patience: after a full turn the copy
# reads on at once, but after a short turn the source is most likely dry, and a full
# checkpoint comes first.  Yet a peer on the same core may have answered during the write.
# So after _patience short turns the copy reads on at once, until the source is dry.  If
# that found bytes, the next attempt comes after 1 short turn; each time it finds none,
# _next_patience doubles, up to _MAX_PATIENCE.
#
# A TLS sink takes a chunk whole, as ciphertext, and nothing more is read until the kernel
# has taken that.  So a cancelled copy into TLS loses nothing, where a socket may have
# taken a part of the chunk.
#
# Tried and left out: one reused bytearray with readv(2).  It is no faster than fresh
# bytes, and each idle copy would have to hold it, or each wake-up to make it again.
from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeGuard, final

import trio

from .._streams.socket_stream import RECEIVE_SIZE, DirectSocketStream, translate_error
from .._streams.tls import TLSStream
from .._streams.underlying import iter_layers
from .._streams.upgraded import UpgradedStream, find_underlying, record_transfer
from .descriptors import find_descriptor
from .progress import Progress, Tally
from .splice import CAN_SPLICE, splice

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from typing import TypeAlias, TypeGuard

    from .descriptors import Descriptor

    # A stream that is read and written without a checkpoint for each call.
    _Nowait: TypeAlias = Descriptor | TLSStream

# Turns between two full checkpoints.  With RECEIVE_SIZE this is 512 KiB, about 0.2 ms,
# and a checkpoint costs less than a tenth of that.
_MAX_TURNS = 8
# A turn of splice(2) takes no memory of ours, so it can be longer, and fewer of them make
# the same budget: this saved a sixth of the CPU of bulk data.
_SPLICE_BYTES, _SPLICE_TURNS = 4 * RECEIVE_SIZE, 2
# Full turns in a row after which it is worth opening a pipe for splice(2).
_SPLICE_AFTER = 16
# Short turns before an attempt to read on at once: at first, and at most, when attempts
# have failed.  An attempt costs a fifth of a turn.
_FIRST_PATIENCE = 16
_MAX_PATIENCE = 256
# After these a sink needs no note that bytes are missing: it refuses to send anyway, or
# belongs to another task, which the note would disturb.
_NOT_CUT = (trio.ClosedResourceError, trio.BusyResourceError)


@final
class Copier(Tally):
    """A copy in one direction, from a source to a sink; it does not pass on the end.

    The caller awaits the results of :meth:`step` one after the other, as :meth:`run`
    does. The work is done between those waits and not in a coroutine, because each
    waiting coroutine takes memory, and there are thousands of idle copies.

    Args:
        source: The stream to receive from.
        sink: The stream to send to.
        progress: Counts the bytes; None counts nothing.
        backward: Whether this direction is from right to left.
    """

    __slots__ = (
        "_bytes_by_methods",
        "_ended",
        "_full_turns",
        "_lost",
        "_next_patience",
        "_patience",
        "_sink_fd",
        "_source_fd",
        "_tls_pair",
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
        # The two sockets; None until they are copied by descriptor.
        self._source_fd: Descriptor | None = None
        self._sink_fd: Descriptor | None = None
        # The same for two streams of which one is TLS, or both.
        self._tls_pair: tuple[_Nowait, _Nowait] | None = None
        # Bytes moved by the streams' methods, which the streams have counted themselves.
        self._bytes_by_methods = 0
        # Whether a chunk is being sent by a method, and is lost if that raises.
        self._lost = False
        # Turns since the last full checkpoint, and full turns in a row.
        self._turns = self._full_turns = 0
        # Short turns until the next attempt to read on at once, and the number for the
        # attempt after that if it fails.
        self._patience = self._next_patience = _FIRST_PATIENCE

    async def run(self) -> None:
        """Copy until the source ends.

        Raises the errors of the streams; :attr:`Tally.at_sink` says which stream failed.
        """
        try:
            while (pause := self.step()) is not None:
                await pause
        except BaseException as exc:
            self.stop(exc)
            raise
        self.stop()

    def step(self) -> Awaitable[object] | None:
        """Copy what can be copied now, by descriptor: at most one turn.

        Returns:
            An awaitable to await before the next step; None at the end of the source.
        """
        source_fd, sink_fd = self._source_fd, self._sink_fd
        if self._ended:
            return None
        if source_fd is None or sink_fd is None:
            pair = self._tls_pair
            return self._begin() if pair is None else self._turn(*pair)
        if self._full_turns >= _SPLICE_AFTER and CAN_SPLICE:
            self._turns = self._full_turns = 0
            return self._splice(source_fd, sink_fd)
        # The whole turn is in this one frame, because each small message takes it.
        self.at_sink = False
        try:
            chunk = os.read(source_fd.fileno(), RECEIVE_SIZE)
        except BlockingIOError:
            if self._turns:
                # The attempt to read on at once has failed.
                self._turns = 0
                self._patience = self._next_patience
                self._next_patience = min(2 * self._patience, _MAX_PATIENCE)
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
            # Another task can only have begun to send if other tasks have run.
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
        self._full_turns = self._full_turns + 1 if size == RECEIVE_SIZE else 0
        if sent < size:
            self._turns = 0
            return self._write_rest(sink_fd, chunk, sent)
        if self._patience and not self._full_turns:
            self._patience -= 1
        elif self._turns < _MAX_TURNS - 1:
            self._turns += 1
            return trio.lowlevel.checkpoint_if_cancelled()
        # One pass of the scheduler may bring more bytes, and costs less than to register
        # a wait for them.
        self._turns = 0
        return trio.lowlevel.checkpoint()

    def _turn(self, source: _Nowait, sink: _Nowait) -> Awaitable[object] | None:
        # A turn if one of the two is TLS.
        if type(sink) is TLSStream and sink.unsent and not sink.sending:
            self.at_sink = True
            return self._flush(sink)
        self.at_sink = False
        chunk = _receive(source)
        if chunk is None:
            self._turns = 0
            if type(source) is TLSStream:
                return source.wait_readable()
            return trio.lowlevel.wait_readable(source.fileno())
        if not chunk:
            self._ended = True
            return None
        size = len(chunk)
        self.read += size
        self.at_sink = True
        if type(sink) is TLSStream:
            sent = sink.send_whole_nowait(chunk)
            self.add(sent)
            if sent < size:
                return self._send_rest(sink, chunk[sent:])
            if sink.unsent:
                self._turns = 0
                return self._flush(sink)
        else:
            sink.check_sendable()
            try:
                sent = _write(sink, chunk)
            except OSError as exc:
                raise translate_error(exc) from exc
            self.add(sent)
            if sent < size:
                self._turns = 0
                return self._write_rest(sink, chunk, sent)
        if size == RECEIVE_SIZE and self._turns < _MAX_TURNS - 1:
            self._turns += 1
            return trio.lowlevel.checkpoint_if_cancelled()
        self._turns = 0
        return trio.lowlevel.checkpoint()

    def stop(self, exc: BaseException | None = None) -> None:
        """Report the moved bytes to the streams, and let other tasks use them again."""
        source, sink = self.source, self.sink
        owned = self._source_fd if self._tls_pair is None else self._tls_pair[0]
        if owned is not None:
            owned.receiving = False
            sent = self.bytes - self._bytes_by_methods
            if _is_same(sink, source):
                record_transfer(sink, received=self.read, sent=sent, ended=self._ended)
            else:
                record_transfer(source, received=self.read, ended=self._ended)
                record_transfer(sink, sent=sent)
            self._lost |= self.read > sent
        if isinstance(exc, trio.BrokenResourceError):
            record_transfer(sink if self.at_sink else source, broken=True)
        elif self._lost and not isinstance(exc, _NOT_CUT):
            # Bytes were received that the sink does not get: nothing may follow in it.
            record_transfer(sink, cut=True)

    async def pass_end(self, *, tls_ends: bool) -> None:
        """End our direction of the sink after the copy.

        A sink that cannot be half-closed is closed, unless it is also the source. TLS is
        left open, unless its peer has ended too. This is a checkpoint only if the method
        of the sink is one.

        Args:
            tls_ends: Whether TLS is ended in any case.
        """
        sink = self.sink
        if isinstance(self._sink_fd, DirectSocketStream):
            try:
                self._sink_fd.end()
            except trio.BrokenResourceError:
                record_transfer(sink, broken=True)
                raise
            record_transfer(sink, eof_sent=True)
        elif isinstance(sink, trio.abc.HalfCloseableStream):
            over = _is_same(sink, self.source) or (
                isinstance(sink, UpgradedStream) and sink.peer_ended
            )
            if over or takes_end(sink, tls_ends=tls_ends):
                await sink.send_eof()
        elif not _is_same(sink, self.source):
            await sink.aclose()

    def _begin(self) -> Awaitable[object]:
        # Choose the engine for these two streams at this moment.
        sink = _find_nowait(find_underlying(self.sink, to_receive=False))
        if sink is None:
            return self._copy_chunks(once=False)
        below = find_underlying(self.source, to_receive=True)
        if below is None:
            # A head has to be replayed first, and perhaps an end of stream after it.
            return self._copy_chunks(once=True)
        source = _find_nowait(below)
        if source is None:
            return self._copy_chunks(once=False)
        if type(source) is TLSStream or type(sink) is TLSStream:
            for tls in (source, sink):
                if type(tls) is TLSStream and not tls.can_do_nowait:
                    # Before a chunk is read, which a cancellation would lose.
                    self.at_sink = tls is sink
                    return tls.do_handshake()
            self._take(source)
            self._tls_pair = source, sink
        else:
            self._take(source)
            self._source_fd, self._sink_fd = source, sink
        self._bytes_by_methods = self.bytes
        # A checkpoint first: right after the switch there are hardly any bytes yet.
        return trio.lowlevel.checkpoint()

    def _take(self, source: _Nowait) -> None:
        if source.receiving:
            raise trio.BusyResourceError("another task is receiving from this stream")
        source.receiving = True

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
            self._lost = True
            await sink.send_all(chunk)
            self._lost = False
            self.add(len(chunk))
            del chunk  # An idle copy holds no buffer.
            if once:
                return

    async def _write_rest(self, sink_fd: Descriptor, chunk: bytes, sent: int) -> None:
        try:
            with memoryview(chunk) as view:
                while sent < len(chunk):
                    # The stream's own method: no other task can send until we write.
                    await sink_fd.wait_send_all_might_not_block()
                    with view[sent:] as rest:
                        count = _write(sink_fd, rest)
                    self.add(count)
                    sent += count
        except OSError as exc:
            raise translate_error(exc) from exc
        # The rest was written since the last wait, and counts for the budget.
        await trio.lowlevel.checkpoint()

    async def _flush(self, sink: TLSStream) -> None:
        # The chunk is let go: only its ciphertext is left.
        while sink.unsent:
            await sink.wait_sent_some()
            self.add(0)
        await trio.lowlevel.checkpoint()

    async def _send_rest(self, sink: TLSStream, rest: bytes) -> None:
        self._turns = 0
        await sink.send_rest(rest)
        self.add(len(rest))
        await trio.lowlevel.checkpoint()

    async def _splice(self, source_fd: Descriptor, sink_fd: Descriptor) -> None:
        await trio.lowlevel.checkpoint()
        try:
            ended = await splice(
                source_fd, sink_fd, self, size=_SPLICE_BYTES, turns=_SPLICE_TURNS
            )
        except OSError as exc:
            raise translate_error(exc) from exc
        self._ended = ended


def takes_end(
    sink: trio.abc.SendStream, *, tls_ends: bool
) -> TypeGuard[trio.abc.HalfCloseableStream]:
    """Tell whether an end can be passed on while the sink's peer may still send.

    Not to a stream without half-close. And not into TLS unless ``tls_ends``: its peers
    may drop what they have still to send, as those of asyncio and Node do.
    """
    return isinstance(sink, trio.abc.HalfCloseableStream) and (
        tls_ends or not any(isinstance(layer, TLSStream) for layer in iter_layers(sink))
    )


def _find_nowait(stream: object) -> _Nowait | None:
    # By exact type, here and above: isinstance() is slow for an abstract base.
    if type(stream) is TLSStream:
        return stream if stream.is_direct else None
    return find_descriptor(stream)


def _receive(source: _Nowait) -> bytes | None:
    if type(source) is TLSStream:
        return source.receive_as_owner(RECEIVE_SIZE)
    try:
        return os.read(source.fileno(), RECEIVE_SIZE)
    except BlockingIOError:
        return None
    except OSError as exc:
        raise translate_error(exc) from exc


def _write(sink: Descriptor, data: bytes | memoryview) -> int:
    try:
        return os.write(sink.fileno(), data)
    except BlockingIOError:
        return 0


def _is_same(one: object, other: object) -> bool:
    # Typed as object: checkers assume that a SendStream is never a ReceiveStream.
    return one is other
