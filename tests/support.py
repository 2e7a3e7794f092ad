# What more than one test file needs: pairs of streams, and apps run against scripts.
from __future__ import annotations

import os
import socket
import ssl
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import trio
import trio.testing
import trustme

from trio_upgrade import (
    Limits,
    Response,
    Upgrade,
    pipe,
    serve_listeners,
    serve_stream,
)
from trio_upgrade.testing import ScriptedPeer, split_points

if TYPE_CHECKING:
    from trio_upgrade import (
        EndReason,
        EndRecord,
        ErrorRecord,
        Request,
        RequestRecord,
        Server,
        SwitchRecord,
        UpgradedStream,
    )

# A well-formed offer of "echo", and the 101 to it.
UP = b"GET /u HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
)

# What the stopped clock of the tests says.
DATE = b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"

# The automatic refusal of a request that does not offer "echo".
REQUIRED = (
    b"HTTP/1.1 426 Upgrade Required\r\n"
    + DATE
    + b"Content-Type: text/plain; charset=utf-8\r\n"
    b"Upgrade: echo\r\nConnection: Upgrade\r\nContent-Length: 34\r\n\r\n"
    b"the request does not offer 'echo'\n"
)


def get(path: str, *fields: str) -> bytes:
    """A GET request with these field lines."""
    lines = [f"GET {path} HTTP/1.1", "Host: x", *fields, "", ""]
    return "\r\n".join(lines).encode()


def okay(body: bytes = b"okay", *fields: str, status: str = "200 OK") -> bytes:
    """The bytes of a response as our server sends it."""
    date = DATE.decode().strip()
    length = f"Content-Length: {len(body)}"
    lines = [f"HTTP/1.1 {status}", date, *fields, length, "", ""]
    return "\r\n".join(lines).encode() + body


async def echo(request: Request, stream: UpgradedStream, head: bytes) -> None:
    await pipe(stream, stream)


async def echo_app(request: Request) -> Response | Upgrade:
    """Switch every offer of echo, answer everything else with its path."""
    if "echo" in request.upgrades:
        return Upgrade("echo", echo)
    return Response(200, request.path)


async def run_script(app, *packets: bytes, then="end", limits=None) -> ScriptedPeer:
    """Serve an app on a scripted connection to its end; return the script."""
    peer = ScriptedPeer(*packets, then=then)
    with trio.fail_after(60):
        await serve_stream(app, peer, limits=limits or Limits(), strict=True)

    assert peer.closed
    return peer


async def check_every_split(app, wire: bytes, expected: bytes) -> None:
    """However the wire is cut into packets, the answer is this one."""
    for packets in split_points(wire):
        peer = await run_script(app, *packets)

        assert peer.sent == expected, packets


async def tcp_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Two ends of a loopback connection."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        near = await trio.testing.open_stream_to_socket_listener(listener)
        far = await listener.accept()
    return near, far


async def clogged_tcp_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Two ends whose buffers are full, so that a send has to wait."""
    pair = await tcp_pair()
    for stream in pair:
        for _ in range(3):  # The kernel makes room once or twice more.
            with suppress(BlockingIOError):
                while True:
                    os.write(stream.socket.fileno(), b"x" * 65536)
            await trio.lowlevel.checkpoint()
    return pair


def make_tls_contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A client's and a server's context that trust each other as "localhost"."""
    authority = trustme.CA()
    client = ssl.create_default_context()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.configure_trust(client)
    authority.issue_cert("localhost").configure_cert(server)
    return client, server


def wrap_tls(
    pair: tuple[trio.abc.Stream, trio.abc.Stream],
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
    *,
    https_compatible: bool,
) -> tuple[trio.SSLStream[trio.abc.Stream], trio.SSLStream[trio.abc.Stream]]:
    """TLS on both ends of a pair, the first being the client."""
    wrap = partial(trio.SSLStream, https_compatible=https_compatible)
    return (
        wrap(pair[0], contexts[0], server_hostname="localhost"),
        wrap(pair[1], contexts[1], server_side=True),
    )


class Recorder:
    """An observer that keeps every record that it is given."""

    def __init__(self) -> None:
        self.requests: list[RequestRecord] = []
        self.switches: list[SwitchRecord] = []
        self.ends: list[EndRecord] = []
        self.errors: list[ErrorRecord] = []

    @property
    def reasons(self) -> list[EndReason]:
        """Why each connection ended."""
        return [end.reason for end in self.ends]

    def request(self, record: RequestRecord) -> None:
        self.requests.append(record)

    def switched(self, record: SwitchRecord) -> None:
        self.switches.append(record)

    def ended(self, record: EndRecord) -> None:
        self.ends.append(record)

    def error(self, record: ErrorRecord) -> None:
        self.errors.append(record)


class Resolver(trio.abc.HostnameResolver):
    """Knows every name, as one of this machine."""

    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):  # noqa: A002
        await trio.lowlevel.checkpoint()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    async def getnameinfo(self, sockaddr, flags):
        raise AssertionError("nobody asks for a name")


def closing(answer: bytes) -> bytes:
    """The same answer, saying that it is the last."""
    return answer.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")


async def feed_slowly(peer: ScriptedPeer, every: float, *packets: bytes) -> None:
    for packet in packets:
        await trio.sleep(every)
        peer.feed(packet)


class TimedCase:
    """One connection: what was sent, why it ended, and when."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.recorder = Recorder()

    async def serve(self, app, peer, every: float = 0, *packets: bytes) -> float:
        """Serve a scripted connection to its end; return how long it took."""
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed_slowly, peer, every, *packets)
            await serve_stream(
                app, peer, limits=self.limits, observer=self.recorder, strict=True
            )
            nursery.cancel_scope.cancel()
        assert peer.closed
        return trio.current_time() - began

    @property
    def reason(self) -> EndReason:
        (reason,) = self.recorder.reasons
        return reason


class MemoryListener(trio.abc.Listener[trio.abc.Stream]):
    """A listener for streams that never were sockets."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[trio.abc.Stream](10)
        self.closed = False

    async def connect(self) -> trio.abc.Stream:
        near, far = trio.testing.memory_stream_pair()
        await self._send.send(far)
        return near

    async def accept(self) -> trio.abc.Stream:
        return await self._receive.receive()

    async def aclose(self) -> None:
        self.closed = True
        await trio.lowlevel.checkpoint()


async def polite(request: Request, stream: UpgradedStream, _head: bytes) -> None:
    """Say goodbye when the server drains."""
    await request.server.wait_draining()
    await stream.send_all(b"goodbye")


async def stubborn(_request: Request, stream: UpgradedStream, _head: bytes) -> None:
    """Go on whatever happens."""
    async for chunk in stream:
        await stream.send_all(chunk)


async def drainable_app(request: Request):
    """Handlers of both kinds, an answer that takes five seconds, and the path."""
    match request.path:
        case "/polite":
            return Upgrade("echo", polite)
        case "/u":
            return Upgrade("echo", stubborn)
        case "/wait":
            await trio.sleep(5)
    return Response(200, request.path)


class Scene:
    """A server, and scripted connections that have joined it."""

    def __init__(self, nursery: trio.Nursery, limits: Limits) -> None:
        self.nursery = nursery
        self.limits = limits
        self.recorder = Recorder()
        self.listener = MemoryListener()
        self.server: Server
        self.over = trio.Event()

    async def open(self, application=drainable_app) -> Scene:
        self.server = await self.nursery.start(self._serve, application)
        return self

    async def _serve(self, application, *, task_status) -> None:
        await serve_listeners(
            application,
            [self.listener],
            limits=self.limits,
            observer=self.recorder,
            strict=True,
            task_status=task_status,
        )
        self.over.set()

    async def join(self, *script: bytes) -> ScriptedPeer:
        peer = ScriptedPeer(*script, then="silence")
        self.nursery.start_soon(
            partial(serve_stream, drainable_app, peer, server=self.server)
        )
        await trio.testing.wait_all_tasks_blocked()
        return peer
