# The functions that serve: they open listeners, and run until the server has ended.
from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, TypedDict, cast

import trio

from .._limits import Limits
from .._options import SharedOptions
from .._streams.tcp_listeners import open_tcp_listeners
from .._streams.tls_listener import TLSListener
from .._streams.trusted_peers import make_trusted
from .._streams.unix_listener import open_unix_listener
from .._util import public
from .accept_loop import AcceptLoop
from .arguments import (
    check_app,
    check_backlog,
    check_host,
    check_listeners,
    check_options,
    check_path,
    check_port,
    check_server_context,
    check_stream,
)
from .connection import Connection
from .observers import Observers
from .proxied_connection import ProxiedConnection
from .server import Server, find_state
from .state import ServerState

if TYPE_CHECKING:
    import os
    import ssl
    from collections.abc import Callable, Mapping, Sequence
    from typing import Unpack

    from .._streams.trusted_peers import TrustedLike
    from .response import App


@public
class ServeOptions(TypedDict, total=False):
    """The keyword options that all ``serve_*`` functions share; each may be left out.

    A function called with any other name, or with a mistake in an argument that can be
    seen at once, raises a TypeError or ValueError before it opens, takes over or closes
    anything.

    Attributes:
        limits: The limits of every connection; ``Limits()`` by default.
        close_on_optimistic_data: Whether a refused offer ends its connection if bytes
            after the request have already come. These are the next request (RFC 9931 §5),
            unless a proxy in front of this server turns every request for an upgrade into
            a tunnel. Bytes of a chunked body that is not yet read count, too: where the
            body ends is not yet known. False by default.
        strict: Whether exceptions of the app leave the ``serve_*`` function, for tests.
            By default, False, each is logged to ``trio_upgrade.server`` and ends its own
            connection only.
        observer: An object with any of the methods ``request``, ``switched``, ``ended``
            and ``error``, which are called with a :class:`RequestRecord`,
            :class:`SwitchRecord`, :class:`EndRecord` or :class:`ErrorRecord` when that
            happens. Every answer on the wire has one record of the first two. They run
            in the connection's task and should return soon; an exception that they raise
            is logged. None, the default, observes nothing and costs nothing.
        proxy_protocol: The load balancers that begin each connection with a PROXY
            protocol header, version 1 or 2, before TLS: a :class:`TrustedPeers`, or
            networks and ``"unix"`` for one. Then :attr:`Request.peer`, records and logs
            have the client's address, and :attr:`Request.transport_peer` the balancer's;
            if the header names no client, both have the balancer's. From these peers the
            header is required: a connection without one, or with a malformed one or more
            than 107 bytes (536 for version 2), is closed with one line in the log at
            level DEBUG, as is one whose header takes longer than
            ``Limits.header_timeout``. From any other peer nothing is looked for, and a
            header is a malformed request. The addresses of the header are believed, and
            the rest of it is skipped. None, the default, trusts no peer.
    """

    limits: Limits
    close_on_optimistic_data: bool
    strict: bool
    observer: object | None
    proxy_protocol: TrustedLike | None


def _make_state(
    *,
    limits: Limits = Limits(),
    close_on_optimistic_data: bool = False,
    strict: bool = False,
    observer: object | None = None,
    proxy_protocol: TrustedLike | None = None,
) -> ServerState:
    # These defaults are the only ones of ServeOptions.
    #
    # For standard_reason(): when the first answer is due, the process may be at its limit
    # of descriptors, or in a chroot, and then nothing can be imported.
    import_module("http")

    return ServerState(
        limits,
        close_on_optimistic_data=close_on_optimistic_data,
        strict=strict,
        observers=Observers(observer, strict=strict),
        proxy_protocol=make_trusted(proxy_protocol or ()) or None,
    )


SERVE_OPTIONS = SharedOptions(ServeOptions, _make_state)


def _find_kind(state: ServerState) -> type[Connection]:
    return Connection if state.proxy_protocol is None else ProxiedConnection


def _check(function: Callable[..., object], app: App, options: ServeOptions) -> None:
    # Call it first, so that a mistake leaves everything as it was.
    given = cast("Mapping[str, object]", options)
    SERVE_OPTIONS.check(function, given)
    check_app(app)
    check_options(given)


@public
@SERVE_OPTIONS.declare
async def serve_tcp(
    app: App,
    port: int,
    *,
    host: str | bytes | None = None,
    backlog: int | None = None,
    reuse_port: bool = False,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
    **options: Unpack[ServeOptions],
) -> None:
    """Serve HTTP/1.1 and its upgrades over TCP, until cancelled or drained.

    Args:
        app: Called once for each request, in the connection's task.
        port: The port, 0 for any free one.
        host: The address to listen on; None means every address of this machine.
        backlog: The listen backlog; None means the kernel's maximum.
        reuse_port: Whether other processes of the same user may listen on the port,
            too, if they all ask for it. Linux then spreads the connections over them
            by a hash of their addresses, not by load: one that is given to a process
            with ``Limits.connections`` waits there, even if others have room.
        task_status: Gets a :class:`Server` as soon as connections are accepted.
        options: Those of :class:`ServeOptions`.

    Raises:
        TypeError: An argument has another type, or the app cannot be called with a
            request alone.
        ValueError: The port is above 65535, or a number is negative.
        OSError: The address cannot be listened on, or this platform has no
            ``reuse_port``.
    """
    _check(serve_tcp, app, options)
    check_port(port)
    check_host(host)
    check_backlog(backlog)
    listeners = await open_tcp_listeners(
        port, host=host, backlog=backlog, reuse_port=reuse_port
    )
    await serve_listeners(app, listeners, task_status=task_status, **options)


@public
@SERVE_OPTIONS.declare
async def serve_ssl_over_tcp(
    app: App,
    port: int,
    ssl_context: ssl.SSLContext | Callable[[], ssl.SSLContext],
    *,
    host: str | bytes | None = None,
    https_compatible: bool = True,
    backlog: int | None = None,
    reuse_port: bool = False,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
    **options: Unpack[ServeOptions],
) -> None:
    """Serve HTTP/1.1 and its upgrades over TLS over TCP, until cancelled or drained.

    Each handshake is made in its connection's own task, so a slow one delays no other.

    Args:
        app: Called once for each request, in the connection's task.
        port: The port, 0 for any free one.
        ssl_context: The TLS settings: certificate, key and ALPN. If it has protocols
            for ALPN, ``http/1.1`` should be the only one. Or a function without
            arguments that returns them, called for each new connection, so that a
            certificate can be replaced while the server runs. It must not block: read
            files before. An exception in it is logged and costs its own connection only.
            Its ``sni_callback`` can choose the certificate by the name that the client
            wants.
        host: The address to listen on; None means every address of this machine.
        https_compatible: Whether a peer may end without a close_notify, as browsers
            do. Then a cut cannot be told from an end, so protocols that do not mark
            their own end need False.
        backlog: The listen backlog; None means the kernel's maximum.
        reuse_port: Whether other processes may listen on the port; see
            :func:`serve_tcp`.
        task_status: Gets a :class:`Server` as soon as connections are accepted.
        options: Those of :class:`ServeOptions`.

    Raises:
        TypeError: As for :func:`serve_tcp`.
        ValueError: As for :func:`serve_tcp`, or the TLS settings are for a client.
        OSError: The address cannot be listened on, or this platform has no
            ``reuse_port``.
    """
    _check(serve_ssl_over_tcp, app, options)
    check_port(port)
    check_server_context(ssl_context)
    check_host(host)
    check_backlog(backlog)
    listeners = await open_tcp_listeners(
        port, host=host, backlog=backlog, reuse_port=reuse_port
    )
    secure = [
        TLSListener(listener, ssl_context, https_compatible=https_compatible)
        for listener in listeners
    ]
    await serve_listeners(app, secure, task_status=task_status, **options)


@public
@SERVE_OPTIONS.declare
async def serve_unix(
    app: App,
    path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
    *,
    mode: int | None = None,
    backlog: int | None = None,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
    **options: Unpack[ServeOptions],
) -> None:
    """Serve HTTP/1.1 and its upgrades on a Unix socket, until cancelled or drained.

    The file of a socket on which no process listens any more is replaced; if two servers
    start on it at once, one of them gets EADDRINUSE. Our file is removed as soon as
    connections are no longer accepted, also by a drain, unless another has replaced it by
    then.

    Args:
        app: Called once for each request, in the connection's task.
        path: The socket's file. With a leading NUL it is the name of an abstract socket
            of Linux, which has no file and which every user may connect to.
        mode: The permissions of the file, for example ``0o660``; the umask does not
            change them. They are set before a client can connect; a user without write
            permission cannot connect. None leaves them to the umask.
        backlog: The listen backlog; None means the kernel's maximum.
        task_status: Gets a :class:`Server` as soon as connections are accepted.
        options: Those of :class:`ServeOptions`.

    Raises:
        TypeError: As for :func:`serve_tcp`.
        ValueError: The path is empty, the backlog is negative, or ``mode`` is no valid
            file mode or is given for an abstract socket.
        FileExistsError: A file that is no socket has that name. It stays.
        OSError: Another process listens there (EADDRINUSE), the path is too long or
            cannot be used, or this platform has no Unix sockets.
    """
    _check(serve_unix, app, options)
    check_path(path, mode)
    check_backlog(backlog)
    listener = await open_unix_listener(path, mode=mode, backlog=backlog)
    await serve_listeners(app, [listener], task_status=task_status, **options)


@public
@SERVE_OPTIONS.declare
async def serve_listeners(
    app: App,
    listeners: Sequence[trio.abc.Listener[trio.abc.Stream]],
    *,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
    **options: Unpack[ServeOptions],
) -> None:
    """Serve HTTP/1.1 and its upgrades on any Trio listeners, until cancelled or drained.

    When it ends, the listeners and every connection are closed.

    Args:
        app: Called once for each request, in the connection's task.
        listeners: They are owned from now on, and are ``Server.listeners``. Connections
            of a :class:`trio.SocketListener` are accepted from its socket in batches, as
            those of :func:`serve_tcp` are, so its ``accept()`` is not called; it can
            still be asked for its socket. Of every other listener ``accept()`` is
            called.
        task_status: Gets a :class:`Server` as soon as connections are accepted.
        options: Those of :class:`ServeOptions`.

    Raises:
        TypeError: As for :func:`serve_tcp`; the listeners stay open.
        ValueError: There is no listener, or one is given twice; as above.
    """
    _check(serve_listeners, app, options)
    check_listeners(listeners)
    state = _make_state(**options)
    server = Server(listeners, state)
    try:
        async with trio.open_nursery() as nursery:
            make_connection = partial(
                _find_kind(state), app, server, state, scope=nursery.cancel_scope
            )
            for listener in server.listeners:
                accepting = AcceptLoop(listener, state, make_connection, nursery)
                nursery.start_soon(accepting.run, name="trio_upgrade accepting")
            nursery.start_soon(state.deadlines.run, name="trio_upgrade deadlines")
            task_status.started(server)
            await state.wait_drained()
            nursery.cancel_scope.cancel()
        # Again: the end of a grace cancels the nursery and so the wait above, and
        # connections that joined by serve_stream(server=...) run outside it.
        await state.wait_drained()
    finally:
        state.end()


@public
@SERVE_OPTIONS.declare
async def serve_stream(
    app: App,
    stream: trio.abc.Stream,
    *,
    server: Server | None = None,
    **options: Unpack[ServeOptions],
) -> None:
    """Serve HTTP/1.1 and its upgrades on one stream; return when it has ended.

    Any Trio stream will do: memory, TLS, or one that an earlier protocol has finished
    with. A stream of your own on top of another one should have that one as
    ``transport_stream``, as Trio's wrappers do: so the client's address and TLS are
    found, and a connection that must not end properly is reset.

    Args:
        app: Called once for each request, in this task.
        stream: It is owned from now on, and closed on every path.
        server: A running server that the connection joins: it is counted there and
            drained with that server. The limits and options of that server hold, not
            those given here. None makes a private server, ``request.server``.
        options: Those of :class:`ServeOptions`.

    Raises:
        TypeError: As for :func:`serve_tcp`; the stream stays open.
    """
    _check(serve_stream, app, options)
    check_stream(stream, server)
    if server is not None:
        with trio.CancelScope() as scope:
            state = find_state(server)
            await _find_kind(state)(app, server, state, stream, scope).serve()
        return
    state = _make_state(**options)
    failure: BaseException | None = None
    scope = trio.CancelScope()
    connection = _find_kind(state)(app, Server((), state), state, stream, scope)
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
            # It also replaces a Cancelled that ended the reaper.
            raise failure
