"""request.respond(): an answer that the app sends piece by piece."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from trio_upgrade import (
    BadBody,
    BodyTooLarge,
    EndReason,
    Limits,
    Request,
    Response,
    StreamedResponse,
    Tunnel,
    Upgrade,
    UsageError,
    serve_stream,
)
from trio_upgrade.testing import ScriptedPeer, split_points

from ..apps import echo
from ..cancelling import cancel_everywhere
from ..recording import Recorder
from ..servers import Scene, check_every_split, run_script
from ..stream_pairs import MAKERS
from ..wire import DATE, SWITCHED, UP, closing, get, okay

if TYPE_CHECKING:
    from collections.abc import Callable

CHUNKED = b"HTTP/1.1 200 OK\r\n" + DATE + b"Transfer-Encoding: chunked\r\n\r\n"
HTTP_1_0 = get("/1").replace(b"HTTP/1.1", b"HTTP/1.0")
HEAD = get("/1").replace(b"GET", b"HEAD")
POST = b"POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"
CONNECT = b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"
# What the app below answers.
ONE_TWO = CHUNKED + b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"


async def one_two(request: Request) -> Response | None:
    """Stream "onetwo"; answer /2 by its path."""
    if request.path == "/2":
        return Response(200, b"/2")
    async with request.respond(200) as answer:
        await answer.send(b"one")
        await answer.send(b"")
        await answer.send(bytearray(b"two"))
    return None


def streaming(*chunks: bytes, status: int = 200, **fields: str):
    """Return an app that streams these chunks; an underscore in a name is a hyphen."""
    headers = {name.replace("_", "-"): value for name, value in fields.items()}

    async def app(request: Request) -> Response | None:
        if request.path == "/2":
            return Response(200, b"/2")
        async with request.respond(status, headers) as answer:
            for chunk in chunks:
                await answer.send(chunk)
        return None

    return app


async def serve_logged(
    app, *packets: bytes, limits: Limits = Limits(), then="end", recorder=None
) -> ScriptedPeer:
    """Serve an app on a scripted connection; its bugs are logged."""
    peer = ScriptedPeer(*packets, then=then)
    await serve_stream(app, peer, limits=limits, observer=recorder)
    assert peer.closed
    return peer


def bugs(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the bugs that were logged, as types and messages."""
    return [
        repr(record.exc_info[1])
        for record in caplog.records
        if record.exc_info and record.levelno >= logging.ERROR
    ]


class TestFraming:
    """The header section, the content and its end, byte for byte."""

    async def test_chunked_and_the_next_request(self) -> None:
        """Content of unknown length is chunked, and the next request is answered."""
        await check_every_split(one_two, get("/1") + get("/2"), ONE_TWO + okay(b"/2"))

    async def test_http_1_0(self) -> None:
        """To HTTP/1.0 the content ends with the connection (RFC 9112 §6.3)."""
        expected = closing(b"HTTP/1.1 200 OK\r\n" + DATE + b"\r\n") + b"onetwo"

        await check_every_split(one_two, HTTP_1_0 + get("/2"), expected)

    async def test_length(self) -> None:
        """Content with a Content-Length is sent as it is (RFC 9112 §6.2)."""
        app = streaming(b"one", b"two", Content_Length="6")
        head = b"HTTP/1.1 200 OK\r\n" + DATE + b"Content-Length: 6\r\n\r\n"

        await check_every_split(
            app, get("/1") + get("/2"), head + b"onetwo" + okay(b"/2")
        )
        peer = await run_script(app, HTTP_1_0)
        assert peer.sent == closing(head) + b"onetwo"

    async def test_head(self) -> None:
        """To HEAD the same header section is sent, and no content (RFC 9110 §9.3.2)."""
        await check_every_split(one_two, HEAD + get("/2"), CHUNKED + okay(b"/2"))

    async def test_head_with_a_length(self) -> None:
        """To HEAD the content may be left out, whatever its length."""
        head = b"HTTP/1.1 200 OK\r\n" + DATE + b"Content-Length: 6\r\n\r\n"

        peer = await run_script(streaming(Content_Length="6"), HEAD + get("/2"))

        assert peer.sent == head + okay(b"/2")

    @pytest.mark.parametrize(
        ("status", "line", "framing"),
        [
            (204, b"204 No Content", b""),
            (205, b"205 Reset Content", b"Content-Length: 0\r\n"),
            (304, b"304 Not Modified", b""),
        ],
    )
    async def test_without_content(
        self, status: int, line: bytes, framing: bytes
    ) -> None:
        """A 204, 205 or 304 has no content (RFC 9110 §6.4.1, §15.3.6)."""
        refused = []

        async def app(request: Request) -> Response | None:
            if request.path == "/2":
                return Response(200, b"/2")
            async with request.respond(status) as answer:
                await answer.send(b"")
                with pytest.raises(ValueError, match=f"a {status} has no content"):
                    await answer.send(b"x")
                with pytest.raises(ValueError, match="trailers need content"):
                    answer.trailers = {"X": "1"}
                refused.append(status)
            return None

        expected = b"HTTP/1.1 " + line + b"\r\n" + DATE + framing + b"\r\n"

        await check_every_split(app, get("/1") + get("/2"), expected + okay(b"/2"))
        assert refused

    async def test_status_fields_and_reason(self) -> None:
        """They are checked and sent as those of a Response, and can be read."""

        async def app(request: Request) -> None:
            answer = request.respond(201, {"X": "1", "Date": "now"}, reason="Fine")
            assert isinstance(answer, StreamedResponse)
            assert repr(answer) == "<StreamedResponse 201 Fine>"
            assert (answer.status, answer.reason, answer.headers["x"]) == (
                201,
                "Fine",
                "1",
            )
            async with answer as same:
                assert same is answer

        expected = (
            b"HTTP/1.1 201 Fine\r\nX: 1\r\nDate: now\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        )

        peer = await run_script(app, get("/"))
        assert peer.sent == expected

    @pytest.mark.parametrize(
        ("arguments", "error"),
        [
            ((103,), ValueError),
            ((426,), ValueError),
            ((200, {"Transfer-Encoding": "chunked"}), ValueError),
            ((204, {"Content-Length": "0"}), ValueError),
            ((200, {"X": "a\nb"}), ValueError),
            (("200",), TypeError),
        ],
    )
    async def test_refused_arguments(self, arguments, error) -> None:
        """What a Response refuses is refused before anything is sent."""

        async def app(request: Request) -> Response:
            with pytest.raises(error):
                request.respond(*arguments)
            return Response(200, b"okay")

        peer = await run_script(app, get("/"))
        assert peer.sent == okay()

    async def test_option_close_ends_the_connection(self) -> None:
        """The Connection option of the app is kept."""
        app = streaming(Connection="close")

        peer = await run_script(app, get("/1") + get("/2"))

        assert peer.sent.count(b"HTTP/1.1") == 1

    async def test_last_request_of_a_connection(self) -> None:
        """The answer to the last request says that the connection ends."""
        limits = Limits(requests_per_connection=1)

        peer = await run_script(one_two, get("/1") + get("/2"), limits=limits)

        assert peer.sent == closing(CHUNKED) + ONE_TWO[len(CHUNKED) :]

    @pytest.mark.parametrize("make", MAKERS)
    async def test_over_every_stream(self, make: str) -> None:
        """Over TCP, Unix, TLS and memory the answer is the same."""
        async with trio.open_nursery() as nursery:
            client, server = await MAKERS[make]()
            nursery.start_soon(partial(serve_stream, one_two, server, strict=True))
            await client.send_all(get("/1") + get("/2"))
            received = b""
            expected = ONE_TWO + okay(b"/2")
            while len(received) < len(expected):
                received += await client.receive_some()
            await client.aclose()

        assert received == expected


class TestWrongLength:
    """Content that is not as long as Content-Length says: a reset."""

    async def test_too_long(self, caplog) -> None:
        """More is a ValueError from send(), and nothing of that piece is sent."""
        raised = []

        async def app(request: Request) -> None:
            async with request.respond(200, {"Content-Length": "4"}) as answer:
                await answer.send(b"one")
                with pytest.raises(ValueError, match="longer than its") as caught:
                    await answer.send(b"two")
                raised.append(caught.value)
                with pytest.raises(trio.BrokenResourceError):
                    await answer.send(b"x")
                raise raised[0]

        peer = await serve_logged(app, get("/1") + get("/2"))

        assert peer.sent.endswith(b"\r\n\r\none")
        assert not peer.got_eof
        assert len(bugs(caplog)) == 1

    async def test_too_short(self, caplog) -> None:
        """Less is a ValueError from leaving the block."""
        recorder = Recorder()
        app = streaming(b"one", Content_Length="4")

        peer = await serve_logged(app, get("/1") + get("/2"), recorder=recorder)

        assert peer.sent.endswith(b"\r\n\r\none")
        assert not peer.got_eof
        assert bugs(caplog) == [
            "ValueError('the body is shorter than its Content-Length')"
        ]
        assert recorder.reasons == [EndReason.ERROR]
        assert isinstance(recorder.requests[0].cause, ValueError)

    async def test_no_bytes(self) -> None:
        """A str is a TypeError, and nothing was sent."""

        async def app(request: Request) -> None:
            async with request.respond(200) as answer:
                with pytest.raises(TypeError):
                    await answer.send("text")  # type: ignore[arg-type]
                await answer.send(b"one")

        peer = await run_script(app, get("/"))
        assert peer.sent == CHUNKED + b"3\r\none\r\n0\r\n\r\n"


class TestTrailers:
    """Fields after the content (RFC 9110 §6.5, RFC 9112 §7.1.2)."""

    TRAILED = CHUNKED + b"3\r\none\r\n0\r\nX-Sum: 3\r\nX-Sum: 4\r\n\r\n"

    @staticmethod
    async def app(request: Request) -> Response | None:
        if request.path == "/2":
            return Response(200, b"/2")
        async with request.respond(200) as answer:
            assert not answer.trailers
            answer.trailers = {"X-Other": "1"}
            await answer.send(b"one")
            answer.trailers = [("X-Sum", "3"), ("X-Sum", "4")]
            assert answer.trailers.get_list("x-sum") == ["3", "4"]
        return None

    async def test_after_the_content(self) -> None:
        """The fields that were set last follow the last chunk."""
        wire = get("/1") + get("/2")

        await check_every_split(self.app, wire, self.TRAILED + okay(b"/2"))

    async def test_dropped_where_nothing_is_chunked(self) -> None:
        """To HTTP/1.0 and in answer to HEAD they are dropped."""
        peer = await run_script(self.app, HTTP_1_0)
        assert peer.sent.endswith(b"close\r\n\r\none")
        peer = await run_script(self.app, HEAD)
        assert peer.sent == CHUNKED

    @pytest.mark.parametrize(
        "name",
        [
            *("Content-Length", "Transfer-Encoding", "Connection", "Trailer", "TE"),
            *("Host", "Authorization", "WWW-Authenticate", "Set-Cookie", "If-Match"),
            *("Content-Type", "Bad Name"),
        ],
    )
    async def test_refused_fields(self, name: str) -> None:
        """Fields of framing, routing and authentication come too late (§6.5.1)."""

        async def app(request: Request) -> None:
            async with request.respond(200) as answer:
                with pytest.raises(ValueError, match=name):
                    answer.trailers = {name: "1"}

        with pytest.raises(ValueError, match=name):
            Response(200, make_body(), trailers={name: "1"})
        peer = await run_script(app, get("/"))
        assert peer.sent == CHUNKED + b"0\r\n\r\n"

    async def test_refused_with_a_length(self) -> None:
        """Content with a Content-Length is not chunked, so nothing can follow it."""

        async def app(request: Request) -> None:
            async with request.respond(200, {"Content-Length": "0"}) as answer:
                with pytest.raises(ValueError, match="without a Content-Length"):
                    answer.trailers = {"X": "1"}

        await run_script(app, get("/"))

    async def test_of_a_response(self) -> None:
        """Those of a Response are given as fields, or as a function that returns them."""
        sums: list[int] = []

        async def app(request: Request) -> Response:
            if request.path == "/2":
                return Response(200, make_body(), trailers=[("X-Sum", "3")])
            if request.path == "/3":
                fields = {"X": "1"}
                return Response(200, make_body(), trailers={"T": "2"}).with_headers(
                    fields
                )
            sums.clear()
            return Response(
                200, make_body(sums), trailers=lambda: {"X-Sum": str(sum(sums))}
            )

        one = CHUNKED + b"3\r\none\r\n0\r\nX-Sum: 3\r\n\r\n"
        third = one.replace(b"Transfer", b"X: 1\r\nTransfer").replace(
            b"X-Sum: 3", b"T: 2"
        )

        await check_every_split(
            app, get("/1") + get("/2") + get("/3"), one + one + third
        )

    def test_of_a_response_without_chunks(self) -> None:
        """Bytes and a Content-Length allow no trailers: nothing would be chunked."""
        with pytest.raises(ValueError, match="async iterable"):
            Response(200, b"one", trailers={"X": "1"})
        with pytest.raises(ValueError, match="without Content-Length"):
            Response(200, make_body(), {"Content-Length": "3"}, trailers={"X": "1"})
        response = Response(200, make_body(), trailers={"X": "1"})
        with pytest.raises(ValueError, match="without Content-Length"):
            response.with_headers({"Content-Length": "3"})
        with pytest.raises(TypeError):
            Response(200, make_body(), trailers="X: 1")  # type: ignore[arg-type]

    async def test_function_that_fails(self, caplog) -> None:
        """A function that returns no trailer fields is a bug, and the answer is cut."""

        async def app(request: Request) -> Response:
            return Response(200, make_body(), trailers=lambda: {"Host": "x"})

        peer = await serve_logged(app, get("/"))

        assert peer.sent == CHUNKED + b"3\r\none\r\n"
        assert not peer.got_eof
        assert bugs(caplog) == ["ValueError('Host cannot be a trailer field')"]


async def make_body(sizes: list[int] | None = None):
    yield b"one"
    if sizes is not None:
        sizes.append(3)


class TestSecondAnswer:
    """The first answer stays, and the second is a UsageError, logged once."""

    @pytest.mark.parametrize(
        ("packet", "answer"),
        [
            (get("/1"), Response(200, b"late")),
            (UP, Upgrade("echo", echo)),
            (get("/1"), "text"),
        ],
    )
    async def test_returned_afterwards(self, packet: bytes, answer, caplog) -> None:
        """Anything but None that the app returns afterwards is refused."""

        async def app(request: Request):
            await one_two(request)
            return answer

        peer = await serve_logged(app, packet + get("/2"))

        assert peer.sent == ONE_TWO
        assert peer.got_eof
        (bug,) = bugs(caplog)
        assert bug.startswith("UsageError(")

    async def test_while_the_block_is_open(self) -> None:
        """Each way to answer raises in the block and after it; the block goes on."""

        async def refuse_all(request: Request) -> None:
            with pytest.raises(UsageError, match="answered already"):
                async with request.respond(200):
                    pass
            with pytest.raises(UsageError, match="answered already"):
                await request.send_informational(103)
            with pytest.raises(UsageError, match="answered already"):
                await request.accept_upgrade("echo")

        async def app(request: Request) -> None:
            async with request.respond(200) as answer:
                await answer.send(b"one")
                await refuse_all(request)
                await answer.send(b"two")
            await refuse_all(request)
            with pytest.raises(UsageError, match="outside of its block"):
                await answer.send(b"x")
            with pytest.raises(UsageError, match="outside of its block"):
                answer.trailers = ()

        peer = await run_script(app, UP)
        assert peer.sent == ONE_TWO

    async def test_after_a_switch(self) -> None:
        """After a switch there is nothing to answer."""

        async def app(request: Request) -> None:
            await request.accept_upgrade("echo")
            with pytest.raises(UsageError, match="switched"):
                request.respond(200)
            with pytest.raises(UsageError, match="switched"):
                await request.send_informational(103)

        peer = await run_script(app, UP)
        assert peer.sent == SWITCHED

    async def test_kept_request(self) -> None:
        """A request whose connection serves another one cannot answer any more."""
        kept: list[Request] = []

        async def app(request: Request) -> Response:
            if kept:
                with pytest.raises(UsageError, match="answered already"):
                    kept[0].respond(200)
            kept.append(request)
            return Response(200)

        await run_script(app, get("/1") + get("/2"))
        assert len(kept) == 2

    async def test_2xx_to_connect(self, caplog) -> None:
        """A 2xx would promise a tunnel (RFC 9110 §9.3.6); another status closes."""

        async def app(request: Request) -> None:
            with pytest.raises(UsageError, match="promise a tunnel"):
                request.respond(200)
            async with request.respond(403) as answer:
                await answer.send(b"no")

        peer = await run_script(app, CONNECT)
        assert peer.sent.startswith(b"HTTP/1.1 403 Forbidden\r\n")
        assert b"\r\nConnection: close\r\n" in peer.sent

    async def test_tunnel_afterwards(self, caplog) -> None:
        """A Tunnel returned after a refusal is refused as well."""

        async def app(request: Request) -> Tunnel:
            async with request.respond(403):
                pass
            return Tunnel(echo)

        peer = await serve_logged(app, CONNECT)
        assert peer.sent.count(b"HTTP/1.1") == 1
        assert len(bugs(caplog)) == 1

    async def test_left_open(self, caplog) -> None:
        """An app that returns before it left the block has a bug; the answer is cut."""
        recorder = Recorder()

        async def app(request: Request) -> None:
            answer = request.respond(200, cancel_on_disconnect=False)
            await answer.__aenter__()
            await answer.send(b"one")

        peer = await serve_logged(app, get("/"), recorder=recorder)

        assert peer.sent == CHUNKED + b"3\r\none\r\n"
        assert not peer.got_eof
        assert "before it left its respond() block" in bugs(caplog)[0]
        assert isinstance(recorder.requests[0].cause, UsageError)

    async def test_not_entered(self, caplog) -> None:
        """An answer that was never entered is no answer."""

        async def app(request: Request) -> None:
            answer = request.respond(200)
            with pytest.raises(UsageError, match="outside of its block"):
                await answer.send(b"x")

        peer = await serve_logged(app, get("/"))
        assert peer.sent.startswith(b"HTTP/1.1 500")
        assert "or None after respond()" in bugs(caplog)[0]

    async def test_during_a_switch(self) -> None:
        """While a task switches, no other one can answer."""
        raised = []

        async def app(request: Request) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(request.accept_upgrade, "echo")
                await trio.testing.wait_all_tasks_blocked()
                with pytest.raises(UsageError, match="switching") as caught:
                    async with request.respond(200):
                        pass
                raised.append(caught.value)
                peer.feed(b"body")

        offer = UP.replace(b"\r\n\r\n", b"\r\nContent-Length: 4\r\n\r\n")
        peer = ScriptedPeer(offer, then="silence")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(serve_stream, app, peer, strict=True))
            await peer.wait_sent(SWITCHED)
            peer.finish()

        assert len(raised) == 1


class TestErrors:
    """An error or a cancellation in the block cuts the answer."""

    @pytest.mark.parametrize(
        "error", [LookupError("oops"), ExceptionGroup("", [LookupError("oops")])]
    )
    async def test_bug(self, error: Exception, caplog) -> None:
        """A bug in the block is logged once, and the connection is reset."""
        recorder = Recorder()

        async def app(request: Request) -> None:
            async with request.respond(200) as answer:
                await answer.send(b"one")
                raise error

        peer = await serve_logged(app, get("/1") + get("/2"), recorder=recorder)

        assert peer.sent == CHUNKED + b"3\r\none\r\n"
        assert not peer.got_eof
        assert bugs(caplog) == [repr(error)]
        assert recorder.reasons == [EndReason.ERROR]
        (record,) = recorder.requests
        assert (record.status, record.content, record.cause) == (200, 3, error)
        assert record.sent == len(peer.sent)

    async def test_bug_that_is_caught(self, caplog) -> None:
        """An app that goes on after the error returns None; the answer was cut."""
        recorder = Recorder()

        async def app(request: Request) -> None:
            with pytest.raises(LookupError):
                async with request.respond(200):
                    raise LookupError

        peer = await serve_logged(app, get("/1") + get("/2"), recorder=recorder)

        assert peer.sent == CHUNKED
        assert not peer.got_eof
        assert not bugs(caplog)
        assert recorder.reasons == [EndReason.ANSWERED]

    async def test_strict(self) -> None:
        """A strict server raises what the block has raised."""

        async def app(request: Request) -> None:
            async with request.respond(200):
                raise LookupError

        with pytest.raises(LookupError):
            await run_script(app, get("/"))

    async def test_bug_after_the_block(self, caplog) -> None:
        """After a whole answer a bug is logged, and the connection ends in stages."""

        async def app(request: Request) -> None:
            await one_two(request)
            raise LookupError

        peer = await serve_logged(app, get("/1") + get("/2"))

        assert peer.sent == ONE_TWO
        assert peer.got_eof
        assert bugs(caplog) == ["LookupError()"]

    async def test_cancelled_block(self, autojump_clock) -> None:
        """A scope of the app may end the block; the answer is cut."""
        recorder = Recorder()

        async def app(request: Request) -> None:
            with trio.move_on_after(1):
                async with request.respond(200) as answer:
                    await answer.send(b"one")
                    await trio.sleep_forever()

        peer = await serve_logged(app, get("/1"), get("/2"), recorder=recorder)

        assert peer.sent == CHUNKED + b"3\r\none\r\n"
        assert not peer.got_eof
        assert isinstance(recorder.requests[0].cause, trio.Cancelled)

    async def test_cancelled_before_the_first_byte(self) -> None:
        """Entering and send() that are cancelled before their first byte did nothing."""

        async def app(request: Request) -> None:
            with trio.CancelScope() as scope:
                scope.cancel()
                async with request.respond(404):
                    raise AssertionError
            async with request.respond(200) as answer:
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await answer.send(b"lost")
                await answer.send(b"one")
                await answer.send(b"two")

        peer = await run_script(app, get("/"))
        assert peer.sent == ONE_TWO

    async def test_cancelled_in_the_middle(self, autojump_clock, caplog) -> None:
        """A send that is cut in the middle breaks the answer, also if it is caught."""
        recorder = Recorder()

        async def app(request: Request) -> None:
            async with request.respond(200) as answer:
                with trio.move_on_after(1):
                    await answer.send(b"x" * 1000)
                with pytest.raises(trio.BrokenResourceError):
                    await answer.send(b"y")

        near, far = trio.testing.lockstep_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                partial(serve_stream, app, far, observer=recorder, limits=Limits())
            )
            await near.send_all(get("/"))
            received = b""
            while not received.endswith(b"\r\n\r\n"):
                received += await near.receive_some()
            await trio.sleep(5)

        assert recorder.reasons == [EndReason.ERROR]
        assert len(bugs(caplog)) == 1  # The block was left as if all was sent.

    @pytest.mark.parametrize(
        "wire",
        [get("/1"), HTTP_1_0, HEAD, POST + b"four", get("/1") + get("/2")],
    )
    async def test_cancelled_at_every_step(self, wire: bytes, autojump_clock) -> None:
        """Cancelled at any step, nothing is left open."""

        async def app(request: Request) -> Response | None:
            if request.path == "/2":
                return Response(200)
            await request.send_informational(103)
            async with request.cancelled_on_disconnect():
                async with request.respond(200) as answer:
                    await answer.send(b"one")
                    await answer.send(await request.read())
                    answer.trailers = {"X": "1"}
            return None

        await cancel_everywhere(partial(serve_stream, app), wire, then="silence")
        assert await cancel_everywhere(partial(serve_stream, app), wire) > 5

    async def test_exit_while_a_task_sends(self, autojump_clock) -> None:
        """A block that is left while another task sends in it is cut."""

        async def app(request: Request) -> None:
            async with trio.open_nursery() as nursery:
                with pytest.raises(trio.BusyResourceError):
                    async with request.respond(200) as answer:
                        nursery.start_soon(answer.send, b"x")
                        await trio.testing.wait_all_tasks_blocked()
                        with pytest.raises(trio.BusyResourceError):
                            await answer.send(b"y")
                nursery.cancel_scope.cancel()

        near, far = trio.testing.lockstep_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(serve_stream, app, far, strict=True))
            await near.send_all(get("/"))
            received = b""
            while not received.endswith(b"\r\n\r\n"):
                received += await near.receive_some()
            await trio.sleep(1)
            await near.aclose()

    async def test_entered_and_left_in_different_tasks(self) -> None:
        """Without a scope of its own the block is bound to no task."""

        async def app(request: Request) -> None:
            answer = request.respond(200, cancel_on_disconnect=False)
            for step in (
                answer.__aenter__,
                partial(answer.send, b"one"),
                partial(answer.send, b"two"),
                partial(answer.__aexit__, None, None, None),
            ):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(step)

        await check_every_split(app, get("/1"), ONE_TWO)


class TestRequestBody:
    """The body of the request, read in the block or not at all."""

    async def test_read_in_the_block(self) -> None:
        """The body may be read while the answer is sent."""

        async def app(request: Request) -> Response | None:
            if request.path == "/2":
                return Response(200, b"/2")
            async with request.respond(200) as answer:
                async for chunk in request.stream():
                    await answer.send(chunk)
                with pytest.raises(UsageError):
                    await request.accept_connect()
            return None

        for packets in split_points(POST + b"four" + get("/2")):
            peer = await run_script(app, *packets)

            chunks = peer.sent.removeprefix(CHUNKED).removesuffix(okay(b"/2"))
            assert chunks.endswith(b"0\r\n\r\n")
            letters = bytes(byte for byte in chunks if byte in b"four")
            assert letters == b"four"

    async def test_unread(self) -> None:
        """An unread body is skipped, and the next request is answered."""
        await check_every_split(
            one_two, POST + b"four" + get("/2"), ONE_TWO + okay(b"/2")
        )

    async def test_unread_over_the_limit(self) -> None:
        """Over drain_body the answer says that the connection ends."""
        peer = await run_script(
            one_two, POST + b"four" + get("/2"), limits=Limits(drain_body=3)
        )

        assert peer.sent == closing(CHUNKED) + ONE_TWO[len(CHUNKED) :]

    async def test_no_100_any_more(self) -> None:
        """Once the answer has begun no 100 is sent (RFC 9110 §10.1.1)."""

        async def app(request: Request) -> None:
            async with request.respond(200) as answer:
                await answer.send(await request.read())

        head = POST.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
        peer = ScriptedPeer(head, b"four").hold_until_sent(b"")
        await serve_stream(app, peer, strict=True)

        assert peer.sent == closing(CHUNKED) + b"4\r\nfour\r\n0\r\n\r\n"

    @pytest.mark.parametrize(
        ("wire", "error"),
        [
            (POST + b"fo", BadBody),
            (POST.replace(b" 4", b" 40") + b"x" * 40, BodyTooLarge),
        ],
    )
    async def test_broken_body(self, wire: bytes, error, caplog) -> None:
        """An error of the body is no bug, but the answer is cut."""
        recorder = Recorder()

        async def app(request: Request) -> None:
            async with request.respond(200) as answer:
                await answer.send(b"one")
                await request.read(10)

        peer = await serve_logged(app, wire, recorder=recorder)

        assert peer.sent == CHUNKED + b"3\r\none\r\n"
        assert not peer.got_eof
        assert not bugs(caplog)
        assert isinstance(recorder.requests[0].cause, error)

    async def test_broken_body_that_is_skipped(self, caplog) -> None:
        """A body that cannot be skipped ends the connection after the answer."""
        chunked = POST.replace(b"Content-Length: 4", b"Transfer-Encoding: chunked")

        peer = await serve_logged(one_two, chunked + b"x\r\n" + get("/2"))

        assert peer.sent == ONE_TWO
        assert peer.got_eof
        assert not bugs(caplog)

    async def test_wait_disconnect_ends_with_the_answer(self) -> None:
        """Tasks that wait for the client are told that it was answered."""
        results = []

        async def app(request: Request) -> Response | None:
            if request.path == "/2":
                return Response(200, b"/2")

            async def wait() -> None:
                results.append(await request.wait_disconnect())

            async with trio.open_nursery() as nursery:
                async with request.respond(200) as answer:
                    nursery.start_soon(wait)
                    await trio.testing.wait_all_tasks_blocked()
                    await answer.send(b"one")
                    await answer.send(b"two")
            return None

        peer = ScriptedPeer(get("/1"), then="silence")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(serve_stream, app, peer, strict=True))
            await peer.wait_sent(ONE_TWO)
            peer.feed(get("/2"))
            await peer.wait_sent(okay(b"/2"))
            peer.finish()

        assert results == [False]

    async def test_wait_disconnect_ends_with_a_cut_answer(self) -> None:
        """An answer that was cut is over as well."""
        results = []

        async def app(request: Request) -> None:
            async def wait() -> None:
                results.append(await request.wait_disconnect())

            async with trio.open_nursery() as nursery:
                with pytest.raises(LookupError):
                    async with request.respond(200):
                        nursery.start_soon(wait)
                        await trio.testing.wait_all_tasks_blocked()
                        raise LookupError

        await run_script(app, get("/1"), then="silence", limits=Limits(linger=0))

        assert results == [False]


class TestClientGone:
    """A client that has left or does not read."""

    async def test_reset(self, caplog) -> None:
        """send() and the end raise BrokenResourceError, which is no bug of the app."""
        recorder = Recorder()
        raised: list[BaseException] = []

        async def app(request: Request) -> None:
            async with request.respond(200) as answer:
                peer.finish("reset")
                with pytest.raises(trio.BrokenResourceError) as caught:
                    await answer.send(b"one")
                raised.append(caught.value)
                with pytest.raises(trio.BrokenResourceError):
                    await answer.send(b"two")

        peer = ScriptedPeer(get("/"), then="silence")
        await serve_stream(app, peer, observer=recorder)

        assert peer.closed
        assert len(raised) == 1
        assert not bugs(caplog)
        assert recorder.reasons == [EndReason.LOST]
        assert isinstance(recorder.requests[0].cause, trio.BrokenResourceError)

    async def test_reset_before_the_answer(self, caplog) -> None:
        """Entering raises BrokenResourceError if the client is known to be gone."""

        async def app(request: Request) -> None:
            assert await request.wait_disconnect()
            with pytest.raises(trio.BrokenResourceError):
                await request.send_informational(103)
            async with request.respond(200):
                raise AssertionError

        peer = await serve_logged(app, get("/"), then="reset")
        assert not peer.sent
        assert not bugs(caplog)

    async def test_reset_at_the_header_section(self, caplog) -> None:
        """A header section that cannot be sent is reported as an answer that was cut."""
        recorder = Recorder()

        async def app(request: Request) -> None:
            peer.finish("reset")
            async with request.respond(200):
                raise AssertionError

        peer = ScriptedPeer(get("/"), then="silence")
        await serve_stream(app, peer, observer=recorder)

        assert not bugs(caplog)
        (record,) = recorder.requests
        assert (record.status, record.content, record.sent) == (200, 0, 0)
        assert isinstance(record.cause, trio.BrokenResourceError)

    async def test_slow_reader(self, autojump_clock) -> None:
        """send_timeout holds for what the block sends."""
        recorder = Recorder()

        async def app(request: Request) -> None:
            async with request.respond(200) as answer:
                await answer.send(b"x" * 1000)

        near, far = trio.testing.lockstep_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                partial(
                    serve_stream,
                    app,
                    far,
                    limits=Limits(send_timeout=7),
                    observer=recorder,
                )
            )
            await near.send_all(get("/"))
            received = b""
            while not received.endswith(b"\r\n\r\n"):
                received += await near.receive_some()

        assert recorder.reasons == [EndReason.SLOW_READER]
        assert trio.current_time() % 1000 < 10

    async def test_response_timeout_ends_with_the_header_section(
        self, autojump_clock
    ) -> None:
        """Once the answer has begun the app may take its time."""

        async def app(request: Request) -> None:
            async with request.respond(200) as answer:
                await answer.send(b"one")
                await trio.sleep(30)
                await answer.send(b"two")

        peer = await run_script(
            app, get("/"), then="silence", limits=Limits(response_timeout=5)
        )
        assert peer.sent == ONE_TWO

    async def test_response_timeout_before(self, autojump_clock) -> None:
        """Until then it counts: an app that is too slow is a 503."""

        async def app(request: Request) -> None:
            await trio.sleep(60)
            async with request.respond(200):
                raise AssertionError

        peer = await run_script(
            app, get("/"), then="silence", limits=Limits(response_timeout=5)
        )
        assert peer.sent.startswith(b"HTTP/1.1 503")


class TestDrain:
    """A drain waits for the block, up to its grace."""

    async def test_waits(self, make_scene: Callable[..., Scene]) -> None:
        """A block that was begun before the drain ends whole."""
        may_end = trio.Event()

        async def app(request: Request) -> None:
            async with request.respond(200) as answer:
                await answer.send(b"one")
                await may_end.wait()
                await answer.send(b"two")

        scene = await make_scene().open(app)
        client = await scene.listener.connect()
        await client.send_all(get("/"))
        await trio.testing.wait_all_tasks_blocked()
        scene.server.start_drain(60)
        await trio.testing.wait_all_tasks_blocked()
        may_end.set()
        received = b""
        while chunk := await client.receive_some():
            received += chunk

        assert received == ONE_TWO
        await scene.over.wait()
        assert scene.recorder.reasons == [EndReason.DRAINED]

    async def test_begun_in_a_drain(self, make_scene: Callable[..., Scene]) -> None:
        """An answer that begins in a drain says that the connection ends."""
        may_begin = trio.Event()

        async def app(request: Request) -> None:
            await may_begin.wait()
            await one_two(request)

        scene = await make_scene().open(app)
        client = await scene.listener.connect()
        await client.send_all(get("/"))
        await trio.testing.wait_all_tasks_blocked()
        scene.server.start_drain(60)
        may_begin.set()
        received = b""
        while chunk := await client.receive_some():
            received += chunk

        assert received == closing(CHUNKED) + ONE_TWO[len(CHUNKED) :]

    async def test_grace_is_over(
        self, make_scene: Callable[..., Scene], autojump_clock
    ) -> None:
        """At the end of the grace the block is cancelled and the answer cut."""
        causes = []

        async def app(request: Request) -> None:
            try:
                async with request.respond(200) as answer:
                    await answer.send(b"one")
                    await trio.sleep_forever()
            except BaseException as exc:
                causes.append(type(exc))
                raise

        scene = await make_scene().open(app)
        client = await scene.listener.connect()
        await client.send_all(get("/"))
        await trio.testing.wait_all_tasks_blocked()
        await scene.server.drain(grace=5)

        assert causes == [trio.Cancelled]
        assert scene.recorder.reasons == [EndReason.DRAINED]


async def test_record_of_a_whole_answer() -> None:
    """An observer gets the status, the bytes, the time and no cause."""
    recorder = Recorder()

    async def app(request: Request) -> None:
        await request.send_informational(103, {"Link": "</a>"})
        async with request.respond(200) as answer:
            await answer.send(b"one")
            answer.trailers = {"X-Sum": "3"}

    peer = await serve_logged(app, get("/1"), recorder=recorder)

    (record,) = recorder.requests
    assert (record.status, record.content, record.cause) == (200, 3, None)
    assert record.request is not None
    # The 103 does not count, as a 100 does not.
    assert record.sent == len(peer.sent) - len(
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    )
    assert recorder.reasons == [EndReason.PEER]


async def test_record_of_a_block_that_outlives_the_request() -> None:
    """An answer that is cut as the app returns is reported once, with its request."""
    recorder, may_leave, left = Recorder(), trio.Event(), []

    async def app(request: Request) -> None:
        async def leave_late(task_status) -> None:
            try:
                async with request.respond(200, cancel_on_disconnect=False):
                    task_status.started()
                    await may_leave.wait()
            except trio.BrokenResourceError as exc:
                left.append(exc)

        await nursery.start(leave_late)

    async with trio.open_nursery() as nursery:
        await serve_logged(app, get("/1"), recorder=recorder)
        may_leave.set()

    (record,) = recorder.requests
    assert record.request is not None
    assert isinstance(record.cause, UsageError)
    assert len(left) == 1
