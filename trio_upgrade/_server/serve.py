# Serving: listeners, and one task for each connection.  The accept loop is our own
# because trio.serve_listeners closes each stream after its handler, also one that was
# detached.
from __future__ import annotations

import errno
import math
import os
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import trio

from .._limits import Limits
from .._streams.closing import close_forcefully
from .._streams.socket_listener import DirectSocketListener
from .._streams.tcp_listeners import open_tcp_listeners
from .._streams.unix_listener import UnixListener, open_unix_listener
from .._util import public
from .connection import Connection
from .observers import LOGGER, Observers
from .server import Server, find_state
from .state import ServerState

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

    from .response import App

StreamT = TypeVar("StreamT", bound=trio.abc.Stream)

# What accept(2) says when the system, not the connection, has run out of something,
# and how long to wait then, in seconds; both as Trio has them.
_CAPACITY_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_CAPACITY_WAIT = 0.1
# Seconds without such a failure that end an episode of them.
_EPISODE = 10
# Connections to accept before other tasks get their turn. Those of one batch share the
# scheduler's passes, and more than some tens gain nothing by it.
_BATCH = 64
_CONNECTION = "trio_upgrade connection"


@public
async def serve_tcp(
    app: App,
    port: int,
    *,
    host: str | bytes | None = None,
    backlog: int | None = None,
    reuse_port: bool = False,
    limits: Limits = Limits(),
    close_on_optimistic_data: bool = False,
    strict: bool = False,
    observer: object | None = None,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve HTTP/1.1 and its upgrades over TCP, until cancelled or drained.

    Args:
        app: Called once for each request, in the connection's task.
        port: The port, 0 for any free one.
        host: The address to listen on; None means every address of this machine.
        backlog: The listen backlog; None means the most that the kernel queues.
        reuse_port: Whether other processes of the same user may listen on the port,
            too, if they all say so. Linux then spreads the connections over them.
        limits: The bounds of every connection.
        close_on_optimistic_data: Whether a refused offer ends its connection if bytes
            follow it already. They would be the next request (RFC 9931 §5), unless what
            stands in front of this server tunnels whatever asks for an upgrade. Those
            of a chunked body count until it is read: its end is not known before.
        strict: Whether exceptions of the app come out of here, for tests. Otherwise
            they are logged to ``trio_upgrade.server`` and cost their own connection.
        observer: An object with any of the methods ``request``, ``switched``, ``ended``
            and ``error``, called with a :class:`RequestRecord`, :class:`SwitchRecord`,
            :class:`EndRecord` or :class:`ErrorRecord` when that happens. They run in
            the connection's task and should return soon; what they raise is logged.
        task_status: Gets a :class:`Server` as soon as connections are accepted.

    Raises:
        OSError: The address cannot be listened on, or ``reuse_port`` is not to be had
            on this platform.
    """
    listeners = await open_tcp_listeners(
        port, host=host, backlog=backlog, reuse_port=reuse_port
    )
    await serve_listeners(
        app,
        listeners,
        limits=limits,
        close_on_optimistic_data=close_on_optimistic_data,
        strict=strict,
        observer=observer,
        task_status=task_status,
    )


@public
async def serve_ssl_over_tcp(
    app: App,
    port: int,
    ssl_context: ssl.SSLContext,
    *,
    host: str | bytes | None = None,
    https_compatible: bool = True,
    backlog: int | None = None,
    reuse_port: bool = False,
    limits: Limits = Limits(),
    close_on_optimistic_data: bool = False,
    strict: bool = False,
    observer: object | None = None,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve HTTP/1.1 and its upgrades over TLS over TCP, until cancelled or drained.

    Each handshake is made in its connection's own task, so a slow one delays nobody.

    Args:
        app: Called once for each request, in the connection's task.
        port: The port, 0 for any free one.
        ssl_context: Certificate, key and ALPN are its own. If it names protocols for
            ALPN, ``http/1.1`` should be the only one.
        host: The address to listen on; None means every address of this machine.
        https_compatible: Whether a peer may end without a close_notify, as browsers
            do. Then nobody can tell a cut from an end, so protocols that do not say
            their own end need False.
        backlog: The listen backlog; None means the most that the kernel queues.
        reuse_port: See :func:`serve_tcp`.
        limits: The bounds of every connection.
        close_on_optimistic_data: See :func:`serve_tcp`.
        strict: Whether exceptions of the app come out of here; see :func:`serve_tcp`.
        observer: See :func:`serve_tcp`.
        task_status: Gets a :class:`Server` as soon as connections are accepted.

    Raises:
        OSError: The address cannot be listened on, or ``reuse_port`` is not to be had
            on this platform.
    """
    listeners = await open_tcp_listeners(
        port, host=host, backlog=backlog, reuse_port=reuse_port
    )
    secure = [
        trio.SSLListener(listener, ssl_context, https_compatible=https_compatible)
        for listener in listeners
    ]
    await serve_listeners(
        app,
        secure,
        limits=limits,
        close_on_optimistic_data=close_on_optimistic_data,
        strict=strict,
        observer=observer,
        task_status=task_status,
    )


@public
async def serve_unix(
    app: App,
    path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
    *,
    mode: int | None = None,
    backlog: int | None = None,
    limits: Limits = Limits(),
    close_on_optimistic_data: bool = False,
    strict: bool = False,
    observer: object | None = None,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve HTTP/1.1 and its upgrades on a Unix socket, until cancelled or drained.

    A socket's file that nobody listens behind any more is replaced. Ours is removed as
    soon as no connection is accepted any more, by a drain also, unless it has been
    replaced by then.

    Args:
        app: Called once for each request, in the connection's task.
        path: The socket's file. With a leading NUL it is the name of an abstract socket
            of Linux, which has no file and which every user may connect to.
        mode: The permissions of the file, ``0o660`` say, whatever the umask; they hold
            before anybody can connect. Who may not write it may not connect. None means
            what the umask leaves.
        backlog: The listen backlog; None means the most that the kernel queues.
        limits: The bounds of every connection.
        close_on_optimistic_data: See :func:`serve_tcp`.
        strict: Whether exceptions of the app come out of here; see :func:`serve_tcp`.
        observer: See :func:`serve_tcp`.
        task_status: Gets a :class:`Server` as soon as connections are accepted.

    Raises:
        ValueError: The path is empty, or the permissions are not such, or are asked for
            an abstract socket.
        FileExistsError: Something that is no socket has that name. It stays.
        OSError: Somebody listens there (EADDRINUSE), the path is too long or cannot be
            used, or there are no Unix sockets on this platform.
    """
    listener = await open_unix_listener(path, mode=mode, backlog=backlog)
    await serve_listeners(
        app,
        [listener],
        limits=limits,
        close_on_optimistic_data=close_on_optimistic_data,
        strict=strict,
        observer=observer,
        task_status=task_status,
    )


@public
async def serve_listeners(
    app: App,
    listeners: Sequence[trio.abc.Listener[StreamT]],
    *,
    limits: Limits = Limits(),
    close_on_optimistic_data: bool = False,
    strict: bool = False,
    observer: object | None = None,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve HTTP/1.1 and its upgrades on any Trio listeners, until cancelled or drained.

    When it ends, the listeners and every connection are closed.

    Args:
        app: Called once for each request, in the connection's task.
        listeners: They are owned from now on.
        limits: The bounds of every connection.
        close_on_optimistic_data: See :func:`serve_tcp`.
        strict: Whether exceptions of the app come out of here; see :func:`serve_tcp`.
        observer: See :func:`serve_tcp`.
        task_status: Gets a :class:`Server` as soon as connections are accepted.
    """
    state = ServerState(
        limits,
        close_on_optimistic_data=close_on_optimistic_data,
        strict=strict,
        observers=Observers(observer, strict=strict),
    )
    server = Server(listeners, state)
    try:
        async with trio.open_nursery() as nursery:
            make_connection = partial(
                Connection, app, server, state, scope=nursery.cancel_scope
            )
            for listener in server.listeners:
                nursery.start_soon(
                    _accept_connections,
                    listener,
                    state.accept_until_drained(),
                    state,
                    make_connection,
                    nursery,
                )
            nursery.start_soon(state.deadlines.run, name="trio_upgrade deadlines")
            task_status.started(server)
            await state.wait_drained()
            nursery.cancel_scope.cancel()
        # The end of a grace may have ended that wait, too, and connections that joined
        # from elsewhere are no tasks of the nursery.
        await state.wait_drained()
    finally:
        state.end()


async def _accept_connections(
    listener: trio.abc.Listener[trio.abc.Stream],
    accepting: trio.CancelScope,
    state: ServerState,
    make_connection: Callable[[trio.abc.Stream], Connection],
    nursery: trio.Nursery,
) -> None:
    failed = -math.inf
    async with listener:
        with accepting:
            while True:
                await state.wait_capacity()
                try:
                    streams = await _accept_some(listener, min(_BATCH, state.capacity))
                except OSError as exc:
                    if exc.errno not in _CAPACITY_ERRNOS:
                        raise
                    if trio.current_time() - failed > _EPISODE:
                        # Once in an episode, even if some are accepted meanwhile.
                        LOGGER.error(
                            "cannot accept for now: %s", os.strerror(exc.errno)
                        )
                    failed = trio.current_time()
                    await trio.sleep(_CAPACITY_WAIT)
                    continue
                streams.reverse()
                try:
                    while streams:
                        if state.capacity < 1:
                            # Other listeners have taken the places.
                            await state.wait_capacity()
                        connection = make_connection(streams.pop())
                        nursery.start_soon(connection.serve, name=_CONNECTION)
                finally:
                    for stream in streams:
                        await close_forcefully(stream)


async def _accept_some(
    listener: trio.abc.Listener[trio.abc.Stream], most: int
) -> list[trio.abc.Stream]:
    if isinstance(listener, DirectSocketListener | UnixListener):
        return [*await listener.accept_some(most)]
    return [await listener.accept()]


@public
async def serve_stream(
    app: App,
    stream: trio.abc.Stream,
    *,
    server: Server | None = None,
    limits: Limits = Limits(),
    close_on_optimistic_data: bool = False,
    strict: bool = False,
    observer: object | None = None,
) -> None:
    """Serve HTTP/1.1 and its upgrades on one stream; return when that is over.

    Any Trio stream will do: memory, TLS, or one that an earlier protocol is done with.

    Args:
        app: Called once for each request, in this task.
        stream: It is owned from now on, and closed on every path.
        server: A running server that this is to be a connection of: it counts there and
            is drained with it, and that server's bounds and options hold, not those
            given here. None makes a private one, ``request.server``.
        limits: The bounds of the connection.
        close_on_optimistic_data: See :func:`serve_tcp`.
        strict: Whether exceptions of the app come out of here; see :func:`serve_tcp`.
        observer: See :func:`serve_tcp`.
    """
    if server is not None:
        with trio.CancelScope() as scope:
            await Connection(app, server, find_state(server), stream, scope).serve()
        return
    state = ServerState(
        limits,
        close_on_optimistic_data=close_on_optimistic_data,
        strict=strict,
        observers=Observers(observer, strict=strict),
    )
    failure: BaseException | None = None
    scope = trio.CancelScope()
    connection = Connection(app, Server((), state), state, stream, scope)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(state.deadlines.run, name="trio_upgrade deadlines")
            try:
                with scope:
                    await connection.serve()
            except BaseException as exc:
                # Kept out of the nursery, which would put it in a group.
                failure = exc
            nursery.cancel_scope.cancel()
    finally:
        state.end()
        if failure is not None:
            # Also in the place of a Cancelled that ended the reaper.
            raise failure
