# Transports: TCP or a Unix socket, proxy after proxy, TLS on top of each where its URL
# says so.  One stream is there at a time, made of the one before; whatever goes wrong,
# it is closed.
from __future__ import annotations

import errno
import os
import socket
import ssl
import sys
from typing import TYPE_CHECKING, TypeAlias, final

import trio

from .._errors import OpenError, PeerGone, TLSFailed
from .._http.targets import Authority
from .._streams.closing import close_forcefully
from .._streams.socket_stream import DirectSocketStream, adopt_stream, set_options
from .proxies import Proxy, open_tunnel_through

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._limits import Limits
    from .urls import Endpoint

Via: TypeAlias = "str | Proxy | Sequence[str | Proxy] | None"

_HTTP_1_1 = "http/1.1"
# What connect() says of what takes longer.
_UNDER_WAY = errno.EWOULDBLOCK if sys.platform == "win32" else errno.EINPROGRESS


@final
class Route:
    """The way to an endpoint, checked before anything is opened.

    Args:
        endpoint: Where to.
        ssl_context: For TLS with the endpoint; None makes one.
        https_compatible: Whether a TLS peer may end without a close_notify.
        via: The proxies on the way, the nearest first.
        local_address: The address to connect from; None leaves it to the system.

    Raises:
        ValueError: There is no such way.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        ssl_context: ssl.SSLContext | None,
        https_compatible: bool,
        via: Via,
        local_address: str | None,
    ) -> None:
        self._proxies = _list_proxies(via)
        self._endpoints = [*(proxy.endpoint for proxy in self._proxies), endpoint]
        self._https_compatible = https_compatible
        self._local_address = local_address
        first, *others = self._endpoints
        if any(other.path is not None for other in others):
            raise ValueError("no proxy leads to a Unix socket")
        if first.path is not None and local_address is not None:
            raise ValueError("a Unix socket is connected to without local_address")
        given = [*(proxy.ssl_context for proxy in self._proxies), ssl_context]
        self._contexts = [
            (context or _make_context()) if stop.secure else None
            for context, stop in zip(given, self._endpoints, strict=True)
        ]

    async def open(self, limits: Limits) -> trio.abc.Stream:
        """Dial, and return the stream that HTTP is to be spoken on.

        Whatever is raised, cancellation included, leaves nothing open.

        Raises:
            OSError: The first stop cannot be reached.
            OpenError: A later one.
        """
        stream = await self._connect()
        try:
            stream = await self._secure(stream, 0)
            for index, proxy in enumerate(self._proxies):
                target = self._endpoints[index + 1]
                try:
                    stream = await open_tunnel_through(proxy, stream, target, limits)
                    stream = await self._secure(stream, index + 1)
                except OpenError as exc:
                    exc.add_note(f"on the way through {proxy!r}")
                    raise
        except BaseException:
            await close_forcefully(stream)
            raise
        return stream

    async def _connect(self) -> trio.abc.Stream:
        first = self._endpoints[0]
        if first.path is not None:
            return adopt_stream(await trio.open_unix_socket(first.path))
        family = _find_family(first.host)
        if family is not None and self._local_address is None:
            return await _connect_to(family, first.host, first.port)
        return adopt_stream(
            await trio.open_tcp_stream(
                first.host, first.port, local_address=self._local_address
            )
        )

    async def _secure(self, stream: trio.abc.Stream, index: int) -> trio.abc.Stream:
        context, endpoint = self._contexts[index], self._endpoints[index]
        if context is None:
            return stream
        tls = trio.SSLStream(
            stream,
            context,
            # The dot that makes a name absolute is in no certificate.
            server_hostname=endpoint.host.removesuffix("."),
            https_compatible=self._https_compatible,
        )
        try:
            await tls.do_handshake()
        except trio.BrokenResourceError as exc:
            raise _explain(exc.__cause__, endpoint.authority) from (
                exc.__cause__ or exc
            )
        protocol = tls.selected_alpn_protocol()
        if protocol not in (None, _HTTP_1_1):
            raise TLSFailed(
                f"{endpoint.authority} chose {protocol!r} of what ssl_context offers"
            )
        return tls


def _find_family(host: str) -> socket.AddressFamily | None:
    # None for a name.  URLs have no other IPv6 addresses than those with colons.
    if ":" in host:
        return socket.AF_INET6
    try:
        socket.inet_pton(socket.AF_INET, host)
    except OSError:
        return None
    return socket.AF_INET


async def _connect_to(
    family: socket.AddressFamily, host: str, port: int
) -> DirectSocketStream:
    # A name may have several addresses, which Trio tries in tasks that overtake each
    # other.  One address needs none of that, which is a quarter of a handshake's time.
    await trio.lowlevel.checkpoint_if_cancelled()
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        set_options(sock)
        error = sock.connect_ex((host, port))
        if error == _UNDER_WAY:
            await trio.lowlevel.wait_writable(sock)
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()
        if error:
            where = Authority(host, port)
            raise OSError(error, f"cannot connect to {where}: {os.strerror(error)}")
    except BaseException:
        sock.close()
        raise
    return DirectSocketStream(sock)


def _list_proxies(via: Via) -> list[Proxy]:
    if via is None:
        return []
    given = [via] if isinstance(via, str | Proxy) else via
    return [Proxy(proxy) if isinstance(proxy, str) else proxy for proxy in given]


def _make_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols([_HTTP_1_1])
    return context


def _explain(cause: BaseException | None, authority: str) -> OpenError:
    # SSLEOFError is an SSLError, too.
    if not isinstance(cause, ssl.SSLError) or isinstance(cause, ssl.SSLEOFError):
        return PeerGone(f"{authority} went away within the TLS handshake")
    reason = cause.reason or cause
    if isinstance(cause, ssl.SSLCertVerificationError):
        reason = cause.verify_message
    return TLSFailed(f"no TLS with {authority}: {reason}")
