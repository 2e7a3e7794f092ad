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
from .strict_wires import record_wires

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio_upgrade import Request
    from trio_upgrade.proxy import OutgoingRequest

HERE = Path(__file__).parent
REQUESTS = 400
# Seconds for a client that waits for an answer which does not come.
_PATIENCE = 0.3
_TOGETHER = 20
APACHE_MODULES = "/usr/lib/apache2/modules"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
NGINX_CONFIG = """
daemon off;
master_process off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log crit;
events {{ worker_connections 512; }}
http {{
    log_format seen '{{"passed": "$http_passed", "status": $status}}';
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
# Field values of the client are quoted by Apache so that each line is JSON.
APACHE_CONFIG = """
ServerRoot {folder}
ServerName {host}
Listen {host}:{port}
PidFile {folder}/apache.pid
Mutex file:{folder}
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule alias_module {modules}/mod_alias.so
StartServers 1
ServerLimit 1
ThreadsPerChild 64
MaxRequestWorkers 64
MaxKeepAliveRequests 0
LogFormat "{{\\"passed\\": \\"%{{Passed}}i\\", \\"status\\": %>s}}" seen
CustomLog {folder}/seen.log seen
ErrorLog {folder}/error.log
RedirectMatch 403 ^
"""


async def wires() -> list[bytes]:
    """Return the corpus: strict-reading tests, mutations, and classics of smuggling."""
    return [*await record_wires(), *more_wires()]


def more_wires() -> Iterator[bytes]:
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
        for wire in await wires():
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


async def test_corpus() -> None:
    """It has the bytes of the strict-reading tests, those of one of them for example."""
    corpus = await wires()

    assert sum(b"Content-Length: 5\r\nContent-Length: 6\r\n" in w for w in corpus) > 1
    assert len(corpus) > REQUESTS + 150


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
    port = find_port()
    config = tmp_path / "nginx.conf"
    config.write_text(NGINX_CONFIG.format(folder=tmp_path, host=HOST, port=port))
    command = ["nginx", "-p", str(tmp_path), "-e", "stderr", "-c", str(config)]
    async with await start(*command):
        await wait_listening(port)
        forwarded = await run_corpus(f"http://{HOST}:{port}")

    # 499 and 400 are requests that their clients have cut.
    check_log(tmp_path / "seen.log", forwarded, {400, 499})


@pytest.mark.peer("apache2")
async def test_apache_upstream(tmp_path: Path) -> None:
    """Apache's httpd sees no other request."""
    port = find_port()
    config = tmp_path / "httpd.conf"
    names = {"folder": tmp_path, "host": HOST, "port": port, "modules": APACHE_MODULES}
    config.write_text(APACHE_CONFIG.format(**names))
    async with await start("apache2", "-X", "-f", str(config)):
        await wait_listening(port)
        forwarded = await run_corpus(f"http://{HOST}:{port}")

    # 408 is a connection that was closed before a request.
    check_log(tmp_path / "seen.log", forwarded, {400, 408})


def find_port() -> int:
    """Return a port that no program listens at."""
    with socket.create_server((HOST, 0)) as unused:
        port: int = unused.getsockname()[1]
    return port


def check_log(log: Path, forwarded: int, cut: set[int]) -> None:
    """Check an access log.

    Args:
        log: One JSON object a line, with the mark and the status of a request.
        forwarded: How many requests the proxy has sent.
        cut: The statuses of those that came without a mark: they were no requests.
    """
    seen = [json.loads(line) for line in log.read_text().splitlines()]
    check_seen([entry["passed"] for entry in seen if entry["passed"] != "-"], forwarded)
    assert {entry["status"] for entry in seen if entry["passed"] == "-"} <= cut
