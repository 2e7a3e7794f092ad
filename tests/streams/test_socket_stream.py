"""DirectSocketStream: Trio's stream contract on a kernel socket, TCP and Unix."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

import pytest
import trio
import trio.testing

from trio_upgrade._streams.resetting import reset_on_close
from trio_upgrade._streams.socket_stream import (
    DirectSocketStream,
    adopt_stream,
    set_options,
)

from ..sockets import clogged_tcp_pair, clogged_unix_pair, direct, tcp_pair, unix_pair
from ..tls import tls_pair

PAIRS = {"tcp": (tcp_pair, clogged_tcp_pair), "unix": (unix_pair, clogged_unix_pair)}


@pytest.mark.parametrize("kind", PAIRS)
async def test_contract(kind: str) -> None:
    """It keeps Trio's contract of a half-closeable stream, buffers full or not."""
    open_pair, clog_pair = PAIRS[kind]

    async def make():
        return direct(await open_pair())

    async def make_clogged():
        return direct(await clog_pair())

    await trio.testing.check_half_closeable_stream(make, make_clogged)


async def test_tls_on_top() -> None:
    """trio.SSLStream works on it."""

    async def make():
        return await tls_pair(direct(await tcp_pair()))

    await trio.testing.check_two_way_stream(make, None)


async def test_more_than_the_kernel_takes() -> None:
    """Data that does not fit waits for the peer and arrives in order, also a view."""
    near, far = direct(await tcp_pair())
    data = bytes(range(256)) * 65536
    got = bytearray()

    async with near, trio.open_nursery() as nursery:
        nursery.start_soon(near.send_all, memoryview(data))
        while len(got) < len(data):
            got += await far.receive_some()
    assert got == data
    assert await far.receive_some() == b""
    await far.aclose()


class TestConflicts:
    """A second task gets BusyResourceError at once; the first one is not disturbed."""

    async def test_receiving(self) -> None:
        """One task receives at a time, even if there are bytes for both."""
        near, far = direct(await tcp_pair())
        await far.send_all(b"xy")
        async with near, far, trio.open_nursery() as nursery:
            nursery.start_soon(near.receive_some, 1)
            await trio.testing.wait_all_tasks_blocked()
            assert await near.receive_some(1) == b"y"
            nursery.start_soon(near.receive_some, 1)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await near.receive_some(1)
            with pytest.raises(trio.BusyResourceError):
                await near.wait_readable()
            await far.send_all(b"z")

    @pytest.mark.parametrize(
        "method", ["send_all", "wait_send_all_might_not_block", "send_eof"]
    )
    async def test_sending(self, method: str) -> None:
        """One task at a time sends, waits to send, or ends the direction."""
        near, far = direct(await clogged_tcp_pair())
        args = (b"x",) if method == "send_all" else ()
        async with near, far, trio.open_nursery() as nursery:
            nursery.start_soon(near.send_all, b"x")
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await getattr(near, method)(*args)
            nursery.cancel_scope.cancel()


class TestNoWait:
    """Methods without a checkpoint, for code that has one anyway."""

    async def test_receive(self) -> None:
        """It returns None, bytes, or b"" at the end of the stream."""
        near, far = direct(await tcp_pair())
        assert near.receive_some_nowait(2) is None
        await far.send_all(b"xyz")
        assert near.receive_some_nowait(2) == b"xy"
        assert near.receive_some_nowait(2) == b"z"
        await far.send_eof()
        assert near.receive_some_nowait(2) == b""
        await near.aclose()
        await far.aclose()

    async def test_errors(self) -> None:
        """The errors are those of receive_some()."""
        near, far = direct(await tcp_pair())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(near.receive_some)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                near.receive_some_nowait(1)
            nursery.cancel_scope.cancel()
        reset_on_close(far)
        await far.aclose()
        with pytest.raises(trio.BrokenResourceError):
            near.receive_some_nowait(1)
        await near.aclose()
        with pytest.raises(trio.ClosedResourceError):
            near.receive_some_nowait(1)


class TestClosed:
    """A close wakes waiting tasks, and leaves nothing registered with Trio."""

    @pytest.mark.parametrize("asked", [False, True])
    @pytest.mark.parametrize(
        "method",
        ["receive_some", "wait_readable", "send_all", "wait_send_all_might_not_block"],
    )
    async def test_wakes_waiters(self, method: str, asked: bool) -> None:
        """Waiting tasks get ClosedResourceError, whether .socket was used or not."""
        near, far = (adopt_stream(stream) for stream in await clogged_tcp_pair())
        read_dry(near)
        if asked:
            assert near.socket.fileno() == near.fileno()
        args = (b"x",) if method == "send_all" else ()

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await getattr(near, method)(*args)

        async with far, trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            await near.aclose()
            await near.aclose()

    async def test_wakes_a_task_that_waits_for_its_socket(self) -> None:
        """A task in trio.lowlevel.wait_readable() gets ClosedResourceError as well."""
        near, far = direct(await tcp_pair())

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await trio.lowlevel.wait_readable(near.socket)

        async with far, trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            await near.aclose()

    @pytest.mark.parametrize(
        ("method", "args"),
        [
            ("receive_some", ()),
            ("wait_readable", ()),
            ("send_all", (b"x",)),
            ("send_all", (b"",)),
            ("wait_send_all_might_not_block", ()),
            ("send_eof", ()),
        ],
    )
    @pytest.mark.parametrize("when", ["before", "during the checkpoint"])
    async def test_every_method_raises(
        self, method: str, args: tuple[bytes], when: str
    ) -> None:
        """Methods raise, closed before or in their checkpoint; no wait stays in Trio."""
        near, far = direct(await tcp_pair())
        waiting = tasks_waiting()

        async def use() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await getattr(near, method)(*args)

        async with far, trio.open_nursery() as nursery:
            if when == "before":
                await near.aclose()
                assert near.fileno() == -1
                await use()
            else:
                nursery.start_soon(use)
                nursery.start_soon(near.aclose)
        assert tasks_waiting() == waiting

    async def test_nothing_more_after_the_end(self) -> None:
        """After send_eof no send works, even of b""; a second send_eof does nothing."""
        near, far = direct(await tcp_pair())
        async with near, far:
            await near.send_eof()
            await near.send_eof()
            for data in (b"x", b""):
                with pytest.raises(trio.ClosedResourceError):
                    await near.send_all(data)
            assert await far.receive_some() == b""


async def test_reset() -> None:
    """A peer's reset is a BrokenResourceError, with the system's error as its cause."""
    near, far = direct(await tcp_pair())
    await near.send_all(b"unread, so that a close is a reset")
    await far.aclose()

    with pytest.raises(trio.BrokenResourceError) as caught:
        await near.receive_some()
    assert isinstance(caught.value.__cause__, ConnectionResetError)
    with pytest.raises(trio.BrokenResourceError):
        await near.send_all(b"x")
    with pytest.raises(trio.BrokenResourceError):
        await near.send_eof()
    await near.aclose()


async def test_cancelled_loses_nothing() -> None:
    """A method that is cancelled before its system call has done nothing."""
    near, far = direct(await tcp_pair())
    await far.send_all(b"data")
    async with near, far:
        with trio.CancelScope() as scope:
            scope.cancel()
            await near.receive_some()
        with trio.CancelScope() as scope:
            scope.cancel()
            await near.send_all(b"not sent")
        with trio.CancelScope() as scope:
            scope.cancel()
            await near.send_eof()

        assert await near.receive_some() == b"data"
        await near.send_all(b"sent")
        assert await far.receive_some() == b"sent"


@pytest.mark.parametrize("max_bytes", [0, -1])
async def test_too_little_to_ask_for(max_bytes: int) -> None:
    """max_bytes has to be a positive integer."""
    near, far = direct(await tcp_pair())
    async with near, far:
        with pytest.raises(ValueError, match="max_bytes"):
            await near.receive_some(max_bytes)
        with pytest.raises(TypeError):
            await near.receive_some(1.5)


async def test_options() -> None:
    """Options can be set and read, and .socket is the same socket as a Trio socket."""
    near, far = direct(await tcp_pair())
    async with near, far:
        near.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

        assert near.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0
        assert len(near.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)) == 8
        assert near.socket is near.socket
        assert near.socket.getpeername() == far.socket.getsockname()


async def test_adopting_a_trio_stream() -> None:
    """Trio's stream then counts as closed; the options and the ended direction stay."""
    near, far = await tcp_pair()
    await near.send_eof()
    taken = adopt_stream(near)
    async with taken, far:
        assert taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
        with pytest.raises(trio.ClosedResourceError):
            await near.receive_some()
        with pytest.raises(trio.ClosedResourceError):
            await taken.send_all(b"x")
        await far.send_all(b"still read")
        assert await taken.receive_some() == b"still read"


def test_options_where_there_are_none() -> None:
    """A Unix socket has no TCP options, and set_options() leaves it as it is."""
    near, far = socket.socketpair()
    with near, far:
        set_options(near)


def read_dry(stream: DirectSocketStream) -> None:
    """Read until the kernel has no more bytes."""
    with suppress(BlockingIOError):
        while os.read(stream.fileno(), 65536):
            pass


def tasks_waiting() -> int:
    """Return how many tasks Trio has registered as waiting for descriptors."""
    statistics = trio.lowlevel.current_statistics().io_statistics
    return statistics.tasks_waiting_read + statistics.tasks_waiting_write
