"""DirectSocketListener: accepting in batches."""

from __future__ import annotations

import errno
import socket
from functools import partial

import pytest
import trio
import trio.testing

from trio_upgrade._streams.socket_listener import DirectSocketListener, adopt_listener


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
    """Let accept(2) say what is written here, then do what it does."""
    accept, left = listener._accept, list(errors)

    def scripted() -> tuple[int, object]:
        error = left.pop(0) if left else None
        if error is not None:
            raise OSError(error, "scripted")
        return accept()

    listener._accept = scripted


async def test_batches() -> None:
    """What is there is accepted together, no more at a time than asked for."""
    listener = await listen()
    dialled = await dial(listener, 5)

    first = await listener.accept_some(3)
    second = await listener.accept_some(3)

    assert [len(first), len(second)] == [3, 2]
    names = [stream.socket.getpeername() for stream in first + second]
    assert names == [stream.socket.getsockname() for stream in dialled]
    await close(listener, *first, *second, *dialled)


async def test_accept_waits_for_one() -> None:
    """accept() is Trio's: it waits for a connection and gives it."""
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
    """What is accepted has TCP_NODELAY and the low-water mark from its listener."""
    listener = await listen()
    dialled = await dial(listener, 1)

    stream = await listener.accept()

    assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    if hasattr(trio.socket, "TCP_NOTSENT_LOWAT"):
        low_water = trio.socket.TCP_NOTSENT_LOWAT
        assert stream.getsockopt(socket.IPPROTO_TCP, low_water) == 16384
    await close(listener, stream, *dialled)


async def test_unix(tmp_path) -> None:
    """Unix sockets are accepted from as well."""
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
    """A connection that is gone by now is passed over, the next one accepted."""
    listener = await listen()
    dialled = await dial(listener, 1)
    script(listener, errno.ECONNABORTED, errno.EPROTO)

    stream = await listener.accept()

    assert stream.socket.getpeername() == dialled[0].socket.getsockname()
    await close(listener, stream, *dialled)


async def test_nothing_left_of_the_system() -> None:
    """EMFILE is the caller's to deal with, and comes behind what was accepted before."""
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
    """Cancelled, it leaves the connection for the next call."""
    listener = await listen()
    dialled = await dial(listener, 1)
    with trio.CancelScope() as scope:
        scope.cancel()
        await listener.accept()

    assert scope.cancelled_caught
    await close(listener, await listener.accept(), *dialled)


async def test_closing_wakes() -> None:
    """Closed by another task, or before, it raises ClosedResourceError."""
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
    """trio.serve_listeners takes it, as any other listener."""
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
