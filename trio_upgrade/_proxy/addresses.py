# Whether a client may reach an address through a forward proxy.  A name says nothing:
# only the addresses that it resolves to are judged, and only a judged one is dialled.
from __future__ import annotations

import socket
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

# What IANA has given out as global unicast.  `is_global` is true for most of the rest,
# which is unassigned, and knows new special ranges only in new versions of Python.
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
_SPECIAL: Final = (
    IPv6Network("2001::/23"),  # RFC 2928; Teredo is judged before
    IPv6Network("2001:db8::/32"),  # RFC 3849
    IPv6Network("2620:4f:8000::/48"),  # RFC 7534
    IPv6Network("3fff::/20"),  # RFC 9637
)
# RFC 6890 §2.2.2.  `is_global` knows the whole of it in new versions of Python only, and
# allows two anycast addresses of gateways.  192.0.0.192 tells the secrets of a machine in
# some clouds, as 169.254.169.254 does.
_PROTOCOL_ASSIGNMENTS: Final = IPv4Network("192.0.0.0/24")
# IPv6 addresses that carry an IPv4 address in their last 32 bits: compatible and mapped
# (RFC 4291 §2.5.5), translated (RFC 2765), NAT64 (RFC 6052).  `::1` and `::` are in the
# first, and are not global as 0.0.0.1 and 0.0.0.0.  The NAT64 network of a site
# (64:ff9b:1::/48, RFC 8215) is not here: each site chooses where in it the IPv4 address
# is, so the last 32 bits may be a blind for another one.  It is not global unicast.
_LAST_32_BITS: Final = (
    IPv6Network("::/96"),
    IPv6Network("::ffff:0:0/96"),
    IPv6Network("::ffff:0:0:0/96"),
    IPv6Network("64:ff9b::/96"),
)


def unmap(address: Address) -> Iterator[Address]:
    """Yield the addresses inside another one, or the address itself if it has none.

    A system may deliver to any of them: ``::ffff:127.0.0.1`` and ``0.0.0.0`` reach
    loopback.
    """
    if isinstance(address, IPv6Address):
        if address.sixtofour is not None:
            yield address.sixtofour
            return
        if address.teredo is not None:
            yield from address.teredo
            return
        if any(address in network for network in _LAST_32_BITS):
            yield IPv4Address(int(address) & 0xFFFFFFFF)
            return
    yield address


def is_public(address: Address) -> bool:
    """Return whether an address is global unicast, also after unmapping."""
    return all(map(_is_global_unicast, unmap(address)))


def _is_global_unicast(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return (
            address.is_global
            and not address.is_multicast
            and address not in _PROTOCOL_ASSIGNMENTS
        )
    return address in _GLOBAL_UNICAST and not any(
        address in network for network in _SPECIAL
    )


def is_of_this_machine(address: Address) -> bool:
    """Return whether an address, or one inside it, is one of this machine's own.

    The listener may be bound to the wildcard address, and the standard library does not
    list interfaces; but only an own address can be bound.
    """
    return any(map(_can_be_bound, {address, *unmap(address)}))


def _can_be_bound(address: Address) -> bool:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True


def parse_networks(networks: Iterable[str]) -> tuple[Network, ...]:
    """Return the networks.

    Raises:
        TypeError: A str is given instead of several.
        ValueError: One is malformed.
    """
    if isinstance(networks, str):
        raise TypeError("networks must be several, as in ('10.0.0.0/8',), not a str")
    return tuple([ip_network(network) for network in networks])


def is_in(address: Address, networks: Iterable[Network]) -> bool:
    """Return whether an address, or the IPv4 address mapped in it, is in a network."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(
        address.version == network.version and address in network
        for network in networks
    )


def reaches(address: Address, networks: Iterable[Network]) -> bool:
    """Return whether an address, or any address inside it, is in a network.

    For networks that are refused: NAT64 or 6to4 would lead into them.
    """
    return any(is_in(each, networks) for each in {address, *unmap(address)})


def parse_address(host: str) -> Address | None:
    """Return the address in a socket name, without its zone; None if it is none."""
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        return None
