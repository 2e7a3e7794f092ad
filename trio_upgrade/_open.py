# Dialling: from a URL, or a stream, to a connection that is ready.
from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import trio

from ._client import ClientConnection, Offer
from ._closing import close_now
from ._errors import BodyError, Refused
from ._limits import Limits
from ._target import Endpoint, parse_connect_authority, parse_url

if TYPE_CHECKING:
    from ._headers import HeadersLike
    from ._upgraded import Upgraded


async def open_upgrade(
    url: str,
    *protocols: str,
    method: str = "GET",
    headers: HeadersLike = (),
    body: bytes = b"",
    tolerate_missing_connection: bool = False,
    limits: Limits = Limits(),
    stream: trio.abc.Stream | None = None,
) -> Upgraded:
    """Dial a server and switch the connection to one of these protocols.

    Put a timeout round the ``await`` alone, then it does not bound the session::

        with trio.fail_after(10):
            upgraded = await open_upgrade(url, "echo")
        async with upgraded as (response, stream, head):
            ...

    Whatever is raised, cancellation included, leaves nothing open.

    Args:
        url: ``http://`` or ``ws://``, host, port and target.
        protocols: The protocols offered, ``name`` or ``name/version``, most wanted
            first.
        method: Of the request that carries the offer.
        headers: Further fields. A Host field replaces the URL's; options of a
            Connection field are added to ours.
        body: The request's body; it is sent before the switch (RFC 9110 §7.8). With an
            ``Expect: 100-continue`` it waits ``Limits.continue_timeout`` for the 100.
        tolerate_missing_connection: Whether the 101 may lack its Connection field, as
            those of some servers do (Proxmox; caddy#6134). One that has the field and
            does not name Upgrade stays illegal.
        limits: The bounds of the exchange, and ``linger`` for the end.
        stream: A stream to use instead of dialling, TLS say. It is owned from now on,
            and closed on every outcome but success.

    Returns:
        The connection, which unpacks as ``(response, stream, head)``.

    Raises:
        TypeError: No protocol is given.
        ValueError: The URL, a protocol or a field is malformed, or a field is given
            that the library writes.
        OSError: The server cannot be reached.
        UpgradeRefused: It answered with an ordinary response.
        IllegalSwitch: Its 101 is not a legal answer to this offer.
        BadResponse: Its answer is not HTTP, or over a limit.
        PeerGone: It went away before its answer was complete.
    """
    async with AsyncExitStack() as opened:
        if stream is not None:
            opened.push_async_callback(close_now, stream)
        offer = Offer(
            protocols, headers, tolerate_missing_connection=tolerate_missing_connection
        )
        endpoint = parse_url(url)
        connection = await _connect(opened, endpoint, limits, stream)
        try:
            upgraded = await connection.switch(endpoint.target, offer, method, body)
        except Refused as exc:
            await _keep_body(exc, limits)
            raise
        opened.pop_all()
        return upgraded


async def open_tunnel(
    proxy_url: str,
    authority: str,
    *,
    headers: HeadersLike = (),
    limits: Limits = Limits(),
    stream: trio.abc.Stream | None = None,
) -> Upgraded:
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
        proxy_url: ``http://``, host and port of the proxy.
        authority: ``host:port`` of the tunnel's other end, an IPv6 address in brackets.
            The port is always written (RFC 9112 §3.2.3).
        headers: Further fields, Proxy-Authorization say.
        limits: The bounds of the exchange, and ``linger`` for the end.
        stream: A stream to the proxy to use instead of dialling. It is owned from now
            on, and closed on every outcome but success.

    Returns:
        The tunnel, which unpacks as ``(response, stream, head)``.

    Raises:
        ValueError: The URL or the authority is malformed, or a field is malformed or
            one that a CONNECT has not.
        OSError: The proxy cannot be reached.
        TunnelRefused: It answered with something other than a 2xx.
        BadResponse: Its answer is not HTTP, or over a limit.
        IllegalSwitch: It answered with a 101.
        PeerGone: It went away before its answer was complete.
    """
    async with AsyncExitStack() as opened:
        if stream is not None:
            opened.push_async_callback(close_now, stream)
        parse_connect_authority(authority)
        connection = await _connect(opened, parse_url(proxy_url), limits, stream)
        try:
            upgraded = await connection.connect(authority, headers=headers)
        except Refused as exc:
            await _keep_body(exc, limits)
            raise
        opened.pop_all()
        return upgraded


async def open_connection(
    url: str, *, limits: Limits = Limits(), stream: trio.abc.Stream | None = None
) -> ClientConnection:
    """Dial a server for requests, one after the other.

    ::

        async with await open_connection("http://127.0.0.1:1337") as connection:
            response = await connection.request("GET", "/")
            print(response.status, await response.read())

    Args:
        url: ``http://`` or ``ws://``, host and port; its path plays no part.
        limits: The bounds of every exchange.
        stream: A stream to use instead of dialling. It is owned from now on, and
            closed if this raises.

    Raises:
        ValueError: The URL is malformed.
        OSError: The server cannot be reached.
    """
    async with AsyncExitStack() as opened:
        if stream is not None:
            opened.push_async_callback(close_now, stream)
        connection = await _connect(opened, parse_url(url), limits, stream)
        opened.pop_all()
        return connection


async def _connect(
    opened: AsyncExitStack,
    endpoint: Endpoint,
    limits: Limits,
    stream: trio.abc.Stream | None,
) -> ClientConnection:
    # What is dialled here is closed with what is given.
    if stream is None:
        stream = await _dial(endpoint)
        opened.push_async_callback(close_now, stream)
    return ClientConnection(stream, endpoint, limits)


async def _dial(endpoint: Endpoint) -> trio.abc.Stream:
    if endpoint.secure:
        # Never in clear text by mistake.
        raise ValueError("no TLS here: open the TLS stream and give it as stream=")
    return await trio.open_tcp_stream(endpoint.host, endpoint.port)


async def _keep_body(refusal: Refused, limits: Limits) -> None:
    try:
        await refusal.response.keep(limits.refusal_body)
    except BodyError:
        # It left in the middle of explaining; the status says enough.
        refusal.response.truncated = True
