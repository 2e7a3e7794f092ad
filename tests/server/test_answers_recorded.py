"""Records and counts of every answer on the wire, also the library's own and cut ones."""

from __future__ import annotations

import gc
import logging
import ssl
import struct
from contextlib import suppress
from functools import partial

import pytest
import trio
import trio.testing

from trio_upgrade import (
    EndReason,
    EndRecord,
    Limits,
    MalformedMessage,
    Request,
    RequestRecord,
    Response,
    Server,
    Upgrade,
    serve_ssl_over_tcp,
    serve_stream,
)
from trio_upgrade._streams.socket_stream import adopt_stream
from trio_upgrade.testing import ScriptedPeer, split_points

from ..apps import echo_app
from ..recording import Recorder
from ..sockets import tcp_pair
from ..tls import make_tls_contexts
from ..wire import UP, get, okay

CLOSE = "Connection: close"
# SO_LINGER: close() sends a reset.
RESET = struct.pack("ii", 1, 0)
TOO_LONG = b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 300 + b"\r\n\r\n"
LIMITS = Limits(
    header_bytes=300,
    header_timeout=1,
    keep_alive_timeout=1,
    response_timeout=2,
    body_timeout=1,
)


async def chunks(*pieces: bytes | memoryview | Exception):
    for piece in pieces:
        if isinstance(piece, Exception):
            raise piece
        yield piece


async def app(request: Request):
    """Do what the path names."""
    match request.path:
        case "/bug":
            raise LookupError("oops")
        case "/sleep":
            await trio.sleep_forever()
        case "/read":
            return Response(200, await request.read(100))
        case "/chunks":
            return Response(200, chunks(b"one", memoryview(b"three"), b""))
        case "/length":
            return Response(200, chunks(b"one"), {"Content-Length": "3"})
        case "/cut":
            return Response(200, chunks(b"one", LookupError("oops"), b"two"))
        case "/nothing":
            return Response(304)
        case "/other":
            return Response(777)
        case "/lie":
            return Response(200, b"abc", {"Content-Length": "2"})
        case "/up":
            return Upgrade("echo", leave)
    return await echo_app(request)


async def leave(_request: Request, _stream: object, _head: bytes) -> None:
    pass


async def serve(*packets: bytes, then="silence", app=app) -> tuple[bytes, Recorder]:
    """Serve a script to its end; return what was sent, and the records."""
    recorder = Recorder()
    peer = ScriptedPeer(*packets, then=then)
    await serve_stream(app, peer, limits=LIMITS, observer=recorder)
    return bytes(peer.sent), recorder


OWN = [
    (b"\x00", 400),
    (b"GET nowhere HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n\r\n", 400),
    (b"GET /" + b"a" * 300, 414),
    (TOO_LONG, 431),
    (b"GET / HTTP/2.0\r\n\r\n", 505),
    (
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        501,
    ),
    (b"GET / HTTP/1.1\r\nHost: x\r\nExpect: 200-maybe\r\n\r\n", 417),
    (b"GET / HT", 408),
]


class TestOwnAnswers:
    """The library's own answers have a record, without a request where there is none."""

    @pytest.mark.ids("F34")
    @pytest.mark.parametrize(("wire", "status"), OWN, ids=[str(s) for _, s in OWN])
    async def test_refused_header_section(self, wire, status, autojump_clock) -> None:
        """A header section that is refused has a record without a request."""
        for first in (b"", get("/1")):
            sent, recorder = await serve(first, wire)
            answer = sent.removeprefix(okay(b"/1"))

            record = recorder.requests[-1]
            assert answer.startswith(b"HTTP/1.1 %d " % status)
            assert len(recorder.requests) == 1 + bool(first)
            assert record.request is None
            assert record.status == status
            assert record.sent == len(answer)
            assert record.content == len(answer.partition(b"\r\n\r\n")[2]) > 0
            assert record.seconds == 0
            assert record.cause is None

    async def test_record_at_every_split(self, autojump_clock) -> None:
        """The record is the same however the bytes are cut into packets."""
        for packets in split_points(get("nowhere") + b"tail"):
            sent, recorder = await serve(*packets)
            (record,) = recorder.requests

            assert (record.request, record.status) == (None, 400)
            assert record.sent == len(sent)

    @pytest.mark.ids("F34")
    @pytest.mark.parametrize(
        ("wire", "status", "seconds"),
        [
            (get("/bug"), 500, 0),
            (get("/read", "Content-Length: 200"), 413, 0),
            (get("/read", "Content-Length: 5"), 408, 1),
            (get("/read", "Transfer-Encoding: chunked") + b"x\r\n", 400, 0),
            (get("/up"), 426, 0),
            (get("/sleep"), 503, 2),
        ],
    )
    async def test_refused_request(
        self, wire, status, seconds, autojump_clock, caplog
    ) -> None:
        """The library's answer to a request has a record with that request."""
        sent, recorder = await serve(wire)

        (record,) = recorder.requests
        assert record.request is not None
        assert record.request.target == wire.split()[1].decode()
        assert record.status == status
        assert record.sent == len(sent)
        assert record.seconds == seconds

    async def test_refusal_by_a_drain(self, autojump_clock) -> None:
        """An offer during a drain has a record with its 503."""

        async def draining(request: Request) -> Upgrade:
            request.server.start_drain(5)
            return Upgrade("echo", leave)

        _, recorder = await serve(UP, app=draining)

        assert [record.status for record in recorder.requests] == [503]

    async def test_silence_is_no_answer(self, autojump_clock) -> None:
        """An idle connection ends without an answer, and without a record of one."""
        for packets in ([], [get("/1")]):
            _, recorder = await serve(*packets)

            assert len(recorder.requests) == len(packets)


class TestBytes:
    """Bytes of content, and all bytes of the answer."""

    @pytest.mark.ids("F34")
    @pytest.mark.parametrize(
        ("wire", "content"),
        [
            (get("/abc", CLOSE), 4),
            (b"HEAD" + get("/abc", CLOSE)[3:], 0),
            (b"HEAD" + get("/chunks", CLOSE)[3:], 0),
            (get("/nothing", CLOSE), 0),
            (get("/chunks", CLOSE), 8),
            (b"GET /chunks HTTP/1.0\r\n\r\n", 8),
            (get("/length", CLOSE), 3),
            (get("/read", "Content-Length: 5", "Expect: 100-continue", CLOSE), 5),
        ],
    )
    async def test_whole_answer(self, wire, content, autojump_clock) -> None:
        """Content counts without framing; the whole does not count a 100 before it."""
        sent, recorder = await serve(wire, b"hello")

        answer = sent.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
        record = recorder.requests[0]
        assert record.content == content
        assert record.sent == len(answer)
        assert record.cause is None

    @pytest.mark.parametrize("kind", ["memory", "tcp"])
    @pytest.mark.parametrize("size", [10, 60_000, 70_000, 3_000_000])
    async def test_long_answer(self, size: int, kind: str) -> None:
        """The counts are those of the wire, however much the kernel takes at once."""
        near, far = (
            await tcp_pair() if kind == "tcp" else trio.testing.memory_stream_pair()
        )
        recorder = Recorder()
        received = bytearray()

        async def long(_: Request) -> Response:
            return Response(200, b"x" * size)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(serve_stream, long, far, observer=recorder))
            await near.send_all(get("/", "Connection: close"))
            await trio.testing.wait_all_tasks_blocked()
            async with near:
                async for chunk in near:
                    received += chunk

        (record,) = recorder.requests
        assert record.content == size
        assert record.sent == len(received)


class TestCut:
    """An answer that was cut has a record with what was sent, and why."""

    @pytest.mark.ids("F34")
    async def test_body_that_raises(self, autojump_clock, caplog) -> None:
        """An iterable that raises: the chunks sent so far, and its exception."""
        sent, recorder = await serve(get("/cut"))

        (record,) = recorder.requests
        assert (record.status, record.content) == (200, 3)
        assert record.sent == len(sent)
        assert isinstance(record.cause, LookupError)
        assert recorder.ends[0].cause is record.cause

    @pytest.mark.ids("F34")
    async def test_client_that_left(self) -> None:
        """A client that resets: the exception, and no byte that was not sent."""
        sent, recorder = await serve(get("/1"), then="reset")

        (record,) = recorder.requests
        assert (record.status, record.content, record.sent) == (200, 0, 0)
        assert isinstance(record.cause, trio.BrokenResourceError)
        assert not sent
        (end,) = recorder.ends
        assert end.reason is EndReason.LOST
        assert end.cause is record.cause
        assert end.request is record.request
        assert end.answered

    @pytest.mark.ids("F34")
    @pytest.mark.parametrize(("size", "room"), [(60_000, 4096), (5_000_000, 200_000)])
    async def test_client_that_stops_reading(self, size, room, autojump_clock) -> None:
        """A client that reads no more: what the kernel took before that is counted."""
        near, far = map(trio.SocketStream, trio.socket.socketpair())
        # So small that a part of the answer has to wait.
        far.socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_SNDBUF, room)
        recorder, ended = Recorder(), trio.Event()

        async def long(_: Request) -> Response:
            return Response(200, b"x" * size)

        async def serve_long() -> None:
            await serve_stream(long, adopt_stream(far), observer=recorder)
            ended.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_long)
            await near.send_all(get("/"))
            await ended.wait()
            await near.aclose()

        (record,) = recorder.requests
        assert 0 < record.content < record.sent < size
        assert record.sent - record.content < 200
        assert isinstance(record.cause, trio.BrokenResourceError)
        assert recorder.reasons == [EndReason.SLOW_READER]
        assert recorder.ends[0].cause is record.cause

    async def test_cancelled(self) -> None:
        """An answer that the end of the server cuts has its Cancelled."""
        recorder = Recorder()

        async def endless():
            yield b"one"
            await trio.sleep_forever()

        async def streaming(_: Request) -> Response:
            return Response(200, endless())

        peer = ScriptedPeer(get("/"), then="silence")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                partial(serve_stream, streaming, peer, observer=recorder)
            )
            await peer.wait_sent(b"one")
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

        (record,) = recorder.requests
        assert isinstance(record.cause, trio.Cancelled)
        assert (record.status, record.content) == (200, 3)
        assert recorder.ends[0].cause is None

    async def test_answer_that_was_not_begun(self, autojump_clock, caplog) -> None:
        """A Response that cannot be sent is no answer; the 500 in its place is one."""
        _, recorder = await serve(get("/lie"))

        assert [record.status for record in recorder.requests] == [500]


class TestEnds:
    """What a connection ended with."""

    async def end(self, *packets: bytes, then="silence") -> EndRecord:
        """Serve a script; return the record of its end."""
        _, recorder = await serve(*packets, then=then)
        (end,) = recorder.ends
        return end

    @pytest.mark.ids("F34")
    async def test_last_request(self, autojump_clock, caplog) -> None:
        """The request is the one that was answered last, not answered, or switched."""
        for path, answered in (("/1", True), ("/bug", True), ("/sleep", True)):
            end = await self.end(get("/0"), get(path, "Connection: close"))

            assert end.request is not None
            assert (end.request.path, end.answered) == (path, answered)
        end = await self.end(UP, then="end")
        assert end.request is not None
        assert (end.request.path, end.answered) == ("/u", True)

    async def test_request_without_an_answer(self) -> None:
        """A request that a cancellation ended is there, and was not answered."""
        recorder = Recorder()
        peer = ScriptedPeer(get("/0"), get("/sleep"), then="silence")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(serve_stream, app, peer, observer=recorder))
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

        (end,) = recorder.ends
        assert end.request is not None
        assert (end.request.path, end.answered) == ("/sleep", False)

    @pytest.mark.parametrize("packets", [[], [get("/1")], [get("/1"), b"\x00"]])
    async def test_no_request(self, packets, autojump_clock) -> None:
        """Before a request, between two, and for one that is refused: None."""
        end = await self.end(*packets)

        assert end.request is None
        assert not end.answered

    @pytest.mark.ids("F34")
    async def test_cause(self, autojump_clock, caplog) -> None:
        """The exception behind the reason: of the message, the app, the transport."""
        assert isinstance((await self.end(b"\x00")).cause, MalformedMessage)
        assert isinstance((await self.end(get("/cut"))).cause, LookupError)
        broken = (await self.end(get("/1")[:5], then="reset")).cause
        assert isinstance(broken, trio.BrokenResourceError)
        assert (await self.end(get("/1"))).cause is None
        late = (await self.end(get("/bug"), then="reset")).cause
        assert isinstance(late, trio.BrokenResourceError)
        # A bug that was answered with a 500 has not ended the connection.
        assert (await self.end(get("/bug"))).cause is None
        assert (await self.end(get("/bug"), get("/1", CLOSE))).cause is None

    @pytest.mark.parametrize("switched", [False, True])
    async def test_loss_in_the_app(self, switched: bool) -> None:
        """A loss that the app does not catch is the cause, before and after a switch."""
        caught: list[BaseException] = []

        async def losing(request: Request) -> None:
            try:
                stream, _ = await request.accept_upgrade("echo")
                peer.finish("reset")
                await stream.receive_some()
            except trio.BrokenResourceError as exc:
                caught.append(exc)
                raise

        then = "silence" if switched else "reset"
        peer = ScriptedPeer(UP, then=then)  # type: ignore[arg-type]
        recorder = Recorder()
        await serve_stream(losing, peer, observer=recorder)

        (end,) = recorder.ends
        assert end.reason is EndReason.LOST
        assert [end.cause] == caught
        assert end.answered == switched

    async def test_nothing_is_kept(self) -> None:
        """Records that are dropped leave nothing to the garbage collector."""

        class Dropping:
            def request(self, record: RequestRecord) -> None:
                assert record.status

            def ended(self, record: EndRecord) -> None:
                assert record.requests >= 0

        def count() -> int:
            return sum(isinstance(item, Request) for item in gc.get_objects())

        gc.collect()
        gc.disable()
        try:
            before = count()
            for wire, then in (
                (get("/1"), "end"),
                (get("/1"), "reset"),
                (get("/nothing", CLOSE), "silence"),
                (b"\x00", "end"),
            ):
                peer = ScriptedPeer(wire, then=then)  # type: ignore[arg-type]
                await serve_stream(app, peer, observer=Dropping())
            assert count() == before
        finally:
            gc.enable()


class TestTLSFailures:
    """A TLS handshake that fails is seen: a reason, a cause, a count, one DEBUG line."""

    async def fail(self, speak) -> tuple[Recorder, Server]:
        """Let `speak` fail to make a handshake with a server; return what that saw."""
        ended = trio.Event()

        class Ending(Recorder):
            def ended(self, record: EndRecord) -> None:
                super().ended(record)
                ended.set()

        recorder = Ending()
        async with trio.open_nursery() as nursery:
            _, context = make_tls_contexts()
            server = await nursery.start(
                partial(
                    serve_ssl_over_tcp,
                    echo_app,
                    0,
                    context,
                    host="127.0.0.1",
                    observer=recorder,
                )
            )
            port = server.listeners[0].transport_listener.socket.getsockname()[1]
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                with suppress(trio.BrokenResourceError):
                    await speak(stream)
                    await stream.send_eof()
                    while await stream.receive_some():
                        pass
            await ended.wait()
            server.start_drain(5)
        return recorder, server

    async def distrust(self, stream: trio.SocketStream) -> None:
        """Refuse the server's certificate, which an alert tells it."""
        strange = ssl.create_default_context()
        tls = trio.SSLStream(stream, strange, server_hostname="localhost")
        with pytest.raises(trio.BrokenResourceError):
            await tls.do_handshake()
        # Trio does not send the alert.
        await stream.send_all(b"\x15\x03\x03\x00\x02\x02\x30")

    async def speak_http(self, stream: trio.SocketStream) -> None:
        """Speak HTTP without TLS."""
        await stream.send_all(get("/"))

    @pytest.mark.ids("F34")
    @pytest.mark.parametrize("way", ["distrust", "speak_http"])
    async def test_handshake(self, way: str, caplog) -> None:
        """The client refuses our certificate, or does not speak TLS."""
        caplog.set_level(logging.DEBUG, "trio_upgrade.server")
        recorder, server = await self.fail(getattr(self, way))

        (end,) = recorder.ends
        assert end.reason is EndReason.TLS_FAILED
        assert isinstance(end.cause, ssl.SSLError)
        assert end.request is None
        assert not recorder.requests
        assert server.statistics().total_tls_failed == 1
        (line,) = caplog.records
        assert line.levelno == logging.DEBUG
        assert line.exc_info is None
        assert line.getMessage().startswith(f"TLS with {end.peer!r} failed: [SSL: ")

    async def test_client_that_hangs_up(self, caplog) -> None:
        """A client that only hangs up has not failed: a health check may do that."""
        caplog.set_level(logging.DEBUG, "trio_upgrade.server")

        async def say_nothing(_: trio.SocketStream) -> None:
            pass

        recorder, server = await self.fail(say_nothing)

        assert recorder.reasons == [EndReason.PEER]
        assert recorder.ends[0].cause is None
        assert server.statistics().total_tls_failed == 0
        assert not caplog.records

    async def test_reset_in_the_handshake(self) -> None:
        """A reset in the middle of the handshake is a loss, not a failure of TLS."""

        async def reset(stream: trio.SocketStream) -> None:
            await stream.send_all(b"\x16\x03\x01")
            stream.socket.setsockopt(
                trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, RESET
            )
            await stream.aclose()
            raise trio.BrokenResourceError

        recorder, _ = await self.fail(reset)

        assert recorder.reasons == [EndReason.LOST]
        assert isinstance(recorder.ends[0].cause, trio.BrokenResourceError)


@pytest.mark.ids("F34")
async def test_counts_by_class(autojump_clock, caplog) -> None:
    """Every answer is counted by its class, and refused header sections beside that."""
    servers: list[Server] = []

    async def keeping(request: Request):
        servers.append(request.server)
        return await app(request)

    limits = Limits(header_bytes=300, header_timeout=1, keep_alive_timeout=None)
    first = ScriptedPeer(get("/1"), then="silence")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(serve_stream, keeping, first, limits=limits))
        await trio.testing.wait_all_tasks_blocked()
        for wire, _ in OWN:
            peer = ScriptedPeer(wire, then="silence")
            await serve_stream(app, peer, server=servers[0])
        tunnel = ScriptedPeer(b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n")
        await serve_stream(open_tunnel, tunnel, server=servers[0])
        first.feed(*map(get, ("/nothing", "/other", "/up", "/bug", "/cut")))

    counts = servers[0].statistics()
    own = [status // 100 for _, status in OWN]
    assert counts.total_2xx == 2
    assert counts.total_3xx == 1
    assert counts.total_4xx == 1 + own.count(4)
    assert counts.total_5xx == 1 + own.count(5)
    assert counts.total_other == 1
    assert counts.total_refused == len(OWN)
    assert counts.total_upgraded == 1


async def open_tunnel(request: Request) -> None:
    await request.accept_connect()


@pytest.mark.ids("F34")
async def test_every_record_has_the_peer() -> None:
    """Also where the client has reset the connection, so that it is known no longer."""
    near, far = await tcp_pair()
    address = near.socket.getsockname()
    recorder = Recorder()

    async def resetting(_: Request) -> Response:
        await near.aclose()
        await trio.testing.wait_all_tasks_blocked()
        return Response(200, b"x" * 9_000_000)

    near.socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, RESET)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(serve_stream, resetting, far, observer=recorder))
        await near.send_all(get("/"))

    assert [record.peer for record in recorder.requests] == [address]
    assert [record.peer for record in recorder.ends] == [address]
