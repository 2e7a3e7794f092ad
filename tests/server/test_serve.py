"""Accepting: errors of accept(), and how many connections are served at a time."""

from __future__ import annotations

from functools import partial

import pytest
import trio
import trio.testing

from trio_upgrade import (
    Limits,
    Request,
    Response,
    Server,
    serve_listeners,
    serve_ssl_over_tcp,
)

from ..apps import echo_app
from ..servers import MemoryListener
from ..tls import make_tls_contexts
from ..wire import SWITCHED, UP, get, okay


class TestConnectionsLimit:
    """Beyond ``Limits.connections`` a connection waits; it is not refused."""

    @pytest.mark.ids("R23")
    @pytest.mark.parametrize("listeners", [1, 2])
    async def test_backpressure(self, listeners: int) -> None:
        """No more are served at a time, however many listeners there are."""
        under_way: list[str] = []
        most = 0
        go_on = trio.Semaphore(0)

        async def slow(request: Request) -> Response:
            nonlocal most
            under_way.append(request.path)
            most = max(most, len(under_way), request.server.statistics().connections)
            await go_on.acquire()
            under_way.remove(request.path)
            return Response(200, request.path.encode(), {"Connection": "close"})

        sources = [MemoryListener() for _ in range(listeners)]
        async with trio.open_nursery() as nursery:
            server: Server = await nursery.start(
                partial(
                    serve_listeners,
                    slow,
                    sources,
                    limits=Limits(connections=1, linger=0),
                    strict=True,
                )
            )
            streams = []
            for number in range(2):
                for source in sources:
                    stream = await source.connect()
                    await stream.send_all(get(f"/{number}"))
                    streams.append(stream)
            for _ in streams:
                await trio.testing.wait_all_tasks_blocked()
                assert server.statistics().connections == 1
                go_on.release()
            for stream in streams:
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")
            await trio.testing.wait_all_tasks_blocked()
            assert server.statistics().connections == 0
            nursery.cancel_scope.cancel()

        assert most == 1

    @pytest.mark.parametrize("drained", [False, True])
    async def test_ended_while_some_wait(self, drained: bool, autojump_clock) -> None:
        """A connection that waits when the server ends is closed, accepted or not."""
        sources = [MemoryListener() for _ in range(2)]
        async with trio.open_nursery() as nursery:
            server = await nursery.start(
                partial(
                    serve_listeners, echo_app, sources, limits=Limits(connections=1)
                )
            )
            live = await sources[0].connect()
            await live.send_all(UP)
            assert await live.receive_some() == SWITCHED
            waiting = await sources[1].connect()
            await trio.testing.wait_all_tasks_blocked()
            assert server.statistics().total_connections == 1
            if drained:
                await server.drain(1)
            else:
                nursery.cancel_scope.cancel()

        assert await waiting.receive_some() == b""

    async def test_none(self) -> None:
        """None disables the limit."""
        source = MemoryListener()
        async with trio.open_nursery() as nursery:
            server = await nursery.start(
                partial(
                    serve_listeners, echo_app, [source], limits=Limits(connections=None)
                )
            )
            streams = [await source.connect() for _ in range(5)]
            await trio.testing.wait_all_tasks_blocked()
            assert server.statistics().connections == len(streams)
            nursery.cancel_scope.cancel()


async def test_serve_ssl_over_tcp() -> None:
    """HTTPS in one call, with the URL to dial."""
    client, context = make_tls_contexts()
    async with trio.open_nursery() as nursery:
        server = await nursery.start(
            partial(serve_ssl_over_tcp, echo_app, 0, context, host="127.0.0.1")
        )
        assert server.url.startswith("https://127.0.0.1:")
        port = int(server.url.rpartition(":")[2])
        stream = await trio.open_ssl_over_tcp_stream(
            "localhost", port, ssl_context=client, https_compatible=True
        )
        async with stream:
            await stream.send_all(get("/1"))
            assert await stream.receive_some() == okay(b"/1")
        await server.drain(1)
