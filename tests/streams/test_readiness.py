"""What the kernel holds for a socket: input, and connections in a backlog."""

from __future__ import annotations

from io import BytesIO

import pytest
import trio

from trio_upgrade import UpgradedStream
from trio_upgrade._streams.readiness import count_waiting, has_input
from trio_upgrade.testing import ScriptedPeer

from ..servers import MemoryListener
from ..sockets import direct, tcp_pair
from ..tls import tls_pair
from ..tls_streams import close_all, opened


class TestInput:
    """What can be received, or accepted, without a wait."""

    @pytest.mark.parametrize("kind", [direct, lambda pair: pair])
    async def test_stream(self, kind) -> None:
        """Bytes and an end are input; nothing, or a closed socket, is none."""
        near, far = kind(await tcp_pair())
        stream = UpgradedStream(near)
        assert not has_input(stream)
        assert not has_input(near)
        await far.send_all(b"x")
        assert has_input(stream)
        assert has_input(near)
        await near.receive_some()
        assert not has_input(near)
        await far.aclose()
        assert has_input(near)
        await near.aclose()
        assert not has_input(near)

    @pytest.mark.ids("F20")
    async def test_tls_records(self) -> None:
        """A record that TLS holds is input, although the kernel holds nothing."""
        server, client = await tls_pair(await tcp_pair())
        sent = BytesIO()

        async def keep(data: bytes) -> None:
            sent.write(data)

        transport = client.transport_stream
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(transport, "send_all", keep)
            await client.send_all(b"1")
            await client.send_all(b"2")
        await transport.send_all(sent.getvalue())
        assert await server.receive_some() == b"1"
        assert has_input(server)
        assert has_input(UpgradedStream(server))
        assert await server.receive_some() == b"2"
        assert not has_input(server)
        await transport.aclose()
        await trio.aclose_forcefully(server)

    async def test_tls(self) -> None:
        """Bytes, a record and an end that TLS has received count."""
        near, far = await opened()
        stream = UpgradedStream(near)
        assert not has_input(stream)
        await far.send_all(b"abc")
        assert has_input(stream)
        assert await stream.receive_some(1) == b"a"
        assert has_input(stream)
        assert await stream.receive_some() == b"bc"
        assert not has_input(stream)
        # Two records, of which the kernel holds nothing after the first was read.
        await far.send_all(b"1" * 16384)
        await far.send_all(b"2")
        assert await stream.receive_some(16384) == b"1" * 16384
        assert has_input(stream)
        assert await stream.receive_some() == b"2"
        await far.send_eof()
        assert await stream.receive_some() == b""
        assert has_input(stream)
        await close_all(near, far)

    async def test_no_socket(self) -> None:
        """Nothing is known about other streams and listeners."""
        assert not has_input(ScriptedPeer(b"x"))
        assert count_waiting(MemoryListener()) == 0
