# Accepting connections from one listener until the server drains, and then what waits in
# the backlog: these clients may have sent their requests already.
#
# trio.serve_listeners is not used because it closes each stream after its handler, also
# one that was detached.
from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING, final

import trio

from .._streams.closing import close_forcefully
from .._streams.readiness import count_waiting, find_socket_listener, is_readable
from .._streams.socket_listener import DirectSocketListener, share_listener
from .._streams.tls_listener import TLSListener
from .._streams.underlying import find_peer
from .._streams.unix_listener import UnixListener
from .episode import Episode
from .observers import LOGGER

if TYPE_CHECKING:
    from collections.abc import Callable

    from .connection import Connection
    from .state import ServerState

# The errors of accept(2) which say that the system, not the connection, has run out of
# something, and how many seconds to wait then; both as in Trio.
_CAPACITY_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_CAPACITY_WAIT = 0.1
# Connections to accept before other tasks get their turn. The connections of one batch
# share the scheduler's passes; a batch of more than some tens gains nothing more.
_BATCH = 64
# The longest backlog that listen(2) can be given.
_MOST_WAITING = 0xFFFF
# Seconds for an accept() that need not wait, unless the connection has just been reset.
_ACCEPT_SECONDS = 0.1
_CONNECTION = "trio_upgrade connection"


@final
class AcceptLoop:
    """Accepts from one listener, and starts a task for each connection.

    Args:
        listener: The listener; it is owned from now on.
        state: The state of the server.
        make_connection: Makes a connection, which counts from then on.
        nursery: Where the tasks run.
    """

    def __init__(
        self,
        listener: trio.abc.Listener[trio.abc.Stream],
        state: ServerState,
        make_connection: Callable[[trio.abc.Stream], Connection],
        nursery: trio.Nursery,
    ) -> None:
        # TLS of ours is put on connections that were accepted below it.
        self._tls: TLSListener | None = None
        if isinstance(listener, TLSListener):
            self._tls, listener = listener, listener.transport_listener
        self._listener = share_listener(listener)
        self._state = state
        self._make_connection = make_connection
        self._nursery = nursery
        self._scope = trio.CancelScope()
        # Accepted, in reverse order, but without a task so far.
        self._streams: list[trio.abc.Stream] = []
        self._failures = Episode()
        # Now, so that a drain finds it before its task runs.
        state.add_accepting(self._scope)

    async def run(self) -> None:
        """Accept until the server drains; return when every connection has its task."""
        try:
            async with self._listener:
                with self._scope:
                    while True:
                        await self._state.wait_capacity()
                        await self._accept_some()
                        await self._start_connections()
                await self._accept_waiting()
            await self._start_connections()
        finally:
            self._state.remove_accepting(self._scope)
            for stream in self._streams:
                await close_forcefully(stream)

    async def _accept_some(self) -> None:
        most = min(_BATCH, self._state.capacity)
        try:
            if isinstance(self._listener, DirectSocketListener | UnixListener):
                self._streams += await self._listener.accept_some(most)
            else:
                self._streams.append(await self._listener.accept())
        except OSError as exc:
            if exc.errno not in _CAPACITY_ERRNOS:
                raise
            if self._failures.begins():
                LOGGER.error("cannot accept for now: %s", os.strerror(exc.errno))
            await trio.sleep(_CAPACITY_WAIT)
        self._streams.reverse()

    async def _start_connections(self) -> None:
        started = 0
        while self._streams:
            if started == _BATCH:
                started = 0
                await trio.lowlevel.checkpoint()
            # Other listeners may have used the capacity.
            await self._state.wait_capacity()
            started += 1
            accepted, tls = self._streams.pop(), self._tls
            stream = accepted if tls is None else await self._secure(tls, accepted)
            if stream is not None:
                connection = self._make_connection(stream)
                self._nursery.start_soon(connection.serve, name=_CONNECTION)

    async def _secure(
        self, tls: TLSListener, stream: trio.abc.Stream
    ) -> trio.abc.Stream | None:
        # Returns None if no TLS can be made, and then the connection is closed.
        try:
            return tls.wrap(stream)
        except BaseException as exc:
            if isinstance(exc, Exception):
                # Of the user's function; for the next connection it may work.
                self._state.observers.report_error(find_peer(stream), None, exc)
            await close_forcefully(stream)
            if self._state.strict or not isinstance(exc, Exception):
                raise
            return None

    async def _accept_waiting(self) -> None:
        # Accepts what the backlog holds now, within the capacity.
        listener = self._listener
        below = find_socket_listener(listener)
        most = min(_MOST_WAITING, self._state.capacity - len(self._streams))
        # Later connections on an inherited socket are for another process.
        if below is None or (
            isinstance(below, DirectSocketListener) and below.inherited
        ):
            return
        # OSError: the system has run out of something, and the rest is reset.
        with suppress(OSError, trio.ClosedResourceError):
            if isinstance(below, UnixListener):
                # Then no other client can connect.
                below.remove_file()
            if isinstance(listener, DirectSocketListener | UnixListener):
                # All at once: if other tasks ran meanwhile, clients could go on
                # connecting for ever.
                waiting = listener.accept_some_nowait(most)
                self._streams[:0] = reversed(waiting)
                return
            if (waiting_now := count_waiting(below)) > 1:
                # Not those that connect while other tasks run. (1 may mean any number.)
                most = min(most, waiting_now)
            while most > 0 and is_readable(below.socket.fileno()):
                if self._state.must_close_now:
                    return
                most -= 1
                with trio.move_on_after(_ACCEPT_SECONDS):
                    self._streams.insert(0, await listener.accept())
