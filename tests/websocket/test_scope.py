"""The parts below: what leaves the scope, the stream, the addresses, the contract."""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import AbstractAsyncContextManager

import pytest
import trio
import trio.testing
from websockets.client import ClientProtocol
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.trio.connection import Connection

from trio_upgrade import UpgradedStream
from trio_upgrade._websocket.connections import _find_address
from trio_upgrade._websocket.dialling import _UNUSED_URI
from trio_upgrade._websocket.scope import find_failure, leave_nursery
from trio_upgrade._websocket.transport import WebSocketTransport
from trio_upgrade.websocket import open_websocket

from .test_opening import Peer


def test_negotiation_in_any_state() -> None:
    """accept() still does not look at the state, so that one object does everything."""
    protocol = ServerProtocol(state=State.OPEN)

    assert not protocol.data_to_send()
    assert not protocol.events_received()
    assert protocol.state is State.OPEN


def test_import() -> None:
    """The package itself loads neither this add-on nor websockets."""
    script = (
        "import sys, trio_upgrade; trio_upgrade.serve_tcp; trio_upgrade.open_upgrade\n"
        "print(*[name for name in sys.modules if 'websocket' in name])"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    )

    assert not found.stdout.split()


class TestFindFailure:
    """Of a nursery whose tasks the user does not know."""

    def test_single(self) -> None:
        """An exception that is in no group is returned."""
        failure = ValueError()

        assert find_failure(failure) is failure

    def test_failure_of_a_task(self) -> None:
        """The failure comes out of its groups, and Cancelled is dropped."""
        failure = ValueError()
        group = BaseExceptionGroup("", [cancelled(), ExceptionGroup("", [failure])])

        assert find_failure(group) is failure

    def test_failures(self) -> None:
        """Several failures stay a group."""
        failures = ValueError(), KeyError()
        found = find_failure(BaseExceptionGroup("", [*failures, cancelled()]))

        assert isinstance(found, ExceptionGroup)
        assert found.exceptions == failures

    def test_cancelled(self) -> None:
        """Of several Cancelled one is enough."""
        found = cancelled()
        group = BaseExceptionGroup("", [BaseExceptionGroup("", [found]), cancelled()])

        assert find_failure(group) is found


def cancelled() -> trio.Cancelled:
    """Return a Cancelled, which only Trio can make."""
    return trio.Cancelled._create(source="explicit")


@pytest.mark.parametrize("handled", [False, True])
async def test_end_that_fails(handled: bool) -> None:
    """What the end raises goes on, unless the nursery has absorbed it."""

    class Manager(AbstractAsyncContextManager[trio.Nursery, bool]):
        async def __aexit__(self, *args) -> bool:
            return handled

    async def end() -> None:
        raise KeyError

    caught = []
    try:
        await leave_nursery(Manager(), None, end)
    except KeyError as exc:
        caught.append(exc)

    assert len(caught) == (not handled)


class TestTransport:
    """The stream of a connection."""

    async def test_stream_methods(self) -> None:
        """It is a Trio stream, with the half-close of the one below."""

        async def make():
            ends = []
            for end in trio.testing.memory_stream_pair():
                protocol = ServerProtocol(state=State.OPEN)
                ends.append(WebSocketTransport(UpgradedStream(end), protocol, 10))
            return tuple(ends)

        near, far = await make()
        await near.wait_send_all_might_not_block()
        await near.send_all(b"Hello")
        await near.send_eof()

        assert await far.receive_some(3) == b"Hel"
        assert await far.receive_some() == b"lo"
        assert await far.receive_some() == b""
        for stream in near, far:
            await stream.aclose()
            await stream.aclose()
            with pytest.raises(trio.ClosedResourceError):
                await stream.receive_some()

    async def test_close_of_a_cancelled_task(self) -> None:
        """aclose() does not raise Cancelled, and the stream is closed."""
        for ended in True, False:
            near, far = trio.testing.memory_stream_pair()
            protocol = ClientProtocol(_UNUSED_URI, state=State.OPEN)
            stream = WebSocketTransport(UpgradedStream(near), protocol, 10)
            with trio.CancelScope() as scope:
                if ended:
                    await stream.send_eof()
                scope.cancel()
                await stream.aclose()
            assert not scope.cancelled_caught
            assert await far.receive_some() == b""


class TestAddress:
    """Addresses of streams that this library did not make."""

    def test_endless_stack(self) -> None:
        """A wrapper that names itself as the stream below has no address."""

        class Wrapper:
            @property
            def transport_stream(self):
                return self

        assert _find_address(Wrapper(), "getsockname") is None

    def test_no_stream(self) -> None:
        """A stream without a socket has no address."""
        assert _find_address(object(), "getsockname") is None

    async def test_unix(self, tmp_path) -> None:
        """The address of a Unix socket is its path, None if it has no name."""
        left, right = trio.socket.socketpair()
        with left, right:
            assert _find_address(trio.SocketStream(left), "getpeername") is None
        path = str(tmp_path / "s")
        with trio.socket.socket(socket.AF_UNIX) as sock:
            await sock.bind(path)

            class Stream:
                socket = sock

            assert _find_address(Stream(), "getsockname") == path


async def test_fault_of_a_task(monkeypatch) -> None:
    """A fault of a task of ours comes alone, and the stream is closed."""

    async def fail(self) -> None:
        raise KeyError("a fault")

    monkeypatch.setattr(Connection, "recv_events", fail)
    peer = Peer()
    with pytest.raises(KeyError, match="a fault"):
        async with open_websocket("ws://a", stream=peer) as websocket:
            await websocket.recv()

    assert peer.script.closed
