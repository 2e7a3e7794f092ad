"""Clients of others get informational responses, streamed answers and trailers."""

from __future__ import annotations

import json
import re
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import trio

from trio_upgrade import EndReason, Limits, Response, serve_tcp

from ..recording import Recorder
from ..wire import get
from .programs import BOUND, HOST, node, run, start

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio_upgrade import App, Request, Server

CURL = ["curl", "-q", "--noproxy", "*", "-sS", "--max-time", str(BOUND)]
LINK = "</a.css>; rel=preload"


async def serve(nursery: trio.Nursery, app: App, **options: Any) -> int:
    """Serve an app; return the port."""
    server: Server = await nursery.start(
        partial(serve_tcp, app, 0, host=HOST, strict=True, **options)
    )
    port = urlsplit(server.url).port
    assert port is not None
    return port


async def streaming(request: Request) -> None:
    """Hint, then stream two pieces with a trailer."""
    await request.send_informational(103, {"Link": LINK})
    async with request.respond(200) as answer:
        await answer.send(b"one, ")
        await answer.send(b"two")
        answer.trailers = {"X-Sum": "8"}


async def returning(request: Request) -> Response:
    """Answer the same by a Response."""
    await request.send_informational(103, {"Link": LINK})

    async def body() -> AsyncIterator[bytes]:
        yield b"one, "
        yield b"two"

    return Response(200, body(), trailers={"X-Sum": "8"})


@pytest.mark.peer("node")
@pytest.mark.parametrize("app", [streaming, returning])
async def test_node(nursery: trio.Nursery, app: App) -> None:
    """Node's http.request gets 'information' with the 103, and res.trailers."""
    with trio.fail_after(BOUND):
        port = await serve(nursery, app)
        result = await run(*node("answer_client.js", port))

    assert result.stderr == b""
    assert json.loads(result.stdout) == {
        "informational": [[103, "Early Hints", {"link": LINK}]],
        "status": 200,
        "content": "one, two",
        "complete": True,
        "trailers": {"x-sum": "8"},
    }
    nursery.cancel_scope.cancel()


@pytest.mark.peer("curl")
@pytest.mark.parametrize("app", [streaming, returning])
async def test_curl(nursery: trio.Nursery, app: App) -> None:
    """Curl --raw shows the chunks and the trailer, and -i the 103."""
    with trio.fail_after(BOUND):
        port = await serve(nursery, app)
        result = await run(*CURL, "-i", "--raw", f"http://{HOST}:{port}/")

    assert result.stderr == b""
    assert result.returncode == 0
    assert re.sub(rb"Date: [^\r]+\r\n", b"", result.stdout) == (
        b"HTTP/1.1 103 Early Hints\r\nLink: " + LINK.encode() + b"\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\none, \r\n3\r\ntwo\r\n0\r\nX-Sum: 8\r\n\r\n"
    )
    nursery.cancel_scope.cancel()


@pytest.mark.peer("nc")
@pytest.mark.parametrize("returned", [False, True])
async def test_netcat_that_ends_its_side(nursery: trio.Nursery, returned: bool) -> None:
    """`nc -N` ends its side after the request, and gets the whole of the answer."""

    async def body() -> AsyncIterator[bytes]:
        # Together longer than linger.
        for number in range(8):
            await trio.sleep(0.1)
            yield b"%d" % number

    async def app(request: Request) -> Response | None:
        if returned:
            return Response(200, body())
        async with request.respond(200) as answer:
            async for chunk in body():
                await answer.send(chunk)
        return None

    with trio.fail_after(BOUND):
        port = await serve(nursery, app, limits=Limits(linger=0.4))
        wire = get("/").replace(b"HTTP/1.1", b"HTTP/1.0")
        result = await run("nc", "-N", HOST, str(port), stdin=wire)

    assert result.stdout.partition(b"\r\n\r\n")[2] == b"01234567"
    nursery.cancel_scope.cancel()


@pytest.mark.peer("curl")
@pytest.mark.parametrize("returned", [False, True])
async def test_curl_that_is_killed(nursery: trio.Nursery, returned: bool) -> None:
    """The app of a curl that was killed is cancelled, though it waits in silence."""
    recorder = Recorder()
    ended = trio.Event()

    async def body() -> AsyncIterator[bytes]:
        try:
            yield b"first\n"
            await trio.sleep_forever()
        finally:
            ended.set()

    async def app(request: Request) -> Response | None:
        if returned:
            return Response(200, body())
        async with request.respond(200) as answer:
            async for chunk in body():
                await answer.send(chunk)
        return None

    with trio.fail_after(BOUND):
        port = await serve(nursery, app, limits=Limits(linger=0.2), observer=recorder)
        async with await start(*CURL, "-N", f"http://{HOST}:{port}/") as curl:
            assert await curl.read_line() == "first"
        await ended.wait()
        while not recorder.ends:
            await trio.lowlevel.checkpoint()

    assert recorder.reasons == [EndReason.LOST]
    assert isinstance(recorder.requests[0].cause, trio.BrokenResourceError)
    nursery.cancel_scope.cancel()
