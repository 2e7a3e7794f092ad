"""Which addresses a client may reach through a forward proxy (RFC 9110 §9.3.6)."""

from __future__ import annotations

import socket
from ipaddress import ip_address

import pytest

from trio_upgrade._proxy.addresses import (
    is_in,
    is_of_this_machine,
    is_public,
    parse_address,
    parse_networks,
    reaches,
    unmap,
)

# Addresses that reach this machine, its network, or no host at all.
REFUSED = str.split("""
    0.0.0.0 127.0.0.1 127.255.255.254 10.0.0.1 172.16.0.1 172.31.255.255 192.168.0.1
    169.254.169.254 100.64.0.1 192.0.2.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1
    239.255.255.255 240.0.0.1 255.255.255.255 192.0.0.8 192.0.0.9 192.0.0.192
    64:ff9b::c000:c0
    :: ::1 ::7f00:1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:0.0.0.0 ::ffff:0:127.0.0.1
    2002:7f00:1:: 2002:a00:1::1 2002:a9fe:a9fe:: 64:ff9b::127.0.0.1 64:ff9b::a00:1
    64:ff9b::a9fe:a9fe 64:ff9b:1::127.0.0.1 2001:0:7f00:1:: 2001:0:808:808::80ff:fffe
    fe80::1 fec0::1 fc00::1 fd12::1 ff02::1 ff0e::1 2001:db8::1 3fff::1 5f00::1 100::1
    4000::1 2001:2::1 2620:4f:8000::1
    64:ff9b:1:a00:0:100:808:808 64:ff9b:1::8.8.8.8
""")
PUBLIC = str.split("""
    8.8.8.8 1.1.1.1 172.32.0.1 100.128.0.1 ::ffff:8.8.8.8 2002:808:808::1
    64:ff9b::8.8.8.8 2606:4700::1111 2a00:1450::1 2001:4860:4860::8888
""")


@pytest.mark.ids("C05")
@pytest.mark.parametrize("address", REFUSED)
def test_address_that_is_not_public(address: str) -> None:
    """Also within an IPv6 address: mapped, 6to4, Teredo, NAT64 (RFC 4291, 3056, 6052)."""
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_address_that_is_public(address: str) -> None:
    """What IANA has given out as global unicast may be reached."""
    assert is_public(ip_address(address))


def test_unmap() -> None:
    """Teredo has the addresses of a server and of a client (RFC 4380 §4)."""
    inside = unmap(ip_address("2001:0:4136:e378:8000:63bf:3fff:fdd2"))

    assert [*map(str, inside)] == ["65.54.227.120", "192.0.2.45"]


def test_own_addresses() -> None:
    """Only an own address can be bound."""
    assert is_of_this_machine(ip_address("127.0.0.1"))
    assert is_of_this_machine(ip_address("0.0.0.0"))
    assert not is_of_this_machine(ip_address("8.8.8.8"))


@pytest.mark.parametrize(
    "address", ["64:ff9b::7f00:1", "2002:7f00:1::1", "::127.0.0.1", "::ffff:127.0.0.1"]
)
def test_own_address_within_another(address: str) -> None:
    """A translator on the way would send it back to this machine (RFC 6052 §2)."""
    assert is_of_this_machine(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8",
        "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8",
        "2002:808:808::1",
        "2001:0:808:808::",
    ],
)
def test_refused_network_within_another_address(address: str) -> None:
    """NAT64, 6to4 and Teredo are no way round a network that is refused."""
    networks = parse_networks(["8.8.8.0/24"])

    assert reaches(ip_address(address), networks)
    assert not reaches(ip_address("64:ff9b::1.1.1.1"), networks)


def test_own_addresses_of_a_family_that_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A machine without IPv6 has no IPv6 address."""

    def refuse(*_args: object) -> None:
        raise OSError("Address family not supported by protocol")

    monkeypatch.setattr(socket, "socket", refuse)

    assert not is_of_this_machine(ip_address("::1"))


def test_networks() -> None:
    """An address is in a network of its own version, mapped ones as IPv4."""
    networks = parse_networks(["10.0.0.0/8", "fd00::/8", "192.0.2.1"])

    assert is_in(ip_address("10.1.2.3"), networks)
    assert is_in(ip_address("::ffff:10.1.2.3"), networks)
    assert is_in(ip_address("fd00::1"), networks)
    assert is_in(ip_address("192.0.2.1"), networks)
    assert not is_in(ip_address("11.0.0.1"), networks)
    assert not is_in(ip_address("::1"), networks)
    with pytest.raises(ValueError, match="has host bits set"):
        parse_networks(["10.0.0.1/8"])
    with pytest.raises(TypeError, match="networks must be several"):
        parse_networks("10.0.0.0/8")


def test_parse_address() -> None:
    """A zone does not count; a name is no address."""
    assert parse_address("fe80::1%eth0") == ip_address("fe80::1")
    assert parse_address("localhost") is None
