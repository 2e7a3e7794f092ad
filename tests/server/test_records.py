"""What a server reports: why connections end, records, counts."""

from __future__ import annotations

from functools import partial

import pytest
import trio
import trio.testing

from trio_upgrade import (
    EndReason,
    ErrorRecord,
    Limits,
    Request,
    RequestRecord,
    Response,
    Server,
    SwitchRecord,
    Upgrade,
    UpgradedStream,
    serve_stream,
)
from trio_upgrade.testing import ScriptedPeer

from ..apps import echo_app
from ..recording import Recorder
from ..sockets import tcp_pair
from ..wire import SWITCHED, UP, get, okay

CONNECT = b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"


async def fail(_request: Request, _stream: UpgradedStream, _head: bytes) -> None:
    raise LookupError("oops")


async def leave(_request: Request, _stream: UpgradedStream, _head: bytes) -> None:
    pass


async def app(request: Request):
    """Do what the path names."""
    match request.path:
        case "/bug":
            raise LookupError("oops")
        case "/sleep":
            await trio.sleep_forever()
        case "/cut":
            return Response(200, cut())
        case "/read":
            return Response(200, await request.read())
        case "/small":
            return Response(200, await request.read(1))
        case "/leave":
            return Upgrade("echo", leave)
        case "/fail":
            return Upgrade("echo", fail)
    return await echo_app(request)


async def cut():
    yield b"one"
    raise LookupError("oops")


def offer(path: str) -> bytes:
    return UP.replace(b"/u", path.encode())


LIMITS = Limits(
    header_timeout=1,
    keep_alive_timeout=1,
    response_timeout=1,
    body_timeout=1,
    linger=3,
)

ENDS = [
    ([], "end", EndReason.PEER),
    ([get("/1")], "end", EndReason.PEER),
    ([get("/1", "Connection: close")], "end", EndReason.ANSWERED),
    ([b"GET / HTTP/1.0\r\n\r\n"], "silence", EndReason.ANSWERED),
    ([get("/bug", "Connection: close")], "silence", EndReason.ANSWERED),
    ([offer("/leave")], "silence", EndReason.RETURNED),
    ([UP], "end", EndReason.RETURNED),
    ([get("/1")[:5]], "end", EndReason.PEER),
    ([], "reset", EndReason.LOST),
    ([get("/1")[:5]], "reset", EndReason.LOST),
    ([UP], "reset", EndReason.LOST),
    ([get("/read", "Content-Length: 5")], "reset", EndReason.LOST),
    ([get("/1", "Content-Length: 5")], "end", EndReason.LOST),
    ([get("/small", "Content-Length: 5")], "end", EndReason.LOST),
    ([get("/small", "Content-Length: 5")], "silence", EndReason.ANSWERED),
    ([get("/bug")], "reset", EndReason.LOST),
    ([b"\x00"], "silence", EndReason.MALFORMED),
    ([get("/1"), b"\x00"], "silence", EndReason.MALFORMED),
    ([get("nowhere")], "silence", EndReason.MALFORMED),
    ([offer("/fail")], "silence", EndReason.ERROR),
    ([get("/cut")], "silence", EndReason.ERROR),
    ([get("/1")], "silence", EndReason.IDLE),
    ([get("/1") + b"\r\n"], "silence", EndReason.IDLE),
    ([], "silence", EndReason.SLOW_HEADER),
    ([b"GET"], "silence", EndReason.SLOW_HEADER),
    ([get("/1"), b"GET"], "silence", EndReason.SLOW_HEADER),
    ([get("/sleep")], "silence", EndReason.SLOW_RESPONSE),
    ([get("/1"), get("/sleep")], "silence", EndReason.SLOW_RESPONSE),
]


class TestEndRecords:
    """Each connection ends with one record, which says why."""

    @pytest.mark.ids("R56")
    @pytest.mark.parametrize(("script", "then", "reason"), ENDS)
    async def test_reason(self, script, then, reason, autojump_clock) -> None:
        """The reason is the cause, however the connection then ends."""
        recorder = Recorder()
        peer = ScriptedPeer(*script, then=then)

        await serve_stream(app, peer, limits=LIMITS, observer=recorder)

        assert peer.closed
        assert recorder.reasons == [reason]

    @pytest.mark.parametrize("packets", [[], [get("/1")], [get("/sleep")], [UP]])
    async def test_cancelled(self, packets: list[bytes]) -> None:
        """A cancellation is the reason at every stage, after an answer, too."""
        recorder = Recorder()
        peer = ScriptedPeer(*packets, then="silence")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(serve_stream, app, peer, observer=recorder))
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

        assert recorder.reasons == [EndReason.CANCELLED]

    @pytest.mark.parametrize("linger", [1, 10])
    async def test_reason_outlives_the_close(self, linger, autojump_clock) -> None:
        """A deadline of an ended exchange changes neither the close nor the reason."""
        recorder = Recorder()
        peer = ScriptedPeer(get("/1"), b"\x00", then="silence")
        limits = Limits(keep_alive_timeout=2, header_timeout=2, linger=linger)
        began = trio.current_time()

        await serve_stream(app, peer, limits=limits, observer=recorder)

        assert recorder.reasons == [EndReason.MALFORMED]
        assert trio.current_time() - began == linger

    async def test_app_that_raises_at_its_deadline(
        self, autojump_clock, caplog
    ) -> None:
        """An error raised at the app's deadline is logged; the client gets the 503."""

        async def stubborn(_: Request) -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise LookupError("oops")

        recorder = Recorder()
        peer = ScriptedPeer(get("/"), then="silence")
        await serve_stream(stubborn, peer, limits=LIMITS, observer=recorder)

        assert peer.sent.startswith(b"HTTP/1.1 503 ")
        assert recorder.reasons == [EndReason.SLOW_RESPONSE]
        assert "oops" in caplog.text

    async def test_http_record(self, autojump_clock) -> None:
        """Without a switch the record has the requests and the seconds, and no bytes."""
        recorder = Recorder()
        peer = ScriptedPeer(get("/1"), get("/2"), then="silence")

        await serve_stream(app, peer, limits=LIMITS, observer=recorder)

        (end,) = recorder.ends
        assert end.requests == 2
        assert end.protocol is None
        assert end.peer is None
        assert (end.received, end.sent) == (0, 0)
        # A second idle, and three of linger.
        assert end.seconds == 4

    @pytest.mark.ids("R55")
    async def test_upgraded_record(self) -> None:
        """After a switch it has the protocol, the peer, and the bytes with the head."""
        near, far = await tcp_pair()
        address = near.socket.getsockname()
        recorder = Recorder()

        async def handler(request, stream: UpgradedStream, head: bytes) -> None:
            await stream.send_all(b"hello, ")
            while await stream.receive_some(2):
                pass
            await stream.send_all(b"bye")

        async def switching(_: Request) -> Upgrade:
            return Upgrade("Echo", handler)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(serve_stream, switching, far, observer=recorder))
            async with near:
                await near.send_all(UP + b"head")
                await near.send_all(b" and wire")
                await near.send_eof()
                async for _ in near:
                    pass

        (end,) = recorder.ends
        assert end.peer == address
        assert end.protocol == "Echo"
        assert end.requests == 1
        assert end.received == len(b"head and wire")
        assert end.sent == len(b"hello, bye")
        assert end.reason is EndReason.RETURNED
        (switch,) = recorder.switches
        assert isinstance(switch, SwitchRecord)
        assert switch.protocol == "Echo"
        assert switch.request.path == "/u"


class TestRecords:
    """Records of requests, switches and errors."""

    async def test_request(self, autojump_clock) -> None:
        """One record for each answer, with its status and time; none for a switch."""

        async def slow(request: Request):
            await trio.sleep(3)
            return await echo_app(request)

        recorder = Recorder()
        peer = ScriptedPeer(get("/1"), get("/2"), UP)
        await serve_stream(slow, peer, observer=recorder)

        assert [
            (record.request and record.request.path, record.status, record.seconds)
            for record in recorder.requests
        ] == [("/1", 200, 3), ("/2", 200, 3)]
        assert [record.seconds for record in recorder.switches] == [3]

    async def test_switch_of_a_tunnel(self) -> None:
        """A tunnel's protocol is CONNECT."""

        async def tunnel(request: Request) -> None:
            await request.accept_connect()

        recorder = Recorder()
        await serve_stream(tunnel, ScriptedPeer(CONNECT), observer=recorder)

        assert [record.protocol for record in recorder.switches] == ["CONNECT"]
        assert [record.protocol for record in recorder.ends] == ["CONNECT"]

    @pytest.mark.ids("R26")
    @pytest.mark.parametrize("wire", [get("/bug"), offer("/fail"), get("/cut")])
    async def test_error(self, wire: bytes, caplog) -> None:
        """An error of the app is one record and one line in the log."""
        recorder = Recorder()
        await serve_stream(app, ScriptedPeer(wire), observer=recorder)

        (error,) = recorder.errors
        assert isinstance(error.error, LookupError)
        assert error.request is not None
        assert f"GET {error.request.path}" in caplog.text
        assert len(caplog.records) == 1

    async def test_error_in_strict_mode(self) -> None:
        """An error that is raised has one record, too."""
        recorder = Recorder()
        with pytest.raises(LookupError):
            await serve_stream(
                app, ScriptedPeer(get("/bug")), observer=recorder, strict=True
            )

        assert len(recorder.errors) == 1
        assert recorder.reasons == [EndReason.ERROR]

    async def test_refusals_are_no_errors(self) -> None:
        """Errors of the client are answered, and are no errors of the app."""
        recorder = Recorder()
        wire = get("/1", "Connection: Upgrade", "Upgrade: other")
        await serve_stream(app, ScriptedPeer(offer("/leave"), wire), observer=recorder)
        await serve_stream(
            app,
            ScriptedPeer(get("/read", "Content-Length: 9000000")),
            observer=recorder,
        )

        assert not recorder.errors
        assert [record.status for record in recorder.requests] == [413]

    async def test_transport_that_fails_to_close(self, caplog) -> None:
        """An error outside a request has a record without a request."""

        class Stuck(trio.abc.AsyncResource):
            async def receive_some(self, max_bytes: int | None = None) -> bytes:
                await trio.lowlevel.checkpoint()
                return b""

            async def aclose(self) -> None:
                raise OSError("stuck")

        recorder = Recorder()
        await serve_stream(app, Stuck(), observer=recorder)  # type: ignore[arg-type]

        (error,) = recorder.errors
        assert error == ErrorRecord(None, None, error.error)
        assert isinstance(error.error, OSError)
        assert recorder.reasons == [EndReason.PEER]


class TestObservers:
    """An observer may have any of the methods, and can break nothing."""

    async def test_some_methods(self) -> None:
        """An observer need not have every method."""
        got = []

        class Requests:
            def request(self, record: RequestRecord) -> None:
                got.append(record.status)

        peer = ScriptedPeer(get("/1"), get("/bug"), UP)
        await serve_stream(app, peer, observer=Requests())

        assert got == [200, 500]

    @pytest.mark.parametrize("name", ["request", "switched", "ended", "error"])
    async def test_one_method(self, name: str, caplog) -> None:
        """An observer with a single method gets the records of that kind."""
        got: list[object] = []

        class Single:
            pass

        setattr(Single, name, lambda _, record: got.append(record))
        peer = ScriptedPeer(get("/1"), get("/bug"), UP)
        await serve_stream(app, peer, observer=Single())

        assert len(got) == {"request": 2}.get(name, 1)

    async def test_observer_that_raises(self, caplog) -> None:
        """An error of the observer is logged, once for each call, and stops nothing."""

        class Broken:
            def request(self, _: object) -> None:
                raise LookupError("oops")

            switched = ended = request

        peer = ScriptedPeer(get("/1"), UP)
        await serve_stream(app, peer, observer=Broken(), strict=True)

        assert peer.sent == okay(b"/1") + SWITCHED
        assert [record.message.split("(")[0] for record in caplog.records] == [
            f"error in the observer, at {name}"
            for name in ("RequestRecord", "SwitchRecord", "EndRecord")
        ]

    async def test_free_when_unused(self, monkeypatch) -> None:
        """Without an observer nothing is measured, and no address is looked up."""

        def never(*_: object, **__: object) -> None:
            raise AssertionError("called")

        for name in (
            *("_server.observers.ErrorRecord", "_server.connection.ConnectionRecords"),
            *("_server.connection.ObservedHTTP", "_server.connection.find_peer"),
            *("_server.request.find_peer",),
        ):
            monkeypatch.setattr(f"trio_upgrade.{name}", never)

        peer = ScriptedPeer(get("/1"), UP)
        await serve_stream(app, peer, strict=True)

        assert peer.sent == okay(b"/1") + SWITCHED


class TestStatistics:
    """The current counts, and the totals."""

    @pytest.mark.ids("R55")
    async def test_counts(self, caplog) -> None:
        """Each count is right at each stage."""
        servers: list[Server] = []

        async def counting(request: Request):
            servers.append(request.server)
            return await app(request)

        def now() -> tuple[int, ...]:
            counts = servers[0].statistics()
            assert not counts.is_draining
            return (
                counts.connections,
                counts.idle,
                counts.upgraded,
                counts.total_connections,
                counts.total_requests,
                counts.total_upgraded,
                counts.total_errors,
            )

        first, second, third = (ScriptedPeer(then="silence") for _ in range(3))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_stream, counting, first)
            first.feed(get("/bug"))
            await trio.testing.wait_all_tasks_blocked()
            assert now() == (1, 1, 0, 1, 1, 0, 1)
            for peer in (second, third):
                nursery.start_soon(
                    partial(serve_stream, counting, peer, server=servers[0])
                )
            await trio.testing.wait_all_tasks_blocked()
            assert now() == (3, 3, 0, 3, 1, 0, 1)
            second.feed(get("/sleep"))
            third.feed(UP)
            first.feed(b"GET /")
            await trio.testing.wait_all_tasks_blocked()
            assert now() == (3, 0, 1, 3, 3, 1, 1)
            third.finish()
            await trio.testing.wait_all_tasks_blocked()
            assert now() == (2, 0, 0, 3, 3, 1, 1)
            nursery.cancel_scope.cancel()

        assert now() == (0, 0, 0, 3, 3, 1, 1)

    async def test_refusal_is_no_switch(self) -> None:
        """A switch that failed while the 101 was sent does not count."""
        counts = []

        async def switching(request: Request) -> None:
            try:
                await request.accept_upgrade("echo")
            except trio.BrokenResourceError:
                counts.append(request.server.statistics().total_upgraded)

        recorder = Recorder()
        await serve_stream(switching, ScriptedPeer(UP, then="reset"), observer=recorder)

        assert counts == [0]
        assert not recorder.switches
