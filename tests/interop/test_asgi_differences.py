"""One application behind three servers: equal answers, and each difference named."""

from __future__ import annotations

import os
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
import trio

from trio_upgrade import serve_listeners
from trio_upgrade.asgi import open_asgi

from .programs import HOST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

for _name in ("fastapi", "uvicorn", "hypercorn"):
    pytest.importorskip(_name, reason=f"needs {_name}: pip install --group asgi")
if sys.platform == "win32":
    pytest.skip("needs inherited sockets: not on Windows", allow_module_level=True)

from . import asgi_cases  # noqa: E402  imports a framework

ROOT = Path(__file__).parents[2]
CASES = asgi_cases.make_cases()
COMMANDS = {
    "uvicorn": "uvicorn --http h11 --loop asyncio --lifespan off --fd {fd} {app}",
    # -w 0: a process of its own for the worker would outlive it.
    "hypercorn": "hypercorn -k trio -w 0 --bind fd://{fd} {app}",
}
APP = "tests.interop.asgi_cases:app"
# Fields that no two servers have in common.
IGNORED = {"date", "server"}

_NOT_HELD = "it sends the start before there is a body, so that no 500 is possible"
_OWN_TEXT = "the text of an error that the server answers is its own"
_NO_PATH = "a target with a scheme and a host is no path (RFC 9112 §3.2.2)"

# Each difference, by server, request and part of the answer, with what ours does or why.
DIFFERENCES = {
    ("*", "* 204 length", "fields"): "a 204 has no Content-Length (RFC 9110 §8.6)",
    ("*", "status 205 *", "fields"): "a 205 says that it is empty (RFC 9110 §15.3.6)",
    ("*", "status 205 *", "body"): "a 205 has no content (RFC 9110 §15.3.6)",
    ("uvicorn", "method get", "body"): "the specification: the method is in upper case",
    ("*", "target absolute", "fields"): _NO_PATH,
    ("*", "target absolute", "body"): _NO_PATH,
    ("hypercorn", "scope h2c", "*"): "an offer of h2c is an ordinary request",
    ("*", "echo broken", "fields"): _OWN_TEXT,
    ("*", "echo broken", "body"): _OWN_TEXT,
    ("uvicorn", "fields spaces", "*"): "blanks around a value are left out",
    ("uvicorn", "fields newline", "*"): "a field that cannot be sent is a 500",
    ("uvicorn", "fields name", "*"): "a field that cannot be sent is a 500",
    ("hypercorn", "fields n*", "fields"): _OWN_TEXT,
    ("hypercorn", "fields n*", "body"): _OWN_TEXT,
    ("*", "mistake held*", "*"): _NOT_HELD,
    ("*", "mistake r*", "fields"): _OWN_TEXT,
    ("*", "mistake r*", "body"): _OWN_TEXT,
    ("*", "mistake body-first", "fields"): _OWN_TEXT,
    ("*", "mistake body-first", "body"): _OWN_TEXT,
    ("*", "mistake unknown", "fields"): _OWN_TEXT,
    ("*", "mistake unknown", "body"): _OWN_TEXT,
}


class Answer(NamedTuple):
    """An answer as its client reads it."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes
    complete: bool


def parse(wire: bytes, *, head: bool) -> Answer:
    """Parse an answer that ends with its connection; interim ones are skipped."""
    status = 100
    fields: list[tuple[str, str]] = []
    while status < 200:
        section, found, wire = wire.partition(b"\r\n\r\n")
        if not found:
            return Answer(0, [], wire, complete=False)
        first, *lines = section.decode("latin-1").split("\r\n")
        status = int(first.split()[1])
        pairs = [line.partition(":") for line in lines]
        fields = sorted((name.lower(), value.strip()) for name, _, value in pairs)
    known = dict(fields)
    kept = [field for field in fields if field[0] not in IGNORED]
    if head or status in (204, 304):
        return Answer(status, kept, wire, complete=not wire)
    if known.get("transfer-encoding") == "chunked":
        body, complete = join_chunks(wire)
        return Answer(status, kept, body, complete)
    length = known.get("content-length")
    return Answer(status, kept, wire, length is None or len(wire) == int(length))


def join_chunks(wire: bytes) -> tuple[bytes, bool]:
    """Return the content of chunks, and whether the last one was there."""
    body = b""
    while b"\r\n" in wire:
        size, _, wire = wire.partition(b"\r\n")
        if int(size, 16) == 0:
            return body, True
        body += wire[: int(size, 16)]
        wire = wire[int(size, 16) + 2 :]
    return body, False


async def ask(port: int, wire: bytes) -> bytes:
    """Send a request on a connection of its own; return all that comes."""
    received = b""
    async with await trio.open_tcp_stream(HOST, port) as stream:
        try:
            await stream.send_all(wire)
            async for chunk in stream:
                received += chunk
        except trio.BrokenResourceError:
            pass  # A reset: the answer was cut.
    return received


@asynccontextmanager
async def run_other(command: str, app: str) -> AsyncIterator[int]:
    """Run another server on a socket that listens already; give its port."""
    (listener,) = await trio.open_tcp_listeners(0, host=HOST)
    descriptor = listener.socket.fileno()
    command = command.format(fd=descriptor, app=app)
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", *command.split()],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        pass_fds=[descriptor],
        stdout=-3,
        stderr=-3,
    )
    try:
        yield listener.socket.getsockname()[1]
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await listener.aclose()


@asynccontextmanager
async def run_ours() -> AsyncIterator[int]:
    """Serve with ours; give the port."""
    listeners = await trio.open_tcp_listeners(0, host=HOST)
    async with open_asgi(asgi_cases.app) as adapter, trio.open_nursery() as nursery:
        await nursery.start(serve_listeners, adapter, listeners)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


def test_cases() -> None:
    """There are at least 60 requests."""
    assert len(CASES) >= 60


async def test_differences() -> None:
    """Status, fields and body are equal but for the differences that are named above."""
    answers: dict[str, dict[str, Answer]] = {}
    async with AsyncExitStack() as stack:
        ports = {
            name: await stack.enter_async_context(run_other(command, APP))
            for name, command in COMMANDS.items()
        }
        ports["ours"] = await stack.enter_async_context(run_ours())
        for name, port in ports.items():
            answers[name] = {
                case: parse(await ask(port, wire), head=wire.startswith(b"HEAD "))
                for case, wire in CASES.items()
            }
    found = {
        (name, case, aspect): (getattr(ours, aspect), getattr(other, aspect))
        for name in COMMANDS
        for case, other in answers[name].items()
        for ours in [answers["ours"][case]]
        for aspect in Answer._fields
        if getattr(other, aspect) != getattr(ours, aspect)
    }
    used = {
        entry
        for entry in DIFFERENCES
        for difference in found
        if all(map(fnmatchcase, difference, entry))
    }
    unnamed = {
        difference: values
        for difference, values in found.items()
        if not any(all(map(fnmatchcase, difference, entry)) for entry in DIFFERENCES)
    }

    assert unnamed == {}
    assert used == {*DIFFERENCES}
