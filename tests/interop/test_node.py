"""Node's http module as the client and as the server."""

from __future__ import annotations

import hashlib
import json
import os
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import trio

from trio_upgrade import (
    IllegalSwitch,
    Upgrade,
    UpgradeRefused,
    open_connection,
    open_upgrade,
    pipe,
    serve_tcp,
)

from .programs import (
    BOUND,
    HOST,
    example,
    node,
    read_port_url,
    read_url,
    run,
    start,
)

if TYPE_CHECKING:
    from trio_upgrade import Request, Server, UpgradedStream

pytestmark = pytest.mark.peer("node")

# More bytes than the buffers of a loopback connection hold, so that neither side can send
# all of them before it reads.
BULK = 8 * 1024 * 1024


class Hashed(trio.abc.ReceiveStream):
    """A stream that counts and hashes the bytes it receives."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._sha256 = hashlib.sha256()
        self.bytes = 0

    @property
    def digest(self) -> str:
        return self._sha256.hexdigest()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        chunk = await self._stream.receive_some(max_bytes)
        self._sha256.update(chunk)
        self.bytes += len(chunk)
        return chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


async def serve(nursery: trio.Nursery, handler) -> int:
    """Serve an app that switches every request to this handler; return the port."""

    async def app(request: Request) -> Upgrade:
        return Upgrade("echo", handler)

    serve_app = partial(serve_tcp, app, 0, host=HOST, strict=True)
    server: Server = await nursery.start(serve_app)
    port = urlsplit(server.url).port
    assert port is not None
    return port


async def run_client(script: str, *arguments: object) -> Any:
    """Run a Node client to its end; return its report."""
    result = await run(*node(script, *arguments))

    assert result.stderr == b""
    assert result.returncode == 0
    return json.loads(result.stdout)


async def receive_all(stream: trio.abc.ReceiveStream) -> bytes:
    return b"".join([bytes(chunk) async for chunk in stream])


class TestNodeClient:
    """Node's http.request, and a plain socket of Node, against our server."""

    async def test_server_sends_first(self, nursery: trio.Nursery) -> None:
        """Node gets the first bytes of the handler, in head or as data, then the echo."""

        async def greet(request: Request, stream: UpgradedStream, head: bytes) -> None:
            await stream.send_all(b"greetings ")
            await pipe(stream, stream)

        with trio.fail_after(BOUND):
            port = await serve(nursery, greet)
            report = await run_client("greeted_client.js", port)

        assert report == {
            "status": 101,
            "reason": "Switching Protocols",
            "upgrade": "echo",
            "received": "greetings from Node",
        }

    async def test_bytes_after_the_request_are_echoed_once(
        self, nursery: trio.Nursery
    ) -> None:
        """Five bytes sent together with the request are in head, and are echoed once."""
        heads: list[bytes] = []

        async def echo(request: Request, stream: UpgradedStream, head: bytes) -> None:
            heads.append(head)
            await pipe(stream, stream)

        with trio.fail_after(BOUND):
            port = await serve(nursery, echo)
            report = await run_client("early_client.js", port)

        assert heads == [b"early"]
        assert report["answer"] == (
            "HTTP/1.1 101 Switching Protocols\r\n"
            "Connection: Upgrade\r\n"
            "Upgrade: echo\r\n"
            "\r\n"
            "early"
        )

    async def test_bulk_is_echoed_after_the_half_close(
        self, nursery: trio.Nursery
    ) -> None:
        """8 MiB come back unchanged after Node has ended its direction, then the end."""
        sources: list[Hashed] = []

        async def echo(request: Request, stream: UpgradedStream, head: bytes) -> None:
            source = Hashed(stream)
            sources.append(source)
            await pipe(source, stream)

        with trio.fail_after(BOUND):
            port = await serve(nursery, echo)
            report = await run_client("bulk_client.js", port, BULK)
        (source,) = sources

        assert report["bytes"] == source.bytes == BULK
        assert report["sent"] == source.digest
        assert report["received"] == source.digest

    async def test_handshake_client_ends_by_itself(self) -> None:
        """Node's own example of a client is upgraded by our example, and ends."""
        with trio.fail_after(BOUND):
            async with await start(*example("echo_server.py", 0)) as server:
                port = urlsplit(await read_url(server)).port
                result = await run(*node("handshake_client.js", port))

        assert result.stdout == b"got upgraded!\n"
        assert result.stderr == b""
        assert result.returncode == 0


class TestNodeServer:
    """Our client against Node's http server with an 'upgrade' listener."""

    async def test_bytes_after_the_101_come_first(self) -> None:
        """Bytes sent together with the 101 are in head, and first in the stream."""
        with trio.fail_after(BOUND):
            async with await start(*node("echo_server.js")) as server:
                url = await read_port_url(server)
                async with await open_upgrade(url, "echo") as (response, stream, head):
                    first = await stream.receive_some()
                    await stream.send_all(b"then")
                    await stream.send_eof()
                    rest = await receive_all(stream)

        assert response.status == 101
        assert head == b"first "
        assert first == b"first "
        assert rest == b"then"

    async def test_bulk_is_echoed_after_the_half_close(self) -> None:
        """8 MiB come back unchanged while they are sent, the last after send_eof."""
        payload = os.urandom(BULK)
        expected = hashlib.sha256(payload).hexdigest()

        async def send(stream: UpgradedStream) -> None:
            await stream.send_all(payload)
            await stream.send_eof()

        with trio.fail_after(BOUND):
            async with await start(*node("echo_server.js")) as server:
                url = await read_port_url(server)
                async with await open_upgrade(url, "echo") as (_, stream, _):
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(send, stream)
                        received = await receive_all(stream)
                report = await server.read_json()

        assert report == {"received": expected, "bytes": BULK}
        assert received.startswith(b"first ")
        assert received.removeprefix(b"first ") == payload

    async def test_handshake_server_switches(self) -> None:
        """A 101 in another case is accepted, and its reason phrase is kept."""
        with trio.fail_after(BOUND):
            async with await start(*node("handshake_server.js")) as server:
                url = await read_port_url(server)
                upgraded = await open_upgrade(url, "websocket")
                async with upgraded as (response, stream, head):
                    await stream.send_all(b"hello, Node")
                    await stream.send_eof()
                    echoed = await receive_all(stream)

        assert response.status == 101
        assert response.reason == "Web Socket Protocol Handshake"
        assert response.headers["upgrade"] == "WebSocket"
        assert head == b""
        assert echoed == b"hello, Node"

    async def test_handshake_server_answers_requests(self) -> None:
        """Two ordinary requests are answered on one connection."""
        with trio.fail_after(BOUND):
            async with await start(*node("handshake_server.js")) as server:
                url = await read_port_url(server)
                async with await open_connection(url) as connection:
                    answers = []
                    for target in ("/", "/again"):
                        response = await connection.request("GET", target)
                        body = await response.read()
                        media_type = response.headers["content-type"]
                        answers.append((response.status, media_type, body))

        assert answers == [(200, "text/plain", b"okay")] * 2

    async def test_refusal_has_its_body(self) -> None:
        """A server without an upgrade listener refuses with its ordinary response."""
        with trio.fail_after(BOUND):
            async with await start(*node("plain_server.js")) as server:
                url = await read_port_url(server)
                with pytest.raises(UpgradeRefused) as caught:
                    await open_upgrade(url, "echo")
        response = caught.value.response

        assert response.status == 200
        assert response.body == b"no switch for echo"
        assert not response.truncated

    async def test_connection_goes_on_after_a_refusal(self) -> None:
        """After the body of a refusal is read, the connection carries another request."""
        with trio.fail_after(BOUND):
            async with await start(*node("plain_server.js")) as server:
                url = await read_port_url(server)
                async with await open_connection(url) as connection:
                    with pytest.raises(UpgradeRefused) as caught:
                        await connection.upgrade("/", "echo")
                    refusal = await caught.value.response.read()
                    response = await connection.request("GET", "/")
                    body = await response.read()

        assert refusal == b"no switch for echo"
        assert body == b"no switch for undefined"

    async def test_101_without_an_offer(self) -> None:
        """A 101 to an ordinary request is an error, and closes the connection."""
        with trio.fail_after(BOUND):
            async with await start(*node("switching_server.js")) as server:
                url = await read_port_url(server)
                async with await open_connection(url) as connection:
                    with pytest.raises(IllegalSwitch) as caught:
                        await connection.request("GET", "/")
                    with pytest.raises(trio.ClosedResourceError):
                        await connection.request("GET", "/")

        assert caught.value.defect == "the request asked for no switch"
