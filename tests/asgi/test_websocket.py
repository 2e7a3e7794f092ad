"""WebSockets: what an application receives, and what its messages send."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from websockets.exceptions import ConnectionClosedError
from websockets.frames import Opcode

from trio_upgrade import (
    EndReason,
    Limits,
    Upgrade,
    UsageError,
    serve_ssl_over_tcp,
    serve_stream,
    serve_tcp,
)
from trio_upgrade.asgi import ClientDisconnected, open_asgi
from trio_upgrade.websocket import WebSocketOptions, open_websocket

from ..cancelling import cancel_everywhere
from ..servers import check_every_split
from ..tls import make_tls_contexts
from ..websocket.wires import (
    FIELDS,
    HOST,
    KEY,
    OFFER,
    SWITCHED,
    UPGRADE,
    VERSION,
    masked,
    masked_close,
    plain,
    plain_close,
)
from ..wire import BUG, DATE, TEXT, closing, get, okay
from .serving import LIMITS, START, Served, body, sender, serve, start

if TYPE_CHECKING:
    from trio_upgrade import Server

CONNECT = {"type": "websocket.connect"}
ACCEPT: dict[str, Any] = {"type": "websocket.accept"}
CLOSE: dict[str, Any] = {"type": "websocket.close"}
CUT = {"type": "websocket.disconnect", "code": 1006, "reason": ""}
GET = get("/", "Connection: close")
FORBIDDEN = okay(b"", status="403 Forbidden").replace(b"Content-L", b"content-l")
NOTHING_SENT = closing(BUG)
DENIAL = "websocket.http.response"
WITH_PROTOCOLS = get(
    "/", *FIELDS, "Sec-WebSocket-Protocol: a, ,b", "Sec-WebSocket-Protocol: c"
)


def text(data: str) -> dict[str, Any]:
    """Return a message with text."""
    return {"type": "websocket.send", "text": data}


def denial(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message of an answer to HTTP as one of a denial response."""
    return {**message, "type": f"websocket.{message['type']}"}


def left(code: int, reason: str = "") -> dict[str, Any]:
    """Return a disconnect message."""
    return {"type": "websocket.disconnect", "code": code, "reason": reason}


def http_too(app):
    """Return an application that answers requests that offer no WebSocket."""

    async def both(scope, receive, send) -> None:
        if scope["type"] == "http":
            app = sender(start(200, (b"content-length", b"4")), body(b"okay"))
            await app(scope, receive, send)
        else:
            await called(scope, receive, send)

    called = app
    return both


def accepting(*messages, then=None):
    """Return an application that accepts, sends these messages, and then raises."""

    async def app(scope, receive, send) -> None:
        assert await receive() == CONNECT
        await sender(ACCEPT, *messages, then=then)(scope, receive, send)

    return http_too(app)


async def echo(scope, receive, send) -> None:
    """Echo each message until the client leaves."""
    assert await receive() == CONNECT
    await send(ACCEPT)
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


async def find_scope(wire: bytes, **options) -> dict[str, Any]:
    """Return the scope of an offer, which is then closed."""
    scopes: list[dict[str, Any]] = []

    async def app(scope, receive, send) -> None:
        scopes.append(scope)
        await send(CLOSE)

    await serve(app, wire, **options)
    (scope,) = scopes
    return scope


class TestScope:
    """The scope of a WebSocket."""

    async def test_whole(self) -> None:
        """Every key of the specification is there, with its type."""
        wire = get("/a%20b?x=%20y", *FIELDS)

        assert await find_scope(wire, root_path="/api") == {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "ws",
            "path": "/api/a b",
            "raw_path": b"/api/a%20b",
            "query_string": b"x=%20y",
            "root_path": "/api",
            "headers": [
                (b"host", b"x"),
                (b"connection", b"Upgrade"),
                (b"upgrade", b"websocket"),
                (b"sec-websocket-key", KEY.encode()),
                (b"sec-websocket-version", b"13"),
            ],
            "client": None,
            "server": None,
            "subprotocols": [],
            "state": {},
            "extensions": {"websocket.http.response": {}},
        }

    async def test_subprotocols(self) -> None:
        """The subprotocols of all lines, in the client's order (RFC 6455 §11.3.4)."""
        scope = await find_scope(WITH_PROTOCOLS)

        assert scope["subprotocols"] == ["a", "b", "c"]

    async def test_state(self) -> None:
        """The state is a copy of the lifespan's."""
        states = []

        async def app(scope, receive, send) -> None:
            if scope["type"] == "lifespan":
                scope["state"]["a"] = 1
                await receive()
                await send({"type": "lifespan.startup.complete"})
                await receive()
                await send({"type": "lifespan.shutdown.complete"})
            else:
                states.append(scope["state"].copy())
                scope["state"]["a"] = 2
                await send(CLOSE)

        await serve(app, OFFER + OFFER, lifespan="on")
        assert states == [{"a": 1}] * 2

    async def test_tls(self, nursery) -> None:
        """Over TLS the scheme is wss, and both addresses are host and port."""
        scopes = []

        async def app(scope, receive, send) -> None:
            scopes.append(scope)
            await echo(scope, receive, send)

        client, context = make_tls_contexts()
        async with open_asgi(app, lifespan="off") as adapter:
            server = await nursery.start(
                partial(serve_ssl_over_tcp, adapter, 0, context, host=HOST)
            )
            port = server.port
            url = f"wss://localhost:{port}"
            async with open_websocket(url, ssl_context=client) as websocket:
                await websocket.send("Hello")
                assert await websocket.recv() == "Hello"
            await server.drain(5)

        (scope,) = scopes
        assert scope["scheme"] == "wss"
        assert scope["client"][0] == HOST
        assert scope["server"] == (HOST, port)


class TestAccept:
    """The opening of a WebSocket."""

    async def test_every_split(self) -> None:
        """Messages right after the handshake are read, wherever the packets are cut."""
        received: list[Any] = []

        async def app(scope, receive, send) -> None:
            assert await receive() == CONNECT
            await send(ACCEPT)
            received[:] = [await receive() for _ in range(3)]

        wire = OFFER + masked("Hello") + masked(b"\0\xff") + masked_close(1000)
        async with open_asgi(app, lifespan="off") as adapter:
            await check_every_split(adapter, wire, SWITCHED + plain_close(1000))
        assert received == [
            {"type": "websocket.receive", "text": "Hello"},
            {"type": "websocket.receive", "bytes": b"\0\xff"},
            left(1000),
        ]

    async def test_fields(self) -> None:
        """The fields of the application are in the 101."""
        message = {**ACCEPT, "headers": [(b"x-a", b"1"), (b"x-a", b"2")]}
        sent = await serve(sender(message), OFFER, masked_close(1000))

        assert sent.startswith(SWITCHED[:-2] + b"x-a: 1\r\nx-a: 2\r\n\r\n")

    async def test_subprotocol(self) -> None:
        """The subprotocol of the application is in the 101 (RFC 6455 §4.2.2)."""
        message = {**ACCEPT, "subprotocol": "b"}
        sent = await serve(sender(message), WITH_PROTOCOLS, masked_close(1000))

        assert sent.startswith(SWITCHED[:-2] + b"Sec-WebSocket-Protocol: b\r\n\r\n")

    async def test_no_subprotocol(self) -> None:
        """None chooses no subprotocol of those that are offered."""
        message = {**ACCEPT, "subprotocol": None}
        sent = await serve(sender(message), WITH_PROTOCOLS, masked_close(1000))

        assert sent.startswith(SWITCHED)

    async def test_other_task(self) -> None:
        """Any task of the application may accept, while others receive."""
        received: list[Any] = []

        async def app(scope, receive, send) -> None:
            async def read() -> None:
                received.append(await receive())

            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(read)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(send, ACCEPT)

        sent = await serve(app, OFFER + masked("a") + masked("b"), masked_close(1000))
        assert sent == SWITCHED + plain_close(1000)
        assert received == [
            CONNECT,
            {"type": "websocket.receive", "text": "a"},
            {"type": "websocket.receive", "text": "b"},
        ]

    async def test_h2c_beside(self) -> None:
        """Another protocol may be offered beside it; one of `upgrades` comes first."""
        wire = get("/", UPGRADE[0], "Upgrade: h2c, websocket", *FIELDS[2:])
        sent = await serve(accepting(), wire, masked_close(1000))

        assert sent == SWITCHED + plain_close(1000)

    @pytest.mark.parametrize(
        ("message", "error"),
        [
            ({"subprotocol": "d"}, ValueError),
            ({"subprotocol": b"a"}, TypeError),
            ({"headers": [("a", "b")]}, TypeError),
            ({"headers": [(b"Sec-WebSocket-Protocol", b"a")]}, ValueError),
            ({"headers": [(b"connection", b"close")]}, ValueError),
            ({"headers": [(b"a", b"b\r\n")]}, ValueError),
        ],
    )
    async def test_mistakes(self, message, error) -> None:
        """An accept that cannot be sent changes nothing: another may follow."""

        async def app(scope, receive, send) -> None:
            with pytest.raises(error):
                await send({**ACCEPT, **message})
            await send(ACCEPT)

        assert (await serve(app, WITH_PROTOCOLS, masked_close(1000))).startswith(
            SWITCHED
        )

    async def test_of_others(self) -> None:
        """Without an offer, or by HTTP/1.0, it is an ordinary request."""
        app = sender(start(200, (b"content-length", b"4")), body(b"okay"))
        wire = get("/", *FIELDS[1:]) + OFFER.replace(b"HTTP/1.1", b"HTTP/1.0")

        assert (await serve(app, wire)).count(b"HTTP/1.1 200") == 2


class TestRefusal:
    """Offers for which the application is not called."""

    @pytest.mark.parametrize(
        ("wire", "status"),
        [
            (get("/", *UPGRADE, VERSION), b"400"),
            (get("/", *UPGRADE, VERSION, "Sec-WebSocket-Key: x"), b"400"),
            (get("/", *FIELDS[:3], "Sec-WebSocket-Version: 8"), b"426"),
            (get("/", *FIELDS, "Sec-WebSocket-Protocol: a b"), b"400"),
            (OFFER.replace(b"GET", b"POST"), b"405"),
        ],
    )
    async def test_malformed(self, wire: bytes, status: bytes) -> None:
        """It is refused by the library, and the connection goes on (RFC 6455 §4.2.2)."""
        sent = await serve(accepting(), wire + GET)

        assert sent.startswith(b"HTTP/1.1 " + status)
        assert sent.count(b"HTTP/1.1 200") == 1
        assert b"101" not in sent

    async def test_origins(self) -> None:
        """An origin that is not wanted is a 403 (RFC 6455 §10.2)."""
        options: WebSocketOptions = {"origins": ["https://a"]}
        wire = get("/", *FIELDS, "Origin: https://b")
        sent = await serve(accepting(), wire, websocket=options)

        assert sent.startswith(b"HTTP/1.1 403")

    async def test_draining(self) -> None:
        """While the server drains it is a 503, whatever the application does."""
        seen: list[Any] = []
        servers: list[Server] = []

        async def app(scope, receive, send) -> None:
            servers[0].start_drain(5)
            await receive()
            for message in (ACCEPT, text("x")):
                with pytest.raises(ClientDisconnected) as caught:
                    await send(message)
            await send(CLOSE)
            seen.append(await receive())
            raise caught.value

        async def note_server(request):
            servers.append(request.server)
            return await adapter(request)

        served = Served(OFFER)
        async with open_asgi(app, lifespan="off") as adapter:
            await serve_stream(note_server, served.peer, limits=LIMITS, strict=True)
        assert served.sent.startswith(b"HTTP/1.1 503")
        assert seen == [CUT]

    async def test_body_too_large(self) -> None:
        """A body that cannot be dropped is answered by the server."""
        wire = get("/", *FIELDS, "Content-Length: 9") + bytes(9)

        async def app(scope, receive, send) -> None:
            await send(ACCEPT)

        served = Served(wire, limits=Limits(linger=0, drain_body=5))
        await served.serve(app)
        assert served.sent.startswith(b"HTTP/1.1 413")
        assert not served.errors


class TestDenial:
    """Answers without a WebSocket."""

    @pytest.mark.parametrize("message", [CLOSE, {**CLOSE, "code": 4000, "reason": "x"}])
    async def test_close(self, message) -> None:
        """A close before the accept is a 403, and the connection goes on."""
        seen: list[Any] = []

        async def app(scope, receive, send) -> None:
            await receive()
            await send(message)
            with trio.testing.assert_no_checkpoints():
                seen.append(await receive())
            with pytest.raises(UsageError):
                await send(ACCEPT)

        assert await serve(http_too(app), OFFER + OFFER) == FORBIDDEN * 2
        assert seen == [CUT] * 2

    async def test_response(self) -> None:
        """A response of the application, in pieces."""
        fields = [(b"www-authenticate", b"Basic")]
        app = sender(
            denial(start(401, *fields)),
            denial(body(b"one", more=True)),
            denial(body(b"two")),
        )
        sent = await serve(http_too(app), OFFER + GET)

        assert sent.startswith(b"HTTP/1.1 401 Unauthorized\r\n" + DATE)
        assert b"\r\nwww-authenticate: Basic\r\n" in sent
        assert b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\nHTTP/1.1 200" in sent

    async def test_receive_meanwhile(self) -> None:
        """A task that receives is told when the response is complete."""
        seen: list[Any] = []

        async def app(scope, receive, send) -> None:
            await receive()

            async def read() -> None:
                seen.append(await receive())

            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                await trio.testing.wait_all_tasks_blocked()
                await send(denial(start(404)))
                await send(denial(body(more=True)))
                nursery.start_soon(read)
                await trio.testing.wait_all_tasks_blocked()
                await send(denial(body()))

        sent = await serve(app, OFFER)
        assert sent.startswith(b"HTTP/1.1 404")
        assert seen == [CUT] * 2

    async def test_client_leaves(self) -> None:
        """A response whose client is gone is cut, and an ordinary end."""
        ended: list[Any] = []

        async def app(scope, receive, send) -> None:
            await send(denial(start(404)))
            await send(denial(body(b"x", more=True)))
            served.peer.finish("reset")
            assert await receive() == CONNECT
            assert await receive() == CUT
            with suppress(ClientDisconnected):
                await send(denial(body(b"x", more=True)))
            ended.append(True)

        served = Served(OFFER, then="silence")
        await served.serve(app)
        assert ended
        assert not served.errors

    @pytest.mark.parametrize("messages", [[denial(START), denial(body())], [CLOSE]])
    async def test_found_by_send(self, messages) -> None:
        """A send() that finds the connection broken raises: an ordinary end."""
        served = Served(OFFER, then="reset")
        await served.serve(sender(*messages))

        assert not served.errors


class TestMistakes:
    """Messages that are not expected, and applications that end too early."""

    @pytest.mark.parametrize(
        "messages",
        [
            [],
            [text("x")],
            [{"type": "websocket.zip"}],
            [START],
            [body()],
            [denial(body())],
            [denial(start(101))],
            [denial(start(404))],
            [denial(start(404)), ACCEPT],
            [denial(start(404)), CLOSE],
            [denial(start(404)), denial(start(404))],
            [denial(start(404)), denial({**body(), "body": "x"})],
            [{**ACCEPT, "subprotocol": "x"}],
        ],
        ids=str,
    )
    async def test_before_the_answer(self, messages) -> None:
        """Before the first byte of an answer it is a 500, logged once."""
        wire = OFFER.replace(b"Host", b"Connection: close\r\nHost")
        served = await Served(wire).serve(sender(*messages))

        assert served.sent == NOTHING_SENT
        assert len(served.errors) == 1

    @pytest.mark.parametrize("messages", [[], [CLOSE], [denial({**body(), "body": 5})]])
    async def test_inside_a_denial(self, messages) -> None:
        """A denial that has begun is cut, and it is logged once."""
        app = sender(denial(start(404)), denial(body(b"x", more=True)), *messages)
        served = await Served(OFFER, OFFER).serve(app)

        assert served.sent.endswith(b"1\r\nx\r\n")
        assert len(served.errors) == 1
        assert not served.peer.got_eof

    @pytest.mark.parametrize(
        "message",
        [
            ACCEPT,
            denial(START),
            {"type": "websocket.send"},
            {"type": "websocket.send", "text": b"x"},
            {"type": "websocket.send", "bytes": "x"},
            {"type": "websocket.send", "text": "\ud800"},
            {**CLOSE, "code": 1005},
            {**CLOSE, "code": 1006},
            {**CLOSE, "code": 5000},
            {**CLOSE, "code": "1000"},
            {**CLOSE, "code": True},
            {**CLOSE, "reason": b"x"},
            {**CLOSE, "reason": "é" * 62},
        ],
        ids=str,
    )
    async def test_after_the_accept(self, message) -> None:
        """After the accept it is a Close with 1011, logged once (RFC 6455 §7.4.1)."""
        served = await Served(OFFER, masked_close(1011)).serve(accepting(message))

        assert served.sent == SWITCHED + plain_close(1011)
        (record,) = served.errors
        assert isinstance(record.error, (TypeError, ValueError, UsageError))

    @pytest.mark.parametrize("message", [text("x"), CLOSE, ACCEPT])
    async def test_after_the_close(self, message) -> None:
        """After its own close an application may send nothing more."""
        served = await Served(OFFER, masked_close(1000)).serve(
            accepting(CLOSE, message)
        )

        assert served.sent == SWITCHED + plain_close(1000)
        (record,) = served.errors
        assert isinstance(record.error, UsageError)

    async def test_recovers(self) -> None:
        """A mistake that the application handles has no effect."""

        async def app(scope, receive, send) -> None:
            await send(ACCEPT)
            with pytest.raises(
                UsageError, match="'x' sent while the WebSocket is OPEN"
            ):
                await send({"type": "x"})
            await send(text("y"))

        sent = await serve(app, OFFER, masked_close(1000))
        assert sent == SWITCHED + plain("y") + plain_close(1000)


class TestMessages:
    """Messages of an open WebSocket."""

    @pytest.mark.parametrize(
        ("message", "sent"),
        [
            ({"text": "é"}, "é"),
            ({"text": "", "bytes": None}, ""),
            ({"bytes": b"\0", "text": None}, b"\0"),
            ({"bytes": bytearray(b"a")}, b"a"),
            ({"bytes": memoryview(b"a"), "text": "b"}, b"a"),
        ],
    )
    async def test_send(self, message, sent) -> None:
        """Text is a text message, bytes are a binary one (RFC 6455 §5.6)."""
        app = accepting({"type": "websocket.send", **message})

        assert await serve(app, OFFER, masked_close(1000)) == (
            SWITCHED + plain(sent) + plain_close(1000)
        )

    async def test_connect_is_known(self) -> None:
        """The first message is known at once."""

        async def app(scope, receive, send) -> None:
            with trio.testing.assert_no_checkpoints():
                assert await receive() == CONNECT
            await send(ACCEPT)

        await serve(app, OFFER, masked_close(1000))

    async def test_receivers(self) -> None:
        """Several tasks may receive; each message goes to one of them."""
        received: list[Any] = []

        async def app(scope, receive, send) -> None:
            await receive()
            await send(ACCEPT)

            async def read() -> None:
                received.append(await receive())

            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(read)
                await trio.testing.wait_all_tasks_blocked()
                served.peer.feed(masked("a"), masked("b"), masked_close(1000))

        served = Served(OFFER, then="silence")
        await served.serve(app, websocket={"close_timeout": 0})
        assert [message.get("text") for message in received] == ["a", "b", None, None]
        assert received[2:] == [left(1000)] * 2
        assert not served.errors

    @pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1014, 3000, 4999])
    async def test_close(self, code: int) -> None:
        """A close has the code and the reason of the application (RFC 6455 §7.4)."""
        seen: list[Any] = []

        async def app(scope, receive, send) -> None:
            await receive()
            await send(ACCEPT)
            await send({**CLOSE, "code": code, "reason": "why"})
            seen.append(await receive())

        frame = code.to_bytes(2, "big") + b"why"
        sent = await serve(app, OFFER, masked(frame, Opcode.CLOSE))
        assert sent == SWITCHED + plain(frame, Opcode.CLOSE)
        assert seen == [left(code, "why")]

    @pytest.mark.parametrize("more", [{}, {"code": None, "reason": None}])
    async def test_close_by_default(self, more) -> None:
        """Without a code it is 1000, and there is no reason."""
        app = accepting({**CLOSE, **more})

        assert await serve(app, OFFER, masked_close(1000)) == SWITCHED + plain_close(
            1000
        )

    async def test_close_with_unread_messages(self, autojump_clock) -> None:
        """Messages over the queue do not keep the peer's Close from being read."""
        messages = [masked(b"x") for _ in range(50)]
        seen: list[Any] = []

        async def app(scope, receive, send) -> None:
            await receive()
            await send(ACCEPT)
            await trio.testing.wait_all_tasks_blocked()
            began = trio.current_time()
            await send(CLOSE)
            seen.append(trio.current_time() - began)
            seen.append(await receive())

        options: WebSocketOptions = {"max_queue": 2}
        await serve(app, OFFER, *messages, masked_close(1000), websocket=options)
        assert seen == [0, left(1000)]

    async def test_close_while_another_task_receives(self) -> None:
        """A task that receives is told of the end."""
        seen: list[Any] = []

        async def app(scope, receive, send) -> None:
            await receive()
            await send(ACCEPT)

            async def read() -> None:
                while True:
                    seen.append(await receive())
                    if seen[-1]["type"] == "websocket.disconnect":
                        return

            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(send, CLOSE)
                await trio.testing.wait_all_tasks_blocked()
                served.peer.feed(masked("x"), masked_close(1000))
                served.peer.finish()

        served = Served(OFFER, then="silence")
        await served.serve(app)
        assert seen[-1] == left(1000)
        assert not served.errors

    async def test_options(self) -> None:
        """The options are those of all WebSockets: here a message is too long."""
        options: WebSocketOptions = {"max_size": 3, "compression": None}
        offer = get("/", *FIELDS, "Sec-WebSocket-Extensions: permessage-deflate")
        sent = await serve(echo, offer, masked(b"abcd"), websocket=options)

        assert sent.startswith(SWITCHED)
        assert sent[len(SWITCHED) :][2:4] == (1009).to_bytes(2, "big")
        assert b"permessage-deflate" in await serve(echo, offer)


class TestEnds:
    """How a WebSocket ends."""

    @pytest.mark.parametrize("code", [1000, 1001, 1008, 1011, 4000])
    async def test_client_closes(self, code: int, caplog) -> None:
        """The application gets the client's code and reason."""
        seen: list[Any] = []

        async def app(scope, receive, send) -> None:
            await receive()
            await send(ACCEPT)
            seen.append(await receive())

        frame = code.to_bytes(2, "big") + b"bye"
        sent = await serve(app, OFFER, masked(frame, Opcode.CLOSE))
        assert seen == [left(code, "bye")]
        assert sent == SWITCHED + plain(frame, Opcode.CLOSE)
        assert not caplog.records

    @pytest.mark.parametrize(
        ("wire", "then", "code"),
        [
            (masked(b"", Opcode.CLOSE), "end", 1005),
            (b"\x81", "end", 1006),
            (b"\x81", "reset", 1006),
            (masked("Hello")[:4], "end", 1006),
            (plain("no mask"), "end", 1006),
        ],
    )
    async def test_codes(self, wire: bytes, then, code: int) -> None:
        """A Close without a code is 1005, an end without a Close 1006 (§7.1.5)."""
        seen: list[Any] = []

        async def app(scope, receive, send) -> None:
            await receive()
            await send(ACCEPT)
            served.peer.feed(wire)
            served.peer.finish(then)
            with trio.testing.assert_checkpoints():
                seen.append(await receive())
            await send(CLOSE)
            for message in (text("x"), ACCEPT, denial(START)):
                with pytest.raises(OSError, match="gone") as caught:
                    await send(message)
                assert type(caught.value) is ClientDisconnected
            with trio.testing.assert_checkpoints():
                seen.append(await receive())

        served = Served(OFFER, then="silence")
        await served.serve(app)
        assert seen == [left(code)] * 2
        assert not served.errors

    @pytest.mark.parametrize("kind", ["bare", "cause", "group"])
    async def test_found_by_send(self, kind: str, caplog) -> None:
        """A send() that finds the end raises; out of the application it is no error."""
        seen: list[Any] = []

        async def app(scope, receive, send) -> None:
            await receive()
            await send(ACCEPT)
            await trio.testing.wait_all_tasks_blocked()
            try:
                await send(text("x"))
            except OSError as exc:
                seen.append(exc)
                with trio.testing.assert_no_checkpoints():
                    assert await receive() == left(1001)
                if kind == "cause":
                    raise KeyError from exc
                if kind == "group":
                    raise ExceptionGroup("x", [exc]) from None
                raise

        served = await Served(OFFER, masked_close(1001)).serve(app)
        assert isinstance(seen[0].__cause__, Exception)
        assert served.sent == SWITCHED + plain_close(1001)
        assert served.reason is EndReason.RETURNED
        assert not served.errors
        assert not caplog.records

    async def test_bug_after_the_end(self) -> None:
        """An error after the client has left is logged, once and as it is."""

        async def app(scope, receive, send) -> None:
            await receive()
            await send(ACCEPT)
            await receive()
            raise KeyError

        served = await Served(OFFER, masked_close(1000)).serve(app)
        (record,) = served.errors
        assert isinstance(record.error, KeyError)

    @pytest.mark.parametrize("asks", [True, False])
    async def test_before_the_accept(self, asks: bool) -> None:
        """A client that left before the accept is 1006, and send() raises."""
        seen: list[Any] = []

        async def app(scope, receive, send) -> None:
            await receive()
            if asks:
                seen.append(await receive())
            await send(ACCEPT)

        served = Served(OFFER, then="reset")
        await served.serve(app)
        assert seen == [CUT] * asks
        assert not served.errors

    async def test_return_after_it_left(self) -> None:
        """An application whose client left before the accept may simply return."""

        async def app(scope, receive, send) -> None:
            await receive()
            await receive()

        served = await Served(OFFER, then="reset").serve(app)
        assert not served.errors
        assert not served.sent

    async def test_return(self) -> None:
        """An application that returns has said all: 1000."""
        sent = await serve(accepting(text("x")), OFFER, masked_close(1000))

        assert sent == SWITCHED + plain("x") + plain_close(1000)

    @pytest.mark.parametrize(
        "error", [KeyError("x"), ExceptionGroup("x", [KeyError(1), OSError(2)])]
    )
    async def test_error(self, error, caplog, autojump_clock) -> None:
        """An exception is 1011, a second for the peer, a reset, and one line."""
        began = trio.current_time()
        served = await Served(OFFER, then="silence").serve(accepting(then=error))

        assert trio.current_time() - began == pytest.approx(1)
        assert served.sent == SWITCHED + plain_close(1011)
        assert not served.peer.got_eof
        assert served.errors[0].error is error
        assert served.reason is EndReason.ERROR
        (line,) = caplog.records
        assert line.name == "trio_upgrade.server"

    async def test_error_before_the_accept(self) -> None:
        """Before the accept it is a 500."""
        wire = OFFER.replace(b"Host", b"Connection: close\r\nHost")
        served = await Served(wire).serve(sender(then=KeyError("x")))

        assert served.sent == NOTHING_SENT
        assert isinstance(served.errors[0].error, KeyError)

    async def test_strict(self) -> None:
        """What the application raises comes out as it was raised."""
        group = ExceptionGroup("x", [KeyError()])
        for error in (KeyError(), group, KeyboardInterrupt()):
            peer = Served(OFFER, masked_close(1011)).peer
            async with open_asgi(accepting(then=error), lifespan="off") as adapter:
                with pytest.raises(type(error)) as caught:
                    await serve_stream(adapter, peer, limits=LIMITS, strict=True)
            assert caught.value is error
            assert peer.closed
            closed = plain_close(1011) if isinstance(error, Exception) else b""
            assert peer.sent == SWITCHED + closed

    async def test_task_that_outlives_it(self, nursery) -> None:
        """A task that the application left behind is told that it is over."""
        seen: list[Any] = []
        go_on = trio.Event()

        async def app(scope, receive, send) -> None:
            await receive()

            async def late() -> None:
                await go_on.wait()
                seen.append(await receive())
                with pytest.raises(ClientDisconnected):
                    await send(text("x"))
                seen.append("end")

            nursery.start_soon(late)
            await send(ACCEPT)

        await serve(app, OFFER, masked_close(1000))
        go_on.set()
        await trio.testing.wait_all_tasks_blocked()
        assert seen == [left(1000), "end"]


async def test_websocket_that_fails(monkeypatch) -> None:
    """An error of the WebSocket itself is logged, and ends the application."""
    seen: list[Any] = []

    async def fail(request, stream, head) -> None:
        raise LookupError("a bug of ours")

    async def app(scope, receive, send) -> None:
        await send(ACCEPT)
        with trio.CancelScope(shield=True):
            for message in (text("x"), CLOSE):
                with pytest.raises(ClientDisconnected):
                    await send(message)
            assert await receive() == CONNECT
            seen.append(await receive())
        await trio.sleep_forever()

    monkeypatch.setattr(
        "trio_upgrade._asgi.websocket.accept_websocket",
        lambda *_args, **_options: Upgrade("websocket", fail),
    )
    served = await Served(OFFER).serve(app)
    assert seen == [CUT]
    assert isinstance(served.errors[0].error, LookupError)


class TestDrain:
    """A drain of the server."""

    async def test_code(self, nursery) -> None:
        """The client gets a 1012 at once, and the application hears of it."""
        seen: list[Any] = []

        async def app(scope, receive, send) -> None:
            await receive()
            await send(ACCEPT)
            await send(text("x"))
            seen.append(await receive())

        async with open_asgi(app, lifespan="off") as adapter:
            server = await nursery.start(partial(serve_tcp, adapter, 0, host=HOST))
            async with open_websocket(server.url) as websocket:
                assert await websocket.recv() == "x"
                server.start_drain(60)
                with pytest.raises(ConnectionClosedError, match="1012"):
                    await websocket.recv()
                await server.wait_ended()
        assert seen == [left(1012)]

    async def test_end_of_the_grace(self, autojump_clock, nursery) -> None:
        """An application that does not look is cancelled at the end of the grace."""
        cancelled = []

        async def app(scope, receive, send) -> None:
            await send(ACCEPT)
            await send(text("x"))
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                cancelled.append(trio.current_time())
                raise

        async with open_asgi(app, lifespan="off") as adapter:
            server = await nursery.start(partial(serve_tcp, adapter, 0, host=HOST))
            async with open_websocket(server.url) as websocket:
                assert await websocket.recv() == "x"
                began = trio.current_time()
                await server.drain(3)
        assert cancelled == [pytest.approx(began + 3)]


class TestCancelled:
    """A cancellation of the connection, or in the application."""

    @pytest.mark.parametrize("then", ["end", "silence"])
    async def test_everywhere(self, then, autojump_clock) -> None:
        """Cancelled at any step, nothing is left open and nothing swallowed."""

        async def app(scope, receive, send) -> None:
            await receive()
            await send({**ACCEPT, "subprotocol": "a"})
            await send(text("x"))
            await receive()
            await send(CLOSE)

        async def run(peer) -> None:
            async with open_asgi(app, lifespan="off") as adapter:
                await serve_stream(adapter, peer, limits=LIMITS, strict=True)

        last = [masked_close(1000)] if then == "end" else []
        wire = [WITH_PROTOCOLS, masked("x"), *last]
        assert await cancel_everywhere(run, *wire, then=then) > 8

    @pytest.mark.parametrize("messages", [[CLOSE], [denial(START), denial(body())], []])
    async def test_without_a_switch(self, messages, autojump_clock) -> None:
        """The same while it is denied, and while it fails."""
        app = sender(*messages) if messages else accepting(then=KeyError())

        async def run(peer) -> None:
            with suppress(KeyError):
                async with open_asgi(app, lifespan="off") as adapter:
                    await serve_stream(adapter, peer, limits=LIMITS, strict=True)
            await trio.lowlevel.checkpoint_if_cancelled()

        assert await cancel_everywhere(run, OFFER, masked_close(1011)) > 2

    async def test_receive_loses_nothing(self) -> None:
        """A receive() that was cancelled gives the message to the next one."""
        received: list[Any] = []

        async def app(scope, receive, send) -> None:
            await receive()
            with trio.move_on_after(0):
                await receive()
            await send(ACCEPT)
            with trio.move_on_after(0):
                await receive()
            served.peer.feed(masked("a"), masked_close(1000))
            await trio.testing.wait_all_tasks_blocked()
            with trio.CancelScope() as scope:
                scope.cancel()
                await receive()
            received.extend([await receive(), await receive()])

        served = Served(OFFER, then="silence")
        await served.serve(app, websocket={"close_timeout": 0})
        assert received == [{"type": "websocket.receive", "text": "a"}, left(1000)]

    async def test_send_that_did_not_begin(self) -> None:
        """A send() in a cancelled scope sends nothing, and the next one is whole."""

        async def app(scope, receive, send) -> None:
            with trio.CancelScope() as scope:
                scope.cancel()
                await send(ACCEPT)
            await send(ACCEPT)
            for message in (text("x"), CLOSE):
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await send(message)
                assert scope.cancelled_caught
            await send(text("y"))

        options: WebSocketOptions = {"close_timeout": 0}
        sent = await serve(app, OFFER, then="silence", websocket=options)
        assert sent == SWITCHED + plain("y") + plain_close(1000)

    async def test_send_that_has_begun(self, nursery) -> None:
        """A send() that is cancelled in the middle cuts the WebSocket."""
        seen: list[Any] = []

        async def app(scope, receive, send) -> None:
            assert await receive() == CONNECT
            await send(ACCEPT)
            with trio.CancelScope() as first:
                async with trio.open_nursery() as inner:
                    inner.start_soon(send, text("x" * 50_000_000))
                    await trio.testing.wait_all_tasks_blocked(0.01)
                    first.cancel()
            with trio.fail_after(5), pytest.raises(ClientDisconnected):
                await send(text("y"))
            seen.append(await receive())

        async with open_asgi(app, lifespan="off") as adapter:
            server = await nursery.start(
                partial(serve_tcp, adapter, 0, host=HOST, strict=True)
            )
            async with await trio.open_tcp_stream(HOST, server.port) as stream:
                await stream.send_all(OFFER)
                # A server that drains already would refuse the offer.
                assert await stream.receive_some(len(SWITCHED)) == SWITCHED
                await server.drain(10)
        assert seen == [CUT]


class TestWithoutThePackage:
    """The package for WebSocket is not installed."""

    @pytest.fixture(autouse=True)
    def _hide(self, monkeypatch) -> None:
        monkeypatch.delitem(sys.modules, "trio_upgrade._asgi.websocket", raising=False)
        monkeypatch.setitem(sys.modules, "trio_upgrade.websocket", None)

    async def test_offer(self, caplog) -> None:
        """Each offer is a 501, and one line says what to install."""
        refusal = okay(b"no WebSocket here\n", TEXT, status="501 Not Implemented")
        with caplog.at_level(logging.INFO):
            sent = await serve(accepting(), OFFER + OFFER + GET)

        assert sent.startswith(refusal * 2 + b"HTTP/1.1 200 OK")
        (record,) = caplog.records
        assert record.name == "trio_upgrade.asgi"
        assert 'pip install "trio-upgrade[websocket]"' in record.getMessage()

    def test_options(self) -> None:
        """Options that could not be used are refused."""
        with pytest.raises(ModuleNotFoundError, match="trio-upgrade\\[websocket\\]"):
            open_asgi(echo, websocket={})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ([], TypeError, "must be a dict, not list"),
        ({"max_sise": 5}, TypeError, "'max_sise' here. Did you mean 'max_size'"),
        ({"headers": ()}, TypeError, "no option 'headers' here$"),
        ({"max_size": -1}, ValueError, "max_size must not be negative"),
        ({"max_queue": "x"}, TypeError, "max_queue must be"),
        ({"ping_interval": 0}, ValueError, "ping_interval must not be 0"),
        ({"ping_timeout": -1}, ValueError, "ping_timeout must not be negative"),
        ({"close_timeout": "x"}, TypeError, "close_timeout must be seconds"),
        ({"compression": "gzip"}, ValueError, "compression must be"),
        ({"origins": "https://a"}, TypeError, "origins must be a sequence"),
    ],
)
def test_bad_options(options, error, message) -> None:
    """What can be wrong with the options is refused before anything is opened."""
    with pytest.raises(error, match=message):
        open_asgi(echo, websocket=options)
