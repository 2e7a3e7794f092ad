"""open_websocket: the offer, the 101, and how the block ends."""

from __future__ import annotations

import inspect
import ssl
from functools import partial

import pytest
import trio
import trio.testing
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK
from websockets.frames import Opcode
from websockets.protocol import State
from websockets.trio.client import ClientConnection
from websockets.utils import accept_key

from trio_upgrade import (
    Headers,
    IllegalSwitch,
    Limits,
    PeerGone,
    Response,
    UpgradeRefused,
    open_upgrade,
    serve_tcp,
)
from trio_upgrade.testing import ScriptedPeer
from trio_upgrade.websocket import open_websocket

from ..wire import okay
from .wires import HOST, echo, plain, plain_close, serve

URL = "ws://u:secret@a.example/chat?token=secret"
CLOSED = plain_close(1000)


class Peer(trio.abc.HalfCloseableStream):
    """A server that answers the offer with a 101 and packets of its own.

    The key of the client is not known before, so the script is made when it came.
    """

    def __init__(self, *packets: bytes, fields=(), omit=(), accept=None, cut=None):
        self._packets = packets
        self._fields = list(fields)
        self._omit = omit
        self._accept = accept
        self._cut = cut
        self.script = ScriptedPeer(then="silence")
        self.request = b""

    async def send_all(self, data) -> None:
        await self.script.send_all(data)
        if not self.request and b"\r\n\r\n" in self.script.sent:
            self.request = bytes(self.script.sent)
            self.script.sent.clear()
            self._answer()

    def _answer(self) -> None:
        (key,) = [
            line.partition(": ")[2]
            for line in self.request.decode().split("\r\n")
            if line.startswith("Sec-WebSocket-Key: ")
        ]
        fields = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Accept": self._accept or accept_key(key),
        }
        lines = ["HTTP/1.1 101 Switching Protocols"]
        lines += [f"{k}: {v}" for k, v in fields.items() if k not in self._omit]
        lines += self._fields
        head = "\r\n".join([*lines, "", ""]).encode()
        wire = head + b"".join(self._packets)
        if self._cut is None:
            self.script.feed(head, *self._packets)
        else:
            self.script.feed(*self._cut(wire))

    async def receive_some(self, max_bytes=None) -> bytes:
        return await self.script.receive_some(max_bytes)

    async def wait_send_all_might_not_block(self) -> None:
        await self.script.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self.script.send_eof()

    async def aclose(self) -> None:
        await self.script.aclose()


@pytest.mark.ids("W01")
async def test_offer() -> None:
    """The request is a GET of HTTP/1.1 with the fields of RFC 6455 §4.1."""
    peer = Peer(CLOSED)
    async with open_websocket(
        URL,
        stream=peer,
        origin="https://o",
        subprotocols=["b", "a"],
        compression=None,
        headers={"Cookie": "c=d"},
    ) as websocket:
        assert isinstance(websocket, ClientConnection)
        assert websocket.state is State.OPEN
        assert websocket.request is not None
        assert websocket.response is not None
        key = websocket.request.headers["Sec-WebSocket-Key"]
        assert websocket.request.path == "/chat?token=secret"
        assert websocket.response.status_code == 101
        assert websocket.remote_address is websocket.local_address is None
        peer.script.finish()
        with pytest.raises(ConnectionClosedOK):
            await websocket.recv()

    assert len(key) == 24
    assert (
        peer.request
        == (
            "GET /chat?token=secret HTTP/1.1\r\nHost: a.example\r\n"
            "Connection: Upgrade\r\nUpgrade: websocket\r\n"
            "Origin: https://o\r\n"
            f"Sec-WebSocket-Key: {key}\r\n"
            "Sec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Protocol: b, a\r\nCookie: c=d\r\n"
            "Authorization: Basic dTpzZWNyZXQ=\r\n\r\n"
        ).encode()
    )


@pytest.mark.ids("W01")
async def test_key_is_fresh() -> None:
    """Each offer has another key (RFC 6455 §4.1)."""
    peers = [Peer(CLOSED), Peer(CLOSED)]
    for peer in peers:
        with trio.CancelScope() as scope:
            async with open_websocket("ws://a", stream=peer):
                scope.cancel()
                await trio.lowlevel.checkpoint()

    assert peers[0].request != peers[1].request


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("ws://a", "/"),
        ("ws://a?x=1", "/?x=1"),
        ("http+unix://%2Frun%2Fa.sock/b%20c", "/b%20c"),
        ("wss://[::1]:8443/b?c#d", "/b?c"),
    ],
)
async def test_target(url, target) -> None:
    """The WebSocket knows the target of its request."""
    peer = Peer(CLOSED)
    peer.script.finish()
    async with open_websocket(url, stream=peer) as websocket:
        assert websocket.request is not None
        assert websocket.request.path == target
    assert peer.request.startswith(f"GET {target} HTTP/1.1\r\n".encode())


@pytest.mark.ids("W02")
async def test_nothing_before_the_answer() -> None:
    """No frame is sent before the 101 (RFC 6455 §4.1)."""
    peer = ScriptedPeer(then="silence")
    async with trio.open_nursery() as nursery:

        async def dial() -> None:
            async with open_websocket("ws://a", stream=peer):
                raise AssertionError

        nursery.start_soon(dial)
        await peer.wait_sent(b"\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked()
        assert peer.sent.endswith(b"\r\n\r\n")
        nursery.cancel_scope.cancel()

    assert peer.closed


@pytest.mark.ids("W02")
@pytest.mark.parametrize("offered", [True, False])
async def test_extension(offered: bool) -> None:
    """Compression is offered unless it is not wanted (RFC 7692 §5.1)."""
    peer = Peer(CLOSED)
    peer.script.finish()
    compression = "deflate" if offered else None
    async with open_websocket("ws://a", stream=peer, compression=compression):
        pass

    extension = b"\r\nSec-WebSocket-Extensions: permessage-deflate; "
    assert (extension in peer.request) == offered


async def test_frames_in_the_packet_of_the_head() -> None:
    """Frames that come with the 101 are read, wherever the packets are cut."""
    packets = plain("Hello"), plain(b"\0\xff"), CLOSED
    # The Accept changes with each key, but not its length; then byte by byte.
    length = 129 + sum(map(len, packets))
    for cut in range(length):
        peer = Peer(*packets, cut=partial(split_at, cut=cut))
        peer.script.finish()
        async with open_websocket("ws://a", stream=peer, compression=None) as websocket:
            assert [message async for message in websocket] == ["Hello", b"\0\xff"]


def split_at(wire: bytes, cut: int) -> list[bytes]:
    """Cut a wire in two, or at 0 into single bytes."""
    if cut:
        return [wire[:cut], wire[cut:]]
    return [bytes([octet]) for octet in wire]


@pytest.mark.ids("W03")
@pytest.mark.parametrize(
    ("peer", "defect"),
    [
        (Peer(accept="x"), "invalid Sec-WebSocket-Accept header: x"),
        (Peer(omit={"Sec-WebSocket-Accept"}), "missing Sec-WebSocket-Accept header"),
        (Peer(fields=["Sec-WebSocket-Accept: x"]), "multiple values"),
        (Peer(fields=["Sec-WebSocket-Protocol: c"]), "unsupported subprotocol: c"),
        (Peer(fields=["Sec-WebSocket-Protocol: a, b"]), "multiple values: a, b"),
        (
            Peer(fields=["Sec-WebSocket-Extensions: x"]),
            "Unsupported extension: name = x",
        ),
        (Peer(omit={"Upgrade"}), "it has no Upgrade field"),
        (Peer(omit={"Connection"}), "its Connection field does not name Upgrade"),
        (Peer(fields=["Upgrade: other"]), "it switches to 'other'"),
        (Peer(fields=["Upgrade: websocket"]), "invalid Upgrade header: websocket, w"),
        (Peer(fields=["X: y"] * 200), "expected no more than 128 headers"),
    ],
    ids=lambda value: value.partition(":")[0] if isinstance(value, str) else "",
)
async def test_illegal_101(peer, defect) -> None:
    """A 101 that breaks RFC 6455 §4.1 is an IllegalSwitch; nothing is left open."""
    with pytest.raises(IllegalSwitch) as caught:
        async with open_websocket(URL, stream=peer, subprotocols=["a", "b"]):
            raise AssertionError

    assert defect in caught.value.defect
    assert str(caught.value).startswith("ws://***@a.example/chat")
    assert "secret" not in str(caught.value)
    assert peer.script.closed


@pytest.mark.ids("W03")
async def test_refusal() -> None:
    """Another answer than a 101 is HTTP: an UpgradeRefused with its body."""
    peer = ScriptedPeer(okay(b"no", status="403 Forbidden"))
    with pytest.raises(UpgradeRefused) as caught:
        async with open_websocket("ws://a", stream=peer):
            raise AssertionError

    assert caught.value.response.status == 403
    assert caught.value.response.body == b"no"
    assert peer.closed


async def test_peer_gone() -> None:
    """A peer that goes away before its answer is PeerGone."""
    with pytest.raises(PeerGone):
        async with open_websocket("ws://a", stream=ScriptedPeer()):
            raise AssertionError


@pytest.mark.ids("W07")
async def test_frame_with_mask() -> None:
    """A frame of a server with a mask ends the WebSocket: 1002 (RFC 6455 §5.1)."""
    peer = Peer(b"\x81\x80\0\0\0\0")
    async with open_websocket("ws://a", stream=peer, close_timeout=0) as websocket:
        with pytest.raises(ConnectionClosedError, match="1002"):
            await websocket.recv()


@pytest.mark.ids("W07")
async def test_our_frames_have_masks() -> None:
    """Each frame that is sent has a mask (RFC 6455 §5.3)."""
    peer = Peer()
    async with open_websocket("ws://a", stream=peer, compression=None) as websocket:
        await websocket.send("Hello")
        frame = bytes(peer.script.sent)
        peer.script.feed(CLOSED)
        peer.script.finish()

    assert frame[:2] == b"\x81\x85"
    unmasked = bytes(a ^ b for a, b in zip(frame[6:], frame[2:6] * 2, strict=False))
    assert unmasked == b"Hello"


class TestEnd:
    """Leaving the block."""

    async def test_normally(self, nursery) -> None:
        """A Close with 1000; the server ends TCP (RFC 6455 §7.1.1)."""
        ended = []

        async def handler(websocket) -> None:
            await websocket.wait_closed()
            ended.append((websocket.close_code, websocket.close_reason))

        server, url = await serve(nursery, handler)
        async with open_websocket(url) as websocket:
            await websocket.send("unread")
        assert websocket.state is State.CLOSED
        await server.drain(5)

        assert ended == [(1000, "")]

    async def test_unread_messages(self, nursery) -> None:
        """Messages over the queue do not keep the peer's Close from being read."""

        async def handler(websocket) -> None:
            for _ in range(100):
                await websocket.send(b"x" * 1000)
            await websocket.wait_closed()

        _, url = await serve(nursery, handler)
        with trio.fail_after(5):
            async with open_websocket(url, max_queue=2):
                await trio.testing.wait_all_tasks_blocked(0.01)

    @pytest.mark.parametrize("kind", [ValueError, ConnectionClosedOK])
    async def test_error(self, kind, nursery) -> None:
        """An error goes on alone, after a 1011."""
        codes = []

        async def handler(websocket) -> None:
            await websocket.wait_closed()
            codes.append(websocket.close_code)

        server, url = await serve(nursery, handler)
        failure = ValueError() if kind is ValueError else kind(None, None)
        with pytest.raises(kind) as caught:
            async with open_websocket(url):
                raise failure
        await server.drain(5)

        assert caught.value is failure
        assert codes == [1011]

    async def test_closed_by_the_peer(self, nursery) -> None:
        """ConnectionClosed leaves the block as it is."""
        _, url = await serve(nursery, lambda websocket: websocket.aclose(4000))
        with pytest.raises(ConnectionClosedError, match="4000"):
            async with open_websocket(url) as websocket:
                await websocket.recv()

    async def test_group(self, nursery) -> None:
        """A group goes on as that group, also one with a single exception."""
        _, url = await serve(nursery, echo)
        group = ExceptionGroup("", [ValueError()])
        with pytest.raises(ExceptionGroup) as caught:
            async with open_websocket(url):
                raise group

        assert caught.value is group

    @pytest.mark.parametrize(
        ("failure", "seconds"), [(None, 10), (ValueError(), 1)], ids=["end", "error"]
    )
    async def test_silent_peer(self, failure, seconds, autojump_clock) -> None:
        """The peer has close_timeout for its Close, after an error a second."""
        peer = Peer()
        began = trio.current_time()
        try:
            async with open_websocket("ws://a", stream=peer, limits=Limits(linger=0)):
                if failure is not None:
                    raise failure
        except ValueError:
            assert failure is not None
        sent = peer.script.sent

        assert trio.current_time() - began == pytest.approx(seconds)
        assert sent[:2] == b"\x88\x82"
        assert peer.script.closed

    async def test_close_and_silence(self, autojump_clock) -> None:
        """A server that closes, but not TCP, has close_timeout."""
        peer = Peer(plain_close(1000))
        began = trio.current_time()
        async with open_websocket(
            "ws://a", stream=peer, close_timeout=3, ping_interval=None
        ) as websocket:
            with pytest.raises(ConnectionClosedOK):
                await websocket.recv()

        assert trio.current_time() - began == pytest.approx(3)
        assert peer.script.closed

    async def test_cancelled(self) -> None:
        """No Close is sent, and the stream is closed."""
        peer = Peer()
        with trio.CancelScope() as scope:
            async with open_websocket("ws://a", stream=peer) as websocket:
                scope.cancel()
                await websocket.recv()

        assert scope.cancelled_caught
        assert peer.script.closed
        assert not peer.script.sent
        assert websocket.state is State.CLOSED

    async def test_cancelled_while_closing(self, autojump_clock) -> None:
        """The cancellation ends the closing handshake; nothing is left open."""
        peer = Peer()
        with trio.move_on_after(1) as scope:
            async with open_websocket("ws://a", stream=peer):
                pass
            await trio.sleep(5)

        assert scope.cancelled_caught
        assert trio.current_time() == pytest.approx(trio.current_time())
        assert peer.script.closed

    async def test_error_in_a_cancelled_scope(self) -> None:
        """The error of the block goes on, not the cancellation of its closing."""
        peer = Peer()
        with pytest.raises(ValueError, match="mine"), trio.CancelScope() as scope:
            async with open_websocket("ws://a", stream=peer):
                scope.cancel()
                raise ValueError("mine")

        assert peer.script.closed

    async def test_interrupt(self) -> None:
        """What is no Exception goes on at once: no Close is sent."""
        peer = Peer()
        with pytest.raises(KeyboardInterrupt):
            async with open_websocket("ws://a", stream=peer):
                raise KeyboardInterrupt

        assert peer.script.closed
        assert not peer.script.sent

    async def test_task_of_the_user(self, nursery) -> None:
        """A task that fails in the nursery of the WebSocket fails alone."""

        async def fail() -> None:
            raise ValueError("a task")

        _, url = await serve(nursery, echo)
        with pytest.raises(ValueError, match="a task"):
            async with open_websocket(url) as websocket:
                websocket.nursery.start_soon(fail)
                await trio.sleep_forever()


async def test_task_that_receives(nursery) -> None:
    """A task that still receives gets the end; it does not keep the block from it."""
    ended = trio.Event()

    async def receive(websocket) -> None:
        with pytest.raises(ConnectionClosedOK):
            await websocket.recv()
        ended.set()

    _, url = await serve(nursery, echo)
    async with open_websocket(url) as websocket:
        nursery.start_soon(receive, websocket)
        await trio.testing.wait_all_tasks_blocked(0.01)
    await ended.wait()


async def test_pong() -> None:
    """A ping in the packet of the 101 is answered."""
    peer = Peer(plain(b"x", Opcode.PING))
    with trio.CancelScope() as scope:
        async with open_websocket("ws://a", stream=peer):
            await peer.script.wait_sent(b"\x8a\x81")
            scope.cancel()


async def test_redirect_is_a_refusal(nursery) -> None:
    """A redirect is not followed: it is an answer as any other."""

    async def app(request):
        return Response(302, headers={"Location": "/b"})

    server = await nursery.start(partial(serve_tcp, app, 0, host=HOST))
    with pytest.raises(UpgradeRefused, match="302"):
        async with open_websocket(server.url):
            raise AssertionError


class TestArguments:
    """Mistakes of the caller."""

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (
                {"via": "http://a", "strem": None},
                "'strem'. Did you mean 'stream'",
            ),
            ({"quite_other": 1}, "open_websocket() got an unexpected keyword argument"),
            ({"origin": b"a"}, "origin must be a str, not bytes"),
            ({"subprotocols": "a"}, "subprotocols must be a sequence of str"),
            ({"max_size": "a"}, "max_size must be an int"),
            ({"url": b"ws://a"}, "a URL must be a str, not bytes"),
        ],
    )
    def test_type(self, options, message) -> None:
        """A TypeError of the call, before the block."""
        with pytest.raises(TypeError) as caught:
            open_websocket(**{"url": "ws://a", **options})

        assert message in str(caught.value)

    def test_value(self) -> None:
        """A ValueError of the call, before the block."""
        for options in (
            {"compression": "gzip"},
            {"headers": Headers([(b"Sec-WebSocket-Key", b"x")])},
            {"ping_timeout": -1},
            {"origin": "a\n"},
        ):
            with pytest.raises(ValueError, match=r"\w"):
                open_websocket("ws://a", **options)

    @pytest.mark.parametrize(
        ("url", "options"),
        [
            ("ftp://a", {}),
            ("ws:", {}),
            ("ws://a", {"headers": {"Upgrade": "x"}}),
            ("ws://a", {"headers": {"A": "\r\n"}}),
        ],
    )
    async def test_at_the_block(self, url, options) -> None:
        """The URL and the fields are checked when the block is entered."""
        peer = ScriptedPeer()
        with pytest.raises(ValueError, match=r"\w"):
            async with open_websocket(url, stream=peer, **options):
                raise AssertionError
        assert not peer.sent

    async def test_option_of_the_core(self) -> None:
        """Options go to open_upgrade, which checks them."""
        context = ssl.create_default_context()
        with pytest.raises(TypeError, match="stream= is spoken on as it is"):
            async with open_websocket(
                "ws://a", stream=ScriptedPeer(), ssl_context=context
            ):
                raise AssertionError

    def test_signature(self) -> None:
        """The signature lists the options of open_upgrade with their defaults."""
        options = inspect.signature(open_upgrade).parameters
        parameters = inspect.signature(open_websocket).parameters

        assert [*parameters][-7:] == [*options][-7:]
        assert parameters["https_compatible"] == options["https_compatible"]
        assert "options" not in parameters
