"""The public names: their list, their paths and their docstrings."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import trio_upgrade
import trio_upgrade.asgi
import trio_upgrade.carrier
import trio_upgrade.proxy
import trio_upgrade.testing
import trio_upgrade.websocket
from trio_upgrade import TrioUpgradeError, _errors
from trio_upgrade._client import response

NAMES = [
    "App",
    "Authority",
    "BadBody",
    "BadResponse",
    "BodyError",
    "BodyTimeout",
    "BodyTooLarge",
    "ClientConnection",
    "ClientResponse",
    "ConnectionPool",
    "DialOptions",
    "EndOfStream",
    "EndReason",
    "EndRecord",
    "ErrorRecord",
    "Forwarded",
    "HalfCloseUnsupported",
    "Headers",
    "HeadersLike",
    "IllegalSwitch",
    "Limits",
    "MalformedMessage",
    "NotOffered",
    "Offers",
    "OpenError",
    "PeerGone",
    "PoolStatistics",
    "PooledResponse",
    "Progress",
    "Proxy",
    "Refused",
    "RelayResult",
    "Request",
    "RequestRecord",
    "Response",
    "ResponseHead",
    "Room",
    "RoomMember",
    "ServeOptions",
    "Server",
    "ServerStatistics",
    "SocksRefused",
    "StreamedResponse",
    "SwitchRecord",
    "TLSFailed",
    "TLSStream",
    "TooLong",
    "TrioUpgradeError",
    "TrustedLike",
    "TrustedPeers",
    "Tunnel",
    "TunnelRefused",
    "Unavailable",
    "Upgrade",
    "UpgradeHandler",
    "UpgradeRefused",
    "UpgradedConnection",
    "UpgradedStream",
    "UsageError",
    "Worker",
    "drain_on_signal",
    "forwarded",
    "inherit_listeners",
    "open_connection",
    "open_room",
    "open_server",
    "open_tunnel",
    "open_upgrade",
    "pipe",
    "proxy_from_environment",
    "relay",
    "run_workers",
    "serve_listeners",
    "serve_ssl_over_tcp",
    "serve_stream",
    "serve_tcp",
    "serve_unix",
    "stream_scope",
]

# Type aliases have no docstring at run time.
ALIASES = {
    "ASGIApp",
    "App",
    "CarrierHandler",
    "HeadersLike",
    "TrustedLike",
    "UpgradeHandler",
    "WebSocketHandler",
}

PUBLIC = [
    getattr(module, name)
    for module, names in (
        (trio_upgrade, NAMES),
        (trio_upgrade.asgi, trio_upgrade.asgi.__all__),
        (trio_upgrade.carrier, trio_upgrade.carrier.__all__),
        (trio_upgrade.proxy, trio_upgrade.proxy.__all__),
        (trio_upgrade.testing, trio_upgrade.testing.__all__),
        (trio_upgrade.websocket, trio_upgrade.websocket.__all__),
    )
    for name in names
    if name not in ALIASES
]


def test_names() -> None:
    """The public names are exactly these; a new name is a decision."""
    shown = {name for name in dir(trio_upgrade) if not name.startswith("_")}

    assert sorted(vars(trio_upgrade)["__all__"]) == sorted(NAMES)
    add_ons = {"asgi", "carrier", "proxy", "testing", "websocket"}
    assert shown - {"TYPE_CHECKING", "import_module"} - add_ons == set(NAMES)
    for name in {*NAMES} - ALIASES:
        assert getattr(trio_upgrade, name).__name__ == name
    assert len(dir(trio_upgrade)) == len({*dir(trio_upgrade)})
    with pytest.raises(AttributeError, match="no attribute 'server_tcp'"):
        getattr(trio_upgrade, "server_tcp")  # noqa: B009


@pytest.mark.parametrize("name", sorted({*NAMES} - ALIASES))
def test_public_path(name: str) -> None:
    """Tracebacks and reprs show the path that users import."""
    assert getattr(trio_upgrade, name).__module__ == "trio_upgrade"


def test_version() -> None:
    """The version is that of the installed distribution."""
    assert trio_upgrade.__version__ == version("trio-upgrade")
    assert "__version__" in dir(trio_upgrade)


def test_checkers_see_the_same() -> None:
    """Type checkers and the run time find each name in the same module."""
    path = Path(inspect.getsourcefile(trio_upgrade) or "")
    for_checkers, _, at_run_time = path.read_text().partition("\nelse:\n")
    declared = {
        (node.module, alias.name)
        for node in ast.walk(ast.parse(for_checkers))
        if isinstance(node, ast.ImportFrom) and node.level
        for alias in node.names
    }
    modules = re.findall(r'"(_[\w.]+)": \(?((?:\s*"[\w ]+")+)', at_run_time)
    found = {
        (module, name) for module, text in modules for name in re.findall(r"\w+", text)
    }

    assert {(f"{module}", name) for module, name in declared} == found
    assert {name for _, name in found} == set(NAMES)


def test_server_and_client_are_imported_apart() -> None:
    """A server imports no module of the client, and a client none of the server."""
    script = "import sys; from trio_upgrade import {}; print(*sys.modules)"

    def imported_modules(name: str) -> set[str]:
        command = [sys.executable, "-c", script.format(name)]
        found = subprocess.run(command, capture_output=True, check=True, text=True)
        return {*found.stdout.split()}

    shown = imported_modules("Limits; print(*dir(sys.modules['trio_upgrade']))")
    assert {"serve_tcp", "open_upgrade"} <= shown
    for name, other in ("serve_tcp", "_client"), ("open_upgrade", "_server"):
        modules = imported_modules(name)
        assert not [module for module in modules if other in module.split(".")]


def test_asgi_names() -> None:
    """The public names of trio_upgrade.asgi are exactly these, and say so."""
    names = trio_upgrade.asgi.__all__

    assert names == [
        "ASGIAdapter",
        "ASGIApp",
        "ClientDisconnected",
        "LifespanFailed",
        "open_asgi",
    ]
    for name in {*names} - ALIASES:
        assert getattr(trio_upgrade.asgi, name).__module__ == "trio_upgrade.asgi"


def test_testing_names() -> None:
    """The public names of trio_upgrade.testing are exactly these."""
    assert trio_upgrade.testing.__all__ == ["ScriptedPeer", "open_pair", "split_points"]


def test_websocket_names() -> None:
    """The public names of trio_upgrade.websocket are exactly these, and say so."""
    names = [
        "WebSocketHandler",
        "WebSocketOptions",
        "accept_websocket",
        "check_websocket_options",
        "open_websocket",
        "reconnecting_websocket",
    ]

    assert trio_upgrade.websocket.__all__ == names
    for name in names[1:]:
        function = getattr(trio_upgrade.websocket, name)
        assert function.__module__ == "trio_upgrade.websocket"


def test_proxy_names() -> None:
    """The public names of trio_upgrade.proxy are exactly these, and say so."""
    assert trio_upgrade.proxy.__all__ == [
        "ForwardProxy",
        "OutgoingRequest",
        "ProxyStatistics",
        "ReverseProxy",
        "TunnelRecord",
    ]
    for name in trio_upgrade.proxy.__all__:
        assert getattr(trio_upgrade.proxy, name).__module__ == "trio_upgrade.proxy"


@pytest.mark.parametrize("thing", PUBLIC, ids=lambda thing: thing.__name__)
def test_docstrings(thing: object) -> None:
    """Each public name and each of its own public members has a docstring."""
    assert inspect.getdoc(thing)
    if not inspect.isclass(thing):
        return
    for name, member in vars(thing).items():
        if name.startswith("_") or inspect.ismemberdescriptor(member):
            continue
        if callable(member) or isinstance(member, property | classmethod):
            assert inspect.getdoc(member), name


def test_error_tree() -> None:
    """The tree in the docstring of _errors has exactly the exceptions that exist."""
    classes = {
        name: value
        for module in (_errors, response)
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, Exception)
    }
    drawn = re.findall(r"^ *[│├└─ ]*([A-Z]\w+)", _errors.__doc__ or "", re.MULTILINE)

    assert sorted(name for name in drawn if name != "Every") == sorted(classes)
    for name, value in classes.items():
        assert getattr(trio_upgrade, name) is value
        assert issubclass(value, TrioUpgradeError)
