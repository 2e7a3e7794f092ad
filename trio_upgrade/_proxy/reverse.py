# The reverse proxy: an app that answers with what an upstream server says.
from __future__ import annotations

import re
import secrets
from inspect import isawaitable
from typing import TYPE_CHECKING, Final, Self, TypeAlias, final

from .. import Response
from .failures import LOOP
from .fields import has_passed
from .forwarder import Forwarder, ModifyResponse, OnError, PoolBounds, Rules
from .forwarding import Forwarding, Style
from .offers import Upgrades, check_upgrades
from .outgoing import OutgoingRequest, answer_last_hop, make_outgoing
from .tunnels import ProxyStatistics, TunnelOptions, TunnelRecord

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from types import TracebackType
    from typing import Unpack

    from .. import DialOptions, PoolStatistics, Request

Choose: TypeAlias = "Callable[[Request], str | Awaitable[str]]"
Rewrite: TypeAlias = "Callable[[Request, OutgoingRequest], OutgoingRequest]"

# RFC 9110 §5.6.2: a pseudonym is a token.
_is_token = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
# Host and port are checked when a connection is opened.
_is_origin = re.compile(
    r"(?:https?|wss?)(?:\+unix)?://[^/?#]+/?", re.IGNORECASE
).fullmatch
_has_userinfo = re.compile(r"[^:/?#]+://[^/?#]*@").match
_CONNECT: Final = "CONNECT"


def check_name(name: str | None) -> str:
    """Return a proxy's name for Via, a random one for None.

    Raises:
        ValueError: It is no token.
    """
    if name is None:
        return f"trio-upgrade-{secrets.token_hex(4)}"
    if not _is_token(name):
        raise ValueError(f"name must be a token, for Via, not {name!r}")
    return name


def check_origin(url: str) -> str:
    """Return the URL of an upstream server.

    Raises:
        ValueError: It has another scheme, or a path, a query or a fragment.
    """
    if not _is_origin(url):
        # Not quoted: it may have a password.
        raise ValueError(
            "an upstream is http://host[:port] alone, or one of the other schemes that "
            "open_connection() knows; rewrite= changes targets"
        )
    return url


@final
class ReverseProxy:
    """An app that forwards each request to an upstream server, and its answer back.

    ::

        async with ReverseProxy("http://127.0.0.1:8000") as proxy:
            await serve_tcp(proxy, 8080)

    It owns a :class:`ConnectionPool`, so it is used in ``async with``; leaving the block
    closes the idle connections. Within it, it is an app for every ``serve_*``, and can be
    called in an app: ``return await proxy(request)``.

    Ordinary requests: target and fields go on octet by octet, in their order, but the
    hop-by-hop ones, those that Connection names (RFC 9110 §7.6.1) and those of
    authentication with a proxy; Host goes first (§7.2). Bodies, trailers and
    informational responses are passed on as they come, in both directions; a 100 is sent
    to the client when the upstream sends it, or has been silent for
    ``Limits.continue_timeout``. An answer that begins before the request's body was
    sent goes on at once, and the rest of the body is not sent. If the upstream fails
    before its answer the client gets a 502, or a 504 if it took too long, without a
    word about the upstream's address. If it breaks off in its answer, the client's
    connection is reset. A client that leaves cancels its request.

    Offers to switch go on if ``upgrades`` allows them; a request without such an offer
    is an ordinary one. ``h2c``, ``TLS`` and ``HTTP2-Settings`` never go on. The upstream
    gets nothing but the request before its 101, which is checked; the client's 101 has
    only known fields of it. Then both sides are relayed until both have ended. A refusal
    is an ordinary answer; its connection is not used again. CONNECT is answered with
    501.

    Args:
        upstream: The URL of a server, as for :func:`open_connection` and without a path;
            or a function, sync or async, that gets the request and returns one.
            Credentials in the URL replace the request's Authorization field.
        rewrite: Called with the request and the :class:`OutgoingRequest`; returns the one
            to send. None sends it as it is.
        modify_response: Called with the request and the :class:`ResponseHead` that the
            client will get; returns the one to send. None sends it as it is.
        on_error: Called with the request, our :class:`Response` to a failure of the
            upstream, and the exception; returns the response to send. None sends ours.
        upgrades: The protocols whose offers go on, names compared without case and
            versions exactly (``"chat"`` is not ``"chat/1"``); or a function that gets the
            request and one protocol and returns a bool.
        switch_fields: Names of more fields of the upstream's 101 that the client gets.
        forwarded: The fields that tell the upstream who the client is:
            ``"x-forwarded"`` (X-Forwarded-For, -Proto, -Host) or ``"forwarded"``
            (RFC 7239). None sets none.
        trusted: Networks, or ``"unix"``, of peers whose forwarding fields are kept and
            added to; from all others they are dropped.
        name: This proxy in Via; a request that has passed it is answered with 508.
            Proxies that run as one, such as workers, should share it. None takes a
            random one.
        connect_timeout: Seconds to connect to the upstream, with TLS; then a 504. None
            disables it.
        response_timeout: Seconds that the upstream may make no progress, neither in
            reading the request nor with its answer; then a 504. The time in which the
            client is waited for does not count. It ends with the header section: for the
            content see ``tunnel_idle_timeout``. None disables it.
        upgrade_timeout: The same for requests whose offer goes on.
        tunnel_idle_timeout: Seconds without a byte after which a tunnel is reset, and an
            answer in whose content the upstream is silent. None disables it.
        half_close_timeout: Seconds without a byte, after one side of a tunnel has ended,
            after which it is reset. None disables it.
        tls_ends: Whether the end of one side goes into the TLS of the other at once; see
            :func:`relay`.
        on_tunnel: Called with a :class:`TunnelRecord` when a tunnel has ended. None
            disables it.
        connections: How many connections the pool may have open, those for upgrades not
            included; further requests wait, within ``response_timeout``.
        per_origin: How many of them to one upstream; None disables the limit.
        idle_timeout: Seconds that one may be idle; None disables the limit. It should be
            less than what the upstream allows.
        options: Those of :class:`DialOptions` but ``stream``, also for upgrades.
            ``https_compatible`` is False unless given, so that a cut is not taken for
            the end of an answer.

    Raises:
        TypeError: An argument has another type.
        ValueError: A URL, a network or a name is malformed, or a protocol can never be
            passed on.
    """

    def __init__(
        self,
        upstream: str | Choose,
        *,
        rewrite: Rewrite | None = None,
        modify_response: ModifyResponse | None = None,
        on_error: OnError | None = None,
        upgrades: Upgrades = ("websocket",),
        switch_fields: Iterable[str] = (),
        forwarded: Style | None = "x-forwarded",
        trusted: Iterable[str] = (),
        name: str | None = None,
        connect_timeout: float | None = 10,
        response_timeout: float | None = 60,
        upgrade_timeout: float | None = 10,
        tunnel_idle_timeout: float | None = 3600,
        half_close_timeout: float | None = 60,
        tls_ends: bool = True,
        on_tunnel: Callable[[TunnelRecord], object] | None = None,
        connections: int = 1000,
        per_origin: int | None = None,
        idle_timeout: float | None = 4.0,
        **options: Unpack[DialOptions],
    ) -> None:
        if not isinstance(upstream, str) and not callable(upstream):
            kind = type(upstream).__name__
            raise TypeError(f"an upstream must be a URL or a function, not {kind}")
        for argument, function in (
            ("rewrite", rewrite),
            ("modify_response", modify_response),
            ("on_error", on_error),
            ("on_tunnel", on_tunnel),
        ):
            if function is not None and not callable(function):
                kind = type(function).__name__
                raise TypeError(f"{argument} must be a function, not {kind}")
        self._choose = check_origin(upstream) if isinstance(upstream, str) else upstream
        self._rewrite = rewrite
        self._forwarding = Forwarding(forwarded, trusted)
        self._name = check_name(name)
        self._forwarder = Forwarder(
            Rules(
                check_upgrades(upgrades),
                frozenset(name.lower().encode("ascii") for name in switch_fields),
                modify_response,
                on_error,
                connect_timeout,
                response_timeout,
                upgrade_timeout,
                # A gateway need not add Via to answers (RFC 9110 §7.6.3).
                None,
                TunnelOptions(
                    tunnel_idle_timeout, half_close_timeout, tls_ends, on_tunnel
                ),
            ),
            PoolBounds(connections, per_origin, idle_timeout),
            options,
        )

    async def __aenter__(self) -> Self:
        await self._forwarder.pool.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._forwarder.pool.__aexit__(exc_type, exc_value, traceback)

    async def __call__(self, request: Request) -> Response | None:
        """Answer a request.

        Args:
            request: The request.

        Returns:
            The answer to send, or None if it was sent or the client is gone.

        Raises:
            BodyError: The client's body is broken, which the server answers.
            trio.BrokenResourceError: The client is gone.
            Exception: What a function of yours raises.
        """
        refusal = self._refuse(request)
        if refusal is not None:
            self._forwarder.counters.refused += 1
            return refusal
        origin = await self._find_origin(request)
        outgoing = make_outgoing(request, self._forwarding, self._name)
        if _has_userinfo(origin):
            outgoing = outgoing._replace(
                headers=outgoing.headers.without("Authorization")
            )
        if self._rewrite is not None:
            outgoing = self._rewrite(request, outgoing)
        return await self._forwarder.forward(request, [origin], outgoing)

    def statistics(self) -> ProxyStatistics:
        """Return the counters as they are now."""
        return self._forwarder.counters.snapshot()

    def pool_statistics(self) -> PoolStatistics:
        """Return the counts of the pool; tunnels and their offers are not in it."""
        return self._forwarder.pool.statistics()

    async def close_idle(self) -> None:
        """Close the connections of the pool that are idle now.

        For a proxy that will get no request for a long time; a drain needs it not.
        """
        await self._forwarder.pool.close_idle(0)

    def _refuse(self, request: Request) -> Response | None:
        if request.method == _CONNECT:
            return Response(501, "this server opens no tunnels\n")
        if has_passed(request.headers, self._name):
            return LOOP.respond()
        return answer_last_hop(request)

    async def _find_origin(self, request: Request) -> str:
        if isinstance(self._choose, str):
            return self._choose
        url = self._choose(request)
        if isawaitable(url):
            url = await url
        return check_origin(url)
