"""reconnecting_websocket: one connection after the other."""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import trio
import trio.testing
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK
from websockets.protocol import State

from trio_upgrade import (
    IllegalSwitch,
    PeerGone,
    Response,
    SocksRefused,
    TLSFailed,
    TunnelRefused,
    UpgradeRefused,
    open_connection,
    serve_tcp,
)
from trio_upgrade._websocket import reconnecting
from trio_upgrade._websocket.dialling import WebSocketDialler
from trio_upgrade.testing import ScriptedPeer
from trio_upgrade.websocket import accept_websocket, reconnecting_websocket

from ..wire import okay
from .wires import HOST, echo, serve

# No test waits for a delay by the real clock.
AT_ONCE: dict[str, Any] = {"first_delay": 0, "longest_delay": 0}


async def receive_all(websocket) -> list[str]:
    """Receive until the peer closes, in whatever way."""
    messages: list[str] = []
    with suppress(ConnectionClosed):
        while True:
            messages.append(await websocket.recv())
    return messages


class Numbering:
    """A handler that sends its number and closes with one of the codes."""

    def __init__(self, *codes: int) -> None:
        self.codes = list(codes)
        self.closed: list[int | None] = []
        self.connections = 0

    async def __call__(self, websocket) -> None:
        self.connections += 1
        await websocket.send(str(self.connections))
        if self.codes:
            await websocket.aclose(self.codes.pop(0))
        await websocket.wait_closed()
        self.closed.append(websocket.close_code)


async def test_next_after_each_end(nursery) -> None:
    """A turn that ends asks for the next connection, whatever the close code."""
    handler = Numbering(1000, 4000, 1011, 1001)
    server, url = await serve(nursery, handler)
    received = []
    async with reconnecting_websocket(url, **AT_ONCE) as connections:
        async for websocket in connections:
            received += await receive_all(websocket)
            if len(received) == 3:
                break
    await server.drain(5)

    assert received == ["1", "2", "3"]


async def test_connection_closed_goes_on() -> None:
    """A turn that catches ConnectionClosed goes on with the next connection."""
    # The whole body in one suppress(), as the documentation shows it.
    handler = Numbering(4000, 4000)
    async with trio.open_nursery() as nursery:
        _, url = await serve(nursery, handler)
        turns = 0
        async with reconnecting_websocket(url, **AT_ONCE) as connections:
            async for websocket in connections:
                turns += 1
                if turns == 3:
                    break
                with suppress(ConnectionClosed):
                    while True:
                        await websocket.recv()
        nursery.cancel_scope.cancel()

    assert handler.connections == 3


async def test_continue(nursery) -> None:
    """A turn that ends while its connection is open closes it with 1000."""
    handler = Numbering()
    server, url = await serve(nursery, handler)
    websockets: list[Any] = []
    async with reconnecting_websocket(url, **AT_ONCE) as connections:
        async for websocket in connections:
            assert not [old for old in websockets if old.state is not State.CLOSED]
            websockets.append(websocket)
            if len(websockets) < 3:
                continue
            break
        assert websockets[-1].state is State.OPEN
    assert websocket.state is State.CLOSED
    await server.drain(5)

    assert handler.closed == [1000, 1000, 1000]


@pytest.mark.parametrize("way", ["break", "return", "error", "group", "cancel"])
async def test_leaving(way, nursery) -> None:
    """Leaving the block closes the current connection; an error goes on alone."""
    handler = Numbering()
    server, url = await serve(nursery, handler)
    failure = ExceptionGroup("", [ValueError()]) if way == "group" else ValueError()
    websockets = []

    async def run() -> str | None:
        async with reconnecting_websocket(url, **AT_ONCE) as connections:
            async for websocket in connections:
                websockets.append(websocket)
                assert await websocket.recv() == "1"
                if way == "break":
                    break
                if way == "return":
                    return "value"
                if way == "cancel":
                    scope.cancel()
                    await websocket.recv()
                raise failure
        return None

    with trio.CancelScope() as scope:
        if way in {"error", "group"}:
            with pytest.raises((ValueError, ExceptionGroup)) as caught:
                await run()
            assert caught.value is failure
        else:
            assert await run() == ("value" if way == "return" else None)
    assert scope.cancelled_caught == (way == "cancel")
    assert [websocket.state for websocket in websockets] == [State.CLOSED]
    await server.drain(5)

    code = {"break": 1000, "return": 1000, "cancel": 1006}.get(way, 1011)
    assert handler.closed == [code]


async def test_connection_closed_leaves(nursery) -> None:
    """ConnectionClosed that the turn does not catch leaves the block as it is."""
    _, url = await serve(nursery, Numbering(1000))
    with pytest.raises(ConnectionClosedOK):
        async with reconnecting_websocket(url) as connections:
            async for websocket in connections:
                while True:
                    await websocket.recv()


async def test_scope_round_one_turn(nursery) -> None:
    """A scope may end between the opening of a connection and the end of its turn."""
    _, url = await serve(nursery, echo)
    async with reconnecting_websocket(url) as connections:
        with trio.fail_after(5):
            websocket = await anext(connections)
        await websocket.send("Hello")
        assert await websocket.recv() == "Hello"


async def test_block_without_a_turn() -> None:
    """A block that asks for no connection opens none."""
    async with reconnecting_websocket("ws://a.invalid"):
        pass


class TestDelays:
    """When the next attempt is made."""

    @staticmethod
    async def attempts(monkeypatch, count: int, **options) -> list[float]:
        """Return when each of a number of attempts was made, none of which succeeds."""
        times: list[float] = []

        async def dial(*args, **kwargs):
            times.append(trio.current_time())
            if len(times) == count:
                raise ValueError("enough")
            raise PeerGone

        monkeypatch.setattr(WebSocketDialler, "dial", dial)
        with pytest.raises(ValueError, match="enough"):
            async with reconnecting_websocket("ws://a", **options) as connections:
                await anext(connections)
        return times

    async def test_first(self, monkeypatch, autojump_clock) -> None:
        """The first attempt is made at once."""
        began = trio.current_time()
        assert await self.attempts(monkeypatch, 1) == [began]

    async def test_bounds(self, monkeypatch, autojump_clock) -> None:
        """The bound doubles up to the longest, and the delays are random."""
        monkeypatch.setattr("random.uniform", lambda low, high: high)
        times = await self.attempts(monkeypatch, 7, first_delay=2, longest_delay=10)
        pauses = [after - before for before, after in pairwise(times)]

        assert pauses == pytest.approx([2, 4, 8, 10, 10, 10])

    async def test_random(self, monkeypatch, autojump_clock) -> None:
        """Clients of the same server do not come at the same time (RFC 6455 §7.2.3)."""
        several = [
            (await self.attempts(monkeypatch, 3, first_delay=9, longest_delay=5))
            for _ in range(20)
        ]
        pauses = {after - before for times in several for before, after in [times[1:]]}

        assert len(pauses) > 10
        assert all(0 <= pause <= 5 for pause in pauses)

    async def test_lifetime(self) -> None:
        """A connection that lasts longer than the bound begins again with the first."""
        delays = reconnecting._Delays(1, 60)
        for _ in range(4):
            delays._waits = True
            with trio.move_on_after(0):
                await delays.wait()
        bounds = []
        for lifetime in 7, 16.5:
            delays.note_lifetime(lifetime)
            bounds.append(delays._bound)

        assert bounds == [16, 1]

    async def test_too_slow(self, nursery, caplog, autojump_clock) -> None:
        """An attempt has open_timeout seconds; it is one line at INFO."""
        served = []

        async def app(request):
            served.append(request)
            if len(served) == 1:
                await trio.sleep_forever()
            return accept_websocket(request, echo)

        server = await nursery.start(partial(serve_tcp, app, 0, host=HOST))
        with caplog.at_level(logging.INFO):
            async with reconnecting_websocket(
                f"{server.url}/a?secret", open_timeout=3, **AT_ONCE
            ) as connections:
                began = trio.current_time()
                await anext(connections)
        lines = [
            (record.levelname, record.getMessage())
            for record in caplog.records
            if record.name == "trio_upgrade.websocket"
        ]

        assert trio.current_time() - began == pytest.approx(3)
        assert lines == [
            ("INFO", f"no WebSocket to {server.url}/a: not open after 3 s")
        ]

    async def test_no_timeout(self, nursery) -> None:
        """None disables the limit of an attempt."""
        _, url = await serve(nursery, echo)
        async with reconnecting_websocket(url, open_timeout=None) as connections:
            await anext(connections)


class TestFailures:
    """Which attempts are repeated."""

    @pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
    async def test_passing_status(self, status, nursery) -> None:
        """An answer that may change by itself is waited out."""
        served = []

        async def app(request):
            served.append(request)
            if len(served) < 3:
                return Response(status)
            return accept_websocket(request, echo)

        server = await nursery.start(partial(serve_tcp, app, 0, host=HOST))
        async with reconnecting_websocket(server.url, **AT_ONCE) as connections:
            await anext(connections)

        assert len(served) == 3

    @pytest.mark.parametrize("status", [200, 302, 400, 401, 403, 404, 426, 501, 505])
    async def test_lasting_status(self, status, nursery) -> None:
        """A refusal that will not change is raised."""

        async def app(request):
            return Response(status, headers={"Upgrade": "x"} if status == 426 else ())

        server = await nursery.start(partial(serve_tcp, app, 0, host=HOST))
        with pytest.raises(UpgradeRefused):
            async with reconnecting_websocket(server.url, **AT_ONCE) as connections:
                await anext(connections)

    @pytest.mark.parametrize(
        ("failure", "passes"),
        [
            (ConnectionRefusedError(), True),
            (PeerGone(), True),
            (SocksRefused("", "p", 5), True),
            (SocksRefused("", "p", 2), False),
            (SocksRefused("", "p", None), False),
            (TLSFailed(), False),
            (IllegalSwitch("x"), False),
            (ValueError(), False),
        ],
        ids=lambda value: type(value).__name__,
    )
    async def test_others(self, failure, passes, monkeypatch) -> None:
        """A lost connection is made again; a certificate does not change by itself."""
        attempts = []

        async def dial(*args, **kwargs):
            attempts.append(failure)
            raise failure if len(attempts) == 1 else KeyError

        monkeypatch.setattr(WebSocketDialler, "dial", dial)
        with pytest.raises(KeyError if passes else type(failure)):
            async with reconnecting_websocket("ws://a", **AT_ONCE) as connections:
                await anext(connections)

    @pytest.mark.parametrize(("status", "passes"), [(503, True), (407, False)])
    async def test_proxy(self, status, passes, monkeypatch) -> None:
        """The status of a proxy counts as that of the server."""
        peer = ScriptedPeer(okay(b"", status=f"{status} x"))
        connection = await open_connection("http://a", stream=peer)
        response = await connection.request("GET", "/")
        await connection.aclose()
        refusal = TunnelRefused(response, "proxy")

        assert reconnecting._may_pass(refusal) == passes

    async def test_nothing_is_left(self, nursery, monkeypatch) -> None:
        """If the loop is left while a connection is made, it is closed."""

        async def fail(*args, task_status):
            raise KeyError

        _, url = await serve(nursery, echo)
        monkeypatch.setattr(reconnecting._Current, "run_tasks", fail)
        with pytest.raises(KeyError):
            async with reconnecting_websocket(url, **AT_ONCE) as connections:
                await anext(connections)


class TestArguments:
    """Mistakes of the caller."""

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"stream": ScriptedPeer()}, "stream= can be used for one connection only"),
            ({"first_delay": None}, "first_delay must be seconds, not None"),
            ({"longest_delay": "1"}, "longest_delay must be seconds or None, not str"),
            ({"open_timeout": "1"}, "open_timeout must be seconds or None, not str"),
            ({"frist_delay": 1}, "'frist_delay'. Did you mean 'first_delay'?"),
        ],
    )
    def test_type(self, options, message) -> None:
        """A TypeError of the call."""
        with pytest.raises(TypeError) as caught:
            reconnecting_websocket("ws://a", **options)

        assert message in str(caught.value)

    def test_value(self) -> None:
        """A ValueError of the call."""
        with pytest.raises(ValueError, match="open_timeout must not be negative"):
            reconnecting_websocket("ws://a", open_timeout=-1)
