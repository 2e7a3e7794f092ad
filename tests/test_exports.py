"""The public names: which there are, and that each says what it does."""

from __future__ import annotations

import inspect
import re

import pytest

import trio_upgrade
import trio_upgrade.testing
from trio_upgrade import TrioUpgradeError, _errors

NAMES = [
    "Authority",
    "BadBody",
    "BadResponse",
    "BodyError",
    "BodyTimeout",
    "BodyTooLarge",
    "ClientConnection",
    "ClientResponse",
    "EndReason",
    "EndRecord",
    "ErrorRecord",
    "HalfCloseUnsupported",
    "Headers",
    "IllegalSwitch",
    "Limits",
    "MalformedMessage",
    "NotOffered",
    "Offers",
    "OpenError",
    "PeerGone",
    "Proxy",
    "Refused",
    "Relayed",
    "Request",
    "RequestRecord",
    "Response",
    "ResponseHead",
    "Server",
    "ServerStatistics",
    "SocksRefused",
    "SwitchRecord",
    "TLSFailed",
    "Transfer",
    "TrioUpgradeError",
    "Tunnel",
    "TunnelRefused",
    "Unavailable",
    "Upgrade",
    "UpgradeRefused",
    "Upgraded",
    "UpgradedStream",
    "UsageError",
    "drain_on_signal",
    "inherit_listeners",
    "open_connection",
    "open_tunnel",
    "open_upgrade",
    "pipe",
    "proxy_from_environment",
    "relay",
    "serve_listeners",
    "serve_ssl_over_tcp",
    "serve_stream",
    "serve_tcp",
    "serve_unix",
]

PUBLIC = [getattr(trio_upgrade, name) for name in NAMES] + [
    getattr(trio_upgrade.testing, name) for name in trio_upgrade.testing.__all__
]


def test_names() -> None:
    """These and no others; a new one is a decision."""
    exported = [name for name in vars(trio_upgrade) if not name.startswith("_")]
    modules = [name for name in exported if inspect.ismodule(vars(trio_upgrade)[name])]

    assert sorted(set(exported) - set(modules)) == sorted(NAMES)
    assert set(modules) <= {"testing"}


def test_testing_names() -> None:
    """trio_upgrade.testing has its own list."""
    assert trio_upgrade.testing.__all__ == ["ScriptedPeer", "open_pair", "split_points"]


@pytest.mark.parametrize("thing", PUBLIC, ids=lambda thing: thing.__name__)
def test_docstrings(thing: object) -> None:
    """Every public name, and every public member that is ours, has a docstring."""
    assert inspect.getdoc(thing)
    if not inspect.isclass(thing):
        return
    for name, member in vars(thing).items():
        if name.startswith("_") or inspect.ismemberdescriptor(member):
            continue
        if callable(member) or isinstance(member, property | classmethod):
            assert inspect.getdoc(member), name


def test_error_tree() -> None:
    """The module's docstring draws the tree as it is."""
    classes = {
        name: value
        for name, value in vars(_errors).items()
        if inspect.isclass(value) and value.__module__ == _errors.__name__
    }
    drawn = re.findall(r"^ *[│├└─ ]*([A-Z]\w+)", _errors.__doc__ or "", re.MULTILINE)

    assert sorted(name for name in drawn if name != "Every") == sorted(classes)
    for name, value in classes.items():
        assert getattr(trio_upgrade, name) is value
        assert issubclass(value, TrioUpgradeError)
