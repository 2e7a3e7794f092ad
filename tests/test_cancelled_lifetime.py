"""Cancelled at the n-th step, for every n: deadlines, drains, tunnels, large bodies."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from trio_upgrade import (
    EndReason,
    Limits,
    Response,
    TunnelRefused,
    Upgrade,
    UsageError,
    open_connection,
    open_tunnel,
    serve_listeners,
    serve_stream,
)

from .apps import echo, echo_app
from .cancelling import CancelAtStep, cancel_everywhere
from .recording import Recorder
from .servers import MemoryListener
from .sockets import tcp_pair
from .wire import SWITCHED, UP, get, okay

if TYPE_CHECKING:
    from trio_upgrade.testing import ScriptedPeer


async def test_deadlines() -> None:
    """A server with running deadlines, cancelled at any step, makes one right record."""

    async def app(request):
        if request.path == "/u":
            return Upgrade("echo", echo)
        return Response(200, b"x" * 200_000)

    limits = Limits(response_timeout=50, linger=0)
    script = (get("/1")[:9], get("/1")[9:] + get("/2"), UP + b"HE", b"AD")

    async def run(peer: ScriptedPeer) -> None:
        recorder = Recorder()
        try:
            await serve_stream(app, peer, limits=limits, observer=recorder)
        finally:
            (reason,) = recorder.reasons
            assert reason in (EndReason.CANCELLED, EndReason.RETURNED)

    assert await cancel_everywhere(run, *script) > 10


@pytest.mark.parametrize("packet", [b"", b"GET", get("/sleep")])
async def test_expired(packet: bytes, autojump_clock) -> None:
    """While the response to a passed deadline is sent, and during the close."""

    async def app(request) -> None:
        await trio.sleep_forever()

    limits = Limits(header_timeout=1, response_timeout=1, linger=1)

    async def run(peer: ScriptedPeer) -> None:
        await serve_stream(app, peer, limits=limits)

    assert await cancel_everywhere(run, packet, then="silence") >= 2


@pytest.mark.ids("F31")
@pytest.mark.parametrize("outlives", [False, True])
async def test_wait_disconnect(outlives: bool) -> None:
    """An app that waits for the client's end while the body is read and answered."""
    head = get("/1", "Content-Length: 5").replace(b"GET", b"POST")

    async def run(peer: ScriptedPeer) -> None:
        async def app(request):
            if not outlives:
                await request.wait_disconnect()
            elif request.path == "/1":
                for _ in range(3):
                    outer.start_soon(request.wait_disconnect)
            return Response(200, await request.read())

        async with trio.open_nursery() as outer:
            await serve_stream(app, peer)

    steps = await cancel_everywhere(run, head, b"hel", b"lo" + get("/2"))

    assert steps > 3


@pytest.mark.ids("F31")
async def test_wait_disconnect_and_switch() -> None:
    """A switch beside tasks that wait for the client's end; each byte arrives."""
    offer = UP[:-2] + b"Content-Length: 5\r\n\r\n"

    async def run(peer: ScriptedPeer) -> None:
        async def app(request):
            for _ in range(3):
                outer.start_soon(request.wait_disconnect)
            stream, _head = await request.accept_upgrade("echo")
            got = b""
            async for chunk in stream:
                got += chunk
            assert got == b"head"

        async with trio.open_nursery() as outer:
            await serve_stream(app, peer, strict=True)

    assert await cancel_everywhere(run, offer, b"hel", b"lohe", b"ad") > 3


async def test_drain() -> None:
    """A drain, from its start to the last socket."""
    before = trio.lowlevel.current_statistics().tasks_living

    async def app(request):
        request.server.start_drain(5)
        with pytest.raises(UsageError):
            await request.server.drain(5)
        return Upgrade("echo", echo) if request.upgrades else Response(200)

    await cancel_everywhere(lambda peer: serve_stream(app, peer), get("/1"), UP)
    await cancel_everywhere(lambda peer: serve_stream(app, peer), UP)

    assert trio.lowlevel.current_statistics().tasks_living == before


@pytest.mark.parametrize("grace", [0, 1, None])
async def test_drain_of_a_server(grace: float | None, autojump_clock) -> None:
    """If the caller of drain() is cancelled at any step, the drain goes on."""
    for step in range(1, 100):
        listener = MemoryListener()
        instrument = CancelAtStep(step)
        async with trio.open_nursery() as nursery:
            server = await nursery.start(
                partial(serve_listeners, echo_app, [listener], limits=Limits(linger=0))
            )
            live, idle = await listener.connect(), await listener.connect()
            await live.send_all(UP)
            assert await live.receive_some() == SWITCHED
            trio.lowlevel.add_instrument(instrument)
            try:
                with instrument.scope:
                    nursery.start_soon(trio.aclose_forcefully, live)
                    await server.drain(grace)
            finally:
                trio.lowlevel.remove_instrument(instrument)
            await server.wait_ended()
        assert server.statistics().connections == 0
        assert listener.closed
        assert await idle.receive_some() == b""
        if not instrument.scope.cancelled_caught:
            return
    raise AssertionError("no end")


async def test_server_over_tcp_leaks_no_descriptor() -> None:
    """The serving task cancelled at each of its steps: its sockets are all closed."""
    for step in range(1, 200):
        instrument = CancelAtStep(step)
        near, far = await tcp_pair()
        await near.send_all(get("/1") + UP + b"HEAD")
        await near.send_eof()
        trio.lowlevel.add_instrument(instrument)
        try:
            with instrument.scope:
                await serve_stream(echo_app, far)
        finally:
            trio.lowlevel.remove_instrument(instrument)
        assert far.socket.fileno() == -1
        await near.aclose()
        if not instrument.scope.cancelled_caught:
            return
    raise AssertionError("no end")


async def test_connect_refused() -> None:
    """A tunnel that is refused, with a body to be read."""

    async def run(peer: ScriptedPeer) -> None:
        with pytest.raises(TunnelRefused):
            await open_tunnel("http://proxy/", "a:1", stream=peer)

    wire = okay(b"reasons", status="403 Forbidden")

    assert await cancel_everywhere(run, wire[:9], wire[9:-3], wire[-3:]) > 3


@pytest.mark.parametrize("fields", [{}, {"Expect": "100-continue"}])
async def test_large_body(fields: dict[str, str]) -> None:
    """A request whose body is sent while the answer may come."""
    before = trio.lowlevel.current_statistics().tasks_living

    async def run(peer: ScriptedPeer) -> None:
        peer.hold_until_sent(b"\r\n\r\n")
        async with await open_connection("http://x/", stream=peer) as connection:
            response = await connection.request(
                "POST", "/", headers=fields, body=b"x" * 200_000
            )
            assert await response.read() == b"hello"

    script = (b"HTTP/1.1 100 Continue\r\n\r\n", okay(b"hello")[:-2], b"lo")

    assert await cancel_everywhere(run, *script) > 3
    assert trio.lowlevel.current_statistics().tasks_living == before
