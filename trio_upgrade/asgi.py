"""ASGI applications, of Starlette, FastAPI or Litestar for example, under Trio.

They share a port with raw upgrades: see ``fallback`` and ``upgrades`` of
:func:`open_asgi`.
"""

from __future__ import annotations

from ._asgi.adapter import ASGIAdapter
from ._asgi.errors import ClientDisconnected, LifespanFailed
from ._asgi.open import open_asgi
from ._asgi.types import ASGIApp

__all__ = [
    "ASGIAdapter",
    "ASGIApp",
    "ClientDisconnected",
    "LifespanFailed",
    "open_asgi",
]
