"""HTTP requests: what an application receives, and what its messages send."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio
import trio.testing

from trio_upgrade import EndReason, Limits, UsageError, serve_stream
from trio_upgrade.asgi import ClientDisconnected, open_asgi

from ..cancelling import cancel_everywhere
from ..servers import check_every_split
from ..wire import BUG, DATE, closing, get, okay
from .serving import LIMITS, START, Served, body, sender, serve, start

GET = get("/")
CLOSE = get("/", "Connection: close")
HEAD = GET.replace(b"GET", b"HEAD")
OLD = b"GET / HTTP/1.0\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\n" + DATE + b"Transfer-Encoding: chunked\r\n\r\n"
LENGTH = (b"content-length", b"4")
DISCONNECT = {"type": "http.disconnect"}
NOTHING = {"type": "http.request", "body": b"", "more_body": False}


def post(content: bytes, *fields: str) -> bytes:
    """Return a request with content of known length."""
    wire = get("/", f"Content-Length: {len(content)}", *fields) + content
    return wire.replace(b"GET", b"POST", 1)


def chunks(*data: bytes) -> bytes:
    """Return chunks as we send them, with the last one."""
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in data if chunk)


async def read_body(receive) -> bytes:
    """Read the whole body by receive()."""
    content, more = b"", True
    while more:
        message = await receive()
        assert message["type"] == "http.request", message
        content += message["body"]
        more = message["more_body"]
    return content


async def echo(scope, receive, send) -> None:
    """Answer with the body of the request."""
    content = await read_body(receive)
    await send(start(200, (b"content-length", b"%d" % len(content))))
    await send(body(content))


class TestAnswer:
    """The messages of an answer, in order."""

    async def test_content_length(self) -> None:
        """With a Content-Length the content is sent as it is; the connection goes on."""
        app = sender(start(200, LENGTH), body(b"okay"))

        assert (
            await serve(app, GET, GET)
            == okay(b"okay").replace(b"Content-Length", b"content-length") * 2
        )

    async def test_chunked(self) -> None:
        """Without a Content-Length each message is a chunk (RFC 9112 §7.1)."""
        app = sender(START, body(b"one", more=True), body(b"two", more=True), body())

        assert (
            await serve(app, GET, GET)
            == (CHUNKED + chunks(b"one", b"two") + b"0\r\n\r\n") * 2
        )

    async def test_every_split(self) -> None:
        """The same, however the requests are cut into packets."""
        wire = post(b"abc") + GET
        expected = b"".join(
            okay(content).replace(b"Content-L", b"content-l")
            for content in (b"abc", b"")
        )
        async with open_asgi(echo, lifespan="off") as adapter:
            await check_every_split(adapter, wire, expected)

    async def test_http10(self) -> None:
        """To HTTP/1.0 the end of the connection ends the content (RFC 9112 §6.3)."""
        app = sender(START, body(b"one", more=True), body(b"two"))
        sent = await serve(app, OLD)

        assert (
            sent == b"HTTP/1.1 200 OK\r\n" + DATE + b"Connection: close\r\n\r\nonetwo"
        )

    async def test_head(self) -> None:
        """The content of an answer to HEAD is not sent (RFC 9110 §9.3.2)."""
        app = sender(start(200, LENGTH), body(b"okay"))
        sent = await serve(app, HEAD + GET)

        assert sent.count(b"content-length: 4") == 2
        assert sent.count(b"okay") == 1

    @pytest.mark.parametrize("status", [204, 205, 304])
    async def test_forbidden_content(self, status: int, caplog) -> None:
        """Content that the status forbids is dropped, with one line for all of it."""
        app = sender(
            start(status, (b"content-length", b"6")),
            body(b"one", more=True),
            body(b"two"),
        )
        with caplog.at_level(logging.WARNING, "trio_upgrade.asgi"):
            sent = await serve(app, GET)

        assert sent.startswith(b"HTTP/1.1 %d" % status)
        assert sent.endswith(b"\r\n\r\n")
        assert (b"ength: 6" in sent) == (status == 304)
        assert (b"ength: 0" in sent) == (status == 205)
        assert [record.getMessage() for record in caplog.records] == [
            f"dropped content of a {status} to <Request GET />"
        ]

    async def test_start_is_held(self) -> None:
        """Nothing is sent before the first body message, so an error can be a 500."""
        served = Served(CLOSE)

        async def app(scope, receive, send) -> None:
            await send(start(201, (b"x", b"y")))
            assert not served.peer.sent
            await send(body(more=True))
            assert b"\r\nx: y\r\n" in served.peer.sent
            await send(body())

        await served.serve(app)
        assert not served.errors

    async def test_transfer_encoding(self) -> None:
        """A Transfer-Encoding of the application is left out: framing is ours."""
        app = sender(start(200, (b"Transfer-Encoding", b"gzip"), LENGTH), body(b"okay"))

        assert b"ransfer" not in await serve(app, GET)

    async def test_connection_close(self) -> None:
        """A Connection: close of the application closes the connection."""
        app = sender(start(200, (b"connection", b"close"), LENGTH), body(b"okay"))

        assert (await serve(app, GET, GET)).count(b"HTTP/1.1") == 1

    async def test_trailers(self) -> None:
        """The trailers of all messages follow the content (RFC 9110 §6.5)."""

        async def app(scope, receive, send) -> None:
            assert scope["extensions"]["http.response.trailers"] == {}
            trailers = {"type": "http.response.trailers"}
            await send(start(trailers=True))
            await send(body(b"one"))
            await send({**trailers, "headers": [(b"a", b"1")], "more_trailers": True})
            await send({**trailers, "headers": [(b"b", b"2")]})

        end = b"0\r\na: 1\r\nb: 2\r\n\r\n"
        assert await serve(app, GET, GET) == (CHUNKED + chunks(b"one") + end) * 2

    @pytest.mark.parametrize("wire", [OLD, HEAD, GET])
    @pytest.mark.parametrize("status", [200, 204])
    async def test_trailers_dropped(self, wire: bytes, status: int) -> None:
        """Trailers for an answer that cannot have them are dropped."""
        trailers = {"type": "http.response.trailers", "headers": [(b"a", b"1")]}
        app = sender(start(status, trailers=True), body(), trailers)
        sent = await serve(app, wire)

        assert (b"a: 1" in sent) == (wire == GET and status == 200)

    async def test_early_hint(self) -> None:
        """Hints are sent at once, also while the start is held (RFC 8297 §2)."""
        hint = {"type": "http.response.early_hint", "links": [b"</a>", b"</b>"]}

        async def app(scope, receive, send) -> None:
            assert ("http.response.early_hint" in scope["extensions"]) == (
                scope["http_version"] == "1.1"
            )
            await send(hint)
            await send(start(200, LENGTH))
            await send(hint)
            await send(body(b"okay"))

        hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nLink: </b>\r\n\r\n" * 2
        sent = await serve(app, GET)
        assert sent.startswith(hints + b"HTTP/1.1 200 OK")
        assert b"103" not in await serve(app, OLD)

    @pytest.mark.parametrize("wire", [OLD, CLOSE])
    async def test_end_of_the_answer(self, wire: bytes) -> None:
        """A client that reads to the end does not wait for background tasks."""
        served = Served(wire, then="silence")

        async def app(scope, receive, send) -> None:
            await sender(START, body(b"okay"))(scope, receive, send)
            assert served.peer.got_eof

        await served.serve(app)
        assert not served.errors

    async def test_after_the_answer(self, autojump_clock) -> None:
        """After its answer an application runs on, and then the next request comes."""
        ended = []

        async def app(scope, receive, send) -> None:
            await sender(start(200, LENGTH), body(b"okay"))(scope, receive, send)
            assert await receive() == DISCONNECT
            await trio.sleep(3)
            ended.append(trio.current_time())

        await serve(app, GET + GET)
        assert len(ended) == 2
        assert ended[1] - ended[0] >= 3


class TestMistakes:
    """What an application sends wrongly."""

    @pytest.mark.parametrize(
        "messages",
        [
            [],
            [START],
            [body()],
            [START, START],
            [{"type": "http.response.trailers"}],
            [{"type": "websocket.send"}],
            [{"type": "http.response.push", "path": "/"}],
            [start(True)],
            [start(101), body()],
            [start(200, (b"a\n", b"b")), body()],
            [start(200, (b"a", b"b\n")), body()],
            [start(200, (b"content-length", b"x")), body()],
            [start(426), body()],
            [{"type": "http.response.early_hint", "links": ["</a>"]}],
            [START, {**body(), "body": "text"}],
        ],
        ids=str,
    )
    async def test_before_the_answer(self, messages) -> None:
        """Before the first body message a mistake is a 500, logged once."""
        served = await Served(CLOSE).serve(sender(*messages))

        assert served.sent == closing(BUG)
        assert len(served.errors) == 1

    @pytest.mark.parametrize(
        ("messages", "sent"),
        [
            ([START], b"a"),
            ([{**body(), "body": "text"}], b"a"),
            ([{"type": "http.response.early_hint", "links": [b"</a>"]}], b"a"),
            ([{"type": "http.response.trailers"}], b"a"),
            ([], b"a"),
            ([body()], b"a"),
            ([body(b"abcde")], b"a"),
        ],
    )
    async def test_inside_the_answer(self, messages, sent: bytes) -> None:
        """After the first body message the answer is cut, and it is logged once."""
        served = await Served(GET, GET).serve(
            sender(start(200, LENGTH), body(sent, more=True), *messages)
        )

        assert served.sent.count(b"HTTP/1.1") == 1
        assert served.sent.endswith(b"\r\n\r\na")
        assert len(served.errors) == 1
        assert not served.peer.got_eof

    @pytest.mark.parametrize("message", [START, body(), {"type": "x"}])
    async def test_after_the_answer(self, message) -> None:
        """After the whole answer it is logged once; the client has its answer."""
        served = await Served(GET, GET).serve(
            sender(start(200, LENGTH), body(b"okay"), message)
        )

        assert served.sent.endswith(b"\r\n\r\nokay")
        assert served.sent.count(b"HTTP/1.1") == 1
        assert isinstance(served.errors[0].error, UsageError)
        assert len(served.errors) == 1

    async def test_bad_trailers(self) -> None:
        """A trailer field that is one of framing is refused (RFC 9110 §6.5.1)."""
        bad = {"type": "http.response.trailers", "headers": [(b"host", b"x")]}
        served = await Served(GET).serve(sender(start(trailers=True), body(), bad))

        assert len(served.errors) == 1
        assert not served.sent.endswith(b"0\r\n\r\n")

    @pytest.mark.parametrize("messages", [(), (START,), (START, body(b"x", more=True))])
    async def test_error(self, messages, caplog) -> None:
        """An exception before the answer is a 500, after that a reset; logged once."""
        served = await Served(CLOSE).serve(sender(*messages, then=KeyError("x")))

        assert (served.sent == closing(BUG)) == (len(messages) < 2)
        assert served.sent.endswith(b"0\r\n\r\n") is False
        (record,) = served.errors
        assert isinstance(record.error, KeyError)
        (line,) = caplog.records
        assert line.name == "trio_upgrade.server"

    async def test_group(self) -> None:
        """A group comes out as that group."""
        group = ExceptionGroup("x", [KeyError(1), ExceptionGroup("y", [OSError(2)])])
        served = await Served(CLOSE).serve(sender(then=group))

        assert served.errors[0].error is group


class TestBody:
    """The body of a request."""

    async def test_none(self) -> None:
        """Without a body there is one empty message, known at once."""
        messages = []

        async def app(scope, receive, send) -> None:
            with trio.testing.assert_no_checkpoints():
                messages.append(await receive())
            await sender(START, body())(scope, receive, send)
            with trio.testing.assert_no_checkpoints():
                messages.append(await receive())

        await serve(app, GET)
        assert messages == [NOTHING, DISCONNECT]

    async def test_length(self) -> None:
        """With a Content-Length the last message is known to be the last one."""
        messages: list[Any] = []

        async def app(scope, receive, send) -> None:
            while not messages or messages[-1]["more_body"]:
                messages.append(await receive())
            await sender(START, body())(scope, receive, send)

        wire = post(b"abcdef")
        await serve(app, wire[:-4], wire[-4:])
        assert messages == [
            {"type": "http.request", "body": b"ab", "more_body": True},
            {"type": "http.request", "body": b"cdef", "more_body": False},
        ]

    async def test_chunked(self) -> None:
        """A chunked body ends with an empty message."""
        wire = post(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
        wire += b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        sent = await serve(echo, wire, GET)

        assert b"content-length: 5" in sent
        assert b"\r\n\r\nabcdeHTTP/1.1 200" in sent

    async def test_continue(self) -> None:
        """A 100 is sent when the application receives, not before (RFC 9110 §10.1.1)."""
        wire = post(b"abc", "Expect: 100-continue")
        sent = await serve(echo, wire[:-3], wire[-3:])
        ignoring = await serve(sender(start(200, LENGTH), body(b"okay")), wire[:-3])

        assert sent.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200")
        assert ignoring.startswith(b"HTTP/1.1 200 OK")
        assert b"Connection: close" in ignoring

    async def test_unread(self) -> None:
        """A body that was not read is skipped, and the next request is served."""
        app = sender(start(200, LENGTH), body(b"okay"))

        assert (await serve(app, post(b"abc") + GET)).count(b"HTTP/1.1 200") == 2

    async def test_read_inside_the_answer(self) -> None:
        """A body may be read while the answer is sent."""

        async def app(scope, receive, send) -> None:
            await send(START)
            await send(body(more=True))
            more = True
            while more:
                message = await receive()
                await send(body(message["body"], more=True))
                more = message["more_body"]
            await send(body())

        wire = post(b"abcd")
        sent = await serve(app, wire[:-2], wire[-2:])
        assert sent == CHUNKED + chunks(b"ab", b"cd") + b"0\r\n\r\n"

    async def test_two_readers(self) -> None:
        """Several tasks may receive; each message goes to one of them."""
        messages = []

        async def app(scope, receive, send) -> None:
            async def read() -> None:
                messages.append(await receive())

            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(read)
                await trio.testing.wait_all_tasks_blocked()
                served.peer.feed(b"ab")
                await trio.testing.wait_all_tasks_blocked()
                served.peer.feed(b"cd")
                await trio.testing.wait_all_tasks_blocked()
                await sender(START, body())(scope, receive, send)
            served.peer.finish()

        served = Served(post(b"abcd")[:-4], then="silence")
        await served.serve(app)
        assert messages == [
            {"type": "http.request", "body": b"ab", "more_body": True},
            {"type": "http.request", "body": b"cd", "more_body": False},
            DISCONNECT,
        ]

    async def test_answered_meanwhile(self) -> None:
        """A task that waits for the body is told when the answer is complete."""
        messages = []

        async def app(scope, receive, send) -> None:
            async def read() -> None:
                messages.append(await receive())

            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                nursery.start_soon(read)
                await trio.testing.wait_all_tasks_blocked()
                await sender(start(200, LENGTH), body(b"okay"))(scope, receive, send)
            served.peer.feed(b"abcd")
            served.peer.finish()

        served = Served(post(b"abcd")[:-4], then="silence")
        await served.serve(app)
        assert messages == [DISCONNECT, DISCONNECT]
        assert not served.errors

    async def test_broken(self) -> None:
        """A malformed body is answered with a 400 by the server; no error of the app."""
        wire = post(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
        messages = []

        async def app(scope, receive, send) -> None:
            messages.append(await receive())
            messages.append(await receive())
            await send(START)

        sent = await serve(app, wire + b"nonsense\r\n")
        assert sent.startswith(b"HTTP/1.1 400 ")
        assert messages == [DISCONNECT] * 2

    async def test_too_slow(self, autojump_clock) -> None:
        """A body that is too slow is answered with a 408 by the server."""

        async def app(scope, receive, send) -> None:
            assert await receive() == DISCONNECT

        served = Served(
            post(b"abc")[:-3], then="silence", limits=Limits(linger=0, body_timeout=3)
        )
        await served.serve(app)
        assert served.sent.startswith(b"HTTP/1.1 408 ")
        assert not served.errors

    async def test_broken_inside_the_answer(self) -> None:
        """After the start the answer is cut, and it is no error of the application."""

        async def app(scope, receive, send) -> None:
            await send(START)
            await send(body(b"x", more=True))
            assert await receive() == DISCONNECT
            with pytest.raises(ClientDisconnected):
                await send(body())

        wire = post(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
        assert (await serve(app, wire + b"nonsense\r\n")).endswith(b"1\r\nx\r\n")

    async def test_error_of_the_server(self) -> None:
        """Any other mistake of reading is not hidden."""

        async def app(scope, receive, send) -> None:
            await receive()

        served = Served(post(b"abc")[:-3], then="reset")
        await served.serve(app)
        assert not served.errors


class TestDisconnect:
    """A client that leaves."""

    async def serve(self, app, *wire: bytes, then="end") -> Served:
        served = Served(*wire, then=then)
        await served.serve(app)
        return served

    @pytest.mark.parametrize("then", ["end", "reset"])
    async def test_before_the_answer(self, then) -> None:
        """The application is told, send() raises, and nothing is logged."""
        seen = []

        async def app(scope, receive, send) -> None:
            assert await receive() == NOTHING
            seen.append(await receive())
            with trio.testing.assert_no_checkpoints():
                seen.append(await receive())
            await send(START)

        served = await self.serve(app, GET, then=then)
        assert seen == [DISCONNECT] * 2
        assert served.sent == b""
        assert not served.errors
        assert served.reason is EndReason.LOST

    @pytest.mark.parametrize("raised", [True, False])
    async def test_inside_the_answer(self, raised: bool) -> None:
        """The answer is cut, whether or not the application ends by the exception."""

        async def app(scope, receive, send) -> None:
            await send(START)
            await send(body(b"x", more=True))
            await receive()
            assert await receive() == DISCONNECT
            if raised:
                await send(body(b"y"))

        served = await self.serve(app, GET)
        assert served.sent.endswith(b"1\r\nx\r\n")
        assert not served.errors

    @pytest.mark.parametrize(
        "kind", ["bare", "cause", "group", "nested", "of group", "of both", "circle"]
    )
    async def test_exception(self, kind) -> None:
        """The exception of send() is an ordinary end: alone, as a cause, in a group."""

        async def app(scope, receive, send) -> None:
            await receive()
            await receive()
            try:
                await send(START)
            except OSError as exc:
                error = exc
            if kind == "cause":
                raise ValueError from error
            if kind == "group":
                raise ExceptionGroup("x", [error, error])
            if kind == "nested":
                wrapped = ValueError()
                wrapped.__cause__ = error
                raise ExceptionGroup("x", [ExceptionGroup("y", [wrapped]), error])
            if kind == "of group":
                raise ValueError from ExceptionGroup("x", [error, error])
            if kind == "of both":
                raise ValueError from ExceptionGroup("x", [error, KeyError()])
            if kind == "circle":
                first, second = KeyError(), ValueError()
                first.__cause__, second.__cause__ = second, first
                raise first
            raise error

        served = await self.serve(app, GET)
        assert len(served.errors) == (kind in ("circle", "of both"))

    async def test_other_exceptions(self) -> None:
        """What is raised beside it is an error, and logged without it."""

        async def app(scope, receive, send) -> None:
            await receive()
            await receive()
            gone = None
            try:
                await send(START)
            except ClientDisconnected as exc:
                gone = exc
            assert gone is not None
            raise ExceptionGroup("x", [gone, KeyError(1)])

        served = await self.serve(app, GET)
        (record,) = served.errors
        assert isinstance(record.error, ExceptionGroup)
        assert [type(exc) for exc in record.error.exceptions] == [KeyError]

    async def test_bug_while_it_is_handled(self) -> None:
        """A bug in an except block of the application is logged: it is no cause."""

        async def app(scope, receive, send) -> None:
            await receive()
            await receive()
            try:
                await send(START)
            except OSError:
                raise KeyError from None

        served = await self.serve(app, GET)
        assert len(served.errors) == 1

    async def test_foreign_exception(self) -> None:
        """While the client is there, the same exception is an error of the app."""
        served = await self.serve(sender(then=ClientDisconnected("x")), CLOSE)

        assert served.sent == closing(BUG)
        assert len(served.errors) == 1

    @pytest.mark.parametrize(
        "message",
        [body(b"x"), {"type": "http.response.early_hint", "links": [b"</a>"]}],
        ids=lambda message: message["type"],
    )
    async def test_found_by_send(self, message, autojump_clock) -> None:
        """A send() that finds the connection broken raises, and receive() knows it."""
        seen: list[Any] = []

        async def app(scope, receive, send) -> None:
            await send(START)
            try:
                await send(message)
            except ClientDisconnected as exc:
                seen.append(exc)
                with trio.testing.assert_no_checkpoints():
                    assert await receive() == DISCONNECT
            await trio.sleep(1)
            seen.append("background")

        served = await self.serve(app, GET, then="reset")
        assert isinstance(seen[0], OSError)
        assert isinstance(seen[0].__cause__, trio.BrokenResourceError)
        assert seen[1] == "background"
        assert not served.errors

    async def test_found_by_the_100(self) -> None:
        """A client that left before the 100 was sent is gone."""

        async def app(scope, receive, send) -> None:
            assert await receive() == DISCONNECT

        wire = post(b"abc", "Expect: 100-continue")[:-3]
        served = await self.serve(app, wire, then="reset")
        assert not served.errors

    async def test_an_end_only(self, autojump_clock) -> None:
        """A client that ends its side gets the whole answer of an app that never asks."""

        async def app(scope, receive, send) -> None:
            await send(START)
            for _ in range(3):
                await trio.sleep(1)
                await send(body(b"x", more=True))
            await send(body())

        assert (
            await serve(app, GET) == CHUNKED + chunks(b"x", b"x", b"x") + b"0\r\n\r\n"
        )


class TestPolling:
    """receive() from a cancelled scope, as Starlette's is_disconnected() calls it."""

    async def poll(self, receive):
        """Return the message that is known, or None."""
        message = None
        with trio.CancelScope() as scope:
            scope.cancel()
            message = await receive()
        return message

    async def test_without_body(self) -> None:
        """It loses no message, and is true once the client is gone."""
        seen = []

        async def app(scope, receive, send) -> None:
            with trio.testing.assert_no_checkpoints():
                seen.append(await self.poll(receive))
            seen.append(await self.poll(receive))
            seen.append(await receive())
            await trio.testing.wait_all_tasks_blocked()
            seen.append(await self.poll(receive))
            served.peer.finish()
            await trio.testing.wait_all_tasks_blocked()
            with trio.testing.assert_no_checkpoints():
                seen.append(await self.poll(receive))

        served = Served(GET, then="silence")
        await served.serve(app)
        assert seen == [NOTHING, None, NOTHING, None, DISCONNECT]
        assert not served.errors

    async def test_with_body(self) -> None:
        """It takes no part of the body."""
        seen = []

        async def app(scope, receive, send) -> None:
            seen.append(await self.poll(receive))
            seen.append(await self.poll(receive))
            await echo(scope, receive, send)

        assert (await serve(app, post(b"abc"))).endswith(b"abc")
        assert seen == [None, None]

    async def test_after_the_answer(self) -> None:
        """The task that watches the client ends with the request."""

        async def app(scope, receive, send) -> None:
            assert await self.poll(receive) in (NOTHING, None)
            await echo(scope, receive, send)

        sent = await serve(app, GET, post(b"abc"), GET)
        assert sent.count(b"HTTP/1.1 200 OK") == 3


class TestCancelled:
    """A cancellation of the connection, or in the application."""

    async def test_everywhere(self) -> None:
        """Cancelled at any step, nothing is left open and nothing swallowed."""

        async def run(peer) -> None:
            async with open_asgi(echo) as adapter:
                await serve_stream(adapter, peer, limits=LIMITS)

        assert await cancel_everywhere(run, post(b"abc"), GET) > 10

    async def test_one_send(self, autojump_clock) -> None:
        """A timeout of the application is its own affair, and the answer is cut."""

        async def app(scope, receive, send) -> None:
            await send(START)
            await send(body(b"x", more=True))
            with trio.fail_after(1):
                await trio.sleep(2)

        served = await Served(GET).serve(app)
        (record,) = served.errors
        assert isinstance(record.error, trio.TooSlowError)
        assert served.sent.endswith(b"1\r\nx\r\n")
