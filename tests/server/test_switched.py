"""What is left of HTTP after a switch, and how the connection then ends."""

from __future__ import annotations

import gc
import socket
import tracemalloc
from contextlib import suppress
from functools import partial
from itertools import groupby
from typing import cast

import pytest
import trio
import trio.testing

from trio_upgrade import (
    BodyTooLarge,
    EndReason,
    Limits,
    Request,
    Response,
    Server,
    Tunnel,
    Upgrade,
    UpgradedStream,
    UsageError,
    open_connection,
    pipe,
    serve_ssl_over_tcp,
    serve_stream,
    serve_tcp,
)
from trio_upgrade._streams.socket_stream import adopt_stream
from trio_upgrade.testing import ScriptedPeer

from ..apps import echo, echo_app
from ..recording import Recorder
from ..servers import run_script
from ..sockets import clog, tcp_pair
from ..tls import make_tls_contexts
from ..wire import SWITCHED, UP, get, okay

FIELDS = (
    b"Host:x.example:8080\r\n"
    b"X-Twice: one\r\n"
    b"x-twice:\t two: and more \t\r\n"
    b"X-Empty:\r\n"
    b"X-Obs: \xe4\xff\r\n"
    b"Connection: keep-alive, Upgrade\r\n"
    b"Upgrade: Echo, other/2\r\n\r\n"
)
TARGETS = [b"/p/%20?q=1&r", b"http://y.example:81/p?q", b"*", b"//twice"]


def look(request: Request) -> dict[str, object]:
    """Return all attributes of a request."""
    names = ("method", "target", "http_version", "path", "query", "scheme", "authority")
    return {
        **{name: getattr(request, name) for name in names},
        "raw": request.headers.raw,
        "fields": [(name, request.headers.get_list(name)) for name in request.headers],
        "end to end": request.headers.end_to_end(),
        "upgrades": [*request.upgrades],
        "trailers": request.trailers.raw,
        "peer": request.peer,
        "server": request.server,
        "repr": repr(request),
    }


class TestRequest:
    """A request drops values that it can compute again; its attributes stay the same."""

    @pytest.mark.parametrize("target", TARGETS)
    async def test_attributes_stay_the_same(self, target: bytes) -> None:
        """The handler sees the same attributes as the app."""
        method = b"OPTIONS" if target == b"*" else b"GET"
        said: list[dict[str, object]] = []

        async def handler(
            request: Request, _stream: UpgradedStream, _head: bytes
        ) -> None:
            assert request.headers["x-obs"] == "äÿ"
            said.extend([look(request), look(request)])

        async def app(request: Request) -> Upgrade:
            said.append(look(request))
            return Upgrade("Echo", handler)

        await run_script(
            app, method + b" " + target + b" HTTP/1.1\r\n" + FIELDS + b"head"
        )

        before, after, again = said
        assert before == after == again
        assert before["upgrades"] == ["Echo", "other/2"]

    async def test_connect(self) -> None:
        """The request of a tunnel keeps its authority, and has no offers."""
        said: list[dict[str, object]] = []

        async def handler(
            request: Request, _stream: UpgradedStream, _head: bytes
        ) -> None:
            said.append(look(request))

        async def app(request: Request) -> Tunnel:
            said.append(look(request))
            return Tunnel(handler)

        await run_script(
            app, b"CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n" + FIELDS[24:]
        )

        assert said[0] == said[1]
        assert str(said[0]["authority"]) == "[::1]:443"
        assert said[0]["upgrades"] == []

    async def test_coding(self) -> None:
        """A transfer coding keeps its spelling, before and after the switch."""
        said: list[dict[str, object]] = []

        async def handler(
            request: Request, _stream: UpgradedStream, _head: bytes
        ) -> None:
            said.append(look(request))

        async def app(request: Request) -> Upgrade:
            await request.read()
            said.append(look(request))
            return Upgrade("Echo", handler)

        coding = b"Transfer-Encoding: Chunked\r\n"
        await run_script(
            app, b"POST / HTTP/1.1\r\n" + coding + FIELDS + b"1\r\na\r\n0\r\n\r\n"
        )

        assert said[0] == said[1]
        fields = cast("list[object]", said[0]["fields"])
        assert ("transfer-encoding", ["Chunked"]) in fields

    @pytest.mark.parametrize("inside", [True, False], ids=["in the app", "by handler"])
    async def test_nothing_can_be_answered(self, inside: bool) -> None:
        """Neither the app nor the handler can switch again or wait for the client."""

        async def check(request: Request) -> None:
            for use in (
                partial(request.accept_upgrade, "echo"),
                request.accept_connect,
            ):
                with pytest.raises(UsageError, match="has switched"):
                    await use()
            with trio.testing.assert_checkpoints():
                assert not await request.wait_disconnect()
            assert await request.read() == b""

        async def handler(
            request: Request, _stream: UpgradedStream, _head: bytes
        ) -> None:
            await check(request)

        async def app(request: Request) -> Upgrade | None:
            if not inside:
                return Upgrade("echo", handler)
            with trio.testing.assert_checkpoints():
                await request.accept_upgrade("echo")
            await check(request)
            return None

        peer = await run_script(app, UP)

        assert peer.sent == SWITCHED

    async def test_body(self) -> None:
        """A body that was read can be read again; one that was dropped raises."""

        async def app(request: Request) -> None:
            if request.path == "/u":
                assert await request.read() == b"body"
            with pytest.raises(BodyTooLarge):
                await request.read(1)
            await request.accept_upgrade("echo")
            if request.path == "/u":
                assert await request.read() == b"body"
                with pytest.raises(BodyTooLarge):
                    await request.read(1)
            else:
                with pytest.raises(UsageError, match="switched"):
                    await request.read()

        wire = UP[:-2] + b"Content-Length: 4\r\n\r\nbody"
        await run_script(app, wire)
        await run_script(app, wire.replace(b"/u", b"/dropped"))

    async def test_secure(self) -> None:
        """The scheme is known after a switch, too."""
        client_context, server_context = make_tls_contexts()
        schemes: list[str] = []

        async def handler(
            request: Request, _stream: UpgradedStream, _head: bytes
        ) -> None:
            schemes.append(request.scheme)

        async def app(_request: Request) -> Upgrade:
            return Upgrade("echo", handler)

        async with trio.open_nursery() as nursery:
            start = partial(
                serve_ssl_over_tcp, app, 0, server_context, host="127.0.0.1"
            )
            server = await nursery.start(start)
            port = int(server.url.rpartition(":")[2])
            stream = trio.SSLStream(
                await trio.open_tcp_stream("127.0.0.1", port),
                client_context,
                server_hostname="localhost",
                https_compatible=True,
            )
            await stream.send_all(UP)
            while await stream.receive_some():
                pass
            await trio.aclose_forcefully(stream)
            nursery.cancel_scope.cancel()

        assert schemes == ["https"]

    async def test_references_kept(self) -> None:
        """After a switch a request keeps its head and strings, but no state of HTTP."""

        async def handler(
            request: Request, stream: UpgradedStream, _head: bytes
        ) -> None:
            assert request.path == "/u"
            left = gc.get_referents(request)
            kept = {"bytes", "Target", "Body", "ScriptedPeer", "Server"}
            plain = {"str", "type", "NoneType"}
            assert {type(thing).__name__ for thing in left} - plain == kept
            assert stream.transport in left
            assert UP in left
            assert request.headers is request.headers

        async def app(_request: Request) -> Upgrade:
            return Upgrade("echo", handler)

        await run_script(app, UP)


class Expires(trio.abc.Stream):
    """A stream on which the server's grace ends while the 101 is sent and arrives."""

    def __init__(self) -> None:
        self.peer = ScriptedPeer(UP, then="silence")
        self.request: Request | None = None

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self.peer.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.peer.send_all(data)
        assert self.request is not None
        self.request.server.start_drain(0)
        with trio.CancelScope(shield=True):
            await trio.testing.wait_all_tasks_blocked()

    async def wait_send_all_might_not_block(self) -> None:
        await self.peer.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self.peer.aclose()


class TestEnd:
    """A connection that has switched ends when all connections end."""

    async def test_grace_ends_at_the_switch(self) -> None:
        """If the grace ends while the 101 is sent, the handler is cancelled."""
        stream, recorder = Expires(), Recorder()

        async def handler(
            _request: Request, _stream: UpgradedStream, _head: bytes
        ) -> None:
            await trio.sleep_forever()

        async def app(request: Request) -> Upgrade:
            stream.request = request
            return Upgrade("echo", handler)

        with trio.fail_after(5):
            await serve_stream(app, stream, observer=recorder)

        assert stream.peer.sent == SWITCHED
        assert stream.peer.closed
        assert recorder.reasons == [EndReason.DRAINED]

    async def test_mixed(self, autojump_clock) -> None:
        """When the grace ends, so do all connections, switched or not, with a reason."""
        recorder = Recorder()

        async def app(request: Request) -> Upgrade | None:
            if request.path == "/u":
                return Upgrade("echo", echo)
            await trio.sleep_forever()
            return None

        async with trio.open_nursery() as nursery:
            start = partial(serve_tcp, app, 0, host="127.0.0.1", observer=recorder)
            server = await nursery.start(start)
            port = int(server.url.rpartition(":")[2])
            joined = ScriptedPeer(UP, then="silence")
            nursery.start_soon(partial(serve_stream, app, joined, server=server))
            streams = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(2)]
            await streams[0].send_all(UP)
            await streams[1].send_all(get("/slow"))
            assert await streams[0].receive_some() == SWITCHED
            await trio.testing.wait_all_tasks_blocked()
            assert server.statistics().total_requests == 3
            began = trio.current_time()
            await server.drain(7)
            assert trio.current_time() - began == pytest.approx(7)
            with pytest.raises(trio.BrokenResourceError):
                await streams[0].receive_some()
            # Of an answer that has not begun nothing can look whole.
            assert await streams[1].receive_some() == b""
            for stream in streams:
                await stream.aclose()

        assert joined.closed
        assert recorder.reasons == [EndReason.DRAINED] * 3
        assert sorted(record.protocol or "" for record in recorder.ends) == [
            *("", "echo", "echo")
        ]

    async def test_joined_is_waited_for(self, autojump_clock) -> None:
        """A drain waits for joined connections, however the others have ended."""
        recorder = Recorder()

        async def handler(
            request: Request, _stream: UpgradedStream, _head: bytes
        ) -> None:
            try:
                await trio.sleep_forever()
            finally:
                if request.path == "/slow":
                    with trio.CancelScope(shield=True):
                        await trio.sleep(3)

        async def app(_request: Request) -> Upgrade:
            return Upgrade("echo", handler)

        async with trio.open_nursery() as nursery:
            start = partial(serve_tcp, app, 0, host="127.0.0.1", observer=recorder)
            server = await nursery.start(start)
            joined = ScriptedPeer(UP.replace(b"/u", b"/slow"), then="silence")
            nursery.start_soon(partial(serve_stream, app, joined, server=server))
            port = int(server.url.rpartition(":")[2])
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(UP)
                assert await stream.receive_some() == SWITCHED
                began = trio.current_time()
                await server.drain(7)

        assert trio.current_time() - began == pytest.approx(10)
        assert joined.closed
        assert server.statistics().connections == 0
        assert recorder.reasons == [EndReason.DRAINED] * 2

    async def test_switched_after_the_deadline(
        self, autojump_clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        """After a switch no 503 is sent, even if the response deadline has passed."""
        recorder = Recorder()

        async def app(request: Request) -> None:
            with trio.CancelScope(shield=True):
                await trio.sleep(2)
                await request.accept_upgrade("echo")
            await trio.sleep_forever()

        peer = ScriptedPeer(UP, then="silence")
        limits = Limits(response_timeout=1)
        await serve_stream(app, peer, limits=limits, observer=recorder)

        assert peer.sent == SWITCHED
        assert recorder.reasons == [EndReason.SLOW_RESPONSE]
        assert not caplog.records


async def test_idle_connection_is_small() -> None:
    """An idle switched connection keeps only a request head of HTTP, and few frames."""
    number = 100
    clients: list[socket.socket] = []

    async def upgrade(server: Server, port: int, more: int) -> None:
        for _ in range(more):
            client = socket.create_connection(("127.0.0.1", port))
            client.send(UP)
            clients.append(client)
        expected = len(clients)
        while server.statistics().upgraded < expected:
            await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()
        gc.collect()

    async with trio.open_nursery() as nursery:
        start = partial(serve_tcp, echo_app, 0, host="127.0.0.1")
        server: Server = await nursery.start(start)
        port = int(server.url.rpartition(":")[2])
        await upgrade(server, port, 10)
        tracemalloc.start()
        try:
            await upgrade(server, port, number)
            taken, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        for client in clients:
            client.close()
        nursery.cancel_scope.cancel()

    # The clients' sockets are a tenth of a KiB of it. Frames are larger while coverage
    # traces them.
    assert taken / number < 7 * 1024


@pytest.mark.ids("F35")
@pytest.mark.parametrize("early", [0, 1024, 34 * 1024])
async def test_memory_of_what_came_first(early: int) -> None:
    """An idle stream keeps the header section of its request, and no early bytes."""
    number, section = 20, 30 * 1024
    wire = UP.replace(b"\r\n\r\n", b"\r\nX: " + b"x" * section + b"\r\n\r\n")
    idle = trio.Event()
    waiting = 0

    async def handler(_request: Request, stream: UpgradedStream, head: bytes) -> None:
        nonlocal waiting
        del head
        left = early
        while left:
            left -= len(await stream.receive_some())
        waiting += 1
        if waiting % number == 0:
            idle.set()
        await stream.receive_some()

    async def app(_: Request) -> Upgrade:
        return Upgrade("echo", handler)

    clients: list[socket.socket] = []

    async def upgrade(port: int) -> None:
        nonlocal idle
        idle = trio.Event()
        for _ in range(number):
            client = socket.create_connection(("127.0.0.1", port))
            clients.append(client)
            client.setblocking(False)
            assert client.send(wire + b"e" * early) == len(wire) + early
        await idle.wait()
        gc.collect()

    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve_tcp, app, 0, host="127.0.0.1"))
        port = int(server.url.rpartition(":")[2])
        await upgrade(port)
        tracemalloc.start()
        try:
            await upgrade(port)
            taken, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        for client in clients:
            client.close()
        nursery.cancel_scope.cancel()

    assert section < taken / number < section + 8 * 1024


class TestSendNowait:
    """Short answers are sent without a checkpoint; other tasks still get their turn."""

    async def test_pipelined_requests_take_turns(self) -> None:
        """Other tasks run between the answers to many requests of one packet."""
        near, far = await tcp_pair()
        answered: list[str] = []

        async def app(request: Request) -> Response:
            answered.append("request")
            return Response(200, b"okay")

        async def other() -> None:
            while True:
                answered.append("other")
                await trio.lowlevel.checkpoint()

        await far.send_all(get("/") * 20)
        await far.send_eof()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            await serve_stream(app, adopt_stream(near), limits=Limits(linger=0))
            nursery.cancel_scope.cancel()

        # In one pass of the scheduler either may be first.
        runs = [len(list(run)) for name, run in groupby(answered) if name == "request"]
        assert answered.count("request") == 20
        assert max(runs) <= 2
        got = b""
        while chunk := await far.receive_some():
            got += chunk
        assert got == okay() * 20
        await far.aclose()

    async def test_kernel_accepts_a_part(self) -> None:
        """The part of an answer that the kernel does not accept is sent later."""
        near, far = await tcp_pair()
        await clog(near)
        server_side = adopt_stream(near)
        got = bytearray()
        body = bytes(range(250)) * 200

        async def app(_request: Request) -> Response:
            return Response(200, body)

        await far.send_all(get("/"))
        await far.send_eof()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(serve_stream, app, server_side))
            await trio.testing.wait_all_tasks_blocked()
            while chunk := await far.receive_some():
                got += chunk
        await far.aclose()

        assert got.endswith(okay(body))

    async def test_reset(self, caplog: pytest.LogCaptureFixture) -> None:
        """If the peer has reset meanwhile, the reason is LOST, and there is no error."""
        near, far = await tcp_pair()
        recorder = Recorder()

        async def app(_request: Request) -> Response:
            linger = b"\1\0\0\0\0\0\0\0"
            far.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            await far.aclose()
            return Response(200, b"okay")

        await far.send_all(get("/"))
        await serve_stream(app, adopt_stream(near), observer=recorder)

        assert recorder.reasons == [EndReason.LOST]
        assert not recorder.errors
        assert not caplog.records

    @pytest.mark.parametrize("method", ["GET", "CONNECT"])
    async def test_accepting_is_a_checkpoint(self, method: str) -> None:
        """A checkpoint, also if the 101 is sent at once (Trio's rule)."""
        near, far = await tcp_pair()

        async def app(request: Request) -> None:
            with trio.testing.assert_checkpoints():
                if method == "CONNECT":
                    await request.accept_connect()
                else:
                    await request.accept_upgrade("echo")

        wire = UP if method == "GET" else b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"
        await far.send_all(wire)
        await far.send_eof()
        await serve_stream(app, adopt_stream(near), strict=True)
        await far.aclose()

    @pytest.mark.parametrize("body", [b"", b"body"])
    async def test_cancelled_before(self, body: bytes) -> None:
        """A client that is already cancelled sends no request."""
        near, far = await tcp_pair()
        connection = await open_connection("http://x/", stream=adopt_stream(near))
        with trio.CancelScope() as scope:
            scope.cancel()
            await connection.request("POST", "/", body=body)

        assert scope.cancelled_caught
        await connection.aclose()
        with suppress(trio.BrokenResourceError):
            assert await far.receive_some() == b""
        await far.aclose()

    @pytest.mark.parametrize("when", ["while it copies", "at the end"])
    async def test_reset_below_a_pipe(self, when: str) -> None:
        """A reset that pipe() finds on the socket below counts as one of the stream."""
        near, far = await tcp_pair()
        recorder = Recorder()

        async def handler(
            _request: Request, stream: UpgradedStream, _head: bytes
        ) -> None:
            if when == "while it copies":
                await pipe(stream, stream)
                return
            source, other = trio.testing.memory_stream_pair()
            await source.send_eof()
            await trio.testing.wait_all_tasks_blocked()
            await pipe(other, stream)

        async def app(_request: Request) -> Upgrade:
            return Upgrade("echo", handler)

        async def reset() -> None:
            assert await far.receive_some() == SWITCHED
            linger = b"\1\0\0\0\0\0\0\0"
            far.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            await far.aclose()

        await far.send_all(UP)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reset)
            await serve_stream(app, adopt_stream(near), observer=recorder)

        assert recorder.reasons == [EndReason.LOST]
        assert not recorder.errors

    async def test_socket(self) -> None:
        """send_some_nowait() and end() refuse a second task, and raise Trio's errors."""
        near, far = await tcp_pair()
        stream = adopt_stream(near)
        assert stream.send_some_nowait(b"abc") == 3
        assert await far.receive_some() == b"abc"
        stream.sending = True
        for use in (partial(stream.send_some_nowait, b"x"), stream.end):
            with pytest.raises(trio.BusyResourceError):
                use()
        stream.sending = False
        linger = b"\1\0\0\0\0\0\0\0"
        far.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        await far.aclose()
        with pytest.raises(trio.BrokenResourceError):
            while True:
                stream.send_some_nowait(b"x")
        stream.close()
        with pytest.raises(trio.ClosedResourceError):
            stream.send_some_nowait(b"x")
        with pytest.raises(trio.ClosedResourceError):
            stream.end()
