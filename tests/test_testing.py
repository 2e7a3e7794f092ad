"""trio_upgrade.testing: the helpers that users test with."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

import pytest
import trio
import trio.testing

from trio_upgrade import Limits, PeerGone, Response
from trio_upgrade.testing import ScriptedPeer, open_pair, split_points

from .apps import echo_app


class TestSplitPoints:
    """The ways to cut bytes into packets."""

    @pytest.mark.parametrize("data", [b"a", b"ab", b"abcd"])
    def test_all_cuts(self, data: bytes) -> None:
        """The data is cut not at all, at each point, and byte by byte."""
        ways = list(split_points(data))

        assert ways[0] == (data,)
        assert {b"".join(way) for way in ways} == {data}
        assert len(set(ways)) == max(1, len(data) + (len(data) > 2))
        assert tuple(data[n : n + 1] for n in range(len(data))) in ways


class TestScriptedPeer:
    """Scripted packets, recorded bytes, and how the connection ends."""

    async def test_packets_keep_their_boundaries(self) -> None:
        """Each receive returns one packet, or a part of it; then the end."""
        peer = ScriptedPeer(b"one", b"", b"three")

        assert await peer.receive_some() == b"one"
        assert await peer.receive_some(2) == b"th"
        assert await peer.receive_some(100) == b"ree"
        assert await peer.receive_some() == b""
        with pytest.raises(ValueError, match="max_bytes"):
            await peer.receive_some(0)

    def test_packet_of_another_type(self) -> None:
        """A list of packets, given as one packet, is a TypeError at once."""
        with pytest.raises(TypeError, match="a packet is bytes, not tuple"):
            ScriptedPeer((b"one", b"two"))  # type: ignore[arg-type]
        peer = ScriptedPeer(b"one")
        with pytest.raises(TypeError, match="a packet is bytes, not str"):
            peer.feed(b"two", "three")  # type: ignore[arg-type]
        assert peer.packets_left == 1

    async def test_reset(self) -> None:
        """A reset comes after the packets, for the reader and for the sender."""
        peer = ScriptedPeer(b"one", then="reset")

        await peer.send_all(b"early enough")
        assert await peer.receive_some() == b"one"
        with pytest.raises(trio.BrokenResourceError):
            await peer.receive_some()
        with pytest.raises(trio.BrokenResourceError):
            await peer.send_all(b"x")

    async def test_feed_wakes_a_reader(self) -> None:
        """Packets can be added while a task waits for them."""
        peer = ScriptedPeer(then="silence")
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                assert await peer.receive_some() == b"later"
                assert await peer.receive_some() == b""

            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            peer.feed(b"later", b"")
            await trio.testing.wait_all_tasks_blocked()
            peer.finish()

    async def test_hold_until_sent(self) -> None:
        """A script that waits for a marker sends nothing before it."""
        peer = ScriptedPeer(b"reply").hold_until_sent(b"hello")
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                assert await peer.receive_some() == b"reply"
                assert peer.sent == b"hello"

            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            await peer.send_all(b"hel")
            await trio.testing.wait_all_tasks_blocked()
            assert peer.packets_left == 1
            await peer.send_all(b"lo")

    async def test_wait_sent_until_closed(self) -> None:
        """wait_sent raises when the stream is closed without sending the marker."""
        peer = ScriptedPeer()
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(trio.ClosedResourceError, match="b'never'"):
                    await peer.wait_sent(b"never")
                await peer.wait_closed()

            nursery.start_soon(wait)
            nursery.start_soon(peer.wait_closed)
            await trio.testing.wait_all_tasks_blocked()
            await peer.aclose()

    async def test_closed(self) -> None:
        """After aclose every call raises, as with Trio's streams."""
        peer = ScriptedPeer(b"x")
        await peer.wait_send_all_might_not_block()
        await peer.send_eof()
        with pytest.raises(trio.ClosedResourceError):
            await peer.send_all(b"after the end")
        await peer.aclose()
        for call in (
            peer.receive_some,
            peer.send_eof,
            peer.wait_send_all_might_not_block,
        ):
            with pytest.raises(trio.ClosedResourceError):
                await call()
        with pytest.raises(trio.ClosedResourceError):
            await peer.send_all(b"x")

    async def test_every_call_is_a_checkpoint(self) -> None:
        """Each method is a checkpoint, so that a test finds a missing one elsewhere."""
        peer = ScriptedPeer(b"x")
        for call in (
            peer.receive_some,
            partial(peer.send_all, b"x"),
            partial(peer.wait_sent, b"x"),
            peer.wait_send_all_might_not_block,
            peer.send_eof,
            peer.aclose,
            peer.wait_closed,
        ):
            with trio.testing.assert_checkpoints():
                await call()


class TestOpenPair:
    """A client connected to an app."""

    async def test_strict_by_default(self) -> None:
        """A bug in the app fails the test."""

        async def app(request) -> Response:
            raise LookupError("oops")

        with pytest.raises(ExceptionGroup) as caught:
            async with trio.open_nursery() as nursery:
                connection = await open_pair(nursery, app)
                with suppress(PeerGone):
                    await connection.request("GET", "/")

        assert caught.group_contains(LookupError, match="oops", depth=1)

    async def test_limits_on_both_sides(self) -> None:
        """The limits apply to both sides."""

        async def app(request) -> Response:
            return Response(200, b"x" * len(await request.read()))

        limits = Limits(body_bytes=10)
        async with trio.open_nursery() as nursery:
            async with await open_pair(nursery, app, limits=limits) as connection:
                response = await connection.request("POST", "/", body=b"x" * 10)
                assert await response.read() == b"x" * 10
                response = await connection.request("POST", "/", body=b"x" * 11)
                assert response.status == 413

    async def test_request_and_upgrade(self) -> None:
        """One connection can make a request and then upgrade."""
        async with trio.open_nursery() as nursery:
            async with await open_pair(nursery, echo_app) as connection:
                response = await connection.request("GET", "/a")
                assert await response.read() == b"/a"
                upgraded = await connection.upgrade("/u", "other", "echo")
                async with upgraded as (head, stream, early):
                    assert head.headers["upgrade"] == "echo"
                    assert early == b""
                    await stream.send_all(b"hello")
                    assert await stream.receive_some() == b"hello"
