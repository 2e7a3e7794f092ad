# What proxy -v shows of tunnels: a line for each one that has ended.
from __future__ import annotations

import logging
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, TypeAlias, final

from .. import forwarded
from .access_log import name_client
from .masking import escape, mask_target

if TYPE_CHECKING:
    from types import TracebackType

    from .. import App, Request, Response, TrustedPeers
    from ..proxy import ForwardProxy, ReverseProxy, TunnelRecord

    Proxy: TypeAlias = ForwardProxy | ReverseProxy

LOGGER = logging.getLogger("trio_upgrade.command")


@final
class TunnelLog:
    """Writes the lines.

    Not into the access log, which programs read as Common Log Format.

    Args:
        trusted: The proxies that may say who the client is.
    """

    def __init__(self, trusted: TrustedPeers) -> None:
        self._trusted = trusted
        self._clients: dict[Request, str] = {}

    async def watch(self, proxy: Proxy, request: Request) -> Response | None:
        """Let a proxy answer a request, whose tunnel ends in here."""
        # Now, since a client that is gone has no address.
        client = name_client(forwarded(request, self._trusted).peer)
        self._clients[request] = client
        try:
            return await proxy(request)
        finally:
            del self._clients[request]

    def write(self, record: TunnelRecord) -> None:
        """Write the line of a tunnel that has ended."""
        LOGGER.info(
            "tunnel from %s, %s %s: %d bytes sent, %d received, %.1f s, ended by the %s "
            "(%s)",
            escape(self._clients[record.request]),
            escape(record.protocol),
            escape(mask_target(record.request.target)),
            record.from_client,
            record.from_upstream,
            record.seconds,
            record.ended_by or "proxy",
            record.cause,
        )


@final
class LoggedProxy(AbstractAsyncContextManager["App", None]):
    """The block of a proxy whose tunnels are logged.

    Args:
        proxy: The proxy.
        log: Where its records go.
    """

    def __init__(self, proxy: Proxy, log: TunnelLog) -> None:
        self._proxy = proxy
        self._log = log

    async def __aenter__(self) -> App:
        await self._proxy.__aenter__()
        return self._answer

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._proxy.__aexit__(exc_type, exc, traceback)

    async def _answer(self, request: Request) -> Response | None:
        return await self._log.watch(self._proxy, request)
