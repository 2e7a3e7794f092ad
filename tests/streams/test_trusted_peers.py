"""Which peers are trusted: how they are named, checked and compared."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given, strategies as st

from trio_upgrade import TrustedPeers
from trio_upgrade._streams.trusted_peers import make_trusted
from trio_upgrade.testing import ScriptedPeer

from ..sockets import tcp_pair, unix_pair

make: Any = TrustedPeers
ALL = TrustedPeers(
    [
        "10.0.0.0/8",
        "192.0.2.1",
        ip_network("fd00::/8"),
        ip_address("::1"),
        ip_address("198.51.100.7"),
        "unix",
    ]
)


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        (("10.1.2.3", 5), True),
        (("11.1.2.3", 5), False),
        (("192.0.2.1", 0), True),
        (("192.0.2.2", 0), False),
        (("fd12::1", 5), True),
        (("fe80::1%eth0", 5), False),
        (("fd12::1%eth0", 5), True),
        (("::1", 5), True),
        (("198.51.100.7", 5), True),
        # As a socket for both versions shows a client of IPv4.
        (("::ffff:10.1.2.3", 5), True),
        (("::ffff:11.1.2.3", 5), False),
        # Other peers: a Unix socket's client, one without an address, a wrong type.
        ("/run/x", False),
        ("unix", False),
        (None, False),
        ((), False),
        (("name", 5), False),
        ((5, 5), False),
    ],
)
def test_contains(peer: object, expected: bool) -> None:
    """An address is compared with networks of its version, without its zone."""
    assert (peer in ALL) is expected


@pytest.mark.parametrize("unix", [False, True])
async def test_trusts_stream(unix: bool) -> None:
    """The peer of a kernel socket counts; a closed one and memory have none."""
    streams = await (unix_pair if unix else tcp_pair)()
    for trusted, expected in (
        (["unix"], unix),
        (["127.0.0.0/8"], not unix),
        (["::/0", "10.0.0.0/8"], False),
        ([], False),
    ):
        assert TrustedPeers(trusted).trusts(streams[0]) is expected
    for stream in streams:
        await stream.aclose()
    assert not TrustedPeers(["0.0.0.0/0"]).trusts(streams[0])
    assert not TrustedPeers(["unix", "0.0.0.0/0"]).trusts(ScriptedPeer())


@pytest.mark.parametrize("network", ["10.0.0.1/8", "10.0.0.0/33", "localhost", "*", ""])
def test_no_network(network: str) -> None:
    """A str that is no network is a ValueError that quotes it."""
    with pytest.raises(ValueError, match='is neither a network such as "10') as caught:
        TrustedPeers(["unix", network])

    assert str(caught.value).startswith(repr(network))
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "trusted",
    ["10.0.0.0/8", b"10.0.0.0", ip_network("10.0.0.0/8"), 5, None, iter(["::/0"])],
)
def test_one_network(trusted: object) -> None:
    """One network, which may be iterable, and an iterator are no collection of them."""
    with pytest.raises(TypeError, match="trusted peers must be a collection"):
        make(trusted)


@pytest.mark.parametrize("item", [5, b"\x7f\0\0\1", None, ("10.0.0.0", 8)])
def test_item_of_another_type(item: object) -> None:
    """A number and bytes would be packed addresses for the ipaddress module."""
    with pytest.raises(TypeError, match="must be a str or an object of ipaddress, not"):
        make([item])


def test_object() -> None:
    """It is immutable, shows what it was made of, and is made once."""
    assert repr(ALL) == (
        "TrustedPeers(['10.0.0.0/8', '192.0.2.1/32', 'fd00::/8', '::1/128', "
        "'198.51.100.7/32', 'unix'])"
    )
    assert eval(repr(ALL)) is not ALL
    assert repr(TrustedPeers(())) == "TrustedPeers([])"
    assert make_trusted(ALL) is ALL
    assert repr(make_trusted({"::/0": 1})) == "TrustedPeers(['::/0'])"
    assert bool(TrustedPeers(["unix"]))
    assert bool(TrustedPeers(["::/0"]))
    assert not TrustedPeers([])
    with pytest.raises(FrozenInstanceError):
        make(()).x = 1


@given(st.ip_addresses(), st.ip_addresses(), st.integers(0, 128))
def test_as_ipaddress_says(address: Any, base: Any, prefix: int) -> None:
    """An address is in a network exactly when the ipaddress module says so."""
    network = ip_network((base, min(prefix, base.max_prefixlen)), strict=False)
    mapped = getattr(address, "ipv4_mapped", None)
    expected = address in network or (mapped is not None and mapped in network)

    assert ((str(address), 1) in TrustedPeers([network])) is expected
    assert ((str(address), 1) in TrustedPeers([str(network)])) is expected
