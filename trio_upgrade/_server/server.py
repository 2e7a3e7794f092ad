# A running server as its users see it.
from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, cast, final
from urllib.parse import quote

import trio

from .._errors import UsageError
from .._http.targets import Authority
from .._streams.readiness import (
    count_waiting,
    find_socket_listener,
    is_secure_listener,
)
from .._util import check_seconds, name_kind, public
from .state import check_grace, check_jitter

if TYPE_CHECKING:
    import signal
    from collections.abc import AsyncIterator, Sequence

    from .._limits import Limits
    from .state import ServerState
    from .statistics import ServerStatistics

_ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  compared, not bound


@public
@final
class Server:
    """A running server, as ``nursery.start`` returns it. Not made by users.

    Attributes:
        listeners: The listeners that it accepts from; empty for :func:`serve_stream`.
    """

    def __init__(
        self,
        listeners: Sequence[trio.abc.Listener[trio.abc.Stream]],
        state: ServerState,
    ) -> None:
        self.listeners: list[trio.abc.Listener[trio.abc.Stream]] = list(listeners)
        self._state = state

    @property
    def limits(self) -> Limits:
        """The limits of its connections."""
        return self._state.limits

    @property
    def url(self) -> str:
        """The URL of the first listener that has one, to dial from this machine.

        It has no path, for example ``http://127.0.0.1:1337`` (the loopback address
        replaces a wildcard address) or ``http+unix://%2Frun%2Fapp.sock``. Over TLS both
        forms begin with ``https``.

        Raises:
            ValueError: There is no listener of TCP or of a Unix socket, or the server
                has ended.
        """
        for listener in self.listeners:
            name = _find_name(listener)
            if name is not None:
                scheme = "https" if is_secure_listener(listener) else "http"
                if isinstance(name, tuple):
                    host, port = name[:2]
                    authority = Authority(_ANY_HOST.get(host, host), port)
                    return f"{scheme}://{authority}"
                return f"{scheme}+unix://{_quote_path(name)}"
        raise ValueError("this server has no listener that a URL could name")

    @property
    def port(self) -> int:
        """The TCP port that it listens on; for ``serve_tcp(app, 0)`` the one it got.

        Raises:
            ValueError: It listens on several ports or on none, as on a Unix socket, or it
                has ended.
        """
        ports: set[int] = set()
        for listener in self.listeners:
            name = _find_name(listener)
            if isinstance(name, tuple):
                ports.add(name[1])
        if len(ports) == 1:
            return ports.pop()
        if ports:
            shown = ", ".join(map(str, sorted(ports)))
            raise ValueError(f"this server listens on several ports: {shown}")
        raise ValueError("this server listens on no TCP port, or has ended")

    def statistics(self) -> ServerStatistics:
        """Return the current counts; they do not change later."""
        return self._state.statistics(waiting=sum(map(count_waiting, self.listeners)))

    @property
    def is_leaving(self) -> bool:
        """Whether the server will drain soon, or drains; for answers to health checks.

        True from the first signal of :func:`drain_on_signal`, also during its delay.
        """
        return self._state.leaving

    @property
    def is_draining(self) -> bool:
        """Whether a drain has begun."""
        return self._state.draining.is_set()

    async def wait_draining(self) -> None:
        """Wait until the drain begins, or until the caller's turn in it has come.

        For handlers of upgraded connections, which learn of a drain in no other way: end
        the protocol as it demands, and return before the grace is over.

        If the drain has a ``jitter``, this returns in the task of a connection, and in
        the tasks below it, at the turn of that connection; in any other task at once.
        """
        await self._state.draining.wait()
        await self._state.deadlines.turns.wait(trio.lowlevel.current_task())

    def start_drain(self, grace: float | None, *, jitter: float | None = None) -> None:
        """Begin to drain and return at once; for handlers, hooks and signals.

        In order: the connections that wait in the backlog are accepted, as many as
        ``Limits.connections`` allows, unless the socket was inherited, and from then on
        no others; :meth:`wait_draining` returns; idle connections are closed, and new
        ones have 5 seconds for their first request. No request on a connection accepted
        so far is lost if it has reached this machine by then: it is answered, and every
        answer that is still to come says ``Connection: close``. Offers get a 503.
        Connections that are still open when the grace is over are cancelled and closed,
        those that have switched by a reset. Then the function that serves returns.

        Thousands of clients that are told in the same moment also come back in the same
        moment. With ``jitter`` each connection has a turn: the turns stand at equal
        distances over that time, the first one at once, in no particular order. At its
        turn an idle connection is closed, and :meth:`wait_draining` returns in the tasks
        of an upgraded one, so that WebSockets get their Close and rooms empty one member
        after the other. Until then such a connection goes on as before; but a request on
        an idle one is its last, and offers are refused from the beginning.

        Another call can shorten the grace and the jitter, never lengthen them.

        Args:
            grace: In seconds. 0 gives no time; None disables the limit.
            jitter: The seconds over which the turns are spread, at most the grace. The
                last connection has only the rest of the grace for its goodbye, so give
                less than that. None, the default, or 0 tells all at once.

        Raises:
            TypeError: The grace or the jitter is neither a number nor None; nothing was
                done.
            ValueError: One of them is negative, or the jitter infinite; as above.
        """
        self._state.start_drain(grace, jitter)

    async def drain(self, grace: float | None, *, jitter: float | None = None) -> None:
        """Drain, and wait until every socket is closed.

        Any number of tasks may call it. A cancellation ends only the wait; the drain
        goes on. If the server has ended in another way, this returns at once.

        Args:
            grace: See :meth:`start_drain`.
            jitter: See :meth:`start_drain`.

        Raises:
            TypeError: See :meth:`start_drain`.
            ValueError: See :meth:`start_drain`.
            UsageError: Called in a task of one of the connections, which would wait for
                itself; use :meth:`start_drain` there. Nothing was done.
        """
        if self._state.serves_task(trio.lowlevel.current_task()):
            raise UsageError("a connection cannot wait for its own end: start_drain()")
        self._state.start_drain(grace, jitter)
        await self._state.ended.wait()

    async def wait_ended(self) -> None:
        """Wait until it has ended, drained or cancelled, and every socket is closed."""
        await self._state.ended.wait()

    def __repr__(self) -> str:
        state = self._state
        if state.ended.is_set():
            return "<Server, ended>"
        try:
            shown = f" at {self.url}"
        except ValueError:
            # Its listeners have no address, or are closed, as during a drain.
            shown = ""
        return f"<Server{shown}{', draining' if state.draining.is_set() else ''}>"


def _find_name(
    listener: trio.abc.Listener[trio.abc.Stream],
) -> tuple[str, int] | str | bytes | None:
    # None: it has no socket, or that is closed, because the server has ended.
    below = find_socket_listener(listener)
    with suppress(OSError):
        if below is not None:
            return cast("tuple[str, int] | str | bytes", below.socket.getsockname())
    return None


def _quote_path(name: str | bytes) -> str:
    # All of the path is the URL's host, so every slash is quoted.  An abstract socket's
    # name is bytes and begins with a NUL.
    path = os.fsencode(name)
    return quote(path if path.startswith(b"\0") else os.path.abspath(path), safe="")


def find_state(server: Server) -> ServerState:
    """Return the state that a server's connections share, for the serving functions."""
    return server._state  # pyright: ignore[reportPrivateUsage]


@public
async def drain_on_signal(
    server: Server,
    *signals: signal.Signals,
    grace: float | None,
    delay: float = 0,
    jitter: float | None = None,
) -> None:
    """Drain a server when a signal comes, and return when it has ended.

    ::

        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve_tcp, app, 1337)
            await drain_on_signal(server, signal.SIGTERM, signal.SIGINT, grace=10)

    A second signal ends the delay, the grace and the jitter. The signals do nothing else
    meanwhile; SIGINT raises no KeyboardInterrupt. If the server ends in another way, this
    returns, too. Only for the main thread.

    Args:
        server: The server.
        signals: The signals; at least one.
        grace: See :meth:`Server.start_drain`.
        delay: Seconds from the signal to the drain. Meanwhile the server accepts and
            serves as before, and :attr:`Server.is_leaving` is True, so that its answers
            to health checks can make a load balancer send its requests elsewhere.
        jitter: The seconds over which connections are told; see
            :meth:`Server.start_drain`. None tells all at once.

    Raises:
        TypeError: The server is none, no signal is given, one is no signal, or the
            grace, the delay or the jitter is no number.
        ValueError: The grace, the delay or the jitter is negative, or the jitter
            infinite; nothing was done.
    """
    if not isinstance(cast("object", server), Server):
        raise TypeError(f"server must be a Server, not {name_kind(server)}")
    if not signals:
        raise TypeError("at least one signal has to be named")
    for number in signals:
        if not isinstance(cast("object", number), int):
            raise TypeError(
                f"a signal must be one such as signal.SIGTERM, not {name_kind(number)}"
            )
    check_grace(grace)
    check_seconds("a delay", delay)
    check_jitter(jitter)
    with trio.open_signal_receiver(*signals) as received:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_drain_on_first, server, received, grace, delay, jitter)
            await server.wait_ended()
            nursery.cancel_scope.cancel()


async def _drain_on_first(
    server: Server,
    received: AsyncIterator[int],
    grace: float | None,
    delay: float,
    jitter: float | None,
) -> None:
    await anext(received)
    find_state(server).leaving = True
    if delay:
        with trio.move_on_after(delay):
            await anext(received)
            grace = 0
    server.start_drain(grace, jitter=jitter)
    while True:
        # Receive further signals, too: Trio would raise them again at the end.
        await anext(received)
        server.start_drain(0)
