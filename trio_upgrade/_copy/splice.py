# Bulk data from one kernel socket to another by Linux's splice(2), without a copy in our
# own memory.  It needs a pipe in between, which is two descriptors.  They are held only
# while bytes keep coming: splicing is slower for small messages, and an idle copy is to
# hold no descriptors.
#
# EAGAIN from a splice into the pipe means that the pipe is full or the socket is dry.
# The pipe is emptied before each turn, so it can only be the socket.
from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from .descriptors import Descriptor
    from .progress import Tally

CAN_SPLICE = sys.platform == "linux"
# Capacity of the pipe in bytes.  At most one chunk is in it, but a packet takes up a page
# however short it is.  The system may refuse a user this capacity, or any pipe.
_PIPE_BYTES = 1 << 20
_F_SETPIPE_SZ = 1031


async def splice(
    source: Descriptor, sink: Descriptor, tally: Tally, *, size: int, turns: int
) -> bool:
    """Copy until the source is dry or has ended.

    If this is cancelled or fails while it sends, the rest of one turn is lost.

    Args:
        source: The socket to read from.
        sink: The socket to write to.
        tally: Counts the bytes and says which socket was used last.
        size: Bytes per turn, at most.
        turns: Turns between two full checkpoints.

    Returns:
        Whether the source has ended.

    Raises:
        OSError: The socket that was used last has failed.
    """
    try:
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        # No descriptors left: the engine goes on without splice(2).
        return False
    try:
        _enlarge(writer)
        turn = 0
        while True:
            tally.at_sink = False
            try:
                left = _move(source.fileno(), writer, size)
            except BlockingIOError:
                if turn == 0:
                    return False
                await trio.lowlevel.checkpoint()
                turn = 0
                continue
            except OSError as exc:
                if exc.errno != errno.EINVAL:
                    raise
                # This kind of socket cannot be spliced.
                return False
            if not left:
                return True
            tally.read += left
            tally.at_sink = True
            if turn == 0:
                sink.check_sendable()
            while left:
                try:
                    sent = _move(reader, sink.fileno(), left)
                except BlockingIOError:
                    await sink.wait_send_all_might_not_block()
                    turn = 0
                else:
                    tally.add(sent)
                    left -= sent
            turn += 1
            if turn == turns:
                await trio.lowlevel.checkpoint()
                turn = 0
            else:
                await trio.lowlevel.checkpoint_if_cancelled()
    finally:
        os.close(reader)
        os.close(writer)


def _move(source: int, sink: int, size: int) -> int:
    return os.splice(source, sink, size, flags=os.SPLICE_F_NONBLOCK)


def _enlarge(pipe: int) -> None:
    import fcntl  # Here, because not every system has it; a repeated import is cheap.

    with suppress(OSError):
        fcntl.fcntl(pipe, _F_SETPIPE_SZ, _PIPE_BYTES)
