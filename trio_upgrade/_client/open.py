# Dialling: from a URL, or a stream, to a connection that is ready.
from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict, cast, final

import trio

from .._limits import Limits
from .._options import SharedOptions
from .._streams.closing import close_forcefully
from .._util import public
from .connection import ClientConnection
from .request_head import CheckedRequest, Offer, ask_for_tunnel
from .response import Refused, read_refusal
from .route import Route
from .urls import parse_url

if TYPE_CHECKING:
    import ssl
    from collections.abc import Coroutine, Sequence
    from typing import Unpack

    from .._http.headers import HeadersLike
    from .proxies import Proxy
    from .request_head import OnInformational, RequestBody, TrailersLike
    from .route import Via
    from .upgraded import UpgradedConnection
    from .urls import Endpoint


@public
class DialOptions(TypedDict, total=False):
    """The keyword options that all ``open_*`` functions share; each may be left out.

    A function called with any other name raises a TypeError before it opens, takes over
    or closes anything; a ``stream`` given beside it is left alone.

    Attributes:
        ssl_context: The TLS settings for the URL's own host, where the URL asks for TLS.
            None, the default, makes a context that trusts the authorities that this
            system trusts and offers ``http/1.1`` by ALPN; this takes some 10 ms each
            time. A given context is used as it is; if it offers other protocols and the
            peer chooses one, :exc:`TLSFailed` is raised.
        server_hostname: The name for SNI, and for the check of the certificate, of the
            URL's own host: a host name, or an address without brackets. It changes
            neither the address that is dialled nor the Host field. For a Unix socket it
            is usually needed, as its host is ``localhost``. None, the default, takes the
            URL's host. A proxy has its own in :class:`Proxy`.
        https_compatible: Whether a TLS peer may end without a close_notify, as most
            servers do. Then a cut cannot be told from an end: protocols that do not mark
            their own end need False. True by default.
        via: A proxy to dial through, or several, the nearest first: URLs or
            :class:`Proxy` objects. None, the default, dials directly; the environment is
            not read (call :func:`proxy_from_environment` for that).
        local_address: The address to connect from. None, the default, leaves it to the
            system.
        limits: The bounds of every exchange on the connection, those with proxies
            included, and of its end: ``linger``. ``Limits()`` by default.
        stream: A stream to use instead of dialling. HTTP is spoken on it as it is, also
            if the URL says ``https``: give a TLS stream then. It is owned from now on,
            and closed on every outcome but success. It excludes ``ssl_context``,
            ``server_hostname``, ``via`` and ``local_address``. If it is on top of another
            stream, that one should be its ``transport_stream``, as with Trio's wrappers;
            then a reset works. An object that is no Trio stream is left alone. None, the
            default, dials.
    """

    ssl_context: ssl.SSLContext | None
    server_hostname: str | None
    https_compatible: bool
    via: str | Proxy | Sequence[str | Proxy] | None
    local_address: str | None
    limits: Limits
    stream: trio.abc.Stream | None


@final
class _Opening:
    # The options of one call, and the stream that was given or dialled: leaving the
    # `async with` closes the stream, unless `keep` has taken it out.
    __slots__ = (
        "_https_compatible",
        "_local_address",
        "_server_hostname",
        "_ssl_context",
        "_stream",
        "_via",
        "limits",
    )

    def __init__(
        self,
        *,
        ssl_context: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
        https_compatible: bool = True,
        via: Via = None,
        local_address: str | None = None,
        limits: Limits = Limits(),
        stream: trio.abc.Stream | None = None,
    ) -> None:
        # These defaults are the only ones of DialOptions.
        if stream is not None and not isinstance(
            cast("object", stream), trio.abc.Stream
        ):
            # Raised here, because a stream of another type could not be closed.
            raise _refuse_type("stream", "a trio.abc.Stream", stream)
        self._ssl_context = ssl_context
        self._server_hostname = server_hostname
        self._https_compatible = https_compatible
        self._via = via
        self._local_address = local_address
        self._stream = stream
        self.limits = limits

    async def __aenter__(self) -> _Opening:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        if self._stream is not None:
            await close_forcefully(self._stream)

    async def connect(self, endpoint: Endpoint) -> ClientConnection:
        """Return a connection to the endpoint on the given stream, or a dialled one."""
        if not isinstance(cast("object", self.limits), Limits):
            raise _refuse_type("limits", "a Limits", self.limits)
        if self._stream is None:
            route = Route(
                endpoint,
                ssl_context=self._ssl_context,
                server_hostname=self._server_hostname,
                https_compatible=self._https_compatible,
                via=self._via,
                local_address=self._local_address,
            )
            self._stream = await route.open(self.limits)
        elif any(
            given is not None
            for given in (
                self._ssl_context,
                self._server_hostname,
                self._via,
                self._local_address,
            )
        ):
            # Never speak in clear text, or past the proxy, by mistake.
            raise TypeError(
                "stream= is spoken on as it is: nothing is dialled, nor wrapped"
            )
        return ClientConnection(self._stream, endpoint, self.limits)

    async def complete(
        self, switch: Coroutine[object, object, UpgradedConnection]
    ) -> UpgradedConnection:
        """Await the switch and keep the stream; after a refusal, read its body."""
        try:
            upgraded = await switch
        except Refused as exc:
            await read_refusal(exc, self.limits)
            raise
        self.keep()
        return upgraded

    def keep(self) -> None:
        """Do not close the stream: from now on the caller owns it."""
        self._stream = None


def _refuse_type(option: str, wanted: str, given: object) -> TypeError:
    return TypeError(f"{option} must be {wanted}, not {type(given).__name__}")


DIAL_OPTIONS = SharedOptions(DialOptions, _Opening.__init__)


@public
@DIAL_OPTIONS.declare
async def open_upgrade(
    url: str,
    *protocols: str,
    method: str = "GET",
    headers: HeadersLike = (),
    body: RequestBody = b"",
    trailers: TrailersLike = (),
    on_informational: OnInformational | None = None,
    tolerate_missing_connection: bool = False,
    **options: Unpack[DialOptions],
) -> UpgradedConnection:
    """Dial a server and switch the connection to one of these protocols.

    Put a timeout round the ``await`` alone, so that it does not bound the session::

        with trio.fail_after(10):
            upgraded = await open_upgrade(url, "echo")
        async with upgraded as (response, stream, head):
            ...

    If anything is raised, cancellation included, nothing is left open.

    Args:
        url: ``http``, ``https``, ``ws`` or ``wss``, host, port and target; or, with
            ``+unix`` added to the scheme, a Unix socket, whose path stands in the place
            of the host with its slashes as %2F:
            ``http+unix://%2Frun%2Fdocker.sock/path``. A host that is not ASCII is
            encoded by IDNA 2008. An IPv6 address may have a zone, the name or index of
            an interface: ``http://[fe80::1%25eth0]/`` (RFC 6874, which RFC 9844 has
            made obsolete) or, as users write it, ``%eth0``; ``%25`` is always an escaped
            percent sign. The zone is for connecting only: no peer gets it. Credentials
            in the URL become an Authorization field (Basic), and are never shown.
        protocols: The protocols offered, ``name`` or ``name/version``, most wanted
            first.
        method: The method of the request that carries the offer.
        headers: Further fields. A Host field replaces the URL's; options of a
            Connection field are added to ours. An Authorization field replaces the
            URL's credentials.
        body: The request's body, sent before the switch (RFC 9110 §7.8). With an
            ``Expect: 100-continue`` it waits ``Limits.continue_timeout`` for the 100.
            Bytes, or an async iterable of them; see :meth:`ClientConnection.request`.
        trailers: Fields to send after that body; see :meth:`ClientConnection.request`.
        on_informational: An async function that gets the head of each informational
            response as it comes; see :meth:`ClientConnection.request`. Proxies of
            ``via`` are not included.
        tolerate_missing_connection: Whether the 101 may lack its Connection field, as
            that of some servers does (Proxmox; caddy#6134). A 101 that has the field
            but does not name Upgrade in it stays illegal.
        options: Those of :class:`DialOptions`.

    Returns:
        The connection, which unpacks as ``(response, stream, head)``.

    Raises:
        TypeError: No protocol is given, an argument has another type, there is no such
            option, or ``stream`` is given with an option that is for dialling. Nothing
            was opened.
        ValueError: The URL, a protocol, the method or a field is malformed, a field is
            given that the library writes, or these do not go together. Nothing was
            opened.
        OSError: The server, or the first proxy, cannot be reached.
        TunnelRefused: A proxy answered with something other than a 2xx.
        SocksRefused: A SOCKS proxy opened no tunnel.
        TLSFailed: TLS could not be agreed on.
        UpgradeRefused: The server answered with an ordinary response. Its body is waited
            for, but at most half of the time that the scopes around the call leave.
        IllegalSwitch: Its 101 is not a legal answer to this offer.
        BadResponse: Its answer is not HTTP, or over a limit.
        PeerGone: It went away before its answer was complete.
    """
    DIAL_OPTIONS.check(open_upgrade, options)
    async with _Opening(**options) as opening:
        offer = Offer(
            protocols, headers, tolerate_missing_connection=tolerate_missing_connection
        )
        endpoint = parse_url(url)
        request = CheckedRequest(
            method,
            endpoint.target,
            offer.fields,
            body,
            endpoint,
            offer,
            trailers=trailers,
            on_informational=on_informational,
        )
        connection = await opening.connect(endpoint)
        return await opening.complete(connection.switch(request))


@public
@DIAL_OPTIONS.declare
async def open_tunnel(
    proxy_url: str,
    authority: str,
    *,
    headers: HeadersLike = (),
    on_informational: OnInformational | None = None,
    **options: Unpack[DialOptions],
) -> UpgradedConnection:
    """Dial an HTTP proxy and let it open a tunnel to a host (RFC 9110 §9.3.6).

    ::

        async with await open_tunnel("http://proxy:3128", "example.com:22") as (
            response,
            stream,
            head,
        ):
            ...

    Any 2xx opens it; its framing fields are ignored. If anything is raised,
    cancellation included, nothing is left open.

    Args:
        proxy_url: ``http://`` or ``https://``, host and port of the proxy. Credentials
            in it become a Proxy-Authorization field (Basic), and are never shown.
        authority: ``host:port`` of the tunnel's other end, an IPv6 address in brackets.
            The port is always written (RFC 9112 §3.2.3).
        headers: Further fields. A Proxy-Authorization field replaces the URL's
            credentials.
        on_informational: An async function that gets the head of each informational
            response as it comes; see :meth:`ClientConnection.request`.
        options: Those of :class:`DialOptions`. They are for the connection to this proxy:
            ``via`` has the proxies before it, ``stream`` one that ends at it.

    Returns:
        The tunnel, which unpacks as ``(response, stream, head)``.

    Raises:
        ValueError: The URL or the authority is malformed, or a field is malformed or
            not allowed in a CONNECT. Nothing was opened.
        TypeError: An argument has another type, there is no such option, or ``stream``
            is given with an option that is for dialling. Nothing was opened.
        OSError: The proxy, or the first one on the way to it, cannot be reached.
        TunnelRefused: It answered with something other than a 2xx.
        SocksRefused: A SOCKS proxy on the way to it opened no tunnel.
        TLSFailed: TLS could not be agreed on.
        BadResponse: Its answer is not HTTP, or over a limit.
        IllegalSwitch: It answered with a 101.
        PeerGone: It went away before its answer was complete.
    """
    DIAL_OPTIONS.check(open_tunnel, options)
    async with _Opening(**options) as opening:
        endpoint = parse_url(proxy_url)
        request = ask_for_tunnel(authority, headers, endpoint, on_informational)
        connection = await opening.connect(endpoint)
        return await opening.complete(connection.tunnel(request))


@public
@DIAL_OPTIONS.declare
async def open_connection(url: str, **options: Unpack[DialOptions]) -> ClientConnection:
    """Dial a server for requests, one after the other.

    ::

        async with await open_connection("http://127.0.0.1:1337") as connection:
            response = await connection.request("GET", "/")
            print(response.status, await response.read())

    If anything is raised, cancellation included, nothing is left open.

    Args:
        url: As for :func:`open_upgrade`; its path is not used. Its credentials are
            sent with every request.
        options: Those of :class:`DialOptions`.

    Raises:
        TypeError: An argument has another type, there is no such option, or ``stream``
            is given with an option that is for dialling. Nothing was opened.
        ValueError: The URL or an option is malformed. Nothing was opened.
        OSError: The server, or the first proxy, cannot be reached.
        TunnelRefused: A proxy answered with something other than a 2xx.
        SocksRefused: A SOCKS proxy opened no tunnel.
        TLSFailed: TLS could not be agreed on.
        OpenError: Something else failed on the way through a proxy.
    """
    DIAL_OPTIONS.check(open_connection, options)
    async with _Opening(**options) as opening:
        connection = await opening.connect(parse_url(url))
        opening.keep()
        return connection
