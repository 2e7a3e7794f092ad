"""Sending a request: its writes, and responses that come before all is sent."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from trio_upgrade import (
    BadResponse,
    IllegalSwitch,
    Limits,
    PeerGone,
    Request,
    Response,
    UpgradeRefused,
    open_connection,
    open_upgrade,
    serve_tcp,
)
from trio_upgrade._http_stream import SMALL_BODY
from trio_upgrade.testing import ScriptedPeer

from ..wire import SWITCHED, okay

if TYPE_CHECKING:
    from trio_upgrade import ClientConnection

URL = "http://x"
LARGE = b"x" * (SMALL_BODY + 1)
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
TOO_MUCH = okay(b"too much", status="413 Content Too Large")
EXPECT = {"Expect": "100-continue"}


class Server(trio.abc.Stream):
    """A scripted server that counts writes, and may be slow to read them.

    Args:
        script: The packets it sends after the request head has come.
        gate: An event that each send of content waits for.
        ticks: How many checkpoints a send takes after its bytes have arrived.
        error: An exception that each send of content raises.
        then: ``"end"``, ``"reset"`` or ``"silence"`` after the script.
    """

    def __init__(
        self,
        *script: bytes,
        gate: trio.Event | None = None,
        ticks: int = 0,
        error: BaseException | None = None,
        then: str = "silence",
    ) -> None:
        self.peer = ScriptedPeer(*script, then=then)  # type: ignore[arg-type]
        self.peer.hold_until_sent(b"\r\n\r\n")
        self.writes: list[bytes] = []
        self.gate = gate
        self.ticks = ticks
        self.error = error

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.writes:
            if self.gate is not None:
                await self.gate.wait()
            if self.error is not None:
                await trio.lowlevel.checkpoint()
                raise self.error
        self.writes.append(bytes(data))
        await self.peer.send_all(data)
        for _ in range(self.ticks):
            await trio.lowlevel.checkpoint()

    async def wait_send_all_might_not_block(self) -> None:
        await self.peer.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return await self.peer.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self.peer.aclose()

    @property
    def body(self) -> bytes:
        """The bytes of the request's content that have come."""
        return bytes(self.peer.sent.partition(b"\r\n\r\n")[2])

    async def open(self, limits: Limits | None = None) -> ClientConnection:
        return await open_connection(URL, stream=self, limits=limits or Limits())


async def post(server: Server, body: bytes = LARGE, **options):
    """Make the request; check that any failure closes the connection."""
    connection = await server.open()
    try:
        response = await connection.request("POST", "/", body=body, **options)
    except BaseException:
        assert server.peer.closed
        raise
    return connection, response


async def check_of_no_use(connection: ClientConnection, server: Server) -> None:
    """A connection that cut its request makes no other one (RFC 9112 §9.3)."""
    writes = len(server.writes)
    with pytest.raises(PeerGone, match="ended the connection"):
        await connection.request("GET", "/")
    assert server.peer.closed
    assert len(server.writes) == writes


class TestWrites:
    """The number of writes of a request."""

    @pytest.mark.parametrize("size", [0, 1, SMALL_BODY])
    async def test_small(self, size: int) -> None:
        """A small body is sent in one write with its head."""
        server = Server(okay(b"1"), okay(b"2"))
        connection, response = await post(server, b"x" * size)
        assert await response.read() == b"1"

        assert len(server.writes) == 1
        assert server.body == b"x" * size
        response = await connection.request("GET", "/")
        assert await response.read() == b"2"

    async def test_large(self) -> None:
        """A larger body is sent after its head, and the connection can be used again."""
        server = Server(okay(b"1"), okay(b"2"))
        connection, response = await post(server)
        assert await response.read() == b"1"

        assert [len(write) for write in server.writes[1:]] == [len(LARGE)]
        assert server.writes[0].endswith(b"Content-Length: 65537\r\n\r\n")
        assert server.body == LARGE
        response = await connection.request("GET", "/")
        assert await response.read() == b"2"

    async def test_small_needs_no_task(self) -> None:
        """The caller's task sends a request that cannot block; there is no other."""
        tasks: list[int] = []

        class Counting(Server):
            async def send_all(self, data: bytes | bytearray | memoryview) -> None:
                tasks.append(trio.lowlevel.current_statistics().tasks_living)
                await super().send_all(data)

        before = trio.lowlevel.current_statistics().tasks_living
        await post(Counting(okay(b"")), b"x" * SMALL_BODY)
        assert tasks == [before]
        await post(Counting(okay(b"")))
        assert tasks[1:] == [before + 1] * 2
        assert trio.lowlevel.current_statistics().tasks_living == before


class TestEarlyAnswer:
    """A final response while the body is being sent."""

    async def test_heard(self) -> None:
        """It ends the sending and can be read; the connection cannot be used again."""
        server = Server(TOO_MUCH[:-3], gate=trio.Event())
        connection, response = await post(server)

        assert response.status == 413
        assert server.body == b""
        server.peer.feed(TOO_MUCH[-3:])
        assert await response.read() == b"too much"
        await check_of_no_use(connection, server)

    async def test_refusal(self) -> None:
        """After an offer it is a refusal, its body read."""
        server = Server(TOO_MUCH, gate=trio.Event())
        with pytest.raises(UpgradeRefused) as caught:
            await open_upgrade(URL, "echo", body=LARGE, stream=server)

        assert caught.value.response.body == b"too much"
        assert server.peer.closed

    @pytest.mark.parametrize("ticks", [0, 1, 2, 3])
    async def test_hardly_early(self, ticks: int) -> None:
        """A send that returns a little after the response has come was not cut."""
        server = Server(okay(b"1"), ticks=ticks)
        server.peer.hold_until_sent(LARGE)
        connection, response = await post(server)
        assert await response.read() == b"1"

        server.peer.feed(okay(b"2"))
        response = await connection.request("GET", "/")
        assert await response.read() == b"2"

    async def test_stuck(self) -> None:
        """A send that does not return after the response is cut."""
        server = Server(okay(b"1"), ticks=1000)
        server.peer.hold_until_sent(LARGE)
        connection, response = await post(server)
        assert await response.read() == b"1"
        await check_of_no_use(connection, server)

    async def test_informational(self) -> None:
        """A 1xx does not end the sending, and is kept (RFC 9110 §15.2)."""
        gate = trio.Event()
        server = Server(b"HTTP/1.1 103 Hints\r\n\r\n" + CONTINUE, gate=gate)
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                _, response = await post(server)
                assert [head.status for head in response.informational] == [103, 100]

            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            gate.set()
            server.peer.feed(okay(b""))

        assert server.body == LARGE

    async def test_over_tcp(self) -> None:
        """The refusal of a real server is received, however long the body is."""

        async def app(request: Request) -> Response:
            return Response(413, b"y" * 100_000)

        async with trio.open_nursery() as nursery:
            server = await nursery.start(partial(serve_tcp, app, 0, host="127.0.0.1"))
            async with await open_connection(server.url) as connection:
                response = await connection.request("POST", "/", body=LARGE * 300)
                assert response.status == 413
                assert await response.read() == b"y" * 100_000
            nursery.cancel_scope.cancel()


class TestEarlySwitch:
    """A 101 while the body is being sent."""

    @pytest.mark.ids("U14")
    @pytest.mark.parametrize("headers", [{}, EXPECT])
    async def test_waits(self, headers: dict[str, str]) -> None:
        """Nothing switches before the whole request is sent (RFC 9110 §7.8)."""
        gate = trio.Event()
        server = Server(SWITCHED + b"HEAD", gate=gate)
        switched: list[bytes] = []

        async def dial() -> None:
            upgraded = await open_upgrade(
                URL, "echo", body=LARGE, headers=headers, stream=server
            )
            switched.append(upgraded.head)
            await upgraded.stream.send_all(b"data")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(dial)
            await trio.testing.wait_all_tasks_blocked()
            assert not switched
            gate.set()

        assert switched == [b"HEAD"]
        assert server.body == LARGE + b"data"

    async def test_illegal(self) -> None:
        """An illegal 101 also waits for the whole request, and then raises."""
        gate = trio.Event()
        server = Server(SWITCHED, gate=gate)
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(IllegalSwitch, match="asked for no switch"):
                    await post(server)

            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            assert not server.peer.closed
            gate.set()

        assert server.body == LARGE


class TestExpect:
    """A body that waits for a 100."""

    @pytest.mark.ids("U30")
    @pytest.mark.parametrize("body", [b"x", LARGE])
    async def test_100(self, body: bytes, autojump_clock) -> None:
        """The body is sent as soon as the 100 comes (RFC 9110 §10.1.1)."""
        server = Server()
        started = trio.current_time()
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                connection, response = await post(server, body, headers=EXPECT)
                assert [head.status for head in response.informational] == [100]
                assert await response.read() == b"1"
                response = await connection.request("GET", "/")
                assert await response.read() == b"2"

            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            assert len(server.writes) == 1
            assert server.writes[0].endswith(b"\r\n\r\n")
            server.peer.feed(CONTINUE)
            await server.peer.wait_sent(b"\r\n\r\n" + body)
            server.peer.feed(okay(b"1"), okay(b"2"))

        assert server.writes[1] == body
        assert trio.current_time() == started

    @pytest.mark.ids("U30")
    @pytest.mark.parametrize("seconds", [None, 0, 7.5])
    async def test_no_100(self, seconds: float | None, autojump_clock) -> None:
        """Without a 100 the body waits Limits.continue_timeout seconds (§10.1.1)."""
        limits = Limits() if seconds is None else Limits(continue_timeout=seconds)
        server = Server(okay(b"1"))
        server.peer.hold_until_sent(b"\r\n\r\nhello")
        started = trio.current_time()
        connection = await server.open(limits)
        response = await connection.request("POST", "/", body=b"hello", headers=EXPECT)

        assert trio.current_time() - started == (1 if seconds is None else seconds)
        assert server.writes[1:] == [b"hello"]
        assert await response.read() == b"1"
        server.peer.feed(okay(b"2"))
        assert await (await connection.request("GET", "/")).read() == b"2"

    async def test_final_response_first(self, autojump_clock) -> None:
        """After a final response neither the body nor another request is sent."""
        server = Server(okay(b"no", status="403 Forbidden"))
        connection, response = await post(server, b"hello", headers=EXPECT)

        assert response.status == 403
        assert await response.read() == b"no"
        assert len(server.writes) == 1
        await check_of_no_use(connection, server)
        assert trio.current_time() < 1

    @pytest.mark.parametrize("then", ["end", "reset"])
    async def test_server_that_leaves(self, then: str, autojump_clock) -> None:
        """An end or a reset instead of the 100 is PeerGone; no body is sent."""
        server = Server(CONTINUE[:9], then=then)
        with pytest.raises(PeerGone):
            await post(server, b"hello", headers=EXPECT)

        assert server.body == b""

    @pytest.mark.ids("U30")
    async def test_without_a_body(self) -> None:
        """An expectation without content is refused, and nothing is sent."""
        server = Server(okay(b"1"))
        connection = await server.open()
        for ask in (
            partial(connection.request, "POST", "/", headers=EXPECT),
            partial(connection.upgrade, "/", "echo", headers=EXPECT),
        ):
            with pytest.raises(ValueError, match="Expect: there is no body"):
                await ask()

        assert not server.writes
        assert (await connection.request("GET", "/", headers={"Expect": ""})).status


class TestFailure:
    """Each failure raises one exception, in no group, and leaves nothing open."""

    @pytest.mark.parametrize("headers", [{}, EXPECT])
    async def test_broken_while_sending(self, headers, autojump_clock) -> None:
        """If sending fails, the response is still received: it may explain why."""
        server = Server(TOO_MUCH, error=trio.BrokenResourceError())
        connection, response = await post(server, headers=headers)
        assert await response.read() == b"too much"
        await check_of_no_use(connection, server)

    async def test_broken_without_an_answer(self) -> None:
        """If sending fails and no response comes, that is PeerGone."""
        for then in ("end", "reset"):
            server = Server(b"HTTP/1.1 4", error=trio.BrokenResourceError(), then=then)
            with pytest.raises(PeerGone, match="connection"):
                await post(server)

    @pytest.mark.parametrize(
        ("wire", "then", "error"),
        [
            (b"", "end", PeerGone),
            (b"HTTP/1.1 4", "end", PeerGone),
            (b"HTTP/1.1 4", "reset", PeerGone),
            (b"\0", "silence", BadResponse),
            (b"HTTP/2.0 200 OK\r\n\r\n", "silence", BadResponse),
            (CONTINUE * 17, "silence", BadResponse),
            (SWITCHED.replace(b"1.1", b"1.0"), "silence", IllegalSwitch),
        ],
    )
    async def test_while_sending(self, wire: bytes, then: str, error) -> None:
        """An error in the response is raised while the body is still being sent."""
        gate = trio.Event()
        if error is IllegalSwitch:
            gate.set()
        with pytest.raises(error):
            await open_upgrade(
                URL, "echo", body=LARGE, stream=Server(wire, gate=gate, then=then)
            )

    @pytest.mark.parametrize(
        "error", [trio.ClosedResourceError(), LookupError("oops"), OSError("oops")]
    )
    @pytest.mark.parametrize("headers", [{}, EXPECT])
    async def test_error_of_the_stream(self, error, headers, autojump_clock) -> None:
        """Another exception of the stream is raised unchanged, never in a group."""
        with pytest.raises(type(error)) as caught:
            await post(Server(error=error), headers=headers)

        assert caught.value is error

    async def test_error_after_the_answer(self) -> None:
        """A send that fails because it is cut does not hide the response."""

        class Fragile(Server):
            async def send_all(self, data: bytes | bytearray | memoryview) -> None:
                try:
                    await super().send_all(data)
                except trio.Cancelled:
                    raise LookupError("cut") from None

        server = Fragile(TOO_MUCH, gate=trio.Event())
        connection, response = await post(server)

        assert await response.read() == b"too much"
        await check_of_no_use(connection, server)

    @pytest.mark.parametrize("headers", [{}, EXPECT])
    @pytest.mark.parametrize("wire", [b"", b"HTTP/1.1 1", SWITCHED])
    async def test_cancelled(self, wire: bytes, headers) -> None:
        """Cancelled in the middle, before or after an early 101, all is closed."""
        server = Server(wire, gate=trio.Event())
        living = trio.lowlevel.current_statistics().tasks_living
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(
                    partial(
                        open_upgrade,
                        URL,
                        "echo",
                        body=LARGE,
                        headers=headers,
                        stream=server,
                    )
                )
                await trio.testing.wait_all_tasks_blocked()
                assert not server.peer.closed
                scope.cancel()

        assert scope.cancelled_caught
        assert server.peer.closed
        assert trio.lowlevel.current_statistics().tasks_living == living


class Pieces:
    """An iterable body that records whether it was closed."""

    def __init__(self, *pieces, error: Exception | None = None) -> None:
        self.pieces = list(pieces)
        self.error = error
        self.closed = False

    def __aiter__(self) -> Pieces:
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        if self.pieces:
            piece: bytes = self.pieces.pop(0)
            return piece
        if self.error is not None:
            raise self.error
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed = True
        await trio.lowlevel.checkpoint()


class TestIterableBody:
    """A body that is an async iterable."""

    async def send(self, body: Pieces, peer: ScriptedPeer, **headers: str) -> bytes:
        connection = await open_connection("http://x", stream=peer)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        response = await connection.request("GET", "/", headers=given, body=body)
        return await response.read()

    async def test_chunked(self) -> None:
        """Without a length it is chunked (RFC 9112 §7.1); empty pieces are skipped."""
        peer = ScriptedPeer(okay(b"1")).hold_until_sent(b"0\r\n\r\n")
        body = Pieces(b"one", b"", bytearray(b"two"), memoryview(b"3"))

        assert await self.send(body, peer) == b"1"
        assert peer.sent == (
            b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\none\r\n3\r\ntwo\r\n1\r\n3\r\n0\r\n\r\n"
        )
        assert body.closed

    async def test_length(self) -> None:
        """With a length it is sent without chunk framing."""
        peer = ScriptedPeer(okay(b"1")).hold_until_sent(b"onetwo")
        body = Pieces(b"one", b"two")

        assert await self.send(body, peer, Content_Length="6") == b"1"
        assert peer.sent == (
            b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nonetwo"
        )

    @pytest.mark.parametrize("length", ["5", "7"])
    async def test_wrong_length(self, length: str) -> None:
        """A body of another length is the caller's error; the connection is closed."""
        peer = ScriptedPeer(then="silence")
        body = Pieces(b"one", b"two")
        with pytest.raises(ValueError, match="Content-Length"):
            await self.send(body, peer, Content_Length=length)

        assert peer.closed
        assert body.closed

    @pytest.mark.parametrize("error", [LookupError("x"), trio.BrokenResourceError("x")])
    async def test_body_that_fails(self, error: Exception) -> None:
        """An exception of the body is raised unchanged, and the connection is closed."""
        peer = ScriptedPeer(then="silence")
        body = Pieces(b"one", error=error)
        with pytest.raises(type(error)) as caught:
            await self.send(body, peer)

        assert caught.value is error
        assert peer.closed
        assert body.closed

    async def test_no_bytes(self) -> None:
        """A piece that is not bytes is a TypeError."""
        peer = ScriptedPeer(then="silence")
        with pytest.raises(TypeError):
            await self.send(Pieces("text"), peer)

        assert peer.closed

    async def test_early_answer(self) -> None:
        """A final response ends the sending; the connection cannot be used again."""
        peer = ScriptedPeer(okay(b"enough")).hold_until_sent(b"one")
        closed = trio.Event()

        async def body():
            try:
                yield b"one"
                await trio.sleep_forever()
            finally:
                closed.set()

        connection = await open_connection("http://x", stream=peer)
        response = await connection.request("POST", "/", body=body())

        assert await response.read() == b"enough"
        assert closed.is_set()
        with pytest.raises(PeerGone):
            await connection.request("GET", "/")

    async def test_stream(self) -> None:
        """A Trio stream can be a body; it is closed after it was sent."""
        source = ScriptedPeer(b"one", b"two")
        peer = ScriptedPeer(okay(b"1")).hold_until_sent(b"0\r\n\r\n")
        connection = await open_connection("http://x", stream=peer)
        await connection.request("POST", "/", body=source)

        assert peer.sent.endswith(b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
        assert source.closed

    async def test_expect(self) -> None:
        """It waits for the 100; after a refusal nothing of it is read (§10.1.1)."""
        body = Pieces(b"one")
        peer = ScriptedPeer(b"HTTP/1.1 100 Continue\r\n\r\n").hold_until_sent(
            b"\r\n\r\n"
        )
        peer.feed(okay(b"1"))
        assert await self.send(body, peer, Expect="100-continue") == b"1"

        body = Pieces(b"one")
        peer = ScriptedPeer(okay(b"no")).hold_until_sent(b"\r\n\r\n")
        assert await self.send(body, peer, Expect="100-continue") == b"no"
        assert body.pieces == [b"one"]
        assert body.closed

    @pytest.mark.ids("U14")
    async def test_switch_after_it(self) -> None:
        """A 101 waits for the body's end."""
        peer = ScriptedPeer(SWITCHED, b"raw", then="silence")
        upgraded = await open_upgrade(
            "http://x/", "echo", method="POST", body=Pieces(b"one", b"two"), stream=peer
        )

        assert peer.sent.endswith(b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
        assert await upgraded.stream.receive_some() == b"raw"
