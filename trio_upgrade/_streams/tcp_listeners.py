# Listening sockets: opened here for TCP, or taken over from a supervisor.  What Trio's
# own open_tcp_listeners does is done here once more because it has no way to set an
# option before bind(2).
from __future__ import annotations

import errno
import os
import socket
import sys
from contextlib import ExitStack

import trio

from .._util import public
from .socket_listener import DirectSocketListener, adopt_listener

# The most that fits where systems keep it in 16 bits; larger ones wrap round
# (golang/go#5030).  The kernel cuts it to what it is willing to queue.
_MAX_BACKLOG = 0xFFFF
# SD_LISTEN_FDS_START of sd_listen_fds(3): behind standard input, output and error.
_FIRST_DESCRIPTOR = 3
# All that tells of descriptors; LISTEN_FDNAMES and LISTEN_PIDFDID are not read, but
# would mislead a child as the others do.
_LISTEN_VARIABLES = ("LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES")


def bound_backlog(backlog: int | None) -> int:
    """Return what listen(2) gets: None is as many as the kernel is willing to queue."""
    return _MAX_BACKLOG if backlog is None else min(backlog, _MAX_BACKLOG)


async def open_tcp_listeners(
    port: int, *, host: str | bytes | None, backlog: int | None, reuse_port: bool
) -> list[DirectSocketListener]:
    """Listen on a TCP port, on each address that the host has.

    Args:
        port: The port, 0 for any free one, which may be another for each address.
        host: The address to listen on; None means every address of this machine.
        backlog: The listen backlog; None means the kernel's most.
        reuse_port: Whether other processes of this user may listen there, too.

    Raises:
        OSError: The address cannot be listened on, or ``reuse_port`` is not to be had
            on this platform. Nothing is left open.
    """
    if reuse_port and not hasattr(socket, "SO_REUSEPORT"):
        raise OSError(
            errno.EOPNOTSUPP, "reuse_port needs SO_REUSEPORT, which is not here"
        )
    addresses = await trio.socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    listeners: list[DirectSocketListener] = []
    unsupported: OSError | None = None
    with ExitStack() as opened:
        for family, kind, protocol, _, address in addresses:
            try:
                sock = trio.socket.socket(family, kind, protocol)
            except OSError as exc:
                if exc.errno != errno.EAFNOSUPPORT:
                    raise
                # A kernel without IPv6 has a resolver that knows of it all the same.
                unsupported = exc
                continue
            opened.enter_context(sock)
            _set_options(sock, reuse_port=reuse_port)
            await sock.bind(address)
            sock.listen(bound_backlog(backlog))
            listener = adopt_listener(trio.SocketListener(sock))
            opened.callback(listener.socket.close)
            listeners.append(listener)
        if unsupported is not None and not listeners:
            raise unsupported
        opened.pop_all()
    return listeners


def _set_options(sock: trio.socket.SocketType, *, reuse_port: bool) -> None:
    # What Windows calls SO_REUSEADDR takes the port away from its owner.
    if sys.platform != "win32":  # pragma: no branch  (the other one is Windows)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse_port:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if sock.family == socket.AF_INET6:
        # IPv4 has a listener of its own, on systems that differ in the default, too.
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)


@public
def inherit_listeners() -> list[DirectSocketListener]:
    """Take over the listening sockets that a supervisor has opened for this process.

    Socket activation as systemd does it, sd_listen_fds(3): TCP and Unix sockets, from
    descriptor 3 on, which ``LISTEN_FDS`` counts for the process ``LISTEN_PID``::

        listeners = inherit_listeners() or await trio.open_tcp_listeners(1337)
        await serve_listeners(app, listeners)

    The variables are removed, so that no child takes them for its own, and the sockets
    are closed in children. To be called once, early, and only by the main program.

    Returns:
        Listeners for :func:`serve_listeners`, in the supervisor's order; none if
        nothing was handed over, or if it was meant for another process.

    Raises:
        ValueError: A variable is no number, or a descriptor is no listening stream
            socket. The descriptors stay as they are.
        OSError: A descriptor is not open, or no socket. Likewise.
    """
    variables = {name: os.environ.pop(name, None) for name in _LISTEN_VARIABLES}
    process = _parse_number("LISTEN_PID", variables["LISTEN_PID"])
    count = _parse_number("LISTEN_FDS", variables["LISTEN_FDS"])
    if process != os.getpid():
        return []
    taken: list[socket.socket] = []
    try:
        listeners = [
            _take_over(descriptor, taken)
            for descriptor in range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + count)
        ]
    except BaseException:
        for sock in taken:
            sock.detach()
        raise
    for sock in taken:
        sock.set_inheritable(False)
    return listeners


def _parse_number(name: str, text: str | None) -> int:
    # 0 where it is not set, which is neither a process nor a count.
    if text is None:
        return 0
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{name} is no number: {text!r}")
    return int(text)


def _take_over(descriptor: int, taken: list[socket.socket]) -> DirectSocketListener:
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError as exc:
        # Not open, or no socket.
        raise OSError(exc.errno, f"descriptor {descriptor}: {exc.strerror}") from exc
    taken.append(sock)
    try:
        # Looks if it is a stream socket that listens.
        trio.SocketListener(trio.socket.from_stdlib_socket(sock))
    except ValueError as exc:
        raise ValueError(f"descriptor {descriptor}: {exc}") from exc
    sock.setblocking(False)
    return DirectSocketListener(sock)
