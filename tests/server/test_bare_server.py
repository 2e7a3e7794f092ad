"""A server imports nothing after it has started: it can do without files."""

from __future__ import annotations

import os
import ssl
import sys
from typing import TYPE_CHECKING

import pytest
import trio
import trustme

from ..interop.programs import start
from ..wire import UP, get

if TYPE_CHECKING:
    from pathlib import Path

    from ..interop.programs import Program

pytestmark = pytest.mark.skipif(
    not hasattr(os, "chroot"), reason="needs a Unix system: limits, chroot"
)

# As a module, so that it imports the package from where the tests do.
MODULE = "tests.server.bare_server"
CONNECT = b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"
UPGRADE = UP.replace(b"/u", b"/upgrade")
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-A: 1\r\n\r\n"
EXPECTED = b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc"


def post(rest: bytes) -> bytes:
    return b"POST /read HTTP/1.1\r\nHost: x\r\n" + rest


# Each kind of answer: what is sent, the status, and how the answer ends.  The first one
# is an ordinary answer.
EXCHANGES = [
    (get("/"), 200, "été False".encode()),
    (get("/404"), 404, b""),
    (get("/chunks"), 200, b"1\r\n2\r\n0\r\n\r\n"),
    (get("/").replace(b"GET", b"HEAD"), 200, b"\r\n\r\n"),
    (get("/raise"), 500, b"Internal Server Error\n"),
    (post(CHUNKED), 200, b"abc"),
    (post(EXPECTED), 200, b"abc"),
    (get("http://[::1]:80/"), 200, "été False".encode()),
    (get("/", "A : 1"), 400, b"\n"),
    (b"GET /\xff HTTP/1.1\r\n\r\n", 400, b"\n"),
    (b"GET / HTTP/9.1\r\n\r\n", 505, b"\n"),
    (get("/").replace(b"Host: x", b"Host: a b"), 400, b"\n"),
    (get("/", "X: " + "x" * 40_000), 431, b"\n"),
    (get("/upgrade"), 426, b"\n"),
    (UPGRADE + b"early", 101, b"\r\n\r\nearly"),
    (CONNECT + b"early", 200, b"\r\n\r\nearly"),
]


async def exchange(port: int, wire: bytes) -> bytes:
    """Send a request and our end; return all that comes."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        await stream.send_all(wire)
        await stream.send_eof()
        return b"".join([bytes(chunk) async for chunk in stream])


async def exchange_tls(port: int, authority: trustme.CA) -> bytes:
    """Send a request over TLS; return all that comes."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    tls = trio.SSLStream(
        stream, context, server_hostname="localhost", https_compatible=True
    )
    async with tls:
        await tls.send_all(get("/", "Connection: close"))
        return b"".join([bytes(chunk) async for chunk in tls])


async def check(server: Program, authority: trustme.CA) -> list[str]:
    """Make every exchange, drain; return the modules that were imported meanwhile."""
    tcp, tls = await server.read_json()
    for wire, status, end in EXCHANGES:
        answer = await exchange(tcp, wire)

        assert b"HTTP/1.1 %d " % status in answer, wire
        assert answer.endswith(end), wire
    assert (await exchange_tls(tls, authority)).startswith(b"HTTP/1.1 200 ")
    server.process.terminate()
    imported: list[str] = await server.read_json()
    return imported


@pytest.mark.ids("F22")
@pytest.mark.parametrize("means", ["descriptors", "root"])
async def test_every_answer(tmp_path: Path, means: str) -> None:
    """A process that can open no file gives every kind of answer, logs and drains."""
    if means == "root" and os.geteuid() != 0:
        pytest.skip("only root may change its root directory")
    root, certificate, log = (tmp_path / name for name in ("root", "pem", "log"))
    root.mkdir()
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    issued.private_key_and_cert_chain_pem.write_to_path(str(certificate))
    command = (sys.executable, "-m", MODULE, means, str(root), str(certificate))
    with log.open("wb") as errors:
        async with await start(*command, stderr=errors.fileno()) as server:
            assert await check(server, authority) == []

    text = log.read_text()
    assert "error in the app, serving <Request GET /raise> to " in text
    assert text.count("LookupError: oops") == 1
    assert "Error" not in text.replace("LookupError: oops", "")
