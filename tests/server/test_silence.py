"""An answer whose app waits in silence ends when its client leaves."""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from trio_upgrade import EndReason, Limits, Request, Response, serve_stream
from trio_upgrade._server.deadlines import Deadlines
from trio_upgrade.testing import ScriptedPeer

from ..recording import Recorder
from ..servers import run_script
from ..stream_pairs import MAKERS
from ..wire import get, okay
from .test_cancelled_on_disconnect import FailingStream
from .test_respond import CHUNKED

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from trio_upgrade import App

FIRST = CHUNKED + b"5\r\nfirst\r\n"
END = b"0\r\n\r\n"


class Ticker:
    """An app that sends "first", then "tick" every so many seconds."""

    def __init__(self, every: float = 1000, ticks: int = 1000, chunk=b"tick") -> None:
        self.every = every
        self.ticks = ticks
        self.chunk = chunk
        self.ended: list[type[BaseException] | None] = []

    async def body(self) -> AsyncGenerator[bytes, None]:
        try:
            yield b"first"
            for _ in range(self.ticks):
                await trio.sleep(self.every)
                yield self.chunk
        except BaseException as exc:
            self.ended.append(type(exc))
            raise
        self.ended.append(None)

    async def respond(self, request: Request) -> Response | None:
        if request.path == "/2":
            return Response(200, b"/2")
        async with aclosing(self.body()) as body:
            async with request.respond(200) as answer:
                async for chunk in body:
                    await answer.send(chunk)
        return None

    async def returned(self, request: Request) -> Response:
        if request.path == "/2":
            return Response(200, b"/2")
        return Response(200, self.body())

    @property
    def apps(self) -> list[App]:
        return [self.respond, self.returned]


class Served:
    """A connection that is being served; `left` is when it ended."""

    def __init__(self, app: App, limits: Limits, nursery: trio.Nursery) -> None:
        self.peer = ScriptedPeer(get("/"), then="silence")
        self.recorder = Recorder()
        self.left = 0.0
        self._app, self._limits = app, limits
        nursery.start_soon(self._serve)

    async def _serve(self) -> None:
        await serve_stream(
            self._app,
            self.peer,
            limits=self._limits,
            observer=self.recorder,
            strict=True,
        )
        self.left = trio.current_time()

    def check(self, reason: EndReason, cause: type[BaseException] | None) -> None:
        assert self.peer.closed
        assert self.recorder.reasons == [reason]
        (record,) = self.recorder.requests
        assert type(record.cause) is (cause or type(None))


KINDS = pytest.mark.parametrize("kind", [0, 1], ids=["respond", "returned"])


@KINDS
@pytest.mark.parametrize("wait", [0.02, 50])
async def test_reset(kind: int, wait: float, autojump_clock) -> None:
    """A reset ends it at once, or when the watch begins: 50 ms after the answer has."""
    ticker = Ticker()
    async with trio.open_nursery() as nursery:
        served = Served(ticker.apps[kind], Limits(), nursery)
        await trio.sleep(wait)
        gone = trio.current_time()
        served.peer.finish("reset")

    assert served.left - gone == pytest.approx(0.03 if wait < 1 else 0)
    assert ticker.ended == [trio.Cancelled]
    served.check(EndReason.LOST, trio.BrokenResourceError)
    assert not served.peer.got_eof


@KINDS
@pytest.mark.parametrize("linger", [0, 2, 7])
async def test_end(kind: int, linger: float, autojump_clock) -> None:
    """After a mere end of the client's side it may be silent for linger seconds."""
    ticker = Ticker(every=100, ticks=2)
    async with trio.open_nursery() as nursery:
        served = Served(ticker.apps[kind], Limits(linger=linger), nursery)
        await trio.sleep(99)
        served.peer.finish()

    # It was silent for 99 seconds by then.
    began = served.recorder.requests[0].seconds
    assert began == pytest.approx(99)
    assert ticker.ended == [trio.Cancelled]
    served.check(EndReason.LOST, trio.BrokenResourceError)
    assert served.peer.sent == FIRST


@KINDS
async def test_end_while_it_makes_progress(kind: int, autojump_clock) -> None:
    """The whole answer is sent to a client that only ended its side (`nc -N`)."""
    ticker = Ticker(every=1.9, ticks=20)
    async with trio.open_nursery() as nursery:
        served = Served(ticker.apps[kind], Limits(linger=2), nursery)
        await trio.sleep(1)
        served.peer.finish()

    assert served.peer.sent == FIRST + b"4\r\ntick\r\n" * 20 + END
    assert ticker.ended == [None]
    served.check(EndReason.PEER, None)


@KINDS
async def test_end_and_then_silence(kind: int, autojump_clock) -> None:
    """Once it is silent for longer than linger it is cut."""
    ticker = Ticker(every=3)
    async with trio.open_nursery() as nursery:
        served = Served(ticker.apps[kind], Limits(linger=4), nursery)
        await trio.sleep(4)
        served.peer.finish()
        await trio.sleep(1)
        ticker.every = 100

    # The last tick was after six seconds.
    assert served.recorder.requests[0].seconds == pytest.approx(10)
    assert served.peer.sent == FIRST + b"4\r\ntick\r\n" * 2
    served.check(EndReason.LOST, trio.BrokenResourceError)


@KINDS
async def test_empty_pieces_are_silence(kind: int, autojump_clock) -> None:
    """Pieces without bytes are no progress."""
    ticker = Ticker(every=1, chunk=b"")
    async with trio.open_nursery() as nursery:
        served = Served(ticker.apps[kind], Limits(linger=4), nursery)
        await trio.sleep(2.5)
        served.peer.finish()

    assert served.recorder.requests[0].seconds == pytest.approx(4)
    served.check(EndReason.LOST, trio.BrokenResourceError)


@KINDS
async def test_without_a_limit(kind: int, autojump_clock) -> None:
    """With linger=None a mere end does not cut it."""
    ticker = Ticker(every=1000, ticks=1)
    async with trio.open_nursery() as nursery:
        served = Served(ticker.apps[kind], Limits(linger=None), nursery)
        await trio.sleep(1)
        served.peer.finish()

    assert served.peer.sent == FIRST + b"4\r\ntick\r\n" + END


@KINDS
async def test_pipelined_request(kind: int, autojump_clock) -> None:
    """A request that comes meanwhile is kept, and answered next."""
    ticker = Ticker(every=10, ticks=1)
    async with trio.open_nursery() as nursery:
        served = Served(ticker.apps[kind], Limits(), nursery)
        await trio.sleep(5)
        served.peer.feed(get("/2")[:10])
        await trio.sleep(1)
        served.peer.feed(get("/2")[10:])
        await trio.sleep(1)
        served.peer.finish()

    # Five seconds of silence are over by then.
    assert served.peer.sent == FIRST
    ticker = Ticker(every=2, ticks=5)
    async with trio.open_nursery() as nursery:
        served = Served(ticker.apps[kind], Limits(linger=3), nursery)
        await trio.sleep(5)
        served.peer.feed(get("/2"))
        served.peer.finish()

    assert served.peer.sent == FIRST + b"4\r\ntick\r\n" * 5 + END + okay(b"/2")


@KINDS
async def test_more_than_is_read_ahead(kind: int, autojump_clock) -> None:
    """A client that sends more than read_ahead is not watched any more."""
    ticker = Ticker(every=10, ticks=1)
    limits = Limits(read_ahead=10)
    async with trio.open_nursery() as nursery:
        served = Served(ticker.apps[kind], limits, nursery)
        await trio.sleep(1)
        served.peer.feed(get("/2", "Connection: close"))
        await trio.sleep(1)
        served.peer.finish()

    assert served.peer.sent.startswith(FIRST + b"4\r\ntick\r\n" + END)
    assert served.peer.sent.endswith(b"/2")


async def test_slow_reader_is_not_silent(autojump_clock) -> None:
    """While a send waits for the client, the app is not silent."""
    sizes = []

    async def app(request: Request) -> None:
        async with request.respond(200) as answer:
            await answer.send(b"x" * 1000)
            sizes.append(1000)

    near, far = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            partial(serve_stream, app, far, limits=Limits(linger=0), strict=True)
        )
        await near.send_all(get("/"))
        received = await near.receive_some()
        await near.send_eof()
        await trio.sleep(20)
        while chunk := await near.receive_some():
            received += chunk
        await near.aclose()

    assert received == CHUNKED + b"3e8\r\n" + b"x" * 1000 + b"\r\n" + END
    assert sizes


async def test_block_that_is_not_cancelled(autojump_clock) -> None:
    """With cancel_on_disconnect=False the block waits on."""
    sent = []

    async def app(request: Request) -> None:
        async with request.respond(200, cancel_on_disconnect=False) as answer:
            await trio.sleep(100)
            with pytest.raises(trio.BrokenResourceError):
                await answer.send(b"late")
            sent.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        served = Served(app, Limits(), nursery)
        await trio.sleep(1)
        served.peer.finish("reset")

    assert sent
    served.check(EndReason.LOST, trio.BrokenResourceError)


async def test_group_in_a_cancelled_block(autojump_clock) -> None:
    """An error beside the cancellation comes out, without the cancellation."""
    raised = []

    async def app(request: Request) -> None:
        async def fail_at_the_end() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise LookupError

        try:
            async with request.respond(200):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(fail_at_the_end)
                    nursery.start_soon(trio.sleep_forever)
        except BaseException as exc:
            raised.append(exc)

    async with trio.open_nursery() as nursery:
        served = Served(app, Limits(), nursery)
        await trio.sleep(1)
        served.peer.finish("reset")

    (group,) = raised
    assert isinstance(group, ExceptionGroup)
    assert [type(inner) for inner in group.exceptions] == [LookupError]
    served.check(EndReason.LOST, ExceptionGroup)


@KINDS
async def test_stream_that_fails(kind: int, autojump_clock) -> None:
    """What a stream of the user's raises is the cause of the cut."""
    recorder = Recorder()
    ticker = Ticker()
    stream = FailingStream(ScriptedPeer(get("/")))

    await serve_stream(ticker.apps[kind], stream, observer=recorder)

    cause = recorder.requests[0].cause
    assert isinstance(cause, trio.BrokenResourceError)
    assert isinstance(cause.__cause__, LookupError)


@pytest.mark.parametrize("make", MAKERS)
@KINDS
async def test_client_that_closes(kind: int, make: str) -> None:
    """Over every stream the app is cancelled after a client has closed."""
    ticker = Ticker()
    client, server = await MAKERS[make]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            partial(serve_stream, ticker.apps[kind], server, limits=Limits(linger=0.1))
        )
        await client.send_all(get("/"))
        received = b""
        while not received.endswith(b"first\r\n"):
            received += await client.receive_some()
        await client.aclose()

    assert ticker.ended == [trio.Cancelled]


async def test_short_answer_starts_no_task(autojump_clock) -> None:
    """An answer that is over at once is never watched: it costs no task."""
    counts = []

    async def body() -> AsyncGenerator[bytes, None]:
        yield b"first"
        await trio.sleep(0.02)
        counts.append(trio.lowlevel.current_statistics().tasks_living)

    async def app(request: Request) -> Response:
        counts.append(trio.lowlevel.current_statistics().tasks_living)
        return Response(200, body())

    await run_script(app, get("/"))

    assert counts[0] == counts[1]


async def test_end_at_the_moment_the_watch_starts(autojump_clock) -> None:
    """A watch whose answer ends before it runs does not receive the next request."""

    async def app(request: Request) -> Response | None:
        if request.path == "/2":
            return Response(200, b"/2")
        # Its end needs no send, and so no checkpoint.
        async with request.respond(200, {"Content-Length": "5"}) as answer:
            await answer.send(b"first")
            await trio.sleep(0.05)
        return None

    async def ask() -> None:
        client, transport = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(serve_stream, app, transport, strict=True))
            await client.send_all(get("/"))
            await trio.sleep(1)
            await client.send_all(get("/2"))
            await trio.sleep(1)
            answers.append(bytes(await client.receive_some()))
            await client.aclose()

    answers: list[bytes] = []
    # The reaper and the app wake at the same moment, and Trio runs either of them first.
    for _ in range(20):
        await ask()

    assert all(answer.endswith(b"/2") for answer in answers)


async def test_gone_before_the_header_section_is_sent(autojump_clock) -> None:
    """A client that leaves while the header section waits for it ends the answer."""
    recorder = Recorder()
    ticker = Ticker()
    near, far = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            partial(
                serve_stream,
                ticker.returned,
                far,
                observer=recorder,
                limits=Limits(linger=0.5, send_timeout=None),
            )
        )
        await near.send_all(get("/"))
        await near.send_eof()
        await trio.sleep(10)
        await near.aclose()

    assert recorder.reasons == [EndReason.LOST]
    assert isinstance(recorder.requests[0].cause, trio.BrokenResourceError)


class BreakingStream(FailingStream):
    """A stream whose second receive breaks and whose send waits for ever."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self.fails:
            await trio.lowlevel.checkpoint()
            raise trio.BrokenResourceError
        return await super().receive_some(max_bytes)

    async def send_all(self, data) -> None:
        await trio.sleep(1)
        raise trio.BrokenResourceError


async def test_reset_before_the_header_section_is_sent(autojump_clock) -> None:
    """A reset that is seen before that ends the answer by its failed send."""
    recorder = Recorder()
    stream = BreakingStream(ScriptedPeer(get("/")))

    await serve_stream(Ticker().returned, stream, observer=recorder)

    assert recorder.reasons == [EndReason.LOST]


async def test_watch_without_a_reaper() -> None:
    """Once the server has ended, nothing is watched any more."""
    deadlines = Deadlines(Limits(), lambda: None)

    deadlines.start_watch(trio.sleep_forever)
