# trio-upgrade tunnel: standard input and output, or each connection to a local port, on a
# stream that goes through proxies or an upgrade endpoint.
from __future__ import annotations

import logging
import math
import re
import signal
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, final

import trio

from .. import Authority, open_connection, relay, stream_scope
from .dialling import Dialling
from .errors import SUCCESS, CommandFailed, UsageFailed, describe
from .masking import hide, mask_target, mask_userinfo
from .output import announce
from .session import run_session

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import AsyncIterator

LOGGER = logging.getLogger("trio_upgrade.command")
# How many connections to the local port are served at a time; others wait.
_MOST_CONNECTIONS = 1000
_is_host_and_port = re.compile(r"([^\s:/?#@\[\]]+|\[[^\s/?#@\[\]]+\]):[0-9]+").fullmatch


def run(arguments: Namespace) -> int:
    """Run the subcommand, and return its exit status."""
    far = Far.from_arguments(arguments)
    if arguments.listen is None:
        trio.run(tunnel_stdio, far)
    else:
        host, port = arguments.listen
        trio.run(tunnel_port, far, host, port, arguments.grace)
    return SUCCESS


@final
class Far:
    """The other end of a tunnel, and the way to it.

    Args:
        target: ``host:port``, or the URL of an endpoint.
        protocol: The protocol that such an endpoint upgrades to.
        uses_carriers: Whether all three carriers are tried there.
        dialling: The options of dialling.

    Raises:
        UsageFailed: They do not go together.
    """

    def __init__(
        self,
        target: str,
        protocol: str | None,
        dialling: Dialling,
        *,
        uses_carriers: bool = False,
    ) -> None:
        self._is_endpoint = "://" in target
        if self._is_endpoint and protocol is None:
            raise UsageFailed("an endpoint needs --protocol, as in --protocol ssh")
        if not self._is_endpoint and (protocol is not None or uses_carriers):
            raise UsageFailed(
                "--protocol and --carriers are for the URL of an endpoint"
            )
        if not self._is_endpoint and dialling.fields:
            raise UsageFailed("fields are for an endpoint; a proxy gets none")
        self._target = target
        self._url = target if self._is_endpoint else f"http://{target}"
        self._protocol = protocol or ""
        self._uses_carriers = uses_carriers
        self._dialling = dialling

    @classmethod
    def from_arguments(cls, arguments: Namespace) -> Far:
        """Return what the command line says."""
        target: str = arguments.target
        if arguments.to_port is not None:
            target = str(Authority(target.strip("[]"), arguments.to_port))
        if not (_has_port(target) or ("://" in target and arguments.to_port is None)):
            raise UsageFailed(
                "the target is host:port, an IPv6 address in brackets, or host and port"
            )
        return cls(
            target,
            arguments.protocol,
            Dialling.from_arguments(arguments),
            uses_carriers=arguments.carriers,
        )

    async def open(self, stack: AsyncExitStack) -> trio.abc.Stream:
        """Open a stream, which the stack closes.

        Raises:
            UsageFailed: An argument is malformed; nothing was opened.
            CommandFailed: It cannot be opened.
        """
        dialling, url = self._dialling, self._url
        if not self._is_endpoint:
            # As curl does for protocols that it does not know: https_proxy, all_proxy.
            options = dialling.make_options(url)
            options["via"] = dialling.find_proxies(f"https://{self._target}")
            connection = await dialling.attempt(open_connection(url, **options))
            return await stack.enter_async_context(stream_scope(connection.detach()))
        if not self._uses_carriers:
            upgraded = await dialling.open_upgrade(
                url, [self._protocol], method="GET", body=b""
            )
            await stack.enter_async_context(upgraded)
            return upgraded.stream
        from ..carrier import open_carrier

        options = dialling.make_options(url)

        async def enter() -> trio.abc.Stream:
            return await stack.enter_async_context(
                open_carrier(
                    url,
                    self._protocol,
                    attempt_timeout=dialling.seconds,
                    headers=dialling.headers,
                    **options,
                )
            )

        # Each attempt has its own limit, and the tasks of a WebSocket outlive this call.
        return await dialling.translate(enter())

    def __str__(self) -> str:
        return self.hide(mask_target(self._target))

    def hide(self, text: str) -> str:
        """Return a text without the secrets of the command line."""
        return hide(mask_userinfo(text), self._dialling.secrets)


async def tunnel_stdio(far: Far) -> None:
    """Join standard input and output to the other end.

    Raises:
        CommandFailed: It cannot be opened, or broke.
    """
    async with AsyncExitStack() as stack:
        await run_session(await far.open(stack))


async def tunnel_port(far: Far, host: str, port: int, grace: float | None) -> None:
    """Listen on a port, and join each connection to the other end.

    The first SIGTERM or SIGINT ends the listening, a second one the connections.

    Args:
        far: The other end.
        host: The address to listen on.
        port: The port, 0 for any free one.
        grace: Seconds that the connections have after the first signal; None for no
            limit.

    Raises:
        CommandFailed: The port cannot be listened on.
    """
    try:
        listeners = await trio.open_tcp_listeners(port, host=host)
    except OSError as exc:
        raise CommandFailed(
            f"cannot listen on {Authority(host, port)}: {describe(exc)}"
        ) from exc
    slots = trio.CapacityLimiter(_MOST_CONNECTIONS)
    accepting = trio.CancelScope()

    async def carry(local: trio.SocketStream) -> None:
        async with slots:
            await _carry(far, local)

    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_end, signals, accepting, grace, nursery.cancel_scope)
            async with trio.open_nursery() as connections:
                bound = listeners[0].socket.getsockname()[:2]
                announce(f"tcp://{Authority(*bound)}")
                with accepting:
                    await trio.serve_listeners(
                        carry, listeners, handler_nursery=connections
                    )
            nursery.cancel_scope.cancel()


async def _end(
    signals: AsyncIterator[int],
    accepting: trio.CancelScope,
    grace: float | None,
    connections: trio.CancelScope,
) -> None:
    await anext(signals)
    accepting.cancel()
    with trio.move_on_after(math.inf if grace is None else grace):
        await anext(signals)
    connections.cancel()


async def _carry(far: Far, local: trio.SocketStream) -> None:
    # A failure costs this connection only, and is a reset for its client.
    try:
        async with stream_scope(local), AsyncExitStack() as stack:
            stream = await far.open(stack)
            await relay(local, stream, tls_ends=True)
    except CommandFailed as exc:
        LOGGER.warning("no tunnel to %s: %s", far, far.hide(str(exc)))


def _has_port(target: str) -> bool:
    # Anything else would end the authority of a URL, and another host be dialled.
    return _is_host_and_port(target) is not None
