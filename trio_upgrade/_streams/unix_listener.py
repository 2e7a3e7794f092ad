# Listeners on Unix sockets, and their files: which file may be replaced, which users may
# connect, and which file is removed at the end.
#
# Two servers that start at once on one stale file must not both replace it: the first
# would be left without a file, and no client could reach it.  So the steps from the look
# at the old file to listen(2) are made under a flock(2) on the directory, which leaves no
# file, unlike a lock file.  Where no such lock can be had, they are made without one.
from __future__ import annotations

import errno
import os
import socket
import stat
import sys
from contextlib import contextmanager, suppress
from time import monotonic, sleep
from typing import TYPE_CHECKING, TypeAlias, final

import trio

from .socket_listener import DirectSocketListener
from .tcp_listeners import bound_backlog

if sys.platform != "win32":  # pragma: no branch  (Python has no Unix sockets there)
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Generator

    from .socket_stream import DirectSocketStream

_ALL_PERMISSIONS = 0o777
# Seconds to wait for the lock, and between two attempts.  Another server holds it for a
# few system calls, but systemd-tmpfiles(8) invites programs to hold one for as long as
# they run, so that their directory is not cleaned up.
_LOCK_WAIT = 1.0
_LOCK_PAUSE = 0.005

# A path, and the device and inode of the file that has it.
_File: TypeAlias = tuple[bytes, int, int]


@final
class UnixListener(trio.abc.Listener["DirectSocketStream"]):
    """A listener on a Unix socket, which removes the socket's file when it is closed.

    Args:
        sock: The socket, non-blocking.
        file: The socket's file; None if it has none.
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

    async def accept_some(self, limit: int) -> list[DirectSocketStream]:
        """Wait for connections; see :meth:`DirectSocketListener.accept_some`."""
        return await self._listener.accept_some(limit)

    def accept_some_nowait(self, limit: int) -> list[DirectSocketStream]:
        """Accept what waits; see :meth:`DirectSocketListener.accept_some_nowait`."""
        return self._listener.accept_some_nowait(limit)

    def remove_file(self) -> None:
        """Remove the file, unless another file has replaced it.

        From now on no client can connect, and the backlog can be emptied.
        """
        if self._file is not None:
            # While the socket is open no other file can get its inode, so the number
            # proves that the file is ours.
            with suppress(OSError):
                if _find_file(self._file[0]) == self._file:
                    os.unlink(self._file[0])
            self._file = None

    async def aclose(self) -> None:
        """Remove the file, unless another file has replaced it, and close."""
        self.remove_file()
        await self._listener.aclose()

    def __repr__(self) -> str:
        return f"<UnixListener on {self._listener!r}>"


async def open_unix_listener(
    path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
    *,
    mode: int | None,
    backlog: int | None,
) -> UnixListener:
    """Listen on a Unix socket.

    Args:
        path: The path of the socket's file. A leading NUL makes it the name of an
            abstract socket (Linux), which has no file.
        mode: The file's permissions; None leaves them to the umask.
        backlog: The listen backlog; None means the kernel's maximum.

    Raises:
        ValueError: The path is empty, or ``mode`` is not a set of permissions, or is
            given for an abstract socket.
        FileExistsError: The path has a file that is not a socket. The file stays.
        OSError: A server already listens on the path (EADDRINUSE), or the path cannot
            be used. No file of ours is left.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise OSError(errno.EAFNOSUPPORT, "this platform has no Unix sockets")
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
        # In a thread, because file systems can be slow.  A cancellation waits until the
        # thread has finished.
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
    with _lock_directory(os.path.dirname(path)):
        _remove_stale(name, path)
        sock.bind(name)
        try:
            file = _find_file(path)
            if mode is not None:
                # No client can connect before listen(2), so every client is subject to
                # these permissions.  A temporary umask would apply to all threads.
                os.chmod(path, mode)
            sock.listen(backlog)
        except BaseException:
            with suppress(OSError):
                os.unlink(path)
            raise
        return file


@contextmanager
def _lock_directory(directory: bytes) -> Generator[None]:
    descriptor = None
    try:
        # OSError: the directory cannot be read or is missing, or its file system has no
        # such locks: NFS, for one, wants a descriptor that can write.
        with suppress(OSError):
            descriptor = os.open(directory, os.O_RDONLY)
            _wait_lock(descriptor)
        yield
    finally:
        if descriptor is not None:
            # This also unlocks it.
            os.close(descriptor)


def _wait_lock(descriptor: int) -> None:
    # Not by a flock() that waits: nothing could end this thread then.
    give_up = monotonic() + _LOCK_WAIT
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if monotonic() > give_up:
                return
            sleep(_LOCK_PAUSE)
        else:
            return


def _remove_stale(name: bytes, path: bytes) -> None:
    # To connect is the only way to know whether a server still uses the socket's file.
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise FileExistsError(
            errno.EEXIST, "not a socket, so not replaced", os.fsdecode(path)
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            # By the name as given, which may be shorter: a Unix address has room for only
            # about a hundred bytes.
            probe.connect(name)
        except (ConnectionRefusedError, FileNotFoundError):
            # No server uses the file, or another process has just removed it.
            with suppress(FileNotFoundError):
                os.unlink(path)
            return
        except BlockingIOError:
            # A server listens there, and its backlog is full.
            pass
    raise OSError(errno.EADDRINUSE, "a server already listens there", os.fsdecode(path))


def _find_file(path: bytes) -> _File:
    status = os.lstat(path)
    return path, status.st_dev, status.st_ino
