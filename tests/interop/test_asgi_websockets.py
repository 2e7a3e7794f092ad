"""The WebSockets of Starlette, FastAPI and Litestar, under Trio."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from websockets.exceptions import ConnectionClosed

from trio_upgrade import UpgradeRefused, serve_tcp
from trio_upgrade.asgi import open_asgi
from trio_upgrade.websocket import open_websocket

from ..recording import Recorder
from .programs import HOST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio_upgrade import Server

for _name in ("starlette", "fastapi", "litestar"):
    pytest.importorskip(_name, reason=f"needs {_name}: pip install --group asgi")

from . import asgi_websocket_frameworks  # noqa: E402  imports the frameworks

each_framework = pytest.mark.parametrize(
    "framework", sorted(asgi_websocket_frameworks.MAKERS)
)


@pytest.fixture
def log(monkeypatch) -> list[Any]:
    """Return a new log of the routes."""
    log: list[Any] = []
    monkeypatch.setattr(asgi_websocket_frameworks, "log", log)
    return log


@asynccontextmanager
async def serving(framework: str) -> AsyncIterator[tuple[Server, Recorder]]:
    """Serve a framework; the drain at the end waits for each handler."""
    recorder = Recorder()
    app = asgi_websocket_frameworks.MAKERS[framework]()
    async with open_asgi(app) as adapter, trio.open_nursery() as nursery:
        server = await nursery.start(
            partial(serve_tcp, adapter, 0, host=HOST, observer=recorder)
        )
        yield server, recorder
        await server.drain(grace=5)


async def find_end(url: str) -> tuple[int, str]:
    """Open a WebSocket, wait for its end, return code and reason."""
    async with open_websocket(url) as websocket:
        with pytest.raises(ConnectionClosed) as caught:
            await websocket.recv()
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


@each_framework
async def test_echo(framework: str, log: list[Any]) -> None:
    """Text both ways, a subprotocol, and the code of the client at the end."""
    async with serving(framework) as (server, recorder):
        async with open_websocket(server.url + "/echo", subprotocols=["a", "b"]) as it:
            assert it.subprotocol == "a"
            for message in ("one", "é" * 50_000):
                await it.send(message)
                assert await it.recv() == message
            await it.aclose(4000, "bye")

    assert log == [(4000, "" if framework == "litestar" else "bye")]
    assert not recorder.errors


@each_framework
async def test_drain(framework: str, log: list[Any]) -> None:
    """A drain ends an idle WebSocket with 1012, and the route hears of it."""
    async with serving(framework) as (server, recorder):
        async with open_websocket(server.url + "/echo") as websocket:
            await websocket.send("x")
            assert await websocket.recv() == "x"
            server.start_drain(60)
            with pytest.raises(ConnectionClosed, match="1012"):
                await websocket.recv()

    assert log == [(1012, "")]
    assert not recorder.errors


@each_framework
@pytest.mark.parametrize(
    ("path", "code"), [("/close", 4001), ("/leave", 1000), ("/policy", 1008)]
)
async def test_ends(framework: str, path: str, code: int) -> None:
    """A route that closes, returns, or raises the exception for a code."""
    async with serving(framework) as (server, recorder):
        found, _ = await find_end(server.url + path)

    assert found == code
    assert not recorder.errors


@each_framework
async def test_error(framework: str, caplog) -> None:
    """A bug is 1011, and logged once; Litestar closes by itself with 4500."""
    async with serving(framework) as (server, recorder):
        code, _ = await find_end(server.url + "/fail")

    assert code == (4500 if framework == "litestar" else 1011)
    assert len(recorder.errors) == (framework != "litestar")


@each_framework
@pytest.mark.parametrize(
    ("path", "status"), [("/refuse", 403), ("/missing", 403), ("/deny", 401)]
)
async def test_refusals(framework: str, path: str, status: int) -> None:
    """A close before the accept, a missing route, and a response of the route."""
    if framework == "litestar" and path == "/deny":
        pytest.skip("Litestar has no denial responses")
    async with serving(framework) as (server, recorder):
        with pytest.raises(UpgradeRefused) as caught:
            async with open_websocket(server.url + path):
                pass

    assert caught.value.response.status == status
    if status == 401:
        assert await caught.value.response.read() == b'{"login":"first"}'
    assert not recorder.errors


@each_framework
@pytest.mark.parametrize("way", ["close", "cut"])
async def test_client_leaves_a_sender(framework: str, way: str, log: list[Any]) -> None:
    """A route that only sends ends when the client has left: an ordinary end."""
    async with serving(framework) as (server, recorder):
        async with open_websocket(server.url + "/tick", close_timeout=0) as websocket:
            assert await websocket.recv() == "tick"
            if way == "cut":
                await websocket.stream.aclose()
        with trio.fail_after(5):
            while not recorder.ends:  # noqa: ASYNC110  it is a list
                await trio.sleep(0.005)

    assert log == ["left"]
    assert not recorder.errors
