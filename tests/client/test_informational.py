"""Informational responses as they come, trailer fields of requests, and ``reusable``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_upgrade import (
    BadResponse,
    ConnectionPool,
    IllegalSwitch,
    Limits,
    MalformedMessage,
    OpenError,
    PeerGone,
    Request,
    Response,
    ResponseHead,
    open_connection,
    open_tunnel,
    open_upgrade,
    serve_tcp,
)
from trio_upgrade._http.trailers import trailer_fields
from trio_upgrade.testing import ScriptedPeer, split_points

from ..cancelling import CancelAtStep, cancel_everywhere
from ..wire import SWITCHED, okay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

URL = "http://x"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
PROCESSING = b"HTTP/1.1 102 Processing\r\n\r\n"
HINT = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
ESTABLISHED = b"HTTP/1.1 200 OK\r\n\r\n"


async def content(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        await trio.lowlevel.checkpoint()
        yield piece


async def endless() -> AsyncIterator[bytes]:
    while True:
        await trio.lowlevel.checkpoint()
        yield b"x" * 1000


async def ask(connection, on_informational, **options: Any) -> None:
    await connection.request("GET", "/", on_informational=on_informational, **options)


class TestOrder:
    """What the callback gets, and when."""

    @pytest.mark.ids("U18")
    async def test_each_as_it_comes(self) -> None:
        """Each 1xx but 100 and 101, in order, before the next is read (§15.2)."""
        for packets in split_points(PROCESSING + CONTINUE + HINT + HINT + okay()):
            peer = ScriptedPeer(*packets, then="silence")
            seen: list[ResponseHead] = []

            async def note(head: ResponseHead, seen=seen) -> None:
                await trio.lowlevel.checkpoint()
                seen.append(head)

            async with await open_connection(URL, stream=peer) as connection:
                response = await connection.request("GET", "/", on_informational=note)

                assert [head.status for head in seen] == [102, 103, 103]
                assert seen[1].headers["link"] == "</a>"
                assert [head.status for head in response.informational] == [
                    102,
                    100,
                    103,
                    103,
                ]
                assert await response.read() == b"okay"
                assert connection.reusable

    async def test_before_the_answer(self) -> None:
        """It is called while the final response is still to come."""
        peer = ScriptedPeer(HINT, then="silence")

        async def feed(head: ResponseHead) -> None:
            await trio.lowlevel.checkpoint()
            peer.feed(okay())

        async with await open_connection(URL, stream=peer) as connection:
            response = await connection.request("GET", "/", on_informational=feed)

            assert await response.read() == b"okay"

    @pytest.mark.parametrize("opening", ["upgrade", "tunnel", "method", "connect"])
    async def test_before_a_switch(self, opening) -> None:
        """An offer and a CONNECT have it, too; a 101 is not passed to it."""
        seen: list[int] = []

        async def note(head: ResponseHead) -> None:
            await trio.lowlevel.checkpoint()
            seen.append(head.status)

        offered = opening in ("upgrade", "method")
        peer = ScriptedPeer(HINT, SWITCHED if offered else ESTABLISHED)
        options: Any = {"on_informational": note}
        if opening == "upgrade":
            opened = await open_upgrade(URL, "echo", stream=peer, **options)
        elif opening == "tunnel":
            opened = await open_tunnel(URL, "y:1", stream=peer, **options)
        else:
            connection = await open_connection(URL, stream=peer)
            if opening == "method":
                opened = await connection.upgrade("/", "echo", **options)
            else:
                opened = await connection.connect("y:1", **options)
            assert not connection.reusable
        async with opened:
            assert seen == [103]
            assert [head.status for head in opened.informational] == [103]

    async def test_number_is_bounded(self) -> None:
        """It is not called for one more than ``Limits.informational``."""
        seen: list[ResponseHead] = []

        async def note(head: ResponseHead) -> None:
            await trio.lowlevel.checkpoint()
            seen.append(head)

        peer = ScriptedPeer(HINT * 9, okay())
        limits = Limits(informational=3)
        async with await open_connection(URL, stream=peer, limits=limits) as connection:
            with pytest.raises(BadResponse, match="too many informational"):
                await ask(connection, note)

        assert len(seen) == 3
        assert peer.closed

    @pytest.mark.parametrize("given", [1, "x", []])
    async def test_type(self, given) -> None:
        """What cannot be called is refused, and the connection is as before."""
        async with await open_connection(URL, stream=ScriptedPeer()) as connection:
            with pytest.raises(TypeError, match="on_informational must be an async"):
                await ask(connection, given)

            assert connection.reusable


class TestFailure:
    """What the callback raises."""

    @pytest.mark.parametrize("beside", [False, True], ids=["alone", "while sending"])
    @pytest.mark.parametrize(
        "error",
        [
            ValueError("x"),
            KeyboardInterrupt(),
            trio.BrokenResourceError("x"),
            MalformedMessage("x"),
            PeerGone("x"),
            OpenError("x"),
            ExceptionGroup("x", [ValueError("y")]),
            BaseExceptionGroup("x", [KeyboardInterrupt(), ValueError("y")]),
        ],
        ids=lambda error: type(error).__name__,
    )
    async def test_comes_out_unchanged(self, error, beside) -> None:
        """The exception itself comes out, and the connection is closed."""

        async def fail(head: ResponseHead) -> None:
            await trio.lowlevel.checkpoint()
            raise error

        peer = ScriptedPeer(HINT, then="silence")
        options: Any = {"body": endless()} if beside else {}
        async with await open_connection(URL, stream=peer) as connection:
            with pytest.raises(type(error)) as caught:
                await ask(connection, fail, **options)

            assert caught.value is error
            assert error.args[:1] in ((), ("x",))
            assert peer.closed
            assert not connection.reusable

    @pytest.mark.parametrize("cut", [False, True])
    async def test_before_a_cancellation(self, cut) -> None:
        """A failure that was there first is not lost to a cancellation."""
        scope = trio.CancelScope()

        async def fail(head: ResponseHead) -> None:
            await trio.lowlevel.checkpoint()
            scope.cancel()
            raise ValueError("x")

        async def answer(head: ResponseHead) -> None:
            await trio.lowlevel.checkpoint()
            scope.cancel()

        peer = ScriptedPeer(HINT, then="silence")
        async with await open_connection(URL, stream=peer) as connection:
            if cut:
                with scope:
                    await ask(connection, answer, body=endless())
                assert scope.cancelled_caught
            else:
                with pytest.raises(ValueError, match="x"), scope:
                    await ask(connection, fail, body=endless())
            assert peer.closed

    async def test_cancelled_anywhere(self) -> None:
        """Cancelled at any step, within the callback too, nothing is left open."""

        async def note(head: ResponseHead) -> None:
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()

        async def run(peer: ScriptedPeer) -> None:
            async with await open_connection(URL, stream=peer) as connection:
                response = await connection.request(
                    "POST",
                    "/",
                    body=content(b"a", b"b"),
                    trailers={"X": "y"},
                    on_informational=note,
                )
                await response.read()

        assert await cancel_everywhere(run, HINT, HINT, okay()) > 10


class TestTrailers:
    """Trailer fields of requests."""

    @pytest.mark.parametrize("given", [{"X-Sum": "1"}, [("X-Sum", b"1")]])
    async def test_on_the_wire(self, given) -> None:
        """They come after the last chunk (RFC 9112 §7.1.2)."""
        peer = ScriptedPeer(okay()).hold_until_sent(b"1\r\n\r\n")
        async with await open_connection(URL, stream=peer) as connection:
            await connection.request("POST", "/", body=content(b"ab"), trailers=given)

        assert peer.sent.partition(b"\r\n\r\n")[2] == (
            b"2\r\nab\r\n0\r\nX-Sum: 1\r\n\r\n"
        )

    async def test_function(self) -> None:
        """A function is asked when the body was sent, with an offer too."""
        sent = 0

        async def count() -> AsyncIterator[bytes]:
            nonlocal sent
            for piece in b"a", b"bc":
                await trio.lowlevel.checkpoint()
                sent += len(piece)
                yield piece

        peer = ScriptedPeer(SWITCHED).hold_until_sent(b"X-Count: 3\r\n\r\n")
        async with await open_upgrade(
            URL,
            "echo",
            stream=peer,
            method="POST",
            body=count(),
            trailers=lambda: {"X-Count": str(sent)},
        ):
            assert sent == 3

    async def test_received_by_our_server(self) -> None:
        """A server gets them after the body."""

        async def app(request: Request) -> Response:
            await request.read()
            return Response(200, request.trailers["x-sum"])

        async with trio.open_nursery() as nursery:
            server = await nursery.start(partial(serve_tcp, app, 0, host="127.0.0.1"))
            async with ConnectionPool() as pool:
                async with await pool.request(
                    "PUT", server.url, body=content(b"a"), trailers={"X-Sum": "7"}
                ) as response:
                    assert await response.read() == b"7"
            nursery.cancel_scope.cancel()

    @pytest.mark.parametrize(
        ("body", "headers"),
        [
            (b"", {}),
            (b"x", {}),
            (content(b"x"), {"Content-Length": "1"}),
        ],
        ids=["none", "bytes", "length"],
    )
    @pytest.mark.parametrize("given", [{"X": "y"}, dict], ids=["fields", "function"])
    async def test_only_after_chunks(self, body, headers, given) -> None:
        """Without chunks there is no place for them; nothing is sent."""
        peer = ScriptedPeer(okay())
        async with await open_connection(URL, stream=peer) as connection:
            with pytest.raises(ValueError, match="only a chunked body"):
                await connection.request(
                    "POST", "/", headers=headers, body=body, trailers=given
                )

            assert not peer.sent
            assert connection.reusable

    @pytest.mark.parametrize(
        "name",
        ["Content-Length", "host", "Authorization", "Set-Cookie", "If-Match", "TE"],
    )
    async def test_refused(self, name) -> None:
        """Fields that decide how a message is read are refused (RFC 9110 §6.5.1)."""
        peer = ScriptedPeer(okay())
        async with await open_connection(URL, stream=peer) as connection:
            with pytest.raises(ValueError, match=f"{name} cannot be a trailer field"):
                await connection.request(
                    "POST", "/", body=content(), trailers={name: "x"}
                )
            assert not peer.sent
            with pytest.raises(ValueError, match=f"{name} cannot be a trailer field"):
                await connection.request(
                    "POST", "/", body=content(), trailers=lambda: {name: "x"}
                )
            # The end of the body was not sent, so that the server cannot act on it.
            assert peer.sent.endswith(b"chunked\r\n\r\n")
            assert peer.closed

    def test_allowed(self) -> None:
        """Fields that describe the content, or prove who sent it, may come after it."""
        given = [("Authentication-Info", "x"), ("ETag", '"y"'), ("Date", "z")]

        assert len(trailer_fields(given)) == 3


class TestReusable:
    """Whether another request can be made."""

    async def test_in_an_exchange(self) -> None:
        """Before the first request and after a response was read, not in between."""
        seen: list[bool] = []

        async def look(head: ResponseHead) -> None:
            await trio.lowlevel.checkpoint()
            seen.append(connection.reusable)

        peer = ScriptedPeer(HINT, okay(), then="silence")
        async with await open_connection(URL, stream=peer) as connection:
            assert connection.reusable
            response = await connection.request("GET", "/", on_informational=look)
            assert seen == [False]
            assert not connection.reusable
            await response.read()
            assert connection.reusable
        assert not connection.reusable

    @pytest.mark.ids("M12")
    @pytest.mark.parametrize(
        "wire",
        [
            okay(b"", "Connection: close"),
            okay(b"").replace(b"1.1", b"1.0"),
            okay(b"") + b"H",
            b"HTTP/1.1 200 OK\r\n\r\n",
        ],
        ids=["close", "1.0", "unasked", "until the end"],
    )
    async def test_after_a_last_response(self, wire) -> None:
        """Not after ``close``, HTTP/1.0, unasked bytes, or the end (RFC 9112 §9.3)."""
        peer = ScriptedPeer(wire)
        async with await open_connection(URL, stream=peer) as connection:
            response = await connection.request("GET", "/")
            await response.read()

            assert not connection.reusable

    async def test_after_a_refused_tunnel(self) -> None:
        """A refused CONNECT ends the connection (RFC 9931 §8)."""
        peer = ScriptedPeer(okay(b"", status="403 Forbidden"), then="silence")
        async with await open_connection(URL, stream=peer) as connection:
            with pytest.raises(OpenError):
                await connection.connect("y:1")

            assert not connection.reusable

    async def test_after_a_failure(self) -> None:
        """A failure closes the connection."""
        async with await open_connection(
            URL, stream=ScriptedPeer(SWITCHED)
        ) as connection:
            with pytest.raises(IllegalSwitch):
                await connection.request("GET", "/")

            assert not connection.reusable


@pytest.mark.parametrize("streamed", [False, True])
async def test_pool_cancelled_anywhere(streamed) -> None:
    """Cancelled at any step a request keeps no slot, and the pool goes on."""

    async def app(request: Request) -> Response:
        return Response(200, content(b"a", await request.read()))

    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve_tcp, app, 0, host="127.0.0.1"))
        async with ConnectionPool(connections=1) as pool:

            async def run() -> None:
                body: Any = content(b"x") if streamed else b"x"
                async with await pool.request("POST", server.url, body=body) as first:
                    await first.read()
                second = await pool.request("POST", server.url, body=b"y")
                async with second:
                    assert b"".join([piece async for piece in second.stream()]) == b"ay"
                await pool.close_idle(0)

            for step in range(1, 1000):
                instrument = CancelAtStep(step)
                trio.lowlevel.add_instrument(instrument)
                try:
                    with instrument.scope:
                        await run()
                finally:
                    trio.lowlevel.remove_instrument(instrument)
                counts = pool.statistics()
                assert counts.in_use == counts.waiting == 0, step
                if not instrument.scope.cancelled_caught:
                    break
            assert step > 10
            assert counts.idle == 0
        nursery.cancel_scope.cancel()
