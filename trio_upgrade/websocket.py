"""WebSockets by the ``websockets`` library, on connections of this one (RFC 6455).

It needs the extra ``trio-upgrade[websocket]``. This library does what is HTTP: requests
and refusals, proxies, TLS, Unix sockets, and the ends of connections. The other does what
comes after the switch, and its connections are what programs hold:
:class:`websockets.trio.server.ServerConnection` and
:class:`websockets.trio.client.ClientConnection`.
"""

from __future__ import annotations

try:
    from ._websocket.opening import open_websocket
    from ._websocket.reconnecting import reconnecting_websocket
    from ._websocket.server_options import WebSocketOptions, check_websocket_options
    from ._websocket.serving import WebSocketHandler, accept_websocket
except ModuleNotFoundError as _exc:
    if (_exc.name or "").partition(".")[0] != "websockets":
        raise
    # With the name, by which others tell a missing extra from another error.
    raise ModuleNotFoundError(
        f"trio_upgrade.websocket needs the extra: trio-upgrade[websocket] ({_exc})",
        name=_exc.name,
    ) from _exc

__all__ = [
    "WebSocketHandler",
    "WebSocketOptions",
    "accept_websocket",
    "check_websocket_options",
    "open_websocket",
    "reconnecting_websocket",
]
