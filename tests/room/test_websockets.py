"""WebSockets in a room, beside what their handlers and keep-alives send."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosedError
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN, Protocol, Side, State
from websockets.server import ServerProtocol
from websockets.trio.client import ClientConnection
from websockets.trio.server import ServerConnection
from websockets.uri import parse_uri

from trio_upgrade import (
    EndReason,
    UpgradedStream,
    open_room,
    open_upgrade,
    serve_tcp,
)
from trio_upgrade._room import outlets
from trio_upgrade.websocket import accept_websocket, open_websocket

from ..copying import ALL, close
from ..recording import Recorder
from ..sockets import clog, direct, tcp_pair
from .joining import join

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_upgrade import Request

HANDSHAKE = {
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
CLOSE_4000 = b"\x88\x02\x0f\xa0"
MASKED_CLOSE_4000 = b"\x88\x82\0\0\0\0\x0f\xa0"
settle = trio.testing.wait_all_tasks_blocked


class Peer:
    """The client's end: what it receives, as messages."""

    def __init__(self, stream) -> None:
        self.stream = stream
        self.protocol = Protocol(Side.CLIENT, max_size=None)

    async def receive(self, until: Callable[[list[Any]], bool]) -> list[Any]:
        """Receive until these frames are enough, and return them."""
        frames: list[Any] = []
        while not until(frames):
            data = await self.stream.receive_some()
            assert data
            self.protocol.receive_data(data)
            assert self.protocol.parser_exc is None
            frames += self.protocol.events_received()
        return frames

    async def receive_messages(self, count: int) -> list[bytes]:
        """Receive so many frames, and return what is in them."""
        frames = await self.receive(lambda frames: len(frames) >= count)
        return [bytes(frame.data) for frame in frames]


async def connect(
    nursery: trio.Nursery, kind: str = "upgraded"
) -> tuple[ServerConnection, Peer]:
    """Return a server's WebSocket, and its peer."""
    ours, peer = await ALL[kind]()
    return make_websocket(nursery, ours), Peer(peer)


def make_websocket(nursery: trio.Nursery, stream) -> ServerConnection:
    server: Any = None
    return ServerConnection(nursery, stream, ServerProtocol(state=OPEN), server)


async def leave(nursery: trio.Nursery, *peers: Peer) -> None:
    for peer in peers:
        await trio.aclose_forcefully(peer.stream)


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
@pytest.mark.parametrize("text", [False, True])
def test_frames(size: int, text: bool) -> None:
    """A message is one frame, as `websockets` writes it (RFC 6455 §5.2)."""
    message = "x" * size if text else b"x" * size
    opcode = Opcode.TEXT if text else Opcode.BINARY
    expected = Frame(opcode, b"x" * size).serialize(mask=False)

    assert outlets.WebSocketOutlet.encode(message) == expected


def test_what_a_room_uses_exists() -> None:
    """What a room uses of a ServerConnection without a documentation is still there."""
    protocol: Any = ServerProtocol(state=OPEN)

    assert State.OPEN == outlets._OPEN
    assert not Side.SERVER
    assert Side.CLIENT
    assert protocol.side == Side.SERVER
    assert protocol.writes == []
    assert callable(ServerConnection.send_data)
    protocol.send_text(b"x")
    (written,) = protocol.writes
    assert protocol.data_to_send() == [written]
    assert protocol.writes == []


async def test_attributes_of_a_connection(nursery) -> None:
    """A ServerConnection has the lock, the mark of fragments and the stream."""
    websocket, peer = await connect(nursery)

    assert isinstance(websocket.send_lock, trio.Lock)
    assert websocket.send_in_progress is None
    assert isinstance(websocket.stream, UpgradedStream)
    await leave(nursery, peer)


@pytest.mark.parametrize("kind", ["upgraded", "tls1.3-tcp", "memory", "trio-tcp"])
async def test_members(kind: str, nursery) -> None:
    """A str is a text message, bytes are a binary one; raw members get the bytes."""
    websocket, peer = await connect(nursery, kind)
    raw, raw_peer = await ALL["tcp"]()
    async with open_room() as room:
        handlers = [await join(nursery, room, each) for each in (websocket, raw)]
        room.send_nowait("tä")
        room.send_nowait(b"b")
        room.send_nowait("")
        frames = await peer.receive(lambda frames: len(frames) == 3)
        assert await raw_peer.receive_some() == "täb".encode()
        for handler in handlers:
            handler.go()
            await handler.left.wait()

    assert [(frame.opcode, bytes(frame.data)) for frame in frames] == [
        (Opcode.TEXT, "tä".encode()),
        (Opcode.BINARY, b"b"),
        (Opcode.TEXT, b""),
    ]
    await leave(nursery, peer)
    await close((raw, raw_peer))


@pytest.mark.parametrize("kind", ["upgraded", "tls1.3-tcp", "memory"])
async def test_beside_other_senders(kind: str, nursery) -> None:
    """Frames of the room, of the handler and of pings are never cut into one another."""
    websocket, peer = await connect(nursery, kind)
    large = os.urandom(3_000_000)

    async def send() -> None:
        for number in range(3):
            await websocket.send(large)
            await websocket.send([f"{number}", "of", "3"])
            await websocket.ping()

    async with open_room(pending_bytes=2**30) as room:
        handler = await join(nursery, room, websocket)
        nursery.start_soon(send)
        for _ in range(5):
            room.send_nowait(large)
            room.send_nowait("room")
            await trio.lowlevel.checkpoint()
        # 3 * (1 + 3 + 1) frames of the handler, with an end of fragments that is empty.
        frames = await peer.receive(lambda frames: len(frames) == 10 + 3 * 6)
        handler.go()
        await handler.left.wait()

    assert sum(bytes(frame.data) == large for frame in frames) == 8
    assert sum(bytes(frame.data) == b"room" for frame in frames) == 5
    fragments = [
        index for index, frame in enumerate(frames) if frame.opcode == Opcode.CONT
    ]
    assert len(fragments) == 9
    await leave(nursery, peer)


async def test_not_between_fragments(nursery) -> None:
    """A message of the room waits for the end of a fragmented one (RFC 6455 §5.4)."""
    websocket, peer = await connect(nursery)
    more = trio.Event()

    async def parts():
        yield "one"
        await more.wait()
        yield "two"

    async with open_room() as room:
        handler = await join(nursery, room, websocket)
        nursery.start_soon(websocket.send, parts())
        assert await peer.receive_messages(1) == [b"one"]
        room.send_nowait("room")
        await settle()
        more.set()

        assert await peer.receive_messages(3) == [b"two", b"", b"room"]
        handler.go()
        await handler.left.wait()
    await leave(nursery, peer)


async def test_a_part_is_sent_first(nursery) -> None:
    """What the kernel did not take of a frame goes before what others send."""
    websocket, peer = await connect(nursery)
    large = os.urandom(10_000_000)
    async with open_room() as room:
        handler = await join(nursery, room, websocket)
        room.send_nowait(large)
        nursery.start_soon(websocket.send, "handler")

        assert await peer.receive_messages(2) == [large, b"handler"]
        handler.go()
        await handler.left.wait()
    await leave(nursery, peer)


async def test_with_compression(nursery) -> None:
    """A member with permessage-deflate gets frames as they are (RFC 7692 §6)."""
    websocket, peer = await connect(nursery)
    websocket.protocol.extensions = [PerMessageDeflate(False, False, 15, 15)]
    peer.protocol.extensions = [PerMessageDeflate(False, False, 15, 15)]
    async with open_room() as room:
        handler = await join(nursery, room, websocket)
        for _ in range(3):
            await websocket.send("again and again")
            room.send_nowait("again and again")

        assert await peer.receive_messages(6) == [b"again and again"] * 6
        handler.go()
        await handler.left.wait()
    await leave(nursery, peer)


@pytest.mark.parametrize("kind", ["upgraded", "memory"])
async def test_after_the_close_frame(kind: str, nursery) -> None:
    """Nothing follows a close frame (RFC 6455 §5.5.1); the member is not dropped."""
    websocket, peer = await connect(nursery, kind)
    async with open_room() as room:
        handler = await join(nursery, room, websocket)
        room.send_nowait("before")
        # Over memory a task sends it, and a close frame would not wait for that task.
        await settle()
        nursery.start_soon(websocket.aclose, 4000)
        await settle()
        room.send_nowait("after")
        await settle()
        assert handler.member.dropped is None
        handler.go()
        await handler.left.wait()

    received = bytearray()
    while CLOSE_4000 not in received:
        received += await peer.stream.receive_some()
    await peer.stream.send_all(MASKED_CLOSE_4000)
    while chunk := await peer.stream.receive_some():
        received += chunk
    assert received == b"\x81\x06before" + CLOSE_4000
    await leave(nursery, peer)


async def test_waiting_when_a_close_frame_is_sent(nursery) -> None:
    """A message that waits while the closing handshake begins is not sent."""
    ours, peer = direct(await tcp_pair())
    filled = await clog(ours)
    websocket = make_websocket(nursery, UpgradedStream(ours))
    async with open_room() as room:
        handler = await join(nursery, room, websocket)
        room.send_nowait("first")
        await settle()
        room.send_nowait("second")
        nursery.start_soon(websocket.aclose, 4000)
        await settle()
        received = bytearray()
        while CLOSE_4000 not in received:
            received += await peer.receive_some()
        await peer.send_all(MASKED_CLOSE_4000)
        while chunk := await peer.receive_some():
            received += chunk
        handler.go()
        await handler.left.wait()

    assert received[filled:] == b"\x81\x05first" + CLOSE_4000
    await peer.aclose()


async def test_in_two_rooms(nursery) -> None:
    """A WebSocket may be in several rooms: their frames are not mixed."""
    websocket, peer = await connect(nursery)
    large = os.urandom(10_000_000)
    async with open_room() as one, open_room() as two:
        handlers = [await join(nursery, room, websocket) for room in (one, two)]
        one.send_nowait(large)
        two.send_nowait("small")

        assert await peer.receive_messages(2) == [large, b"small"]
        for handler in handlers:
            handler.go()
            await handler.left.wait()
    await leave(nursery, peer)


async def test_slow_reader(nursery) -> None:
    """A WebSocket that is dropped is reset: its handler's recv() raises.

    No close frame can be sent, because what the peer does not read is before it.
    """
    ours, peer = direct(await tcp_pair())
    await clog(ours)
    websocket = make_websocket(nursery, UpgradedStream(ours))
    async with open_room(pending=1) as room:
        handler = await join(nursery, room, websocket)
        for _ in range(3):
            room.send_nowait("x")
        await handler.left.wait()

        assert handler.member.dropped == "it reads too slowly: 1 messages wait"
        with pytest.raises(ConnectionClosedError):
            await websocket.recv()
        with pytest.raises(trio.BrokenResourceError):
            while await peer.receive_some():
                pass
    await peer.aclose()


async def test_client(nursery) -> None:
    """A client's WebSocket cannot join: its frames are masked (RFC 6455 §5.3)."""
    ours, peer = await ALL["upgraded"]()
    protocol = ClientProtocol(parse_uri("ws://localhost/"), state=OPEN)
    websocket = ClientConnection(nursery, ours, protocol)
    async with open_room() as room:
        with pytest.raises(TypeError, match="must be a server's, not a client's"):
            room.join(websocket)
    await close((ours, peer))


async def test_in_a_server(nursery, caplog) -> None:
    """Clients of a server chat in a room; one that does not read ends, the other not."""
    dropped: list[str | None] = []

    async def talk(websocket: ServerConnection) -> None:
        async with room.join(websocket) as member:
            async for message in websocket:
                room.send_nowait(message, skip=member)
        dropped.append(member.dropped)

    async def app(request: Request) -> Any:
        return accept_websocket(request, talk)

    recorder = Recorder()
    async with open_room(pending=1) as room:
        server = await nursery.start(
            partial(serve_tcp, app, 0, host="127.0.0.1", strict=True, observer=recorder)
        )
        url = server.url.replace("http", "ws")
        async with (
            open_websocket(url) as one,
            open_websocket(url) as two,
            # It never reads.
            await open_upgrade(url, "websocket", headers=HANDSHAKE) as (_, _stream, _),
        ):
            while len(room) < 3:
                await settle(0.001)
            await one.send("hello")
            assert await two.recv() == "hello"
            large = b"x" * 1_000_000
            while not dropped:
                await one.send(large)
                assert await two.recv() == large
            await two.send("still here")
            assert await one.recv() == "still here"
        await server.drain(grace=5)

    assert sorted(map(str, dropped)) == [
        "None",
        "None",
        "it reads too slowly: 1 messages wait",
    ]
    assert recorder.reasons.count(EndReason.RESET) == 1
    assert [record for record in caplog.records if record.levelname != "DEBUG"] == []
