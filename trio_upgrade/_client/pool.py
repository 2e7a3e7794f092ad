# Keep-alive connections of a client, shared by tasks.  pool_table decides which request
# gets a connection, and pool_rules which connections a request can use and whether it is
# made again; pool_lease holds them meanwhile.  There is no task: connections that are
# idle for too long are looked for whenever one is taken or given back.
from __future__ import annotations

import math
from typing import TYPE_CHECKING, final

import trio

from .._errors import OpenError
from .._http.headers import encode_fields
from .._util import check_seconds, public
from .connection import REQUEST_FORBIDDEN, ClientConnection
from .open import DIAL_OPTIONS
from .pool_lease import Lease, PoolSlots
from .pool_response import PooledResponse
from .pool_rules import (
    check_slots,
    find_origin,
    find_settings,
    make_route,
    may_retry,
)
from .pool_statistics import PoolStatistics
from .request_head import CheckedRequest
from .route import make_context
from .urls import parse_url

if TYPE_CHECKING:
    import ssl
    from types import TracebackType
    from typing import Unpack

    from .._body import Body
    from .._http.headers import HeadersLike
    from .._http.messages import ResponseHead
    from .open import DialOptions
    from .request_head import OnInformational, RequestBody, TrailersLike
    from .urls import Endpoint

    # What an exchange returns.
    Parts = tuple[ResponseHead, tuple[ResponseHead, ...], Body]


@public
@final
class ConnectionPool(trio.abc.AsyncResource):
    """Connections to any number of servers, kept alive and shared by any number of tasks.

    ::

        async with ConnectionPool() as pool:
            async with await pool.request("GET", "http://127.0.0.1:1337/") as response:
                print(response.status, await response.read())

    Each request has a connection to itself. One that is idle is used again if it was
    opened to the same host and port, with equal options, if the server has not ended it
    and no unasked byte has come on it (RFC 9112 §9.2). Otherwise one is dialled. If too
    many are open, the one that was idle for longest is closed, and if none is idle, the
    request waits. Requests are served in the order in which they asked, except that those
    to an origin with ``per_origin`` connections do not hold up the others.

    No task runs in the background. A connection that has been idle for too long is closed
    when another one is taken or given back, or by :meth:`close_idle`.

    Leaving the block closes all connections. A request that goes on, waits or comes later
    raises :exc:`trio.ClosedResourceError`.

    Args:
        connections: How many connections may be open.
        per_origin: How many of them to one host and port with the same options. None
            disables the limit. 10 is more than browsers open (6), and few enough not to
            be taken for an attack.
        idle_timeout: Seconds that a connection may be idle; None disables it. By default
            4, one less than Node's servers and ours allow, so that a request seldom meets
            a connection that the server is just closing.
        connect_timeout: Seconds in which a connection must be opened, through TLS and
            proxies; then the request raises :exc:`trio.TooSlowError`. A scope round the
            request cannot bound this alone. None, the default, disables it.
        options: Those of :class:`DialOptions` but ``stream``, for all connections. A
            request may have others; connections with different options are kept apart.

    Raises:
        TypeError: An argument has another type, there is no such option, or ``stream``
            is given.
        ValueError: ``connections`` or ``per_origin`` is less than 1, or a time is
            negative.
    """

    @DIAL_OPTIONS.declare
    def __init__(
        self,
        *,
        connections: int = 100,
        per_origin: int | None = 10,
        idle_timeout: float | None = 4.0,
        connect_timeout: float | None = None,
        **options: Unpack[DialOptions],
    ) -> None:
        DIAL_OPTIONS.check(ConnectionPool.__init__, options)
        check_slots(connections, per_origin)
        check_seconds("idle_timeout", idle_timeout)
        check_seconds("connect_timeout", connect_timeout)
        self._options = DIAL_OPTIONS.complete(options)
        self._settings = find_settings(self._options)
        self._connect_timeout = math.inf if connect_timeout is None else connect_timeout
        self._slots = PoolSlots(connections, per_origin, idle_timeout)
        # Made when TLS is first spoken without settings of the caller.
        self._context: ssl.SSLContext | None = None
        self._total_connections = 0
        self._total_requests = 0
        self._total_retried = 0

    @DIAL_OPTIONS.declare
    async def request(
        self,
        method: str,
        url: str,
        *,
        target: str | None = None,
        headers: HeadersLike = (),
        body: RequestBody = b"",
        trailers: TrailersLike = (),
        on_informational: OnInformational | None = None,
        **options: Unpack[DialOptions],
    ) -> PooledResponse:
        """Make a request and receive the head of the final response.

        Put a timeout round the ``await`` alone if it is not meant for the body. If this
        is cancelled or fails, its connection is closed.

        A request that fails is made a second time, on a fresh connection, if nothing of
        it was sent; or if its connection had been used before, no byte of an answer has
        come, its method is idempotent and its body is bytes, since a server may end an
        idle connection just when a request is on the way (RFC 9110 §9.2.2).

        Args:
            method: The method; not CONNECT.
            url: As for :func:`open_upgrade`. Its credentials are sent with this request
                alone.
            target: The request target, sent as it is; see
                :meth:`ClientConnection.request`. None, the default, means the path and
                query of the URL.
            headers: Further fields; see :meth:`ClientConnection.request`.
            body: The request's body; see :meth:`ClientConnection.request`. An iterable
                is closed if its sending was begun.
            trailers: Fields to send after it; see :meth:`ClientConnection.request`.
            on_informational: An async function that gets the head of each informational
                response; see :meth:`ClientConnection.request`.
            options: Those of :class:`DialOptions` but ``stream``, instead of the pool's.

        Returns:
            The response, to be used in ``async with``: it owns the connection until its
            body has been read. If neither happens, the connection is never given back.

        Raises:
            TypeError: An argument has another type, there is no such option, or
                ``stream`` is given. Nothing was opened.
            ValueError: An argument is malformed, or they do not go together; see
                :meth:`ClientConnection.request`. Nothing was opened.
            OSError: The server, or the first proxy, cannot be reached.
            TunnelRefused: A proxy answered with something other than a 2xx.
            SocksRefused: A SOCKS proxy opened no tunnel.
            TLSFailed: TLS could not be agreed on.
            BadResponse: The response is not HTTP, or over a limit.
            IllegalSwitch: A 101 came.
            PeerGone: The server went away before its answer was complete.
            trio.TooSlowError: No connection was opened within ``connect_timeout``.
            trio.ClosedResourceError: The pool is closed.
        """
        DIAL_OPTIONS.check(self.request, options)
        self._slots.check_open()
        if method == "CONNECT":
            raise ValueError("CONNECT asks for a tunnel, not a response: open_tunnel()")
        endpoint = parse_url(url)
        request = CheckedRequest(
            method,
            endpoint.target if target is None else target,
            encode_fields(headers, forbidden=REQUEST_FORBIDDEN),
            body,
            endpoint,
            trailers=trailers,
            on_informational=on_informational,
        )
        settings = self._settings
        if options:
            settings = find_settings({**self._options, **options})
        if endpoint.secure and settings.ssl_context is None:
            # One for all connections: to make one takes some 10 ms.
            self._context = self._context or make_context()
            settings = settings._replace(ssl_context=self._context)
        lease = Lease(self._slots, find_origin(endpoint, settings))
        try:
            await lease.acquire()
            parts = await self._perform(lease, request)
        except BaseException:
            await lease.drop()
            raise
        return PooledResponse(*parts, lease)

    async def close_idle(self, seconds: float | None = None) -> None:
        """Close the connections that have been idle for too long.

        For a program that makes no request for a long time: otherwise nothing closes
        them, and servers that have ended theirs leave sockets half open here.

        Args:
            seconds: How long that is; 0 closes all that are idle. None, the default,
                means the ``idle_timeout`` of the pool.

        Raises:
            TypeError: ``seconds`` is neither a number nor None.
            ValueError: ``seconds`` is negative.
        """
        check_seconds("seconds", seconds)
        await trio.lowlevel.checkpoint()
        await self._slots.close_idle(seconds)

    def statistics(self) -> PoolStatistics:
        """Return the counts of this pool."""
        counts = self._slots.table
        return PoolStatistics(
            in_use=counts.taken - counts.idle,
            idle=counts.idle,
            waiting=counts.waiting,
            total_connections=self._total_connections,
            total_requests=self._total_requests,
            total_retried=self._total_retried,
        )

    async def aclose(self) -> None:
        """Close all connections, without a wait; requests that go on or wait fail."""
        await self._slots.close()
        await trio.lowlevel.checkpoint()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._slots.close()
        if exc_value is None:
            # Not otherwise: in a cancelled scope it would replace the exception.
            await trio.lowlevel.checkpoint()

    async def _perform(self, lease: Lease, request: CheckedRequest) -> Parts:
        retried = False
        reused = lease.connection is not None
        self._total_requests += 1
        while True:
            connection = lease.connection or await self._dial(lease, request.endpoint)
            try:
                parts = await connection.exchange(request, lease.finish)
            except OpenError as exc:
                loss = connection.loss
                if retried or not may_retry(exc, loss, request, reused=reused):
                    raise
            else:
                if connection.body_ended:
                    await lease.finish()
                return parts
            lease.connection = None
            retried = True
            self._total_retried += 1

    async def _dial(self, lease: Lease, endpoint: Endpoint) -> ClientConnection:
        settings = lease.origin.settings
        route = make_route(endpoint, settings)
        self._slots.check_open()
        deadline = trio.current_time() + self._connect_timeout
        with trio.CancelScope(deadline=deadline) as lease.dialling:
            stream = await route.open(settings.limits)
            lease.connection = ClientConnection(stream, endpoint, settings.limits)
            self._total_connections += 1
        # The scope is also cancelled if the pool has been closed meanwhile.
        self._slots.check_open()
        if lease.connection is None:
            raise trio.TooSlowError("no connection was opened in time")
        return lease.connection

    def __repr__(self) -> str:
        counts = self.statistics()
        closed = " closed" if self._slots.closed else ""
        return (
            f"<ConnectionPool{closed} in_use={counts.in_use} idle={counts.idle} "
            f"waiting={counts.waiting}>"
        )
