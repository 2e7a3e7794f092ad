# Dialling: from a URL, or a stream, to a connection that is ready.
from __future__ import annotations

from typing import TYPE_CHECKING, final

from .._http.targets import parse_connect_authority
from .._limits import Limits
from .._streams.closing import close_forcefully
from .._util import public
from .connection import ClientConnection, read_refusal
from .request_head import Offer
from .response import Refused
from .route import Route
from .urls import parse_url

if TYPE_CHECKING:
    import ssl

    import trio

    from .._http.headers import HeadersLike
    from .request_head import RequestBody
    from .route import Via
    from .upgraded import UpgradedConnection
    from .urls import Endpoint


@public
async def open_upgrade(
    url: str,
    *protocols: str,
    method: str = "GET",
    headers: HeadersLike = (),
    body: RequestBody = b"",
    tolerate_missing_connection: bool = False,
    ssl_context: ssl.SSLContext | None = None,
    https_compatible: bool = True,
    via: Via = None,
    local_address: str | None = None,
    limits: Limits = Limits(),
    stream: trio.abc.Stream | None = None,
) -> UpgradedConnection:
    """Dial a server and switch the connection to one of these protocols.

    Put a timeout round the ``await`` alone, then it does not bound the session::

        with trio.fail_after(10):
            upgraded = await open_upgrade(url, "echo")
        async with upgraded as (response, stream, head):
            ...

    Whatever is raised, cancellation included, leaves nothing open.

    Args:
        url: ``http``, ``https``, ``ws`` or ``wss``, host, port and target; or, with
            ``+unix`` behind the scheme, a Unix socket, whose path stands in the place
            of the host with its slashes as %2F:
            ``http+unix://%2Frun%2Fdocker.sock/path``. A host that is not ASCII is
            encoded by IDNA 2008. Credentials in it become an Authorization field
            (Basic), and are never shown.
        protocols: The protocols offered, ``name`` or ``name/version``, most wanted
            first.
        method: Of the request that carries the offer.
        headers: Further fields. A Host field replaces the URL's; options of a
            Connection field are added to ours. An Authorization field replaces the
            URL's credentials.
        body: The request's body; it is sent before the switch (RFC 9110 §7.8). With an
            ``Expect: 100-continue`` it waits ``Limits.continue_timeout`` for the 100.
            Bytes, or an async iterable of them; see :meth:`ClientConnection.request`.
        tolerate_missing_connection: Whether the 101 may lack its Connection field, as
            those of some servers do (Proxmox; caddy#6134). One that has the field and
            does not name Upgrade stays illegal.
        ssl_context: For TLS, where the URL says so; None makes one that trusts whom
            this system trusts and offers ``http/1.1`` by ALPN. To make one takes some
            10 ms each time. One that is given is used as it is; if it offers other
            protocols and the server takes one, :exc:`TLSFailed` is raised.
        https_compatible: Whether a TLS peer may end without a close_notify, as most
            servers do. Then nobody can tell a cut from an end: protocols that do not
            say their own end need False.
        via: A proxy to dial through, or several, the nearest first: their URLs, or
            :class:`Proxy` objects. None dials directly; the environment is not asked
            (that does :func:`proxy_from_environment`).
        local_address: The address to connect from; None leaves it to the system.
        limits: The bounds of the exchange, and ``linger`` for the end.
        stream: A stream to use instead of dialling. It is spoken on as it is, also for
            ``https``, so a TLS stream belongs here. It is owned from now on, and closed
            on every outcome but success.

    Returns:
        The connection, which unpacks as ``(response, stream, head)``.

    Raises:
        TypeError: No protocol is given, or ``stream`` beside what is for dialling.
        ValueError: The URL, a protocol or a field is malformed, or a field is given
            that the library writes. Nothing was opened.
        OSError: The server, or the first proxy, cannot be reached.
        TunnelRefused: A proxy answered with something other than a 2xx.
        SocksRefused: A SOCKS proxy opened no tunnel.
        TLSFailed: TLS could not be agreed on.
        UpgradeRefused: The server answered with an ordinary response.
        IllegalSwitch: Its 101 is not a legal answer to this offer.
        BadResponse: Its answer is not HTTP, or over a limit.
        PeerGone: It went away before its answer was complete.
    """
    async with _Opening(stream) as opening:
        offer = Offer(
            protocols, headers, tolerate_missing_connection=tolerate_missing_connection
        )
        endpoint = parse_url(url)
        connection = await _connect(
            opening,
            endpoint,
            limits,
            ssl_context=ssl_context,
            https_compatible=https_compatible,
            via=via,
            local_address=local_address,
        )
        try:
            upgraded = await connection.switch(endpoint.target, offer, method, body)
        except Refused as exc:
            await read_refusal(exc, limits)
            raise
        opening.stream = None
        return upgraded


@public
async def open_tunnel(
    proxy_url: str,
    authority: str,
    *,
    headers: HeadersLike = (),
    ssl_context: ssl.SSLContext | None = None,
    https_compatible: bool = True,
    via: Via = None,
    local_address: str | None = None,
    limits: Limits = Limits(),
    stream: trio.abc.Stream | None = None,
) -> UpgradedConnection:
    """Dial an HTTP proxy and let it open a tunnel to a host (RFC 9110 §9.3.6).

    ::

        async with await open_tunnel("http://proxy:3128", "example.com:22") as (
            response,
            stream,
            head,
        ):
            ...

    Any 2xx opens it; its framing fields are ignored. Whatever is raised, cancellation
    included, leaves nothing open.

    Args:
        proxy_url: ``http://`` or ``https://``, host and port of the proxy. Credentials
            in it become a Proxy-Authorization field (Basic), and are never shown.
        authority: ``host:port`` of the tunnel's other end, an IPv6 address in brackets.
            The port is always written (RFC 9112 §3.2.3).
        headers: Further fields. A Proxy-Authorization field replaces the URL's
            credentials.
        ssl_context: For TLS with the proxy; see :func:`open_upgrade`.
        https_compatible: See :func:`open_upgrade`.
        via: Proxies to reach this one through; see :func:`open_upgrade`.
        local_address: The address to connect from; None leaves it to the system.
        limits: The bounds of the exchange, and ``linger`` for the end.
        stream: A stream to the proxy to use instead of dialling. It is owned from now
            on, and closed on every outcome but success.

    Returns:
        The tunnel, which unpacks as ``(response, stream, head)``.

    Raises:
        ValueError: The URL or the authority is malformed, or a field is malformed or
            one that a CONNECT has not.
        TypeError: ``stream`` is given beside what is for dialling.
        OSError: The proxy, or the first one on the way to it, cannot be reached.
        TunnelRefused: It answered with something other than a 2xx.
        SocksRefused: A SOCKS proxy on the way to it opened no tunnel.
        TLSFailed: TLS could not be agreed on.
        BadResponse: Its answer is not HTTP, or over a limit.
        IllegalSwitch: It answered with a 101.
        PeerGone: It went away before its answer was complete.
    """
    async with _Opening(stream) as opening:
        parse_connect_authority(authority)
        connection = await _connect(
            opening,
            parse_url(proxy_url),
            limits,
            ssl_context=ssl_context,
            https_compatible=https_compatible,
            via=via,
            local_address=local_address,
        )
        try:
            upgraded = await connection.connect(authority, headers=headers)
        except Refused as exc:
            await read_refusal(exc, limits)
            raise
        opening.stream = None
        return upgraded


@public
async def open_connection(
    url: str,
    *,
    ssl_context: ssl.SSLContext | None = None,
    https_compatible: bool = True,
    via: Via = None,
    local_address: str | None = None,
    limits: Limits = Limits(),
    stream: trio.abc.Stream | None = None,
) -> ClientConnection:
    """Dial a server for requests, one after the other.

    ::

        async with await open_connection("http://127.0.0.1:1337") as connection:
            response = await connection.request("GET", "/")
            print(response.status, await response.read())

    Args:
        url: As for :func:`open_upgrade`; its path plays no part. Its credentials are
            sent with every request.
        ssl_context: For TLS; see :func:`open_upgrade`.
        https_compatible: See :func:`open_upgrade`.
        via: Proxies to dial through; see :func:`open_upgrade`.
        local_address: The address to connect from; None leaves it to the system.
        limits: The bounds of every exchange.
        stream: A stream to use instead of dialling. It is owned from now on, and
            closed if this raises.

    Raises:
        TypeError: ``stream`` is given beside what is for dialling.
        ValueError: The URL is malformed. Nothing was opened.
        OSError: The server, or the first proxy, cannot be reached.
        TunnelRefused: A proxy answered with something other than a 2xx.
        SocksRefused: A SOCKS proxy opened no tunnel.
        TLSFailed: TLS could not be agreed on.
        OpenError: Something else failed on the way through a proxy.
    """
    async with _Opening(stream) as opening:
        connection = await _connect(
            opening,
            parse_url(url),
            limits,
            ssl_context=ssl_context,
            https_compatible=https_compatible,
            via=via,
            local_address=local_address,
        )
        opening.stream = None
        return connection


@final
class _Opening:
    # Closes the stream that was given, or dialled here, unless it is taken out again.
    __slots__ = ("stream",)

    def __init__(self, stream: trio.abc.Stream | None) -> None:
        self.stream = stream

    async def __aenter__(self) -> _Opening:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        if self.stream is not None:
            await close_forcefully(self.stream)


async def _connect(
    opening: _Opening,
    endpoint: Endpoint,
    limits: Limits,
    *,
    ssl_context: ssl.SSLContext | None,
    https_compatible: bool,
    via: Via,
    local_address: str | None,
) -> ClientConnection:
    if opening.stream is None:
        route = Route(
            endpoint,
            ssl_context=ssl_context,
            https_compatible=https_compatible,
            via=via,
            local_address=local_address,
        )
        opening.stream = await route.open(limits)
    elif any(given is not None for given in (ssl_context, via, local_address)):
        # Not to speak in clear text, or past the proxy, by mistake.
        raise TypeError(
            "stream= is spoken on as it is: nothing is dialled, nor wrapped"
        )
    return ClientConnection(opening.stream, endpoint, limits)
