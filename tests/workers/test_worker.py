"""A worker and what it says to its supervisor; here that is the test."""

from __future__ import annotations

import inspect
import math
import socket
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from trio_upgrade import (
    Request,
    Response,
    ServeOptions,
    Server,
    Upgrade,
    UpgradedStream,
    Worker,
    open_connection,
    open_upgrade,
    serve_listeners,
    serve_stream,
)
from trio_upgrade._streams.readiness import has_input
from trio_upgrade._streams.socket_listener import DirectSocketListener
from trio_upgrade._streams.tcp_listeners import open_tcp_listeners
from trio_upgrade._workers.worker import DRAIN, DRAIN_LAST, END_GRACE, LEAVE

from ..apps import echo_app
from ..interop.programs import HOST
from ..tls import make_tls_contexts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

GET = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


class Scene:
    """A worker that runs, and the supervisor's end of its channel."""

    def __init__(self, worker: Worker, supervisor: trio.SocketStream, url: str) -> None:
        self.worker = worker
        self.supervisor = supervisor
        self.url = url
        self.ended = trio.Event()

    async def run(self, main: Callable[[Worker], Awaitable[None]]) -> None:
        await self.worker.run(main)
        self.ended.set()

    async def read_line(self) -> bytes:
        return bytes(await self.supervisor.receive_some())


async def work(worker: Worker) -> None:
    """Serve as most workers do."""
    await worker.serve(echo_app)


@asynccontextmanager
async def working(
    main: Callable[[Worker], Awaitable[None]] = work,
    *,
    grace: float = 5,
    jitter: float | None = None,
    inherited: bool = False,
) -> AsyncIterator[Scene]:
    """Run a worker; its socket stays open in the supervisor, as it does in life."""
    ours, theirs = socket.socketpair()
    (listener,) = await open_tcp_listeners(0, host=HOST, backlog=None, reuse_port=False)
    port = listener.socket.getsockname()[1]
    copy = socket.socket(fileno=socket.dup(listener.socket.fileno()))
    listener.inherited = inherited
    worker = Worker(1, [listener], theirs, grace=grace, jitter=jitter)
    with theirs, copy:
        async with trio.SocketStream(trio.socket.from_stdlib_socket(ours)) as stream:
            scene = Scene(worker, stream, f"http://{HOST}:{port}")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(scene.run, main)
                yield scene
                await scene.ended.wait()
        await listener.aclose()


async def test_attributes() -> None:
    """A worker knows its place, its listeners, and the grace, None for no limit."""
    with socket.socket() as unused:
        assert Worker(3, [], unused, grace=math.inf).grace is None
    async with working() as scene:
        assert (scene.worker.number, scene.worker.grace) == (1, 5)
        (listener,) = scene.worker.listeners
        assert isinstance(listener, DirectSocketListener)
        await scene.supervisor.send_all(DRAIN)


@pytest.mark.parametrize("early", [False, True])
async def test_leaving(early: bool) -> None:
    """A worker that will drain serves on, and its answers can say so."""
    told = trio.Event()

    async def app(request: Request) -> Response:
        return Response(503 if request.server.is_leaving else 200)

    async def main(worker: Worker) -> None:
        if early:
            # Before it serves.
            await told.wait()
            await trio.testing.wait_all_tasks_blocked(0.01)
        await worker.serve(app)

    async with working(main) as scene:
        if early:
            await scene.supervisor.send_all(LEAVE)
            told.set()
        await scene.read_line()
        async with await open_connection(scene.url) as connection:
            if not early:
                assert (await connection.request("GET", "/")).status == 200
                await scene.supervisor.send_all(LEAVE)
                while (await connection.request("GET", "/")).status != 503:
                    pass
            assert (await connection.request("GET", "/")).status == 503
        await scene.supervisor.send_all(DRAIN_LAST)


@pytest.mark.parametrize("jitter", [None, 1e-9, 60])
async def test_jitter(jitter: float | None) -> None:
    """Connections are told over the jitter; a second order ends it."""
    told = trio.Event()

    async def handler(request: Request, stream: UpgradedStream, _head: bytes) -> None:
        await request.server.wait_draining()
        await stream.send_all(b"goodbye")
        told.set()

    async def app(_request: Request) -> Upgrade:
        return Upgrade("echo", handler)

    async def main(worker: Worker) -> None:
        assert worker.jitter == jitter
        await worker.serve(app)

    async with working(main, grace=math.inf, jitter=jitter) as scene:
        await scene.read_line()
        streams = [(await open_upgrade(scene.url, "echo")).stream for _ in range(2)]
        await scene.supervisor.send_all(DRAIN)
        await told.wait()
        await trio.testing.wait_all_tasks_blocked(0.01)
        ended = [stream for stream in streams if has_input(stream)]
        assert len(ended) == (1 if jitter == 60 else 2)
        await scene.supervisor.send_all(END_GRACE)
        await scene.ended.wait()
        for stream in streams:
            await stream.aclose()


async def test_ready_and_drained() -> None:
    """It says when it serves; told to drain, it lets connections end, and returns."""
    async with working() as scene:
        assert await scene.read_line() == f"ready {scene.url}\n".encode()
        async with await open_upgrade(scene.url, "echo") as (_, stream, _):
            await scene.supervisor.send_all(DRAIN)
            await stream.send_all(b"still here")
            assert await stream.receive_some() == b"still here"
        await scene.ended.wait()


async def test_end_of_the_grace() -> None:
    """The second order resets what is left."""
    async with working(grace=math.inf) as scene:
        await scene.read_line()
        async with await open_upgrade(scene.url, "echo") as (_, stream, _):
            await scene.supervisor.send_all(DRAIN)
            await stream.send_all(b"still here")
            assert await stream.receive_some() == b"still here"
            await scene.supervisor.send_all(END_GRACE)
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()


async def test_both_orders_at_once() -> None:
    """Two orders may come in one receive."""
    async with working(grace=math.inf) as scene:
        await scene.read_line()
        async with await open_upgrade(scene.url, "echo") as (_, stream, _):
            await scene.supervisor.send_all(DRAIN_LAST + END_GRACE)
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()


@pytest.mark.parametrize("unread", [False, True])
async def test_end_of_the_supervisor(unread: bool) -> None:
    """If the supervisor is gone, whatever it has not read, the worker drains."""
    async with working() as scene:
        await trio.lowlevel.wait_readable(scene.supervisor.socket)
        if not unread:
            await scene.read_line()
        await scene.supervisor.aclose()
        await scene.ended.wait()
        # No error, although nothing can be said any more.
        scene.worker.ask_for_replacement()


@pytest.mark.parametrize(
    ("order", "inherited", "kept"),
    [
        (DRAIN, False, True),
        (DRAIN_LAST, False, False),
        # Another program opened the socket, and may go on with it.
        (DRAIN_LAST, True, True),
        (b"", False, False),
    ],
)
async def test_backlog(order: bytes, inherited: bool, kept: bool) -> None:
    """What waits in the backlog is kept for another process, if there is any."""
    async with working(inherited=inherited) as scene:
        await scene.read_line()
        (listener,) = scene.worker.listeners
        assert listener.inherited
        if order:
            await scene.supervisor.send_all(order)
        else:
            await scene.supervisor.aclose()
        await scene.ended.wait()

        assert listener.inherited == kept


async def test_tls() -> None:
    """With TLS settings it serves HTTPS."""
    client_context, server_context = make_tls_contexts()

    async def main(worker: Worker) -> None:
        await worker.serve(echo_app, ssl_context=server_context)

    async with working(main) as scene:
        url = scene.url.replace("http", "https")
        assert await scene.read_line() == f"ready {url}\n".encode()
        async with await open_connection(
            url, ssl_context=client_context, server_hostname="localhost"
        ) as connection:
            assert (await connection.request("GET", "/")).status == 200
        await scene.supervisor.send_all(DRAIN)


async def test_task_status() -> None:
    """A main that needs its server gets it."""
    servers: list[Server] = []

    async def main(worker: Worker) -> None:
        async with trio.open_nursery() as nursery:
            servers.append(await nursery.start(partial(worker.serve, echo_app)))

    async with working(main) as scene:
        await scene.read_line()
        await trio.testing.wait_all_tasks_blocked()
        assert servers[0].url == scene.url
        await scene.supervisor.send_all(DRAIN)


async def test_mistakes() -> None:
    """A wrong argument is an error before the worker is ready."""

    async def main(worker: Worker) -> None:
        with pytest.raises(TypeError, match=r"serve\(\) .* 'limit'.* mean 'limits'"):
            await worker.serve(echo_app, limit=1)  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="ssl_context must be"):
            await worker.serve(echo_app, ssl_context=1)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="app"):
            await worker.serve(1)  # type: ignore[arg-type]

    async with working(main) as scene:
        await scene.ended.wait()


def test_signature() -> None:
    """serve() shows the options of all servers."""
    shown = inspect.signature(Worker.serve).parameters

    own = ["self", "app", "ssl_context", "https_compatible", "task_status"]
    assert [*shown][:5] == own
    assert [*shown][5:] == [*ServeOptions.__annotations__]


async def test_own_servers() -> None:
    """A main may start servers itself: each is drained, also one that is added later."""
    add = trio.Event()

    async def main(worker: Worker) -> None:
        async with trio.open_nursery() as nursery:
            serve = partial(serve_listeners, echo_app, worker.listeners)
            worker.ready(await nursery.start(serve))
            await add.wait()
            more = await trio.open_tcp_listeners(0, host=HOST)
            worker.ready(await nursery.start(serve_listeners, echo_app, more))

    async with working(main) as scene:
        assert await scene.read_line() == f"ready {scene.url}\n".encode()
        await scene.supervisor.send_all(DRAIN)
        await trio.testing.wait_all_tasks_blocked()
        add.set()


async def test_server_without_a_url() -> None:
    """A server that no URL can name is a server, too."""

    async def main(worker: Worker) -> None:
        async def app(request: Request) -> Response:
            worker.ready(request.server)
            return Response(200)

        ours, theirs = trio.testing.memory_stream_pair()
        await ours.send_all(GET)
        await serve_stream(app, theirs)

    async with working(main) as scene:
        assert await scene.read_line() == b"ready \n"
        await scene.ended.wait()


async def test_no_server() -> None:
    """A worker without a server is ready when it says so, and is cancelled at the end."""

    async def main(worker: Worker) -> None:
        worker.ready()
        await trio.sleep_forever()

    async with working(main) as scene:
        assert await scene.read_line() == b"ready \n"
        await scene.supervisor.send_all(DRAIN)


async def test_not_ready() -> None:
    """A worker that is told to end before it is ready is cancelled."""

    async def main(worker: Worker) -> None:
        await trio.sleep_forever()

    async with working(main) as scene:
        await scene.supervisor.send_all(DRAIN_LAST)


async def test_replacement() -> None:
    """It asks for its replacement by a word to the supervisor, and goes on."""
    async with working() as scene:
        await scene.read_line()
        scene.worker.ask_for_replacement()
        assert await scene.read_line() == b"replace\n"
        async with await open_connection(scene.url) as connection:
            assert (await connection.request("GET", "/")).status == 200
        await scene.supervisor.send_all(DRAIN)


async def test_error_of_main() -> None:
    """What main raises comes out as it is, not in a group."""

    async def main(worker: Worker) -> None:
        raise ValueError("of main")

    ours, theirs = socket.socketpair()
    with theirs:
        worker = Worker(0, [], theirs, grace=1)
        with ours, pytest.raises(ValueError, match="of main"):
            await worker.run(main)
        # The task of the worker ends with the channel, or with Trio.
        await trio.testing.wait_all_tasks_blocked()
