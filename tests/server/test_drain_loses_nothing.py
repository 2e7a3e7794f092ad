"""A drain answers every request that the kernel holds when it begins."""

from __future__ import annotations

import os
import socket
import ssl
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from trio_upgrade import (
    EndReason,
    Limits,
    Request,
    Response,
    Server,
    inherit_listeners,
    serve_listeners,
    serve_ssl_over_tcp,
    serve_tcp,
    serve_unix,
)
from trio_upgrade._streams.readiness import find_socket_listener

from ..apps import echo_app
from ..recording import Recorder
from ..tls import make_tls_contexts
from ..wire import UP, closing, get, okay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

ADDRESS = "127.0.0.1"


class Clients:
    """Blocking clients, which act while no task of Trio runs."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def connect(self, server: Server, *sent: bytes) -> socket.socket:
        """Connect, without a server's accept(), and send."""
        listener = find_socket_listener(server.listeners[0])
        assert listener is not None
        client = socket.socket(listener.socket.family)
        self._stack.enter_context(client)
        client.connect(listener.socket.getsockname())
        client.sendall(b"".join(sent))
        return client

    async def receive_all(self, client: socket.socket) -> bytes:
        """Receive to the end, in a thread: the server goes on meanwhile; then close."""

        def receive() -> bytes:
            received = b""
            while chunk := client.recv(65536):
                received += chunk
            # The server waits for this.
            client.close()
            return received

        with trio.fail_after(60):
            return await trio.to_thread.run_sync(receive)


@pytest.fixture
def clients() -> Iterator[Clients]:
    with ExitStack() as stack:
        yield Clients(stack)


@pytest.fixture(params=["TCP", "Unix"])
def serve(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., object]:
    """Return what serves echo_app, on a socket of either kind."""
    if request.param == "TCP":
        return partial(serve_tcp, echo_app, 0, host=ADDRESS)
    return partial(serve_unix, echo_app, tmp_path / "socket")


class TestKernelBuffer:
    """Requests that no task of the server has read."""

    @pytest.mark.ids("F20")
    async def test_kept_connections(self, serve, clients) -> None:
        """An idle connection is read once more before it is ended."""
        async with trio.open_nursery() as nursery:
            server: Server = await nursery.start(serve)
            kept = [clients.connect(server, get("/1")) for _ in range(20)]
            while server.statistics().idle < 20:
                await trio.testing.wait_all_tasks_blocked()
            for client in kept:
                assert client.recv(65536) == okay(b"/1")
                client.sendall(get("/2") + get("/3"))
            server.start_drain(60)
            for client in kept:
                assert await clients.receive_all(client) == closing(okay(b"/2"))

    @pytest.mark.ids("F20")
    async def test_new_connections(self, serve, clients) -> None:
        """A connection that was accepted, but sent nothing, is not idle."""
        async with trio.open_nursery() as nursery:
            server: Server = await nursery.start(serve)
            early = clients.connect(server)
            late = clients.connect(server)
            while server.statistics().idle < 2:
                await trio.testing.wait_all_tasks_blocked()
            early.sendall(get("/1"))
            server.start_drain(60)
            await trio.testing.wait_all_tasks_blocked()
            late.sendall(UP)
            assert await clients.receive_all(early) == closing(okay(b"/1"))
            assert (await clients.receive_all(late)).startswith(b"HTTP/1.1 503 ")

    @pytest.mark.ids("F20", "F45")
    async def test_backlog(self, serve, clients) -> None:
        """The connections in the backlog are accepted, more than one batch of them."""
        async with trio.open_nursery() as nursery:
            server: Server = await nursery.start(serve)
            waiting = [clients.connect(server, get("/1")) for _ in range(100)]
            server.start_drain(60)
            for client in waiting:
                assert await clients.receive_all(client) == closing(okay(b"/1"))
            assert server.statistics().total_connections == 100

    @pytest.mark.ids("F20")
    async def test_slow_app(self, serve, clients, mock_clock) -> None:
        """Only the wait for a request is short: the app has the whole grace."""
        served = trio.Event()

        async def app(request: Request) -> Response:
            served.set()
            await trio.sleep(30)
            return Response(200, request.path.encode())

        start = partial(serve.func, app, *serve.args[1:], **serve.keywords)
        async with trio.open_nursery() as nursery:
            server: Server = await nursery.start(start)
            client = clients.connect(server, get("/1"))
            server.start_drain(60)
            await served.wait()
            for _ in range(40):
                mock_clock.jump(1)
                await trio.testing.wait_all_tasks_blocked()
            assert await clients.receive_all(client) == closing(okay(b"/1"))

    @pytest.mark.ids("F20")
    async def test_backlog_beyond_the_limit(self, serve, clients) -> None:
        """Only as many are accepted as may be served at a time."""
        limited = partial(serve, limits=Limits(connections=3))
        async with trio.open_nursery() as nursery:
            server: Server = await nursery.start(limited)
            waiting = [clients.connect(server, get("/1")) for _ in range(5)]
            server.start_drain(60)
            await server.wait_ended()
            assert server.statistics().total_connections == 3
            for client in waiting[:3]:
                assert await clients.receive_all(client) == closing(okay(b"/1"))
            for client in waiting[3:]:
                with pytest.raises(ConnectionError):
                    client.recv(1)

    @pytest.mark.ids("F20")
    @pytest.mark.parametrize("path", ["/", "/kept"])
    async def test_tls(self, path, clients) -> None:
        """Over TLS, too: new connections, in the backlog, and idle ones."""
        client_context, server_context = make_tls_contexts()
        start = partial(serve_ssl_over_tcp, echo_app, 0, server_context, host=ADDRESS)
        async with trio.open_nursery() as nursery:
            server: Server = await nursery.start(start)
            client = clients.connect(server)
            tls = client_context.wrap_bio(
                incoming := ssl.MemoryBIO(),
                outgoing := ssl.MemoryBIO(),
                server_hostname="localhost",
            )

            async def exchange(call: Callable[..., object], *args: object) -> object:
                while True:
                    try:
                        result = call(*args)
                    except ssl.SSLWantReadError:
                        client.sendall(outgoing.read())
                        read = partial(client.recv, 65536)
                        incoming.write(await trio.to_thread.run_sync(read))
                    else:
                        client.sendall(outgoing.read())
                        return result

            if path == "/kept":
                await exchange(tls.do_handshake)
                await exchange(tls.write, get("/1"))
                assert await exchange(tls.read, 65536) == okay(b"/1")
                await trio.testing.wait_all_tasks_blocked()
                tls.write(get(path))
                client.sendall(outgoing.read())
                server.start_drain(60)
            else:
                server.start_drain(60)
                await exchange(tls.do_handshake)
                await exchange(tls.write, get(path))
            assert await exchange(tls.read, 65536) == closing(okay(path.encode()))

    @pytest.mark.ids("F20")
    async def test_tls_record(self, clients) -> None:
        """TLS has received the next request during an answer that promises no end."""

        async def app(request: Request) -> Response:
            async def body() -> AsyncIterator[bytes]:
                yield request.path.encode()
                server.start_drain(60)

            return Response(200, body(), {"Content-Length": "2"})

        client_context, server_context = make_tls_contexts()
        start = partial(serve_ssl_over_tcp, app, 0, server_context, host=ADDRESS)
        async with trio.open_nursery() as nursery:
            server: Server = await nursery.start(start)
            client = clients.connect(server)
            client.settimeout(60)
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = client_context.wrap_bio(
                incoming, outgoing, server_hostname="localhost"
            )
            with suppress(ssl.SSLWantReadError):
                tls.do_handshake()
            client.sendall(outgoing.read())
            incoming.write(await trio.to_thread.run_sync(client.recv, 65536))
            tls.do_handshake()
            tls.write(get("/1"))
            tls.write(get("/2"))
            client.sendall(outgoing.read())
            incoming.write(await clients.receive_all(client))
            incoming.write_eof()
            received = b""
            with suppress(ssl.SSLError):
                while chunk := tls.read(65536):
                    received += chunk
            assert received == okay(b"/1") + closing(okay(b"/2"))

    @pytest.mark.ids("F20")
    async def test_tls_while_clients_connect(self, clients) -> None:
        """Connections that come while the backlog is accepted are not awaited."""
        start = partial(
            serve_ssl_over_tcp, echo_app, 0, make_tls_contexts()[1], host=ADDRESS
        )
        connected: list[socket.socket] = []

        class Connect(trio.abc.Instrument):
            def before_task_step(self, task: trio.lowlevel.Task) -> None:
                if task.name == "trio_upgrade accepting" and len(connected) < 50:
                    with suppress(OSError):  # The listener is closed.
                        connected.append(clients.connect(server))

        async with trio.open_nursery() as nursery:
            server: Server = await nursery.start(start)
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(3):
                clients.connect(server).close()
            server.start_drain(60)
            trio.lowlevel.add_instrument(instrument := Connect())
            await trio.testing.wait_all_tasks_blocked()
            trio.lowlevel.remove_instrument(instrument)
            assert 3 <= server.statistics().total_connections <= 4
            nursery.cancel_scope.cancel()

    @pytest.mark.ids("F20")
    @pytest.mark.parametrize("number", [1, 40])
    async def test_tls_backlog_after_the_grace(self, number: int, clients) -> None:
        """A listener that accepts one at a time stops when the grace is over."""
        (below,) = await trio.open_tcp_listeners(0, host=ADDRESS)
        listener = trio.SSLListener(below, make_tls_contexts()[1])
        async with trio.open_nursery() as nursery:
            server: Server = await nursery.start(serve_listeners, echo_app, [listener])
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(number):
                clients.connect(server)
            await server.drain(0)
            assert server.statistics().total_connections < 20

    @pytest.mark.ids("F20")
    async def test_inherited_socket(self, clients, monkeypatch) -> None:
        """The backlog of an inherited socket is for the process that follows."""
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        monkeypatch.setenv("LISTEN_FDS", "1")
        with socket.create_server((ADDRESS, 0)) as kept:
            monkeypatch.setattr(
                "trio_upgrade._streams.tcp_listeners._FIRST_DESCRIPTOR",
                os.dup(kept.fileno()),
            )
            listeners = inherit_listeners()
            kept.settimeout(60)
            async with trio.open_nursery() as nursery:
                server: Server = await nursery.start(
                    serve_listeners, echo_app, listeners
                )
                client = clients.connect(server, get("/1"))
                await server.drain(60)
                assert server.statistics().total_connections == 0
                accepted, _ = kept.accept()
                with accepted:
                    assert accepted.recv(65536) == get("/1")
                client.close()


class TestSameMoment:
    """The request arrives in the very pass of the scheduler that ends the connection."""

    @pytest.mark.ids("F20")
    @pytest.mark.parametrize("packet", [get("/2"), get("/2")[:9]])
    async def test_drain(self, packet: bytes, serve, clients) -> None:
        """The drain begins when the connection's task is about to read the request."""
        recorder = Recorder()

        class Drain(trio.abc.Instrument):
            def before_task_step(self, task: trio.lowlevel.Task) -> None:
                if task.name == "trio_upgrade connection":
                    server.start_drain(60)

        async with trio.open_nursery() as nursery:
            server: Server = await nursery.start(partial(serve, observer=recorder))
            client = clients.connect(server, get("/1"))
            while server.statistics().idle < 1:
                await trio.testing.wait_all_tasks_blocked()
            assert client.recv(65536) == okay(b"/1")
            trio.lowlevel.add_instrument(drain := Drain())
            client.sendall(packet)
            while not server.is_draining:
                await trio.lowlevel.checkpoint()
            trio.lowlevel.remove_instrument(drain)
            await trio.testing.wait_all_tasks_blocked()
            client.sendall(get("/2")[len(packet) :])
            assert await clients.receive_all(client) == closing(okay(b"/2"))

        assert recorder.reasons == [EndReason.ANSWERED]

    @pytest.mark.ids("F20")
    async def test_keep_alive(self, serve, clients, mock_clock) -> None:
        """The time between two requests is over, and the second one is here."""
        async with trio.open_nursery() as nursery:
            server: Server = await nursery.start(serve)
            client = clients.connect(server, get("/1"))
            while server.statistics().idle < 1:
                await trio.testing.wait_all_tasks_blocked()
            assert client.recv(65536) == okay(b"/1")
            client.sendall(get("/2"))
            mock_clock.jump(6)
            while server.statistics().total_requests < 2:
                await trio.testing.wait_all_tasks_blocked()
            assert client.recv(65536) == okay(b"/2")
            mock_clock.jump(6)
            while server.statistics().connections:
                mock_clock.jump(1)
                await trio.testing.wait_all_tasks_blocked()
            assert client.recv(65536) == b""
            nursery.cancel_scope.cancel()
