"""Malformed requests through a proxy: no upstream sees one that the proxy did not send.

The proxy adds a field to each request that it forwards, so a request without that field
was smuggled: the upstream found it in bytes that were something else to the proxy.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from benchmarks.fuzz.requests import make
from trio_upgrade import Limits, serve_tcp
from trio_upgrade.proxy import ReverseProxy

from ..interop.programs import HOST, run, start, wait_listening
from .messages import parse_request
from .scenes import End, Upstream, okay

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio_upgrade import Request
    from trio_upgrade.proxy import OutgoingRequest

HERE = Path(__file__).parent
REQUESTS = 400
# Seconds for a client that waits for an answer which does not come.
_PATIENCE = 0.3
_TOGETHER = 20
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
NGINX_CONFIG = """
daemon off;
master_process off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log crit;
events {{ worker_connections 512; }}
http {{
    log_format seen '{{"passed": "$http_passed", "line": "$status"}}';
    access_log {folder}/seen.log seen;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 0;
    server {{
        listen {host}:{port};
        location / {{ return 200 "okay"; }}
    }}
}}
"""


def wires() -> Iterator[bytes]:
    """Yield the corpus: mutated requests, and the classics of request smuggling."""
    for number in range(REQUESTS):
        yield make("proxy", number).wire
    hidden = SMUGGLED
    post = b"POST / HTTP/1.1\r\nHost: x\r\n"
    size = len(hidden)
    for coding in (
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: xchunked",
        b"Transfer-Encoding : chunked",
        b"Transfer-Encoding:\tchunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
        b"Transfer-Encoding: identity, chunked",
        b"X: x\nTransfer-Encoding: chunked",
        b" Transfer-Encoding: chunked",
        b"Transfer-Encoding\x0b: chunked",
        b"Transfer_Encoding: chunked",
        b"Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked",
    ):
        yield (
            post
            + b"Content-Length: %d\r\n%b\r\n\r\n0\r\n\r\n"
            % (
                size + 5,
                coding,
            )
            + hidden
        )
        yield post + b"%b\r\n\r\n0\r\n\r\n" % coding + hidden
    for length in (b"+0", b"0, %d" % size, b"0x0", b"-1", b"0 0", b"00", b"0\r\n 1"):
        yield post + b"Content-Length: %b\r\n\r\n" % length + hidden
    yield post + b"Content-Length: %d\r\nContent-Length: 0\r\n\r\n" % size + hidden
    yield (
        post
        + b"Connection: Content-Length\r\nContent-Length: %d\r\n\r\n" % size
        + (hidden)
    )
    for line in (b"5;a=\n\r\nhello\r\n0\r\n\r\n", b"5\nhello\r\n0\r\n\r\n"):
        yield post + b"Transfer-Encoding: chunked\r\n\r\n" + line + hidden
    yield (
        b"GET / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: "
        + (b"%d\r\n\r\n" % size)
        + hidden
    )
    yield b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + hidden
    yield b"GET / HTTP/1.1\r\nHost: x\r\nX: \x00\r\n\r\n" + hidden
    yield b"GET / HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n" + hidden


async def send_all(port: int) -> None:
    """Send the corpus to the proxy, each request with another one after it."""
    room = trio.CapacityLimiter(_TOGETHER)

    async def send(wire: bytes) -> None:
        async with room, await trio.open_tcp_stream(HOST, port) as stream:
            with suppress(trio.BrokenResourceError), trio.move_on_after(_PATIENCE):
                await stream.send_all(wire + SMUGGLED)
                await End(stream).receive_all()

    async with trio.open_nursery() as nursery:
        for wire in wires():
            nursery.start_soon(send, wire)


def mark(_incoming: Request, outgoing: OutgoingRequest) -> OutgoingRequest:
    """Add the field of requests that the proxy has sent."""
    return outgoing._replace(headers=outgoing.headers.replaced("Passed", "here"))


async def run_corpus(url: str) -> int:
    """Send the corpus through a proxy to an upstream; return how many it forwarded."""
    async with trio.open_nursery() as nursery:
        async with ReverseProxy(
            url, rewrite=mark, upgrades=("echo", "websocket"), connect_timeout=5
        ) as proxy:
            serve = partial(
                serve_tcp, proxy, 0, host=HOST, limits=Limits(linger=0), strict=True
            )
            server = await nursery.start(serve)
            await send_all(server.listeners[0].socket.getsockname()[1])
            nursery.cancel_scope.cancel()
    forwarded = proxy.statistics().requests
    assert forwarded > REQUESTS / 4
    return forwarded


def check_seen(marks: list[str | None], forwarded: int) -> None:
    """Each request that the upstream has seen is one that the proxy has sent."""
    assert len(marks) > REQUESTS / 4
    assert len(marks) <= forwarded
    assert {*marks} == {"here"}


async def test_scripted_upstream(nursery: trio.Nursery) -> None:
    """Each connection is a row of well-formed requests, each with the proxy's mark."""
    done: list[bytes] = []

    async def handle(end: End) -> None:
        begin = 0
        while await end.receive_more():
            message = bytes(end.received[begin:])
            if b"\r\n\r\n" not in message or not parse_request(message).whole:
                continue
            done.append(message)
            begin = len(end.received)
            await end.stream.send_all(okay())

    upstream = Upstream(handle)
    await nursery.start(upstream.serve)
    forwarded = await run_corpus(upstream.url)

    for message in done:
        request = parse_request(message)
        rest = message.partition(b"\r\n\r\n")[2]
        if request.framing == "chunked":
            # Nothing may follow the last chunk: all of it was received together.
            assert rest.endswith(b"\r\n\r\n")
            assert rest.count(b"HTTP/1.1") == request.body.count(b"HTTP/1.1")
        else:
            assert rest == request.body
        assert request.fields["passed"] == ["here"]
        assert len(request.fields["host"]) == 1
    assert len(done) <= forwarded
    nursery.cancel_scope.cancel()


@pytest.mark.peer("node")
async def test_node_upstream() -> None:
    """Node sees no other request."""
    async with await start("node", str(HERE / "seen_server.js")) as node:
        port = (await node.read_json())["port"]
        forwarded = await run_corpus(f"http://{HOST}:{port}")
        assert node.process.stdin is not None
        await node.process.stdin.aclose()
        lines = (await node.read_until(b"\0")).decode().splitlines()

    seen = [json.loads(line) for line in lines]
    marks = [entry["passed"] for entry in seen if "passed" in entry]
    for entry in seen:
        # Node does not know every method, and a request that its client has cut is cut
        # for Node as well.
        if entry.get("error") == "HPE_INVALID_METHOD":
            assert entry["raw"].count("Passed: here") == 1
        else:
            assert entry.get("error") in (None, "ECONNRESET", "HPE_INVALID_EOF_STATE")
    check_seen(marks, forwarded)


@pytest.mark.peer("go")
async def test_go_upstream(tmp_path: Path) -> None:
    """Go's server sees no other request."""
    program = str(tmp_path / "seen_server")
    source = str(HERE / "seen_server.go")
    built = await run(shutil.which("go") or "go", "build", "-o", program, source)
    assert built.returncode == 0, built.stderr
    async with await start(program) as server:
        port = int(await server.read_line())
        forwarded = await run_corpus(f"http://{HOST}:{port}")
        assert server.process.stdin is not None
        await server.process.stdin.aclose()
        lines = (await server.read_until(b"\0")).decode().splitlines()

    marks = [(re.findall(r'"([^"]*)"', line) or [None])[-1] for line in lines]
    check_seen(marks, forwarded)


@pytest.mark.peer("nginx")
async def test_nginx_upstream(tmp_path: Path) -> None:
    """Nginx sees no other request."""
    with socket.create_server((HOST, 0)) as unused:
        port: int = unused.getsockname()[1]
    config = tmp_path / "nginx.conf"
    config.write_text(NGINX_CONFIG.format(folder=tmp_path, host=HOST, port=port))
    command = ["nginx", "-p", str(tmp_path), "-e", "stderr", "-c", str(config)]
    async with await start(*command):
        await wait_listening(port)
        forwarded = await run_corpus(f"http://{HOST}:{port}")

    lines = (tmp_path / "seen.log").read_text().splitlines()
    seen = [json.loads(line) for line in lines]
    # 499 and 400 are requests that their clients have cut.
    check_seen([entry["passed"] for entry in seen if entry["passed"] != "-"], forwarded)
    assert {entry["line"] for entry in seen if entry["passed"] == "-"} <= {"400", "499"}
