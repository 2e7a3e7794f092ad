# One handler for three carriers, on a server.
from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias, cast

import trio

from .. import Request, Response, Tunnel, Upgrade
from .extra import load_websocket
from .names import name_subprotocol, public

if TYPE_CHECKING:
    import re

    from .. import UpgradedStream

CarrierHandler: TypeAlias = Callable[
    [Request, trio.abc.HalfCloseableStream], Awaitable[object]
]
"""Called with the request and the stream; its return ends the stream."""

# Browsers always say an origin.
_NO_BROWSER: Final = (None,)


@public
def accept_carrier(
    request: Request,
    protocol: str,
    handler: CarrierHandler,
    *,
    origins: Sequence[str | re.Pattern[str] | None] | None = _NO_BROWSER,
) -> Upgrade | Tunnel | Response:
    """Return the answer that gives a handler a stream, by any of three carriers.

    ::

        async def app(request):
            if request.method == "CONNECT" or request.path == "/ssh":
                return accept_carrier(request, "ssh", carry)
            return Response(404)

    For clients that use :func:`open_carrier`, or speak one of these: ``Upgrade:
    protocol`` (RFC 9110 §7.8), a WebSocket with a subprotocol of ours (RFC 6455), or
    CONNECT (RFC 9110 §9.3.6). If the request is none of them the answer is a 426 that
    names the first two. Without the extra ``trio-upgrade[websocket]`` only the first and
    the last are accepted.

    A CONNECT has no path, and its authority is not dialled: the stream is the handler's,
    whatever host the client names. An app that has other tunnels, too, looks at
    ``request.authority`` first.

    The handler returns: the stream is ended in stages. It raises or is cancelled: a
    reset, unless ``send_eof`` had returned; by WebSocket an error is a Close with 1011.
    While the server drains the handler goes on, until the grace is over; one that wants
    to end earlier waits for :meth:`Server.wait_draining`.

    Args:
        request: The request.
        protocol: ``name`` or ``name/version``, as clients offer it.
        handler: Called as ``await handler(request, stream)``, in the task of the
            connection. The stream is an :class:`UpgradedStream`, by WebSocket another
            ``trio.abc.HalfCloseableStream``; where you serve TLS of Trio
            (:class:`trio.SSLStream`), the first cannot ``send_eof``.
        origins: The values of Origin with which a WebSocket is accepted, as for
            :func:`trio_upgrade.websocket.accept_websocket`; others get a 403. The default
            admits no browser: any page could open a stream to a server that the browser
            can reach (RFC 6455 §10.2). None admits all. Without the extra nothing is
            checked.

    Returns:
        What the app returns.

    Raises:
        TypeError: The protocol is no str, the handler cannot be called, or the origins
            have another type.
        ValueError: The protocol is malformed, or is WebSocket, or an origin is malformed.
    """
    name_subprotocol(protocol)

    async def run(request: Request, stream: UpgradedStream, head: bytes) -> None:
        del head  # It is only a snapshot.
        await handler(request, cast("trio.abc.HalfCloseableStream", stream))

    if not callable(handler):
        raise TypeError(
            "the handler cannot be called: it must be an async function, await "
            f"handler(request, stream), not {type(handler).__name__}"
        )
    if origins is not _NO_BROWSER:
        checker = load_websocket()
        if checker is not None:
            checker.check_origins(origins)
    switch = Upgrade(protocol, run)
    if request.method == "CONNECT":
        return Tunnel(run)
    if protocol in request.upgrades:
        return switch
    websocket = load_websocket()
    if websocket is not None and "websocket" in request.upgrades:
        return websocket.accept(request, protocol, handler, origins)
    offered = protocol if websocket is None else f"{protocol}, websocket"
    text = f"this is for {protocol}, by Upgrade, WebSocket or CONNECT\n"
    return Response(426, text, {"Upgrade": offered})
