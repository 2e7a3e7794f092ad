"""One application of WebSockets behind three servers, and each difference named."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import trio
from websockets.frames import Opcode

from trio_upgrade import serve_listeners
from trio_upgrade.asgi import open_asgi

from ..websocket.wires import masked
from ..wire import get
from .programs import HOST
from .test_asgi_differences import IGNORED, join_chunks, run_other

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

for _name in ("uvicorn", "hypercorn"):
    pytest.importorskip(_name, reason=f"needs {_name}: pip install --group asgi")

from . import asgi_websocket_cases  # noqa: E402

CASES = asgi_websocket_cases.make_cases()
APP = "tests.interop.asgi_websocket_cases:returning"
COMMANDS = {
    "uvicorn": "uvicorn --http h11 --ws websockets-sansio --loop asyncio --lifespan off "
    "--fd {fd} {app}",
    # -w 0: a process of its own for the worker would outlive it.
    "hypercorn": "hypercorn -k trio -w 0 --bind fd://{fd} {app}",
}

_OWN_TEXT = "the text of a refusal or an error is the server's own"
_NO_CLOSE = "the peer's code or 1006, not the code that we have sent (RFC 6455 §7.1.5)"
_BUFFERED = "it sends the pieces when the last one is there"
_EMPTY = "a 204 has no content (RFC 9110 §8.6, §15.3.5)"
_ITS_OWN = "it gives 1000 or 1006 instead of the peer's code"
_NO_CODE = "it closes without a Close"

# Each difference, by server, case and part of the outcome, with what ours does or why.
DIFFERENCES = {
    (
        "uvicorn",
        "subprotocol foreign",
        "*",
    ): "a subprotocol that is not offered is a 500",
    ("uvicorn", "forbid", "fields"): "an empty 403 has no type",
    ("uvicorn", "deny * pieces", "fields"): _BUFFERED,
    ("uvicorn", "deny * one", "fields"): _BUFFERED,
    ("uvicorn", "deny 204 *", "fields"): _EMPTY,
    ("uvicorn", "deny 204 *", "body"): _EMPTY,
    ("hypercorn", "deny 204 length", "fields"): _EMPTY,
    ("*", "fail", "fields"): _OWN_TEXT,
    ("*", "fail", "body"): _OWN_TEXT,
    ("*", "return", "fields"): _OWN_TEXT,
    ("*", "return", "body"): _OWN_TEXT,
    ("hypercorn", "forbid", "received"): _ITS_OWN,
    ("hypercorn", "deny *", "received"): _ITS_OWN,
    ("hypercorn", "close *", "received"): _ITS_OWN,
    ("hypercorn", "peer *", "received"): _ITS_OWN,
    ("uvicorn", "bug", "close"): _NO_CODE,
    ("uvicorn", "leave", "close"): _NO_CODE,
    ("hypercorn", "leave", "close"): "an application that returns has said all: 1000",
    ("*", "deflate", "*"): "a window of 4 KiB for each connection instead of 32 KiB",
    ("uvicorn", "cut*", "received"): "without a Close it is 1006 (RFC 6455 §7.1.5)",
    ("uvicorn", "peer 1005", "received"): _NO_CLOSE,
    ("uvicorn", "peer short", "received"): _NO_CLOSE,
    ("uvicorn", "unmasked", "received"): _NO_CLOSE,
    ("uvicorn", "reserved", "received"): _NO_CLOSE,
    ("uvicorn", "bad utf-8", "received"): _NO_CLOSE,
    ("uvicorn", "bad utf-8", "close"): _OWN_TEXT,
    ("hypercorn", "peer 1005", "close"): _NO_CODE,
    ("hypercorn", "peer short", "close"): _NO_CODE,
    ("hypercorn", "unmasked", "close"): _NO_CODE,
    ("hypercorn", "reserved", "close"): _NO_CODE,
    ("hypercorn", "bad utf-8", "close"): _NO_CODE,
    ("hypercorn", "handshake no *", "fields"): _OWN_TEXT,
    ("hypercorn", "handshake no *", "body"): _OWN_TEXT,
    ("hypercorn", "handshake short key", "*"): "a key has 16 bytes (RFC 6455 §4.2.1)",
    ("*", "handshake version 8", "*"): "another version is a 426 (RFC 6455 §4.4)",
    ("*", "handshake post", "fields"): _OWN_TEXT,
    ("*", "handshake post", "body"): _OWN_TEXT,
    ("hypercorn", "handshake post", "status"): "only GET opens one (RFC 6455 §4.1)",
}
# An exception of an application in its accept ends the whole server.
FATAL = {("hypercorn", "subprotocol foreign")}


class Outcome(NamedTuple):
    """What a client saw, and what the application was told at the end."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes
    messages: list[tuple[int, bytes]]
    close: tuple[int, str] | None
    received: Any


def parse_head(section: bytes) -> tuple[int, list[tuple[str, str]]]:
    """Return the status and the fields of a response."""
    first, *lines = section.decode("latin-1").split("\r\n")
    pairs = [line.partition(":") for line in lines]
    fields = sorted((name.lower(), value.strip()) for name, _, value in pairs)
    # Whether a refusal keeps the connection is each server's own choice; and protocols
    # have no case (RFC 9110 §7.8).
    kept = [
        (name, value.lower() if name == "upgrade" else value)
        for name, value in fields
        if name not in IGNORED and (name, value) != ("connection", "close")
    ]
    return int(first.split()[1]), kept


def parse_frames(wire: bytes) -> list[tuple[int, bytes]]:
    """Return the whole frames of a server, as opcode (with its bits) and content."""
    frames = []
    while len(wire) >= 2:
        length, start = wire[1], 2
        if length >= 126:
            start = 4 if length == 126 else 10
            length = int.from_bytes(wire[2:start], "big")
        if len(wire) < start + length:
            break
        frames.append((wire[0], wire[start : start + length]))
        wire = wire[start + length :]
    return frames


def find_close(frames: list[tuple[int, bytes]]) -> tuple[int, str] | None:
    """Return the code and the reason of the Close."""
    for opcode, content in frames:
        if opcode & 15 == Opcode.CLOSE:
            return int.from_bytes(content[:2], "big"), content[2:].decode()
    return None


async def talk(port: int, case: asgi_websocket_cases.Case) -> bytes:
    """Do what the client does, answer a Close by a Close; return all that came."""
    received = b""
    has_sent = False
    with suppress(trio.BrokenResourceError):
        async with await trio.open_tcp_stream(HOST, port) as stream:
            await stream.send_all(case.offer)
            async for chunk in stream:
                received += chunk
                section, found, rest = received.partition(b"\r\n\r\n")
                if not found:
                    continue
                status, fields = parse_head(section)
                if status != 101:
                    if is_complete(status, dict(fields), rest):
                        break
                    continue
                if not has_sent:
                    has_sent = True
                    await stream.send_all(case.frames)
                if case.cut:
                    break
                if find_close(parse_frames(rest)) is not None:
                    content = parse_frames(rest)[-1][1]
                    await stream.send_all(masked(content, Opcode.CLOSE))
                    break
    return received


def is_complete(status: int, fields: dict[str, str], rest: bytes) -> bool:
    """Whether an answer that is no switch is complete."""
    if status == 204:
        return True
    if fields.get("transfer-encoding") == "chunked":
        return join_chunks(rest)[1]
    return len(rest) >= int(fields.get("content-length", 1_000_000))


async def ask_received(port: int, name: str) -> Any:
    """Return what the application was told, which may take a moment."""
    known = None
    with trio.fail_after(5):
        while known is None:
            wire = b""
            async with await trio.open_tcp_stream(HOST, port) as stream:
                await stream.send_all(get(f"/?{name}", "Connection: close"))
                async for chunk in stream:
                    wire += chunk
            known = json.loads(wire.partition(b"\r\n\r\n")[2])
            await trio.sleep(0.01)
    return known


async def find_outcome(port: int, name: str, case: Any) -> Outcome:
    """Run one case."""
    wire = await talk(port, case)
    section, found, rest = wire.partition(b"\r\n\r\n")
    if not found:
        return Outcome(0, [], wire, [], None, None)
    status, fields = parse_head(section)
    is_called = b"?" in case.offer
    received = await ask_received(port, name.replace(" ", "-")) if is_called else None
    if status == 101:
        frames = parse_frames(rest)
        messages = [frame for frame in frames if frame[0] & 15 != Opcode.CLOSE]
        return Outcome(status, fields, b"", messages, find_close(frames), received)
    if dict(fields).get("transfer-encoding") == "chunked":
        rest = join_chunks(rest)[0]
    return Outcome(status, fields, rest, [], None, received)


@asynccontextmanager
async def run_ours() -> AsyncIterator[int]:
    """Serve with ours; give the port."""
    listeners = await trio.open_tcp_listeners(0, host=HOST)
    app = asgi_websocket_cases.returning
    async with open_asgi(app) as adapter, trio.open_nursery() as nursery:
        await nursery.start(serve_listeners, adapter, listeners)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def test_differences() -> None:
    """Status, fields, body, messages, codes: equal but for what is named above."""
    outcomes: dict[str, dict[str, Outcome]] = {}

    async def run(server: str, port: int) -> None:
        outcomes[server] = {
            name: await find_outcome(port, name, case)
            for name, case in CASES.items()
            if (server, name) not in FATAL
        }

    async with AsyncExitStack() as stack:
        ports = {
            name: await stack.enter_async_context(run_other(command, APP))
            for name, command in COMMANDS.items()
        }
        ports["ours"] = await stack.enter_async_context(run_ours())
        async with trio.open_nursery() as nursery:
            for item in ports.items():
                nursery.start_soon(run, *item)
    found = {
        (name, case, aspect): (getattr(ours, aspect), getattr(other, aspect))
        for name in COMMANDS
        for case, other in outcomes[name].items()
        for ours in [outcomes["ours"][case]]
        for aspect in Outcome._fields
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
