"""The requests of one connection, and the reason of its end."""

from __future__ import annotations

import gc
from functools import partial
from types import FunctionType

import pytest
import trio
import trio.testing

from trio_upgrade import (
    BodyTooLarge,
    EndReason,
    Limits,
    Request,
    Response,
    Tunnel,
    Upgrade,
    UpgradedStream,
    UsageError,
    serve_stream,
)
from trio_upgrade._http.message_codec import MessageCodec
from trio_upgrade._http.server_codec import ServerCodec
from trio_upgrade._http_stream import HTTPStream
from trio_upgrade.testing import ScriptedPeer

from ..apps import echo
from ..recording import Recorder
from ..wire import BUG, SWITCHED, UP, get, okay


async def serve(app, peer: ScriptedPeer, **bounds) -> Recorder:
    """Serve a scripted connection to its end; return the observer with its records."""
    recorder = Recorder()
    await serve_stream(app, peer, limits=Limits(**bounds), observer=recorder)

    assert peer.closed
    return recorder


async def answer(request: Request) -> Response:
    return Response(200, b"okay")


class TestReason:
    """The reason in the record of the end, and how many requests it counts."""

    async def test_peer(self) -> None:
        """The client made its requests, and ended its side."""
        peer = ScriptedPeer(get("/") * 3)
        (end,) = (await serve(answer, peer)).ends

        assert (end.reason, end.requests) == (EndReason.PEER, 3)
        assert peer.sent == okay() * 3

    async def test_last(self) -> None:
        """The last response said ``close``; a request after it is not served."""
        peer = ScriptedPeer(get("/") * 3)
        (end,) = (await serve(answer, peer, requests_per_connection=2)).ends

        assert (end.reason, end.requests) == (EndReason.ANSWERED, 2)
        assert peer.sent == okay() + okay(b"okay", "Connection: close").replace(
            b"Connection: close\r\nContent-Length: 4\r\n",
            b"Content-Length: 4\r\nConnection: close\r\n",
        )

    async def test_drained(self, make_scene) -> None:
        """A connection that joins a server after its drain began has one request."""
        scene = await make_scene().open(answer)
        scene.server.start_drain(10)
        peer = await scene.join(get("/"))

        assert peer.closed
        assert b"Connection: close\r\n" in peer.sent
        (end,) = scene.recorder.ends
        assert (end.reason, end.requests) == (EndReason.ANSWERED, 1)

    async def test_malformed(self) -> None:
        """A message that is not HTTP is refused, and never reaches the app."""
        peer = ScriptedPeer(b"GET / HTTP/1.1\r\n\r\n")
        (end,) = (await serve(answer, peer)).ends

        assert (end.reason, end.requests) == (EndReason.MALFORMED, 0)
        assert peer.sent.startswith(b"HTTP/1.1 400 ")

    async def test_lost(self) -> None:
        """The connection broke between two requests."""
        peer = ScriptedPeer(get("/"), then="reset")

        assert (await serve(answer, peer)).reasons == [EndReason.LOST]

    async def test_cancelled_in_an_answer_after_an_error(self) -> None:
        """If all is cancelled while a 500 is sent, the reason is still ERROR."""

        class Stuck(trio.abc.Stream):
            """A peer that does not read."""

            def __init__(self, *packets: bytes) -> None:
                self.script = ScriptedPeer(*packets, then="silence")
                self.sending = trio.Event()

            async def receive_some(self, max_bytes: int | None = None) -> bytes:
                return await self.script.receive_some(max_bytes)

            async def send_all(self, data: bytes | bytearray | memoryview) -> None:
                self.sending.set()
                await trio.sleep_forever()

            async def wait_send_all_might_not_block(self) -> None:
                await trio.sleep_forever()

            async def aclose(self) -> None:
                await self.script.aclose()

        async def app(request: Request) -> Response:
            raise KeyError

        stream, recorder = Stuck(get("/")), Recorder()
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def serve() -> None:
                await serve_stream(app, stream, observer=recorder)

            await stream.sending.wait()
            nursery.cancel_scope.cancel()

        assert recorder.reasons == [EndReason.ERROR]


async def test_each_request_has_its_answer() -> None:
    """A bug after an answer is answered, too: no state of the last exchange is left."""

    async def app(request: Request) -> Response:
        if request.path == "/bug":
            raise KeyError
        return await answer(request)

    peer = ScriptedPeer(get("/"), get("/bug"), get("/"))
    recorder = await serve(app, peer)

    assert [type(record.error) for record in recorder.errors] == [KeyError]
    assert recorder.reasons == [EndReason.PEER]
    assert peer.sent == okay() + BUG + okay()


class TestSwitch:
    """A switch ends the requests of its connection."""

    async def test_returned(self) -> None:
        """The handler gets the request, the stream, and the early bytes."""
        got = []

        async def handler(
            request: Request, stream: UpgradedStream, head: bytes
        ) -> None:
            got.append((request.path, await stream.receive_some(), head))

        async def app(request: Request) -> Upgrade:
            return Upgrade("echo", handler)

        peer = ScriptedPeer(UP + b"early")
        (end,) = (await serve(app, peer)).ends

        assert got == [("/u", b"early", b"early")]
        assert (end.reason, end.protocol) == (EndReason.RETURNED, "echo")
        assert peer.sent == SWITCHED

    @pytest.mark.parametrize("answered", ["nothing", "again", "a bug"])
    async def test_inside(self, answered: str) -> None:
        """The app has switched itself: no handler runs, and no answer is possible."""

        async def never(*_: object) -> None:
            raise AssertionError("called")

        async def app(request: Request) -> Upgrade | None:
            await request.accept_upgrade("echo")
            if answered == "a bug":
                raise KeyError
            return None if answered == "nothing" else Upgrade("echo", never)

        peer = ScriptedPeer(UP)
        recorder = await serve(app, peer)
        (end,) = recorder.ends

        assert peer.sent == SWITCHED
        assert end.protocol == "echo"
        errors = {"nothing": [], "again": ["UsageError"], "a bug": ["KeyError"]}
        names = [type(record.error).__name__ for record in recorder.errors]
        assert names == errors[answered]
        reason = EndReason.ERROR if names else EndReason.RETURNED
        assert end.reason is reason

    @pytest.mark.parametrize("wrong", [Tunnel(echo), None, 5])
    async def test_wrong_answer(self, wrong: object) -> None:
        """A wrong answer to an offer is reported, and the client gets a 500."""

        async def app(_request: Request) -> object:
            return wrong

        peer = ScriptedPeer(UP)
        recorder = await serve(app, peer)

        assert [type(record.error).__name__ for record in recorder.errors] == [
            "UsageError"
        ]
        assert recorder.ends[0].protocol is None
        assert peer.sent.startswith(b"HTTP/1.1 500 ")


class TestDeadlines:
    """The response when a deadline has passed."""

    @pytest.mark.parametrize(
        ("packets", "reason", "said"),
        [
            ((get("/slow"),), EndReason.SLOW_RESPONSE, b"HTTP/1.1 503 "),
            ((get("/"), b"GET"), EndReason.SLOW_HEADER, okay() + b"HTTP/1.1 408 "),
            # No header section began, so there is no request that was late.
            ((get("/"),), EndReason.IDLE, okay()),
            ((), EndReason.SLOW_HEADER, b""),
        ],
    )
    async def test_late(
        self,
        packets: tuple[bytes, ...],
        reason: EndReason,
        said: bytes,
        autojump_clock,
    ) -> None:
        """The status says what was late, if a part of a request was received."""

        async def app(request: Request) -> Response:
            if request.path == "/slow":
                await trio.sleep_forever()
            return await answer(request)

        peer = ScriptedPeer(*packets, then="silence")
        recorder = await serve(app, peer, response_timeout=5, linger=0)

        assert recorder.reasons == [reason]
        assert peer.sent.startswith(said)
        assert bool(said) or not peer.sent

    @pytest.mark.parametrize(
        ("ends", "reason"),
        [("drain", EndReason.ERROR), ("deadline", EndReason.SLOW_RESPONSE)],
    )
    async def test_error_of_an_app_that_is_ended(
        self, ends: str, reason: EndReason, nursery, autojump_clock
    ) -> None:
        """An error of a cancelled app is the reason in a drain, not after a deadline."""

        async def app(request: Request) -> Response:
            if ends == "drain":
                request.server.start_drain(1)
            async with trio.open_nursery() as inner:
                inner.start_soon(trio.sleep_forever)
                try:
                    await trio.sleep_forever()
                finally:
                    raise KeyError

        peer = ScriptedPeer(get("/"), then="silence")
        recorder = await serve(app, peer, response_timeout=5, linger=0)

        assert recorder.reasons == [reason]
        assert [type(record.error) for record in recorder.errors] == [ExceptionGroup]

    async def test_switch_that_failed(self, autojump_clock) -> None:
        """A switch that failed before its 101 gives the app no new time."""
        failed = []

        async def app(request: Request) -> Response:
            await trio.sleep(3)
            try:
                await request.accept_upgrade("echo")
            except BodyTooLarge as exc:
                failed.append(exc)
            await trio.sleep(3)
            return Response(200)

        offer = UP.replace(b"\r\n\r\n", b"\r\nContent-Length: 9\r\n\r\n")
        peer = ScriptedPeer(offer, then="silence")
        recorder = await serve(app, peer, response_timeout=5, drain_body=1, linger=0)

        assert failed
        assert recorder.reasons == [EndReason.SLOW_RESPONSE]
        assert peer.sent.startswith(b"HTTP/1.1 503 ")

    async def test_switch_that_an_answer_has_overtaken(self, autojump_clock) -> None:
        """A switch that fails because of the answer starts no time for another one."""

        async def app(request: Request) -> Response:
            async def switch() -> None:
                with pytest.raises(UsageError):
                    await request.accept_upgrade("echo")

            nursery.start_soon(switch)
            await trio.sleep(1)
            return Response(200, b"okay")

        # The switch waits for the rest of the body, the answer drops it.
        offer = UP.replace(b"\r\n\r\n", b"\r\nContent-Length: 9\r\n\r\n")
        client, transport = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            limits = Limits(response_timeout=5, keep_alive_timeout=60)
            nursery.start_soon(partial(serve_stream, app, transport, limits=limits))
            await client.send_all(offer + b"12345")
            await trio.sleep(2)
            await client.send_all(b"6789")
            await trio.sleep(20)
            received = await client.receive_some()
            await client.aclose()

        assert received.count(b"HTTP/1.1 ") == 1
        assert received.endswith(b"okay")


class TestClosingOfABody:
    """Closing an iterable body belongs to its answer."""

    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    async def test_error(self, method: str) -> None:
        """An error in it comes after the answer: no second answer is sent."""

        class Body:
            def __aiter__(self) -> Body:
                return self

            async def __anext__(self) -> bytes:
                raise StopAsyncIteration

            async def aclose(self) -> None:
                raise RuntimeError

        async def app(request: Request) -> Response:
            return Response(200, Body())

        peer = ScriptedPeer(get("/").replace(b"GET", method.encode()) * 2)
        recorder = await serve(app, peer)

        assert peer.sent.count(b"HTTP/1.1 ") == 1
        assert recorder.reasons == [EndReason.ERROR]

    async def test_switch(self) -> None:
        """Nor can the connection be switched any more."""
        caught = []

        async def app(request: Request) -> Response:
            class Body:
                def __aiter__(self) -> Body:
                    return self

                async def __anext__(self) -> bytes:
                    raise StopAsyncIteration

                async def aclose(self) -> None:
                    with pytest.raises(UsageError) as info:
                        await request.accept_upgrade("echo")
                    caught.append(info)

            return Response(200, Body())

        peer = ScriptedPeer(UP)
        await serve(app, peer)

        assert len(caught) == 1
        assert b"101" not in peer.sent


async def test_reason_is_fixed_before_the_close(make_scene) -> None:
    """What happens while the connection is closed forcefully is no reason for its end."""

    class SlowToClose(trio.abc.Stream):
        def __init__(self) -> None:
            self.script = ScriptedPeer(UP, then="silence")

        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            return await self.script.receive_some(max_bytes)

        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            await self.script.send_all(data)
            scope.cancel()

        async def wait_send_all_might_not_block(self) -> None:
            await self.script.wait_send_all_might_not_block()

        async def aclose(self) -> None:
            scene.server.start_drain(0)
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()
            await self.script.aclose()

    async def app(request: Request) -> Upgrade:
        return Upgrade("echo", echo)

    scene = await make_scene().open(app)
    with trio.CancelScope() as scope:
        await serve_stream(app, SlowToClose(), server=scene.server)

    assert scene.recorder.reasons == [EndReason.CANCELLED]


async def test_kept_request_keeps_no_http() -> None:
    """A request that outlives its connection keeps nothing that HTTP was spoken with."""
    kept = []

    async def app(request: Request) -> Response:
        kept.append(request)
        return Response(200, headers={"Connection": "close"})

    await serve(app, ScriptedPeer(get("/") + b"x" * 60_000))
    found, left = {id(kept)}, [kept]
    while left:
        for thing in gc.get_referents(left.pop()):
            if id(thing) not in found and not isinstance(thing, type | FunctionType):
                found.add(id(thing))
                left.append(thing)
                assert not isinstance(thing, HTTPStream | MessageCodec)


@pytest.mark.parametrize(
    "wire",
    [
        get("/").replace(b"/", b"bad target", 1),
        get("/", "Bad Name: x"),
        get("/").replace(b"GET", b"G(T"),
        get("/", "Content-Length: x"),
    ],
)
async def test_refused_request_leaves_no_cycle(wire: bytes) -> None:
    """All objects of a refused connection are freed without the collector."""
    gc.collect()
    gc.disable()
    try:
        before = count_codecs()
        await serve_stream(answer, ScriptedPeer(wire))

        assert count_codecs() == before
    finally:
        gc.enable()


def count_codecs() -> int:
    return sum(type(thing) is ServerCodec for thing in gc.get_objects())


async def test_body_read_while_another_task_switches(nursery) -> None:
    """The last piece of a body reaches its reader, though the connection has switched."""
    got: list[object] = []

    async def read(request: Request) -> None:
        try:
            got.append(await request.read())
        except UsageError as exc:
            got.append(exc)

    async def app(request: Request, steps: int) -> None:
        async with trio.open_nursery() as inner:
            inner.start_soon(read, request)
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            await request.accept_upgrade("echo")

    offer = UP.replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n") + b"hello"
    for steps in range(6):
        for _ in range(10):
            recorder = await serve(partial(app, steps=steps), ScriptedPeer(offer))

            assert not recorder.errors
            # Nothing else: it read all of the body, or came too late.
            assert got[-1] == b"hello" or isinstance(got[-1], UsageError)
    assert b"hello" in got


async def test_switch_that_was_cancelled_has_a_deadline_again(autojump_clock) -> None:
    """Stopped for the 101 that was not sent, the time for an answer runs again."""

    async def app(request: Request) -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            await request.accept_upgrade("echo")
        await trio.sleep_forever()

    peer = ScriptedPeer(UP, then="silence")
    recorder = await serve(app, peer, response_timeout=5, linger=0)

    assert recorder.reasons == [EndReason.SLOW_RESPONSE]
    assert peer.sent.startswith(b"HTTP/1.1 503 ")


async def test_strict_server_logs_no_error(caplog) -> None:
    """It raises the error, so that a test sees it once."""

    async def app(request: Request) -> Response:
        raise KeyError

    with pytest.raises(KeyError):
        await serve_stream(app, ScriptedPeer(get("/")), strict=True)

    assert not caplog.records
