# A proxy between a client and an upstream server that are both played by the test, over
# TCP.  After each packet the test waits until no task can go on, so that packets stay
# apart and every split of the bytes can be tried.
from __future__ import annotations

import socket
import struct
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import trio
import trio.testing

from trio_upgrade import Limits, serve_tcp
from trio_upgrade.proxy import ReverseProxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from trio_upgrade import Server

HOST = "127.0.0.1"
# Bytes that are not sent on before a pause; small, so that kernels buffer little.
_CHUNK = 64 * 1024


async def settle() -> None:
    """Wait until every other task waits for something that has not happened yet."""
    # What one task has sent over loopback another one can receive after a short while.
    await trio.testing.wait_all_tasks_blocked(0.002)


class End:
    """One end of a TCP connection; records what it receives."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.received = bytearray()
        self.ended = False
        self.was_reset = False
        # Whether the function of an upstream server has returned.
        self.done = False

    async def send(self, *packets: bytes) -> None:
        """Send packets, each of them read before the next one is sent."""
        for packet in packets:
            await self.stream.send_all(packet)
            await settle()

    async def receive_until(self, marker: bytes, count: int = 1) -> bytes:
        """Receive until the marker has come so many times, or to the end."""
        while self.received.count(marker) < count and await self.receive_more():
            pass
        return bytes(self.received)

    async def receive_all(self) -> bytes:
        """Receive to the end, or to a reset."""
        while await self.receive_more():
            pass
        return bytes(self.received)

    async def receive_now(self) -> bytes:
        """Receive until no task can go on."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.receive_all)
            await settle()
            nursery.cancel_scope.cancel()
        return bytes(self.received)

    async def receive_more(self) -> bool:
        """Receive once; return whether more can come."""
        try:
            chunk = await self.stream.receive_some(_CHUNK)
        except trio.BrokenResourceError:
            self.was_reset = True
            return False
        self.received += chunk
        self.ended = not chunk
        return bool(chunk)

    async def reset(self) -> None:
        """Close by a reset."""
        linger = struct.pack("ii", 1, 0)
        self.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        await self.stream.aclose()


class Upstream:
    """A server that runs the test's function for each connection."""

    def __init__(self, handler: Callable[[End], Awaitable[object]]) -> None:
        self.handler = handler
        self.ends: list[End] = []
        self.url = ""
        self.port = 0

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        (listener,) = await trio.open_tcp_listeners(0, host=HOST)
        self.port = listener.socket.getsockname()[1]
        self.url = f"http://{HOST}:{self.port}"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                partial(
                    trio.serve_listeners,
                    self._run,
                    [listener],
                    handler_nursery=nursery,
                )
            )
            task_status.started()

    async def _run(self, stream: trio.SocketStream) -> None:
        end = End(stream)
        self.ends.append(end)
        async with stream:
            try:
                await self.handler(end)
            except trio.BrokenResourceError:
                end.was_reset = True
            finally:
                end.done = True

    @property
    def received(self) -> bytes:
        """All that came on all connections, in the order in which they were opened."""
        return b"".join(bytes(end.received) for end in self.ends)


class Scene:
    """A client's view of a proxy, and what its upstream server saw."""

    def __init__(self, proxy: Any, server: Server, upstream: Upstream) -> None:
        self.proxy = proxy
        self.server = server
        self.upstream = upstream
        self.port: int = server.listeners[0].socket.getsockname()[1]  # type: ignore[attr-defined]

    @asynccontextmanager
    async def client(self) -> AsyncIterator[End]:
        """Connect to the proxy."""
        stream = await trio.open_tcp_stream(HOST, self.port)
        async with stream:
            yield End(stream)

    async def ask(self, *packets: bytes) -> bytes:
        """Send a request that ends the connection; return all that comes."""
        async with self.client() as client:
            await client.send(*packets)
            return await client.receive_all()


@asynccontextmanager
async def open_scene(
    handler: Callable[[End], Awaitable[object]],
    *,
    make: Callable[..., Any] = ReverseProxy,
    limits: Limits = Limits(linger=0.1),
    **options: Any,
) -> AsyncIterator[Scene]:
    """Start an upstream server and a proxy in front of it.

    Args:
        handler: Runs each connection to the upstream server.
        make: Makes the proxy, from the upstream's URL.
        limits: Those of the proxy as a server.
        options: Those of the proxy.
    """
    upstream = Upstream(handler)
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        await nursery.start(upstream.serve)
        async with make(upstream.url, name="us", **options) as proxy:
            serve = partial(serve_tcp, proxy, 0, host=HOST, limits=limits, strict=True)
            server = await nursery.start(serve)
            try:
                yield Scene(proxy, server, upstream)
            except BaseException as exc:
                failure = exc
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


def answer(
    *packets: bytes,
    until: bytes = b"\r\n\r\n",
    then: str = "keep",
) -> Callable[[End], Awaitable[None]]:
    """Return a handler that answers each request by the same packets.

    Args:
        packets: The packets.
        until: The end of each request.
        then: ``"keep"`` the connection open, ``"end"`` or ``"reset"`` it.
    """

    async def handle(end: End) -> None:
        count = 1
        while until in await end.receive_until(until, count) and not end.ended:
            if end.received.count(until) < count:
                return
            await end.send(*packets)
            if then == "reset":
                await end.reset()
                return
            if then == "end":
                await end.stream.send_eof()
                await end.receive_all()
                return
            count += 1

    return handle


def request(
    *lines: str, method: str = "GET", target: str = "/", body: bytes = b""
) -> bytes:
    """Return a request that asks for the end of its connection."""
    fields = [f"{method} {target} HTTP/1.1", "Host: x", *lines, "Connection: close"]
    return "\r\n".join([*fields, "", ""]).encode("latin-1") + body


def okay(*lines: str, body: bytes = b"okay", status: str = "200 OK") -> bytes:
    """Return a response with a length."""
    fields = [f"HTTP/1.1 {status}", *lines, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(fields).encode("latin-1") + body


def split_head(message: bytes) -> tuple[bytes, list[bytes], bytes]:
    """Return the first line of a message, its field lines, and the rest."""
    head, _, rest = message.partition(b"\r\n\r\n")
    first, *fields = head.split(b"\r\n")
    return first, fields, rest
