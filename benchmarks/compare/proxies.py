"""The figures of reverse proxies: requests and tunnels through them, to one small server.

All proxies keep their connections to the server, so that none of them connects for each
request. The server is ``peers/raw.py``, on the load generator's core.
"""

from __future__ import annotations

from functools import partial

from . import load
from .figures import (
    Figure,
    Peer,
    by_load,
    memory,
    node_peer,
    python_peer,
    relayed,
    start_relay,
)
from .load import TUNNEL
from .programs import PEERS
from .report import NODE, OURS

PROXIES = [
    Peer(OURS, python_peer("reverse_proxy.py"), "", TUNNEL),
    Peer(NODE, node_peer("http_proxy.js"), "node:http-proxy", TUNNEL),
    Peer("Go", ("go", str(PEERS / "reverse_proxy.go"), "{port}"), "program:go", TUNNEL),
    Peer("HAProxy", ("haproxy", "http"), "program:haproxy", TUNNEL),
    Peer("nginx", ("nginx", "http"), "program:nginx", TUNNEL),
]
_NAMES = (
    "Node with http-proxy, Go with httputil.ReverseProxy, HAProxy and nginx with HTTP"
)


def proxy_figures(tunnels: int) -> list[Figure]:
    """Return the figures; ``tunnels`` idle ones are opened to measure their memory."""
    return [
        Figure(
            "proxy: GET requests/s",
            PROXIES,
            partial(by_load, load.requests),
            start_relay,
            warm=True,
            note=f"16 keep-alive connections. {_NAMES}.",
        ),
        Figure(
            "proxy: round trips/s",
            PROXIES,
            partial(by_load, partial(load.round_trips, connections=32, offer=TUNNEL)),
            start_relay,
            warm=True,
            note="64 bytes, one at a time in each of 32 tunnels after an upgrade.",
        ),
        Figure(
            "proxy: echo, MB/s",
            PROXIES,
            partial(by_load, partial(relayed, offer=TUNNEL)),
            start_relay,
            cpu_unit="CPU s/GB",
            cpu_factor=1e3,
            warm=True,
            note="1 tunnel after an upgrade, flooded both ways.",
        ),
        Figure(
            "proxy: KB per tunnel",
            PROXIES,
            partial(memory, tunnels),
            start_relay,
            cpu_unit="",
            less_is_better=True,
            share=0.01,
            note=f"{tunnels:,} idle tunnels after an upgrade.",
        ),
    ]
