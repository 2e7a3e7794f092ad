# The copy loop.  Back-pressure is Trio's: the next read waits for the last send.
from __future__ import annotations

import trio


async def pipe(
    source: trio.abc.ReceiveStream, sink: trio.abc.SendStream, *, end: bool = True
) -> int:
    """Copy from a stream to another, or back to itself, until the source ends.

    ``pipe(stream, stream)`` is an echo, Node's ``socket.pipe(socket)``. One chunk is in
    memory at a time. Cancelled while it waits for data, nothing is lost; cancelled
    while it sends, a part of one chunk may be.

    Args:
        source: Read to its end, not closed.
        sink: Where it goes.
        end: Whether to pass the end on: by ``send_eof`` where the sink has it, else by
            closing the sink, unless it is also the source. False leaves the sink open.

    Returns:
        The number of bytes copied.

    Raises:
        trio.BrokenResourceError: Either peer is gone.
        trio.ClosedResourceError: Either stream was closed on this side.
    """
    copied = 0
    while chunk := await source.receive_some():
        await sink.send_all(chunk)
        copied += len(chunk)
    if end:
        if isinstance(sink, trio.abc.HalfCloseableStream):
            await sink.send_eof()
        elif not _is_same(sink, source):
            await sink.aclose()
    return copied


def _is_same(one: object, other: object) -> bool:
    # Typed wide: checkers hold that a SendStream is never a ReceiveStream.
    return one is other
