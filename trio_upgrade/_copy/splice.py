# Bulk from one kernel socket to another without a copy through our own memory, by
# Linux's splice(2).  It takes a pipe in between, two descriptors, which are held only
# while bytes keep coming: for small messages it is slower, and an idle copy holds none.
#
# A pipe that says EAGAIN is full, or the socket is dry. It is emptied before the next
# turn, so that it can only be the socket.
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
# What the pipe is made for, in bytes. One chunk at most is in it, but a packet takes up a
# page however short it is. Users may be denied so much, or any pipe.
_PIPE_BYTES = 1 << 20
_F_SETPIPE_SZ = 1031


async def splice(
    source: Descriptor, sink: Descriptor, tally: Tally, *, size: int, turns: int
) -> bool:
    """Copy until the source is dry or has ended.

    A full checkpoint comes behind so many turns of so many bytes. Cancelled or failed
    while it sends, what is left of one turn is lost.

    Returns:
        Whether it has ended.

    Raises:
        OSError: Of the socket that was used last.
    """
    try:
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        # No descriptors left: it has to be done without.
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
                # No kind of socket that can be spliced.
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


def _move(source: int, sink: int, most: int) -> int:
    return os.splice(source, sink, most, flags=os.SPLICE_F_NONBLOCK)


def _enlarge(pipe: int) -> None:
    import fcntl  # Not on every system, and cheap.

    with suppress(OSError):
        fcntl.fcntl(pipe, _F_SETPIPE_SZ, _PIPE_BYTES)
