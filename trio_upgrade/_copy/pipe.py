# A copy in one direction.  Back-pressure is Trio's: a read waits for the send before it.
from __future__ import annotations

from typing import TYPE_CHECKING

from .._util import public
from .arguments import check_progress, check_stream
from .engine import Copier

if TYPE_CHECKING:
    import trio

    from .progress import Progress


@public
async def pipe(
    source: trio.abc.ReceiveStream,
    sink: trio.abc.SendStream,
    *,
    end: bool = True,
    tls_ends: bool = False,
    progress: Progress | None = None,
) -> int:
    """Copy from one stream to another, or back to itself, until the source ends.

    ``pipe(stream, stream)`` is an echo, like Node's ``socket.pipe(socket)``. At most one
    chunk of 64 KiB is in memory at a time, and none while the source is silent. Of bulk
    data between two sockets Linux may hold a chunk of 256 KiB instead, in the kernel.

    A cancellation leaves both streams as they are, open and usable: nothing is ended,
    reset or closed. A cancellation while this waits for data loses nothing, and another
    copy can go on. A cancellation while it sends may lose the part of one chunk that the
    sink has not accepted; our TLS over a kernel socket accepts a whole chunk, unless its
    peer renegotiates. After such a loss an :class:`UpgradedStream` refuses to send, as
    after a send that was cut.

    Args:
        source: The stream to receive from. It is read to its end, but not closed.
        sink: The stream to send to.
        end: Whether to pass on the end of the source: by ``send_eof`` if the sink has
            it, otherwise by closing the sink, unless the sink is also the source. False
            leaves the sink open.
        tls_ends: Whether an end is passed into TLS, as a close_notify, also while the
            peer of the sink may still send. That loses the peer's late answer unless it
            goes on after our end: Docker, Go, OpenSSL and Node with ``allowHalfOpen`` do,
            the servers of asyncio, and of Node by default, do not. If False, a TLS sink
            is left open, unless its peer has ended as well; its owner ends it.
        progress: Counts the bytes, as left to right, while this runs. None disables it.

    Returns:
        The number of bytes copied.

    Raises:
        TypeError: An argument has another type.
        trio.BrokenResourceError: Either peer is gone.
        trio.ClosedResourceError: Either stream was closed on this side.
        trio.BusyResourceError: Another task receives from the source or sends to the
            sink.
    """
    check_stream("source", source, "receive_some")
    check_stream("sink", sink, "send_all")
    check_progress(progress)
    copier = Copier(source, sink, progress)
    # The same as Copier.run(), but with one waiting frame less.
    try:
        while (pause := copier.step()) is not None:
            await pause
    except BaseException as exc:
        copier.stop(exc)
        raise
    copier.stop()
    if end:
        await copier.pass_end(tls_ends=tls_ends)
    return copier.bytes
