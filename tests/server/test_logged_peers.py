"""How the log writes the addresses of clients, which a client may choose."""

from __future__ import annotations

import logging
import socket
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from trio_upgrade import Limits, Request, serve_unix

from ..wire import get

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="needs abstract sockets: only on Linux"
)

NAMES = [
    b"\0evil\nERROR root: \x1b[2J",
    b"\0\xff\xfe",
    "\0caf\u00e9 \u009b2J \u202e".encode(),
    b"\0%s %d %(name)s",
    b"\0" + b"x" * 100,
]


class Observer:
    """An observer whose every method fails."""

    def ended(self, record: object) -> None:
        raise LookupError

    error = ended


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    """The file that all of the server's log goes to; it can hold nothing but ASCII."""
    path = tmp_path / "log"
    handler = logging.FileHandler(path, encoding="ascii")
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger = logging.getLogger("trio_upgrade.server")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield path
    logger.setLevel(logging.NOTSET)
    logger.removeHandler(handler)
    handler.close()


async def app(_request: Request) -> None:
    raise LookupError


@pytest.mark.ids("F24")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("wire", "level", "beginning", "end"),
    [
        (get("/"), "ERROR", "error in the app, serving <Request GET /> to ", ""),
        (b"\0", "DEBUG", "refused ", ": no HTTP message begins with octet 0x00"),
        (b"GET", "DEBUG", "ended ", ": a message head took too long"),
    ],
)
async def test_name_of_a_client(
    tmp_path: Path,
    log: Path,
    name: bytes,
    wire: bytes,
    level: str,
    beginning: str,
    end: str,
) -> None:
    """A name stands in one line in ASCII: it adds no line and loses no record."""
    path = tmp_path / "socket"
    limits = Limits(header_timeout=0 if wire == b"GET" else None)
    serve = partial(serve_unix, app, path, limits=limits, observer=Observer())
    async with trio.open_nursery() as nursery:
        await nursery.start(serve)
        with trio.socket.socket(socket.AF_UNIX) as client:
            await client.bind(name)
            await client.connect(str(path))
            await client.send(wire)
            await client.recv(999)
        nursery.cancel_scope.cancel()

    lines = (await trio.Path(log).read_text("ascii")).splitlines()
    shown = ascii(name.decode(errors="surrogateescape"))
    assert f"{level} {beginning}{shown}{end}" in lines
    assert any(
        line.startswith("ERROR error in the observer, at EndRecord(peer=" + shown)
        for line in lines
    )
    assert all(line.isprintable() for line in lines)
