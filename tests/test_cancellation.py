"""Cancelled at the n-th step, for every n: streams are closed, and no bytes are wrong."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress
from contextvars import ContextVar
from functools import partial

import pytest
import trio
import trio.testing

from trio_upgrade import (
    Proxy,
    Request,
    Response,
    Upgrade,
    UpgradeRefused,
    open_connection,
    open_tunnel,
    open_upgrade,
    relay,
    serve_ssl_over_tcp,
    serve_stream,
    serve_tcp,
)
from trio_upgrade.testing import ScriptedPeer

from .apps import echo
from .cancelling import CancelAtStep, cancel_everywhere
from .sockets import Resolver
from .tls import make_tls_contexts
from .wire import DATE, SWITCHED, UP, get, okay

OPENED = b"HTTP/1.1 200 OK\r\n" + DATE + b"\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_server() -> None:
    """Requests, bodies, a refused offer and a switch: the connection is closed."""

    async def app(request):
        if request.path == "/u":
            return Upgrade("echo", echo)
        body = await request.read()

        async def chunks():
            yield b"got "
            yield body

        return Response(200, chunks())

    script = (
        get("/1")[:9],
        get("/1")[9:],
        CHUNKED + b"5\r\nhel",
        b"lo\r\n0\r\n\r\n",
        CHUNKED + b"0\r\n\r\n" + UP + b"HE",
        b"AD",
    )

    steps = await cancel_everywhere(lambda peer: serve_stream(app, peer), *script)

    assert steps > len(script)


async def test_accept_upgrade_with_everything() -> None:
    """A 100, a body to be dropped and the 101: each is sent whole or cut, in order."""
    answers = []

    async def app(request):
        stream, head = await request.accept_upgrade("echo")
        answers.append(head)
        await echo(request, stream, head)

    head = UP.replace(b"GET", b"POST")[:-2] + b"Expect: 100-continue\r\n"
    script = (head + b"Content-Length: 5\r\n\r\n", b"hel", b"loHE", b"AD")
    sent = []

    async def run(peer: ScriptedPeer) -> None:
        try:
            await serve_stream(app, peer)
        finally:
            sent.append(bytes(peer.sent))

    await cancel_everywhere(run, *script)

    # However far a run came, it has sent the beginning of the whole.
    whole = b"HTTP/1.1 100 Continue\r\n\r\n" + SWITCHED + b"HEAD"
    assert sent[-1] == whole
    assert all(whole.startswith(part) for part in sent)
    assert answers[-1] == b"HE"


async def test_open_upgrade() -> None:
    """Dialling, a 1xx, the 101, an exchange of bytes and the end of the block."""

    async def run(peer: ScriptedPeer) -> None:
        async with await open_upgrade("http://x/", "echo", stream=peer) as (
            _,
            stream,
            _,
        ):
            await stream.send_all(b"hello")
            while await stream.receive_some():
                pass

    script = (b"HTTP/1.1 103 Hints\r\n\r\n" + SWITCHED[:9], SWITCHED[9:] + b"HE", b"AD")

    assert await cancel_everywhere(run, *script) > len(script)


@pytest.mark.parametrize("headers", [{}, {"Expect": "100-continue"}])
async def test_open_upgrade_with_a_body(headers: dict[str, str]) -> None:
    """A body that is sent while the 101 may already come, or waits for its 100."""
    body = b"x" * 100_000
    sent = []

    async def run(peer: ScriptedPeer) -> None:
        try:
            upgraded = await open_upgrade(
                "http://x/", "echo", body=body, headers=headers, stream=peer
            )
            async with upgraded as (_, stream, _):
                await stream.send_all(b"hello")
                while await stream.receive_some():
                    pass
        finally:
            sent.append(bytes(peer.sent))

    script = (b"HTTP/1.1 100 Continue\r\n\r\n" + SWITCHED[:9], SWITCHED[9:] + b"HE")

    assert await cancel_everywhere(run, *script) > len(script)
    assert sent[-1].endswith(b"\r\n\r\n" + body + b"hello")
    assert all(sent[-1].startswith(part) for part in sent)


async def test_open_tunnel() -> None:
    """A CONNECT to a proxy, its 2xx, and the tunnel."""

    async def run(peer: ScriptedPeer) -> None:
        async with await open_tunnel("http://x", "a:1", stream=peer) as (_, stream, _):
            await stream.send_all(b"hello")
            while await stream.receive_some():
                pass

    script = (OPENED[:9], OPENED[9:] + b"HE", b"AD")

    assert await cancel_everywhere(run, *script) > len(script)


async def test_accept_connect() -> None:
    """The 200 of a tunnel is sent whole or cut, and nothing else is sent."""
    sent = []

    async def app(request) -> None:
        stream, head = await request.accept_connect()
        await echo(request, stream, head)

    async def run(peer: ScriptedPeer) -> None:
        try:
            await serve_stream(app, peer)
        finally:
            sent.append(bytes(peer.sent))

    wire = b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\nHE"
    await cancel_everywhere(run, wire[:9], wire[9:], b"AD")

    assert sent[-1] == OPENED + b"HEAD"
    assert all(sent[-1].startswith(part) for part in sent)


async def test_open_upgrade_refused() -> None:
    """A refusal whose body comes in pieces."""

    async def run(peer: ScriptedPeer) -> None:
        with pytest.raises(UpgradeRefused):
            await open_upgrade("http://x/", "echo", stream=peer)

    wire = okay(b"reasons", status="403 Forbidden")

    assert await cancel_everywhere(run, wire[:9], wire[9:-3], wire[-3:]) > 3


async def test_requests() -> None:
    """Requests in a row on one connection."""

    async def run(peer: ScriptedPeer) -> None:
        connection = await open_connection("http://x/", stream=peer)
        async with connection:
            for _ in range(2):
                response = await connection.request("GET", "/")
                assert await response.read() == b"hello"

    wire = okay(b"hello")

    assert await cancel_everywhere(run, wire[:-2], wire[-2:], wire) > 3


async def test_cancelled_server_leaks_no_task() -> None:
    """A serving task that is cancelled leaves no task."""
    before = trio.lowlevel.current_statistics().tasks_living
    peer = ScriptedPeer(UP, then="silence")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_stream, lambda _: app(), peer)
        await peer.wait_sent(SWITCHED)
        nursery.cancel_scope.cancel()

    assert trio.lowlevel.current_statistics().tasks_living == before


async def app() -> Upgrade:
    return Upgrade("echo", echo)


# True in the task that dials, and in its children.
_dialling = ContextVar("_dialling", default=False)


class Sockets(trio.abc.SocketFactory):
    """Records the inodes of the sockets that are made for dialling.

    A socket that is moved from Trio's object into one of ours keeps its inode.
    """

    def __init__(self) -> None:
        self.made: set[int] = set()

    def socket(self, family=-1, type=-1, proto=-1):  # noqa: A002  as Trio names them
        sock = trio.socket.from_stdlib_socket(socket.socket(family, type, proto))
        if _dialling.get():
            self.made.add(os.fstat(sock.fileno()).st_ino)
        return sock

    def find_open(self) -> set[int]:
        """Return the inodes of those that are open."""
        found = set()
        for name in os.listdir("/dev/fd"):
            # The descriptor of the listing itself is closed.
            with suppress(OSError):
                found.add(os.fstat(int(name)).st_ino)
        return self.made & found


async def join(near: trio.abc.Stream, port: int | None) -> None:
    """Relay a stream to a local port, as a proxy does."""
    assert port is not None
    async with await trio.open_tcp_stream("127.0.0.1", port) as far:
        await relay(near, far)


async def tunnel(request: Request) -> None:
    stream, _ = await request.accept_connect()
    await join(stream, request.authority.port)


async def socks(stream: trio.SocketStream) -> None:
    with suppress(trio.BrokenResourceError):
        await stream.receive_some(3)
        await stream.send_all(b"\x05\x00")
        request = await stream.receive_some()
        if request:
            await stream.send_all(b"\x05\x00\x00\x01" + b"\0" * 6)
            await join(stream, int.from_bytes(request[-2:], "big"))


@pytest.mark.skipif(sys.platform == "win32", reason="needs /dev/fd: not on Windows")
@pytest.mark.parametrize("scheme", ["https", "socks5h"])
async def test_dial_through_a_proxy_with_tls(nursery: trio.Nursery, scheme) -> None:
    """TCP, the proxy's protocol, TLS, the switch: no socket is left open."""
    trio.socket.set_custom_hostname_resolver(Resolver())
    client_context, server_context = make_tls_contexts()
    serve = partial(serve_ssl_over_tcp, host="127.0.0.1")
    server = await nursery.start(serve, lambda _: app(), 0, server_context)
    port = server.url.rpartition(":")[2]
    if scheme == "https":
        proxy = await nursery.start(serve, tunnel, 0, server_context)
        via = Proxy(
            f"https://localhost:{proxy.url.rpartition(':')[2]}",
            ssl_context=client_context,
        )
    else:
        listen = partial(trio.serve_tcp, socks, 0, host="127.0.0.1")
        listeners = await nursery.start(listen)
        via = Proxy(f"socks5h://localhost:{listeners[0].socket.getsockname()[1]}")
    _dialling.set(True)
    for step in range(1, 1000):
        sockets = Sockets()
        trio.socket.set_custom_socket_factory(sockets)
        instrument = CancelAtStep(step)
        trio.lowlevel.add_instrument(instrument)
        with instrument.scope:
            async with await open_upgrade(
                f"https://localhost:{port}/",
                "echo",
                via=via,
                ssl_context=client_context,
            ) as (_, stream, _):
                await stream.send_all(b"hello")
                assert await stream.receive_some() == b"hello"
                assert sockets.find_open()
        trio.lowlevel.remove_instrument(instrument)

        assert not sockets.find_open(), f"left open when cancelled at step {step}"
        if not instrument.scope.cancelled_caught:
            break

    assert sockets.made
    assert 20 < step < 1000


async def test_dial_an_address(nursery: trio.Nursery) -> None:
    """Without proxy, name or TLS: the server sees each connection end."""
    serve = partial(serve_tcp, lambda _: app(), 0, host="127.0.0.1")
    server = await nursery.start(serve)
    for step in range(1, 100):
        instrument = CancelAtStep(step)
        trio.lowlevel.add_instrument(instrument)
        with instrument.scope:
            async with await open_upgrade(server.url, "echo") as (_, stream, _):
                await stream.send_all(b"hello")
                assert await stream.receive_some() == b"hello"
        trio.lowlevel.remove_instrument(instrument)

        with trio.fail_after(5):
            while server.statistics().connections:
                await trio.lowlevel.checkpoint()
        if not instrument.scope.cancelled_caught:
            break

    assert 5 < step < 100
