# The targets of a forward proxy: which ports and addresses a client may reach, and how
# they are dialled (RFC 9110 §9.3.6).
from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast, final

import trio

from .. import TrioUpgradeError
from .addresses import (
    Address,
    Network,
    is_in,
    is_of_this_machine,
    is_public,
    parse_address,
    reaches,
    unmap,
)

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from .. import Request, Server


class TargetRefused(TrioUpgradeError):
    """The policy of a forward proxy does not let the client reach this target."""


@final
class TargetPolicy:
    """Judges ports and addresses.

    Args:
        ports: The ports for CONNECT.
        http_ports: The ports for requests.
        networks: Networks that are allowed although they are not public.
        refused: Networks that are refused although they are public.

    """

    def __init__(
        self,
        ports: Container[int],
        http_ports: Container[int],
        networks: Iterable[Network],
        refused: Iterable[Network],
    ) -> None:
        self._ports = ports
        self._http_ports = http_ports
        self._networks = tuple(networks)
        self._refused = tuple(refused)

    def check_port(self, port: int, *, tunnel: bool) -> None:
        """Check a port.

        Raises:
            TargetRefused: It is not on the list.
        """
        if port not in (self._ports if tunnel else self._http_ports):
            raise TargetRefused(f"port {port} is not allowed")

    async def find_addresses(
        self, host: str, port: int, request: Request
    ) -> list[Address]:
        """Resolve a host; return its addresses that may be dialled, best first.

        Raises:
            OSError: It cannot be resolved.
            TargetRefused: It has no address that may be dialled.
        """
        found = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_STREAM)
        names = dict.fromkeys(str(entry[4][0]) for entry in found)
        own = find_own(request.server)
        allowed = [
            address
            for address in map(parse_address, names)
            if address is not None and self.allows(address, port, own)
        ]
        if not allowed:
            # Not which of the reasons: that would map the network behind the proxy.
            raise TargetRefused("this target is not allowed")
        return allowed

    def allows(
        self, address: Address, port: int, own: Iterable[tuple[Address, int]]
    ) -> bool:
        """Return whether an address may be dialled.

        Args:
            address: The address.
            port: The port.
            own: The addresses and ports that the proxy itself listens at.
        """
        if reaches(address, self._refused):
            return False
        local = is_of_this_machine(address)
        if local and any(
            port == own_port and _may_be_same(address, bound) for bound, own_port in own
        ):
            # To itself it would go round for ever, whatever is allowed.
            return False
        if is_in(address, self._networks):
            return True
        return is_public(address) and not local


def _may_be_same(address: Address, bound: Address) -> bool:
    if address.is_unspecified or bound.is_unspecified:
        return True
    return {*unmap(address)} == {*unmap(bound)}


def find_own(server: Server) -> list[tuple[Address, int]]:
    """Return the addresses and ports that a server listens at."""
    own: list[tuple[Address, int]] = []
    for listener in server.listeners:
        below: Any = listener
        while hasattr(below, "transport_listener"):
            below = below.transport_listener
        sock = getattr(below, "socket", None)
        name = None if sock is None else sock.getsockname()
        if isinstance(name, tuple):
            address = parse_address(cast("tuple[str, int]", name)[0])
            if address is not None:
                own.append((address, cast("tuple[str, int]", name)[1]))
    return own
