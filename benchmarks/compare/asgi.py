"""The figures of ASGI: one application on our server and on others."""

from __future__ import annotations

from functools import partial

from . import load
from .figures import Figure, Peer, by_load, python_peer, start_server
from .load import WEBSOCKET
from .report import OURS

UVICORN = "uvicorn"
SERVERS = [
    Peer(
        OURS,
        python_peer("asgi_echo.py", "{port}", "trio_upgrade"),
        "module:websockets",
        WEBSOCKET,
    ),
    Peer(
        UVICORN,
        python_peer("asgi_echo.py", "{port}", "uvicorn", "wsproto"),
        "module:uvicorn module:wsproto",
        WEBSOCKET,
    ),
    Peer(
        "hypercorn",
        python_peer("asgi_echo.py", "{port}", "hypercorn"),
        "module:hypercorn",
        WEBSOCKET,
    ),
]


def asgi_figures() -> list[Figure]:
    """Return the figures of ASGI."""
    return [
        Figure(
            "ASGI: GET requests/s",
            SERVERS,
            partial(by_load, load.requests),
            start_server,
            warm=True,
            base=UVICORN,
            note="16 keep-alive connections. uvicorn with h11 on asyncio, hypercorn with "
            "h11 on Trio.",
        ),
        Figure(
            "ASGI: WebSocket messages/s",
            SERVERS,
            partial(by_load, load.messages),
            start_server,
            warm=True,
            base=UVICORN,
            note="64 bytes, echoed one at a time on each of 32 connections. Ours with "
            "websockets, the others with wsproto.",
        ),
    ]
