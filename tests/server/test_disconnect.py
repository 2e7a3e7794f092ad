"""request.wait_disconnect(): True at the client's end, and it loses no byte."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

import pytest
import trio
import trio.testing

from trio_upgrade import (
    BadBody,
    BodyTimeout,
    EndReason,
    Limits,
    Request,
    Response,
    Unavailable,
    UsageError,
    serve_stream,
)
from trio_upgrade._streams.resetting import reset_on_close
from trio_upgrade.testing import ScriptedPeer, split_points

from ..apps import echo, echo_app
from ..recording import Recorder
from ..sockets import direct, tcp_pair
from ..stream_pairs import MAKERS
from ..tls import make_tls_contexts, wrap_tls
from ..wire import SWITCHED, UP, get, okay

CONNECT = b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"
LIMITS = Limits(linger=0)


async def watch(request: Request, seconds: float = 1) -> bool:
    """Tell whether the client leaves within so many seconds."""
    with trio.move_on_after(seconds):
        return await request.wait_disconnect()
    return False


async def serve(app, *script: bytes, then="end", limits=LIMITS) -> ScriptedPeer:
    peer = ScriptedPeer(*script, then=then)
    await serve_stream(app, peer, limits=limits, strict=True)
    assert peer.closed
    return peer


async def receive(stream: trio.abc.Stream, size: int) -> bytes:
    """Receive so many bytes, or all before the end."""
    received = b""
    while len(received) < size and (chunk := await stream.receive_some(size)):
        received += chunk
    return received


@pytest.mark.ids("M16")
@pytest.mark.parametrize("then", ["end", "reset"])
async def test_client_leaves(then) -> None:
    """It is True when the client ends its side, and when it resets."""
    recorder = Recorder()
    gone = []

    async def app(request: Request) -> Response:
        gone.append(await request.wait_disconnect())
        assert await request.wait_disconnect()  # The end is known already.
        return Response(200, b"for a client that only ended its side")

    peer = ScriptedPeer(get("/"), then="silence")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            partial(
                serve_stream, app, peer, limits=LIMITS, observer=recorder, strict=True
            )
        )
        await trio.testing.wait_all_tasks_blocked()
        assert not gone
        peer.finish(then)

    assert gone == [True]
    assert (b"for a client" in peer.sent) == (then == "end")
    assert recorder.reasons == [
        EndReason.PEER if then == "end" else EndReason.LOST,
    ]


async def test_client_stays(autojump_clock) -> None:
    """It does not return as long as the client is there."""

    async def app(request: Request) -> Response:
        return Response(200, b"%r" % await watch(request, 1000))

    peer = ScriptedPeer(get("/", "Connection: close"), then="silence")
    await serve_stream(app, peer, limits=LIMITS, strict=True)

    assert peer.sent.endswith(b"False")


@pytest.mark.ids("F31", "F32")
@pytest.mark.parametrize("body", [b"", b"ab", b"abc"])
async def test_end_in_the_body_of_an_offer(body: bytes, autojump_clock, caplog) -> None:
    """An end before that of the body is no half-close: no switch can follow."""
    gone = []

    async def app(request: Request) -> Response | None:
        gone.append(await watch(request))
        return None if gone[0] else Response(200)

    offer = UP.replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\n")
    peer = await serve(app, offer, body)

    assert gone == [len(body) < 3]
    assert bool(peer.sent) == (len(body) == 3)
    assert not caplog.records


@pytest.mark.ids("S33")
@pytest.mark.parametrize("wire", [UP, CONNECT])
async def test_end_may_be_a_half_close(wire: bytes, autojump_clock) -> None:
    """An end after an offer may be a half-close: the stream gets it, after the head."""
    got: list[object] = []

    async def app(request: Request) -> None:
        assert not await watch(request)
        if request.method == "CONNECT":
            stream, head = await request.accept_connect()
        else:
            stream, head = await request.accept_upgrade("echo")
        got.append(head)
        got.append(await stream.receive_some())
        got.append(await stream.receive_some())
        await stream.send_all(b"bye")

    peer = await serve(app, wire + b"HE", b"AD")

    assert got == [b"HEAD", b"HEAD", b""]
    assert peer.sent.endswith(b"bye")


@pytest.mark.parametrize("wire", [UP, CONNECT])
async def test_reset_after_an_offer(wire: bytes, autojump_clock) -> None:
    """A reset is no half-close: it returns, and no switch can be accepted."""

    async def app(request: Request) -> None:
        assert await watch(request)
        with pytest.raises(UsageError, match="answered already"):
            if request.method == "CONNECT":
                await request.accept_connect()
            else:
                await request.accept_upgrade("echo")
        raise trio.BrokenResourceError

    await serve(app, wire, b"more", then="reset")


async def test_pipelined_requests_are_kept(autojump_clock) -> None:
    """Requests received meanwhile are served afterwards, however they are cut."""

    async def app(request: Request):
        if request.path == "/1":
            # The client ends while the app waits, so all its bytes have been read.
            await request.wait_disconnect()
        return await echo_app(request)

    expected = okay(b"/1") + okay(b"/2") + SWITCHED + b"HEAD"
    for packets in split_points(get("/2") + UP + b"HEAD"):
        peer = await serve(app, get("/1"), *packets)

        assert peer.sent == expected


async def test_body_is_kept(autojump_clock) -> None:
    """A body received meanwhile can be read afterwards, however it is cut."""

    async def app(request: Request) -> Response:
        assert not await watch(request)
        body = await request.read()
        assert not await watch(request)
        return Response(200, body)

    head = get("/", "Content-Length: 5").replace(b"GET", b"POST")
    chunked = get("/", "Transfer-Encoding: chunked").replace(b"GET", b"POST")
    for wire in (head + b"hello", chunked + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"):
        for packets in split_points(wire + get("/2", "Connection: close")[:20]):
            peer = ScriptedPeer(*packets, then="silence")
            with trio.move_on_after(10):
                await serve_stream(app, peer, limits=LIMITS, strict=True)

            assert peer.sent == okay(b"hello")


async def test_read_ahead_is_bounded(autojump_clock) -> None:
    """After read_ahead bytes no more are read, and the client is no longer watched."""
    packet = b"x" * 1000

    async def app(request: Request) -> Response:
        left.append(await watch(request))
        left.append(peer.packets_left)
        return Response(200, b"", {"Connection": "close"})

    left: list[object] = []
    for limit, packets_left in ((4000, 16), (0, 20), (100_000, 0)):
        peer = ScriptedPeer(get("/"), *[packet] * 20)
        limits = Limits(read_ahead=limit, linger=0)
        await serve_stream(app, peer, limits=limits, strict=True)

        assert left == [packets_left == 0, packets_left]
        left.clear()


async def test_beside_the_work(autojump_clock) -> None:
    """As it is usually used: the work or the disconnect cancels the other."""
    results = []

    async def app(request: Request) -> Response | None:
        async def work() -> None:
            await trio.sleep(3)
            results.append("done")
            nursery.cancel_scope.cancel()

        async def leave() -> None:
            await request.wait_disconnect()
            results.append("left")
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            nursery.start_soon(leave)
        return Response(200)

    peer = ScriptedPeer(get("/1") + get("/2"), then="silence")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(serve_stream, app, peer, limits=LIMITS, strict=True))
        await trio.sleep(4)
        peer.finish("reset")

    assert results == ["done", "left"]
    assert peer.sent == okay(b"")


@pytest.mark.parametrize("ending", ["close_notify", "cut", "reset"])
async def test_over_tls(ending: str) -> None:
    """Over TLS the end is a close_notify; a cut and a reset are ends as well."""
    bottom, far = await tcp_pair()
    near, tls = wrap_tls(
        (bottom, far), make_tls_contexts(), https_compatible=ending == "cut"
    )
    gone = trio.Event()

    async def app(request: Request) -> Response:
        watching.set()
        await request.wait_disconnect()
        gone.set()
        return Response(200)

    watching = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(serve_stream, app, tls, limits=LIMITS, strict=True))
        await near.send_all(get("/"))
        await watching.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert not gone.is_set()
        if ending == "close_notify":
            # Our answer comes after it, which does not matter here.
            with suppress(trio.BrokenResourceError):
                await near.unwrap()
        elif ending == "cut":
            await bottom.send_eof()
        else:
            await bottom.aclose()
        await gone.wait()
    await bottom.aclose()


class SlowToLeave(trio.abc.HalfCloseableStream):
    """A script whose cancelled receive takes some steps to end, as a wrapper's may."""

    def __init__(self, peer: ScriptedPeer) -> None:
        self.peer = peer
        self.receiving = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self.receiving:
            raise trio.BusyResourceError
        self.receiving = True
        try:
            return await self.peer.receive_some(max_bytes)
        finally:
            for _ in range(5):
                await trio.lowlevel.cancel_shielded_checkpoint()
            self.receiving = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.peer.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.peer.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self.peer.send_eof()

    async def aclose(self) -> None:
        await self.peer.aclose()


class Background:
    """An app whose first request starts tasks that outlive it."""

    def __init__(self, nursery: trio.Nursery, *waits: str) -> None:
        self.nursery = nursery
        self.waits = waits
        self.results: list[object] = []

    async def app(self, request: Request):
        if request.path in self.waits:
            self.nursery.start_soon(self.wait, request)
        return await echo_app(request)

    async def wait(self, request: Request) -> None:
        self.results.append((request.path, await request.wait_disconnect()))


class TestOutliving:
    """A wait that outlives its request is False, and receives no more."""

    @pytest.mark.ids("F31")
    @pytest.mark.parametrize("kind", MAKERS)
    async def test_answer(self, kind: str) -> None:
        """It ends with the answer; the next request is served, on each kind of stream."""
        ours, peer = await MAKERS[kind]()
        async with trio.open_nursery() as nursery:
            background = Background(nursery, "/1", "/2")
            recorder = Recorder()
            serve = partial(
                serve_stream, background.app, ours, strict=True, observer=recorder
            )
            nursery.start_soon(serve)
            for number in (b"/1", b"/2", b"/3"):
                await peer.send_all(get(number.decode()))
                assert await receive(peer, len(okay(number))) == okay(number)
            await trio.testing.wait_all_tasks_blocked()
            await trio.aclose_forcefully(peer)

        assert background.results == [("/1", False), ("/2", False)]
        assert recorder.errors == []

    @pytest.mark.ids("F31")
    async def test_pipelined(self) -> None:
        """A request that was received with the first is served, however it is cut."""
        for packets in split_points(get("/1") + get("/2")):
            peer = ScriptedPeer(*packets)
            async with trio.open_nursery() as nursery:
                background = Background(nursery, "/1")
                await serve_stream(background.app, peer, limits=LIMITS, strict=True)

            assert peer.sent == okay(b"/1") + okay(b"/2")
            assert background.results == [("/1", False)]

    @pytest.mark.ids("F31")
    @pytest.mark.parametrize("kind", MAKERS)
    async def test_switch(self, kind: str) -> None:
        """It ends with the switch, after which the stream receives every byte."""
        ours, peer = await MAKERS[kind]()
        async with trio.open_nursery() as nursery:
            results: list[bool] = []

            async def wait(request: Request) -> None:
                results.append(await request.wait_disconnect())

            async def app(request: Request) -> None:
                nursery.start_soon(wait, request)
                nursery.start_soon(wait, request)
                await trio.testing.wait_all_tasks_blocked()
                await echo(request, *await request.accept_upgrade("echo"))

            nursery.start_soon(partial(serve_stream, app, ours, strict=True))
            await peer.send_all(UP)
            assert await receive(peer, len(SWITCHED)) == SWITCHED
            for data in (b"one", b"two"):
                await peer.send_all(data)
                assert await receive(peer, 3) == data
            await trio.aclose_forcefully(peer)

        assert results == [False, False]

    @pytest.mark.ids("F31")
    async def test_connect(self) -> None:
        """It ends when a tunnel is opened, and the tunnel gets every byte."""
        for packets in split_points(b"bytes"):
            await self.check_connect(*packets)

    async def check_connect(self, *packets: bytes) -> None:
        peer = ScriptedPeer(CONNECT, *packets)
        async with trio.open_nursery() as nursery:
            background = Background(nursery)

            async def app(request: Request) -> None:
                nursery.start_soon(background.wait, request)
                # Some of the packets are received by the wait, the others later.
                for _ in range(len(packets)):
                    await trio.lowlevel.checkpoint()
                await echo(request, *await request.accept_connect())

            await serve_stream(app, peer, limits=LIMITS, strict=True)

        assert peer.sent.endswith(b"\r\n\r\nbytes")
        assert background.results == [("", False)]

    @pytest.mark.ids("F31")
    async def test_answered_before(self) -> None:
        """A call after the answer is False, and a checkpoint."""
        kept: list[Request] = []

        async def app(request: Request) -> Response:
            kept.append(request)
            return Response(200)

        await serve(app, get("/"))

        with trio.testing.assert_checkpoints():
            assert not await kept[0].wait_disconnect()

    @pytest.mark.ids("F31")
    @pytest.mark.parametrize("then", ["end", "reset"])
    async def test_lost_before(self, then) -> None:
        """A call after a request whose client left without an answer is True."""
        kept: list[Request] = []

        async def app(request: Request) -> None:
            kept.append(request)
            assert await request.wait_disconnect()

        await serve(app, get("/"), then=then)

        assert await kept[0].wait_disconnect()

    @pytest.mark.ids("F31")
    async def test_lost_in_the_answer(self) -> None:
        """It is True if the answer could not be sent to its end."""
        near, far = direct(await tcp_pair())
        async with trio.open_nursery() as nursery:
            background = Background(nursery)

            async def body():
                # More than the kernel takes.
                nursery.start_soon(background.wait, kept[0])
                for _ in range(1000):
                    yield b"x" * 65536

            async def app(request: Request) -> Response:
                kept.append(request)
                return Response(200, body())

            kept: list[Request] = []
            recorder = Recorder()
            nursery.start_soon(
                partial(serve_stream, app, far, strict=True, observer=recorder)
            )
            await near.send_all(get("/"))
            await near.receive_some(10)
            await trio.testing.wait_all_tasks_blocked()
            assert background.results == []
            reset_on_close(near)
            await near.aclose()

        assert background.results == [("/", True)]
        assert recorder.reasons == [EndReason.LOST]

    @pytest.mark.ids("F31")
    async def test_answered_before_the_client_leaves(self) -> None:
        """It is False if the client leaves after the answer, with its body unread."""
        head = get("/1", "Content-Length: 5").replace(b"GET", b"POST")
        peer = ScriptedPeer(head, then="silence")
        async with trio.open_nursery() as nursery:
            background = Background(nursery, "/1")
            nursery.start_soon(
                partial(serve_stream, background.app, peer, limits=LIMITS)
            )
            await peer.wait_sent(okay(b"/1"))
            await trio.testing.wait_all_tasks_blocked()
            assert background.results == [("/1", False)]
            peer.finish("reset")

    @pytest.mark.ids("F31")
    async def test_late_answer(self, autojump_clock) -> None:
        """The 503 of response_timeout is followed by the linger; the wait is False."""
        near, far = direct(await tcp_pair())
        async with trio.open_nursery() as nursery:
            background = Background(nursery)

            async def app(request: Request) -> None:
                nursery.start_soon(background.wait, request)
                await trio.sleep_forever()

            limits = Limits(response_timeout=1)
            nursery.start_soon(partial(serve_stream, app, far, limits=limits))
            await near.send_all(get("/"))
            # The answer, then the end of the server's direction; ours still works.
            received = await receive(near, 10_000)
            assert received.startswith(b"HTTP/1.1 503 ")
            await near.send_all(b"late")
            await near.aclose()

        assert background.results == [("/", False)]

    @pytest.mark.ids("F31")
    async def test_late_answer_of_a_wrapper(self, autojump_clock) -> None:
        """The linger waits for a wait whose cancelled receive ends only later."""
        peer = ScriptedPeer(get("/"), then="silence")
        async with trio.open_nursery() as nursery:
            background = Background(nursery)

            async def app(request: Request) -> None:
                nursery.start_soon(background.wait, request)
                await trio.sleep_forever()

            limits = Limits(response_timeout=1)
            nursery.start_soon(
                partial(serve_stream, app, SlowToLeave(peer), limits=limits)
            )
            await peer.wait_sent(b"HTTP/1.1 503 ")
            await trio.testing.wait_all_tasks_blocked()
            assert peer.got_eof
            assert not peer.closed
            peer.finish()

        assert background.results == [("/", False)]

    @pytest.mark.ids("F31")
    @pytest.mark.parametrize("closes", [False, True])
    async def test_not_watched(self, closes: bool) -> None:
        """It ends with the answer also if the client is no longer watched."""
        wire = get("/1", "Connection: close" if closes else "X: y")
        peer = ScriptedPeer(wire, then="silence")
        async with trio.open_nursery() as nursery:
            background = Background(nursery)

            async def app(request: Request) -> Response:
                nursery.start_soon(background.wait, request)
                await trio.testing.wait_all_tasks_blocked()
                return Response(200)

            limits = Limits(read_ahead=0, linger=0)
            nursery.start_soon(partial(serve_stream, app, peer, limits=limits))
            await peer.wait_sent(b"\r\n\r\n")
            await trio.testing.wait_all_tasks_blocked()
            assert background.results == [("/1", False)]
            peer.finish()

    @pytest.mark.ids("F31")
    @pytest.mark.parametrize("kind", MAKERS)
    async def test_bug(self, kind: str) -> None:
        """An app that fails is reset in a strict server, also while a task waits."""
        ours, peer = await MAKERS[kind]()
        async with trio.open_nursery() as nursery:
            background = Background(nursery)

            async def app(request: Request) -> None:
                nursery.start_soon(background.wait, request)
                await trio.testing.wait_all_tasks_blocked()
                # The wait is woken by data, and finds its stream closed.
                await peer.send_all(b"more")
                raise LookupError

            await peer.send_all(get("/"))
            with pytest.raises(LookupError):
                await serve_stream(app, ours, strict=True)

        assert background.results == [("/", False)]
        await trio.aclose_forcefully(peer)

    @pytest.mark.ids("F31")
    @pytest.mark.parametrize("kind", MAKERS)
    async def test_cancelled_server(self, kind: str) -> None:
        """The end of the server ends the wait."""
        ours, peer = await MAKERS[kind]()
        async with trio.open_nursery() as nursery:
            background = Background(nursery)

            async def app(request: Request) -> None:
                nursery.start_soon(background.wait, request)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
                await trio.sleep_forever()

            await peer.send_all(get("/"))
            with trio.CancelScope() as scope:
                await serve_stream(app, ours, strict=True)

        assert scope.cancelled_caught
        assert background.results == [("/", False)]
        await trio.aclose_forcefully(peer)

    @pytest.mark.ids("F31")
    async def test_reading(self) -> None:
        """A task that still reads the body after the answer gets UsageError."""
        head = get("/1", "Content-Length: 5").replace(b"GET", b"POST")
        async with trio.open_nursery() as nursery:
            outcomes: list[str] = []

            async def read(request: Request) -> None:
                with pytest.raises(UsageError, match="answered already"):
                    await request.read()
                outcomes.append("refused")

            async def app(request: Request) -> Response:
                if request.path == "/1":
                    nursery.start_soon(read, request)
                    await trio.testing.wait_all_tasks_blocked()
                return Response(200, request.path.encode())

            peer = ScriptedPeer(head + b"he", then="silence")
            nursery.start_soon(
                partial(serve_stream, app, peer, limits=LIMITS, strict=True)
            )
            await peer.wait_sent(okay(b"/1"))
            await trio.testing.wait_all_tasks_blocked()
            assert outcomes == ["refused"]
            peer.feed(b"llo" + get("/2"))
            peer.finish()

        assert peer.sent == okay(b"/1") + okay(b"/2")

    @pytest.mark.ids("F31")
    @pytest.mark.parametrize("waits", [False, True])
    async def test_accepting(self, waits: bool) -> None:
        """A task that still switches after the answer gets UsageError; no 101 is sent."""
        offer = UP[:-2] + b"Content-Length: 5\r\n\r\n"
        async with trio.open_nursery() as nursery:
            outcomes: list[str] = []

            async def accept(request: Request) -> None:
                with pytest.raises(UsageError, match="answered already"):
                    await request.accept_upgrade("echo")
                outcomes.append("refused")

            async def app(request: Request) -> Response:
                if request.upgrades:
                    if waits:
                        nursery.start_soon(request.wait_disconnect)
                    nursery.start_soon(accept, request)
                    await trio.testing.wait_all_tasks_blocked()
                return Response(200, request.path.encode())

            peer = ScriptedPeer(offer + b"he", then="silence")
            nursery.start_soon(
                partial(serve_stream, app, peer, limits=LIMITS, strict=True)
            )
            await peer.wait_sent(okay(b"/u"))
            await trio.testing.wait_all_tasks_blocked()
            assert outcomes == ["refused"]
            peer.feed(b"llo" + get("/2"))
            peer.finish()

        assert peer.sent == okay(b"/u") + okay(b"/2")

    @pytest.mark.ids("F31")
    async def test_accepting_beside_an_answer(self) -> None:
        """A task that switches while the answer is being sent gets UsageError."""
        async with trio.open_nursery() as nursery:

            async def accept(request: Request) -> None:
                with pytest.raises(UsageError, match="answered already"):
                    await request.accept_upgrade("echo")

            async def body():
                yield b"one"
                peer.feed(b"llo")
                await trio.testing.wait_all_tasks_blocked()
                yield b"two"

            async def app(request: Request) -> Response:
                nursery.start_soon(accept, request)
                await trio.testing.wait_all_tasks_blocked()
                return Response(200, body(), {"Content-Length": "6"})

            offer = UP[:-2] + b"Content-Length: 5\r\n\r\nhe"
            peer = ScriptedPeer(offer, then="silence")
            nursery.start_soon(
                partial(serve_stream, app, peer, limits=LIMITS, strict=True)
            )
            await peer.wait_sent(b"two")
            peer.finish()

        assert peer.sent.startswith(b"HTTP/1.1 200 ")
        assert peer.sent.endswith(b"\r\n\r\nonetwo")


class TestTogether:
    """Any number of tasks wait, while another one reads or switches."""

    @pytest.mark.ids("F31")
    async def test_receiver_cancelled(self) -> None:
        """If the task that receives is cancelled, another one takes over."""
        peer = ScriptedPeer(get("/"), then="silence")
        scopes = [trio.CancelScope() for _ in range(3)]
        results: list[bool | None] = [None] * 3

        async def app(request: Request) -> None:
            async def wait(number: int) -> None:
                with scopes[number]:
                    results[number] = await request.wait_disconnect()

            async with trio.open_nursery() as nursery:
                for number in range(3):
                    nursery.start_soon(wait, number)
                for scope in scopes[:2]:
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
                await trio.testing.wait_all_tasks_blocked()
                assert results == [None] * 3
                peer.finish("reset")

        await serve_stream(app, peer, limits=LIMITS, strict=True)

        assert results == [None, None, True]

    @pytest.mark.ids("F31")
    @pytest.mark.parametrize("kind", MAKERS)
    async def test_all_see_the_end(self, kind: str) -> None:
        """Every task gets True, on each kind of stream."""
        ours, peer = await MAKERS[kind]()
        results: list[bool] = []

        async def app(request: Request) -> None:
            async def wait() -> None:
                results.append(await request.wait_disconnect())

            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(wait)
                await trio.testing.wait_all_tasks_blocked()
                await trio.aclose_forcefully(peer)

        await peer.send_all(get("/"))
        await serve_stream(app, ours, strict=True)

        assert results == [True] * 5

    @pytest.mark.ids("F31")
    @pytest.mark.parametrize("kind", MAKERS)
    async def test_body_is_read(self, kind: str) -> None:
        """The body is read piece by piece meanwhile, and the client's end is seen."""
        ours, peer = await MAKERS[kind]()
        async with trio.open_nursery() as nursery:
            background = Background(nursery)

            async def app(request: Request) -> None:
                nursery.start_soon(background.wait, request)
                nursery.start_soon(background.wait, request)
                pieces = [await anext(request.stream())]
                for data in (b"one", b"two", b"three"):
                    await trio.testing.wait_all_tasks_blocked()
                    nursery.start_soon(peer.send_all, data)
                    pieces.append(await anext(request.stream()))
                assert pieces == [b"zero", b"one", b"two", b"three"]
                assert background.results == []
                with pytest.raises(BadBody):
                    await read_and_leave(request)
                assert await request.wait_disconnect()

            async def read_and_leave(request: Request) -> None:
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(trio.aclose_forcefully, peer)
                await request.read()

            head = get("/", "Content-Length: 100").replace(b"GET", b"POST")
            await peer.send_all(head + b"zero")
            await serve_stream(app, ours, strict=True)

        assert background.results == [("/", True)] * 2

    @pytest.mark.ids("F31")
    async def test_wait_begins_while_the_body_is_read(self) -> None:
        """A task that reads goes on; if it is cancelled, the waiting task receives."""
        head = get("/", "Content-Length: 5").replace(b"GET", b"POST")
        peer = ScriptedPeer(head, then="silence")

        async def app(request: Request) -> None:
            async with trio.open_nursery() as nursery:
                with trio.CancelScope() as scope:

                    async def wait() -> None:
                        assert await request.wait_disconnect()

                    async def stop() -> None:
                        await trio.testing.wait_all_tasks_blocked()
                        nursery.start_soon(wait)
                        await trio.testing.wait_all_tasks_blocked()
                        peer.feed(b"hel")
                        await trio.testing.wait_all_tasks_blocked()
                        scope.cancel()

                    nursery.start_soon(stop)
                    await request.read()
                assert scope.cancelled_caught
                peer.feed(b"lo")
                await trio.testing.wait_all_tasks_blocked()
                assert await request.read() == b"hello"
                peer.finish("reset")

        await serve_stream(app, peer, limits=LIMITS, strict=True)

    @pytest.mark.ids("F31")
    async def test_two_readers(self) -> None:
        """Two tasks that read one body are a mistake: the second gets an error."""
        head = get("/", "Content-Length: 5").replace(b"GET", b"POST")
        peer = ScriptedPeer(head + b"he", then="silence")

        async def app(request: Request) -> Response:
            async def read() -> None:
                bodies.append(await request.read())

            async with trio.open_nursery() as nursery:
                nursery.start_soon(request.wait_disconnect)
                nursery.start_soon(read)
                await trio.testing.wait_all_tasks_blocked()
                with pytest.raises(trio.BusyResourceError, match="reading the body"):
                    await request.read()
                peer.feed(b"llo")
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
            return Response(200, bodies[0], {"Connection": "close"})

        bodies: list[bytes] = []
        await serve_stream(app, peer, limits=LIMITS, strict=True)

        assert peer.sent.endswith(b"\r\n\r\nhello")

    @pytest.mark.ids("F31")
    async def test_reader_and_switch(self) -> None:
        """A switch beside a task that reads the body is a mistake; nothing changes."""
        peer = ScriptedPeer(UP[:-2] + b"Content-Length: 5\r\n\r\nhe", then="silence")

        async def app(request: Request) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(request.read)
                await trio.testing.wait_all_tasks_blocked()
                with pytest.raises(trio.BusyResourceError, match="reading the body"):
                    await request.accept_upgrade("echo")
                assert request.server.statistics().upgraded == 0
                peer.feed(b"llo")
            assert await request.read() == b"hello"
            await request.accept_upgrade("echo")

        await serve_stream(app, peer, limits=LIMITS, strict=True)

        assert peer.sent == SWITCHED

    @pytest.mark.ids("F31")
    async def test_slow_body(self, autojump_clock) -> None:
        """The deadline of a body runs on beside a task that waits."""
        head = get("/", "Content-Length: 5").replace(b"GET", b"POST")
        peer = ScriptedPeer(head + b"he", then="silence")

        async def app(request: Request) -> Response:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(request.wait_disconnect)
                began = trio.current_time()
                with pytest.raises(BodyTimeout):
                    await request.read()
                assert trio.current_time() - began == 30
                nursery.cancel_scope.cancel()
            return Response(408, headers={"Connection": "close"})

        await serve_stream(app, peer, limits=LIMITS, strict=True)

        assert peer.sent.startswith(b"HTTP/1.1 408 ")

    @pytest.mark.ids("F31")
    async def test_body_without_deadline(self, autojump_clock) -> None:
        """Without a deadline a body is waited for as long as it takes."""
        head = get("/", "Content-Length: 5").replace(b"GET", b"POST")
        peer = ScriptedPeer(head, then="silence")

        async def app(request: Request) -> Response:
            return Response(200, await request.read(), {"Connection": "close"})

        async with trio.open_nursery() as nursery:
            limits = Limits(linger=0, body_timeout=None)
            nursery.start_soon(partial(serve_stream, app, peer, limits=limits))
            await trio.sleep(50)
            peer.feed(b"hello")

        assert peer.sent.endswith(b"\r\n\r\nhello")

    @pytest.mark.ids("F31")
    async def test_expectation(self) -> None:
        """Waiting sends no 100; reading does."""
        head = get("/", "Content-Length: 5", "Expect: 100-continue")
        peer = ScriptedPeer(head.replace(b"GET", b"POST"), then="silence")

        async def app(request: Request) -> Response:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(request.wait_disconnect)
                await trio.testing.wait_all_tasks_blocked()
                assert not peer.sent
                nursery.start_soon(feed)
                body = await request.read()
                nursery.cancel_scope.cancel()
            return Response(200, body)

        async def feed() -> None:
            await peer.wait_sent(b"100 Continue\r\n\r\n")
            peer.feed(b"hello")
            peer.finish()

        await serve_stream(app, peer, limits=LIMITS, strict=True)

        assert peer.sent == b"HTTP/1.1 100 Continue\r\n\r\n" + okay(b"hello")

    @pytest.mark.ids("F31")
    async def test_watched_again_after_reading(self) -> None:
        """A client that has sent read_ahead bytes is watched again after a read."""
        head = get("/", "Content-Length: 10").replace(b"GET", b"POST")
        peer = ScriptedPeer(head, b"0123456789", then="reset")

        async def app(request: Request) -> None:
            async with trio.open_nursery() as nursery:
                background = Background(nursery)
                nursery.start_soon(background.wait, request)
                await trio.testing.wait_all_tasks_blocked()
                assert background.results == []
                assert await request.read() == b"0123456789"
                await trio.testing.wait_all_tasks_blocked()
                assert background.results == [("/", True)]

        limits = Limits(read_ahead=10, linger=0)
        await serve_stream(app, peer, limits=limits, strict=True)

    @pytest.mark.ids("F31")
    @pytest.mark.parametrize("cancelled", [False, True])
    async def test_switch_refused(self, cancelled: bool) -> None:
        """A switch that is refused or cancelled leaves the waiting task as it was."""
        peer = ScriptedPeer(UP, then="silence")

        async def app(request: Request) -> None:
            async with trio.open_nursery() as nursery:
                background = Background(nursery)
                nursery.start_soon(background.wait, request)
                await trio.testing.wait_all_tasks_blocked()
                if cancelled:
                    with trio.CancelScope() as scope:
                        scope.cancel()
                        await request.accept_upgrade("echo")
                    assert scope.cancelled_caught
                else:
                    with pytest.raises(Unavailable):
                        await request.accept_upgrade("echo")
                await trio.testing.wait_all_tasks_blocked()
                assert background.results == []
                peer.finish("reset")
                await trio.testing.wait_all_tasks_blocked()
                assert background.results == [("/u", True)]
            finished.append(True)

        finished: list[bool] = []
        limits = Limits(upgraded=int(cancelled), linger=0)
        await serve_stream(app, peer, limits=limits, strict=True)

        assert finished

    @pytest.mark.ids("F31")
    async def test_drain_begins_before_the_switch(self) -> None:
        """A drain that begins while the waiting task gives way refuses the switch."""
        peer = ScriptedPeer(UP, then="silence")

        async def app(request: Request) -> Response:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(request.wait_disconnect)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(drain, request)
                with pytest.raises(Unavailable):
                    await request.accept_upgrade("echo")
                nursery.cancel_scope.cancel()
            return Response(200)

        async def drain(request: Request) -> None:
            request.server.start_drain(None)

        await serve_stream(app, peer, limits=LIMITS, strict=True)

        assert peer.sent.startswith(b"HTTP/1.1 200 ")

    @pytest.mark.ids("F31")
    async def test_stream_closed_by_its_owner(self) -> None:
        """An owner that closes the stream ends the wait, as the client would."""
        near, far = direct(await tcp_pair())

        async def app(request: Request) -> None:
            async with trio.open_nursery() as nursery:
                background = Background(nursery)
                nursery.start_soon(background.wait, request)
                await trio.testing.wait_all_tasks_blocked()
                far.close()
            assert background.results == [("/", True)]

        await near.send_all(get("/"))
        await serve_stream(app, far, strict=True)
        await near.aclose()
