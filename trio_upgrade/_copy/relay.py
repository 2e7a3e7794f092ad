# Copies in both directions between two connections, and when they are over.  The rules
# are those that Go and Caddy learned from bugs: a clean end ends one direction, an error
# ends both.
#
# No deadline per chunk: the copier records a timestamp, and only while a watcher task
# needs it.  The watcher sleeps until the timeout could be over, then checks it.
from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Literal, TypeAlias, final

import trio

from .._streams.closing import (
    close_forcefully,
    close_gracefully,
)
from .._streams.resetting import reset_on_close
from .._util import Record, check_seconds, public
from .arguments import check_progress, check_stream
from .engine import Copier, takes_end

if TYPE_CHECKING:
    from .progress import Progress, Tally

Side: TypeAlias = Literal["left", "right"]
Cause: TypeAlias = Literal["eof", "reset", "idle", "half_close_timeout"]

# Seconds to send the close_notify when a TLS stream is closed to pass on an end; the
# default of Limits.linger.
_CLOSE_TIMEOUT = 2.0


@public
@final
class RelayResult(Record):
    """How a relay ended.

    Attributes:
        left_to_right: Bytes received from left and sent to right.
        right_to_left: Bytes in the other direction.
        ended_by: The side whose end or reset came first, ``"left"`` or ``"right"``; None
            if both sides were only silent.
        cause: Why the relay ended. ``"eof"``: both sides have ended their directions.
            ``"reset"``: the connection of :attr:`ended_by` broke, or its TLS was cut
            without a close_notify. ``"idle"``: no byte moved for ``idle_timeout``.
            ``"half_close_timeout"``: :attr:`ended_by` had ended its direction, and no
            byte moved in the other direction for ``half_close_timeout``.
    """

    # Not made by dataclass(), as checkers think of a class that is frozen.
    __match_args__ = (  # pyright: ignore[reportAssignmentType]
        "left_to_right",
        "right_to_left",
        "ended_by",
        "cause",
    )

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
    tls_ends: bool = False,
    progress: Progress | None = None,
) -> RelayResult:
    """Copy both ways between two connections until both directions have ended.

    An end of stream is passed on by ``send_eof``, and the other direction goes on. TLS
    gets the end when the other direction has ended as well, because many of its peers
    drop a late answer; see ``tls_ends``. A stream without ``send_eof`` is then closed,
    which is its only way to pass on the end. A reset of one side is a result, and resets
    the other side, so that a cut does not look like an end.

    Memory is limited to one chunk of 64 KiB each way, whatever the peers do, or 256 KiB
    in the kernel; see :func:`pipe`.

    The caller must close the streams, also after an exception or a cancellation. Those
    leave both streams as they are, open and usable: nothing is ended, reset or closed.
    A cancellation while this waits for data loses nothing, and another relay, or the
    caller, can go on. A cancellation while it sends may lose the part of one chunk each
    way that the other stream has not accepted; our TLS over a kernel socket accepts a
    whole chunk, unless its peer renegotiates or the chunk is the source's head. After
    such a loss the stream should be reset, because its peer cannot see that bytes are
    missing; an :class:`UpgradedStream` refuses to send, and its owner resets it.

    This function closes streams in two cases: both streams after a reset, so that no
    graceful close can follow; and, when the relay is over, a stream that cannot be
    half-closed and whose source has ended, within 2 seconds.

    Args:
        left: One connection. No other task may use it during the relay.
        right: The other connection. The same holds for it.
        idle_timeout: Seconds without a byte in either direction after which the relay
            ends; None disables the limit.
        half_close_timeout: Seconds without a byte, after one side has ended, after which
            the relay ends; each byte from the other side starts the time again.
            None disables the limit.
        tls_ends: Whether an end is passed into TLS at once, as a close_notify. That loses
            the peer's late answer unless it goes on after our end: Docker, Go, OpenSSL
            and Node with ``allowHalfOpen`` do, the servers of asyncio, and of Node by
            default, do not. A :class:`trio.SSLStream` cannot do this.
        progress: Counts the bytes while this runs, and is right however this ends. None
            disables it.

    For the timeouts, a byte counts when it was received and when the other stream has
    accepted it. A send that takes longer than a timeout counts as silence, unless both
    streams are kernel sockets, or our TLS over them, where each part of it counts.

    Returns:
        The counts, the side that ended the relay, and the cause.

    Raises:
        TypeError: An argument has another type.
        ValueError: A timeout is negative.
        trio.ClosedResourceError: A stream was closed on this side.
        trio.BusyResourceError: Another task uses one of the streams.
        Exception: Any other exception that a stream of your own raises. Like those
            above, it comes out as it is, never in a group.
    """
    check_stream("left", left, "receive_some", "send_all")
    check_stream("right", right, "receive_some", "send_all")
    check_seconds("idle_timeout", idle_timeout)
    check_seconds("half_close_timeout", half_close_timeout)
    check_progress(progress)
    started = _Relay(left, right, half_close_timeout, tls_ends, progress)
    return await started.run(idle_timeout)


@final
class _Direction:
    __slots__ = ("copier", "ended", "passed", "sink", "sink_side", "source_side")

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
        # Whether the source has ended, and whether the sink was told.
        self.ended = False
        self.passed = False


@final
class _Relay:
    def __init__(
        self,
        left: trio.abc.Stream,
        right: trio.abc.Stream,
        half_close_timeout: float | None,
        tls_ends: bool,
        progress: Progress | None,
    ) -> None:
        one: tuple[Side, trio.abc.Stream] = ("left", left)
        other: tuple[Side, trio.abc.Stream] = ("right", right)
        self._forth = _Direction(one, other, progress)
        self._back = _Direction(other, one, progress)
        self._half_close_timeout = half_close_timeout
        self._tls_ends = tls_ends
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
            # Unwrap only the nursery's own group, not one that a stream has raised.
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
            sink = direction.sink
            if takes_end(sink, tls_ends=self._tls_ends):
                await sink.send_eof()
                direction.passed = True
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
            if not direction.ended or direction.passed:
                continue
            # The peer may have cut its TLS by now; its owner closes it, or we do.
            with suppress(trio.BrokenResourceError):
                if isinstance(sink, trio.abc.HalfCloseableStream):
                    with trio.move_on_after(_CLOSE_TIMEOUT):
                        await sink.send_eof()
                else:
                    await close_gracefully(sink, _CLOSE_TIMEOUT)


def _is_cancelled(exc: BaseException) -> bool:
    return isinstance(exc, trio.Cancelled)


async def _wait_silence(seconds: float, *tallies: Tally) -> None:
    # Return when no byte has moved for `seconds`, counted from now at the earliest.
    last = trio.current_time()
    for tally in tallies:
        tally.moved_at = tally.moved_at or 0.0
    while (deadline := last + seconds) > trio.current_time():
        await trio.sleep_until(deadline)
        last = max(last, *(tally.moved_at or 0.0 for tally in tallies))
