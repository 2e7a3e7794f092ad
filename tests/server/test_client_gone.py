"""What an app may return when its client is gone: None, which is no bug then."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
import trio.testing

from trio_upgrade import BadBody, EndReason, Limits, Request, serve_stream
from trio_upgrade._streams.resetting import reset_on_close
from trio_upgrade.testing import ScriptedPeer

from ..recording import Recorder
from ..sockets import direct, tcp_pair
from ..wire import UP, get

CONNECT = b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"
LIMITS = Limits(linger=0)


class TestNone:
    """What an app may return when its client is gone."""

    @pytest.mark.ids("F32")
    @pytest.mark.parametrize("wire", [get("/"), UP, CONNECT])
    async def test_after_a_reset(self, wire: bytes, caplog) -> None:
        """None after a reset is no bug: nothing is logged, and the end is LOST."""
        recorder = Recorder()

        async def app(request: Request) -> None:
            assert await request.wait_disconnect()

        peer = ScriptedPeer(wire, then="reset")
        await serve_stream(app, peer, limits=LIMITS, observer=recorder)

        assert peer.closed
        assert not peer.sent
        assert recorder.reasons == [EndReason.LOST]
        assert recorder.errors == []
        assert recorder.requests == []
        assert caplog.records == []

    @pytest.mark.ids("F32")
    @pytest.mark.parametrize("strict", [False, True])
    async def test_after_an_end(self, strict: bool, caplog) -> None:
        """None after an end that only the wait has seen: the connection is closed."""
        recorder = Recorder()

        async def app(request: Request) -> None:
            assert await request.wait_disconnect()

        peer = ScriptedPeer(get("/1"), get("/2"))
        await serve_stream(app, peer, limits=LIMITS, observer=recorder, strict=strict)

        assert peer.closed
        assert not peer.sent
        assert recorder.reasons == [EndReason.LOST]
        assert recorder.errors == []
        assert caplog.records == []

    @pytest.mark.ids("F32")
    async def test_client_left_in_the_body(self, caplog) -> None:
        """None after a body that the client has cut is no bug."""
        recorder = Recorder()

        async def app(request: Request) -> None:
            with suppress(BadBody):
                await request.read()

        head = get("/", "Content-Length: 5").replace(b"GET", b"POST")
        peer = ScriptedPeer(head + b"he")
        await serve_stream(app, peer, limits=LIMITS, observer=recorder)

        assert not peer.sent
        assert recorder.reasons == [EndReason.LOST]
        assert caplog.records == []

    @pytest.mark.ids("F32")
    async def test_client_left_before_the_101(self, caplog) -> None:
        """None after a switch that failed because the client had reset is no bug."""
        recorder = Recorder()
        near, far = direct(await tcp_pair())

        async def app(request: Request) -> None:
            reset_on_close(near)
            await near.aclose()
            with suppress(trio.BrokenResourceError):
                await request.accept_upgrade("echo")

        await near.send_all(UP)
        await serve_stream(app, far, limits=LIMITS, observer=recorder)

        assert recorder.reasons == [EndReason.LOST]
        assert caplog.records == []

    @pytest.mark.ids("F32")
    @pytest.mark.parametrize("wire", [UP, CONNECT])
    async def test_half_close_is_no_end(self, wire: bytes, caplog) -> None:
        """None stays a bug after what may be a half-close: the client waits."""

        async def app(request: Request) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(request.wait_disconnect)
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()

        peer = ScriptedPeer(wire)
        await serve_stream(app, peer, limits=LIMITS)

        assert peer.sent.startswith(b"HTTP/1.1 500 ")
        assert "the app returned None" in caplog.text

    @pytest.mark.ids("F32")
    async def test_client_is_there(self, caplog) -> None:
        """None stays a bug while the client waits: a 500, and an error in the log."""
        recorder = Recorder()

        async def app(_request: Request) -> None:
            return None

        peer = ScriptedPeer(get("/", "Connection: close"), then="silence")
        await serve_stream(app, peer, limits=LIMITS, observer=recorder)

        assert peer.sent.startswith(b"HTTP/1.1 500 ")
        assert len(recorder.errors) == 1
        assert "the app returned None" in caplog.text
