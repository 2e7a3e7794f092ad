# The adapter: an app of ours that calls an ASGI application for each request.
from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, final

from .. import Response, UsageError
from .http import HTTPCall
from .scope import make_http_scope, make_websocket_scope

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    import trio

    from .. import App, Request, TrustedPeers, Tunnel, Upgrade
    from .types import ASGIApp
    from .websocket import WebSocketCall

    MakeWebSocketCall: TypeAlias = Callable[
        [Request, Callable[..., object]], WebSocketCall
    ]

_LOGGER = logging.getLogger("trio_upgrade.asgi")
_WEBSOCKET = "websocket"
_NOT_IMPLEMENTED = 501


@final
class ASGIAdapter:
    """An app that serves an ASGI application; :func:`open_asgi` gives it.

    Pass it to any of the ``serve_*`` functions. It may serve several servers.
    """

    def __init__(
        self,
        app: ASGIApp,
        root_path: str,
        fallback: App | None,
        upgrades: tuple[str, ...],
        trusted: TrustedPeers,
        make_websocket_call: MakeWebSocketCall | None,
        state: dict[str, Any],
        nursery: trio.Nursery,
    ) -> None:
        self._app = app
        self._root_path = root_path
        self._fallback = fallback
        self._upgrades = upgrades
        self._trusted = trusted
        # None if the package for WebSocket is not installed.
        self._make_websocket_call = make_websocket_call
        self._has_logged = False
        self._state = state
        # For tasks that end with a request; cancelled when the block is left.
        self._nursery = nursery

    async def __call__(self, request: Request) -> Response | Upgrade | Tunnel | None:
        """Answer one request.

        Raises:
            UsageError: The ``async with`` of :func:`open_asgi` was left, or the
                application gave no complete answer.
        """
        if self._nursery.cancel_scope.cancel_called:
            raise UsageError("used outside of the async with of open_asgi()")
        if request.upgrades or request.method == "CONNECT":
            handler = self._find_handler(request)
            if handler is not None:
                return await handler(request)
        scope = make_http_scope(request, self._root_path, self._state, self._trusted)
        await HTTPCall(request, self._nursery.start_soon).run(self._app, scope)
        return None

    def _find_handler(self, request: Request) -> App | None:
        # Returns None for an ordinary request: a server may ignore any offer (RFC 9110
        # §7.8), as of h2c, which clients make in every request.
        offers = request.upgrades
        if request.method == "CONNECT":
            return self._fallback or _refuse_connect
        if any(protocol in offers for protocol in self._upgrades):
            return self._fallback
        if _WEBSOCKET in offers:
            return self._serve_websocket
        return None

    async def _serve_websocket(self, request: Request) -> Response | None:
        if self._make_websocket_call is None:
            if not self._has_logged:
                self._has_logged = True
                _LOGGER.warning(
                    "WebSockets are refused; to serve them: "
                    'pip install "trio-upgrade[websocket]"'
                )
            return Response(_NOT_IMPLEMENTED, "no WebSocket here\n")
        call = self._make_websocket_call(request, self._nursery.start_soon)
        if call.refusal is not None:
            return call.refusal
        scope = make_websocket_scope(
            request, self._root_path, self._state, self._trusted
        )
        await call.run(self._app, scope)
        return None

    def __repr__(self) -> str:
        return f"<ASGIAdapter of {self._app!r}>"


async def _refuse_connect(_request: Request) -> Response:
    return Response(_NOT_IMPLEMENTED, "no tunnels here\n")
