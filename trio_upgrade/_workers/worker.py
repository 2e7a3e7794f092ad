# A worker as its main function sees it, and what it and the supervisor say to each other.
#
# They talk over a pair of sockets, not by signals.  A signal is lost between fork(2) and
# the installation of a handler (gunicorn #1910), and it cannot be told from one that
# everybody sends: Ctrl-C in a terminal and systemd's KillMode=control-group reach the
# workers as well as the supervisor, so that the one it forwards would be the second one,
# which ends the grace.  And the end of the pair says that the supervisor is gone, however
# it ended, so that no worker outlives it.
from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, cast, final

import trio

from .._server.arguments import check_server_context
from .._server.serve import SERVE_OPTIONS, serve_listeners
from .._server.server import find_state
from .._streams.tls_listener import TLSListener
from .._util import public

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from typing import Unpack

    from .._server.response import App
    from .._server.serve import ServeOptions
    from .._server.server import Server
    from .._streams.socket_listener import DirectSocketListener

# What a supervisor says, one byte each: a drain will come; drain, because others accept
# from now on; drain, and no other worker will accept; end the grace.
LEAVE = b"s"
DRAIN = b"d"
DRAIN_LAST = b"l"
END_GRACE = b"g"
# What a worker says, one line each.  The first one is followed by the URL of its server.
READY = b"ready "
REPLACE = b"replace"
_RECEIVE_BYTES = 64


@public
@final
class Worker:
    """A process that :func:`run_workers` has started, as its ``main`` gets it.

    Not made by users.

    Attributes:
        number: Its place, from 0. The worker that replaces it has the same number.
        listeners: The listening sockets, for :func:`serve_listeners`; :meth:`serve` uses
            them by itself.
        grace: The grace of :func:`run_workers`, in seconds; None for no limit.
        jitter: The jitter of :func:`run_workers`, in seconds; None if all connections
            are told of a drain at once.
    """

    def __init__(
        self,
        number: int,
        listeners: Sequence[DirectSocketListener],
        channel: socket.socket,
        *,
        grace: float,
        jitter: float | None = None,
    ) -> None:
        self.number: int = number
        self.listeners: list[DirectSocketListener] = [*listeners]
        self.grace: float | None = None if grace == math.inf else grace
        self.jitter: float | None = jitter
        self._channel = channel
        channel.setblocking(False)
        # Those that no process outside opened; their backlogs may be emptied at the end.
        self._own = [listener for listener in listeners if not listener.inherited]
        for listener in listeners:
            listener.inherited = True
        self._servers: list[Server] = []
        self._scope = trio.CancelScope()
        self._will_leave = False
        self._is_leaving = False
        self._grace_ended = False

    @SERVE_OPTIONS.declare
    async def serve(
        self,
        app: App,
        *,
        ssl_context: ssl.SSLContext | Callable[[], ssl.SSLContext] | None = None,
        https_compatible: bool = True,
        task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
        **options: Unpack[ServeOptions],
    ) -> None:
        """Serve on the listeners of this worker, until it has been drained.

        The worker is ready as soon as connections are accepted; see :meth:`ready`.

        Args:
            app: Called once for each request, in the connection's task.
            ssl_context: The TLS settings, or a function that returns them, as for
                :func:`serve_ssl_over_tcp`; None serves without TLS. Make them in
                ``main``, so that a restart of the workers reads a new certificate.
            https_compatible: As for :func:`serve_ssl_over_tcp`.
            task_status: Gets the :class:`Server` as soon as connections are accepted.
            options: Those of :class:`ServeOptions`.

        Raises:
            TypeError: As for :func:`serve_tcp`.
            ValueError: The TLS settings are for a client.
        """
        SERVE_OPTIONS.check(Worker.serve, cast("Mapping[str, object]", options))
        listeners: Sequence[DirectSocketListener | TLSListener] = self.listeners
        if ssl_context is not None:
            check_server_context(ssl_context)
            listeners = [
                TLSListener(listener, ssl_context, https_compatible=https_compatible)
                for listener in self.listeners
            ]
        # No task of its own: the drain ends serve_listeners().
        status = cast("trio.TaskStatus[Server]", _Ready(self, task_status))
        await serve_listeners(app, listeners, task_status=status, **options)

    def ready(self, *servers: Server) -> None:
        """Say that this worker serves, and let the supervisor drain these servers.

        For a ``main`` that starts its servers itself::

            async with trio.open_nursery() as nursery:
                serve = partial(serve_listeners, app, worker.listeners)
                worker.ready(await nursery.start(serve))

        The supervisor waits for this before it calls the workers started, and before it
        drains the worker that this one replaces. Another call adds servers. If the
        supervisor has told this worker to drain by now, the servers drain at once.
        """
        self._servers += servers
        if self._will_leave:
            self._mark()
        if self._is_leaving:
            self._drain()
            return
        url = b""
        # ValueError: it has no listener that a URL could name.
        with suppress(IndexError, ValueError):
            url = self._servers[0].url.encode()
        self._say(READY + url)

    def ask_for_replacement(self) -> None:
        """Ask the supervisor for another worker, and be drained when that is ready."""
        self._say(REPLACE)

    def _say(self, line: bytes) -> None:
        # OSError: the supervisor is gone, which _obey() notices as well.
        with suppress(OSError):
            self._channel.send(line + b"\n")

    async def run(self, main: Callable[[Worker], Awaitable[None]]) -> None:
        """Run ``main`` as the main task of Trio, and obey the supervisor meanwhile."""
        # Not in a nursery of ours, which would put what main raises into a group.
        trio.lowlevel.spawn_system_task(self._obey, name="trio_upgrade worker")
        with self._scope:
            await main(self)

    async def _obey(self) -> None:
        channel = trio.socket.from_stdlib_socket(self._channel)
        while True:
            orders = b""
            # OSError: the supervisor ended without reading everything.
            with suppress(OSError):
                orders = await channel.recv(_RECEIVE_BYTES)
            if orders == LEAVE:
                self._will_leave = True
                self._mark()
                continue
            # At the end all workers drain, since none of them has a supervisor.
            self._is_leaving = True
            if DRAIN_LAST in orders or not orders:
                for listener in self._own:
                    listener.inherited = False
            self._grace_ended |= END_GRACE in orders
            self._drain()
            if not orders:
                return

    def _mark(self) -> None:
        for server in self._servers:
            find_state(server).leaving = True

    def _drain(self) -> None:
        for server in self._servers:
            grace = 0 if self._grace_ended else self.grace
            server.start_drain(grace, jitter=self.jitter)
        if not self._servers:
            # Nothing is served so far.
            self._scope.cancel(reason="the worker is told to end")


@final
class _Ready:
    """Tells the worker, and then the user's task status, that a server is started."""

    def __init__(self, worker: Worker, then: trio.TaskStatus[Server]) -> None:
        self._worker = worker
        self._then = then

    def started(self, value: Server) -> None:
        self._worker.ready(value)
        self._then.started(value)
