"""Node's ws 8 as the client and as the server, with and without compression."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosedError

from trio_upgrade.websocket import open_websocket

from ..interop.programs import HOST, Program, start
from .wires import echo_or_burst, serve

pytestmark = pytest.mark.peer("node")

SCRIPTS = Path(__file__).parent
BIG = b"x" * 2**20
both = pytest.mark.parametrize("deflate", [False, True], ids=["plain", "deflate"])


@cache
def find_ws() -> str | None:
    """Return the folder of Node packages that has ws; None if there is none."""
    folders = [os.environ.get("NODE_PATH", "")]
    command = ["npm", "root", "--global"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        folders.append(found.stdout.strip())
    except FileNotFoundError:
        pass
    return next((folder for folder in folders if (Path(folder) / "ws").is_dir()), None)


@pytest.fixture(autouse=True)
def _ws(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = find_ws()
    if folder is None:
        pytest.skip("needs Node's ws: npm install --global ws@8")
    monkeypatch.setenv("NODE_PATH", folder)


async def run_node(script: str, *arguments: object) -> Program:
    """Start one of the scripts in this folder."""
    return await start("node", str(SCRIPTS / script), *map(str, arguments))


@both
async def test_client(deflate: bool, nursery) -> None:
    """Echo, fragments, a ping, 50 messages right after the 101, closes of both sides."""
    _, url = await serve(nursery, echo_or_burst, subprotocols=["a", "b"])
    async with await run_node("ws_client.js", url, str(deflate).lower()) as client:
        seen = await client.read_json()

    assert seen == {
        "deflate": deflate,
        "subprotocol": "a",
        "messages": 3,
        "pong": True,
        "codes": [[4000, "ours"], [4001, "theirs"]],
        "burst": 50,
    }


@both
async def test_server(deflate: bool) -> None:
    """The same, with our client."""
    async with await run_node("ws_server.js", str(deflate).lower()) as server:
        report = await server.read_json()
        url = f"ws://{HOST}:{report['port']}/"
        async with open_websocket(url, subprotocols=["b", "a"]) as websocket:
            assert websocket.subprotocol == "a"
            assert len(websocket.protocol.extensions) == deflate
            burst = [await websocket.recv() for _ in range(50)]
            assert burst == [str(number) for number in range(50)]
            await websocket.send(BIG)
            assert await websocket.recv() == BIG
            await websocket.send(["frag", "ments"])
            assert await websocket.recv() == "fragments"
            await (await websocket.ping()).wait()
            await websocket.aclose(4000, "ours")
        assert await server.read_json() == {"code": 4000, "reason": "ours"}
        async with open_websocket(url) as websocket:
            await websocket.send("close")
            with pytest.raises(ConnectionClosedError, match=r"4001 .* theirs"):
                while True:
                    await websocket.recv()
        assert await server.read_json() == {"code": 4001, "reason": "theirs"}
