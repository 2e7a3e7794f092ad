"""relay(): both directions, their ends and timeouts, and which streams it closes."""

from __future__ import annotations

import math
import os
import socket
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from trio_upgrade import Progress, RelayResult, UpgradedStream, relay
from trio_upgrade._streams.resetting import reset_on_close
from trio_upgrade._streams.underlying import find_underlying_socket
from trio_upgrade.testing import ScriptedPeer

from ..cancelling import CancelAtStep
from ..copying import ALL, DIRECT_TLS, OWN_TLS, WAYS, close, make, receive
from ..sockets import direct, tcp_pair
from ..tls import tls_pair
from ..tls_streams import clog

HALF_CLOSEABLE = [way for way in WAYS if not {"tls", "tls-tcp"} & {*way}]
every_tls = pytest.mark.parametrize("kind", OWN_TLS)


class Plain(trio.abc.Stream):
    """A scripted peer on a stream that cannot be half-closed."""

    def __init__(self, *script: bytes, then: Any = "end") -> None:
        self.peer = ScriptedPeer(*script, then=then)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return await self.peer.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.peer.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.peer.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self.peer.aclose()


class Failing(Plain):
    """A stream whose receive_some() raises a given error."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(then="silence")
        self.error = error

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        raise self.error


def silent() -> ScriptedPeer:
    return ScriptedPeer(then="silence")


class TestEnds:
    """A clean end ends one direction and is passed on."""

    @pytest.mark.ids("R34", "P1")
    @pytest.mark.parametrize(("left_kind", "right_kind"), HALF_CLOSEABLE)
    async def test_both_ways(self, left_kind: str, right_kind: str) -> None:
        """Each direction ends alone, all bytes arrive, and the streams stay open."""
        (left, client), (right, server) = await make(left_kind, right_kind)
        request, response = b"request" * 30_000, b"response" * 50_000
        progress = Progress()
        answer = bytearray()

        async def serve() -> None:
            got = bytearray()
            await receive(server, got)
            assert got == request
            await server.send_all(response)
            await server.send_eof()

        async def ask() -> None:
            await client.send_all(request)
            await client.send_eof()
            await receive(client, answer)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            nursery.start_soon(ask)
            relayed = await relay(left, right, tls_ends=True, progress=progress)

        assert answer == response
        assert relayed == RelayResult(len(request), len(response), "left", "eof")
        assert progress.left_to_right == len(request)
        assert progress.right_to_left == len(response)
        assert progress.bytes == len(request) + len(response)
        with pytest.raises(trio.ClosedResourceError):
            await left.send_all(b"ended, not closed")
        assert await left.receive_some() == b""
        await close((left, client), (right, server))

    async def test_right_ends_first(self) -> None:
        """ended_by is the side that ended first."""
        left, right = silent(), ScriptedPeer(b"answer")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(left.wait_sent, b"answer")
            results = start(nursery, left, right)
            await trio.testing.wait_all_tasks_blocked()
            assert left.got_eof
            assert not right.got_eof
            left.finish()

        assert results == [RelayResult(0, 6, "right", "eof")]
        assert right.got_eof
        assert not left.closed
        assert not right.closed

    async def test_to_a_stream_that_cannot_half_close(self) -> None:
        """A stream without half-close is closed when the other direction is over."""
        left, right = ScriptedPeer(b"question"), Plain(then="silence")
        async with trio.open_nursery() as nursery:
            results = start(nursery, left, right)
            await trio.testing.wait_all_tasks_blocked()
            assert right.peer.sent == b"question"
            assert not right.peer.closed
            right.peer.feed(b"answer")
            right.peer.finish()

        assert results == [RelayResult(8, 6, "left", "eof")]
        assert right.peer.closed
        assert left.sent == b"answer"
        assert left.got_eof
        assert not left.closed

    async def test_from_a_stream_that_cannot_half_close(self) -> None:
        """A stream without half-close stays open if there is no end to pass on."""
        left, right = Plain(b"x", then="silence"), silent()
        async with trio.open_nursery() as nursery:
            results = start(nursery, left, right, idle_timeout=None)
            await trio.testing.wait_all_tasks_blocked()
            left.peer.finish()
            await trio.testing.wait_all_tasks_blocked()
            assert right.got_eof
            nursery.cancel_scope.cancel()

        assert not left.peer.closed
        assert not results

    @pytest.mark.ids("P11")
    async def test_tls_on_both_sides(self) -> None:
        """Over TLS the end is passed on at last, as a close_notify."""
        left, client = await tls_pair(direct(await tcp_pair()))
        right, server = await tls_pair(trio.testing.memory_stream_pair())

        async def ask() -> None:
            await client.send_all(b"question")
            assert await client.receive_some() == b"answer"
            await client.aclose()

        async def answer() -> None:
            assert await server.receive_some() == b"question"
            await server.send_all(b"answer")
            assert await server.receive_some() == b""
            await server.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(answer)
            relayed = await relay(left, right, half_close_timeout=0)

        assert relayed == RelayResult(8, 6, "left", "half_close_timeout")
        await close((left, client), (right, server))

    @pytest.mark.ids("F13")
    @every_tls
    async def test_into_tls_at_last(self, kind: str) -> None:
        """By default TLS gets the end when both directions are over, and stays open."""
        left, client = await ALL["tcp"]()
        right, server = await ALL[kind]()
        request, rest, answer = bytearray(), bytearray(), bytearray()

        async def serve() -> None:
            request.extend(await server.receive_some())
            # An asyncio server would drop its answer if it saw an end now.
            await trio.testing.wait_all_tasks_blocked()
            await server.send_all(b"late answer")
            with trio.move_on_after(0):
                await receive(server, rest)
                raise AssertionError("the end came too early")
            await server.send_eof()
            await receive(server, rest)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            nursery.start_soon(receive, client, answer)
            await client.send_all(b"question")
            await client.send_eof()
            relayed = await relay(left, right)

        assert relayed == RelayResult(8, 11, "left", "eof")
        assert [request, rest, answer] == [b"question", b"", b"late answer"]
        with pytest.raises(trio.ClosedResourceError):
            await right.send_all(b"ended, not closed")
        assert await right.receive_some() == b""
        await close((left, client), (right, server))

    @pytest.mark.ids("F13")
    @every_tls
    async def test_into_tls_at_once(self, kind: str) -> None:
        """With tls_ends the peer sees the end and then answers."""
        left, client = await ALL["tcp"]()
        right, server = await ALL[kind]()
        request, answer = bytearray(), bytearray()

        async def serve() -> None:
            await receive(server, request)
            await server.send_all(b"late answer")
            await server.send_eof()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            nursery.start_soon(receive, client, answer)
            await client.send_all(b"question")
            await client.send_eof()
            relayed = await relay(left, right, tls_ends=True)

        assert relayed == RelayResult(8, 11, "left", "eof")
        assert [request, answer] == [b"question", b"late answer"]
        await close((left, client), (right, server))

    @every_tls
    async def test_between_two_tls(self, kind: str) -> None:
        """Both sides get the end when both directions are over."""
        (left, client), (right, server) = await make(kind, kind)
        ends = [bytearray(), bytearray()]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send_eof)
            nursery.start_soon(server.send_eof)
            nursery.start_soon(receive, client, ends[0])
            nursery.start_soon(receive, server, ends[1])
            assert (await relay(left, right)).cause == "eof"
        await close((left, client), (right, server))

    async def test_tls_gets_its_end_after_the_timeout(self, autojump_clock) -> None:
        """A TLS peer that is silent for long gets the end then."""
        right, server = await ALL["tls1.3-tcp"]()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive, server, bytearray())
            relayed = await relay(ScriptedPeer(), right, half_close_timeout=10)

        assert relayed.cause == "half_close_timeout"
        await close((right, server))

    async def test_end_of_tls_is_bounded(self, autojump_clock) -> None:
        """It waits 2 seconds for a TLS peer that does not read; the owner closes."""
        right, server = await ALL["tls1.3-tcp"]()
        await clog(right.transport)
        began = trio.current_time()

        relayed = await relay(ScriptedPeer(), right, half_close_timeout=10)

        assert trio.current_time() - began == 12
        assert relayed.cause == "half_close_timeout"
        await close((right, server))

    async def test_wrapper_of_tls(self) -> None:
        """A user's stream on top of our TLS gets the end as TLS does."""

        class Wrapper(trio.abc.HalfCloseableStream, Plain):
            transport_stream: object
            ended = False

            async def send_eof(self) -> None:
                await trio.lowlevel.checkpoint()
                self.ended = True

        right = Wrapper(then="silence")
        right.transport_stream, server = await ALL["tls1.3-tcp"]()
        async with trio.open_nursery() as nursery:
            results = start(nursery, ScriptedPeer(), right)
            await trio.testing.wait_all_tasks_blocked()
            assert not right.ended
            right.peer.finish()

        assert results[0].cause == "eof"
        assert right.ended
        await close((right.transport_stream, server))

    async def test_heads_are_relayed(self) -> None:
        """The bytes of both heads are sent first."""
        left = UpgradedStream(ScriptedPeer(b"right"), b"left to ")
        right = UpgradedStream(ScriptedPeer(b"left"), b"right to ")

        assert await relay(left, right) == RelayResult(13, 13, "left", "eof")


class TestTimers:
    """Every byte starts both timeouts again; they are exact."""

    async def test_idle(self, autojump_clock) -> None:
        """It ends idle_timeout seconds after the last byte in either direction."""
        left, right = silent(), silent()
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            results = start(nursery, left, right, idle_timeout=10)
            for peer in (left, right, right, left):
                await trio.sleep(9)
                peer.feed(b"x")

        assert trio.current_time() - began == 4 * 9 + 10
        assert results == [RelayResult(2, 2, None, "idle")]
        for peer in (left, right):
            assert not peer.got_eof
            assert not peer.closed

    @pytest.mark.parametrize("kind", ALL)
    async def test_idle_over_everything(self, kind: str, autojump_clock) -> None:
        """The idle timeout is exact over every kind of stream."""
        (left, client), (right, server) = await make(kind, kind)
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            results = start(nursery, left, right, idle_timeout=10)
            for peer, other in [(client, server), (server, client)]:
                await trio.sleep(9)
                await peer.send_all(b"x")
                assert await other.receive_some() == b"x"

        assert trio.current_time() - began == 2 * 9 + 10
        assert results == [RelayResult(1, 1, None, "idle")]
        await close((left, client), (right, server))

    async def test_no_timeout(self, autojump_clock) -> None:
        """Without idle_timeout, and before any end, silence has no limit."""
        left, right = silent(), silent()
        async with trio.open_nursery() as nursery:
            results = start(nursery, left, right)
            await trio.sleep(1_000)
            left.finish()
            await trio.testing.wait_all_tasks_blocked()
            right.finish()

        assert results == [RelayResult(0, 0, "left", "eof")]

    async def test_half_close(self, autojump_clock) -> None:
        """After an end the other side may go on, but not be silent for long."""
        left, right = silent(), silent()
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            results = start(nursery, left, right, half_close_timeout=10)
            await trio.sleep(1_000)
            right.finish()
            for _ in range(3):
                await trio.sleep(9)
                left.feed(b"x")

        assert trio.current_time() - began == 1_000 + 3 * 9 + 10
        assert results == [RelayResult(3, 0, "right", "half_close_timeout")]
        assert left.got_eof
        assert not right.got_eof
        assert not left.closed

    async def test_half_close_to_a_stream_that_cannot(self, autojump_clock) -> None:
        """On the timeout, a stream that the end was not passed on to is closed."""
        left, right = ScriptedPeer(b"x"), Plain(then="silence")
        began = trio.current_time()

        relayed = await relay(left, right)

        assert trio.current_time() - began == 60
        assert relayed == RelayResult(1, 0, "left", "half_close_timeout")
        assert right.peer.closed
        assert not left.closed

    @pytest.mark.parametrize("bound", [None, math.inf])
    async def test_half_close_without_a_bound(self, bound, autojump_clock) -> None:
        """None and infinity disable half_close_timeout."""
        left, right = ScriptedPeer(b"x"), silent()
        async with trio.open_nursery() as nursery:
            results = start(nursery, left, right, half_close_timeout=bound)
            await trio.sleep(80_000)
            right.finish()

        assert results == [RelayResult(1, 0, "left", "eof")]

    async def test_idle_after_an_end(self, autojump_clock) -> None:
        """An end is not a byte: the shorter timeout ends the relay."""
        left, right = silent(), silent()
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            results = start(nursery, left, right, idle_timeout=10)
            await trio.sleep(7)
            left.finish()

        assert trio.current_time() - began == 10
        assert results == [RelayResult(0, 0, None, "idle")]

    @pytest.mark.parametrize("kind", ["unix", "tls1.3-unix"])
    async def test_a_part_of_a_chunk_is_a_byte(self, kind: str, autojump_clock) -> None:
        """Between sockets a peer that reads one chunk slowly does not count as silent."""
        (left, client), (right, server) = await make(kind, kind)
        below = find_underlying_socket(right)
        assert below is not None
        below.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        got = bytearray()
        async with trio.open_nursery() as nursery:
            results = start(nursery, left, right, idle_timeout=10)
            await client.send_all(bytes(65536))
            while len(got) < 65536:
                await trio.sleep(9)
                got += await server.receive_some(65536)
            assert trio.current_time() > 30
            assert not results
            nursery.cancel_scope.cancel()
        await close((left, client), (right, server))

    async def test_close_notify_is_bounded(self, autojump_clock) -> None:
        """It waits 2 seconds for a TLS peer that does not read the close_notify."""
        left = ScriptedPeer()
        right, _ = await tls_pair(trio.testing.lockstep_stream_pair())
        began = trio.current_time()

        relayed = await relay(left, right, half_close_timeout=10)

        assert trio.current_time() - began == 12
        assert relayed.cause == "half_close_timeout"


class TestResets:
    """A reset of one side is a result, and resets the other side."""

    @pytest.mark.ids("R34", "P4")
    @pytest.mark.parametrize("side", ["left", "right"])
    @pytest.mark.parametrize("kind", ["tcp", "trio-tcp", "upgraded"])
    async def test_over_tcp(self, kind: str, side: str) -> None:
        """The other peer gets a reset and no end before it; both streams are closed."""
        (left, client), (right, server) = await make(kind, kind)
        peer, other = (client, server) if side == "left" else (server, client)
        async with trio.open_nursery() as nursery:
            results = start(nursery, left, right)
            await peer.send_all(b"x")
            assert await other.receive_some() == b"x"
            reset_on_close(peer)
            await peer.aclose()

        (relayed,) = results
        assert (relayed.ended_by, relayed.cause) == (side, "reset")
        with pytest.raises(trio.BrokenResourceError):
            await other.receive_some()
        for stream in (left, right):
            with pytest.raises(trio.ClosedResourceError):
                await stream.receive_some()
        await other.aclose()

    async def test_tls_that_was_cut(self) -> None:
        """TLS cut without a close_notify is a reset, and must not look like an end."""
        near, cut = trio.testing.memory_stream_pair()
        left, client = await tls_pair((near, cut))
        (right, server) = direct(await tcp_pair())
        async with trio.open_nursery() as nursery:
            results = start(nursery, left, right)
            await client.send_all(b"half a messa")
            assert await server.receive_some() == b"half a messa"
            await cut.aclose()

        assert results == [RelayResult(12, 0, "left", "reset")]
        with pytest.raises(trio.BrokenResourceError):
            await server.receive_some()
        await close((left, client), (right, server))

    @pytest.mark.parametrize("plain", [False, True])
    async def test_while_sending(self, plain: bool) -> None:
        """If a send breaks, ended_by is the side of the sink."""
        left = ScriptedPeer(b"x", then="silence")
        right = Plain(then="reset") if plain else ScriptedPeer(then="reset")

        relayed = await relay(left, right)

        assert (relayed.ended_by, relayed.cause) == ("right", "reset")
        assert left.closed

    async def test_while_ending(self) -> None:
        """If the end cannot be passed on, ended_by is the side of the sink."""

        class Broken(trio.abc.HalfCloseableStream, Plain):
            async def send_eof(self) -> None:
                await trio.lowlevel.checkpoint()
                raise trio.BrokenResourceError

        right = Broken(then="silence")

        assert await relay(ScriptedPeer(), right) == RelayResult(0, 0, "right", "reset")
        assert right.peer.closed

    async def test_of_both_sides(self) -> None:
        """If both sides are reset at once, one of them counts as the first."""
        left, right = silent(), silent()
        async with trio.open_nursery() as nursery:
            results = start(nursery, left, right)
            await trio.testing.wait_all_tasks_blocked()
            left.finish("reset")
            right.finish("reset")

        assert results[0].ended_by in ("left", "right")
        assert results[0].cause == "reset"

    async def test_after_an_end(self) -> None:
        """A reset of one side after the end of the other one decides the result."""
        left, right = ScriptedPeer(b"x"), silent()
        async with trio.open_nursery() as nursery:
            results = start(nursery, left, right)
            await trio.testing.wait_all_tasks_blocked()
            assert right.got_eof
            right.finish("reset")

        assert results == [RelayResult(1, 0, "right", "reset")]


class TestErrors:
    """Errors that are not a peer's come out as they are, and leave the streams open."""

    @pytest.mark.parametrize(
        "error",
        [
            ValueError("mine"),
            trio.ClosedResourceError("mine"),
            ExceptionGroup("mine", [trio.BrokenResourceError()]),
            KeyboardInterrupt(),
        ],
        ids=lambda error: type(error).__name__,
    )
    @pytest.mark.parametrize("side", [0, 1])
    async def test_bare(self, error: BaseException, side: int) -> None:
        """An error of either direction is never wrapped, and keeps its cause."""
        cause = OSError("below")
        error.__cause__ = cause
        good = silent()
        sides: list[trio.abc.Stream] = [Failing(error), good]

        with pytest.raises(type(error)) as caught:
            await relay(sides[side], sides[1 - side], idle_timeout=5)

        # Trio makes a new group when it looks for cancellations in one.
        assert repr(caught.value) == repr(error)
        assert caught.value.__cause__ is cause
        assert not good.closed
        assert not good.got_eof

    async def test_of_both_directions(self) -> None:
        """Of two errors at the same time one comes out, with the other one as a note."""
        gate = trio.Event()

        class Together(Failing):
            async def receive_some(self, max_bytes: int | None = None) -> bytes:
                await gate.wait()
                raise self.error

        async with trio.open_nursery() as nursery:

            async def open_gate() -> None:
                await trio.testing.wait_all_tasks_blocked()
                gate.set()

            nursery.start_soon(open_gate)
            with pytest.raises(ValueError, match=r"one|two") as caught:
                await relay(Together(ValueError("one")), Together(ValueError("two")))

        other = {"one": "two", "two": "one"}[str(caught.value)]
        note = f"in the other direction: {ValueError(other)!r}"
        assert caught.value.__notes__ == [note]

    async def test_together_with_a_cancellation(self) -> None:
        """A cancellation at the same time does not hide an error."""
        with pytest.raises(ValueError, match="mine"):
            with trio.CancelScope() as scope:
                error = ValueError("mine")

                class Cancelling(Failing):
                    async def receive_some(self, max_bytes: int | None = None) -> bytes:
                        await trio.lowlevel.checkpoint()
                        scope.cancel()
                        raise self.error

                await relay(Cancelling(error), silent())

    async def test_busy_and_closed(self) -> None:
        """A stream that another task uses or closes is an error, not a result."""
        (left, client), (right, server) = await make("tcp", "tcp")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(relay, left, right)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await relay(left, right)
            nursery.cancel_scope.cancel()
        await left.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await relay(left, right)
        await close((left, client), (right, server))


class TestCancellation:
    """A cancelled relay raises Cancelled, and leaves the streams to their owners."""

    async def test_bare_with_counts(self) -> None:
        """It raises one Cancelled, not a group; the counts are in the progress."""
        left, right = (ScriptedPeer(data, then="silence") for data in (b"one", b"four"))
        progress = Progress(right_to_left=10)
        async with trio.open_nursery() as nursery:

            async def run() -> None:
                with pytest.raises(trio.Cancelled):
                    await relay(left, right, idle_timeout=9, progress=progress)

            nursery.start_soon(run)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

        assert (progress.left_to_right, progress.right_to_left) == (3, 14)
        assert not left.closed
        assert not right.closed

    async def test_at_every_step(self) -> None:
        """A cancellation at any step closes no stream, and the bytes are in order."""
        for step in range(1, 1000):
            left, right = ScriptedPeer(b"le", b"ft"), ScriptedPeer(b"right")
            instrument = CancelAtStep(step)
            trio.lowlevel.add_instrument(instrument)
            with instrument.scope:
                await relay(left, right, idle_timeout=9)
            trio.lowlevel.remove_instrument(instrument)

            assert not left.closed
            assert not right.closed
            assert b"left".startswith(right.sent)
            if not instrument.scope.cancelled_caught:
                break
        assert step > 3
        assert left.sent == b"right"
        assert right.sent == b"left"

    @pytest.mark.ids("F21")
    @pytest.mark.parametrize(("left_kind", "right_kind"), HALF_CLOSEABLE)
    async def test_gone_on_with(self, left_kind: str, right_kind: str) -> None:
        """After a cancellation of an inner scope another relay brings the rest.

        Between kernel sockets with room, and our TLS over them, no byte is lost. Others
        lose at most the chunk that was being sent each way. No byte comes twice.
        """
        exact = all(
            kind in DIRECT_TLS or kind in ("tcp", "unix", "upgraded", "trio-tcp")
            for kind in (left_kind, right_kind)
        )
        sent = [[os.urandom(1 + n * 7_000) for n in range(4)] for _ in range(2)]
        for step in range(1, 1000):
            (left, client), (right, server) = await make(left_kind, right_kind)
            got = bytearray(), bytearray()
            instrument = CancelAtStep(step)

            async def feed(peer: Any, pieces: list[bytes]) -> None:
                with suppress(trio.BrokenResourceError):
                    for piece in pieces:
                        await trio.testing.wait_all_tasks_blocked()
                        await peer.send_all(piece)
                    await peer.send_eof()

            async def collect(peer: Any, into: bytearray) -> None:
                with suppress(trio.BrokenResourceError):
                    await receive(peer, into)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(feed, client, sent[0])
                nursery.start_soon(feed, server, sent[1])
                nursery.start_soon(collect, server, got[0])
                nursery.start_soon(collect, client, got[1])
                trio.lowlevel.add_instrument(instrument)
                with instrument.scope:
                    relayed = await relay(left, right, tls_ends=True)
                trio.lowlevel.remove_instrument(instrument)
                if instrument.scope.cancelled_caught:
                    relayed = await relay(left, right, tls_ends=True)
            await close((left, client), (right, server))

            for pieces, arrived in zip(sent, got, strict=True):
                whole = b"".join(pieces)
                if relayed.cause == "reset":
                    # TLS over other streams, in which a send was cut.
                    assert "memory" in left_kind + right_kind
                    assert not exact
                    continue
                lost = len(whole) - len(arrived)
                assert 0 <= lost <= (0 if exact else 65536), step
                gap = next(
                    (n for n, byte in enumerate(arrived) if byte != whole[n]),
                    len(arrived),
                )
                assert whole[gap + lost :] == arrived[gap:], step
            if not instrument.scope.cancelled_caught:
                break
        assert step > 4
        assert relayed.cause == "eof"

    @pytest.mark.ids("F21")
    async def test_together_with_a_reset(self) -> None:
        """A cancellation at the same time as a reset leaves both streams alone."""
        left, right = silent(), silent()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(relay, left, right)
            await trio.testing.wait_all_tasks_blocked()
            left.finish("reset")
            nursery.cancel_scope.cancel()

        assert not left.closed
        assert not right.closed
        assert not right.got_eof


@pytest.mark.parametrize(("idle_timeout", "tasks"), [(None, 1), (10, 2)])
async def test_tasks(idle_timeout: float | None, tasks: int) -> None:
    """It starts one task for the other direction, and one more for idle_timeout."""

    class Spawned(trio.abc.Instrument):
        def __init__(self) -> None:
            self.names: list[str] = []

        def task_spawned(self, task: trio.lowlevel.Task) -> None:
            self.names.append(task.name)

    instrument = Spawned()
    trio.lowlevel.add_instrument(instrument)
    await relay(ScriptedPeer(b"x"), ScriptedPeer(b"y"), idle_timeout=idle_timeout)
    trio.lowlevel.remove_instrument(instrument)

    assert len(instrument.names) == tasks
    assert all(name.startswith("trio_upgrade relay") for name in instrument.names)


async def test_one_progress_for_many() -> None:
    """One Progress counts several relays, at the same time as well."""
    progress = Progress()
    run = partial(relay, progress=progress)
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(run, ScriptedPeer(b"left"), ScriptedPeer(b"right"))

    assert (progress.left_to_right, progress.right_to_left) == (12, 15)


def start(
    nursery: trio.Nursery, left: trio.abc.Stream, right: trio.abc.Stream, **options: Any
) -> list[RelayResult]:
    """Relay in a task; return the list that the result will be added to."""
    results = []

    async def run() -> None:
        results.append(await relay(left, right, **options))

    nursery.start_soon(run)
    return results
