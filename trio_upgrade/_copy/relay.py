# Both directions between two connections, and when that is over.  The rules are those
# that Go and Caddy came to the hard way: a clean end ends one direction, errors end both.
#
# Time costs no chunk a deadline: who moves bytes notes when, and only while somebody
# counts; a watcher sleeps until the time could be up, and looks.
from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Literal, TypeAlias, final

import trio

from .._streams.closing import close_forcefully, close_gracefully
from .._streams.underlying import reset_on_close
from .._util import Record, public
from .engine import Copier

if TYPE_CHECKING:
    from .progress import Progress, Tally

Side: TypeAlias = Literal["left", "right"]
Cause: TypeAlias = Literal["eof", "reset", "idle", "half_close_timeout"]

# Seconds for the close_notify of a TLS stream that has to be closed to say the end; as
# Limits.linger.
_FAREWELL = 2.0


@public
@final
class RelayResult(Record):
    """How a relay went.

    Attributes:
        left_to_right: Bytes taken from left and sent to right.
        right_to_left: Bytes in the other direction.
        ended_by: Whose end or reset came first, ``"left"`` or ``"right"``; None if both
            were only silent.
        cause: How it ended. ``"eof"``: both sides have ended their directions.
            ``"reset"``: the connection of :attr:`ended_by` broke, or its TLS was cut
            without a word. ``"idle"``: no byte moved for ``idle_timeout``.
            ``"half_close_timeout"``: :attr:`ended_by` had ended its direction, and in
            the other one no byte moved for that long.
    """

    __match_args__ = ("left_to_right", "right_to_left", "ended_by", "cause")

    left_to_right: int
    right_to_left: int
    ended_by: Side | None
    cause: Cause

    def __init__(
        self,
        left_to_right: int,
        right_to_left: int,
        ended_by: Side | None,
        cause: Cause,
    ) -> None:
        vars(self).update(
            left_to_right=left_to_right,
            right_to_left=right_to_left,
            ended_by=ended_by,
            cause=cause,
        )


@public
async def relay(
    left: trio.abc.Stream,
    right: trio.abc.Stream,
    *,
    idle_timeout: float | None = None,
    half_close_timeout: float | None = 60,
    progress: Progress | None = None,
) -> RelayResult:
    """Copy both ways between two connections until both directions have ended.

    An end is passed on as an end, by ``send_eof``, and the other direction goes on. A
    stream that has no ``send_eof``, TLS say, stays open until the other direction is
    over, too, and is then closed, which is its way to say the end. A reset of one side
    is a result, and resets the other: what was cut must not look like an end.

    Memory is bounded by one chunk of 64 KiB each way, whatever the peers do.

    The streams stay the caller's to close, also after an exception or a cancellation,
    which leave them as they are, perhaps with a part of one chunk each way lost. This
    closes a stream in two cases: both after a reset, so that nobody can be polite
    afterwards; and one that cannot be half-closed and is owed an end, when the relay is
    over, within 2 seconds.

    Args:
        left: One connection. No other task may use it meanwhile.
        right: The other one.
        idle_timeout: Seconds without a byte in either direction, after which it is over;
            None for no bound.
        half_close_timeout: Seconds without a byte after one side has ended, in which
            the other one has to end or go on; None for no bound.
        progress: Counts while this runs, and stays right whatever happens. None: nothing
            is reported.

    A byte counts for the timeouts when it has come and when the other stream has taken
    it. A send that takes longer than a timeout is silence, unless both streams are
    kernel sockets, where each part is seen.

    Returns:
        The counts, and who ended it how.

    Raises:
        trio.ClosedResourceError: A stream was closed on this side.
        trio.BusyResourceError: Another task uses one of the streams.
        Exception: Whatever else a stream of your own raises; like those above it comes
            as it is, never in a group.
    """
    started = _Relay(left, right, half_close_timeout, progress)
    return await started.run(idle_timeout)


@final
class _Direction:
    __slots__ = ("copier", "ended", "sink", "sink_side", "source_side")

    def __init__(
        self,
        source: tuple[Side, trio.abc.Stream],
        sink: tuple[Side, trio.abc.Stream],
        progress: Progress | None,
    ) -> None:
        self.source_side: Side = source[0]
        self.sink_side: Side = sink[0]
        self.sink = sink[1]
        backward = self.sink_side == "left"
        self.copier = Copier(source[1], sink[1], progress, backward=backward)
        self.ended = False


@final
class _Relay:
    def __init__(
        self,
        left: trio.abc.Stream,
        right: trio.abc.Stream,
        half_close_timeout: float | None,
        progress: Progress | None,
    ) -> None:
        one: tuple[Side, trio.abc.Stream] = ("left", left)
        other: tuple[Side, trio.abc.Stream] = ("right", right)
        self._forth = _Direction(one, other, progress)
        self._back = _Direction(other, one, progress)
        self._half_close_timeout = half_close_timeout
        self._scope = trio.CancelScope()
        self._ended_by: Side | None = None
        self._cause: Cause | None = None

    async def run(self, idle_timeout: float | None) -> RelayResult:
        failures: tuple[BaseException, ...] = ()
        try:
            async with trio.open_nursery() as nursery:
                self._scope = nursery.cancel_scope
                nursery.start_soon(
                    self._copy, self._back, self._forth, name="trio_upgrade relay"
                )
                if idle_timeout is not None:
                    nursery.start_soon(
                        self._wait_idle, idle_timeout, name="trio_upgrade relay idle"
                    )
                await self._copy(self._forth, self._back)
        except BaseExceptionGroup as group:
            failures = group.exceptions
        if failures:
            # The nursery's group, and nobody else's, is opened.
            first, *others = sorted(failures, key=_is_cancelled)
            for exc in others:
                if not _is_cancelled(exc):
                    first.add_note(f"in the other direction: {exc!r}")
            raise first
        await self._close()
        assert self._cause is not None
        return RelayResult(
            self._forth.copier.bytes,
            self._back.copier.bytes,
            self._ended_by,
            self._cause,
        )

    async def _copy(self, direction: _Direction, other: _Direction) -> None:
        copier = direction.copier
        try:
            await copier.run()
            copier.at_sink = True
            if isinstance(direction.sink, trio.abc.HalfCloseableStream):
                await direction.sink.send_eof()
        except trio.BrokenResourceError:
            at_sink = copier.at_sink
            self._finish(
                "reset", direction.sink_side if at_sink else direction.source_side
            )
            return
        direction.ended = True
        if other.ended:
            self._finish("eof", other.source_side)
        elif self._half_close_timeout is not None:
            await _wait_silence(self._half_close_timeout, other.copier)
            self._finish("half_close_timeout", direction.source_side)

    async def _wait_idle(self, seconds: float) -> None:
        await _wait_silence(seconds, self._forth.copier, self._back.copier)
        self._finish("idle", None)

    def _finish(self, cause: Cause, ended_by: Side | None) -> None:
        if self._cause is None:
            self._cause, self._ended_by = cause, ended_by
            self._scope.cancel()

    async def _close(self) -> None:
        directions = (self._forth, self._back)
        if self._cause == "reset":
            for direction in directions:
                reset_on_close(direction.sink)
                await close_forcefully(direction.sink)
            return
        for direction in directions:
            sink = direction.sink
            if direction.ended and not isinstance(sink, trio.abc.HalfCloseableStream):
                # The peer may have cut its TLS meanwhile: closed all the same.
                with suppress(trio.BrokenResourceError):
                    await close_gracefully(sink, _FAREWELL)


def _is_cancelled(exc: BaseException) -> bool:
    return isinstance(exc, trio.Cancelled)


async def _wait_silence(seconds: float, *tallies: Tally) -> None:
    # Return when no byte has moved for so long, counted from now at the earliest.
    last = trio.current_time()
    for tally in tallies:
        tally.moved_at = tally.moved_at or 0.0
    while (deadline := last + seconds) > trio.current_time():
        await trio.sleep_until(deadline)
        last = max(last, *(tally.moved_at or 0.0 for tally in tallies))
