"""The connection that a client has after the switch, and how its scope ends it."""

from __future__ import annotations

import pytest
import trio

from trio_upgrade import Limits, UpgradedConnection, open_tunnel, open_upgrade
from trio_upgrade.testing import ScriptedPeer

from ..wire import SWITCHED

URL = "http://example.com:81/chat?room=7"


class TestFields:
    """The parts of an UpgradedConnection."""

    async def test_unpacks(self) -> None:
        """It is a tuple of three; its other attributes are not in the tuple."""
        peer = ScriptedPeer(b"HTTP/1.1 103 Hints\r\n\r\n" + SWITCHED + b"HEAD")
        upgraded = await open_upgrade(URL, "echo", stream=peer, limits=Limits(linger=7))
        response, stream, head = upgraded

        assert (response, stream, head) == tuple(upgraded)
        assert response is upgraded.response
        assert response.status == 101
        assert stream is upgraded.stream
        assert stream.transport is peer
        assert head == upgraded.head == b"HEAD"
        assert [early.status for early in upgraded.informational] == [103]
        assert upgraded.linger == 7

    async def test_tunnel(self) -> None:
        """A tunnel is an UpgradedConnection, too."""
        peer = ScriptedPeer(b"HTTP/1.1 200 OK\r\n\r\nSSH", then="silence")
        limits = Limits(linger=None)
        upgraded = await open_tunnel("http://x", "a:1", stream=peer, limits=limits)

        assert isinstance(upgraded, UpgradedConnection)
        assert upgraded.response.status == 200
        assert upgraded.head == b"SSH"
        assert upgraded.informational == ()
        assert upgraded.linger is None

    async def test_made_by_hand(self) -> None:
        """An object made by a user has no linger: its stream is closed at once."""
        peer = ScriptedPeer(SWITCHED, then="silence")
        response, stream, head = await open_upgrade(URL, "echo", stream=peer)
        async with UpgradedConnection(response, stream, head) as upgraded:
            assert upgraded.informational == ()
            assert upgraded.linger == 0.0

        assert peer.closed


class TestEnd:
    """How leaving the block ends the stream."""

    async def test_in_stages(self) -> None:
        """Without an exception: our end, then the peer's, then close."""
        peer = ScriptedPeer(SWITCHED, b"unread", then="end")
        async with await open_upgrade(URL, "echo", stream=peer) as (_, stream, _):
            await stream.send_all(b"bye")

        assert peer.got_eof
        assert peer.packets_left == 0
        assert peer.closed

    async def test_linger_is_bounded(self, autojump_clock) -> None:
        """A server that never ends is given Limits.linger seconds."""
        peer = ScriptedPeer(SWITCHED, then="silence")
        limits = Limits(linger=3)
        async with await open_upgrade(URL, "echo", stream=peer, limits=limits):
            started = trio.current_time()

        assert trio.current_time() - started == 3
        assert peer.closed

    async def test_after_an_error(self) -> None:
        """After an exception nothing more is sent."""
        peer = ScriptedPeer(SWITCHED, b"unread", then="silence")
        with pytest.raises(LookupError):
            async with await open_upgrade(URL, "echo", stream=peer):
                raise LookupError

        assert peer.closed
        assert not peer.got_eof

    async def test_cancelled(self, autojump_clock) -> None:
        """Under cancellation it is closed at once."""
        started = trio.current_time()
        peer = ScriptedPeer(SWITCHED, then="silence")
        with trio.move_on_after(5):
            async with await open_upgrade(URL, "echo", stream=peer):
                await trio.sleep_forever()

        assert peer.closed
        assert trio.current_time() - started == 5

    async def test_aclose(self) -> None:
        """It can be closed like any resource, also forcefully."""
        for close in (
            lambda upgraded: upgraded.aclose(),
            trio.aclose_forcefully,
        ):
            peer = ScriptedPeer(SWITCHED)
            await close(await open_upgrade(URL, "echo", stream=peer))

            assert peer.closed

    async def test_detached(self) -> None:
        """A stream that was detached in the block is left alone."""
        peer = ScriptedPeer(SWITCHED + b"HEAD", then="silence")
        async with await open_upgrade(URL, "echo", stream=peer) as (_, stream, _):
            transport, head = stream.detach()

        assert (transport, head) == (peer, b"HEAD")
        assert not peer.closed
