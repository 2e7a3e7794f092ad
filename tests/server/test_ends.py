"""How a server ends connections that are cut, or that return as the server ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from trio_upgrade import (
    EndReason,
    Limits,
    Response,
    Upgrade,
    open_upgrade,
    serve_stream,
)

from ..recording import Recorder
from ..sockets import direct, tcp_pair
from ..tls_streams import opened
from ..wire import SWITCHED, UP, get

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio_upgrade import Request, UpgradedStream

# What the peer of a switched connection sees is in tests/conformance/test_ends.py.

HTTP10 = b"GET / HTTP/1.0\r\n\r\n"


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    return b"".join([bytes(chunk) async for chunk in stream])


class TestHTTP:
    """A client must not take half an answer for a whole one."""

    @pytest.mark.ids("F21")
    @pytest.mark.parametrize("how", ["cancelled", "grace"])
    async def test_cut_answer(self, how: str, autojump_clock) -> None:
        """An answer that is cut is reset: to HTTP/1.0 an end would look like its own."""
        near, far = direct(await tcp_pair())

        async def body() -> AsyncIterator[bytes]:
            yield b"half"
            await trio.sleep_forever()

        async def app(request: Request) -> Response:
            if how == "grace":
                request.server.start_drain(5)
            return Response(200, body())

        with trio.move_on_after(5 if how == "cancelled" else 50):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve_stream, app, far)
                await near.send_all(HTTP10)
        with pytest.raises(trio.BrokenResourceError):
            await read_all(near)
        await near.aclose()

    @pytest.mark.ids("F21")
    @pytest.mark.parametrize("answered", [False, True])
    async def test_answer_that_is_whole_or_missing(
        self, answered: bool, autojump_clock
    ) -> None:
        """Without half an answer there is no reset, which could destroy one before."""
        near, far = direct(await tcp_pair())

        async def app(request: Request) -> Response:
            if request.path == "/wait":
                await trio.sleep_forever()
            return Response(200, b"whole")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_stream, app, far)
            await near.send_all(get("/1") + (b"" if answered else get("/wait")))
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        assert (await read_all(near)).endswith(b"whole")
        await near.aclose()


@pytest.mark.ids("F21")
@pytest.mark.parametrize("tls", [False, True])
async def test_last_words_at_the_end_of_the_grace(tls: bool, autojump_clock) -> None:
    """A handler that returns when the grace is over has its last words delivered.

    The unread input does not make the close a reset, and over TLS a close_notify is sent.
    """
    near, far = await opened() if tls else direct(await tcp_pair())
    recorder = Recorder()

    async def handler(request: Request, stream: UpgradedStream, _head: bytes) -> None:
        request.server.start_drain(1)
        with trio.CancelScope(shield=True):
            await trio.sleep(2)
            await stream.send_all(b"last words")

    async def app(_request: Request) -> Upgrade:
        return Upgrade("echo", handler)

    await near.send_all(UP)
    await near.send_all(b"early")
    began = trio.current_time()

    await serve_stream(app, far, observer=recorder)

    # No linger, although the peer has not ended.
    assert trio.current_time() - began == 2
    assert await read_all(near) == SWITCHED + b"last words"
    assert recorder.reasons == [EndReason.RETURNED]
    await trio.aclose_forcefully(near)


@pytest.mark.parametrize("must_wait", [True, False])
async def test_task_that_still_receives(must_wait: bool, autojump_clock) -> None:
    """A task of the app that is slow to stop receiving cannot keep the stream open."""

    class Slow(trio.abc.Stream):
        closed = False
        sent = b""

        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            if self.sent or not hasattr(self, "asked"):
                self.asked = True
                return get("/")
            with trio.CancelScope(shield=True):
                await trio.sleep(50 if must_wait else 1)
            return b""

        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            await trio.lowlevel.checkpoint()
            self.sent += bytes(data)

        async def wait_send_all_might_not_block(self) -> None:
            await trio.lowlevel.checkpoint()

        async def aclose(self) -> None:
            self.closed = True
            await trio.lowlevel.checkpoint()

    stream = Slow()
    async with trio.open_nursery() as nursery:

        async def app(request: Request) -> Response:
            nursery.start_soon(request.wait_disconnect)
            await trio.testing.wait_all_tasks_blocked()
            return Response(200, headers={"Connection": "close"})

        began = trio.current_time()
        await serve_stream(app, stream, limits=Limits(linger=2))
        taken = trio.current_time() - began

    assert stream.closed
    assert taken == (2 if must_wait else 1)


@pytest.mark.ids("F21")
async def test_client_that_returns_while_it_is_cancelled() -> None:
    """A block that is left normally ends its stream, also if the scope is cancelled."""
    near, far = direct(await tcp_pair())
    await far.send_all(SWITCHED + b"unread")

    with trio.CancelScope() as scope:
        async with await open_upgrade("http://x/", "echo", stream=near) as opened:
            await opened.stream.send_all(b"last words")
            scope.cancel()

    assert scope.cancelled_caught
    assert (await read_all(far)).endswith(b"\r\n\r\nlast words")
    await far.aclose()


@pytest.mark.parametrize("tls", [False, True])
async def test_aclose_that_is_cancelled(tls: bool) -> None:
    """A cancelled aclose() closes at once, as Trio's streams do: no close_notify."""
    near, far = await opened() if tls else direct(await tcp_pair())
    await far.send_all(SWITCHED)
    connection = await open_upgrade("http://x/", "echo", stream=near)

    with trio.CancelScope() as scope:
        scope.cancel()
        await connection.aclose()

    assert scope.cancelled_caught
    if tls:
        with pytest.raises(trio.BrokenResourceError):
            await read_all(far)
    else:
        assert (await read_all(far)).endswith(b"\r\n\r\n")
    await trio.aclose_forcefully(far)
