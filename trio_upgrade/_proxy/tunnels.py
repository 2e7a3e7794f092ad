# Tunnels: two connections that are relayed after a switch, and what is kept about them.
from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, final

import trio

from .. import Progress, relay

if TYPE_CHECKING:
    from collections.abc import Callable

    from .. import Request, UpgradedStream

Side: TypeAlias = Literal["client", "upstream"]
Cause: TypeAlias = Literal["eof", "reset", "idle", "half_close_timeout", "cancelled"]

_log = logging.getLogger("trio_upgrade.proxy")
_SIDES: dict[str | None, Side | None] = {
    "left": "client",
    "right": "upstream",
    None: None,
}


@final
@dataclass(frozen=True, slots=True)
class TunnelRecord:
    """One tunnel that is over.

    Attributes:
        request: The request that opened it.
        protocol: The protocol of the 101; ``"CONNECT"`` for a CONNECT.
        from_client: Bytes that the client has sent and the upstream has accepted.
        from_upstream: Bytes in the other direction.
        seconds: How long it was open.
        ended_by: Whose end or reset came first, ``"client"`` or ``"upstream"``; None if
            the proxy ended it, for one of the other causes.
        cause: ``"eof"``, ``"reset"``, ``"idle"`` or ``"half_close_timeout"``, as in
            :class:`RelayResult`; ``"cancelled"`` if a drain or the app ended it.
    """

    request: Request
    protocol: str
    from_client: int
    from_upstream: int
    seconds: float
    ended_by: Side | None
    cause: Cause


@final
@dataclass(frozen=True, slots=True)
class ProxyStatistics:
    """The counters of a proxy.

    Attributes:
        requests: Requests that were taken on, those that became tunnels included.
        failures: How many of them got a 502, 504 or another answer of this proxy because
            the upstream failed, or were cut because it broke off.
        refused: Requests that were answered here because a rule forbids them.
        tunnels: Tunnels that are open.
        total_tunnels: Tunnels that were opened so far.
        from_clients: Bytes that ended tunnels have carried from clients.
        from_upstreams: Bytes that ended tunnels have carried to clients.
    """

    requests: int
    failures: int
    refused: int
    tunnels: int
    total_tunnels: int
    from_clients: int
    from_upstreams: int


@final
class Counters:
    """The counters while they count."""

    __slots__ = (
        "failures",
        "from_clients",
        "from_upstreams",
        "refused",
        "requests",
        "total_tunnels",
        "tunnels",
    )

    def __init__(self) -> None:
        self.requests = self.failures = self.refused = 0
        self.tunnels = self.total_tunnels = 0
        self.from_clients = self.from_upstreams = 0

    def snapshot(self) -> ProxyStatistics:
        """Return the counters as they are now."""
        return ProxyStatistics(
            self.requests,
            self.failures,
            self.refused,
            self.tunnels,
            self.total_tunnels,
            self.from_clients,
            self.from_upstreams,
        )


@final
@dataclass(frozen=True, slots=True)
class TunnelOptions:
    """How tunnels are relayed.

    Attributes:
        idle_timeout: Seconds without a byte; None disables it.
        half_close_timeout: Seconds without a byte after one side has ended; None
            disables it.
        tls_ends: Whether an end is passed into TLS at once.
        on_tunnel: Called with the record of each tunnel; None for no one.
    """

    idle_timeout: float | None
    half_close_timeout: float | None
    tls_ends: bool
    on_tunnel: Callable[[TunnelRecord], object] | None


async def run_tunnel(
    request: Request,
    protocol: str,
    client: UpgradedStream,
    upstream: trio.abc.Stream,
    options: TunnelOptions,
    counters: Counters,
) -> bool:
    """Relay until the tunnel is over, and record it.

    The caller closes both streams.

    Returns:
        Whether both sides have ended. If not, both have to be reset: half a transfer
        must not look like a whole one.
    """
    progress = Progress()
    began = trio.current_time()
    ended_by: Side | None = None
    cause: Cause = "cancelled"
    counters.tunnels += 1
    counters.total_tunnels += 1
    try:
        result = await relay(
            client,
            upstream,
            idle_timeout=options.idle_timeout,
            half_close_timeout=options.half_close_timeout,
            tls_ends=options.tls_ends,
            progress=progress,
        )
        ended_by, cause = _SIDES[result.ended_by], result.cause
        if cause == "half_close_timeout":
            ended_by = None
    finally:
        counters.tunnels -= 1
        counters.from_clients += progress.left_to_right
        counters.from_upstreams += progress.right_to_left
        if options.on_tunnel is not None:
            record = TunnelRecord(
                request,
                protocol,
                progress.left_to_right,
                progress.right_to_left,
                trio.current_time() - began,
                ended_by,
                cause,
            )
            _report(options.on_tunnel, record)
    return cause == "eof"


def _report(on_tunnel: Callable[[TunnelRecord], object], record: TunnelRecord) -> None:
    # A bug in it must not hide a cancellation that passes here.
    try:
        on_tunnel(record)
    except Exception:
        _log.exception("on_tunnel has raised")
