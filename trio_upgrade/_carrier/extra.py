# Whether the carrier that needs another package is there.
from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .websocket import WebSocketCarrier


def load_websocket() -> type[WebSocketCarrier] | None:
    """Return the carrier by WebSocket, None without the extra that it needs."""
    try:
        from .websocket import WebSocketCarrier
    except ImportError as exc:
        if (exc.name or "").partition(".")[0] != "websockets":
            raise
        return None
    return WebSocketCarrier
