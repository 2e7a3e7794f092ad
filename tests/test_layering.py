"""The house: imports run downward, h11 is in one room, no room is too large."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import trio_upgrade

PACKAGE = Path(trio_upgrade.__file__).parent


def find_modules() -> list[str]:
    """Every module, by its dotted name below the package."""
    paths = (path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
    names = (".".join(path.with_suffix("").parts) for path in paths)
    return sorted(name for name in names if not name.endswith(".__init__"))


ROOMS = find_modules()
MAX_LINES = 400

# From the ground up.  A room may import those before it in this list, no others; types
# that only checkers read are free.
ORDER = [
    *(
        "_errors",
        "_util",
        "_limits",
        "_http.tokens",
        "_http.headers",
        "_http.targets",
        "_groups",
    ),
    *("_server.dates", "_client.urls", "_server.records"),
    *("_http.head_syntax", "_http.framing", "_http.chunked", "_http.switching"),
    *(
        "_streams.upgraded",
        "_streams.socket_stream",
        "_streams.socket_listener",
        "_streams.underlying",
        "_streams.closing",
        "_server.deadlines",
    ),
    *("_streams.tcp_listeners", "_streams.unix_listener", "_copy.splice"),
    *(
        "_body",
        "_messages",
        "_server.request",
        "_client.upgraded",
        "_copy.engine",
        "_copy.pipe",
        "_copy.relay",
    ),
    *("_server.response_writer", "_http.codec", "_http_stream", "_server.http"),
    *("_server.state", "_server.server", "_server.error_responses", "_server.exchange"),
    *("_server.request_loop", "_server.session", "_server.serve"),
    *(
        "_client.request_head",
        "_client.request_sender",
        "_client.connection",
        "_client.socks",
        "_client.proxies",
        "_client.route",
        "_client.open",
    ),
    "testing",
    "__init__",
]


def find_path(room: str) -> Path:
    return PACKAGE.joinpath(*room.split(".")).with_suffix(".py")


def run_time_imports(room: str) -> list[str]:
    """Every module that a room imports when it runs, as written."""
    found: list[str] = []

    class Visitor(ast.NodeVisitor):
        def visit_If(self, node: ast.If) -> None:
            if ast.unparse(node.test) != "TYPE_CHECKING":
                self.generic_visit(node)

        def visit_Import(self, node: ast.Import) -> None:
            found.extend(alias.name for alias in node.names)

        def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
            if not node.level:
                found.append(node.module or "")
                return
            package = room.split(".")[: -node.level]
            found.append("." + ".".join([*package, node.module or ""]))

    Visitor().visit(ast.parse(find_path(room).read_text()))
    return found


def test_every_room_has_its_place() -> None:
    """A new room is put into the order before it is used."""
    assert sorted(ORDER) == ROOMS


@pytest.mark.parametrize("room", ROOMS)
def test_imports_run_downward(room: str) -> None:
    """No room imports one that stands above it."""
    below = ORDER[: ORDER.index(room)]
    for name in run_time_imports(room):
        assert not name.startswith("trio_upgrade"), "relative imports inside the house"
        if name.startswith("."):
            assert name.removeprefix(".") in below


@pytest.mark.parametrize("room", ROOMS)
def test_h11_is_in_one_room(room: str) -> None:
    """Only the codec knows h11; only rooms with I/O know Trio."""
    imported = {name.partition(".")[0] for name in run_time_imports(room)}

    assert ("h11" in imported) == (room == "_http.codec")
    if room in ORDER[: ORDER.index("_streams.upgraded")] or room in (
        "_http.codec",
        "_messages",
    ):
        assert "trio" not in imported


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_is_too_large(room: str) -> None:
    """A room that outgrows its size is split along its data's way."""
    lines = find_path(room).read_text().splitlines()

    assert len(lines) <= MAX_LINES


def test_importing_costs_no_more_than_it_must() -> None:
    """All of trio_upgrade brings in nothing that only tests or servers of ASGI need."""
    script = (
        "import sys\nfrom trio_upgrade import *\n"
        "print(*{'asyncio', 'pytest', 'trio.testing', 'http.client'} & {*sys.modules})"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    )

    assert found.stdout.split() == []
