"""The policy of a forward proxy, beside what its tests show over sockets."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from types import SimpleNamespace
from typing import Any

import pytest

from trio_upgrade._proxy.targets import TargetPolicy, TargetRefused, find_own

ALL = (ip_network("0.0.0.0/0"), ip_network("::/0"))


class Socket:
    def __init__(self, name: object) -> None:
        self._name = name

    def getsockname(self) -> object:
        return self._name


def listen(*names: object) -> Any:
    """Return a server with listeners on sockets of these names."""
    plain = [SimpleNamespace(socket=Socket(name)) for name in names]
    return SimpleNamespace(
        listeners=[
            *plain,
            # TLS over one of them, and a listener without a socket.
            SimpleNamespace(transport_listener=plain[0]),
            SimpleNamespace(),
        ]
    )


def test_own_listeners() -> None:
    """Also below TLS; those without an address do not count."""
    server = listen(("127.0.0.1", 1), "/run/x", ("::1", 2, 0, 0), ("odd", 3))

    assert find_own(server) == [
        (ip_address("127.0.0.1"), 1),
        (ip_address("::1"), 2),
        (ip_address("127.0.0.1"), 1),
    ]


@pytest.mark.parametrize(
    ("address", "bound", "allowed"),
    [
        ("127.0.0.1", "127.0.0.1", False),
        ("127.0.0.1", "0.0.0.0", False),
        ("0.0.0.0", "127.0.0.1", False),
        ("::ffff:127.0.0.1", "127.0.0.1", False),
        ("127.0.0.1", "::", False),
        ("127.0.0.2", "127.0.0.1", True),
        ("192.0.2.1", "0.0.0.0", True),
    ],
)
def test_own_listener_is_refused_whatever_is_allowed(
    address: str, bound: str, allowed: bool
) -> None:
    """The same port at an address that reaches it; other ports are another matter."""
    policy = TargetPolicy((), (), ALL, ())
    own = [(ip_address(bound), 80)]

    assert policy.allows(ip_address(address), 80, own) is allowed
    assert policy.allows(ip_address(address), 81, own)


def test_addresses_of_this_machine_need_permission(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A public address of this machine may have what is meant for its inside."""
    here = ip_address("8.8.8.8")
    monkeypatch.setattr(
        "trio_upgrade._proxy.targets.is_of_this_machine",
        lambda address: address == here,
    )

    assert not TargetPolicy((), (), (), ()).allows(here, 80, ())
    assert TargetPolicy((), (), (), ()).allows(ip_address("8.8.4.4"), 80, ())
    assert TargetPolicy((), (), [ip_network("8.8.8.8")], ()).allows(here, 80, ())


def test_refused_network_is_not_reached_through_a_translator() -> None:
    """Whatever is allowed: NAT64 leads to the IPv4 address inside (RFC 6052 §2)."""
    policy = TargetPolicy((), (), ALL, [ip_network("8.8.8.0/24")])

    assert not policy.allows(ip_address("64:ff9b::8.8.8.8"), 80, ())
    assert policy.allows(ip_address("64:ff9b::8.8.4.4"), 80, ())


def test_ports() -> None:
    """Tunnels and requests have lists of their own."""
    policy = TargetPolicy((443,), range(80, 90), (), ())

    policy.check_port(443, tunnel=True)
    policy.check_port(80, tunnel=False)
    with pytest.raises(TargetRefused, match="port 80 is not allowed"):
        policy.check_port(80, tunnel=True)
    with pytest.raises(TargetRefused, match="port 443 is not allowed"):
        policy.check_port(443, tunnel=False)
