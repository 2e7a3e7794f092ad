# Where serve, echo and proxy listen: a TCP port, a Unix socket, or the sockets that
# another program has opened.
from __future__ import annotations

import errno
import os
import socket
import ssl
import stat
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, final

import trio

from .. import inherit_listeners
from .certificates import load_certificate
from .errors import CommandFailed, UsageFailed, describe

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

Listeners: TypeAlias = "Sequence[trio.abc.Listener[trio.abc.Stream]]"

_HOST = "127.0.0.1"
_PORT = 8000
_EVERY_ADDRESS = "*"


@final
@dataclass(frozen=True)
class Place:
    """Where a server listens.

    Attributes:
        host: The address of TCP; None means every address.
        port: The port of TCP, 0 for any free one.
        path: The Unix socket to listen on instead.
        descriptors: The sockets of another program to listen on instead.
        is_given: Whether the command line names any of these.
        certificate: The files of the certificate and its key; None serves without TLS.
    """

    host: str | None
    port: int
    path: str | None
    descriptors: tuple[int, ...]
    is_given: bool
    certificate: tuple[str, str] | None

    @classmethod
    def from_arguments(cls, arguments: Namespace) -> Place:
        """Return what the command line says.

        Raises:
            UsageFailed: It names two places, or a certificate that cannot be used.
        """
        has_tcp = not (arguments.host is None and arguments.port is None)
        given = [has_tcp, arguments.unix is not None, bool(arguments.fd)]
        if sum(given) > 1:
            raise UsageFailed("--host and --port, --unix, --fd: only one of these")
        if arguments.unix is not None and arguments.tls is not None:
            raise UsageFailed("--tls is for TCP, not for --unix")
        host: str | None = arguments.host or _HOST
        tls = arguments.tls
        place = cls(
            host=None if host == _EVERY_ADDRESS else host,
            port=_PORT if arguments.port is None else arguments.port,
            path=arguments.unix,
            descriptors=tuple(arguments.fd),
            is_given=any(given),
            certificate=None if tls is None else (tls[0], tls[1]),
        )
        # Now, so that a mistake is seen before any worker is started.
        place.make_context()
        return place

    def make_context(self) -> ssl.SSLContext | None:
        """Read the certificate, and return the TLS settings; None without TLS.

        Raises:
            UsageFailed: The files cannot be used.
        """
        if self.certificate is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.set_alpn_protocols(["http/1.1"])
        load_certificate(context, *self.certificate)
        return context

    def take_over(self) -> Listeners:
        """Return the sockets that another program has opened; empty if there are none.

        Without any option these are the sockets of systemd, if it has passed some.

        Raises:
            UsageFailed: A descriptor is no listening socket, or not all sockets of
                systemd are named.
        """
        if self.is_given and not self.descriptors:
            return []
        try:
            passed = inherit_listeners()
            if not passed:
                return [_take_over(descriptor) for descriptor in self.descriptors]
        except (OSError, ValueError) as exc:
            raise UsageFailed(f"cannot listen: {describe(exc)}") from exc
        if self.descriptors:
            found = {listener.socket.fileno() for listener in passed}
            for number in found.symmetric_difference(self.descriptors):
                what = "was passed, too" if number in found else "was not passed"
                raise UsageFailed(
                    f"--fd names other sockets: descriptor {number} {what}"
                )
        return passed


def _take_over(descriptor: int) -> trio.SocketListener:
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError as exc:
        raise OSError(exc.errno, f"descriptor {descriptor}: {exc.strerror}") from exc
    try:
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
    except ValueError as exc:
        # It stays open and as it is: it belongs to another program.
        sock.detach()
        raise ValueError(f"descriptor {descriptor}: {exc}") from exc
    sock.setblocking(False)
    sock.set_inheritable(False)
    return listener


def open_unix_listener(path: str) -> trio.SocketListener:
    """Listen on a Unix socket outside Trio, for workers that are forked after that.

    The file of a socket on which no process listens is replaced.

    Raises:
        CommandFailed: It cannot be listened on.
    """
    sock = socket.socket(socket.AF_UNIX)
    try:
        _remove_stale(path)
        sock.bind(path)
        sock.listen(socket.SOMAXCONN)
    except OSError as exc:
        sock.close()
        raise CommandFailed(f"cannot listen on {path}: {describe(exc)}") from exc
    sock.setblocking(False)
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock))


@final
class SocketFile:
    """The file of a Unix socket that was just opened, to be removed at the end.

    Another server can have replaced it by then: as soon as the workers drain, the path is
    free for the next one.

    Args:
        path: Its path.
    """

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path)
        # As long as this is open, no other file can get the same inode.  It does not
        # listen, as a copy of the socket would.
        self._pin: int | None = None
        if sys.platform == "linux":  # pragma: no branch  (tests run on Linux)
            self._pin = os.open(path, os.O_PATH)
        self._status = os.lstat(path)

    def remove(self) -> None:
        """Remove the file, unless another one has replaced it."""
        with suppress(OSError):
            if os.path.samestat(os.lstat(self._path), self._status):
                os.unlink(self._path)
        if self._pin is not None:  # pragma: no branch  (tests run on Linux)
            os.close(self._pin)


def _remove_stale(path: str) -> None:
    try:
        is_socket = stat.S_ISSOCK(os.stat(path).st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise FileExistsError(errno.EEXIST, "a file that is no socket")
    with socket.socket(socket.AF_UNIX) as sock:
        # A server whose backlog is full would let us wait.
        sock.setblocking(False)
        if sock.connect_ex(path) != errno.ECONNREFUSED:
            raise OSError(errno.EADDRINUSE, "another process listens there")
    os.unlink(path)
