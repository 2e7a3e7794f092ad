"""ConnectionPool: which connection a request gets, who waits, and what is made again."""

from __future__ import annotations

import ssl
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_upgrade import (
    BadBody,
    BadResponse,
    BodyTooLarge,
    ConnectionPool,
    Limits,
    PeerGone,
    Proxy,
    Request,
    Response,
    Server,
    TLSFailed,
    open_connection,
    serve_ssl_over_tcp,
    serve_tcp,
)
from trio_upgrade._client.connection import Loss
from trio_upgrade._client.pool_rules import may_retry
from trio_upgrade._client.request_head import CheckedRequest
from trio_upgrade._client.urls import parse_url

from ..servers import run_script
from ..tls import make_tls_contexts
from ..wire import get, okay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

HOST = "127.0.0.1"
STOP = b"stop"


class Scripted:
    """A server whose connections each follow a function of their own."""

    def __init__(self) -> None:
        self.connections = 0
        self.url = ""
        self.received: list[bytes] = []

    async def serve(
        self, *handlers: Callable[[trio.SocketStream], Awaitable[None]], task_status
    ) -> None:
        (listener,) = await trio.open_tcp_listeners(0, host=HOST)
        self.url = f"http://{HOST}:{listener.socket.getsockname()[1]}"
        async with listener:
            task_status.started(self)
            async with trio.open_nursery() as nursery:
                for handler in handlers:
                    stream = await listener.accept()
                    self.connections += 1
                    nursery.start_soon(self._run, handler, stream)

    async def _run(self, handler, stream) -> None:
        async with stream:
            await handler(stream)

    async def receive(self, stream) -> bytes:
        """Receive one request without a body."""
        wire = b""
        while b"\r\n\r\n" not in wire:
            piece = await stream.receive_some()
            if not piece:
                return b""
            wire += piece
        self.received.append(wire)
        return wire

    def answers(
        self, *answers: bytes
    ) -> Callable[[trio.SocketStream], Awaitable[None]]:
        """Return a handler that answers each request, then waits for the end."""

        async def handle(stream) -> None:
            for answer in answers:
                if not await self.receive(stream):
                    return
                if answer == STOP:
                    return
                await stream.send_all(answer)
            await stream.receive_some()

        return handle


@pytest.fixture
async def echo(nursery: trio.Nursery) -> Server:
    """A server that answers with the target, and with the body if there is one."""

    async def app(request: Request) -> Response:
        return Response(200, request.target.encode() + b" " + await request.read())

    server: Server = await nursery.start(partial(serve_tcp, app, 0, host=HOST))
    return server


async def scripted(nursery, make) -> Scripted:
    server = Scripted()
    await nursery.start(partial(server.serve, *make(server)))
    return server


async def fetch(pool: ConnectionPool, url: str, **options: Any) -> bytes:
    async with await pool.request("GET", url, **options) as response:
        return await response.read()


class TestReuse:
    """When a connection goes back to the pool, and when it is closed."""

    async def test_read_to_the_end(self, echo: Server) -> None:
        """A connection whose response was read is idle, and serves the next request."""
        async with ConnectionPool() as pool:
            for path in "/a", "/b", "/c":
                async with await pool.request("GET", echo.url + path) as response:
                    assert pool.statistics()[:3] == (1, 0, 0)
                    assert await response.read() == path.encode() + b" "
                    # Within the block already, so that another request may begin.
                    assert pool.statistics()[:3] == (0, 1, 0)
                    assert await response.read() == path.encode() + b" "

            assert pool.statistics() == (0, 1, 0, 1, 3, 0)
            assert repr(pool) == "<ConnectionPool in_use=0 idle=1 waiting=0>"
        assert repr(pool) == "<ConnectionPool closed in_use=0 idle=0 waiting=0>"

    async def test_streamed_to_the_end(self, nursery: trio.Nursery) -> None:
        """The end of a chunked body gives it back, with its own trailer fields."""
        answer = (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"1\r\n%d\r\n0\r\nX-Number: %d\r\n\r\n"
        )
        server = await scripted(
            nursery, lambda s: [s.answers(answer % (1, 1), answer % (2, 2))]
        )
        async with ConnectionPool() as pool:
            first = await pool.request("GET", server.url)
            assert [chunk async for chunk in first.stream()] == [b"1"]
            second = await pool.request("GET", server.url)
            assert await second.read() == b"2"

            assert first.trailers["x-number"] == "1"
            assert second.trailers["x-number"] == "2"
            assert repr(first) == "<PooledResponse 200 OK>"
            assert pool.statistics().total_connections == 1

    async def test_known_length(self, echo: Server) -> None:
        """The last byte of a known length is the end; no later read gets another's."""
        async with ConnectionPool(connections=1) as pool:
            first = await pool.request("POST", echo.url + "/1", body=b"x")
            stream = first.stream()
            assert stream.length == 4
            assert await anext(stream) == b"/1 x"
            assert pool.statistics().idle == 1
            second = await pool.request("POST", echo.url + "/2", body=b"y")

            assert [chunk async for chunk in stream] == []
            assert await second.read() == b"/2 y"
            await stream.aclose()
            await first.aclose()
            assert pool.statistics().idle == 1

    @pytest.mark.parametrize(
        ("method", "answer"),
        [
            ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
            ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
            ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"),
        ],
    )
    async def test_without_a_body(self, nursery: trio.Nursery, method, answer) -> None:
        """A response without a body gives its connection back at once."""
        server = await scripted(nursery, lambda s: [s.answers(answer)])
        async with ConnectionPool() as pool:
            response = await pool.request(method, server.url)

            assert pool.statistics().idle == 1
            assert await response.read() == b""

    @pytest.mark.ids("M10")
    async def test_left_early(self, echo: Server) -> None:
        """A response that is not read to its end closes its connection (§9.3)."""
        async with ConnectionPool() as pool:
            async with await pool.request("GET", echo.url):
                pass
            response = await pool.request("GET", echo.url)
            await response.aclose()
            await response.aclose()
            response = await pool.request("GET", echo.url)
            stream = response.stream()
            await stream.aclose()
            async with await pool.request("GET", echo.url) as response:
                with pytest.raises(BodyTooLarge):
                    await response.read(1)

            assert pool.statistics() == (0, 0, 0, 4, 4, 0)

    @pytest.mark.parametrize("more", [{}, {"X": "1"}])
    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    async def test_relayed_without_its_content(
        self, nursery: trio.Nursery, method, more
    ) -> None:
        """A relayed 205 drops content that came with it, and its connection ends."""
        reset = okay(b"junk").replace(b"200 OK", b"205 Reset")

        async def app(request: Request) -> Response:
            response = await pool.request("GET", server.url + "/")
            return Response.relayed(response).with_headers(more)

        server = await scripted(nursery, lambda server: [server.answers(reset)])
        async with ConnectionPool() as pool:
            peer = await run_script(app, get("/").replace(b"GET", method.encode()))
            assert pool.statistics()[:3] == (0, 0, 0)

        head, _, content = bytes(peer.sent).partition(b"\r\n\r\n")
        assert b"\r\nContent-Length: 0" in head
        assert content == b""

    async def test_body_that_breaks_off(self, nursery: trio.Nursery) -> None:
        """A body that the server cuts is an error, and is not made again."""

        async def cut(stream) -> None:
            await server.receive(stream)
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n123")

        server = Scripted()
        await nursery.start(partial(server.serve, cut))
        async with ConnectionPool() as pool:
            with pytest.raises(BadBody):
                await fetch(pool, server.url)

            assert pool.statistics() == (0, 0, 0, 1, 1, 0)

    @pytest.mark.ids("M12")
    @pytest.mark.parametrize(
        "answer",
        [
            okay(b"1", "Connection: close"),
            b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n1",
            okay(b"1") + b"HTTP/1.1 200 OK\r\n",
        ],
        ids=["close", "1.0", "unasked"],
    )
    async def test_not_to_be_used_again(self, nursery: trio.Nursery, answer) -> None:
        """After ``close``, in HTTP/1.0 and with bytes left over it is closed (§9.3)."""
        server = await scripted(nursery, lambda s: [s.answers(answer)] * 2)
        async with ConnectionPool() as pool:
            assert await fetch(pool, server.url) == b"1"
            assert await fetch(pool, server.url) == b"1"

            assert pool.statistics() == (0, 0, 0, 2, 2, 0)

    @pytest.mark.ids("M08")
    @pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])
    async def test_unasked_bytes_of_an_idle_one(self, secure) -> None:
        """Bytes that come while it is idle are no response: a fresh one is dialled."""
        trusting, served = make_tls_contexts()
        asked = 0

        async def serve(stream) -> None:
            nonlocal asked
            if secure:
                stream = trio.SSLStream(stream, served, server_side=True)
            await stream.receive_some()
            asked += 1
            await stream.send_all(okay(b"%d" % asked))
            if asked == 1:
                await idle.wait()
                await stream.send_all(okay(b"evil"))
                sent.set()
            with suppress(trio.BrokenResourceError):
                await stream.receive_some()

        idle, sent = trio.Event(), trio.Event()
        async with trio.open_nursery() as nursery:
            (listener,) = await trio.open_tcp_listeners(0, host=HOST)
            nursery.start_soon(trio.serve_listeners, serve, [listener])
            port = listener.socket.getsockname()[1]
            scheme = "https" if secure else "http"
            options: Any = {"server_hostname": "localhost"} if secure else {}
            async with ConnectionPool(
                ssl_context=trusting if secure else None, **options
            ) as pool:
                url = f"{scheme}://{HOST}:{port}/"
                assert await fetch(pool, url) == b"1"
                idle.set()
                await sent.wait()
                assert await fetch(pool, url) == b"2"
                assert pool.statistics() == (0, 1, 0, 2, 2, 1)
            nursery.cancel_scope.cancel()

    async def test_raw_target_and_fields(self, nursery: trio.Nursery) -> None:
        """Target and fields are sent byte for byte; credentials belong to a request."""
        server = await scripted(nursery, lambda s: [s.answers(*[okay()] * 4)])
        address = server.url.removeprefix("http://")
        async with ConnectionPool() as pool:
            await fetch(pool, f"http://user:secret@{address}/a%2f?b=%20;#c")
            await fetch(
                pool, f"ws://{address}//x", headers=[("x-Y", "1"), ("X-y", b"\xff")]
            )
            async with await pool.request(
                "OPTIONS", server.url, target="*"
            ) as response:
                await response.read()
            await fetch(pool, server.url, target="http://other/x")

        host = f"Host: {address}".encode()
        assert server.received == [
            b"GET /a%2f?b=%20; HTTP/1.1\r\n"
            + host
            + b"\r\nAuthorization: Basic dXNlcjpzZWNyZXQ=\r\n\r\n",
            b"GET //x HTTP/1.1\r\n" + host + b"\r\nx-Y: 1\r\nX-y: \xff\r\n\r\n",
            b"OPTIONS * HTTP/1.1\r\n" + host + b"\r\n\r\n",
            b"GET http://other/x HTTP/1.1\r\nHost: other\r\n\r\n",
        ]
        assert server.connections == 1


class TestOptions:
    """Options of the pool and of a request."""

    async def test_kept_apart(self, echo: Server) -> None:
        """Connections with other options, or by another way, are not shared."""
        async with ConnectionPool(limits=Limits(body_bytes=99)) as pool:
            await fetch(pool, echo.url)
            await fetch(pool, echo.url, limits=Limits(body_bytes=99))
            assert pool.statistics().total_connections == 1
            await fetch(pool, echo.url, limits=Limits(body_bytes=98))
            await fetch(pool, echo.url, https_compatible=False)
            await fetch(pool, echo.url, local_address=HOST)
            await fetch(pool, echo.url.replace(HOST, "localhost"))
            assert pool.statistics().total_connections == 5
            assert pool.statistics().idle == 5

    async def test_via(self, echo: Server, nursery: trio.Nursery) -> None:
        """The same proxy by the same URL or object shares connections, no other."""
        from trio_upgrade import Tunnel, relay, stream_scope

        async def tunnel(request: Request) -> Tunnel:
            host, port = request.authority
            assert port is not None

            async def handle(request, stream, head) -> None:
                async with stream_scope(await trio.open_tcp_stream(host, port)) as far:
                    await relay(stream, far)

            return Tunnel(handle)

        server = await nursery.start(partial(serve_tcp, tunnel, 0, host=HOST))
        proxy = Proxy(server.url)
        async with ConnectionPool() as pool:
            for via in server.url, server.url, [server.url], proxy, proxy, None:
                assert await fetch(pool, echo.url + "/x", via=via) == b"/x "

            assert pool.statistics().total_connections == 4

    async def test_tls(self, nursery: trio.Nursery) -> None:
        """TLS settings of the caller, or one that the pool makes once, are used."""
        trusting, served = make_tls_contexts()

        async def app(request: Request) -> Response:
            return Response(200, b"secret")

        server = await nursery.start(
            partial(serve_ssl_over_tcp, app, 0, served, host=HOST)
        )
        name = "localhost"
        async with ConnectionPool(ssl_context=trusting, server_hostname=name) as pool:
            assert await fetch(pool, server.url) == b"secret"
            assert await fetch(pool, server.url.replace("https", "wss")) == b"secret"
            assert pool.statistics().total_connections == 1
            for _ in range(2):
                # The certificate is of an authority that this system does not trust.
                with pytest.raises(TLSFailed):
                    await fetch(pool, server.url, ssl_context=None)
            assert pool.statistics() == (0, 1, 0, 1, 4, 0)

    @pytest.mark.parametrize(
        ("options", "kind", "message"),
        [
            ({"stream": trio.testing.memory_stream_pair()[0]}, TypeError, "by itself"),
            ({"steam": None}, TypeError, "Did you mean 'stream'"),
            ({"limits": None}, TypeError, "limits must be a Limits"),
            ({"connections": 0}, ValueError, "at least 1, not 0"),
            ({"connections": None}, TypeError, "an int, not None"),
            ({"per_origin": True}, TypeError, "an int or None, not bool"),
            ({"idle_timeout": -1}, ValueError, "not be negative"),
        ],
    )
    def test_wrong_options(self, options, kind, message) -> None:
        """A wrong option of the pool is refused when it is made."""
        with pytest.raises(kind, match=message):
            ConnectionPool(**options)

    @pytest.mark.parametrize(
        ("arguments", "options", "kind", "message"),
        [
            (("GET", "http://x"), {"steam": 1}, TypeError, "request"),
            (("GET", "http://x"), {"limits": 1}, TypeError, "limits must be"),
            (("GET", "http://x"), {"via": 1}, TypeError, "via must be"),
            (("GET", "http://x"), {"server_hostname": "y"}, ValueError, "for TLS"),
            (("GET", "x"), {}, ValueError, "URL"),
            (("CONNECT", "http://x"), {}, ValueError, "open_tunnel"),
            (("GET", "http://x"), {"headers": {"Upgrade": "x"}}, ValueError, "library"),
            (("GET", "http://x"), {"target": ""}, ValueError, "target"),
            (("GET", "http://x"), {"trailers": {"X": "y"}}, ValueError, "chunked"),
            (("GET", "http://x"), {"on_informational": 1}, TypeError, "async function"),
        ],
    )
    async def test_wrong_request(self, arguments, options, kind, message) -> None:
        """A wrong argument of a request opens nothing and keeps no slot."""
        async with ConnectionPool() as pool:
            with pytest.raises(kind, match=message):
                await pool.request(*arguments, **options)

            assert pool.statistics()[:4] == (0, 0, 0, 0)

    async def test_unreachable(self) -> None:
        """A server that cannot be reached is an OSError, and keeps no slot."""
        async with ConnectionPool() as pool:
            with trio.socket.socket() as bound:
                await bound.bind((HOST, 0))
                url = f"http://{HOST}:{bound.getsockname()[1]}"
                with pytest.raises(OSError, match="cannot connect"):
                    await pool.request("GET", url)

            assert pool.statistics()[:3] == (0, 0, 0)


class TestRetry:
    """Which requests are made a second time (RFC 9110 §9.2.2)."""

    async def test_idle_one_that_was_ended(self, nursery: trio.Nursery) -> None:
        """Nothing was sent: any method, and an iterable body, on a fresh connection."""

        async def once(stream) -> None:
            await server.receive(stream)
            await stream.send_all(okay(b"1"))

        async def content() -> AsyncIterator[bytes]:
            yield b"x"

        server = Scripted()
        await nursery.start(partial(server.serve, once, server.answers(okay(b"2"))))
        async with ConnectionPool() as pool:
            assert await fetch(pool, server.url) == b"1"
            await trio.testing.wait_all_tasks_blocked(0.01)
            async with await pool.request(
                "POST", server.url, body=content()
            ) as response:
                assert await response.read() == b"2"

            assert pool.statistics() == (0, 1, 0, 2, 2, 1)

    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "POST", "PATCH"])
    async def test_ended_while_the_request_was_on_the_way(
        self, nursery: trio.Nursery, method
    ) -> None:
        """Only an idempotent one is made again, and only after an earlier request."""
        server = await scripted(
            nursery, lambda s: [s.answers(okay(b"1"), STOP), s.answers(okay(b"2"))]
        )
        async with ConnectionPool() as pool:
            assert await fetch(pool, server.url) == b"1"
            retried = method in ("GET", "PUT", "DELETE")
            if retried:
                async with await pool.request(method, server.url) as response:
                    assert await response.read() == b"2"
            else:
                with pytest.raises(PeerGone) as caught:
                    await pool.request(method, server.url)
                assert caught.value.request_sent
                nursery.cancel_scope.cancel()

            assert pool.statistics().total_retried == int(retried)
            assert server.connections == 1 + retried

    async def test_only_once(self, nursery: trio.Nursery) -> None:
        """A fresh connection that ends too is the end of it."""
        server = await scripted(
            nursery, lambda s: [s.answers(okay(b"1"), STOP), s.answers(STOP)]
        )
        async with ConnectionPool() as pool:
            assert await fetch(pool, server.url) == b"1"
            with pytest.raises(PeerGone):
                await fetch(pool, server.url)

            assert pool.statistics() == (0, 0, 0, 2, 2, 1)

    async def test_a_byte_of_an_answer(self, nursery: trio.Nursery) -> None:
        """A request that was answered in part is not made again."""

        async def handle(stream) -> None:
            await server.receive(stream)
            await stream.send_all(okay(b"1"))
            await server.receive(stream)
            await stream.send_all(b"H")

        server = Scripted()
        await nursery.start(partial(server.serve, handle))
        async with ConnectionPool() as pool:
            assert await fetch(pool, server.url) == b"1"
            with pytest.raises(PeerGone, match="within its answer"):
                await fetch(pool, server.url)

    @pytest.mark.parametrize(
        ("loss", "reused", "method", "body", "sent", "expected"),
        [
            (None, True, "GET", b"", False, False),
            (Loss(False, False), True, "POST", None, False, True),
            (Loss(False, False), False, "POST", None, False, False),
            (Loss(True, False), True, "POST", b"x", False, True),
            (Loss(True, False), True, "POST", None, False, False),
            (Loss(True, False), True, "PUT", None, True, False),
            (Loss(True, False), True, "PUT", b"x", True, True),
            (Loss(True, False), False, "PUT", b"x", True, False),
            (Loss(True, True), True, "PUT", b"x", True, False),
            (Loss(True, False), True, "POST", b"x", True, False),
        ],
    )
    def test_rule(self, loss, reused, method, body, sent, expected) -> None:
        """The rule in full: what was sent, received and used before."""

        async def content() -> AsyncIterator[bytes]:
            yield b""  # pragma: no cover

        request = CheckedRequest(
            method, "/", [], content() if body is None else body, parse_url("http://x")
        )
        gone = PeerGone("x", request_sent=sent)

        assert may_retry(gone, loss, request, reused=reused) is expected
        if loss is not None and loss.begun:
            assert not may_retry(BadResponse("x"), loss, request, reused=reused)

    async def test_failure_of_the_callback(self, nursery: trio.Nursery) -> None:
        """What the caller's own code raises is never a reason to make it again."""
        hint = b"HTTP/1.1 103 Early Hints\r\n\r\n"
        server = await scripted(
            nursery, lambda s: [s.answers(okay(b"1"), hint + okay(b"2"))]
        )

        async def fail(head) -> None:
            await trio.lowlevel.checkpoint()
            raise error

        error = PeerGone("another peer")
        async with ConnectionPool() as pool:
            await fetch(pool, server.url)
            with pytest.raises(PeerGone) as caught:
                await fetch(pool, server.url, on_informational=fail)

            assert caught.value is error
            assert str(error) == "another peer"
            assert pool.statistics() == (0, 0, 0, 1, 2, 0)


class TestWaiting:
    """The bounds, and the order in which requests wait."""

    async def test_fifo(
        self, nursery: trio.Nursery, echo: Server, autojump_clock
    ) -> None:
        """Requests that wait are served in order; a cancelled one leaves no hole."""
        order: list[int] = []
        scopes = [trio.CancelScope() for _ in range(6)]

        async def wait(number: int) -> None:
            with scopes[number]:
                async with await pool.request(
                    "GET", f"{echo.url}/{number}"
                ) as response:
                    order.append(number)
                    assert await response.read() == b"/%d " % number

        async with ConnectionPool(connections=1) as pool:
            held = await pool.request("GET", echo.url)
            async with trio.open_nursery() as waiting:
                for number in range(6):
                    waiting.start_soon(wait, number)
                    while pool.statistics().waiting <= number:
                        await trio.lowlevel.checkpoint()
                scopes[0].cancel()
                scopes[3].cancel()
                await trio.testing.wait_all_tasks_blocked()
                assert pool.statistics()[:3] == (1, 0, 4)
                await held.read()

            assert order == [1, 2, 4, 5]
            assert pool.statistics() == (0, 1, 0, 1, 5, 0)

    async def test_per_origin(self, nursery: trio.Nursery, echo: Server) -> None:
        """An origin that is full does not hold up another."""
        other = echo.url.replace(HOST, "localhost")
        async with ConnectionPool(connections=3, per_origin=1) as pool:
            async with await pool.request("GET", echo.url) as held:
                nursery.start_soon(fetch, pool, echo.url)
                while not pool.statistics().waiting:
                    await trio.lowlevel.checkpoint()
                assert await fetch(pool, other) == b"/ "
                assert pool.statistics()[:3] == (1, 1, 1)
                await held.read()
            while pool.statistics().idle < 2:
                await trio.lowlevel.checkpoint()

    async def test_longest_idle_is_evicted(self, echo: Server) -> None:
        """If all are open, the one that was idle for longest makes room."""
        ports = [HOST, "localhost", "127.0.0.2"]
        urls = [echo.url.replace(HOST, host) for host in ports]
        async with ConnectionPool(connections=2, per_origin=None) as pool:
            # 127.0.0.2 reaches no listener at 127.0.0.1.
            await fetch(pool, urls[0])
            await fetch(pool, urls[1])
            with pytest.raises(OSError, match="cannot connect"):
                await fetch(pool, urls[2])
            assert pool.statistics()[:4] == (0, 1, 0, 2)
            await fetch(pool, urls[1])
            assert pool.statistics().total_connections == 2
            await fetch(pool, urls[0])
            response = await pool.request("GET", urls[0], https_compatible=False)
            assert pool.statistics()[:4] == (1, 1, 0, 4)
            # The evicted ones are closed before another is dialled, not only forgotten.
            while echo.statistics().connections != 2:
                await trio.lowlevel.checkpoint()
            await response.read()

    async def test_cancelled_as_it_was_granted(self, echo: Server) -> None:
        """A connection that comes to a cancelled request is passed on unharmed."""
        for with_connection in True, False:
            async with ConnectionPool(connections=1) as pool:
                held = await pool.request("GET", echo.url)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(fetch, pool, echo.url)
                    while not pool.statistics().waiting:
                        await trio.lowlevel.checkpoint()
                    await trio.testing.wait_all_tasks_blocked()
                    # Cancelled first; it gets the slot before it can run.
                    nursery.cancel_scope.cancel()
                    if with_connection:
                        with trio.CancelScope(shield=True):
                            await held.read()
                    else:
                        await held.__aexit__(None, None, None)

                assert pool.statistics()[:3] == (0, int(with_connection), 0)


class TestIdle:
    """How long a connection may be idle."""

    async def test_timeout(self, echo: Server, mock_clock) -> None:
        """It is checked when a connection is taken and given back."""
        other = echo.url.replace(HOST, "localhost")
        async with ConnectionPool(idle_timeout=4) as pool:
            await fetch(pool, echo.url)
            mock_clock.jump(3.9)
            await fetch(pool, echo.url)
            assert pool.statistics()[:4] == (0, 1, 0, 1)
            mock_clock.jump(4)
            held = await pool.request("GET", other)
            assert pool.statistics()[:4] == (1, 0, 0, 2)
            await fetch(pool, echo.url)
            mock_clock.jump(4)
            await held.read()
            assert pool.statistics()[:4] == (0, 1, 0, 3)

    async def test_close_idle(self, echo: Server, mock_clock) -> None:
        """The caller can have the idle ones closed, those that are too old or all."""
        async with ConnectionPool(idle_timeout=None) as pool:
            await fetch(pool, echo.url)
            mock_clock.jump(20)
            await pool.close_idle()
            assert pool.statistics().idle == 1
            await pool.close_idle(21)
            assert pool.statistics().idle == 1
            await pool.close_idle(20)
            assert pool.statistics().idle == 0
            with pytest.raises(ValueError, match="seconds"):
                await pool.close_idle(-1)


class TestEnd:
    """Leaving the pool."""

    async def test_all_are_closed(self, nursery: trio.Nursery, echo: Server) -> None:
        """Idle ones, those in use, those being dialled and those that wait."""

        async def ignore(stream) -> None:
            while await stream.receive_some():
                pass

        async def begin(stream) -> None:
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1")
            await ignore(stream)

        stalled = await scripted(nursery, lambda s: [begin, ignore, ignore])
        listener = (await trio.open_tcp_listeners(0, host=HOST))[0]
        closed: list[str] = []

        async def fail(name: str, url: str, **options: Any) -> None:
            with pytest.raises(trio.ClosedResourceError):
                await pool.request("GET", url, **options)
            closed.append(name)

        async with listener:
            # A TLS handshake that never ends.
            dialled = f"https://{HOST}:{listener.socket.getsockname()[1]}"
            context = ssl.create_default_context()
            async with ConnectionPool(connections=4) as pool:
                await fetch(pool, echo.url)
                reading = await pool.request("GET", stalled.url)
                held = await pool.request("GET", echo.url)
                await held.read()
                nursery.start_soon(fail, "answer", stalled.url)
                nursery.start_soon(partial(fail, "dial", dialled, ssl_context=context))
                while pool.statistics().in_use < 3:
                    await trio.lowlevel.checkpoint()
                nursery.start_soon(fail, "one more", stalled.url + "/2")
                while pool.statistics().in_use < 4:
                    await trio.lowlevel.checkpoint()
                nursery.start_soon(fail, "wait", stalled.url + "/3")
                while not pool.statistics().waiting:
                    await trio.lowlevel.checkpoint()
                await trio.testing.wait_all_tasks_blocked(0.01)
            await trio.testing.wait_all_tasks_blocked(0.01)

            assert {*closed} == {"answer", "dial", "one more", "wait"}
            with pytest.raises(trio.ClosedResourceError):
                await reading.read()
            with pytest.raises(trio.ClosedResourceError):
                await pool.request("GET", echo.url)
            await reading.aclose()
            await pool.aclose()
            assert pool.statistics()[:3] == (0, 0, 0)

    @pytest.mark.parametrize("error", [OSError("x"), KeyboardInterrupt()], ids=str)
    async def test_exception_comes_out_as_itself(self, echo: Server, error) -> None:
        """Pool and response raise what left their blocks, in a cancelled scope too."""
        for cancelled in False, True:
            with pytest.raises(type(error)) as caught, trio.CancelScope() as scope:
                async with (
                    ConnectionPool() as pool,
                    await pool.request("GET", echo.url),
                    await open_connection(echo.url) as connection,
                ):
                    await connection.request("GET", "/")
                    if cancelled:
                        scope.cancel()
                    raise error

            assert caught.value is error
            assert not connection.reusable
            assert pool.statistics()[:3] == (0, 0, 0)


async def test_connect_timeout() -> None:
    """TLS is a part of connecting; the slot is free again, and the time is checked."""

    async def hold(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    with pytest.raises(ValueError, match="connect_timeout must not be negative"):
        ConnectionPool(connect_timeout=-1)
    async with trio.open_nursery() as nursery:
        server = await nursery.start(Scripted().serve, hold)
        async with ConnectionPool(connections=1, connect_timeout=0.05) as pool:
            for _ in range(2):
                with pytest.raises(trio.TooSlowError):
                    await pool.request("GET", server.url.replace("http", "https"))
            assert pool.statistics().in_use == 0
        nursery.cancel_scope.cancel()
