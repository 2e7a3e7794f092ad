"""A stream that gets through HTTP, by the first of three carriers that works.

Firewalls, proxies and balancers on the way may let only some of HTTP pass. A client tries
``Upgrade``, then a WebSocket, then CONNECT; a server accepts all three with one handler.
The WebSocket needs the extra ``trio-upgrade[websocket]`` and is left out without it.
"""

from __future__ import annotations

from ._carrier.dialling import open_carrier
from ._carrier.serving import CarrierHandler, accept_carrier

__all__ = ["CarrierHandler", "accept_carrier", "open_carrier"]
