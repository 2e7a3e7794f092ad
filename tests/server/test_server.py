"""Serving on listeners: what nursery.start returns, and real sockets."""

from __future__ import annotations

import errno
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from trio_upgrade import (
    Limits,
    Response,
    Server,
    Upgrade,
    open_connection,
    open_upgrade,
    serve_listeners,
    serve_ssl_over_tcp,
    serve_stream,
    serve_tcp,
)
from trio_upgrade._server.server import find_state
from trio_upgrade._streams.tls_listener import TLSListener
from trio_upgrade.testing import ScriptedPeer

from ..apps import echo_app
from ..servers import MemoryListener
from ..sockets import tcp_pair
from ..tls import make_tls_contexts
from ..wire import SWITCHED, UP, get, okay


class TestURL:
    """Server.url can be dialled from this machine."""

    @pytest.mark.parametrize(
        ("host", "shown"),
        [
            ("127.0.0.1", "http://127.0.0.1:"),
            ("0.0.0.0", "http://127.0.0.1:"),
            ("::1", "http://[::1]:"),
            ("::", "http://[::1]:"),
        ],
    )
    async def test_tcp(self, host: str, shown: str) -> None:
        """Wildcards become loopback addresses, IPv6 gets its brackets."""
        async with trio.open_nursery() as nursery:
            try:
                server: Server = await nursery.start(
                    partial(serve_tcp, echo_app, 0, host=host)
                )
            except OSError as exc:  # pragma: no cover  on a machine without IPv6
                if exc.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                pytest.skip("no IPv6 here: enable it on the loopback interface")
            assert server.url.startswith(shown)
            async with await open_connection(server.url) as connection:
                response = await connection.request("GET", "/a")
                assert await response.read() == b"/a"
            nursery.cancel_scope.cancel()

    async def test_none_without_an_address(self) -> None:
        """A server without an address has no URL: ValueError."""
        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve_listeners, echo_app, [MemoryListener()])

            with pytest.raises(ValueError, match="no listener"):
                _ = server.url
            nursery.cancel_scope.cancel()

    async def test_unix_socket(self, tmp_path) -> None:
        """The first listener with an address gives the URL, also one of Trio's."""
        sock = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
        await sock.bind(str(tmp_path / "socket"))
        sock.listen()
        async with trio.open_nursery() as nursery:
            listeners = [MemoryListener(), trio.SocketListener(sock)]
            server = await nursery.start(serve_listeners, echo_app, listeners)

            assert server.url.startswith("http+unix://%2F")
            assert server.url.endswith("%2Fsocket")
            nursery.cancel_scope.cancel()


class TestPeer:
    """request.peer is the address at the other end."""

    async def seen_by_app(self, nursery, listener, connect) -> object:
        peers = []

        async def app(request) -> Response:
            peers.append(request.peer)
            return Response(200)

        await nursery.start(serve_listeners, app, [listener])
        async with await connect() as stream:
            await stream.send_all(get("/", "Connection: close"))
            assert await stream.receive_some()
        return peers[0]

    async def test_tcp(self) -> None:
        """Host and port over TCP."""
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        names = []

        async def connect():
            stream = await trio.testing.open_stream_to_socket_listener(listener)
            names.append(stream.socket.getsockname())
            return stream

        async with trio.open_nursery() as nursery:
            assert await self.seen_by_app(nursery, listener, connect) == names[0]
            nursery.cancel_scope.cancel()

    async def test_unix(self, tmp_path) -> None:
        """None for a Unix socket without a name, which a client's usually is."""
        path = str(tmp_path / "socket")
        sock = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
        await sock.bind(path)
        sock.listen()
        async with trio.open_nursery() as nursery:
            listener = trio.SocketListener(sock)
            connect = partial(trio.open_unix_socket, path)
            assert await self.seen_by_app(nursery, listener, connect) is None
            nursery.cancel_scope.cancel()

    async def test_none_after_the_client_has_left(self) -> None:
        """None once the connection is reset: the kernel has no address any more."""
        peers = []

        async def handler(request, stream, head) -> None:
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
            peers.append(request.peer)
            done.set()

        async def app(request) -> Upgrade:
            return Upgrade("echo", handler)

        done = trio.Event()

        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve_tcp, app, 0)
            with pytest.raises(LookupError):
                async with await open_upgrade(server.url, "echo"):
                    raise LookupError
            await done.wait()
            nursery.cancel_scope.cancel()

        assert peers == [None]


class TestTLS:
    """serve_listeners takes TLS listeners as they are."""

    @pytest.mark.parametrize("https_compatible", [False, True])
    async def test_echo_over_tls(self, https_compatible: bool) -> None:
        """Scheme, echo and a clean end over TLS, either way of closing."""
        contexts = make_tls_contexts()
        schemes = []

        async def app(request):
            schemes.append((request.scheme, request.peer is not None))
            return await echo_app(request)

        (tcp_listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        listener = trio.SSLListener(
            tcp_listener, contexts[1], https_compatible=https_compatible
        )
        async with trio.open_nursery() as nursery:
            server = await nursery.start(
                partial(serve_listeners, app, [listener], strict=True)
            )
            assert server.url.startswith("https://127.0.0.1:")
            stream = trio.SSLStream(
                await trio.testing.open_stream_to_socket_listener(tcp_listener),
                contexts[0],
                server_hostname="localhost",
                https_compatible=https_compatible,
            )
            upgraded = await open_upgrade("https://localhost/", "echo", stream=stream)
            async with upgraded as (_, tls, _):
                await tls.send_all(b"hello")
                assert await tls.receive_some() == b"hello"
            nursery.cancel_scope.cancel()

        assert schemes == [("https", True)]

    @pytest.mark.parametrize("https_compatible", [False, True])
    async def test_serve_ssl_over_tcp(self, https_compatible: bool) -> None:
        """The same in one call: URL, echo after a switch, a clean end."""
        contexts = make_tls_contexts()
        async with trio.open_nursery() as nursery:
            server = await nursery.start(
                partial(
                    serve_ssl_over_tcp,
                    echo_app,
                    0,
                    contexts[1],
                    host="127.0.0.1",
                    https_compatible=https_compatible,
                    strict=True,
                )
            )
            port = server.url.removeprefix("https://127.0.0.1:")
            stream = trio.SSLStream(
                await trio.open_tcp_stream("127.0.0.1", int(port)),
                contexts[0],
                server_hostname="localhost",
                https_compatible=https_compatible,
            )
            upgraded = await open_upgrade("https://localhost/", "echo", stream=stream)
            async with upgraded as (_, tls, _):
                await tls.send_all(b"hello")
                assert await tls.receive_some() == b"hello"
            nursery.cancel_scope.cancel()

    async def test_options_of_serve_ssl_over_tcp(self) -> None:
        """The options reach the listeners and the server."""
        limits = Limits(linger=0)
        async with trio.open_nursery() as nursery:
            server = await nursery.start(
                partial(
                    serve_ssl_over_tcp,
                    echo_app,
                    0,
                    make_tls_contexts()[1],
                    host="127.0.0.1",
                    backlog=7,
                    https_compatible=False,
                    limits=limits,
                    close_on_optimistic_data=True,
                )
            )
            (listener,) = server.listeners
            assert isinstance(listener, TLSListener)
            assert not listener._https_compatible
            assert server.url.startswith("https://127.0.0.1:")
            assert server.limits is limits
            assert find_state(server).close_on_optimistic_data
            nursery.cancel_scope.cancel()

    async def test_no_tls_spoken(self, caplog) -> None:
        """A client that speaks clear text to a TLS port loses only its own connection."""
        (tcp_listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        listener = trio.SSLListener(tcp_listener, make_tls_contexts()[1])
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_listeners, echo_app, [listener])
            stream = await trio.testing.open_stream_to_socket_listener(tcp_listener)
            async with stream:
                await stream.send_all(get("/"))
                with pytest.raises(trio.BrokenResourceError):
                    while await stream.receive_some():
                        pass
                    raise trio.BrokenResourceError  # A clean end is right, too.
            nursery.cancel_scope.cancel()

        assert not caplog.records

    @pytest.mark.parametrize("https_compatible", [False, True])
    @pytest.mark.parametrize("switched", [False, True])
    async def test_last_bytes_arrive(
        self, https_compatible: bool, switched: bool
    ) -> None:
        """Our last bytes arrive over TLS, too, while the client still sends."""
        contexts = make_tls_contexts()

        async def handler(request, stream, head) -> None:
            await stream.send_all(b"last words")

        async def app(request):
            if request.upgrades:
                return Upgrade("echo", handler)
            return Response(413, b"last words")

        (tcp_listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        listener = trio.SSLListener(
            tcp_listener, contexts[1], https_compatible=https_compatible
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_listeners, app, [listener])
            stream = trio.SSLStream(
                await trio.testing.open_stream_to_socket_listener(tcp_listener),
                contexts[0],
                server_hostname="localhost",
                https_compatible=https_compatible,
            )
            post = get("/", "Content-Length: 3000000").replace(b"GET", b"POST")
            await stream.send_all((UP if switched else post) + b"x" * 200_000)
            got = bytearray()
            while not got.endswith(b"last words"):
                received = await stream.receive_some()
                assert received, got
                got += received
            await trio.aclose_forcefully(stream)
            nursery.cancel_scope.cancel()


class TestOptions:
    """The options of each function reach the server."""

    @pytest.mark.parametrize("early", [False, True])
    async def test_close_on_optimistic_data(self, early: bool) -> None:
        """Each function passes the option on; the default is False."""

        async def app(request):
            servers.append(find_state(request.server).close_on_optimistic_data)
            return Response(200, b"")

        servers: list[bool] = []
        options: Any = {"close_on_optimistic_data": True} if early else {}
        for serve in (
            partial(serve_tcp, app, 0, host="127.0.0.1", **options),
            partial(
                serve_listeners,
                app,
                await trio.open_tcp_listeners(0, host="127.0.0.1"),
                **options,
            ),
        ):
            async with trio.open_nursery() as nursery:
                server = await nursery.start(serve)
                async with await open_connection(server.url) as connection:
                    await connection.request("GET", "/")
                nursery.cancel_scope.cancel()
        await serve_stream(app, ScriptedPeer(get("/")), **options)

        assert servers == [early] * 3


class TestLifetime:
    """Everything ends with the task that serves."""

    async def test_cancelling_closes_everything(self) -> None:
        """Listeners and connections are closed when the serving task is cancelled."""
        listener = MemoryListener()
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_listeners, echo_app, [listener])
            idle, live = await listener.connect(), await listener.connect()
            await live.send_all(UP)
            assert await live.receive_some() == SWITCHED
            nursery.cancel_scope.cancel()

        assert listener.closed
        assert await idle.receive_some() == b""
        assert await live.receive_some() == b""

    async def test_strict_ends_the_server(self) -> None:
        """With strict=True an error of the app ends the server, in one group."""

        async def app(request) -> None:
            raise LookupError("oops")

        listener = MemoryListener()
        with pytest.RaisesGroup(
            pytest.RaisesGroup(pytest.RaisesExc(LookupError, match="oops"))
        ):
            async with trio.open_nursery() as nursery:
                await nursery.start(
                    partial(serve_listeners, app, [listener], strict=True)
                )
                stream = await listener.connect()
                await stream.send_all(get("/"))
                await trio.sleep_forever()

        assert listener.closed

    async def test_detached_stream_outlives_its_handler(self) -> None:
        """Only its new owner closes a transport that a handler has detached."""

        async def handler(request, stream, head) -> None:
            owners.start_soon(own, *stream.detach())

        async def own(transport: trio.abc.Stream, head: bytes) -> None:
            async with transport:
                await transport.send_all(head + await transport.receive_some())

        async def app(request) -> Upgrade:
            return Upgrade("echo", handler)

        async with trio.open_nursery() as owners, trio.open_nursery() as nursery:
            server = await nursery.start(serve_tcp, app, 0)
            async with await open_upgrade(server.url, "echo") as (_, stream, _):
                await trio.testing.wait_all_tasks_blocked()
                await stream.send_all(b"to the new owner")
                assert await stream.receive_some() == b"to the new owner"
                assert await stream.receive_some() == b""
            nursery.cancel_scope.cancel()

    async def test_response_cancelled_in_the_middle(self) -> None:
        """A response cancelled in the middle ends by a reset, not as if complete."""
        begun = trio.Event()

        async def body():
            yield b"the first half"
            begun.set()
            await trio.sleep_forever()

        async def app(request) -> Response:
            return Response(200, body())

        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve_tcp, app, 0)
            port = server.listeners[0].socket.getsockname()[1]
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(b"GET / HTTP/1.0\r\n\r\n")
                await begun.wait()
                nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True):
                    with pytest.raises(trio.BrokenResourceError):
                        while await stream.receive_some():
                            pass

    async def test_response_that_fails_in_the_middle(self, caplog) -> None:
        """A streamed response that fails in the middle ends by a reset, too."""

        async def body():
            yield b"the first half"
            raise LookupError("oops")

        async def app(request) -> Response:
            return Response(200, body())

        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve_tcp, app, 0)
            port = server.listeners[0].socket.getsockname()[1]
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(b"GET / HTTP/1.0\r\n\r\n")
                with pytest.raises(trio.BrokenResourceError):
                    while await stream.receive_some():
                        pass
            nursery.cancel_scope.cancel()

        assert "oops" in caplog.text

    async def test_many_connections(self) -> None:
        """A hundred connections at a time echo, each its own bytes."""

        async def one(number: int) -> None:
            async with await open_upgrade(server.url, "echo") as (_, stream, _):
                message = b"%d" % number * 1000
                await stream.send_all(message)
                got = bytearray()
                while len(got) < len(message):
                    got += await stream.receive_some()
                assert got == message

        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve_tcp, echo_app, 0)
            async with trio.open_nursery() as clients:
                for number in range(100):
                    clients.start_soon(one, number)
            nursery.cancel_scope.cancel()

    async def test_bug_after_the_switch_resets(self, caplog) -> None:
        """A client sees a handler's exception as a reset, never as a clean end."""

        async def handler(request, stream, head) -> None:
            raise LookupError("oops")

        async def app(request) -> Upgrade:
            return Upgrade("echo", handler)

        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve_tcp, app, 0)
            async with await open_upgrade(server.url, "echo") as (_, stream, _):
                with pytest.raises(trio.BrokenResourceError):
                    await stream.receive_some()
            nursery.cancel_scope.cancel()

        assert "oops" in caplog.text

    @pytest.mark.ids("R58", "M14")
    async def test_refusal_reaches_a_client_that_still_sends(self) -> None:
        """An early 413 arrives whole although the body was never read."""

        async def app(request) -> Response:
            return Response(413, b"too much")

        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve_tcp, app, 0)
            body = b"x" * 3_000_000
            async with await open_connection(server.url) as connection:
                response = await connection.request("POST", "/", body=body)
                assert response.status == 413
                assert await response.read() == b"too much"
            nursery.cancel_scope.cancel()

    async def test_pipelined_over_tcp(self) -> None:
        """Requests and an offer in one packet are answered in order, over a socket."""
        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve_tcp, echo_app, 0)
            port = server.listeners[0].socket.getsockname()[1]
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(get("/1") + get("/2") + UP + b"HEAD")
                await stream.send_eof()
                got = b"".join([bytes(chunk) async for chunk in stream])
            nursery.cancel_scope.cancel()

        assert got == okay(b"/1") + okay(b"/2") + SWITCHED + b"HEAD"


async def test_open_connection_over_tcp_pair() -> None:
    """serve_stream() accepts any stream, for example a socket of another listener."""
    near, far = await tcp_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_stream, echo_app, far)
        async with await open_connection("http://x", stream=near) as connection:
            response = await connection.request("GET", "/a")
            assert await response.read() == b"/a"
