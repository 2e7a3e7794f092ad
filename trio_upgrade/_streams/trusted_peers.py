# Which peers may say who the client is: proxies and load balancers in front of a server.
from __future__ import annotations

import socket
from collections.abc import Collection
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import TYPE_CHECKING, TypeAlias, cast, final

from .._util import Frozen, name_kind, public
from .underlying import find_peer, find_proxied, find_underlying_socket

if TYPE_CHECKING:
    import trio

Network: TypeAlias = str | IPv4Network | IPv6Network | IPv4Address | IPv6Address
TrustedLike: TypeAlias = "TrustedPeers | Collection[Network]"

_UNIX = "unix"
_set = object.__setattr__


@public
@final
class TrustedPeers(Frozen):
    """The peers that a server trusts to say who the client is.

    :func:`forwarded` and ``proxy_protocol=`` take one, or what it is made of. One that is
    made once, at the start, is checked there and saves time for each request.

    ``peer in trusted`` says whether an address is in one of the networks; an IPv4 address
    that is mapped into IPv6, as a socket for both shows it, counts as IPv4.

    Args:
        networks: Each is a network such as ``"10.0.0.0/8"``, an address, an object of
            :mod:`ipaddress`, or ``"unix"`` for every client of a Unix socket. To trust
            every peer name ``"0.0.0.0/0"`` and ``"::/0"``.

    Raises:
        TypeError: It is one network and not a collection of them, or an element is
            neither str nor an object of :mod:`ipaddress`.
        ValueError: A str is no network, or its address has bits outside its prefix.
    """

    __slots__ = ("_networks", "_unix")

    _networks: tuple[IPv4Network | IPv6Network, ...]
    _unix: bool

    def __init__(self, networks: Collection[Network]) -> None:
        given = cast("object", networks)
        # No iterator: it is read again when it is checked before it is used.
        if isinstance(given, str | bytes) or not isinstance(given, Collection):
            raise TypeError(
                "trusted peers must be a collection of networks, such as "
                f'["10.0.0.0/8"], not {name_kind(given)}'
            )
        items = [*networks]
        named = [
            item for item in items if not (isinstance(item, str) and item == _UNIX)
        ]
        _set(self, "_networks", tuple([_parse_network(item) for item in named]))
        _set(self, "_unix", len(named) < len(items))

    def __contains__(self, peer: object) -> bool:
        if not isinstance(peer, tuple) or not peer:
            return False
        try:
            # Of a link-local address, without its zone.
            text = cast("tuple[str, ...]", peer)[0].partition("%")[0]
            address = ip_address(text)
        except (ValueError, AttributeError):
            return False
        return self._has(address) or (
            isinstance(address, IPv6Address)
            and address.ipv4_mapped is not None
            and self._has(address.ipv4_mapped)
        )

    def _has(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in self._networks)

    def trusts(self, transport: trio.abc.Stream) -> bool:
        """Tell whether the peer of a stream is one of them.

        A stream without a kernel socket below, or whose peer is gone, is not trusted. If
        a PROXY protocol header has named the client, that is the peer.
        """
        header = find_proxied(transport)
        if header is not None and header.names_peer:
            return header.peer in self
        sock = find_underlying_socket(transport)
        if sock is not None and sock.family == getattr(socket, "AF_UNIX", None):
            # Its clients have no address, or one of their own choice.
            return self._unix
        return find_peer(transport) in self

    def __bool__(self) -> bool:
        return self._unix or bool(self._networks)

    def __repr__(self) -> str:
        return f"TrustedPeers({[*map(str, self._networks)] + [_UNIX] * self._unix!r})"


def make_trusted(trusted: TrustedLike) -> TrustedPeers:
    """Return the trusted peers that a user gave in either form, checked.

    Raises:
        TypeError: As :class:`TrustedPeers`.
        ValueError: As :class:`TrustedPeers`.
    """
    return trusted if isinstance(trusted, TrustedPeers) else TrustedPeers(trusted)


def _parse_network(item: object) -> IPv4Network | IPv6Network:
    if not isinstance(
        item, str | IPv4Network | IPv6Network | IPv4Address | IPv6Address
    ):
        # Not bytes or int either, which ip_network() would take for a packed address.
        raise TypeError(
            "a trusted network must be a str or an object of ipaddress, not "
            f"{name_kind(item)}"
        )
    try:
        return ip_network(item)
    except ValueError as exc:
        raise ValueError(
            f'{item!r} is neither a network such as "10.0.0.0/8", nor an address, nor '
            f'"unix": {exc}'
        ) from None
