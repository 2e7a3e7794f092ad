# WebSockets to one URL, one after the other.
#
# The iterator is no async generator: a nursery, or a scope, that is open across a `yield`
# breaks Trio at `break` (ASYNC119).  Nor may it open one in __anext__(), because the
# caller may have a scope around that call which ends before the loop does.  So a task of
# the outer block has the nursery of each connection:
#
#     async with reconnecting_websocket    a nursery
#       └─ a task for each connection      the nursery of its tasks
from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, TypeAlias, cast, final

import trio
from websockets.frames import CloseCode

from .. import PeerGone, SocksRefused, TunnelRefused, UpgradeRefused
from .arguments import Timing, check_seconds
from .dialling import WebSocketDialler
from .logger import LOGGER
from .options import check_dial_options, declare_dial_options, public
from .scope import end_websocket, leave_nursery, says_closed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Unpack

    from websockets.trio.client import ClientConnection

    from .. import DialOptions, HeadersLike, UpgradedConnection
    from .arguments import Bounds
    from .dialling import Opening

Connections: TypeAlias = AsyncIterator["ClientConnection"]

# Answers that may change by themselves (RFC 9110 §15.5.9, §15.6; RFC 8470 §5.2, RFC 6585
# §4).  A 501 or a 505 does not, nor what else a 4xx says.
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
# RFC 1928 §6: general failure, network or host unreachable, refused, TTL expired.
_PASSING_SOCKS = frozenset({1, 3, 4, 5, 6})


@public
@declare_dial_options
def reconnecting_websocket(
    url: str,
    *,
    origin: str | None = None,
    subprotocols: Sequence[str] | None = None,
    compression: str | None = "deflate",
    max_size: Bounds = 2**20,
    max_queue: Bounds = 16,
    ping_interval: float | None = 20,
    ping_timeout: float | None = 20,
    close_timeout: float | None = 10,
    headers: HeadersLike = (),
    open_timeout: float | None = 10,
    first_delay: float = 2,
    longest_delay: float = 60,
    **options: Unpack[DialOptions],
) -> AbstractAsyncContextManager[Connections]:
    """Return a block that has WebSockets to a URL, a new one after each that is over.

    ::

        async with reconnecting_websocket("wss://example.com/feed") as connections:
            async for websocket in connections:
                with suppress(ConnectionClosed):
                    async for message in websocket:
                        ...

    Each turn of the loop dials until a connection is open. The turn that follows closes
    it: a turn that ends, also by ``continue``, has asked for the next one. A turn that is
    to go on with the next when its connection is lost has to catch
    :exc:`websockets.exceptions.ConnectionClosed` itself, as above: an iterator does not
    see what the body of its loop raises.

    Leaving the block, by ``break`` and the end of the block, by ``return`` or by an
    error, closes the current connection as :func:`open_websocket` does, and what the
    block raises leaves it as it is.

    The first attempt is made at once. Before the next ones there is a delay, of random
    length so that the clients of a server that was down do not all come at once (RFC 6455
    §7.2.3): up to ``first_delay`` seconds, each time up to twice as many, never more than
    ``longest_delay``. A connection that was open for longer than that begins again with
    ``first_delay``. Each failure is one line at INFO of ``trio_upgrade.websocket``.

    An attempt is repeated if it is too slow, if the host cannot be reached, if the peer
    goes away, and for the status codes 408, 425, 429, 500, 502, 503 and 504, of proxies
    too. Other refusals do not change by themselves, nor does a certificate that is not
    trusted: the iteration raises them.

    Args:
        url: As for :func:`open_websocket`, and so are the arguments up to ``headers``.
        origin: The value of Origin.
        subprotocols: The subprotocols to offer.
        compression: ``"deflate"`` or None.
        max_size: The most bytes of a message.
        max_queue: The most frames received ahead.
        ping_interval: Seconds between pings.
        ping_timeout: Seconds for the pong.
        close_timeout: Seconds for the peer's part of the closing handshake.
        headers: Further fields of the requests.
        open_timeout: Seconds for each attempt, down to the 101. None disables the limit.
        first_delay: The bound of the first delay, in seconds.
        longest_delay: The bound of every delay, in seconds.
        options: Those of :class:`trio_upgrade.DialOptions`, without ``stream``, which
            could be used only once.

    Raises:
        TypeError: As for :func:`open_websocket`, or ``stream`` was given.
        ValueError: As for :func:`open_websocket`.
        OpenError: From the iteration: the opening failed, and would again.
    """
    check_dial_options(reconnecting_websocket, options)
    if options.get("stream") is not None:
        raise TypeError("stream= can be used for one connection only")
    dialler = WebSocketDialler(
        url,
        origin=origin,
        subprotocols=subprotocols,
        compression=compression,
        max_size=max_size,
        timing=Timing(
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            close_timeout=close_timeout,
            max_queue=max_queue,
        ),
        headers=headers,
        options=options,
    )
    check_seconds("open_timeout", open_timeout)
    return _Reconnecting(dialler, open_timeout, _Delays(first_delay, longest_delay))


@final
class _Delays:
    # The bound of the next delay, and the rule by which it changes.
    __slots__ = ("_bound", "_first", "_longest", "_waits")

    def __init__(self, first: float, longest: float) -> None:
        for name, seconds in (("first_delay", first), ("longest_delay", longest)):
            if cast("object", seconds) is None:
                raise TypeError(f"{name} must be seconds, not None")
            check_seconds(name, seconds)
        self._first = min(first, longest)
        self._longest = longest
        self._bound = self._first
        self._waits = False

    async def wait(self) -> None:
        """Wait before an attempt; not before the first."""
        if not self._waits:
            self._waits = True
            await trio.lowlevel.checkpoint()
            return
        bound, self._bound = self._bound, min(2 * self._bound, self._longest)
        await trio.sleep(random.uniform(0, bound))  # noqa: S311  no secret

    def note_lifetime(self, seconds: float) -> None:
        """Begin again with the first bound if a connection lasted longer than ours."""
        if seconds > self._bound:
            self._bound = self._first


@final
class _Reconnecting(AbstractAsyncContextManager["Connections", None]):
    __slots__ = ("_connections", "_delays", "_dialler", "_manager", "_open_timeout")

    def __init__(
        self, dialler: WebSocketDialler, open_timeout: float | None, delays: _Delays
    ) -> None:
        self._dialler = dialler
        self._open_timeout = open_timeout
        self._delays = delays
        self._manager = trio.open_nursery()
        self._connections: _Connections

    async def __aenter__(self) -> Connections:
        self._connections = _Connections(
            await self._manager.__aenter__(),
            self._dialler,
            math.inf if self._open_timeout is None else self._open_timeout,
            self._delays,
        )
        return self._connections

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        async def end() -> None:
            await self._connections.end(exc)

        await leave_nursery(self._manager, exc, end)


@final
class _Connections(AsyncIterator["ClientConnection"]):
    __slots__ = ("_current", "_delays", "_dialler", "_nursery", "_open_timeout")

    def __init__(
        self,
        nursery: trio.Nursery,
        dialler: WebSocketDialler,
        open_timeout: float,
        delays: _Delays,
    ) -> None:
        self._nursery = nursery
        self._dialler = dialler
        self._open_timeout = open_timeout
        self._delays = delays
        self._current: _Current | None = None

    async def __anext__(self) -> ClientConnection:
        await self._end_current(None)
        while True:
            await self._delays.wait()
            reason = f"not open after {self._open_timeout:g} s"
            try:
                with trio.move_on_after(self._open_timeout):
                    return await self._start(await self._dialler.dial())
            except Exception as exc:
                if not _may_pass(exc):
                    raise
                reason = str(exc)
            LOGGER.info("no WebSocket to %s: %s", self._dialler.shown_url, reason)

    async def end(self, exc: BaseException | None) -> None:
        """End the current connection as the block was left, and cancel all tasks."""
        try:
            await self._end_current(exc)
        finally:
            self._nursery.cancel_scope.cancel()

    async def _start(self, opening: Opening) -> ClientConnection:
        try:
            current = _Current(opening.connection)
            tasks = await self._nursery.start(current.run_tasks)
            websocket = opening.make(tasks)
        except BaseException as exc:
            await opening.connection.__aexit__(type(exc), exc, None)
            raise
        current.websocket = websocket
        self._current = current
        return websocket

    async def _end_current(self, exc: BaseException | None) -> None:
        current, self._current = self._current, None
        if current is not None:
            self._delays.note_lifetime(trio.current_time() - current.since)
            await current.end(exc)


@final
class _Current:
    # The connection that the loop has, and the nursery of its tasks.
    __slots__ = ("_connection", "_ended", "_tasks", "since", "websocket")

    def __init__(self, connection: UpgradedConnection) -> None:
        self._connection = connection
        self._ended = trio.Event()
        self._tasks: trio.Nursery
        self.since: float = trio.current_time()
        self.websocket: ClientConnection

    async def run_tasks(self, *, task_status: trio.TaskStatus[trio.Nursery]) -> None:
        """Have a nursery for the tasks until they are cancelled."""
        try:
            async with trio.open_nursery() as self._tasks:
                task_status.started(self._tasks)
                await trio.sleep_forever()
        except BaseException as exc:
            # A task of the program that finds its connection closed does not end the
            # loop, which goes on with the next one.
            if not says_closed(exc):
                raise
        finally:
            self._ended.set()

    async def end(self, exc: BaseException | None) -> None:
        """End the WebSocket, its tasks and its stream."""
        try:
            await end_websocket(
                self.websocket, self._tasks, exc, CloseCode.NORMAL_CLOSURE
            )
            await self._ended.wait()
        finally:
            kind = None if exc is None else type(exc)
            await self._connection.__aexit__(kind, exc, None)


def _may_pass(exc: Exception) -> bool:
    # Whether an opening that failed so may succeed later.
    if isinstance(exc, UpgradeRefused | TunnelRefused):
        return exc.response.status in _PASSING
    if isinstance(exc, SocksRefused):
        return exc.code in _PASSING_SOCKS
    return isinstance(exc, OSError | PeerGone)
