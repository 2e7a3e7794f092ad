# Listening sockets: opened here for TCP, or inherited from a supervisor.  Opening repeats
# the work of trio.open_tcp_listeners, which cannot set an option before bind(2).
from __future__ import annotations

import errno
import os
import socket
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeAlias

import trio

from .._util import public
from .socket_listener import DirectSocketListener
from .socket_stream import detach_socket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

# As getaddrinfo(3) returns it; the last item is the address for bind(2).
BoundAddress: TypeAlias = tuple[int, int, int, str, Any]

# Some systems keep the backlog in 16 bits, and larger values wrap round (golang/go#5030).
# The kernel reduces it to its own limit.
_MAX_BACKLOG = 0xFFFF
# SD_LISTEN_FDS_START of sd_listen_fds(3): after standard input, output and error.
_FIRST_DESCRIPTOR = 3
# How many free ports of the first address are tried, if they are in use at another one.
# A second try is rare.
_MOST_TRIES = 10
# All variables of socket activation.  LISTEN_FDNAMES and LISTEN_PIDFDID are not used, but
# are removed with the others, because they would mislead a child process as well.
_LISTEN_VARIABLES = ("LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES")


def bound_backlog(backlog: int | None) -> int:
    """Return the number for listen(2); None means the kernel's maximum."""
    return _MAX_BACKLOG if backlog is None else min(backlog, _MAX_BACKLOG)


async def open_tcp_listeners(
    port: int, *, host: str | bytes | None, backlog: int | None, reuse_port: bool
) -> list[DirectSocketListener]:
    """Listen on a TCP port, with one listener for each address of the host.

    Args:
        port: The port; 0 means any port that is free at all of the addresses.
        host: The address to listen on; None means every address of this machine.
        backlog: The listen backlog; None means the kernel's maximum.
        reuse_port: Whether other processes of this user may listen on the port as well.

    Raises:
        OSError: The address cannot be listened on, or the platform does not support
            ``reuse_port``. Nothing is left open. A note names host and port.
    """
    try:
        _check_reuse_port(reuse_port=reuse_port)
        addresses = await trio.socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        return _listen(addresses, _make_socket, backlog=backlog, reuse_port=reuse_port)
    except OSError as exc:
        _note_address(exc, host, port)
        raise


def _note_address(exc: OSError, host: str | bytes | None, port: int) -> None:
    where = "every address" if host is None else repr(host)
    exc.add_note(f"while opening a listener at {where}, port {port}")


def _make_socket(family: int, kind: int, protocol: int) -> socket.socket:
    # By Trio, which has a hook for it.
    return detach_socket(trio.socket.socket(family, kind, protocol))


def open_tcp_listeners_outside_trio(
    port: int, *, host: str | bytes | None, backlog: int | None, reuse_port: bool
) -> list[DirectSocketListener]:
    """Listen on a TCP port as :func:`open_tcp_listeners`, for callers outside Trio.

    A host that is a name is looked up without a thread, so this may take a while.
    """
    try:
        _check_reuse_port(reuse_port=reuse_port)
        addresses = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        return _listen(addresses, socket.socket, backlog=backlog, reuse_port=reuse_port)
    except OSError as exc:
        _note_address(exc, host, port)
        raise


def find_addresses(listeners: Iterable[DirectSocketListener]) -> list[BoundAddress]:
    """Return what listeners listen on, for :func:`open_beside`."""
    socks = [listener.socket for listener in listeners]
    return [
        (sock.family, sock.type, sock.proto, "", sock.getsockname()) for sock in socks
    ]


def open_beside(
    addresses: Sequence[BoundAddress], *, backlog: int | None
) -> list[DirectSocketListener]:
    """Listen on addresses that others, with ``reuse_port``, may listen on as well.

    Raises:
        OSError: An address cannot be listened on. Nothing is left open.
    """
    return _listen(addresses, socket.socket, backlog=backlog, reuse_port=True)


def _check_reuse_port(*, reuse_port: bool) -> None:
    if reuse_port and not hasattr(socket, "SO_REUSEPORT"):
        raise OSError(
            errno.EOPNOTSUPP, "reuse_port needs SO_REUSEPORT, which this platform lacks"
        )


def _listen(
    addresses: Sequence[BoundAddress],
    make_socket: Callable[[int, int, int], socket.socket],
    *,
    backlog: int | None,
    reuse_port: bool,
) -> list[DirectSocketListener]:
    tries = _MOST_TRIES
    while True:
        tries -= 1
        try:
            return _listen_once(
                addresses, make_socket, backlog=backlog, reuse_port=reuse_port
            )
        except OSError as exc:
            is_free_port = not any(entry[4][1] for entry in addresses)
            if exc.errno != errno.EADDRINUSE or not is_free_port or not tries:
                raise


def _listen_once(
    addresses: Sequence[BoundAddress],
    make_socket: Callable[[int, int, int], socket.socket],
    *,
    backlog: int | None,
    reuse_port: bool,
) -> list[DirectSocketListener]:
    listeners: list[DirectSocketListener] = []
    unsupported: OSError | None = None
    with ExitStack() as opened:
        for family, kind, protocol, _, address in addresses:
            try:
                sock = make_socket(family, kind, protocol)
            except OSError as exc:
                if exc.errno != errno.EAFNOSUPPORT:
                    raise
                # The resolver returns IPv6 addresses even if the kernel has no IPv6.
                unsupported = exc
                continue
            opened.enter_context(sock)
            _set_options(sock, reuse_port=reuse_port)
            host, port, *others = address
            if not port and listeners:
                # The free port of the first address: one URL and one Server.port for all.
                port = listeners[0].socket.getsockname()[1]
            sock.bind((host, port, *others))
            sock.listen(bound_backlog(backlog))
            listeners.append(DirectSocketListener(sock))
        if unsupported is not None and not listeners:
            raise unsupported
        opened.pop_all()
    return listeners


def _set_options(sock: socket.socket, *, reuse_port: bool) -> None:
    # On Windows SO_REUSEADDR would let another process take the port from its owner.
    if sys.platform != "win32":  # pragma: no branch  (the other one is Windows)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse_port:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if sock.family == socket.AF_INET6:
        # IPv4 has its own listener.  Systems differ in the default, so set it.
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)


@public
def inherit_listeners() -> list[DirectSocketListener]:
    """Take over the listening sockets that a supervisor has opened for this process.

    This is socket activation as systemd does it, sd_listen_fds(3). The sockets, TCP or
    Unix, start at descriptor 3; ``LISTEN_FDS`` is their number and ``LISTEN_PID`` the
    process that they are for::

        listeners = inherit_listeners() or await trio.open_tcp_listeners(1337)
        await serve_listeners(app, listeners)

    The variables are removed, so that no child process uses them, and the sockets are
    closed in child processes. Call this once, early, and only from the main program.

    Returns:
        Listeners for :func:`serve_listeners`, in the supervisor's order. The list is
        empty if there are no sockets, or if they are for another process.

    Raises:
        ValueError: A variable is not a number, or a descriptor is not a listening stream
            socket. The descriptors stay open and unchanged.
        OSError: A descriptor is not open, or is not a socket. The other descriptors stay
            open and unchanged.
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
    # 0 if the variable is not set: no process has this id, and no sockets are counted.
    if text is None:
        return 0
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{name} is not a number: {text!r}")
    return int(text)


def _take_over(descriptor: int, taken: list[socket.socket]) -> DirectSocketListener:
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError as exc:
        # The descriptor is not open, or is not a socket.
        raise OSError(exc.errno, f"descriptor {descriptor}: {exc.strerror}") from exc
    taken.append(sock)
    try:
        # The constructor checks that this is a listening stream socket.
        trio.SocketListener(trio.socket.from_stdlib_socket(sock))
    except ValueError as exc:
        raise ValueError(f"descriptor {descriptor}: {exc}") from exc
    sock.setblocking(False)
    return DirectSocketListener(sock, inherited=True)
