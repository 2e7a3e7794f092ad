"""docs/topics/websocket.md: its programs run; the names of its tables exist."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import websockets.exceptions
from websockets.trio.client import ClientConnection

import trio_upgrade.asgi
import trio_upgrade.proxy
import trio_upgrade.testing
import trio_upgrade.websocket
from trio_upgrade import UpgradeRefused, serve_tcp
from trio_upgrade.websocket import open_websocket

from .wires import HOST

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "topics" / "websocket.md").read_text()
# Tables of what the names of others become here.
OTHERS = ("aiohttp", "go", "hypercorn", "node", "trio-websocket", "websockets")


def run_blocks() -> dict[str, Any]:
    """Run the Python of the page; return its names."""
    names: dict[str, Any] = {}
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    for block in blocks:
        exec(compile(block, "docs/topics/websocket.md", "exec"), names)
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
    pages = [PAGE, *((DOCS / "coming-from" / f"{x}.md").read_text() for x in OTHERS)]
    lines = [line for page in pages for line in page.splitlines()]
    text = "\n".join(line.split(" | ")[-1] for line in lines if line.startswith("|"))
    functions = {*re.findall(r"\b((?:open|serve|accept|reconnecting)_\w+)", text)}
    classes = {
        *re.findall(r"\b([A-Z]\w+(?:Refused|Error|Switch|Closed|Proxy|Pool))\b", text)
    }
    methods = {*re.findall(r"\bwebsocket\.(\w+)", text)} - {"nursery"}
    modules = (
        trio_upgrade,
        trio_upgrade.asgi,
        trio_upgrade.proxy,
        trio_upgrade.testing,
        trio_upgrade.websocket,
        websockets.exceptions,
        trio_upgrade.Request,
    )
    found = {name for module in modules for name in dir(module)}

    assert len(functions) >= 10
    assert functions | classes <= found
    assert len(methods) >= 8
    assert methods <= {*dir(ClientConnection)}
