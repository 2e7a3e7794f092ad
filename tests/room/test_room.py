"""A room: who gets a message, and how a member and a room are left."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_upgrade import (
    EndReason,
    Upgrade,
    UpgradedStream,
    UsageError,
    open_room,
    serve_stream,
)

from ..cancelling import CancelAtStep
from ..copying import ALL, close
from ..recording import Recorder
from ..sockets import clog, direct, tcp_pair
from ..wire import UP
from .joining import Held, SendOnly, join

if TYPE_CHECKING:
    from trio_upgrade import Request

settle = trio.testing.wait_all_tasks_blocked


@pytest.mark.parametrize("kind", ALL)
async def test_every_stream(kind: str, nursery) -> None:
    """Members on every kind of stream get all messages, small and large, in order."""
    large = bytes(range(256)) * 4096
    ours, peer = await ALL[kind]()
    received = bytearray()

    async def receive(size: int) -> None:
        while len(received) < size:
            received.extend(await peer.receive_some())

    async with open_room(pending_bytes=2**21) as room:
        handler = await join(nursery, room, ours)
        room.send_nowait(b"small")
        await receive(5)
        room.send_nowait("ä")
        room.send_nowait(bytearray(large))
        room.send_nowait(memoryview(b"last")[1:])
        room.send_nowait(b"")
        await receive(5 + 2 + len(large) + 3)
        handler.go()
        await handler.left.wait()

    assert received == b"small\xc3\xa4" + large + b"ast"
    assert handler.body_went_on
    assert handler.member.dropped is None
    await close((ours, peer))


async def test_skip(nursery) -> None:
    """A message can leave one member out, and go to one member alone."""
    streams = [Held(9) for _ in range(3)]
    async with open_room() as room:
        handlers = [await join(nursery, room, stream) for stream in streams]
        assert len(room) == 3
        room.send_nowait(b"a", skip=handlers[1].member)
        handlers[1].member.send_nowait("b")
        await settle()
        for handler in handlers:
            handler.go()
            await handler.left.wait()
        assert not room
        handlers[1].member.send_nowait(b"no member any more")
        room.send_nowait(b"to nobody")

    assert [stream.sent for stream in streams] == [[b"a"], [b"b"], [b"a"]]


async def test_waiting_messages_are_sent_together(nursery) -> None:
    """What waits while one message is sent goes out at once, up to 64 KiB."""
    stream = Held()
    async with open_room() as room:
        handler = await join(nursery, room, stream)
        for letter in "abc":
            room.send_nowait(letter)
        room.send_nowait(b"d" * 65534)
        room.send_nowait(b"e")
        assert handler.member.pending == 4
        stream.allow(3)
        await settle()

        assert handler.member.pending == 0
        handler.go()
        await handler.left.wait()
    assert stream.sent == [b"a", b"bc" + b"d" * 65534, b"e"]


async def test_too_many_messages(nursery) -> None:
    """Over the bound of messages a member is dropped: reset, and its block cancelled.

    The others have every message.
    """
    slow, quick = Held(), Held(9)
    async with open_room(pending=2) as room:
        handler, other = [await join(nursery, room, each) for each in (slow, quick)]
        for number in range(3):
            room.send_nowait(f"{number}")
            await settle()
        assert handler.member.dropped is None
        room.send_nowait("3")

        assert handler.member.dropped == "it reads too slowly: 2 messages wait"
        assert handler.member.cause is None
        assert len(room) == 1
        await handler.left.wait()
        assert slow.closed
        room.send_nowait("4")
        handler.member.send_nowait("5")
        await settle()
        other.go()
        await other.left.wait()
    assert not handler.body_went_on
    assert slow.sent == []
    assert b"".join(quick.sent) == b"01234"
    assert not quick.closed


async def test_too_many_bytes(nursery) -> None:
    """Over the bound of bytes a member is dropped; one message may be larger."""
    stream = Held()
    async with open_room(pending_bytes=10) as room:
        handler = await join(nursery, room, stream)
        room.send_nowait(b"x" * 100)
        room.send_nowait(b"y" * 10)
        assert handler.member.dropped is None
        room.send_nowait(b"z")
        await handler.left.wait()

    assert handler.member.dropped == "it reads too slowly: more than 10 bytes wait"
    assert stream.closed


async def test_bytes_that_were_sent_do_not_count(nursery) -> None:
    """A member that reads, if late, is not dropped."""
    stream = Held()
    async with open_room(pending_bytes=10) as room:
        handler = await join(nursery, room, stream)
        room.send_nowait(b"x")
        for _ in range(3):
            room.send_nowait(b"y" * 8)
            stream.allow(1)
            await settle()
        assert handler.member.dropped is None
        stream.allow(9)
        handler.go()
        await handler.left.wait()


async def test_slow_reader_is_reset(nursery) -> None:
    """The peer of a member that was dropped gets a reset: it has lost messages."""
    ours, peer = direct(await tcp_pair())
    async with open_room(pending=1) as room:
        handler = await join(nursery, room, ours)
        while handler.member.dropped is None:
            room.send_nowait(b"x" * 65536)
            await settle()
        await handler.left.wait()

    with pytest.raises(trio.BrokenResourceError):
        while await peer.receive_some():
            pass
    await close((ours, peer))


async def test_handler_that_stays(nursery) -> None:
    """The stream is reset even if the handler of a dropped member does not leave yet."""
    stream = Held()
    left = trio.Event()

    async def stay() -> None:
        async with room.join(stream):
            with trio.CancelScope(shield=True):
                await left.wait()

    async with open_room(pending=1) as room:
        nursery.start_soon(stay)
        await settle()
        for _ in range(3):
            room.send_nowait(b"x")
        await settle()
        assert stream.closed
        left.set()


async def test_send_only_stream(nursery) -> None:
    """A stream that can only send may join; it is closed when it is dropped."""
    stream = SendOnly()
    async with open_room(pending=1) as room:
        handler = await join(nursery, room, stream)
        for _ in range(3):
            room.send_nowait(b"x")
        await handler.left.wait()

    assert stream.closed


@pytest.mark.parametrize("waits", [False, True])
async def test_peer_is_gone(waits: bool, nursery) -> None:
    """A member whose peer has reset is dropped, and the others are not harmed."""
    ours, peer = direct(await tcp_pair())
    stream = UpgradedStream(ours)
    async with open_room() as room:
        handler = await join(nursery, room, stream)
        if waits:
            await clog(ours)
            room.send_nowait(b"x")
        await peer.aclose()
        while handler.member.dropped is None:
            room.send_nowait(b"x")
            await settle()
        await handler.left.wait()

    assert handler.member.dropped == "its peer is gone"
    assert isinstance(handler.member.cause, trio.BrokenResourceError)
    assert stream.broken
    assert not stream.was_reset
    await ours.aclose()


@pytest.mark.parametrize("kind", ["memory", "tcp"])
async def test_stream_was_closed(kind: str, nursery) -> None:
    """A member whose stream was closed on this side is dropped."""
    ours, peer = await ALL[kind]()
    async with open_room() as room:
        handler = await join(nursery, room, ours)
        await ours.aclose()
        room.send_nowait(b"x")
        await handler.left.wait()

    assert handler.member.dropped == "its stream was closed"
    assert isinstance(handler.member.cause, trio.ClosedResourceError)
    await peer.aclose()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (trio.BusyResourceError(), "another task was sending on its stream"),
        (ValueError("oops"), "its stream failed: ValueError('oops')"),
    ],
    ids=["busy", "bug"],
)
async def test_stream_fails(error: Exception, reason: str, nursery) -> None:
    """A stream that raises costs only its own member, which is told the exception."""
    stream = Held(1)
    stream.error = error
    async with open_room() as room:
        handler = await join(nursery, room, stream)
        room.send_nowait(b"x")
        await handler.left.wait()

    assert handler.member.dropped == reason
    assert handler.member.cause is error
    assert stream.closed


@pytest.mark.parametrize("kind", ["tcp", "tls1.3-tcp", "upgraded"])
async def test_nothing_is_sent_between(kind: str, nursery) -> None:
    """While a part of a message waits, another sender gets BusyResourceError.

    Its bytes would be in the middle of that message.
    """
    ours, peer = await ALL[kind]()
    async with open_room() as room:
        handler = await join(nursery, room, ours)
        room.send_nowait(b"x" * 10_000_000)
        with pytest.raises(trio.BusyResourceError):
            await ours.send_all(b"y")
        await settle()
        with pytest.raises(trio.BusyResourceError):
            await ours.send_all(b"y")
        received = bytearray()
        while len(received) < 10_000_000:
            received.extend(await peer.receive_some())
        handler.go()
        await handler.left.wait()

    assert received == b"x" * 10_000_000
    await ours.send_all(b"after")
    assert await peer.receive_some() == b"after"
    await close((ours, peer))


async def test_other_sender_is_first(nursery) -> None:
    """A member whose handler itself is sending is dropped when a message comes."""
    ours, peer = direct(await tcp_pair())
    await clog(ours)
    async with open_room() as room:
        handler = await join(nursery, room, ours)

        async def send() -> None:
            with suppress(trio.ClosedResourceError):
                await ours.send_all(b"x")

        nursery.start_soon(send)
        await settle()
        room.send_nowait(b"y")
        await handler.left.wait()

    assert handler.member.dropped == "another task was sending on its stream"
    await close((ours, peer))


async def test_leaving_waits_for_the_last_messages(nursery, autojump_clock) -> None:
    """A member that leaves by a return has its last messages sent first."""
    stream = Held()
    async with open_room(linger=5) as room:
        handler = await join(nursery, room, stream)
        handler.member.send_nowait(b"good")
        handler.member.send_nowait(b"bye")
        handler.go()
        await trio.sleep(4)
        assert not handler.left.is_set()
        room.send_nowait(b"it is no member any more")
        stream.allow(2)
        await handler.left.wait()

    assert stream.sent == [b"good", b"bye"]
    assert handler.member.dropped is None
    assert not stream.closed


async def test_leaving_lingers_no_longer(nursery, autojump_clock) -> None:
    """A peer that does not read its last messages in time gets a reset."""
    stream = Held()
    async with open_room() as room:
        handler = await join(nursery, room, stream)
        handler.member.send_nowait(b"good")
        handler.member.send_nowait(b"bye")
        began = trio.current_time()
        handler.go()
        await handler.left.wait()

    assert trio.current_time() - began == 2
    assert handler.member.dropped == "it did not read the last messages in time"
    assert stream.closed
    assert stream.sent == []


async def test_leaving_without_a_limit(nursery, autojump_clock) -> None:
    """None waits for the peer however long it takes."""
    stream = Held()
    async with open_room(linger=None) as room:
        handler = await join(nursery, room, stream)
        handler.member.send_nowait(b"x")
        handler.go()
        await trio.sleep(10_000)
        assert not handler.left.is_set()
        stream.allow(1)
        await handler.left.wait()


@pytest.mark.parametrize("pending", [0, 2])
async def test_leaving_by_an_exception(pending: int, nursery, autojump_clock) -> None:
    """An exception comes out as it is, at once; what waits is forgotten.

    The message that is being sent is left to the end of the stream.
    """
    stream = Held()
    error = LookupError("oops")
    async with open_room() as room:
        with pytest.raises(LookupError) as caught:
            async with room.join(stream) as member:
                for _ in range(pending):
                    member.send_nowait(b"x")
                await settle()
                raise error
        assert trio.current_time() == 0
        assert not room
        stream.allow(2)
        await settle()

    assert caught.value is error
    assert stream.sent == [b"x"][:pending]
    assert not stream.closed


async def test_room_closes_behind_half_a_message() -> None:
    """Nothing can follow half a message whose writer ends with the room."""
    ours, peer = direct(await tcp_pair())
    stream = UpgradedStream(ours)
    await clog(ours)
    async with open_room() as room:
        with pytest.raises(LookupError):
            async with room.join(stream) as member:
                while not stream.sent:
                    # A part of what is in the kernel: it then takes a part of this.
                    await peer.receive_some(65536)
                    await ours.wait_send_all_might_not_block()
                    member.send_nowait(b"x" * 2**19)
                await settle()
                raise LookupError
        assert 0 < stream.sent < 2**19

    for send in (partial(stream.send_all, b"next"), stream.send_eof):
        with (
            pytest.raises(trio.BrokenResourceError, match="send was cut"),
            trio.fail_after(2),
        ):
            await send()
    await close((ours, peer))


async def test_group_from_a_body() -> None:
    """A group that a body raises comes out as it is, of the member and of the room."""
    group = ExceptionGroup("ours", [ValueError("oops")])
    with pytest.raises(ExceptionGroup) as caught:
        async with open_room() as room, room.join(Held()):
            raise group

    assert caught.value is group


async def test_leaving_by_a_cancellation(autojump_clock) -> None:
    """A cancelled handler leaves at once, also while it waits for the last messages."""
    for waits in (False, True):
        stream = Held()
        async with open_room() as room:
            with trio.move_on_after(1) as scope:
                async with room.join(stream) as member:
                    member.send_nowait(b"x")
                    member.send_nowait(b"y")
                    if not waits:
                        await trio.sleep_forever()
            assert scope.cancelled_caught
            assert member.pending == 0
            assert not room


async def test_closing_the_room(nursery, autojump_clock) -> None:
    """A room that closes sends what waits, and then cancels the blocks of its members."""
    stream, slow, idle = Held(), Held(), Held()
    async with open_room() as room:
        handlers = [await join(nursery, room, each) for each in (stream, slow, idle)]
        for handler in handlers[:2]:
            handler.member.send_nowait(b"x")
            handler.member.send_nowait(b"y")

        async def allow() -> None:
            await trio.sleep(1)
            # It is too late for more.
            room.send_nowait(b"z")
            stream.allow(3)

        nursery.start_soon(allow)

    assert trio.current_time() == 2
    for handler in handlers:
        await handler.left.wait()
        assert handler.member.dropped == "the room was closed"
    assert (stream.sent, slow.sent) == ([b"x", b"y"], [])
    assert [each.closed for each in (stream, slow, idle)] == [False, True, False]
    with pytest.raises(UsageError, match="the room is closed"):
        async with room.join(stream):
            pass
    room.send_nowait(b"to nobody")


async def test_leaving_a_room_that_closes(nursery, autojump_clock) -> None:
    """A member that leaves while the room closes has its last messages sent as well."""
    stream = Held()
    async with open_room() as room:
        idle = await join(nursery, room, Held())
        handler = await join(nursery, room, stream)
        handler.member.send_nowait(b"x")

        async def leave() -> None:
            await trio.sleep(0.5)
            handler.go()
            await trio.sleep(0.5)
            stream.allow(1)

        nursery.start_soon(leave)

    assert trio.current_time() == 1
    await handler.left.wait()
    assert stream.sent == [b"x"]
    assert handler.member.dropped is None
    assert idle.member.dropped == "the room was closed"


async def test_closing_by_an_exception(nursery, autojump_clock) -> None:
    """A room that is left by an exception does not wait, and raises just that."""
    stream = Held()
    error = LookupError("oops")
    with pytest.raises(LookupError) as caught:
        async with open_room() as room:
            handler = await join(nursery, room, stream)
            room.send_nowait(b"x")
            await settle()
            raise error

    assert caught.value is error
    assert trio.current_time() == 0
    assert stream.closed
    await handler.left.wait()


async def test_closing_by_an_exception_while_cancelled(nursery) -> None:
    """A room that is cancelled as well raises what its body raises."""
    stream = Held()
    with trio.CancelScope() as scope:
        with pytest.raises(LookupError, match="oops"):
            async with open_room() as room:
                handler = await join(nursery, room, stream)
                room.send_nowait(b"x")
                scope.cancel()
                raise LookupError("oops")
    assert stream.closed
    await handler.left.wait()


async def test_closing_by_a_cancellation(nursery, autojump_clock) -> None:
    """A cancelled room does not wait, whether in its body or in its end."""
    for ends in (False, True):
        stream = Held()
        with trio.move_on_after(1) as scope:
            async with open_room() as room:
                handler = await join(nursery, room, stream)
                room.send_nowait(b"x")
                if not ends:
                    await trio.sleep_forever()

        assert scope.cancelled_caught
        assert stream.closed
        await handler.left.wait()


@pytest.mark.parametrize("memory", [False, True])
async def test_cancelled_everywhere(memory: bool) -> None:
    """A handler that is cancelled at any step leaves no member and no task."""
    for step in range(1, 100):
        ours, peer = await ALL["memory" if memory else "tcp"]()
        instrument = CancelAtStep(step)
        async with open_room() as room:
            trio.lowlevel.add_instrument(instrument)
            try:
                with instrument.scope:
                    async with room.join(ours) as member:
                        await trio.lowlevel.checkpoint()
                        room.send_nowait(b"one")
                        member.send_nowait(b"two" * 1_000_000)
                        await trio.lowlevel.checkpoint()
                        await peer.receive_some()
            finally:
                trio.lowlevel.remove_instrument(instrument)
            assert not room
            await close((ours, peer))
            await settle()
            assert not room._state.nursery.child_tasks
        if not instrument.scope.cancelled_caught:
            return
    raise AssertionError("it did not end")


async def test_entered_twice() -> None:
    """A scope of a member is for one block, as Trio's scopes are."""
    async with open_room() as room:
        scope = room.join(Held())
        async with scope:
            with pytest.raises(RuntimeError, match="single"):
                await scope.__aenter__()
            assert len(room) == 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"pending": 0}, ValueError, "pending must be at least 1, not 0"),
        ({"pending": None}, TypeError, "pending must be an int, not None"),
        ({"pending_bytes": True}, TypeError, "pending_bytes must be an int, not bool"),
        ({"linger": -1}, ValueError, "linger must not be negative, not -1"),
    ],
)
def test_arguments(options: dict[str, Any], error: type[Exception], message) -> None:
    """A wrong bound is an error before anything is opened."""
    with pytest.raises(error, match=message):
        open_room(**options)


async def test_wrong_members_and_messages() -> None:
    """What is no stream cannot join, and what is neither str nor bytes is not sent."""
    async with open_room() as room:
        for wrong in (None, "stream", Held, Upgrade):
            with pytest.raises(TypeError, match="a member must be a Trio stream or a"):
                room.join(wrong)  # type: ignore[arg-type]
        async with room.join(Held()) as member:
            for send in (room.send_nowait, member.send_nowait):
                with pytest.raises(TypeError, match="must be str or bytes, not int"):
                    send(5)  # type: ignore[arg-type]
                with pytest.raises(ValueError, match="surrogates"):
                    send("\ud800")
            with pytest.raises(TypeError, match=r"skip must be a member, .* not Held"):
                room.send_nowait("x", skip=Held())  # type: ignore[arg-type]


@asynccontextmanager
async def served(recorder: Recorder, handler):
    """Serve one switched connection; yield the peer's end of it."""
    near, far = direct(await tcp_pair())

    async def app(request: Request) -> Upgrade:
        return Upgrade("echo", handler)

    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            await serve_stream(app, far, observer=recorder, strict=True)

        nursery.start_soon(serve)
        await near.send_all(UP)
        yield near
    await near.aclose()


async def test_dropped_in_a_server(caplog) -> None:
    """A server records a reset of a member that was dropped, and logs no error."""
    recorder = Recorder()

    async def handler(_request: Request, stream: UpgradedStream, _head: bytes) -> None:
        async with room.join(stream) as member:
            async for _ in stream:
                pass
        dropped.append(member.dropped)

    dropped: list[str | None] = []
    async with open_room(pending=1) as room, served(recorder, handler):
        while not len(room):
            await trio.testing.wait_all_tasks_blocked(0.001)
        while len(room):
            room.send_nowait(b"x" * 65536)
            await settle()

    assert dropped == ["it reads too slowly: 1 messages wait"]
    assert recorder.reasons == [EndReason.RESET]
    assert recorder.errors == []
    assert caplog.records == []
