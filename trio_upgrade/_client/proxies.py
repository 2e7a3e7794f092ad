# Proxies: what they are called, how each is asked for a tunnel, and what the environment
# says of them.  How they are reached is the business of the room above.
from __future__ import annotations

from typing import TYPE_CHECKING, final

from .._http.switching import connect_fields
from .._streams.upgraded import UpgradedStream
from .._util import Frozen, public
from .connection import ClientConnection, read_refusal
from .response import Refused
from .urls import Endpoint, parse_socks_url, parse_url

if TYPE_CHECKING:
    import ssl

    import trio

    from .._http.headers import HeadersLike
    from .._limits import Limits

_SOCKS_SCHEMES = frozenset({"socks5", "socks5h"})


@public
@final
class Proxy(Frozen):
    """A proxy to dial through, with what its URL alone cannot say.

    Its repr shows neither credentials nor fields.

    Args:
        url: ``http://`` or ``https://`` for one that is asked by CONNECT (RFC 9110
            §9.3.6), ``socks5h://`` for SOCKS5 (RFC 1928), ``socks5://`` for the same
            with the target's name looked up here and not by the proxy. Credentials in
            it are sent to this proxy alone, as Basic (RFC 7617) or as RFC 1929 has it.
            Ports are 80, 443 and 1080 unless given. SOCKS needs the extra ``socks``.
        headers: Further fields for the CONNECT. A Proxy-Authorization among them
            replaces the URL's credentials.
        ssl_context: For ``https://``; None makes one that trusts whom this system
            trusts.

    Raises:
        ValueError: The URL or a field is malformed, or one that cannot be sent.
        ModuleNotFoundError: The extra for SOCKS is not installed.
    """

    url: str
    headers: HeadersLike
    ssl_context: ssl.SSLContext | None
    endpoint: Endpoint
    socks: str | None
    """The scheme, if it is one of SOCKS."""

    def __init__(
        self,
        url: str,
        headers: HeadersLike = (),
        *,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        scheme: str | None = url.partition(":")[0].lower()
        if scheme in _SOCKS_SCHEMES:
            # Not at the top: few have one.
            from .socks import check_available, check_credentials

            endpoint = parse_socks_url(url)
            check_credentials(endpoint.credentials)
            check_available()
            if headers:
                raise ValueError("SOCKS has no fields")
        else:
            scheme = None
            endpoint = parse_url(url)
            connect_fields("host:1", headers)
        vars(self).update(
            url=url,
            headers=headers,
            ssl_context=ssl_context,
            endpoint=endpoint,
            socks=scheme,
        )

    def __repr__(self) -> str:
        endpoint = self.endpoint
        scheme = self.socks or ("https" if endpoint.secure else "http")
        if endpoint.path is not None:
            return f"<Proxy {scheme} at {endpoint.path}>"
        return f"<Proxy {scheme}://{endpoint.authority}>"


async def open_tunnel_through(
    proxy: Proxy, stream: trio.abc.Stream, target: Endpoint, limits: Limits
) -> trio.abc.Stream:
    """Have a proxy open a tunnel; nothing follows before its 2xx (RFC 9931 §8).

    Args:
        proxy: The proxy.
        stream: Leads to the proxy, in TLS if it wants that.
        target: Where the tunnel is to lead.
        limits: The bounds of what is said with the proxy.

    Returns:
        The stream that leads to the target. If this raises, the one given is to be
        closed.

    Raises:
        OpenError: There is no tunnel.
    """
    if proxy.socks is not None:
        from .socks import connect_by_socks

        look_up = proxy.socks == "socks5"
        await connect_by_socks(stream, proxy.endpoint, target, look_up=look_up)
        return stream
    connection = ClientConnection(stream, proxy.endpoint, limits)
    try:
        upgraded = await connection.connect(target.authority, headers=proxy.headers)
    except Refused as exc:
        await read_refusal(exc, limits)
        raise
    transport, head = upgraded.stream.detach()
    # What the target said already comes first, below its TLS if it speaks that.
    return UpgradedStream(transport, head) if head else transport


@public
def proxy_from_environment(url: str) -> Proxy | None:
    """Read which proxy the environment has for a URL, for ``via=``.

    ``http_proxy``, ``https_proxy`` and ``all_proxy`` are read as curl and Python's
    urllib do, also in upper case, and ``no_proxy``, whose entries are names, with their
    subdomains, and ``*``. Nothing else here ever looks at them.

    Args:
        url: What is to be dialled.

    Returns:
        The proxy; None if there is none for it.

    Raises:
        ValueError: One of the two URLs is malformed.
        ModuleNotFoundError: It is a SOCKS proxy, and the extra is not installed.
    """
    # Heavy, and most programs never come here.
    from urllib.request import getproxies_environment, proxy_bypass

    endpoint = parse_url(url)
    proxies: dict[str, str] = getproxies_environment()
    found = proxies.get("https" if endpoint.secure else "http") or proxies.get("all")
    if found is None or endpoint.path is not None:
        return None
    if any(proxy_bypass(name) for name in (endpoint.authority, endpoint.host)):
        return None
    # "host:port" is as common there.
    return Proxy(found if "://" in found else f"http://{found}")
