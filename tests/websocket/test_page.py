"""docs/how-to/websocket.md: its programs run, and its names exist."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import websockets.exceptions
from websockets.trio.client import ClientConnection

import trio_upgrade
import trio_upgrade.websocket
from trio_upgrade import UpgradeRefused, serve_tcp
from trio_upgrade.websocket import open_websocket

from .wires import HOST

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "websocket.md").read_text()


def run_blocks() -> dict[str, Any]:
    """Run the Python of the page; return its names."""
    names: dict[str, Any] = {}
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    for block in blocks:
        exec(compile(block, "docs/how-to/websocket.md", "exec"), names)
    return names


async def test_programs(nursery) -> None:
    """The server, the client and the client that connects again work together."""
    names = run_blocks()
    serve = partial(serve_tcp, names["app"], 0, host=HOST, strict=True)
    server = await nursery.start(serve)
    url = server.url.replace("http", "ws", 1)

    assert await names["ask"](f"{url}/chat", "Hello") == "Hello"
    with pytest.raises(UpgradeRefused, match="404"):
        await names["ask"](f"{url}/other", "Hello")
    with pytest.raises(UpgradeRefused, match="403"):
        async with open_websocket(f"{url}/chat", origin="https://evil.example"):
            raise AssertionError


async def test_following(nursery) -> None:
    """The loop goes on after a lost connection, and ends by return."""
    handled: list[str] = []

    async def send_one(websocket) -> None:
        await websocket.send(str(len(handled)))
        if len(handled) < 1:
            raise ValueError

    async def handle(message: str) -> bool:
        handled.append(message)
        return len(handled) == 2

    async def app(request):
        return trio_upgrade.websocket.accept_websocket(request, send_one)

    server = await nursery.start(partial(serve_tcp, app, 0, host=HOST))
    await run_blocks()["follow"](server.url, handle)

    assert handled == ["0", "1"]


def test_names_of_ours() -> None:
    """Each function, exception and method that the right-hand sides name exists."""
    cells = [
        line.split(" | ")[-1] for line in PAGE.splitlines() if line.startswith("|")
    ]
    text = "\n".join(cells)
    functions = {*re.findall(r"\b((?:open|serve|accept|reconnecting)_\w+)", text)}
    exceptions = {*re.findall(r"\b([A-Z]\w+(?:Refused|Error|Switch|Closed))\b", text)}
    methods = {*re.findall(r"\bwebsocket\.(\w+)", text)} - {"nursery"}
    modules = trio_upgrade, trio_upgrade.websocket, websockets.exceptions
    found = {name for module in modules for name in dir(module)}

    assert len(functions) >= 6
    assert functions | exceptions <= found
    assert len(methods) >= 8
    assert methods <= {*dir(ClientConnection)}
