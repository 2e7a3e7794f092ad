"""The WebSockets of a server: how they end, and what their handlers get."""

from __future__ import annotations

import logging
from functools import partial

import pytest
import trio
import trio.testing
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK
from websockets.frames import Opcode
from websockets.protocol import State

from trio_upgrade import EndReason, Limits, serve_stream, serve_tcp
from trio_upgrade.testing import ScriptedPeer
from trio_upgrade.websocket import open_websocket

from ..recording import Recorder
from ..servers import TimedCase, run_script
from ..tls import tls_pair
from .wires import (
    HOST,
    OFFER,
    SWITCHED,
    app_for,
    echo,
    masked,
    masked_close,
    plain,
    plain_close,
    serve,
    wait,
)

CLOSING = masked_close(1000)
CLOSED = plain_close(1000)
LIMITS = Limits(linger=0)


async def returns(websocket) -> None:
    """A handler that has nothing to say."""


async def fails(websocket) -> None:
    """A handler with a bug."""
    raise ValueError("a bug")


async def no_arguments() -> None:
    """A handler that takes no WebSocket."""


class TestReturn:
    """The handler returns."""

    async def test_closing_handshake(self, nursery) -> None:
        """The peer gets a Close with 1000 (RFC 6455 §7.4.1)."""
        _, url = await serve(nursery, returns)
        async with open_websocket(url) as websocket:
            with pytest.raises(ConnectionClosedOK) as caught:
                await websocket.recv()

        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1000

    async def test_unread_messages(self, nursery) -> None:
        """Messages over the queue do not keep the peer's Close from being read."""
        came = trio.Event()

        async def returns_late(websocket) -> None:
            await came.wait()

        _, url = await serve(nursery, returns_late, max_queue=2)
        async with open_websocket(url) as websocket:
            for _ in range(100):
                await websocket.send(b"x" * 1000)
            await trio.testing.wait_all_tasks_blocked(0.01)
            came.set()
            with trio.fail_after(5), pytest.raises(ConnectionClosedOK):
                await websocket.recv()

    @pytest.mark.parametrize(("close_timeout", "seconds"), [(10, 10), (3, 3), (0, 0)])
    async def test_silent_peer(self, close_timeout, seconds, autojump_clock) -> None:
        """The peer has close_timeout for its Close; then the connection is cut."""
        case = TimedCase(LIMITS)
        peer = ScriptedPeer(OFFER, then="silence")
        app = app_for(returns, close_timeout=close_timeout)

        assert await case.serve(app, peer) == pytest.approx(seconds)
        assert case.reason is EndReason.RETURNED
        assert peer.sent == SWITCHED + CLOSED
        assert not peer.got_eof

    async def test_close_of_the_handler(self) -> None:
        """A handler may close by itself, with another code."""

        async def handler(websocket) -> None:
            await websocket.aclose(4000, "why")

        peer = await run_script(app_for(handler), OFFER, masked_close(4000))

        assert peer.sent == SWITCHED + plain(b"\x0f\xa0why", Opcode.CLOSE)


class TestPeerEnds:
    """The peer ends the WebSocket."""

    @pytest.mark.parametrize("group", [False, True])
    async def test_connection_closed_is_an_end(self, group, caplog) -> None:
        """ConnectionClosed out of a handler, alone or in a group, is no error."""

        async def handler(websocket) -> None:
            if not group:
                await websocket.recv()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(websocket.recv)
                nursery.start_soon(websocket.wait_closed)

        recorder = Recorder()
        peer = ScriptedPeer(OFFER, masked_close(1008))
        await serve_stream(app_for(handler), peer, observer=recorder, strict=True)

        assert recorder.reasons == [EndReason.RETURNED]
        assert peer.sent == SWITCHED + plain_close(1008)
        assert peer.got_eof
        assert not caplog.records

    @pytest.mark.parametrize("then", ["end", "reset"])
    async def test_without_a_close(self, then, caplog) -> None:
        """An end without a Close is an error to the handler, but none of the server."""
        seen = []

        async def handler(websocket) -> None:
            try:
                await websocket.recv()
            except ConnectionClosedError as exc:
                seen.append(exc)
                raise

        await run_script(app_for(handler), OFFER, masked("Hello")[:4], then=then)
        (exc,) = seen

        assert exc.rcvd is None
        assert not caplog.records

    @pytest.mark.parametrize("ping_interval", [None, 20])
    async def test_close_and_silence(self, ping_interval, autojump_clock) -> None:
        """A peer that closes, but not TCP, has close_timeout (RFC 6455 §7.1.1)."""
        case = TimedCase(LIMITS)
        peer = ScriptedPeer(OFFER, CLOSING, then="silence")
        app = app_for(echo, ping_interval=ping_interval, close_timeout=3)

        assert await case.serve(app, peer) == pytest.approx(3)
        assert peer.sent == SWITCHED + CLOSED
        assert peer.got_eof

    async def test_of_another_connection(self, nursery, caplog) -> None:
        """ConnectionClosed of another connection is an error while ours is open."""
        _, other = await serve(nursery, returns)

        async def handler(websocket) -> None:
            async with open_websocket(other) as upstream:
                await upstream.recv()

        peer = ScriptedPeer(OFFER, then="silence")
        app = app_for(handler, close_timeout=0)
        with pytest.raises(ConnectionClosedOK):
            await serve_stream(app, peer, strict=True)

        assert peer.sent == SWITCHED + plain_close(1011)


class TestError:
    """The handler raises something else."""

    async def test_as_it_is(self) -> None:
        """The error leaves the handler alone, and the peer gets a 1011."""
        peer = ScriptedPeer(OFFER, masked_close(1011))
        with pytest.raises(ValueError, match="a bug"):
            await serve_stream(app_for(fails), peer, strict=True)

        assert peer.sent == SWITCHED + plain_close(1011)

    @pytest.mark.parametrize("handler", [no_arguments, lambda websocket: None])
    async def test_wrong_handler(self, handler) -> None:
        """A handler that cannot be called or awaited is told what is wanted."""
        peer = ScriptedPeer(OFFER, masked_close(1011))
        with pytest.raises(TypeError) as caught:
            await serve_stream(app_for(handler), peer, strict=True)

        wanted = "the handler: it must be an async function, await handler(websocket)"
        assert caught.value.__notes__ == [wanted]

    async def test_type_error_in_handler(self) -> None:
        """A TypeError from inside the handler has no such note."""

        async def handler(websocket) -> None:
            raise TypeError("a bug")

        peer = ScriptedPeer(OFFER, masked_close(1011))
        with pytest.raises(TypeError, match="a bug") as caught:
            await serve_stream(app_for(handler), peer, strict=True)

        assert not hasattr(caught.value, "__notes__")

    async def test_group_as_it_is(self) -> None:
        """A group of the handler's nursery stays that group."""

        async def handler(websocket) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fails, websocket)
                nursery.start_soon(fails, websocket)

        peer = ScriptedPeer(OFFER, masked_close(1011))
        with pytest.raises(ExceptionGroup) as caught:
            await serve_stream(app_for(handler), peer, strict=True)

        assert [type(exc) for exc in caught.value.exceptions] == [ValueError] * 2

    async def test_one_record(self, nursery, caplog) -> None:
        """It is logged once, by the server, which goes on."""
        recorder = Recorder()
        serving = partial(serve_tcp, app_for(fails), 0, host=HOST, observer=recorder)
        server = await nursery.start(serving)
        async with open_websocket(server.url) as websocket:
            with pytest.raises(ConnectionClosedError, match="1011"):
                await websocket.recv()
        await server.drain(5)
        (record,) = caplog.records

        assert record.name == "trio_upgrade.server"
        assert recorder.reasons == [EndReason.ERROR]
        assert [str(error.error) for error in recorder.errors] == ["a bug"]

    async def test_record_names_the_peer(self, nursery, caplog) -> None:
        """Its line has the client's address, although the stream is closed by then."""
        server = await nursery.start(partial(serve_tcp, app_for(fails), 0, host=HOST))
        async with open_websocket(server.url) as websocket:
            local = websocket.local_address
            with pytest.raises(ConnectionClosedError, match="1011"):
                await websocket.recv()
        await server.drain(5)
        (record,) = caplog.records

        assert str(local) in record.getMessage()

    @pytest.mark.parametrize(
        ("close_timeout", "seconds"), [(10, 1), (None, 1), (0.5, 0.5)]
    )
    async def test_silent_peer(self, close_timeout, seconds, autojump_clock) -> None:
        """The error waits a second for the peer's Close, or close_timeout."""
        peer = ScriptedPeer(OFFER, then="silence")
        began = trio.current_time()
        with pytest.raises(ValueError, match="a bug"):
            await serve_stream(
                app_for(fails, close_timeout=close_timeout), peer, strict=True
            )

        assert trio.current_time() - began == pytest.approx(seconds)
        assert peer.sent == SWITCHED + plain_close(1011)

    async def test_reset(self, nursery) -> None:
        """A peer that does not answer is reset."""
        serving = partial(serve_tcp, app_for(fails, close_timeout=0), 0, host=HOST)
        server = await nursery.start(serving)
        async with await trio.open_tcp_stream(HOST, port_of(server)) as stream:
            await stream.send_all(OFFER)
            with pytest.raises(trio.BrokenResourceError):
                while await stream.receive_some():
                    pass


class TestCancelled:
    """The handler is cancelled."""

    async def test_no_closing_handshake(self, nursery) -> None:
        """The peer gets no Close, but a reset, at the end of the grace."""
        server, _ = await serve(nursery, wait, drain_code=None)
        async with await trio.open_tcp_stream(HOST, port_of(server)) as stream:
            await stream.send_all(OFFER)
            received = await receive_exactly(stream, len(SWITCHED))
            await server.drain(0)
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()

        assert received == SWITCHED

    async def test_websocket_afterwards(self, nursery) -> None:
        """Tasks that still have the WebSocket learn that it is closed."""
        websockets = []

        async def handler(websocket) -> None:
            websockets.append(websocket)
            await trio.sleep_forever()

        server, url = await serve(nursery, handler, drain_code=None)
        async with open_websocket(url) as client:
            await trio.testing.wait_all_tasks_blocked(0.01)
            address = client.local_address
            await server.drain(0)
            with pytest.raises(ConnectionClosedError):
                await client.recv()
        (websocket,) = websockets

        assert websocket.state is State.CLOSED
        assert websocket.remote_address == address
        assert websocket.local_address is None
        with pytest.raises(ConnectionClosedError):
            await websocket.recv()
        with pytest.raises(ConnectionClosedError):
            await websocket.send("")
        await websocket.aclose()


class TestKeepalive:
    """Pings and pongs."""

    async def test_pong_while_the_handler_is_busy(self, nursery) -> None:
        """A ping is answered although the handler does not receive (RFC 6455 §5.5.2)."""
        _, url = await serve(nursery, wait)
        with trio.CancelScope() as scope:
            async with open_websocket(url) as websocket:
                await (await websocket.ping()).wait()
                scope.cancel()

        assert scope.cancelled_caught

    async def test_silent_peer(self, autojump_clock) -> None:
        """A peer that answers no ping gets a 1011, and has close_timeout."""
        case = TimedCase(LIMITS)
        peer = ScriptedPeer(OFFER, then="silence")
        app = app_for(echo, ping_interval=20, ping_timeout=5, close_timeout=2)

        assert await case.serve(app, peer) == pytest.approx(27)
        assert peer.sent.startswith(SWITCHED + b"\x89\x04")
        assert b"keepalive ping timeout" in peer.sent
        assert case.reason is EndReason.RETURNED

    async def test_none(self, autojump_clock) -> None:
        """Without an interval no ping is sent."""
        case = TimedCase(LIMITS)
        peer = ScriptedPeer(OFFER, then="silence")
        app = app_for(echo, ping_interval=None)

        assert await case.serve(app, peer, 3600, CLOSING) == pytest.approx(3610)
        assert peer.sent == SWITCHED + CLOSED


async def test_addresses(nursery) -> None:
    """Both ends know both addresses."""
    seen = []

    async def handler(websocket) -> None:
        seen.extend([websocket.remote_address, websocket.local_address])

    server, url = await serve(nursery, handler)
    async with open_websocket(url) as websocket:
        here, there = websocket.local_address, websocket.remote_address
        with pytest.raises(ConnectionClosedOK):
            await websocket.recv()

    assert seen == [here, there]
    assert there == (HOST, port_of(server))


async def test_left_loop(nursery, recwarn) -> None:
    """Leaving the loop over the messages early is no resource that was forgotten."""

    async def handler(websocket) -> None:
        async for message in websocket:
            await websocket.send(message)
            break

    _, url = await serve(nursery, handler)
    async with open_websocket(url) as websocket:
        await websocket.send("Hello")
        async for message in websocket:
            assert message == "Hello"
            break

    assert not recwarn.list


async def test_stream_without_half_close(nursery) -> None:
    """Over TLS of Trio, which cannot half-close, the Close is sent all the same."""
    near, far = await tls_pair(trio.testing.memory_stream_pair())
    nursery.start_soon(partial(serve_stream, app_for(returns), near, strict=True))
    async with open_websocket("wss://localhost", stream=far) as websocket:
        with pytest.raises(ConnectionClosedOK):
            await websocket.recv()


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO])
async def test_log(level, caplog) -> None:
    """Lines that websockets writes at INFO are lines at DEBUG of ours."""
    with caplog.at_level(level, "trio_upgrade.websocket"):
        await run_script(app_for(echo), OFFER + CLOSING)

    lines = [
        (record.name, record.levelno, record.getMessage())
        for record in caplog.records
        if "connection closed" in record.getMessage()
    ]
    line = ("trio_upgrade.websocket", logging.DEBUG, "connection closed")
    assert lines == ([line] if level == logging.DEBUG else [])
    if level == logging.INFO:
        assert not caplog.records


def port_of(server) -> int:
    """Return the port of a server on TCP."""
    return int(server.url.rpartition(":")[2])


async def receive_exactly(stream, count: int) -> bytes:
    """Receive a number of bytes from a stream of Trio's."""
    received = b""
    while len(received) < count:
        received += await stream.receive_some(count - len(received))
    return received
