# One direction.  Back-pressure is Trio's: the next read waits for the last send.
from __future__ import annotations

from typing import TYPE_CHECKING

from .._util import public
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
    progress: Progress | None = None,
) -> int:
    """Copy from a stream to another, or back to itself, until the source ends.

    ``pipe(stream, stream)`` is an echo, Node's ``socket.pipe(socket)``. One chunk of
    64 KiB at most is in memory at a time, none while the source is silent. Cancelled
    while it waits for data, nothing is lost; cancelled while it sends, a part of one
    chunk may be.

    Args:
        source: Read to its end, not closed.
        sink: Where it goes.
        end: Whether to pass the end on: by ``send_eof`` where the sink has it, else by
            closing the sink, unless it is also the source. False leaves the sink open.
        progress: Counts while this runs, as left to right. None: nothing is reported.

    Returns:
        The number of bytes copied.

    Raises:
        trio.BrokenResourceError: Either peer is gone.
        trio.ClosedResourceError: Either stream was closed on this side.
        trio.BusyResourceError: Another task receives from the source or sends to the
            sink.
    """
    copier = Copier(source, sink, progress)
    # As Copier.run() has it, but with one frame less that waits.
    try:
        while (pause := copier.step()) is not None:
            await pause
    except BaseException as exc:
        copier.stop(exc)
        raise
    copier.stop()
    if end:
        await copier.pass_end()
    return copier.bytes
