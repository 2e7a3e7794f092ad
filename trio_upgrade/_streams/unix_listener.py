# Unix sockets to listen on, and their files: which may be replaced, who may connect, and
# what has to go at the end.
from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias, final

import trio

from .socket_listener import DirectSocketListener
from .tcp_listeners import bound_backlog

if TYPE_CHECKING:
    from .socket_stream import DirectSocketStream

_ALL_PERMISSIONS = 0o777


# A name in the file system, and the device and inode of what has it.
_File: TypeAlias = tuple[bytes, int, int]


@final
class UnixListener(trio.abc.Listener["DirectSocketStream"]):
    """A listening Unix socket, whose file goes when it is closed.

    Args:
        sock: The socket, not blocking.
        file: Its file; None if it has none.
    """

    def __init__(self, sock: socket.socket, file: _File | None) -> None:
        self._listener = DirectSocketListener(sock)
        self._file = file

    @property
    def socket(self) -> trio.socket.SocketType:
        """The Trio socket."""
        return self._listener.socket

    async def accept(self) -> DirectSocketStream:
        """Wait for a connection."""
        return await self._listener.accept()

    async def accept_some(self, most: int) -> list[DirectSocketStream]:
        """Wait for connections; see :meth:`DirectSocketListener.accept_some`."""
        return await self._listener.accept_some(most)

    async def aclose(self) -> None:
        """Remove the file, unless another one has its name by now, and close."""
        if self._file is not None:
            # As long as the socket is open its inode is nobody else's, so the number
            # tells for certain whose the file is.
            with suppress(OSError):
                if _find_file(self._file[0]) == self._file:
                    os.unlink(self._file[0])
            self._file = None
        await self._listener.aclose()


async def open_unix_listener(
    path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
    *,
    mode: int | None,
    backlog: int | None,
) -> UnixListener:
    """Listen on a Unix socket.

    Args:
        path: Where its file is to be; with a leading NUL the name of an abstract socket
            of Linux, which has no file.
        mode: The file's permissions; None means what the umask leaves.
        backlog: The listen backlog; None means the kernel's most.

    Raises:
        ValueError: The path is empty, or ``mode`` is not such or not to be had.
        FileExistsError: Something that is no socket is there. It stays.
        OSError: Somebody listens there (EADDRINUSE), or the path cannot be used.
            Nothing of ours is left.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise OSError(errno.EAFNOSUPPORT, "Unix sockets are not to be had here")
    name = os.fsencode(path)
    if not name:
        # The kernel would pick an abstract name.
        raise ValueError("the path of a Unix socket must not be empty")
    if mode is not None and not 0 <= mode <= _ALL_PERMISSIONS:
        raise ValueError(f"permissions are at most 0o777, not {mode:#o} ({mode})")
    if mode is not None and name.startswith(b"\0"):
        raise ValueError("an abstract socket has no permissions")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # File systems can be slow.  The thread's end is waited for, also if cancelled.
        file = await trio.to_thread.run_sync(
            _listen, sock, name, mode, bound_backlog(backlog)
        )
    except BaseException:
        sock.close()
        raise
    sock.setblocking(False)
    return UnixListener(sock, file)


def _listen(
    sock: socket.socket, name: bytes, mode: int | None, backlog: int
) -> _File | None:
    if name.startswith(b"\0"):
        sock.bind(name)
        sock.listen(backlog)
        return None
    path = os.path.abspath(name)
    _remove_stale(name, path)
    sock.bind(name)
    try:
        file = _find_file(path)
        if mode is not None:
            # Nobody can connect before listen(2), so whoever does has met these.  A
            # umask for the moment would be every thread's.
            os.chmod(path, mode)
        sock.listen(backlog)
    except BaseException:
        with suppress(OSError):
            os.unlink(path)
        raise
    return file


def _remove_stale(name: bytes, path: bytes) -> None:
    # Asking is the one way to know whether a socket's file is still somebody's.
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise FileExistsError(
            errno.EEXIST, "no socket, so it has to stay", os.fsdecode(path)
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            # By the shorter name: there is only room for some hundred bytes.
            probe.connect(name)
        except (ConnectionRefusedError, FileNotFoundError):
            # Nobody's, or by now nobody's nor there.
            with suppress(FileNotFoundError):
                os.unlink(path)
            return
        except BlockingIOError:
            # A server that has its hands full.
            pass
    raise OSError(errno.EADDRINUSE, "somebody listens there", os.fsdecode(path))


def _find_file(path: bytes) -> _File:
    status = os.lstat(path)
    return path, status.st_dev, status.st_ino
