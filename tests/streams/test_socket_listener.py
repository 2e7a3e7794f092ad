"""DirectSocketListener: accepting in batches."""

from __future__ import annotations

import errno
import socket
from functools import partial

import pytest
import trio
import trio.testing

from trio_upgrade import serve_listeners
from trio_upgrade._streams.socket_listener import (
    DirectSocketListener,
    adopt_listener,
    share_listener,
)

from ..apps import echo_app
from ..servers import MemoryListener
from ..wire import get, okay


async def listen() -> DirectSocketListener:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    return adopt_listener(listener)


async def dial(listener: DirectSocketListener, count: int) -> list[trio.SocketStream]:
    host, port = listener.socket.getsockname()
    return [await trio.open_tcp_stream(host, port) for _ in range(count)]


async def close(*resources: trio.abc.AsyncResource) -> None:
    for resource in resources:
        await resource.aclose()


def script(listener: DirectSocketListener, *errors: int | None) -> None:
    """Let accept(2) raise these errors, None being a success; then it works as usual."""
    accept, left = listener._accept, list(errors)

    def scripted() -> tuple[int, object]:
        error = left.pop(0) if left else None
        if error is not None:
            raise OSError(error, "scripted")
        return accept()

    listener._accept = scripted


async def test_batches() -> None:
    """Waiting connections are accepted together, up to the limit."""
    listener = await listen()
    dialled = await dial(listener, 5)

    first = await listener.accept_some(3)
    second = await listener.accept_some(3)

    assert [len(first), len(second)] == [3, 2]
    names = [stream.socket.getpeername() for stream in first + second]
    assert names == [stream.socket.getsockname() for stream in dialled]
    await close(listener, *first, *second, *dialled)


async def test_small_batches() -> None:
    """A listener that other processes share takes fewer, whatever the limit allows."""
    listener = await listen()
    dialled = await dial(listener, 5)
    listener.batch = 2

    first = await listener.accept_some(3)
    second = listener.accept_some_nowait(3)

    # At the end of a drain all are taken.
    assert [len(first), len(second)] == [2, 3]
    await close(listener, *first, *second, *dialled)


async def test_accept_waits_for_one() -> None:
    """accept() keeps Trio's contract: it waits for one connection and returns it."""
    listener = await listen()
    accepted = []

    async def accept() -> None:
        accepted.append(await listener.accept())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        await trio.testing.wait_all_tasks_blocked()
        assert not accepted
        dialled = await dial(listener, 1)

    await accepted[0].send_all(b"hello")
    assert await dialled[0].receive_some() == b"hello"
    await close(listener, *accepted, *dialled)


async def test_options_are_inherited() -> None:
    """Accepted sockets inherit TCP_NODELAY and TCP_NOTSENT_LOWAT from the listener."""
    listener = await listen()
    dialled = await dial(listener, 1)

    stream = await listener.accept()

    assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    if hasattr(trio.socket, "TCP_NOTSENT_LOWAT"):
        low_water = trio.socket.TCP_NOTSENT_LOWAT
        assert stream.getsockopt(socket.IPPROTO_TCP, low_water) == 16384
    await close(listener, stream, *dialled)


async def test_unix(tmp_path) -> None:
    """It accepts from a Unix socket as well."""
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(tmp_path / "sock"))
    sock.listen()
    sock.setblocking(False)
    listener = DirectSocketListener(sock)
    near = await trio.open_unix_socket(tmp_path / "sock")

    far = await listener.accept()

    await near.send_all(b"hello")
    assert await far.receive_some() == b"hello"
    await close(listener, near, far)


async def test_gone_before_accepted() -> None:
    """A connection that is already gone is skipped, and the next one is accepted."""
    listener = await listen()
    dialled = await dial(listener, 1)
    script(listener, errno.ECONNABORTED, errno.EPROTO)

    stream = await listener.accept()

    assert stream.socket.getpeername() == dialled[0].socket.getsockname()
    await close(listener, stream, *dialled)


async def test_nothing_left_of_the_system() -> None:
    """EMFILE is raised to the caller, after the connections accepted before it."""
    listener = await listen()
    dialled = await dial(listener, 2)
    script(listener, None, errno.EMFILE, errno.EMFILE)

    (first,) = await listener.accept_some(64)
    with pytest.raises(OSError, match="scripted") as caught:
        await listener.accept_some(64)
    (second,) = await listener.accept_some(64)

    assert caught.value.errno == errno.EMFILE
    await close(listener, first, second, *dialled)


async def test_cancelled_accepts_nothing() -> None:
    """A cancelled call leaves the connection for the next call."""
    listener = await listen()
    dialled = await dial(listener, 1)
    with trio.CancelScope() as scope:
        scope.cancel()
        await listener.accept()

    assert scope.cancelled_caught
    await close(listener, await listener.accept(), *dialled)


async def test_closing_wakes() -> None:
    """accept() raises ClosedResourceError if closed before, or while it waits."""
    listener = await listen()

    async def accept() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await listener.accept()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        await trio.testing.wait_all_tasks_blocked()
        await listener.aclose()
    await accept()
    await listener.aclose()


async def test_trio_serves_it() -> None:
    """trio.serve_listeners takes it like any other listener."""
    listener = await listen()
    (dialled,) = await dial(listener, 1)

    async def hello(stream: trio.abc.Stream) -> None:
        await stream.send_all(b"hello")

    async with trio.open_nursery() as nursery:
        await nursery.start(partial(trio.serve_listeners, hello, [listener]))
        assert await dialled.receive_some() == b"hello"
        assert await dialled.receive_some() == b""
        nursery.cancel_scope.cancel()
    await dialled.aclose()


class TestShare:
    """A listener of Trio's whose socket one of ours uses, too."""

    @pytest.mark.ids("F43")
    async def test_accepts(self) -> None:
        """Ours accepts, and Trio's can still be asked."""
        (given,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        listener = share_listener(given)
        assert isinstance(listener, DirectSocketListener)
        dialled = await dial(listener, 2)

        streams = await listener.accept_some(3)

        assert len(streams) == 2
        assert given.socket.getsockname() == listener.socket.getsockname()
        await close(listener, *streams, *dialled)

    @pytest.mark.ids("F43")
    @pytest.mark.parametrize("ours", [False, True])
    async def test_close(self, ours: bool) -> None:
        """Closing either closes both, and wakes a task that waits."""
        (given,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        listener = share_listener(given)

        async def accept() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await listener.accept()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            await trio.testing.wait_all_tasks_blocked()
            await (listener if ours else given).aclose()
        await accept()
        assert given.socket.fileno() == -1
        await close(listener, given)

    @pytest.mark.ids("F43")
    async def test_other_listeners(self) -> None:
        """Any other listener is returned itself, and one on a socket of another kind."""

        class Socket(trio.socket.SocketType):
            did_shutdown_SHUT_WR = False

            def __init__(self) -> None:
                pass

            def setsockopt(self, *_: object) -> None:
                pass

            def getsockopt(self, _level: int, option: int) -> int:  # type: ignore[override]
                return socket.SOCK_STREAM if option == socket.SO_TYPE else 1

            @property
            def type(self) -> socket.SocketKind:
                return socket.SOCK_STREAM

        for listener in (MemoryListener(), trio.SocketListener(Socket())):
            assert share_listener(listener) is listener

    @pytest.mark.ids("F43")
    async def test_serve_listeners(self) -> None:
        """A server on listeners of Trio's lists them, and closes them at its end."""
        given = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve_listeners, echo_app, given)
            assert server.listeners == given
            stream = await trio.testing.open_stream_to_socket_listener(given[0])
            async with stream:
                await stream.send_all(get("/"))
                assert await stream.receive_some() == okay(b"/")
            await server.drain(None)

        assert [listener.socket.fileno() for listener in given] == [-1]

    @pytest.mark.ids("F43")
    async def test_batches(self, monkeypatch) -> None:
        """The server never calls the accept() of Trio's listener."""
        monkeypatch.setattr(trio.SocketListener, "accept", None)
        given = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_listeners, echo_app, given)
            stream = await trio.testing.open_stream_to_socket_listener(given[0])
            async with stream:
                await stream.send_all(get("/"))
                assert await stream.receive_some() == okay(b"/")
            nursery.cancel_scope.cancel()

    def test_trios_socket_has_pythons(self) -> None:
        """A Trio socket has Python's as ``_sock``; only its source documents that.

        If this fails on a new Trio, share_listener() has to get it in another way.
        """
        with socket.socket() as sock:
            wrapped = trio.socket.from_stdlib_socket(sock)
            assert wrapped._sock is sock  # type: ignore[attr-defined]


def test_python_socket_accept_wraps_its_private_accept() -> None:
    """socket.accept() wraps the descriptor from ``_accept()``, which we call ourselves.

    Only the source of socket.accept() documents that method. If this fails on a new
    Python, DirectSocketListener has to call something else.
    """
    assert "_accept" in socket.socket.accept.__code__.co_names
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        accept = listening._accept  # type: ignore[attr-defined]
        with pytest.raises(BlockingIOError):
            accept()
        with socket.create_connection(listening.getsockname()) as dialled:
            descriptor, address = accept()
            assert type(descriptor) is int
            with socket.socket(fileno=descriptor) as accepted:
                assert not accepted.get_inheritable()
                assert address == dialled.getsockname() == accepted.getpeername()
