# Transports: TCP or a Unix socket, then proxy after proxy, with TLS on top of each if its
# URL says so.  There is one stream at a time, each made from the one before; after any
# error it is closed.
from __future__ import annotations

import errno
import os
import socket
import ssl
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeAlias, cast, final

import trio

from .._errors import OpenError, PeerGone, TLSFailed
from .._http.targets import Authority
from .._streams.closing import close_forcefully
from .._streams.socket_stream import DirectSocketStream, adopt_stream, set_options
from .._streams.tls import TLSStream
from .breaks import raise_break
from .proxies import Proxy, check_context, open_tunnel_through
from .urls import find_server_name
from .wording import name_origin, name_url

if TYPE_CHECKING:
    from .._limits import Limits
    from .urls import Endpoint

Via: TypeAlias = "str | Proxy | Sequence[str | Proxy] | None"

_HTTP_1_1 = "http/1.1"
# RFC 3493 §3.3: a scope is an unsigned number of 32 bits.
_SCOPES = 2**32
# The errno of a connect() that goes on in the background.
_UNDER_WAY = errno.EWOULDBLOCK if sys.platform == "win32" else errno.EINPROGRESS


@final
class Route:
    """The way to an endpoint, checked before anything is opened.

    Args:
        endpoint: The host to connect to.
        ssl_context: The TLS settings for the endpoint; None makes a context.
        https_compatible: Whether a TLS peer may end without a close_notify.
        server_hostname: The name for the endpoint's TLS; None takes the endpoint's host.
        via: The proxies on the way, the nearest first.
        local_address: The address to connect from; None leaves it to the system.

    Raises:
        TypeError: One of these has another type.
        ValueError: These cannot be combined.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        ssl_context: ssl.SSLContext | None,
        https_compatible: bool,
        server_hostname: str | None,
        via: Via,
        local_address: str | None,
    ) -> None:
        self._proxies = _list_proxies(via)
        self._endpoints = [*(proxy.endpoint for proxy in self._proxies), endpoint]
        self._https_compatible = https_compatible
        self._local_address = local_address
        check_context(ssl_context)
        if local_address is not None and not isinstance(
            cast("object", local_address), str
        ):
            kind = type(local_address).__name__
            raise TypeError(f"local_address must be a str, not {kind}")
        for stop in self._endpoints:
            if stop.path is None and stop.port == 0:
                raise ValueError(
                    f"the port in a URL must be from 1 to 65535, not 0: {name_url(stop)}"
                )
        first, *others = self._endpoints
        if any(other.path is not None for other in others):
            raise ValueError("no proxy connects to a Unix socket")
        if first.path is not None and local_address is not None:
            raise ValueError("a Unix socket is connected to without local_address")
        given = [*(proxy.ssl_context for proxy in self._proxies), ssl_context]
        self._contexts = [
            (context or make_context()) if stop.secure else None
            for context, stop in zip(given, self._endpoints, strict=True)
        ]
        names = [*(proxy.server_hostname for proxy in self._proxies), server_hostname]
        # The name of an endpoint without TLS is used nowhere.
        self._names = [
            find_server_name(stop, name) if stop.secure or name is not None else ""
            for stop, name in zip(self._endpoints, names, strict=True)
        ]

    async def open(self, limits: Limits) -> trio.abc.Stream:
        """Dial, and return the stream to speak HTTP on.

        If anything is raised, cancellation included, nothing is left open.

        Raises:
            OSError: The first proxy, or the endpoint, cannot be reached.
            OpenError: A proxy opened no tunnel, or TLS failed.
        """
        try:
            stream = await self._connect()
        except OSError as exc:
            named = self._name(0)
            if self._proxies:
                named += f", on the way to {self._name(len(self._proxies))}"
            exc.add_note(f"while connecting to {named}")
            raise
        try:
            stream = await self._secure(stream, 0)
            for index, proxy in enumerate(self._proxies):
                target = self._endpoints[index + 1]
                try:
                    stream = await open_tunnel_through(proxy, stream, target, limits)
                    stream = await self._secure(stream, index + 1)
                except OpenError as exc:
                    exc.add_note(f"on the way through {proxy!r}")
                    if isinstance(exc, PeerGone):
                        # Only the proxy was asked for something.
                        exc.request_sent = False
                    raise
        except BaseException:
            await close_forcefully(stream)
            raise
        return stream

    def _name(self, index: int) -> str:
        endpoint = self._endpoints[index]
        if index < len(self._proxies):
            return f"proxy {name_origin(endpoint)}"
        return name_url(endpoint)

    async def _connect(self) -> trio.abc.Stream:
        first = self._endpoints[0]
        if first.path is not None:
            return adopt_stream(await trio.open_unix_socket(first.path))
        family = _find_family(first.host)
        scope = 0 if first.zone is None else _find_scope(first, first.zone)
        if family is not None and self._local_address is None:
            return await _connect_to(family, first, scope)
        # The index and not the name: getaddrinfo() takes a name for link-local addresses
        # only.
        host = f"{first.host}%{scope}" if scope else first.host
        return adopt_stream(
            await trio.open_tcp_stream(
                host, first.port, local_address=self._local_address
            )
        )

    async def _secure(self, stream: trio.abc.Stream, index: int) -> trio.abc.Stream:
        context = self._contexts[index]
        if context is None:
            return stream
        tls = TLSStream(
            stream,
            context,
            server_hostname=self._names[index],
            https_compatible=self._https_compatible,
        )
        try:
            await tls.do_handshake()
        except trio.BrokenResourceError as exc:
            # Not only the stream below: the server has still to receive our alert.
            await close_forcefully(tls)
            where = self._name(index)
            raise_break(exc, where, f"{where} went away within the TLS handshake")
        protocol = tls.selected_alpn_protocol()
        if protocol not in (None, _HTTP_1_1):
            raise TLSFailed(
                f"no TLS with {self._name(index)}: it chose {protocol!r} of the "
                "protocols that ssl_context offers"
            )
        return tls


def _find_family(host: str) -> socket.AddressFamily | None:
    # Return None for a name.  In a URL every IPv6 address has a colon.
    if ":" in host:
        return socket.AF_INET6
    try:
        socket.inet_pton(socket.AF_INET, host)
    except OSError:
        return None
    return socket.AF_INET


def _find_scope(endpoint: Endpoint, zone: str) -> int:
    # Return the sin6_scope_id of a zone.  As in getaddrinfo(), the name of an interface
    # comes before an index (RFC 4007 §11.2).
    try:
        return socket.if_nametoindex(zone)
    except OSError:
        # The length first: int() refuses very long numbers by a ValueError.
        if zone.isdigit() and len(zone) <= len(str(_SCOPES)) and int(zone) < _SCOPES:
            return int(zone)
    where = _show_address(endpoint)
    raise OSError(errno.ENODEV, f"cannot connect to {where}: no interface {zone!r}")


def _show_address(endpoint: Endpoint) -> str:
    # The authority, with the zone: it may be the reason of the error.
    zone = "" if endpoint.zone is None else f"%{endpoint.zone}"
    return str(Authority(endpoint.host + zone, endpoint.port))


async def _connect_to(
    family: socket.AddressFamily, endpoint: Endpoint, scope: int
) -> DirectSocketStream:
    # A name may have several addresses, which Trio tries in concurrent tasks.  A single
    # address needs no such tasks, which take a quarter of a handshake's time.
    await trio.lowlevel.checkpoint_if_cancelled()
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        set_options(sock)
        address = (endpoint.host, endpoint.port)
        error = sock.connect_ex((*address, 0, scope) if scope else address)
        if error == _UNDER_WAY:
            await trio.lowlevel.wait_writable(sock)
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()
        if error:
            where = _show_address(endpoint)
            raise OSError(error, f"cannot connect to {where}: {os.strerror(error)}")
    except BaseException:
        sock.close()
        raise
    return DirectSocketStream(sock)


def _list_proxies(via: Via) -> list[Proxy]:
    if via is None:
        return []
    given = [via] if isinstance(via, str | Proxy) else via
    if not isinstance(cast("object", given), Iterable) or isinstance(
        given, bytes | dict
    ):
        kind = type(given).__name__
        raise TypeError(f"via must be a URL, a Proxy or a sequence of them, not {kind}")
    return [proxy if isinstance(proxy, Proxy) else Proxy(proxy) for proxy in given]


def make_context() -> ssl.SSLContext:
    """Return the TLS settings of a client that was given none; takes some 10 ms."""
    context = ssl.create_default_context()
    context.set_alpn_protocols([_HTTP_1_1])
    return context
