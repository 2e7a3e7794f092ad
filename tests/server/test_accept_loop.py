"""The loop that accepts: its errors, and a server that is full."""

from __future__ import annotations

import errno
import logging
import os
import resource
import socket
from contextlib import suppress
from functools import partial

import pytest
import trio
import trio.testing

from trio_upgrade import (
    Limits,
    open_connection,
    serve_listeners,
    serve_tcp,
    serve_unix,
)

from ..apps import echo_app
from ..servers import MemoryListener
from ..wire import SWITCHED, UP, get, okay


class OverloadedListener(MemoryListener):
    """A listener that has run out of descriptors for a while."""

    def __init__(self, *errnos: int) -> None:
        super().__init__()
        self.errnos = list(errnos)

    async def accept(self) -> trio.abc.Stream:
        if self.errnos:
            await trio.lowlevel.checkpoint()
            raise OSError(self.errnos.pop(), "out of something")
        return await super().accept()


class TestAccept:
    """Errors of accept()."""

    async def test_out_of_descriptors(self, autojump_clock, caplog) -> None:
        """The server waits and recovers, and logs it once."""
        listener = OverloadedListener(errno.EMFILE, errno.ENFILE, errno.EMFILE)
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_listeners, echo_app, [listener])
            stream = await listener.connect()
            await stream.send_all(UP)
            assert await stream.receive_some() == SWITCHED
            assert len(caplog.records) == 1
            # A connection that is accepted meanwhile does not end the episode; time does.
            for seconds in (5, 20):
                await trio.sleep(seconds)
                listener.errnos = [errno.ENOMEM]
                for _ in range(2):
                    await listener.connect()
                    await trio.testing.wait_all_tasks_blocked()
            await trio.sleep(1)
            nursery.cancel_scope.cancel()

        assert trio.current_time() > 26
        assert len(caplog.records) == 2
        assert "cannot accept for now" in caplog.text

    @pytest.mark.ids("F44")
    @pytest.mark.parametrize("path", [None, "socket"])
    async def test_as_many_as_allowed(
        self, path: str | None, tmp_path, mock_clock, caplog
    ) -> None:
        """Further connections wait; the log says so once, and the statistics how many."""
        limits = Limits(connections=2)
        serve = (
            partial(serve_tcp, echo_app, 0, host="127.0.0.1", limits=limits)
            if path is None
            else partial(serve_unix, echo_app, tmp_path / path, limits=limits)
        )
        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve)
            name = server.listeners[0].socket.getsockname()
            clients = []
            for _ in range(5):
                client = socket.socket(server.listeners[0].socket.family)
                client.connect(name)
                clients.append(client)
            while server.statistics().connections < 2:
                await trio.testing.wait_all_tasks_blocked()
            counts = server.statistics()
            assert (counts.connections, counts.waiting) == (2, 1 if path else 3)
            (record,) = caplog.records
            assert record.getMessage() == (
                "as many connections as Limits.connections allows, 2: others wait"
            )
            for client in clients[:3]:
                client.close()
            while server.statistics().total_connections < 5:
                await trio.testing.wait_all_tasks_blocked()
            assert len(caplog.records) == 1
            assert server.statistics().waiting == 0
            # Another episode.
            mock_clock.jump(11)
            for client in clients[3:]:
                client.close()
            while server.statistics().connections:
                await trio.testing.wait_all_tasks_blocked()
            with socket.socket(server.listeners[0].socket.family) as first:
                first.connect(name)
                with socket.socket(first.family) as second:
                    second.connect(name)
                    while server.statistics().total_connections < 7:
                        await trio.testing.wait_all_tasks_blocked()
            assert len(caplog.records) == 2
            await server.drain(0)
            assert server.statistics().waiting == 0

    async def test_listener_that_fails(self) -> None:
        """Any other error ends the listener and the server."""
        listener = OverloadedListener(errno.EBADF)
        with pytest.RaisesGroup(OSError):
            await serve_listeners(echo_app, [listener])

        assert listener.closed

    async def test_drained_while_it_waits(self, autojump_clock) -> None:
        """A drain does not wait for descriptors."""
        listener = OverloadedListener(*[errno.EMFILE] * 100)
        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve_listeners, echo_app, [listener])
            await trio.sleep(1)
            await server.drain(None)

        assert trio.current_time() == 1
        assert listener.closed

    async def test_real_exhaustion(self, caplog) -> None:
        """Really out of descriptors: live connections go on, others come later."""
        spent: list[int] = []

        async with trio.open_nursery() as nursery:
            server = await nursery.start(
                partial(serve_tcp, echo_app, 0, host="127.0.0.1")
            )
            async with await open_connection(server.url) as live:
                assert await (await live.request("GET", "/1")).read() == b"/1"
                port = server.listeners[0].socket.getsockname()[1]
                client = socket.socket()
                soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
                used = len(os.listdir("/proc/self/fd"))
                try:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 20, hard))
                    with suppress(OSError):
                        while True:
                            spent.append(os.dup(0))
                    client.connect(("127.0.0.1", port))
                    client.sendall(get("/2"))
                    while not caplog.records:
                        await trio.lowlevel.checkpoint()
                    assert await (await live.request("GET", "/3")).read() == b"/3"
                finally:
                    for descriptor in spent:
                        os.close(descriptor)
                    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                with trio.socket.from_stdlib_socket(client) as waiting:
                    assert await waiting.recv(1000) == okay(b"/2")
            nursery.cancel_scope.cancel()

        (record,) = caplog.records
        assert record.levelno == logging.ERROR
