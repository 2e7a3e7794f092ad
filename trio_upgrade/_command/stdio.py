# Standard input and output as streams of Trio.
#
# O_NONBLOCK belongs to the open file, which this program shares with the shell that
# started it and with the other programs of its pipeline: set on a terminal it makes their
# writes fail, and after a SIGKILL it stays.  So it is never set on a descriptor that was
# inherited.  On Linux pipes and terminals are opened once more, by /proc/self/fd, and
# only that copy is non-blocking.  All else is read and written by threads: files, which
# epoll refuses, sockets, which cannot be opened again, and all on other systems.
from __future__ import annotations

import errno
import os
import select
import stat
import sys
from typing import TYPE_CHECKING, final

import trio

from .errors import CommandFailed, OutputClosed

if TYPE_CHECKING:
    from collections.abc import Callable

STDIN, STDOUT, STDERR = 0, 1, 2
# The reader of a pipe or a socket is gone.
_READER_GONE = frozenset({errno.EPIPE, errno.ECONNRESET})
# What a pipe of Linux holds.
_CHUNK_BYTES = 64 * 1024
# The device /dev/ptmx, of the controlling side of a terminal: each open(2) of it makes
# another terminal.
_PTY_MAKER = os.makedev(5, 2) if sys.platform == "linux" else -1


def fill_descriptors() -> None:
    """Open /dev/null as each standard stream that the parent has closed.

    Otherwise the next socket would get its number, and be read and written as such.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        pass
    os.close(descriptor)


def is_terminal(descriptor: int) -> bool:
    """Return whether a descriptor is a terminal."""
    return os.isatty(descriptor)


@final
class Input(trio.abc.ReceiveStream):
    """Bytes from a descriptor that stays as it is."""

    def __init__(self, descriptor: int = STDIN) -> None:
        self._descriptor = descriptor
        self._reopened = _reopen(descriptor, os.O_RDONLY)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive bytes, empty at the end, also if a terminal is gone.

        Raises:
            CommandFailed: It cannot be read. That must not look like an end: the peer
                would take what it has got for all.
        """
        size = _CHUNK_BYTES if max_bytes is None else max_bytes
        try:
            if self._reopened is not None:
                return bytes(await self._reopened.receive_some(size))
            return await _run_in_thread(_read, self._descriptor, size)
        except (trio.BrokenResourceError, OSError) as exc:
            if _find_errno(exc) == errno.EIO and _is_device(self._descriptor):
                return b""
            raise CommandFailed(
                f"cannot read standard input: {_describe(exc)}"
            ) from exc

    async def aclose(self) -> None:
        """Close the copy, if there is one."""
        if self._reopened is not None:
            await self._reopened.aclose()
        else:
            await trio.lowlevel.checkpoint()


@final
class Output(trio.abc.SendStream):
    """Bytes to a descriptor that stays as it is until :meth:`aclose`."""

    def __init__(self, descriptor: int = STDOUT) -> None:
        self._descriptor = descriptor
        self._reopened = _reopen(descriptor, os.O_WRONLY)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes.

        Raises:
            OutputClosed: No process reads them, or the terminal is gone.
            CommandFailed: They cannot be written, for example to a disk that is full.
        """
        try:
            if self._reopened is not None:
                await self._reopened.send_all(data)
            else:
                await _run_in_thread(_write, self._descriptor, bytes(data))
        except (trio.BrokenResourceError, OSError) as exc:
            number = _find_errno(exc)
            if number in _READER_GONE or (
                number == errno.EIO and _is_device(self._descriptor)
            ):
                raise OutputClosed from exc
            raise CommandFailed(
                f"cannot write to standard output: {_describe(exc)}"
            ) from exc

    async def wait_send_all_might_not_block(self) -> None:
        """Return at once: nothing here depends on it."""
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """End the output, so that its reader sees the end while this program goes on."""
        null = os.open(os.devnull, os.O_WRONLY)
        # Its number stays in use, as in fill_descriptors().
        os.dup2(null, self._descriptor)
        os.close(null)
        if self._reopened is not None:
            await self._reopened.aclose()
        else:
            await trio.lowlevel.checkpoint()


def _find_errno(exc: BaseException) -> int | None:
    # Trio's streams raise an error of their own from that of the system.
    cause = exc if isinstance(exc, OSError) else exc.__cause__
    return cause.errno if isinstance(cause, OSError) else None


def _describe(exc: BaseException) -> str:
    number = _find_errno(exc)
    return str(exc) if number is None else os.strerror(number)


def _is_device(descriptor: int) -> bool:
    # Of a terminal that is gone, isatty(3) says that it is none.
    return stat.S_ISCHR(os.fstat(descriptor).st_mode)


def _reopen(descriptor: int, flags: int) -> trio.abc.Stream | None:
    # Return a stream on the same file with flags of its own; None if that is impossible.
    if sys.platform != "linux":  # pragma: no cover  (tests run on Linux)
        return None
    status = os.fstat(descriptor)
    if not (stat.S_ISFIFO(status.st_mode) or os.isatty(descriptor)):
        # A file would be read from its beginning, and a socket cannot be opened.
        return None
    if status.st_rdev == _PTY_MAKER:
        return None
    flags |= os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    try:
        reopened = os.open(f"/proc/self/fd/{descriptor}", flags)
    except OSError:
        # After su(1) or in a chroot.
        return None
    return trio.lowlevel.FdStream(reopened)


async def _run_in_thread(
    function: Callable[..., bytes], descriptor: int, given: object
) -> bytes:
    # A cancelled read goes on until the process ends: nothing else can stop it.
    return await trio.to_thread.run_sync(
        function, descriptor, given, abandon_on_cancel=True
    )


def _read(descriptor: int, size: int) -> bytes:
    while True:
        try:
            return os.read(descriptor, size)
        except BlockingIOError:
            # Another program has made it non-blocking.
            select.select([descriptor], [], [])


def _write(descriptor: int, data: bytes) -> bytes:
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            select.select([], [descriptor], [])
    return data
