# The view of a kernel socket that the copy engines need, and the two streams that give
# it: our own DirectSocketStream, and trio.SocketStream by an adapter.
from __future__ import annotations

import os
from typing import Protocol, final

import trio

from .._streams.socket_stream import DirectSocketStream

# On Windows a socket is no file descriptor, so that os.read() cannot be used.
_SOCKETS_ARE_FILES = os.name == "posix"


class Descriptor(Protocol):
    """A kernel socket that is copied by its descriptor, past the methods of its stream.

    Attributes:
        receiving: Whether a task is receiving. A copy sets this on its source.
    """

    receiving: bool

    def fileno(self) -> int:
        """Return the descriptor, -1 after the stream was closed."""
        ...

    def check_sendable(self) -> None:
        """Raise the errors that ``send_all`` raises before it sends anything."""
        ...

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the kernel can take some bytes.

        Other tasks cannot send until the caller has its next checkpoint.
        """
        ...


def find_descriptor(stream: object) -> Descriptor | None:
    """Return the descriptor of a stream; None if it is not a kernel socket."""
    if _SOCKETS_ARE_FILES and isinstance(stream, DirectSocketStream):
        return stream
    if _SOCKETS_ARE_FILES and isinstance(stream, trio.SocketStream):
        return TrioDescriptor(stream)
    return None


@final
class TrioDescriptor:
    """The descriptor of a :class:`trio.SocketStream`."""

    __slots__ = ("_stream", "receiving")

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        # Trio's stream has no such flag: it raises only if a second task has to wait.
        self.receiving: bool = False

    def fileno(self) -> int:
        """See :class:`Descriptor`."""
        return self._stream.socket.fileno()

    def check_sendable(self) -> None:
        """See :class:`Descriptor`."""
        # Trio's guard against two senders is private, and without it our write could land
        # in the middle of another task's data.  So step Trio's own send_all(b"") by hand
        # up to its first checkpoint, and close it there.  This relies on three things,
        # which a contract test checks: all errors are raised before that checkpoint,
        # nothing is sent or registered with Trio by then, and close() frees the guard.
        #
        # Trio's public way is to await send_all(b"").  That is a checkpoint for each
        # message, and a cancellation in it would lose the chunk that was just read.
        probe = self._stream.send_all(b"")
        try:
            probe.send(None)
        finally:
            probe.close()

    async def wait_send_all_might_not_block(self) -> None:
        """See :class:`Descriptor`."""
        # It returns right after it has released Trio's guard, with no checkpoint between.
        await self._stream.wait_send_all_might_not_block()
