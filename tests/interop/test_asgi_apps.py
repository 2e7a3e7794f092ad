"""Starlette, FastAPI and Litestar under Trio: all that their users expect of a server."""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import trio

from trio_upgrade import open_connection, serve_tcp
from trio_upgrade.asgi import open_asgi

from ..recording import Recorder
from ..wire import get
from .programs import HOST, Program, read_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio_upgrade import Server

for _name in ("starlette", "fastapi", "litestar", "python_multipart"):
    pytest.importorskip(_name, reason=f"needs {_name}: pip install --group asgi")

from . import asgi_frameworks  # noqa: E402  imports the frameworks

FRAMEWORKS = sorted(asgi_frameworks.MAKERS)
WITH_POLL = ["fastapi", "starlette"]
ROOT = Path(__file__).parents[2]
each_framework = pytest.mark.parametrize("framework", FRAMEWORKS)
# Growth that is allowed while 100 MiB pass, in KiB.
MOST_GROWTH = 16 * 1024
MULTIPART = (
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n'
    b"Content-Type: application/octet-stream\r\n\r\n"
    + bytes(300_000)
    + b"\r\n--x--\r\n"
)


@pytest.fixture
def log(monkeypatch) -> list[Any]:
    """Return a new log of the routes."""
    log: list[Any] = []
    monkeypatch.setattr(asgi_frameworks, "log", log)
    return log


class Serving:
    """A framework that is served in this process."""

    def __init__(self, server: Server, recorder: Recorder) -> None:
        self.server = server
        self.recorder = recorder

    async def ask(self, method: str, path: str, **options: Any) -> tuple[int, bytes]:
        """Make one request on a connection of its own; return status and content."""
        async with await open_connection(self.server.url) as connection:
            response = await connection.request(method, path, **options)
            return response.status, await response.read(limit=10_000_000)

    async def connect(self, path: str) -> trio.SocketStream:
        """Send a GET on a new connection."""
        port = urlsplit(self.server.url).port
        assert port is not None
        stream = await trio.open_tcp_stream(HOST, port)
        await stream.send_all(get(path))
        return stream


@asynccontextmanager
async def serving(framework: str) -> AsyncIterator[Serving]:
    """Serve a framework; at the end there were no errors of the app."""
    recorder = Recorder()
    app = asgi_frameworks.MAKERS[framework]()
    async with open_asgi(app, lifespan="on") as adapter, trio.open_nursery() as nursery:
        server = await nursery.start(
            partial(serve_tcp, adapter, 0, host=HOST, observer=recorder)
        )
        yield Serving(server, recorder)
        await server.drain(grace=1)


async def wait_for(log: list[Any], entry: object) -> None:
    """Wait until the log has an entry, at most a second."""
    with trio.fail_after(1):
        while entry not in log:  # noqa: ASYNC110  it is a list
            await trio.sleep(0.005)


@each_framework
async def test_json(framework: str, log: list[Any]) -> None:
    """JSON, the state of the lifespan, and the async library is Trio."""
    async with serving(framework) as served:
        status, content = await served.ask("GET", "/json")
        missing, _ = await served.ask("GET", "/missing")

    assert status == 200
    assert json.loads(content) == {"state": "pool", "library": "trio"}
    assert missing == 404
    assert log == ["startup", "shutdown"]
    assert not served.recorder.errors


@each_framework
async def test_thread(framework: str, log: list[Any]) -> None:
    """A route that is no coroutine runs in a thread of Trio's."""
    async with serving(framework) as served:
        status, content = await served.ask("GET", "/thread")

    assert (status, json.loads(content)) == (200, {"library": None})


@each_framework
async def test_error(framework: str, log: list[Any]) -> None:
    """A bug is a 500 of the framework; those that raise it again are logged once."""
    async with serving(framework) as served:
        status, _ = await served.ask("GET", "/error")

    assert status == 500
    # Litestar logs it itself.
    assert len(served.recorder.errors) == (framework != "litestar")


@each_framework
async def test_stream(framework: str, log: list[Any]) -> None:
    """A streamed answer, twice on one connection."""
    async with serving(framework) as served:
        async with await open_connection(served.server.url) as connection:
            for _ in range(2):
                response = await connection.request("GET", "/stream")
                assert await response.read() == b"0\n1\n2\n"


@each_framework
async def test_background(framework: str, log: list[Any]) -> None:
    """A background task runs after the answer, also if the client leaves."""
    async with serving(framework) as served:
        async with await open_connection(served.server.url) as connection:
            response = await connection.request("GET", "/background")
            await response.read()
            assert "background" not in log
        await wait_for(log, "background")

    assert not served.recorder.errors


@each_framework
async def test_multipart(framework: str, log: list[Any]) -> None:
    """A form with a file."""
    fields = {"Content-Type": "multipart/form-data; boundary=x"}
    async with serving(framework) as served:
        status, content = await served.ask(
            "POST", "/upload", headers=fields, body=MULTIPART
        )

    assert (status, json.loads(content)) == (200, {"name": "a.bin", "size": 300_000})


@pytest.mark.parametrize("framework", WITH_POLL)
@pytest.mark.parametrize("way", ["close", "send_eof"])
async def test_is_disconnected(framework: str, way: str, log: list[Any]) -> None:
    """is_disconnected() is true within a second after the client has left."""
    async with serving(framework) as served:
        stream = await served.connect("/poll")
        await wait_for(log, "asked")
        await trio.sleep(5 * asgi_frameworks.POLL)
        assert "gone" not in log
        if way == "send_eof":
            await stream.send_eof()
        else:
            await stream.aclose()
        await wait_for(log, "gone")
        await stream.aclose()

    assert not served.recorder.errors


@each_framework
async def test_client_leaves_a_silent_stream(framework: str, log: list[Any]) -> None:
    """A stream that is silent ends within a second after the client has left."""
    async with serving(framework) as served:
        async with await served.connect("/silent") as stream:
            assert await stream.receive_some()
        await wait_for(log, "closed")

    assert not served.recorder.errors


@each_framework
async def test_client_that_stops_reading(framework: str, log: list[Any]) -> None:
    """A client that stops reading stops the app, and ends it when it leaves."""
    async with serving(framework) as served:
        async with await served.connect("/endless") as stream:
            assert await stream.receive_some()
            before = -1
            while before != len(log):
                before = len(log)
                await trio.sleep(0.2)
            # The buffers of the kernel: a few MiB.
            assert sum(size for size in log if isinstance(size, int)) < 32 * 2**20
        with trio.fail_after(1):
            while not served.recorder.ends:  # noqa: ASYNC110  it is a list
                await trio.sleep(0.005)

    assert not served.recorder.errors


@asynccontextmanager
async def program(framework: str, grace: float = 5) -> AsyncIterator[Program]:
    """Run the server in a process of its own."""
    # Not -X dev: it makes memory grow.
    command = [sys.executable, "-m", "tests.interop.asgi_server", framework, str(grace)]
    process = await trio.lowlevel.open_process(
        command, stdin=-1, stdout=-1, cwd=ROOT, env=make_environment()
    )
    async with Program(process) as running:
        yield running


def make_environment() -> dict[str, str]:
    """Return an environment in which the tests can be imported."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


async def read_resident(server: Program) -> int:
    """Read the memory that a server prints."""
    while not (line := await server.read_line()).startswith("resident "):
        assert line, "it has ended"
    return int(line.split()[1])


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux")
@pytest.mark.parametrize("way", ["up", "down"])
@each_framework
async def test_memory(framework: str, way: str) -> None:
    """While 100 MiB go up or down, the server grows by less than 16 MiB."""

    async def pieces() -> AsyncIterator[bytes]:
        async for chunk in asgi_frameworks.send_big():
            yield chunk

    async with program(framework) as server:
        assert await server.read_line() == "startup"
        url = await read_url(server)
        before = await read_resident(server)
        async with await open_connection(url) as connection:
            # Import what the first request imports.
            await (await connection.request("POST", "/big", body=b"x")).read()
            if way == "up":
                length = {"Content-Length": str(asgi_frameworks.BIG)}
                response = await connection.request(
                    "POST", "/big", headers=length, body=pieces()
                )
                assert json.loads(await response.read()) == {
                    "size": asgi_frameworks.BIG
                }
            else:
                response = await connection.request("GET", "/big")
                size = await asgi_frameworks.count(response.stream())
                assert size == asgi_frameworks.BIG
        server.process.send_signal(signal.SIGTERM)
        after = await read_resident(server)
        assert await server.process.wait() == 0

    assert after - before < MOST_GROWTH


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals: not on Windows")
@pytest.mark.parametrize("phase", ["idle", "before", "inside", "background"])
@each_framework
async def test_sigterm(framework: str, phase: str) -> None:
    """SIGTERM in each phase of a request: it is finished, and the shutdown is run."""
    paths = {
        "idle": "/json",
        "before": "/stream",
        "inside": "/stream",
        "background": "/background",
    }
    async with program(framework) as server:
        assert await server.read_line() == "startup"
        url = await read_url(server)
        await read_resident(server)
        async with await open_connection(url) as connection:
            # It is served for the first time slowly: let it be the second.
            await (await connection.request("GET", "/json")).read()
            if phase == "before":
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(terminate_soon, server)
                    response = await connection.request("GET", paths[phase])
            else:
                response = await connection.request("GET", paths[phase])
            if phase == "background":
                assert await response.read() == b"{}"
            if phase != "before":
                server.process.send_signal(signal.SIGTERM)
            if phase in ("before", "inside"):
                assert await response.read() == b"0\n1\n2\n"
            elif phase == "idle":
                await response.read()
            lines = [line async for line in iter_lines(server)]
        assert await server.process.wait() == 0

    background = ["background"] if phase == "background" else []
    assert lines[:-1] == [*background, "shutdown"]


async def terminate_soon(server: Program) -> None:
    """Send SIGTERM in a moment."""
    await trio.sleep(0.005)
    server.process.send_signal(signal.SIGTERM)


async def iter_lines(server: Program) -> AsyncIterator[str]:
    """Yield the lines that a program prints until it ends."""
    while line := await server.read_line():
        yield line


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals: not on Windows")
@each_framework
async def test_sigterm_ends_a_stream(framework: str) -> None:
    """A stream that does not end is cancelled when the grace is over."""
    async with program(framework, 0.1) as server:
        assert await server.read_line() == "startup"
        url = await read_url(server)
        await read_resident(server)
        async with await open_connection(url) as connection:
            response = await connection.request("GET", "/silent")
            pieces = aiter(response.stream())
            assert await anext(pieces) == b"one\n"
            server.process.send_signal(signal.SIGTERM)
            lines = [line async for line in iter_lines(server)]
        assert await server.process.wait() == 0

    assert lines[:-1] == ["closed", "shutdown"]
