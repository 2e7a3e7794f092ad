# The types of the ASGI interface (https://asgi.readthedocs.io/en/latest/specs/main.html).
from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
# Each framework has types of its own for the three arguments; Any agrees with all.
ASGIApp: TypeAlias = Callable[[Any, Any, Any], Awaitable[object]]
"""An ASGI 3 application: ``await app(scope, receive, send)``."""
