# A running server as its users see it.
from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast, final
from urllib.parse import quote

import trio

from .._errors import UsageError
from .._http.targets import Authority
from .._streams.socket_listener import DirectSocketListener
from .._streams.unix_listener import UnixListener
from .._util import public
from .state import check_grace

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
    """A running server, as ``nursery.start`` hands it back. Not made by users.

    Attributes:
        listeners: What it accepts from; empty for :func:`serve_stream`.
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
        """Its bounds."""
        return self._state.limits

    @property
    def url(self) -> str:
        """The URL of the first listener that has one, to dial from this machine.

        Without a path: ``http://127.0.0.1:1337`` say, where a wildcard address is
        replaced by its loopback one, or ``http+unix://%2Frun%2Fapp.sock``; ``https``
        in both forms where TLS is spoken.

        Raises:
            ValueError: There is no listener of TCP or of a Unix socket, or the server
                has ended.
        """
        for listener in self.listeners:
            secure = isinstance(listener, trio.SSLListener)
            bottom = cast("Any", listener).transport_listener if secure else listener
            if isinstance(
                bottom, trio.SocketListener | DirectSocketListener | UnixListener
            ):
                try:
                    name: object = bottom.socket.getsockname()
                except OSError:
                    continue  # Closed: the server has ended.
                scheme = "https" if secure else "http"
                if isinstance(name, tuple):
                    host, port = cast("tuple[str, int]", name[:2])
                    authority = Authority(_ANY_HOST.get(host, host), port)
                    return f"{scheme}://{authority}"
                return f"{scheme}+unix://{_quote_path(cast('str | bytes', name))}"
        raise ValueError("this server has no listener that a URL could name")

    def statistics(self) -> ServerStatistics:
        """Return the counts of now, frozen."""
        return self._state.statistics()

    @property
    def is_draining(self) -> bool:
        """Whether it is on its way to its end."""
        return self._state.draining.is_set()

    async def wait_draining(self) -> None:
        """Wait until the drain begins.

        For upgraded handlers, which are told by this and by nothing else: say goodbye
        in the protocol's own words and return before the grace is over.
        """
        await self._state.draining.wait()

    def start_drain(self, grace: float | None) -> None:
        """Begin to drain and return at once; for handlers, hooks and signals.

        No connection is accepted any more, idle ones are closed, offers get a 503, the
        answers that are under way say ``Connection: close``, and
        :meth:`wait_draining` returns. Whatever is still open when the grace is over is
        cancelled and closed. Then the function that serves returns.

        Called again it can shorten the grace, never lengthen it.

        Args:
            grace: Seconds, 0 for none, None for as long as it takes.

        Raises:
            ValueError: The grace is negative.
        """
        self._state.start_drain(grace)

    async def drain(self, grace: float | None) -> None:
        """Drain, and wait until every socket is closed.

        Any number of tasks may do so. Cancelled, the drain goes on. If the server has
        ended in another way, this returns at once.

        Args:
            grace: See :meth:`start_drain`.

        Raises:
            ValueError: The grace is negative.
            UsageError: This is a task of one of the connections, which would wait for
                itself; :meth:`start_drain` does not. Nothing was done.
        """
        if self._state.serves_task(trio.lowlevel.current_task()):
            raise UsageError("a connection cannot wait for its own end: start_drain()")
        self._state.start_drain(grace)
        await self._state.ended.wait()

    async def wait_ended(self) -> None:
        """Wait until it has ended, drained or cancelled, and every socket is closed."""
        await self._state.ended.wait()


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
    server: Server, *signals: signal.Signals, grace: float | None
) -> None:
    """Drain a server when a signal comes, and return when it has ended.

    ::

        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve_tcp, app, 1337)
            await drain_on_signal(server, signal.SIGTERM, signal.SIGINT, grace=10)

    A second signal ends the grace. The signals do nothing else meanwhile, SIGINT
    raises no KeyboardInterrupt. If the server ends in another way, this returns, too.
    Only for the main thread.

    Args:
        server: The server.
        signals: Which signals; at least one.
        grace: See :meth:`Server.start_drain`.

    Raises:
        TypeError: No signal is given.
        ValueError: The grace is negative; nothing was done.
    """
    if not signals:
        raise TypeError("at least one signal has to be named")
    check_grace(grace)
    with trio.open_signal_receiver(*signals) as received:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_drain_at_first, server, received, grace)
            await server.wait_ended()
            nursery.cancel_scope.cancel()


async def _drain_at_first(
    server: Server, received: AsyncIterator[int], grace: float | None
) -> None:
    await anext(received)
    server.start_drain(grace)
    while True:
        # Take each further signal, so that it is not raised again after us.
        await anext(received)
        server.start_drain(0)
