"""trio_upgrade.testing: what users test with has to be right itself."""

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
    """Every cut that matters, each joining to the same bytes."""

    @pytest.mark.parametrize("data", [b"a", b"ab", b"abcd"])
    def test_all_cuts(self, data: bytes) -> None:
        """Whole, in two at every point, byte by byte."""
        ways = list(split_points(data))

        assert ways[0] == (data,)
        assert {b"".join(way) for way in ways} == {data}
        assert len(set(ways)) == max(1, len(data) + (len(data) > 2))
        assert tuple(data[n : n + 1] for n in range(len(data))) in ways


class TestScriptedPeer:
    """Packets in, bytes out, and the ends."""

    async def test_packets_keep_their_boundaries(self) -> None:
        """One receive gives one packet, in parts if asked for less; then the end."""
        peer = ScriptedPeer(b"one", b"", b"three")

        assert await peer.receive_some() == b"one"
        assert await peer.receive_some(2) == b"th"
        assert await peer.receive_some(100) == b"ree"
        assert await peer.receive_some() == b""
        with pytest.raises(ValueError, match="max_bytes"):
            await peer.receive_some(0)

    async def test_reset(self) -> None:
        """A reset comes behind the packets, for the reader and for the sender."""
        peer = ScriptedPeer(b"one", then="reset")

        await peer.send_all(b"early enough")
        assert await peer.receive_some() == b"one"
        with pytest.raises(trio.BrokenResourceError):
            await peer.receive_some()
        with pytest.raises(trio.BrokenResourceError):
            await peer.send_all(b"x")

    async def test_feed_wakes_a_reader(self) -> None:
        """Packets can be added while somebody waits for them."""
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
        """A script that waits for an answer gives nothing before it."""
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

    async def test_waiting_for_what_is_never_sent(self) -> None:
        """wait_sent raises once the other side has closed without sending it."""
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
        """After aclose every call raises, as Trio's streams do."""
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
        """The fake keeps Trio's first rule, so that it hides no missing checkpoint."""
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
    """The shortest way to an app's tests."""

    async def test_strict_by_default(self) -> None:
        """A bug of the app's fails the test."""

        async def app(request) -> Response:
            raise LookupError("oops")

        with pytest.raises(ExceptionGroup) as caught:
            async with trio.open_nursery() as nursery:
                connection = await open_pair(nursery, app)
                with suppress(PeerGone):
                    await connection.request("GET", "/")

        assert caught.group_contains(LookupError, match="oops", depth=1)

    async def test_limits_on_both_sides(self) -> None:
        """One Limits bounds both ends."""

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
        """One connection: a request, a refused offer, an accepted one."""
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
