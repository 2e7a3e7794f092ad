"""One connection: bugs of the app, malformed requests, and its end on every path.

The S ids are the rows of the wire-case table; each runs whole, cut in two at every point,
and byte by byte.
"""

from __future__ import annotations

import gc
import logging
import weakref
from functools import partial

import pytest
import trio
import trio.testing

from trio_upgrade import (
    Limits,
    Request,
    Response,
    Upgrade,
    UpgradedStream,
    open_connection,
    serve_stream,
)
from trio_upgrade.testing import ScriptedPeer

from ..apps import echo, echo_app
from ..servers import check_every_split, run_script
from ..wire import BUG, SWITCHED, UP, get, okay


class TestBugs:
    """An exception of the app ends only its own request or its own connection."""

    async def serve(self, app, *packets: bytes) -> ScriptedPeer:
        peer = ScriptedPeer(*packets)
        await serve_stream(app, peer)
        assert peer.closed
        return peer

    @pytest.mark.ids("R27")
    async def test_before_an_answer(self, caplog) -> None:
        """An exception is a 500 and one log record; the connection goes on."""

        async def app(request: Request) -> Response:
            if request.path == "/1":
                raise LookupError("oops")
            return Response(200, b"fine")

        peer = await self.serve(app, get("/1") + get("/2"))

        error = BUG
        assert peer.sent == error + okay(b"fine")
        (record,) = caplog.records
        assert record.levelno == logging.ERROR
        assert record.name == "trio_upgrade.server"
        assert record.exc_info[0] is LookupError
        assert "GET /1" in record.message

    async def test_error_of_the_apps_own_client(self, caplog) -> None:
        """A body that breaks in a client inside the app is an error of the app: 500."""

        async def app(request: Request) -> Response:
            upstream = ScriptedPeer(okay(b"hello")[:-3])
            connection = await open_connection("http://x", stream=upstream)
            response = await connection.request("GET", "/")
            return Response(200, await response.read())

        peer = await self.serve(app, get("/"))

        assert peer.sent.startswith(b"HTTP/1.1 500 ")
        assert "BadBody" in caplog.text

    async def test_iterable_of_a_dropped_answer_is_closed(self) -> None:
        """The iterable body of a response that cannot be sent is closed."""
        closed = []

        class Body:
            def __aiter__(self) -> Body:
                return self

            async def __anext__(self) -> bytes:
                raise StopAsyncIteration

            async def aclose(self) -> None:
                closed.append(True)

        async def app(_: Request) -> Response:
            return Response(200, Body())

        await self.serve(app, b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n")

        assert closed == [True]

    async def test_interrupt_under_cancellation(self) -> None:
        """A KeyboardInterrupt during a cancellation is not replaced by Cancelled."""

        async def app(_: Request) -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise KeyboardInterrupt

        peer = ScriptedPeer(get("/"), then="silence")
        with pytest.RaisesGroup(KeyboardInterrupt):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve_stream, app, peer)
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()

        assert peer.closed

    async def test_strict_error_under_cancellation(self) -> None:
        """In strict mode an error of the app during a cancellation is raised."""

        async def app(_: Request) -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise LookupError("oops")

        peer = ScriptedPeer(get("/"), then="silence")
        with pytest.RaisesGroup(LookupError):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(serve_stream, app, peer, strict=True))
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()

    async def test_strict_error_beside_a_cancellation(self) -> None:
        """In strict mode an error in a group with Cancelled is raised, too."""

        async def fail() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise LookupError("oops")

        async def app(_: Request) -> None:
            async with trio.open_nursery() as children:
                children.start_soon(fail)
                children.start_soon(trio.sleep_forever)

        peer = ScriptedPeer(get("/"), then="silence")
        with pytest.RaisesGroup(LookupError, flatten_subgroups=True):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(serve_stream, app, peer, strict=True))
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()

        assert peer.closed

    @pytest.mark.parametrize("strict", [False, True])
    async def test_transport_that_fails_to_close(self, strict: bool, caplog) -> None:
        """An error of the transport is logged, or raised in strict mode."""

        class Stuck(trio.abc.Stream):
            async def receive_some(self, max_bytes: int | None = None) -> bytes:
                await trio.lowlevel.checkpoint()
                return b""

            async def send_all(self, data: bytes | bytearray | memoryview) -> None:
                raise AssertionError("nothing to send")

            async def wait_send_all_might_not_block(self) -> None:
                raise AssertionError("nothing to send")

            async def aclose(self) -> None:
                raise OSError("stuck")

        if strict:
            with pytest.raises(OSError, match="stuck"):
                await serve_stream(echo_app, Stuck(), strict=True)
        else:
            await serve_stream(echo_app, Stuck())
            assert "stuck" in caplog.text

    async def test_transport_that_fails_with_an_interrupt(self, caplog) -> None:
        """Of a group that the transport raises, errors are logged, the rest is raised."""

        class Interrupted(trio.abc.AsyncResource):
            async def receive_some(self, max_bytes: int | None = None) -> bytes:
                raise BaseExceptionGroup("", [OSError("stuck"), KeyboardInterrupt()])

            async def aclose(self) -> None:
                await trio.lowlevel.checkpoint()

        with pytest.RaisesGroup(KeyboardInterrupt):
            await serve_stream(echo_app, Interrupted())  # type: ignore[arg-type]

        assert "stuck" in caplog.text

    @pytest.mark.parametrize(
        ("answer", "request_head"),
        [
            (None, get("/")),
            ("okay", get("/")),
            (Upgrade("echo", echo), b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"),
            (Response(200), b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"),
        ],
    )
    async def test_no_answer(self, answer, request_head: bytes, caplog) -> None:
        """A value that is no answer to the request is a 500, and the log says why."""

        async def app(_: Request):
            return answer

        peer = await self.serve(app, request_head)

        assert peer.sent.startswith(b"HTTP/1.1 500 ")
        assert "UsageError" in caplog.text

    @pytest.mark.ids("O02", "S24")
    async def test_connect_closes(self) -> None:
        """After a refused CONNECT the connection ends; later bytes are not read."""

        async def app(request: Request) -> Response:
            assert request.path == ""
            assert request.authority == ("a", 1)
            return Response(405, b"")

        wire = b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"
        peer = await self.serve(app, wire + get("/2"))

        assert peer.sent.count(b"HTTP/1.1 ") == 1
        assert b"Connection: close\r\n" in peer.sent

    async def test_in_a_streamed_response(self, caplog) -> None:
        """A response whose body fails is cut, never ended as if it were complete."""

        async def body():
            yield b"one"
            raise LookupError("oops")

        async def app(_: Request) -> Response:
            return Response(200, body())

        peer = await self.serve(app, get("/1") + get("/2"))

        assert peer.sent.endswith(b"3\r\none\r\n")
        assert peer.sent.count(b"HTTP/1.1") == 1
        assert "oops" in caplog.text

    @pytest.mark.parametrize("chunks", [[b"one"], [b"onetwothree"]])
    async def test_streamed_response_of_a_wrong_length(
        self, chunks: list[bytes], caplog
    ) -> None:
        """A body shorter or longer than its Content-Length is cut, too."""

        async def body():
            for chunk in chunks:
                yield chunk

        async def app(_: Request) -> Response:
            return Response(200, body(), {"Content-Length": "6"})

        peer = await self.serve(app, get("/1") + get("/2"))

        assert peer.sent.count(b"HTTP/1.1") == 1
        assert "ValueError" in caplog.text

    async def test_after_the_switch(self, caplog) -> None:
        """A handler's exception is one log record, and no HTTP follows the 101."""

        async def handler(
            request: Request, stream: UpgradedStream, head: bytes
        ) -> None:
            raise LookupError("oops")

        async def app(_: Request) -> Upgrade:
            return Upgrade("echo", handler)

        peer = await self.serve(app, UP)

        assert peer.sent == SWITCHED
        assert not peer.got_eof
        (record,) = caplog.records
        assert record.exc_info[0] is LookupError

    async def test_broken_stream_is_no_bug(self, caplog) -> None:
        """The peer's reset is no error of the handler, even if raised in a group."""

        async def handler(
            request: Request, stream: UpgradedStream, head: bytes
        ) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.receive_some)

        async def app(_: Request) -> Upgrade:
            return Upgrade("echo", handler)

        peer = ScriptedPeer(UP, then="silence")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_stream, app, peer)
            await peer.wait_sent(SWITCHED)
            peer.finish("reset")

        assert peer.closed
        assert not caplog.records

    async def test_bug_beside_a_broken_stream(self, caplog) -> None:
        """An error of the handler after the reset is still reported."""

        async def fail() -> None:
            raise LookupError("oops")

        async def handler(
            request: Request, stream: UpgradedStream, head: bytes
        ) -> None:
            try:
                await stream.receive_some()
            finally:
                await fail()

        async def app(_: Request) -> Upgrade:
            return Upgrade("echo", handler)

        peer = ScriptedPeer(UP, then="silence")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_stream, app, peer)
            await peer.wait_sent(SWITCHED)
            peer.finish("reset")

        assert "oops" in caplog.text

    async def test_reset_before_the_answer_is_no_bug(self, caplog) -> None:
        """A client that resets while the app works is not logged."""

        async def app(request: Request) -> Response:
            peer.finish("reset")
            return Response(200, b"never sent")

        peer = ScriptedPeer(get("/"), then="silence")
        await serve_stream(app, peer)

        assert peer.closed
        assert not peer.sent
        assert not caplog.records

    async def test_cancelled_with_an_error(self, caplog) -> None:
        """Of a group with Cancelled the error is logged, and Cancelled is raised."""

        async def fail_when_cancelled() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise LookupError("while cancelled")

        async def app(_: Request) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fail_when_cancelled)
                nursery.start_soon(trio.sleep_forever)

        peer = ScriptedPeer(get("/"), then="silence")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_stream, app, peer)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

        assert peer.closed
        assert "while cancelled" in caplog.text

    async def test_strict_raises_errors(self) -> None:
        """With strict=True the exception is raised, and the connection is closed."""

        async def app(_: Request) -> None:
            raise LookupError("oops")

        peer = ScriptedPeer(get("/"))
        with pytest.raises(LookupError, match="oops"):
            await serve_stream(app, peer, strict=True)

        assert peer.closed

    async def test_base_exceptions_are_not_caught(self) -> None:
        """SystemExit and KeyboardInterrupt are never caught."""

        async def app(_: Request) -> None:
            raise SystemExit(3)

        peer = ScriptedPeer(get("/"))
        with pytest.raises(SystemExit):
            await serve_stream(app, peer)

        assert peer.closed


class TestMemory:
    """A finished exchange is freed at once, without the garbage collector."""

    @pytest.mark.parametrize("path", ["/", "/read", "/large", "/bug", "/late", "/u"])
    async def test_request(self, path: str, monkeypatch) -> None:
        """The exchange is freed when it ends, however it ends."""
        kept: list[weakref.ref[object]] = []

        class Bug(Exception):
            pass

        async def app(request: Request):
            kept.append(weakref.ref(request._exchange))
            if path == "/read":
                await request.read()
            if path == "/large":
                await request.read(1)
            if path == "/bug":
                raise Bug
            if path == "/late":
                async with trio.open_nursery() as children:
                    children.start_soon(trio.sleep_forever)
            return await echo_app(request)

        monkeypatch.setattr(logging.getLogger("trio_upgrade.server"), "disabled", True)
        body = UP if path == "/u" else get(path, "Content-Length: 5") + b"hello"
        peer = ScriptedPeer(body, then="silence")
        gc.collect()
        gc.disable()
        try:
            async with trio.open_nursery() as nursery:
                limits = Limits(response_timeout=0 if path == "/late" else None)
                nursery.start_soon(partial(serve_stream, app, peer, limits=limits))
                await trio.testing.wait_all_tasks_blocked()
                (ref,) = kept
                assert ref() is None
                nursery.cancel_scope.cancel()
        finally:
            gc.enable()


class TestMalformed:
    """A malformed request is answered, then the connection is closed."""

    @pytest.mark.parametrize(
        ("wire", "status"),
        [
            (b"\x16\x03\x01\x02\x00", b"400 Bad Request"),
            (b"GET / HTTP/1.1\nHost: x\n\n", b"400 Bad Request"),
            (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", b"400 Bad Request"),
            (b"GET / HTTP/1.1\r\n\r\n", b"400 Bad Request"),
            (b"GET nowhere HTTP/1.1\r\nHost: x\r\n\r\n", b"400 Bad Request"),
            (b"GET /" + b"x" * 200, b"414 "),
            (b"GET / HTTP/1.1\r\nA: " + b"x" * 200, b"431 "),
            (
                b"GET / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\nHost: x\r\n\r\n",
                b"501 Not Implemented",
            ),
        ],
    )
    async def test_refused(self, wire: bytes, status: bytes) -> None:
        """There is one response, which says why, then the end; the app is not called."""

        async def app(_: Request) -> None:
            raise AssertionError("called")

        peer = await run_script(app, wire, limits=Limits(header_bytes=100))

        assert peer.sent.startswith(b"HTTP/1.1 " + status)
        assert b"\r\nConnection: close\r\n" in peer.sent
        assert peer.got_eof

    async def test_head_with_a_malformed_target(self) -> None:
        """The refusal of a HEAD has fields and no content (RFC 9110 §9.3.2)."""
        peer = await run_script(echo_app, b"HEAD foo HTTP/1.1\r\nHost: x\r\n\r\n")

        assert peer.sent.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert peer.sent.endswith(b"\r\n\r\n")
        assert peer.got_eof

    async def test_too_many_fields(self) -> None:
        """The number of fields has a limit of its own."""
        wire = get("/", *["A: b"] * 10)

        peer = await run_script(echo_app, wire, limits=Limits(header_fields=10))

        assert peer.sent.startswith(b"HTTP/1.1 431 ")

    @pytest.mark.ids("F11")
    async def test_many_fields(self) -> None:
        """A request may have 1,000 fields; the refusal of one more names the limit."""
        peer = await run_script(echo_app, get("/1", *["A:"] * 999))

        assert peer.sent == okay(b"/1")

        peer = await run_script(echo_app, get("/1", *["A:"] * 1000))

        assert peer.sent.startswith(b"HTTP/1.1 431 ")
        assert peer.sent.endswith(b"\r\n\r\nmore than 1000 fields (header_fields)\n")

    @pytest.mark.ids("M03", "S42")
    async def test_one_blank_line_is_skipped(self) -> None:
        """One blank line before a request is skipped, a second is not (RFC 9112 §2.2)."""
        await check_every_split(echo_app, b"\r\n" + get("/1"), okay(b"/1"))

        peer = await run_script(echo_app, b"\r\n\r\n" + get("/1"))

        assert peer.sent.startswith(b"HTTP/1.1 400 ")

    @pytest.mark.parametrize("then", ["end", "reset"])
    async def test_left_in_the_middle_of_a_head(self, then: str) -> None:
        """A client that leaves in the middle of a request head gets no response."""
        peer = await run_script(echo_app, b"GET / HT", then=then)

        assert not peer.sent

    async def test_left_before_the_refusal(self) -> None:
        """A client that resets before its refusal gets no response."""
        peer = await run_script(echo_app, b"GET / HTTP/1.1\n\n", then="reset")

        assert not peer.sent


class TestEnds:
    """The stream ends with its handler, on every path."""

    @pytest.mark.ids("S35", "R28")
    async def test_handler_that_does_nothing(self) -> None:
        """A handler that never touches the stream leaves nothing open."""

        async def handler(
            request: Request, stream: UpgradedStream, head: bytes
        ) -> None:
            pass

        async def app(_: Request) -> Upgrade:
            return Upgrade("echo", handler)

        await check_every_split(app, UP + b"HEAD", SWITCHED)

    async def test_end_in_stages(self) -> None:
        """We end our direction first, and close when the peer has ended its own."""

        async def handler(
            request: Request, stream: UpgradedStream, head: bytes
        ) -> None:
            await stream.send_all(b"bye")

        async def app(_: Request) -> Upgrade:
            return Upgrade("echo", handler)

        peer = ScriptedPeer(UP, then="silence")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_stream, app, peer)
            await peer.wait_sent(b"bye")
            await trio.testing.wait_all_tasks_blocked()

            assert peer.got_eof
            assert not peer.closed

            peer.feed(b"still talking")
            await trio.testing.wait_all_tasks_blocked()

            assert not peer.closed
            peer.finish()

        assert peer.closed

    async def test_linger_is_bounded(self, autojump_clock) -> None:
        """If the peer never ends its direction, the wait lasts Limits.linger seconds."""
        started = trio.current_time()

        async def handler(
            request: Request, stream: UpgradedStream, head: bytes
        ) -> None:
            pass

        async def app(_: Request) -> Upgrade:
            return Upgrade("echo", handler)

        await run_script(app, UP, then="silence", limits=Limits(linger=7))

        assert trio.current_time() - started == 7

    async def test_detached_stream_is_left_alone(self) -> None:
        """A transport that a handler has detached stays open after it."""
        taken = []

        async def handler(
            request: Request, stream: UpgradedStream, head: bytes
        ) -> None:
            taken.append(stream.detach())

        async def app(_: Request) -> Upgrade:
            return Upgrade("echo", handler)

        peer = ScriptedPeer(UP + b"HEAD", b"more", then="silence")
        await serve_stream(app, peer)

        ((transport, head),) = taken
        assert transport is peer
        assert head == b"HEAD"
        assert not peer.closed
        assert not peer.got_eof
        assert await transport.receive_some() == b"more"

    async def test_detached_stream_is_left_alone_after_an_error(self, caplog) -> None:
        """A detached transport stays open, too, if the handler raises afterwards."""

        async def handler(
            request: Request, stream: UpgradedStream, head: bytes
        ) -> None:
            stream.detach()
            raise LookupError("oops")

        async def app(_: Request) -> Upgrade:
            return Upgrade("echo", handler)

        peer = ScriptedPeer(UP, then="silence")
        await serve_stream(app, peer)

        assert not peer.closed
        assert "oops" in caplog.text

    async def test_closed_by_the_handler(self) -> None:
        """A handler may close the stream itself."""

        async def handler(
            request: Request, stream: UpgradedStream, head: bytes
        ) -> None:
            await stream.aclose()

        async def app(_: Request) -> Upgrade:
            return Upgrade("echo", handler)

        peer = await run_script(app, UP)

        assert peer.sent == SWITCHED

    @pytest.mark.ids("R48")
    async def test_http_again_on_the_same_stream(self) -> None:
        """An upgraded stream can go back to HTTP, its head bytes included."""

        async def handler(
            request: Request, stream: UpgradedStream, head: bytes
        ) -> None:
            await serve_stream(echo_app, stream, strict=True)

        async def app(_: Request) -> Upgrade:
            return Upgrade("echo", handler)

        peer = await run_script(app, UP + get("/again"))

        assert peer.sent == SWITCHED + okay(b"/again")

    async def test_cancelled_connection_is_closed_at_once(self, autojump_clock) -> None:
        """Cancelling the task that serves closes the connection without lingering."""
        started = trio.current_time()
        peer = ScriptedPeer(UP, then="silence")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_stream, echo_app, peer)
            await peer.wait_sent(SWITCHED)
            nursery.cancel_scope.cancel()

        assert peer.closed
        assert trio.current_time() == started
