"""relay() between a client that half-closes and TLS: who gets the end, and the answer."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_upgrade import UpgradedStream, relay
from trio_upgrade._streams.socket_stream import adopt_stream
from trio_upgrade._streams.tls import TLSStream

from ..copying import receive
from ..sockets import direct, tcp_pair
from .programs import node, start
from .test_tls import (
    Files,
    client_context,
    connect,
    every_version,
    files,
    listen,
    openssl,
    s_client,
    s_server,
    say,
    server_context,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

    from trio_upgrade import RelayResult

__all__ = ["files"]

KIB = 1024


class Relayed:
    """The client of a relay that is running, and the result when it is over."""

    def __init__(self, client: trio.SocketStream) -> None:
        self.client = client
        self.result: RelayResult | None = None

    async def ask(self, data: bytes) -> None:
        """Send, end our direction, and wait until the relay has seen that."""
        await self.client.send_all(data)
        await self.client.send_eof()
        await trio.testing.wait_all_tasks_blocked(0.01)

    async def receive_all(self) -> bytes:
        got = bytearray()
        await receive(self.client, got)
        return bytes(got)


@asynccontextmanager
async def relaying(upstream: TLSStream, **options: Any) -> AsyncIterator[Relayed]:
    left, client = direct(await tcp_pair())
    relayed = Relayed(client)

    async def run() -> None:
        relayed.result = await relay(left, UpgradedStream(upstream), **options)

    async with left, client, upstream, trio.open_nursery() as nursery:
        nursery.start_soon(run)
        yield relayed
        nursery.cancel_scope.cancel()


class AsyncioServer:
    """A TLS server of asyncio, in a thread: answers once it is told to, then closes."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        self.answer = threading.Event()
        self.got = b""

    def run(self, sock: socket.socket) -> None:
        asyncio.run(self._serve(sock))

    async def _serve(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol, sock, ssl=self.context
        )
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        self.got = await reader.readexactly(8)
        await loop.run_in_executor(None, self.answer.wait)
        writer.write(b"late" * 50 * KIB)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


@pytest.mark.ids("F13")
@every_version
@pytest.mark.parametrize("tls_ends", [False, True])
async def test_asyncio_server(files: Files, version: str, tls_ends: bool) -> None:
    """Asyncio's late answer arrives whole by default; it is lost if TLS was ended."""
    server = AsyncioServer(server_context(files, version))
    near, far = socket.socketpair()
    stream = adopt_stream(trio.SocketStream(trio.socket.from_stdlib_socket(near)))
    upstream = TLSStream(
        stream, client_context(files, version), server_hostname="localhost"
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, server.run, far)
        async with relaying(upstream, tls_ends=tls_ends) as relayed:
            await relayed.ask(b"question")
            server.answer.set()
            got = await relayed.receive_all()

    assert server.got == b"question"
    assert got == (b"" if tls_ends else b"late" * 50 * KIB)


@pytest.mark.ids("F13")
@pytest.mark.peer("node")
@every_version
@pytest.mark.parametrize("half_open", [False, True])
async def test_node_server(files: Files, version: str, half_open: bool) -> None:
    """Node's late answer arrives, with and without allowHalfOpen."""
    command = node("tls_server.js", files.pem, str(half_open).lower(), "late")
    async with await start(*command) as program:
        port = (await program.read_json())["port"]
        upstream = await connect(port, client_context(files, version))
        async with relaying(upstream) as relayed:
            await relayed.ask(b"x" * 300 * KIB)
            await say(program, "answer\n")
            assert await relayed.receive_all() == b"got %d" % (300 * KIB)


@pytest.mark.ids("F13")
@pytest.mark.peer("node")
@every_version
async def test_node_server_that_waits_for_the_end(files: Files, version: str) -> None:
    """With tls_ends a Node server with allowHalfOpen sees the end, and answers."""
    command = node("tls_server.js", files.pem, "true")
    async with await start(*command) as program:
        port = (await program.read_json())["port"]
        upstream = await connect(port, client_context(files, version))
        async with relaying(upstream, tls_ends=True) as relayed:
            await relayed.ask(b"x" * 300 * KIB)
            assert await relayed.receive_all() == b"got %d" % (300 * KIB)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert relayed.result is not None
            assert (relayed.result.ended_by, relayed.result.cause) == ("left", "eof")


@pytest.mark.ids("F13")
@openssl
@every_version
async def test_openssl_server(files: Files, version: str) -> None:
    """s_server closes when TLS ends; by default its late answer arrives."""
    program, port = await s_server(files)
    async with program:
        upstream = await connect(port, client_context(files, version))
        async with relaying(upstream) as relayed:
            await relayed.ask(b"question\n")
            await program.read_until(b"question\n")
            await say(program, "late answer\n")
            assert await relayed.client.receive_some() == b"late answer\n"


@pytest.mark.ids("F13")
@openssl
@every_version
async def test_openssl_client(files: Files, version: str) -> None:
    """s_client gets the end of a server that half-closes, and ends its own side."""
    listener, port = await listen()
    async with listener, await s_client(port, "-quiet") as program:
        raw = adopt_stream(await listener.accept())
        stream = TLSStream(raw, server_context(files, version), server_side=True)
        async with relaying(stream, tls_ends=True) as relayed:
            await relayed.ask(b"answer\n")
            assert await program.read_until(b"answer\n")
            assert await relayed.receive_all() == b""
