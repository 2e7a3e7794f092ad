"""open_server(): what leaves its block, and that nothing stays open."""

from __future__ import annotations

import errno
import socket
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from trio_upgrade import (
    Request,
    Response,
    Server,
    open_connection,
    open_server,
    serve_listeners,
    serve_ssl_over_tcp,
    serve_stream,
    serve_tcp,
    serve_unix,
)
from trio_upgrade.testing import ScriptedPeer

from ..apps import echo_app
from ..cancelling import CancelAtStep
from ..servers import MemoryListener
from ..tls import make_tls_contexts
from ..wire import get

HOST = "127.0.0.1"
make: Any = open_server


class ServerFailed(Exception):
    """What the server raises in these tests."""


def failing(error: BaseException, wait: trio.Event | None = None):
    """Return a function that serves, and fails after it has started."""

    async def serve(app: object, *, task_status: trio.TaskStatus[Server]) -> None:
        task_status.started(app)  # type: ignore[arg-type]
        if wait is not None:
            await wait.wait()
        raise error

    return partial(make, serve, None)


class TestServing:
    """The server runs as long as the block."""

    async def test_tcp(self) -> None:
        """The server accepts when the block begins, and its port is free after it."""
        async with open_server(
            serve_tcp, echo_app, 0, host=HOST, strict=True
        ) as server:
            assert isinstance(server, Server)
            async with await open_connection(server.url + "/") as connection:
                assert await (await connection.request("GET", "/a")).read() == b"/a"
            port = server.port
        with pytest.raises(OSError, match="all attempts"):
            await trio.open_tcp_stream(HOST, port)
        assert repr(server) == "<Server, ended>"

    async def test_others(self, tmp_path) -> None:
        """Every function with listeners works, and each server has its URL."""
        _, context = make_tls_contexts()
        listeners = await trio.open_tcp_listeners(0, host=HOST)
        for opened, scheme in (
            (
                open_server(serve_ssl_over_tcp, echo_app, 0, context, host=HOST),
                "https:",
            ),
            (open_server(serve_unix, echo_app, tmp_path / "socket"), "http+unix:"),
            (open_server(serve_listeners, echo_app, listeners), "http:"),
        ):
            async with opened as server:
                assert server.url.startswith(scheme)
                assert repr(server) == f"<Server at {server.url}>"
            await server.wait_ended()

    async def test_drained(self) -> None:
        """A drain ends the server without an error, and the block goes on."""
        async with open_server(serve_tcp, echo_app, 0, host=HOST) as server:
            await server.drain(grace=5)
            await trio.testing.wait_all_tasks_blocked()
            gone = True
        assert gone

    async def test_draining_repr(self) -> None:
        """A server that drains says so."""
        listener = MemoryListener()
        async with open_server(serve_listeners, echo_app, [listener]) as server:
            assert repr(server) == "<Server>"
            near = await listener.connect()
            await trio.testing.wait_all_tasks_blocked()
            server.start_drain(None)
            assert repr(server) == "<Server, draining>"
            await near.aclose()

    async def test_connections_are_cut(self) -> None:
        """Without a drain the connections end with the block."""
        async with open_server(serve_tcp, echo_app, 0, host=HOST) as server:
            stream = await trio.open_tcp_stream(HOST, server.port)
            await stream.send_all(get("/a"))
            await stream.receive_some()
        async with stream:
            with suppress(trio.BrokenResourceError):
                assert await stream.receive_some() == b""


class TestLeaving:
    """What the block raises comes out as it is."""

    @pytest.mark.parametrize(
        "error",
        [
            OSError(5, "a"),
            ExceptionGroup("a", [ValueError("b")]),
            BaseExceptionGroup("a", [KeyboardInterrupt(), ValueError("b")]),
            KeyboardInterrupt(),
        ],
        ids=lambda error: type(error).__name__,
    )
    async def test_error(self, error: BaseException) -> None:
        """An error and a group of one come out themselves, without a context."""
        with pytest.raises(BaseException) as caught:  # noqa: PT011
            async with open_server(serve_tcp, echo_app, 0, host=HOST) as server:
                raise error

        assert caught.value is error
        assert error.__context__ is error.__cause__ is None
        await server.wait_ended()

    async def test_cancelled(self) -> None:
        """A cancellation of a scope around it ends the block."""
        with trio.CancelScope() as scope:
            async with open_server(serve_tcp, echo_app, 0, host=HOST) as server:
                scope.cancel()
                with pytest.raises(trio.Cancelled):
                    await trio.sleep_forever()
                await trio.sleep_forever()
        assert scope.cancelled_caught
        await server.wait_ended()

    async def test_cancelled_while_it_closes(self) -> None:
        """A cancellation that comes at the end is not lost."""

        async def serve(app: object, *, task_status: trio.TaskStatus[Server]) -> None:
            task_status.started(app)  # type: ignore[arg-type]
            try:
                await trio.sleep_forever()
            finally:
                outer.cancel()

        with trio.CancelScope() as outer:
            async with make(serve, None):
                pass
            await trio.lowlevel.checkpoint()
        assert outer.cancelled_caught

    async def test_group_with_cancelled(self) -> None:
        """A group with a Cancelled of a scope around it comes out as that group."""
        raised = []
        with trio.CancelScope() as scope:
            with pytest.raises(BaseExceptionGroup) as caught:
                async with open_server(serve_tcp, echo_app, 0, host=HOST):
                    scope.cancel()
                    try:
                        await trio.sleep_forever()
                    except trio.Cancelled as exc:
                        raised.append(BaseExceptionGroup("a", [exc, ValueError("b")]))
                        raise raised[0] from None
            assert caught.value is raised[0]

    async def test_cancelled_at_every_step(self) -> None:
        """Cancelled at any step, also while it opens, no socket is left."""
        for step in range(1, 100):
            with socket.socket() as taken:
                taken.bind((HOST, 0))
                port = taken.getsockname()[1]
            instrument = CancelAtStep(step)
            trio.lowlevel.add_instrument(instrument)
            try:
                with instrument.scope:
                    async with open_server(serve_tcp, echo_app, port, host=HOST):
                        await trio.lowlevel.checkpoint()
            finally:
                trio.lowlevel.remove_instrument(instrument)
            with pytest.raises(OSError, match="all attempts"):
                await trio.open_tcp_stream(HOST, port)
            if not instrument.scope.cancelled_caught:
                assert step > 2
                return
        raise AssertionError


class TestServerFails:
    """A failure of the server comes out alone."""

    async def test_bug_of_the_app(self) -> None:
        """With strict=True a bug ends the block, without the groups of our nurseries."""

        async def app(request: Request) -> Response:
            raise ServerFailed from cause

        cause = OSError()
        with pytest.raises(ServerFailed) as caught:
            async with open_server(serve_tcp, app, 0, host=HOST, strict=True) as server:
                stream = await trio.open_tcp_stream(HOST, server.port)
                async with stream:
                    await stream.send_all(get("/"))
                    await trio.sleep_forever()

        assert caught.value.__cause__ is cause
        await server.wait_ended()

    @pytest.mark.parametrize(
        "error",
        [
            ServerFailed(),
            KeyboardInterrupt(),
            ExceptionGroup("a", [ServerFailed(), ValueError()]),
        ],
        ids=lambda error: type(error).__name__,
    )
    async def test_block_waits(self, error: BaseException) -> None:
        """The block is cancelled; no Cancelled comes out with the failure."""
        with pytest.raises(BaseException) as caught:  # noqa: PT011
            async with failing(error)():
                await trio.sleep_forever()

        assert caught.value is error
        assert error.__context__ is None

    async def test_block_has_ended(self) -> None:
        """So does a failure while the server is closed."""

        async def serve(app: object, *, task_status: trio.TaskStatus[Server]) -> None:
            task_status.started(app)  # type: ignore[arg-type]
            try:
                await trio.sleep_forever()
            finally:
                raise ServerFailed

        with pytest.raises(ServerFailed):
            async with make(serve, None):
                pass

    async def test_cancelled_as_well(self) -> None:
        """A failure is not lost to a cancellation of the block."""
        with trio.CancelScope() as scope, pytest.raises(ServerFailed):
            async with failing(ServerFailed())():
                scope.cancel()
                await trio.sleep_forever()

    async def test_both_fail(self, caplog) -> None:
        """What the block raises comes out; the other failure is in the log."""
        error, event = ValueError("a"), trio.Event()
        # The server has been woken when the block is left, so it is not cancelled.
        with pytest.raises(ValueError, match="a") as caught:
            async with failing(ServerFailed("b"), event)():
                event.set()
                raise error

        assert caught.value is error
        (record,) = caplog.records
        assert record.name == "trio_upgrade.server"
        assert isinstance(record.exc_info[1], ServerFailed)

    async def test_both_fail_in_a_group(self, caplog) -> None:
        """A group of the block loses only the Cancelled that our failure has caused."""
        with pytest.raises(ExceptionGroup) as caught:
            async with failing(ServerFailed())():
                try:
                    await trio.sleep_forever()
                except trio.Cancelled as exc:
                    error = BaseExceptionGroup("a", [ValueError("b"), exc])
                    raise error from None

        assert caught.group_contains(ValueError, match="b")
        assert len(caught.value.exceptions) == 1
        assert caught.value.message == "a"
        assert len(caplog.records) == 1


class TestOpening:
    """Errors before the block begins."""

    async def test_port_taken(self) -> None:
        """The OSError comes out alone."""
        async with open_server(serve_tcp, echo_app, 0, host=HOST) as server:
            with pytest.raises(OSError, match="in use") as caught:
                async with open_server(serve_tcp, echo_app, server.port, host=HOST):
                    raise AssertionError
        assert caught.value.errno == errno.EADDRINUSE

    @pytest.mark.parametrize(
        ("call", "match"),
        [
            (
                partial(make, serve_tcp, echo_app, "1337"),
                "port must be an int, not str",
            ),
            (partial(make, serve_tcp, echo_app, 0, stric=1), "Did you mean 'strict'"),
            (partial(make, serve_tcp), "missing 2 required positional arguments"),
            (partial(make, serve_stream, echo_app, ScriptedPeer()), "'task_status'"),
        ],
    )
    async def test_mistakes(self, call, match: str) -> None:
        """Mistakes are the errors of the function, when the block is entered."""
        with pytest.raises(TypeError, match=match):
            async with call():
                raise AssertionError

    async def test_app_instead_of_function(self) -> None:
        """An error of the call itself has a note that says what is wanted."""
        call = partial(make, echo_app, 1337)
        with pytest.raises(TypeError, match="'task_status'") as caught:
            async with call():
                raise AssertionError

        (note,) = caught.value.__notes__
        assert "such as serve_tcp and its arguments" in note

    async def test_type_error_of_the_function(self) -> None:
        """A TypeError from inside the function has no such note."""

        async def fails(*, task_status) -> None:
            raise TypeError("a bug")

        with pytest.raises(TypeError, match="a bug") as caught:
            async with make(fails):
                raise AssertionError

        assert not hasattr(caught.value, "__notes__")

    def test_mistakes_of_open_server(self) -> None:
        """A server is opened by a function, and task_status is ours."""
        with pytest.raises(TypeError, match=r"a function such as .* not str$"):
            make("serve_tcp")
        with pytest.raises(TypeError, match="gives task_status itself"):
            make(serve_tcp, echo_app, 0, task_status=None)

    async def test_never_started(self) -> None:
        """A function that returns without a server is a RuntimeError of Trio."""

        async def serve(*, task_status: object) -> None:
            pass

        with pytest.raises(RuntimeError, match="child exited without calling"):
            async with make(serve):
                raise AssertionError


class TestPort:
    """Server.port: one TCP port, or a clear error."""

    async def test_several_listeners_on_one_port(self) -> None:
        """Two listeners may share a port, and it is that one."""
        (first,) = await trio.open_tcp_listeners(0, host=HOST)
        port = first.socket.getsockname()[1]
        (second,) = await trio.open_tcp_listeners(port, host="127.0.0.2")
        listeners = [first, second]
        async with open_server(serve_listeners, echo_app, listeners) as server:
            assert server.port == port
        with pytest.raises(ValueError, match="on no TCP port, or has ended"):
            server.port  # noqa: B018

    async def test_several_ports(self) -> None:
        """Of several ports the error names all."""
        listeners = [
            *await trio.open_tcp_listeners(0, host=HOST),
            *await trio.open_tcp_listeners(0, host=HOST),
        ]
        ports = sorted(each.socket.getsockname()[1] for each in listeners)
        async with open_server(serve_listeners, echo_app, listeners) as server:
            with pytest.raises(ValueError, match="several ports: ") as caught:
                server.port  # noqa: B018
        assert str(caught.value).endswith(f"{ports[0]}, {ports[1]}")

    async def test_none(self, tmp_path) -> None:
        """A Unix socket and memory have no port."""
        for opened in (
            open_server(serve_unix, echo_app, tmp_path / "socket"),
            open_server(serve_listeners, echo_app, [MemoryListener()]),
        ):
            async with opened as server:
                with pytest.raises(ValueError, match="listens on no TCP port"):
                    server.port  # noqa: B018

    async def test_tls(self) -> None:
        """The port of a listener with TLS is that of the socket below."""
        _, context = make_tls_contexts()
        opened = open_server(serve_ssl_over_tcp, echo_app, 0, context, host=HOST)
        async with opened as server:
            assert server.url == f"https://{HOST}:{server.port}"
