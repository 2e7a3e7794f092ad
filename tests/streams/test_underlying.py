"""The kernel socket below a stack of streams, and its peer."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trio_upgrade import TLSStream, UpgradedStream
from trio_upgrade._streams.resetting import reset_on_close
from trio_upgrade._streams.socket_stream import adopt_stream
from trio_upgrade._streams.underlying import (
    find_peer,
    find_tls,
    find_underlying_socket,
    is_secure,
)
from trio_upgrade.testing import ScriptedPeer

from ..sockets import direct, tcp_pair
from ..tls import make_tls_contexts, wrap_tls
from ..wrapper import Wrapper


async def test_find_socket() -> None:
    """The socket is found below every known kind of stream, until detach()."""
    near, far = await tcp_pair()
    tls, _ = wrap_tls((near, far), make_tls_contexts(), https_compatible=True)
    stream = UpgradedStream(UpgradedStream(tls))

    assert find_underlying_socket(stream) is near.socket
    stream.detach()
    assert find_underlying_socket(stream) is None
    assert find_underlying_socket(ScriptedPeer()) is None
    await near.aclose()
    await far.aclose()


@pytest.mark.ids("F25")
async def test_is_secure() -> None:
    """TLS is found below a switch; a stream of clear text is not secure."""
    near, far = await tcp_pair()
    tls, _ = wrap_tls((near, far), make_tls_contexts(), https_compatible=True)
    upgraded = UpgradedStream(UpgradedStream(tls))

    assert is_secure(tls)
    assert is_secure(upgraded)
    upgraded.detach()
    assert not is_secure(upgraded)
    assert not is_secure(near)
    assert not is_secure(UpgradedStream(near))
    assert not is_secure(ScriptedPeer())
    await near.aclose()
    await far.aclose()


async def test_find_tls() -> None:
    """The outermost TLS is found, ours or Trio's."""
    near, far = direct(await tcp_pair())
    client = make_tls_contexts()[0]
    ours = TLSStream(near, client, server_hostname="localhost")
    theirs = trio.SSLStream[trio.abc.Stream](ours, client, server_hostname="localhost")

    assert find_tls(UpgradedStream(ours)) is ours
    assert find_tls(UpgradedStream(theirs)) is theirs
    assert is_secure(Wrapper(ours))
    assert find_tls(near) is None
    assert find_peer(UpgradedStream(ours)) == far.socket.getsockname()
    near.close()
    far.close()


class TestAbort:
    """A close that sends a reset."""

    @pytest.mark.parametrize("wrapped", [False, True])
    async def test_peer_sees_a_reset(self, wrapped: bool) -> None:
        """The next close sends a reset, whatever streams are on the socket."""
        near, far = await tcp_pair()
        stream = UpgradedStream(near) if wrapped else near
        reset_on_close(stream)
        await stream.aclose()

        with pytest.raises(trio.BrokenResourceError):
            await far.receive_some()
        await far.aclose()

    @pytest.mark.parametrize("direct", [False, True])
    async def test_closed_socket_is_left_alone(self, direct: bool) -> None:
        """A socket that is already closed is not an error."""
        pair = await tcp_pair()
        near = adopt_stream(pair[0]) if direct else pair[0]
        await near.aclose()
        await pair[1].aclose()

        reset_on_close(near)

    async def test_no_socket(self) -> None:
        """Without a kernel socket nothing is done."""
        near, far = trio.testing.memory_stream_pair()
        reset_on_close(near)
        await near.aclose()

        assert await far.receive_some() == b""


class TestPeer:
    """The peer's address."""

    async def test_tcp(self) -> None:
        """The peer is host and port, without the rest of an IPv6 address."""
        near, far = await tcp_pair()

        assert find_peer(near) == far.socket.getsockname()
        await near.aclose()
        assert find_peer(near) is None
        await far.aclose()

    async def test_unix(self, tmp_path) -> None:
        """The peer is the path of the Unix socket, None if it has no path."""
        path = str(tmp_path / "socket")
        sock = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
        await sock.bind(path)
        sock.listen()
        async with trio.SocketListener(sock) as listener:
            near = await trio.open_unix_socket(path)
            async with near, await listener.accept() as far:
                assert find_peer(near) == path
                assert find_peer(far) is None

    def test_no_socket(self) -> None:
        """The peer is None if there is no kernel socket."""
        assert find_peer(ScriptedPeer()) is None
