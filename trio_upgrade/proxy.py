"""Proxies that upgrade safely: an app that forwards each request to another server."""

from ._proxy.forward import ForwardProxy as ForwardProxy
from ._proxy.outgoing import OutgoingRequest as OutgoingRequest
from ._proxy.reverse import ReverseProxy as ReverseProxy
from ._proxy.tunnels import (
    ProxyStatistics as ProxyStatistics,
    TunnelRecord as TunnelRecord,
)

__all__ = [
    "ForwardProxy",
    "OutgoingRequest",
    "ProxyStatistics",
    "ReverseProxy",
    "TunnelRecord",
]

for _thing in (
    ForwardProxy,
    OutgoingRequest,
    ProxyStatistics,
    ReverseProxy,
    TunnelRecord,
):
    # Where users find it, in tracebacks and help.
    _thing.__module__ = __name__
del _thing
