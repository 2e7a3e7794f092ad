"""Programs of others through our proxies."""

from __future__ import annotations

import os
import sys
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_upgrade import Response, serve_tcp, serve_unix
from trio_upgrade.proxy import ForwardProxy, ReverseProxy, TunnelRecord

from .docker_daemon import Daemon
from .programs import BOUND, HOST, node, run, start
from .test_docker import clients, interactive

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from trio_upgrade import Request

CURL = ["curl", "-q", "-sS", "--noproxy", "", "--max-time", str(BOUND)]


@pytest.mark.skipif(sys.platform == "win32", reason="needs Unix sockets and sh")
class TestDocker:
    """``docker exec``, a proxy, and the stand-in daemon."""

    @asynccontextmanager
    async def proxied(self, folder: Path) -> AsyncIterator[tuple[str, list[Any]]]:
        """Serve daemon and proxy; yield the proxy's URL and the records of tunnels."""
        records: list[TunnelRecord] = []
        inner, outer = folder / "daemon.sock", folder / "proxy.sock"
        url = f"http+unix://{str(inner).replace('/', '%2F')}"
        async with (
            trio.open_nursery() as nursery,
            ReverseProxy(url, upgrades=("tcp",), on_tunnel=records.append) as proxy,
        ):
            for app, path in ((Daemon().app, inner), (proxy, outer)):
                serve = partial(serve_unix, app, path, mode=0o600, strict=True)
                await nursery.start(serve)
            with trio.fail_after(BOUND):
                yield f"unix://{outer}", records
            nursery.cancel_scope.cancel()

    @clients
    async def test_outputs_and_status(self, client: str, tmp_path: Path) -> None:
        """The two outputs of the command come separately, and then its status."""
        script = "cat; echo error >&2; exit 3"
        async with self.proxied(tmp_path) as (host, records):
            command = interactive(client, host, "box", "sh", "-c", script)
            result = await run(*command, stdin=b"through\n")

        assert (result.stdout, result.stderr) == (b"through\n", b"error\n")
        assert result.returncode == 3
        assert [record.protocol for record in records] == ["tcp"]

    @clients
    async def test_input_ends_by_half_close(self, client: str, tmp_path: Path) -> None:
        """5 MB go in and come back; the half-close goes through the proxy."""
        content = os.urandom(5_000_000)
        async with self.proxied(tmp_path) as (host, records):
            command = interactive(client, host, "box", "cat")
            result = await run(*command, stdin=content)

        assert result.returncode == 0, result.stderr
        assert result.stdout == content
        assert records[0].from_client == len(content)
        assert records[0].cause == "eof"

    @clients
    async def test_no_such_container(self, client: str, tmp_path: Path) -> None:
        """The refusal of the daemon is shown."""
        async with self.proxied(tmp_path) as (host, _):
            result = await run(*interactive(client, host, "nobody", "cat"))

        assert b"No such container: nobody" in result.stderr
        assert result.returncode == 1


async def count_app(request: Request) -> Response:
    """Say what came; stream, with trailers."""
    size = 0
    async for chunk in request.stream():
        size += len(chunk)

    async def content() -> AsyncIterator[bytes]:
        yield f"{request.method} {request.target} {size} ".encode()
        yield request.headers.get("x-forwarded-for", "nobody").encode()

    if request.path == "/hint":
        await request.send_informational(103, {"Link": "</a>"})
    return Response(200, content(), trailers={"X-Sum": "1"})


@pytest.mark.peer("curl")
async def test_curl_through_the_reverse_proxy(nursery: trio.Nursery) -> None:
    """Chunked both ways, with trailers and a 100 (curl --raw shows the bytes)."""
    upstream = await nursery.start(partial(serve_tcp, count_app, 0, host=HOST))
    async with ReverseProxy(upstream.url) as proxy:
        server = await nursery.start(partial(serve_tcp, proxy, 0, host=HOST))
        chunked = ["-T", "-", "-H", "Expect: 100-continue"]
        result = await run(
            *CURL, "--raw", *chunked, f"{server.url}/a", stdin=bytes(3_000_000)
        )
    nursery.cancel_scope.cancel()

    assert result.stderr == b""
    assert b"PUT /a 3000000 " in result.stdout
    assert b"127.0.0.1" in result.stdout
    assert result.stdout.endswith(b"0\r\nX-Sum: 1\r\n\r\n")


@pytest.mark.peer("curl")
@pytest.mark.parametrize("user", ["me:secret", "me:wrong"])
async def test_curl_through_the_forward_proxy(nursery: trio.Nursery, user) -> None:
    """A request with an absolute target, and one in a tunnel, with credentials."""
    upstream = await nursery.start(partial(serve_tcp, count_app, 0, host=HOST))
    async with ForwardProxy(
        networks=["127.0.0.0/8"],
        ports=range(1, 65536),
        http_ports=range(1, 65536),
        authenticate=lambda *given: given == ("me", "secret"),
    ) as proxy:
        server = await nursery.start(partial(serve_tcp, proxy, 0, host=HOST))
        for more in ([], ["--proxytunnel"]):
            command = [*CURL, *more, "-x", server.url, "-U", user, "-i"]
            result = await run(*command, f"{upstream.url}/a")

            if user == "me:secret":
                assert b"\r\n\r\nGET /a 0 nobody" in result.stdout
            else:
                assert b"HTTP/1.1 407 " in result.stdout
                assert b"GET /a" not in result.stdout
    nursery.cancel_scope.cancel()


@pytest.mark.peer("nc")
async def test_nc_gets_the_whole_answer(nursery: trio.Nursery) -> None:
    """``nc -N`` ends its side after the request, and gets what makes progress."""

    async def app(_request: Request) -> Response:
        async def content() -> AsyncIterator[bytes]:
            for number in range(5):
                yield b"%d" % number
                await trio.sleep(0.05)

        return Response(200, content())

    upstream = await nursery.start(partial(serve_tcp, app, 0, host=HOST))
    async with ReverseProxy(upstream.url) as proxy:
        server = await nursery.start(partial(serve_tcp, proxy, 0, host=HOST))
        port = server.url.rpartition(":")[2]
        wire = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        result = await run("nc", HOST, port, stdin=wire)
    nursery.cancel_scope.cancel()

    assert result.stdout.endswith(b"1\r\n4\r\n0\r\n\r\n")


@pytest.mark.peer("node")
async def test_node_through_the_proxy(nursery: trio.Nursery) -> None:
    """Node's client gets the 103 and the trailers through the proxy."""
    upstream = await nursery.start(partial(serve_tcp, count_app, 0, host=HOST))
    async with ReverseProxy(upstream.url) as proxy:
        server = await nursery.start(partial(serve_tcp, proxy, 0, host=HOST))
        async with await start(
            *node("proxied_client.js", f"{server.url}/hint")
        ) as peer:
            seen = await peer.read_json()
    nursery.cancel_scope.cancel()

    assert seen["hints"] == [[103, "</a>"]]
    assert seen["trailers"] == {"x-sum": "1"}
    assert seen["body"] == "POST /hint 5 127.0.0.1"
