# Proxies: their URLs, and how each is asked for a tunnel.  Connecting to a proxy is the
# duty of the module `route`.
from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, cast, final

from .._errors import OpenError, SocksRefused
from .._http.headers import encode_fields
from .._http.switching import connect_fields
from .._streams.upgraded import UpgradedStream
from .._util import Frozen, public
from .connection import ClientConnection
from .response import Refused, read_refusal
from .urls import (
    Endpoint,
    check_url_type,
    find_server_name,
    parse_socks_url,
    parse_url,
)
from .wording import SOCKS, escape, name_exchange, name_failure

if TYPE_CHECKING:
    import trio

    from .._http.headers import HeadersLike
    from .._limits import Limits

_SOCKS_SCHEMES = frozenset({"socks5", "socks5h"})


def check_context(context: ssl.SSLContext | None) -> None:
    """Check that TLS settings are those of a client.

    Raises:
        TypeError: They are not an ``ssl.SSLContext``.
        ValueError: They are for a server.
    """
    if context is None:
        return
    if not isinstance(cast("object", context), ssl.SSLContext):
        kind = type(context).__name__
        raise TypeError(f"ssl_context must be an ssl.SSLContext, not {kind}")
    if context.protocol is ssl.PROTOCOL_TLS_SERVER:
        raise ValueError(
            "ssl_context must be for a client, as from ssl.create_default_context(), "
            "not PROTOCOL_TLS_SERVER"
        )


@public
@final
class Proxy(Frozen):
    """A proxy to dial through, with settings that a URL alone cannot have.

    Its repr shows neither credentials nor fields.

    Args:
        url: ``http://`` or ``https://`` for a proxy that is asked by CONNECT (RFC 9110
            §9.3.6), ``socks5h://`` for SOCKS5 (RFC 1928), ``socks5://`` for SOCKS5 with
            the target's name looked up here and not by the proxy. Credentials in the
            URL are sent to this proxy alone, as Basic (RFC 7617) or by RFC 1929. Ports
            are 80, 443 and 1080 unless given. SOCKS needs the extra ``socks``.
        headers: Further fields for the CONNECT. A Proxy-Authorization field replaces
            the URL's credentials.
        ssl_context: The TLS settings for ``https://``; None makes a context that trusts
            the authorities that this system trusts.
        server_hostname: The name for SNI, and for the check of the proxy's certificate:
            a host name, or an address without brackets. None takes the URL's host.

    Raises:
        TypeError: An argument has another type.
        ValueError: The URL, a field or ``server_hostname`` is malformed, or cannot be
            sent; ``server_hostname`` is given, but the URL asks for no TLS; or
            ``ssl_context`` is for a server.
        ModuleNotFoundError: The extra for SOCKS is not installed.
    """

    url: str
    headers: HeadersLike
    ssl_context: ssl.SSLContext | None
    server_hostname: str | None
    endpoint: Endpoint
    socks: str | None
    """The scheme of a SOCKS proxy, None for an HTTP proxy."""

    def __init__(
        self,
        url: str,
        headers: HeadersLike = (),
        *,
        ssl_context: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
    ) -> None:
        check_url_type(url)
        check_context(ssl_context)
        scheme: str | None = url.partition(":")[0].lower()
        if scheme in _SOCKS_SCHEMES:
            # Imported late: few programs use SOCKS.
            from .socks import check_available, check_credentials

            endpoint = parse_socks_url(url)
            check_credentials(endpoint.credentials)
            check_available()
            fields = [*encode_fields(headers)]
            if fields:
                raise ValueError("SOCKS has no fields")
        else:
            scheme = None
            endpoint = parse_url(url)
            # Kept as pairs: an iterator is empty after the check, and a dict may change.
            _, *fields = connect_fields("host:1", headers)
        find_server_name(endpoint, server_hostname)
        vars(self).update(
            url=url,
            headers=tuple(fields),
            ssl_context=ssl_context,
            server_hostname=server_hostname,
            endpoint=endpoint,
            socks=scheme,
        )

    def __repr__(self) -> str:
        endpoint = self.endpoint
        scheme = self.socks or ("https" if endpoint.secure else "http")
        if endpoint.path is not None:
            return f"<Proxy {scheme} at {escape(endpoint.path)}>"
        return f"<Proxy {scheme}://{endpoint.authority}>"


async def open_tunnel_through(
    proxy: Proxy, stream: trio.abc.Stream, target: Endpoint, limits: Limits
) -> trio.abc.Stream:
    """Have a proxy open a tunnel; send nothing more before its 2xx (RFC 9931 §8).

    Args:
        proxy: The proxy.
        stream: The connection to the proxy, in TLS if its URL says so.
        target: The host to connect to.
        limits: The bounds of the exchange with the proxy.

    Returns:
        The stream to the target. If this raises, the caller must close the given one.

    Raises:
        OSError: The target's name cannot be looked up here, for a SOCKS proxy.
        TunnelRefused: An HTTP proxy answered with something other than a 2xx.
        SocksRefused: A SOCKS proxy did not connect.
        OpenError: The proxy went away, or its answer breaks its protocol.
    """
    if proxy.socks is not None:
        from .socks import connect_by_socks

        look_up = proxy.socks == "socks5"
        named = name_exchange(proxy.endpoint, "CONNECT", target.authority)
        try:
            await connect_by_socks(stream, proxy.endpoint, target, look_up=look_up)
        except SocksRefused:
            # It names the proxy and the target.
            raise
        except OpenError as exc:
            name_failure(exc, named, SOCKS)
            raise
        except OSError as exc:
            exc.add_note(f"while looking up {target.host} for {named}")
            raise
        return stream
    connection = ClientConnection(stream, proxy.endpoint, limits)
    try:
        upgraded = await connection.connect(target.authority, headers=proxy.headers)
    except Refused as exc:
        await read_refusal(exc, limits)
        raise
    transport, head = upgraded.stream.detach()
    # Bytes that the target has already sent come first, below its TLS if it speaks TLS.
    return UpgradedStream(transport, head) if head else transport
