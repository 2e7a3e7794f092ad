"""The public names: which there are, and that each says what it does."""

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
import trio_upgrade.testing
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
    "DialOptions",
    "EndReason",
    "EndRecord",
    "ErrorRecord",
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
    "Progress",
    "Proxy",
    "Refused",
    "RelayResult",
    "Request",
    "RequestRecord",
    "Response",
    "ResponseHead",
    "ServeOptions",
    "Server",
    "ServerStatistics",
    "SocksRefused",
    "SwitchRecord",
    "TLSFailed",
    "TrioUpgradeError",
    "Tunnel",
    "TunnelRefused",
    "Unavailable",
    "Upgrade",
    "UpgradeHandler",
    "UpgradeRefused",
    "UpgradedConnection",
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

# They have no docstring that could be found at run time.
ALIASES = {"App", "HeadersLike", "UpgradeHandler"}

PUBLIC = [getattr(trio_upgrade, name) for name in NAMES if name not in ALIASES] + [
    getattr(trio_upgrade.testing, name) for name in trio_upgrade.testing.__all__
]


def test_names() -> None:
    """These and no others; a new one is a decision."""
    shown = {name for name in dir(trio_upgrade) if not name.startswith("_")}

    assert sorted(vars(trio_upgrade)["__all__"]) == sorted(NAMES)
    assert shown - {"TYPE_CHECKING", "import_module", "testing"} == set(NAMES)
    for name in {*NAMES} - ALIASES:
        assert getattr(trio_upgrade, name).__name__ == name
    assert len(dir(trio_upgrade)) == len({*dir(trio_upgrade)})
    with pytest.raises(AttributeError, match="no attribute 'server_tcp'"):
        getattr(trio_upgrade, "server_tcp")  # noqa: B009


@pytest.mark.parametrize("name", sorted({*NAMES} - ALIASES))
def test_public_path(name: str) -> None:
    """Tracebacks and reprs show the path by which users import a name."""
    assert getattr(trio_upgrade, name).__module__ == "trio_upgrade"


def test_version() -> None:
    """The version is that of the installed distribution."""
    assert trio_upgrade.__version__ == version("trio-upgrade")
    assert "__version__" in dir(trio_upgrade)


def test_checkers_see_the_same() -> None:
    """What type checkers are told is what is found at run time, room by room."""
    path = Path(inspect.getsourcefile(trio_upgrade) or "")
    for_checkers, _, at_run_time = path.read_text().partition("\nelse:\n")
    told = {
        (node.module, alias.name)
        for node in ast.walk(ast.parse(for_checkers))
        if isinstance(node, ast.ImportFrom) and node.level
        for alias in node.names
    }
    rooms = re.findall(r'"(_[\w.]+)": \(?((?:\s*"[\w ]+")+)', at_run_time)
    found = {(room, name) for room, text in rooms for name in re.findall(r"\w+", text)}

    assert {(f"{room}", name) for room, name in told} == found
    assert {name for _, name in found} == set(NAMES)


def test_only_what_is_used_is_imported() -> None:
    """A server has none of the client's rooms, nor the other way round."""
    script = "import sys; from trio_upgrade import {}; print(*sys.modules)"

    def rooms(name: str) -> set[str]:
        command = [sys.executable, "-c", script.format(name)]
        found = subprocess.run(command, capture_output=True, check=True, text=True)
        return {*found.stdout.split()}

    shown = rooms("Limits; print(*dir(sys.modules['trio_upgrade']))")
    assert {"serve_tcp", "open_upgrade"} <= shown
    for name, other in ("serve_tcp", "_client"), ("open_upgrade", "_server"):
        assert not [room for room in rooms(name) if other in room.split(".")]


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
        for module in (_errors, response)
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, Exception)
    }
    drawn = re.findall(r"^ *[│├└─ ]*([A-Z]\w+)", _errors.__doc__ or "", re.MULTILINE)

    assert sorted(name for name in drawn if name != "Every") == sorted(classes)
    for name, value in classes.items():
        assert getattr(trio_upgrade, name) is value
        assert issubclass(value, TrioUpgradeError)
