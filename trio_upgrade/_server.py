# Serving: listeners, and one task per connection.  The accept loop is our own because
# trio.serve_listeners closes each stream behind its handler, also one that was detached.
from __future__ import annotations

import errno
import logging
import os
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast, final

import trio

from ._dates import DateClock
from ._limits import Limits
from ._session import serve_session
from ._target import Authority

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Sequence

    from ._request import App

StreamT = TypeVar("StreamT", bound=trio.abc.Stream)

_LOGGER = logging.getLogger("trio_upgrade.server")
# What accept(2) says when the system, not the connection, has run out of something,
# and how long to wait then, in seconds; both as Trio has them.
_CAPACITY_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_CAPACITY_WAIT = 0.1
_ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  compared, not bound


@final
class Server:
    """A running server, as ``nursery.start`` hands it back. Not made by users.

    Attributes:
        listeners: What it accepts from; empty for :func:`serve_stream`.
        limits: Its bounds.
        close_refused_early: Whether a refused offer ends its connection if bytes
            follow it already.
        dates: The Date of its responses.
    """

    def __init__(
        self,
        listeners: Sequence[trio.abc.Listener[trio.abc.Stream]],
        limits: Limits,
        *,
        close_refused_early: bool,
    ) -> None:
        self.listeners: list[trio.abc.Listener[trio.abc.Stream]] = list(listeners)
        self.limits: Limits = limits
        self.close_refused_early: bool = close_refused_early
        self.dates: DateClock = DateClock()

    @property
    def url(self) -> str:
        """A URL of the first TCP listener, to dial from this machine.

        Without a path, ``http://127.0.0.1:1337`` say; a wildcard address is replaced
        by its loopback one.

        Raises:
            ValueError: There is no TCP listener.
        """
        for listener in self.listeners:
            secure = isinstance(listener, trio.SSLListener)
            bottom = cast("Any", listener).transport_listener if secure else listener
            if isinstance(bottom, trio.SocketListener):
                name = cast("object", bottom.socket.getsockname())
                if isinstance(name, tuple):
                    host, port = cast("tuple[str, int]", name[:2])
                    authority = Authority(_ANY_HOST.get(host, host), port)
                    return f"{'https' if secure else 'http'}://{authority}"
        raise ValueError("this server has no TCP listener")


async def serve_tcp(
    app: App,
    port: int,
    *,
    host: str | bytes | None = None,
    backlog: int | None = None,
    limits: Limits = Limits(),
    close_refused_early: bool = False,
    strict: bool = False,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve HTTP/1.1 and its upgrades over TCP, until cancelled.

    Args:
        app: Called once for each request, in the connection's task.
        port: The port, 0 for any free one.
        host: The address to listen on; None means every address of this machine.
        backlog: The listen backlog; None means Trio's default.
        limits: The bounds of every connection.
        close_refused_early: Whether a refused offer ends its connection if bytes follow
            it already. They would be the next request (RFC 9931 §5), unless what stands
            in front of this server tunnels whatever asks for an upgrade.
        strict: Whether exceptions of the app come out of here, for tests. Otherwise
            they are logged to ``trio_upgrade.server`` and cost their own connection.
        task_status: Gets a :class:`Server` as soon as connections are accepted.

    Raises:
        OSError: The address cannot be listened on.
    """
    listeners = await trio.open_tcp_listeners(port, host=host, backlog=backlog)
    await serve_listeners(
        app,
        listeners,
        limits=limits,
        close_refused_early=close_refused_early,
        strict=strict,
        task_status=task_status,
    )


async def serve_ssl_over_tcp(
    app: App,
    port: int,
    ssl_context: ssl.SSLContext,
    *,
    host: str | bytes | None = None,
    https_compatible: bool = True,
    backlog: int | None = None,
    limits: Limits = Limits(),
    close_refused_early: bool = False,
    strict: bool = False,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve HTTP/1.1 and its upgrades over TLS over TCP, until cancelled.

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
        backlog: The listen backlog; None means Trio's default.
        limits: The bounds of every connection.
        close_refused_early: See :func:`serve_tcp`.
        strict: Whether exceptions of the app come out of here; see :func:`serve_tcp`.
        task_status: Gets a :class:`Server` as soon as connections are accepted.

    Raises:
        OSError: The address cannot be listened on.
    """
    listeners = await trio.open_ssl_over_tcp_listeners(
        port,
        ssl_context,
        host=host,
        https_compatible=https_compatible,
        backlog=backlog,
    )
    await serve_listeners(
        app,
        listeners,
        limits=limits,
        close_refused_early=close_refused_early,
        strict=strict,
        task_status=task_status,
    )


async def serve_listeners(
    app: App,
    listeners: Sequence[trio.abc.Listener[StreamT]],
    *,
    limits: Limits = Limits(),
    close_refused_early: bool = False,
    strict: bool = False,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve HTTP/1.1 and its upgrades on any Trio listeners, until cancelled.

    When it ends, the listeners and every connection are closed.

    Args:
        app: Called once for each request, in the connection's task.
        listeners: They are owned from now on.
        limits: The bounds of every connection.
        close_refused_early: See :func:`serve_tcp`.
        strict: Whether exceptions of the app come out of here; see :func:`serve_tcp`.
        task_status: Gets a :class:`Server` as soon as connections are accepted.
    """
    server = Server(listeners, limits, close_refused_early=close_refused_early)
    serve = partial(serve_session, app, server=server, strict=strict)
    async with trio.open_nursery() as nursery:
        for listener in server.listeners:
            nursery.start_soon(_accept_connections, listener, serve, nursery)
        task_status.started(server)


async def _accept_connections(
    listener: trio.abc.Listener[trio.abc.Stream],
    serve: Callable[[trio.abc.Stream], Awaitable[None]],
    nursery: trio.Nursery,
) -> None:
    waiting = False
    async with listener:
        while True:
            try:
                stream = await listener.accept()
            except OSError as exc:
                if exc.errno not in _CAPACITY_ERRNOS:
                    raise
                if not waiting:
                    # Once per episode, which may last long.
                    _LOGGER.error("cannot accept for now: %s", os.strerror(exc.errno))
                waiting = True
                await trio.sleep(_CAPACITY_WAIT)
            else:
                waiting = False
                nursery.start_soon(serve, stream, name="trio_upgrade connection")


async def serve_stream(
    app: App,
    stream: trio.abc.Stream,
    *,
    limits: Limits = Limits(),
    close_refused_early: bool = False,
    strict: bool = False,
) -> None:
    """Serve HTTP/1.1 and its upgrades on one stream; return when that is over.

    Any Trio stream will do: memory, TLS, or one that an earlier protocol is done with.

    Args:
        app: Called once for each request, in this task.
        stream: It is owned from now on, and closed on every path.
        limits: The bounds of the connection.
        close_refused_early: See :func:`serve_tcp`.
        strict: Whether exceptions of the app come out of here; see :func:`serve_tcp`.
    """
    server = Server((), limits, close_refused_early=close_refused_early)
    await serve_session(app, stream, server=server, strict=strict)
