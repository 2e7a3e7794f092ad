# The forward proxy: an app that reaches what the client names, if a policy allows it.
from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final, Self, final

import trio

from .. import Response, stream_scope
from .addresses import parse_networks
from .basic import Authenticate, challenge, check_realm, is_allowed
from .dialling import dial
from .failures import CONNECT_TIMEOUT, LOOP, name_failure
from .fields import has_passed
from .forwarder import (
    Failed,
    Forwarder,
    ModifyResponse,
    OnError,
    PoolBounds,
    Rules,
    fail_after,
)
from .offers import Upgrades, check_upgrades
from .outgoing import answer_last_hop, make_outgoing
from .reverse import check_name
from .targets import TargetPolicy, TargetRefused
from .tunnels import ProxyStatistics, TunnelOptions, TunnelRecord, run_tunnel

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable
    from types import TracebackType
    from typing import Unpack

    from .. import DialOptions, PoolStatistics, Request
    from .addresses import Address

_CONNECT: Final = "CONNECT"
_HTTP_PORT: Final = 80
_FORBIDDEN: Final = 403


class _Cut(Exception):
    # Leaves the stream_scope() of an upstream, which resets it.
    pass


@final
class ForwardProxy:
    """An app that opens tunnels (CONNECT) and forwards requests with absolute targets.

    ::

        async with ForwardProxy() as proxy:
            await serve_tcp(proxy, 3128)

    Clients may reach public addresses only, unless ``networks`` allows more: a name is
    resolved, each of its addresses is judged, and a judged one is dialled. Refused is
    what is not global unicast, also inside an IPv6 address (mapped, 6to4, Teredo, NAT64),
    and what is an address of this machine. The proxy's own listener is refused whatever
    is allowed. A target that is refused is answered with 403, one that cannot be reached
    with 502, and one that takes too long with 504, without a word about addresses. After
    any refusal of a CONNECT the connection is closed (RFC 9931 §8).

    What is said about requests, offers and tunnels at :class:`ReverseProxy` holds here as
    well; forwarding fields are left as the client wrote them, and answers get a Via
    field. Targets must be ``http``: for ``https`` clients use CONNECT.

    Args:
        ports: The ports that tunnels may be opened to (RFC 9110 §9.3.6); a ``range`` is
            fine.
        http_ports: The ports that requests may go to.
        networks: Networks that are allowed although they are not public.
        refused: Networks that are refused, whatever else is allowed.
        authenticate: A function, sync or async, that gets user and password of a
            Proxy-Authorization field (Basic) and returns whether they are right; compare
            secrets by :func:`hmac.compare_digest`. Other requests are answered with 407.
            None lets everyone in.
        realm: The realm of that 407.
        modify_response: See :class:`ReverseProxy`.
        on_error: See :class:`ReverseProxy`.
        upgrades: See :class:`ReverseProxy`.
        switch_fields: See :class:`ReverseProxy`.
        name: See :class:`ReverseProxy`.
        connect_timeout: Seconds to resolve the target's name and to connect; then a 504.
            A request tries the next address of the name first, until
            ``response_timeout`` is over. None disables it.
        response_timeout: See :class:`ReverseProxy`.
        upgrade_timeout: See :class:`ReverseProxy`.
        tunnel_idle_timeout: See :class:`ReverseProxy`.
        half_close_timeout: See :class:`ReverseProxy`.
        tls_ends: See :class:`ReverseProxy`.
        on_tunnel: See :class:`ReverseProxy`.
        connections: See :class:`ReverseProxy`.
        per_origin: See :class:`ReverseProxy`.
        idle_timeout: See :class:`ReverseProxy`.
        options: See :class:`ReverseProxy`.

    Raises:
        TypeError: An argument has another type.
        ValueError: A network, the name or the realm is malformed, or a protocol can never
            be passed on.
    """

    def __init__(
        self,
        *,
        ports: Container[int] = (443, 8443),
        http_ports: Container[int] = (80, 8080),
        networks: Iterable[str] = (),
        refused: Iterable[str] = (),
        authenticate: Authenticate | None = None,
        realm: str = "proxy",
        modify_response: ModifyResponse | None = None,
        on_error: OnError | None = None,
        upgrades: Upgrades = ("websocket",),
        switch_fields: Iterable[str] = (),
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
        self._policy = TargetPolicy(
            ports, http_ports, parse_networks(networks), parse_networks(refused)
        )
        self._authenticate = authenticate
        self._realm = check_realm(realm)
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
                self._name,
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
        refusal = await self._refuse(request)
        if refusal is None:
            try:
                if request.method == _CONNECT:
                    await self._tunnel(request)
                    return None
                return await self._forward(request)
            except TargetRefused as exc:
                refusal = Response(_FORBIDDEN, f"{exc}\n")
            except Failed as failed:
                return self._forwarder.answer_failure(request, failed)
        self._forwarder.counters.refused += 1
        return refusal

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

    async def _refuse(self, request: Request) -> Response | None:
        # Credentials first: without them nothing is said about targets.
        if self._authenticate is not None and not await is_allowed(
            request.headers, self._authenticate
        ):
            return challenge(self._realm)
        if has_passed(request.headers, self._name):
            return LOOP.respond()
        if request.method == _CONNECT:
            return None
        if request.target.startswith(("/", "*")):
            return Response(400, "this is a proxy: the target must be absolute\n")
        scheme = request.target.partition(":")[0].lower()
        if scheme not in ("http", "ws"):
            return Response(501, f"no requests to {scheme}: use CONNECT\n")
        return answer_last_hop(request)

    async def _forward(self, request: Request) -> Response | None:
        host, given = request.authority
        port = _HTTP_PORT if given is None else given
        self._policy.check_port(port, tunnel=False)
        addresses: list[Address] = []
        async with request.cancelled_on_disconnect():
            addresses = await self._find(request, host, port)
        if not addresses:
            return None
        # The addresses that were judged, so that no name is resolved again.
        origins = [f"http://{_bracket(address)}:{port}" for address in addresses]
        outgoing = make_outgoing(request, None, self._name)
        return await self._forwarder.forward(request, origins, outgoing)

    async def _tunnel(self, request: Request) -> None:
        host, port = request.authority
        assert port is not None
        self._policy.check_port(port, tunnel=True)
        self._forwarder.counters.requests += 1
        upstream: trio.SocketStream | None = None
        try:
            async with AsyncExitStack() as stack:
                async with request.cancelled_on_disconnect():
                    addresses = await self._find(request, host, port)
                    upstream = await self._dial(addresses, port)
                    await stack.enter_async_context(stream_scope(upstream))
                if upstream is not None:
                    await self._relay(request, upstream)
        except _Cut:
            pass

    async def _relay(self, request: Request, upstream: trio.SocketStream) -> None:
        client, _ = await request.accept_connect()
        rules, counters = self._forwarder.rules, self._forwarder.counters
        if not await run_tunnel(
            request, _CONNECT, client, upstream, rules.tunnels, counters
        ):
            await client.reset()
            raise _Cut

    async def _find(self, request: Request, host: str, port: int) -> list[Address]:
        try:
            with fail_after(self._forwarder.rules.connect_timeout):
                return await self._policy.find_addresses(host, port, request)
        except trio.TooSlowError as exc:
            raise Failed(CONNECT_TIMEOUT, exc) from exc
        except (OSError, UnicodeError) as exc:
            raise Failed(name_failure(exc), exc) from exc

    async def _dial(self, addresses: list[Address], port: int) -> trio.SocketStream:
        try:
            with fail_after(self._forwarder.rules.connect_timeout):
                return await dial(addresses, port)
        except trio.TooSlowError as exc:
            raise Failed(CONNECT_TIMEOUT, exc) from exc
        except OSError as exc:
            raise Failed(name_failure(exc), exc) from exc


def _bracket(address: Address) -> str:
    return f"[{address}]" if ":" in str(address) else str(address)
