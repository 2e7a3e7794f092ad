"""The handshake of a server: what is accepted, and how the rest is refused."""

from __future__ import annotations

import re

import pytest
from websockets.exceptions import NegotiationError
from websockets.frames import Opcode
from websockets.trio.server import ServerConnection

from trio_upgrade import Limits, Response, Upgrade, serve_stream
from trio_upgrade.testing import ScriptedPeer
from trio_upgrade.websocket import accept_websocket

from ..servers import check_every_split, run_script
from ..wire import DATE, get
from .wires import (
    ACCEPT,
    FIELDS,
    KEY,
    OFFER,
    SWITCHED,
    UPGRADE,
    VERSION,
    app_for,
    close,
    echo,
    masked,
    masked_close,
    plain,
    plain_close,
)

TEXT = b"Content-Type: text/plain; charset=utf-8\r\n"
CLOSING = masked_close(1000)
CLOSED = plain_close(1000)


async def refused(wire: bytes, **options) -> bytes:
    """Return the answer to a refused handshake, and see that the connection goes on."""
    peer = await run_script(app_for(echo, **options), wire + OFFER + CLOSING)
    answer, *rest = bytes(peer.sent).split(SWITCHED.split(b"\r\n")[0])

    assert len(rest) == 1, "the connection was not kept"
    assert DATE in answer
    assert b"Connection: close" not in answer
    return answer


@pytest.mark.ids("W06")
async def test_handshake_of_the_rfc() -> None:
    """The 101 has the Accept of RFC 6455 §1.3, and each field once."""
    peer = await run_script(app_for(echo), OFFER + CLOSING)

    assert peer.sent == SWITCHED + CLOSED


async def test_frames_in_the_packet_of_the_head() -> None:
    """Frames that come with the handshake are read, wherever the packets are cut."""

    async def handler(websocket) -> None:
        assert [message async for message in websocket] == ["Hello", b"\0\xff"]

    wire = OFFER + masked("Hello") + masked(b"\0\xff") + CLOSING
    await check_every_split(app_for(handler), wire, SWITCHED + CLOSED)


@pytest.mark.parametrize(
    "fields",
    [
        ("Connection: Upgrade", "Upgrade: h2c, websocket"),
        ("Connection: keep-alive, Upgrade", "Upgrade: h2c", "Upgrade: WebSocket"),
    ],
    ids=["list", "lines"],
)
async def test_other_protocols_beside(fields) -> None:
    """An offer may have other protocols before ours (RFC 9110 §7.8)."""
    wire = get("/", *fields, *FIELDS[2:])
    peer = await run_script(app_for(echo), wire + CLOSING)

    assert peer.sent == SWITCHED + CLOSED


async def test_request_and_response_of_the_websocket() -> None:
    """The handler finds target and fields of the request, and those of the 101."""

    async def handler(websocket) -> None:
        assert isinstance(websocket, ServerConnection)
        assert websocket.request is not None
        assert websocket.response is not None
        assert websocket.request.path == "/chat?x=1"
        assert websocket.request.headers["Cookie"] == "a=b\xe9"
        assert websocket.request.headers.get_all("X") == ["1", "2"]
        assert websocket.response.status_code == 101
        assert websocket.response.headers["Sec-WebSocket-Accept"] == ACCEPT
        assert websocket.remote_address is websocket.local_address is None
        assert websocket.subprotocol is None
        await websocket.send("seen")

    wire = get("/chat?x=1", *FIELDS, "Cookie: a=b\xe9", "x: 1", "X: 2")
    wire = wire.decode().encode("latin-1")
    peer = await run_script(app_for(handler), wire + CLOSING)

    assert peer.sent == SWITCHED + plain("seen") + CLOSED


@pytest.mark.ids("W05", "W08")
@pytest.mark.parametrize(
    ("origin", "origins", "accepted"),
    [
        (None, None, True),
        ("https://any", None, True),
        ("https://a", ["https://a"], True),
        ("https://b", ["https://a"], False),
        (None, ["https://a"], False),
        (None, ["https://a", None], True),
        ("https://x.a", [re.compile(r"https://\w+\.a")], True),
        ("https://x.a.evil", [re.compile(r"https://\w+\.a")], False),
        (None, [re.compile(".*")], False),
        ("null", [None], False),
    ],
)
async def test_origin(origin, origins, accepted) -> None:
    """An origin that is not wanted gets a 403 (RFC 6455 §4.2.2, §10.2)."""
    fields = [*FIELDS, *([] if origin is None else [f"Origin: {origin}"])]
    peer = await run_script(
        app_for(echo, origins=origins), get("/", *fields), masked_close(1000)
    )

    status = b"HTTP/1.1 101 " if accepted else b"HTTP/1.1 403 "
    assert peer.sent.startswith(status)


async def test_unwanted_origin_on_the_normal_path() -> None:
    """The 403 is an ordinary response, and the connection goes on."""
    wire = get("/", *FIELDS, "Origin: https://b")
    answer = await refused(wire, origins=[None])

    text = b"Failed to open a WebSocket connection: invalid Origin header: https://b.\n"
    length = b"Content-Length: %d\r\n\r\n" % len(text)
    assert answer == b"HTTP/1.1 403 Forbidden\r\n" + DATE + TEXT + length + text


@pytest.mark.ids("W04")
async def test_no_offer() -> None:
    """A request without an offer gets a 426 that names websocket (RFC 9110 §15.5.22)."""
    answer = await refused(get("/"))

    assert answer == (
        b"HTTP/1.1 426 Upgrade Required\r\n"
        + DATE
        + TEXT
        + b"Upgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 20\r\n\r\n"
        b"this is a WebSocket\n"
    )


@pytest.mark.ids("W05")
@pytest.mark.parametrize("version", ["8", "12", "14", "13, 8", "x", ""])
async def test_other_version(version: str) -> None:
    """Another version gets a 426 with the version that is spoken (RFC 6455 §4.4)."""
    fields = [*FIELDS[:3], f"Sec-WebSocket-Version: {version}"]
    answer = await refused(get("/", *fields))

    assert answer.startswith(b"HTTP/1.1 426 ")
    assert b"\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" in answer


@pytest.mark.parametrize("method", ["POST", "HEAD", "OPTIONS"])
@pytest.mark.parametrize("fields", [(), FIELDS], ids=["plain", "offer"])
async def test_other_method(method: str, fields) -> None:
    """A WebSocket is opened by GET only (RFC 6455 §4.2.1): 405."""
    wire = get("/", *fields).replace(b"GET", method.encode(), 1)
    answer = await refused(wire)

    assert answer.startswith(b"HTTP/1.1 405 ")
    assert b"\r\nAllow: GET\r\n" in answer


@pytest.mark.ids("W04")
@pytest.mark.parametrize(
    "fields",
    [
        (*UPGRADE, VERSION),
        (*UPGRADE, VERSION, "Sec-WebSocket-Key: "),
        (*UPGRADE, VERSION, "Sec-WebSocket-Key: not base64"),
        (*UPGRADE, VERSION, "Sec-WebSocket-Key: c2hvcnQ="),
        (*FIELDS, f"Sec-WebSocket-Key: {KEY}"),
        FIELDS[:3],
        (*FIELDS, VERSION),
        (*FIELDS, "Origin: a", "Origin: b"),
        (*FIELDS, "Sec-WebSocket-Extensions: ;"),
        (*FIELDS, "Sec-WebSocket-Protocol: a b"),
    ],
)
async def test_malformed(fields) -> None:
    """A handshake that breaks the grammar gets a 400 (RFC 6455 §4.2.1)."""
    answer = await refused(get("/", *fields))

    assert answer.startswith(b"HTTP/1.1 400 ")


@pytest.mark.ids("W06")
@pytest.mark.parametrize(
    ("offered", "chosen"),
    [("b, a", "a"), ("b", "b"), ("c", None), ("", None)],
)
async def test_subprotocols(offered: str, chosen: str | None) -> None:
    """Our first subprotocol that is offered; 400 if there is none (RFC 6455 §4.2.2)."""
    fields = [*FIELDS, *([f"Sec-WebSocket-Protocol: {offered}"] if offered else [])]
    app = app_for(echo, subprotocols=["a", "b"])
    peer = await run_script(app, get("/", *fields), CLOSING)

    if chosen is None:
        assert peer.sent.startswith(b"HTTP/1.1 400 ")
    else:
        field = b"\r\nSec-WebSocket-Protocol: %s\r\n" % chosen.encode()
        assert field in peer.sent


async def test_selected_subprotocol() -> None:
    """A function chooses, by the request too; it may refuse, or choose none."""

    def select(request, offered):
        assert list(offered) == ["a", "b"]
        if request.path == "/none":
            return None
        if request.path == "/no":
            raise NegotiationError("not you")
        return "b"

    app = app_for(echo, select_subprotocol=select)
    sent = []
    for path in "/b", "/none", "/no":
        wire = get(path, *FIELDS, "Sec-WebSocket-Protocol: a, b")
        sent.append(bytes((await run_script(app, wire, CLOSING)).sent))

    assert b"\r\nSec-WebSocket-Protocol: b\r\n" in sent[0]
    assert sent[1] == SWITCHED + CLOSED, sent
    assert sent[2].startswith(b"HTTP/1.1 400 ")
    assert b": not you.\n" in sent[2]


@pytest.mark.ids("W06")
@pytest.mark.parametrize("bug", ["choice", "error"])
async def test_bug_of_the_selecting_function(bug: str, caplog) -> None:
    """What it raises is the app's error, and so is a choice that was not offered."""

    def select(request, offered):
        return "c" if bug == "choice" else offered[5]

    app = app_for(echo, select_subprotocol=select)
    peer = ScriptedPeer(get("/", *FIELDS, "Sec-WebSocket-Protocol: a"))
    await serve_stream(app, peer)
    (record,) = caplog.records

    assert peer.sent.startswith(b"HTTP/1.1 500 ")
    assert record.name == "trio_upgrade.server"
    assert isinstance(record.exc_info[1], ValueError if bug == "choice" else IndexError)


@pytest.mark.ids("W06")
@pytest.mark.parametrize("offered", [True, False])
@pytest.mark.parametrize("compression", ["deflate", None])
async def test_compression(offered: bool, compression: str | None) -> None:
    """Deflate is used if both sides want it (RFC 7692 §5.1)."""
    fields = ["Sec-WebSocket-Extensions: x, permessage-deflate"] if offered else []
    app = app_for(echo, compression=compression)
    peer = await run_script(app, get("/", *FIELDS, *fields) + CLOSING)

    extension = b"\r\nSec-WebSocket-Extensions: permessage-deflate"
    assert (extension in peer.sent) == (offered and compression is not None)


async def test_fields_of_the_app() -> None:
    """The app's fields are in the 101, after those of WebSocket."""
    app = app_for(echo, headers=[("Set-Cookie", "a=1"), (b"Set-Cookie", b"b=2")])
    peer = await run_script(app, OFFER + CLOSING)

    fields = b"\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\n"
    assert peer.sent == SWITCHED.replace(b"\r\n\r\n", fields) + CLOSED


@pytest.mark.ids("W07")
async def test_frame_without_mask() -> None:
    """A frame of a client without a mask ends the WebSocket: 1002 (RFC 6455 §5.1)."""
    peer = await run_script(app_for(echo), OFFER + plain("Hello"))

    assert peer.sent.startswith(SWITCHED + b"\x88")
    assert peer.sent[len(SWITCHED) + 2 :].startswith(close(1002))


async def test_switch_inside_the_app() -> None:
    """An app may switch itself, and call the handler of the answer."""

    async def app(request) -> None:
        answer = accept_websocket(request, echo)
        assert isinstance(answer, Upgrade)
        stream, head = await request.accept_upgrade(
            answer.protocol, headers=answer.headers
        )
        await answer.handler(request, stream, head)

    peer = await run_script(app, OFFER + CLOSING)

    assert peer.sent == SWITCHED + CLOSED


async def test_unavailable() -> None:
    """Over Limits.upgraded the offer gets a 503, as any offer does."""
    peer = await run_script(app_for(echo), OFFER, limits=Limits(upgraded=0))

    assert peer.sent.startswith(b"HTTP/1.1 503 ")


async def test_ping_at_once() -> None:
    """A ping in the packet of the head is answered."""
    wire = OFFER + masked(b"x", Opcode.PING) + CLOSING
    peer = await run_script(app_for(echo), wire)

    assert peer.sent == SWITCHED + plain(b"x", Opcode.PONG) + CLOSED


class TestArguments:
    """Mistakes of the caller, found whether or not the request is an offer."""

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"origins": "https://a"}, "origins must be a sequence, not str"),
            ({"origins": re.compile("a")}, "origins must be a sequence, not Pattern"),
            ({"origins": iter(["a"])}, "origins must be a sequence, not list_iterator"),
            ({"origins": [re.compile(b"a")]}, "an origin must be a str, a pattern of"),
            ({"origins": [None, b"a"]}, "str or None, not bytes"),
            (
                {"subprotocols": "chat"},
                "subprotocols must be a sequence of str, not str",
            ),
            (
                {"subprotocols": {"a"}},
                "subprotocols must be a sequence of str, not set",
            ),
            ({"subprotocols": [b"a"]}, "a subprotocol must be a str, not bytes"),
            ({"select_subprotocol": "a"}, "select_subprotocol cannot be called: str"),
            ({"ping_interval": "1"}, "ping_interval must be seconds or None, not str"),
            ({"ping_timeout": True}, "ping_timeout must be seconds or None, not bool"),
            ({"headers": "a: b"}, "headers must be pairs, not str"),
            ({"headers": [1]}, "a field must be a pair"),
            ({"max_size": "1"}, "max_size must be an int, a pair of them or None"),
            (
                {"max_queue": (1, 2, 3)},
                "max_queue must be an int, a pair of them or None",
            ),
        ],
    )
    async def test_type(self, options, message) -> None:
        """An argument of another type is a TypeError that names it."""
        await self._check(TypeError, message, options)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"subprotocols": ["a b"]}, "invalid subprotocol: a b"),
            ({"origins": [None, "null", "a.b"]}, "an origin has a scheme, as in"),
            ({"compression": "gzip"}, "compression must be 'deflate' or None"),
            ({"close_timeout": -1}, "close_timeout must not be negative, not -1"),
            ({"ping_interval": 0}, "ping_interval must not be 0"),
            ({"headers": {"Sec-WebSocket-Accept": "x"}}, "is written by the library"),
            ({"headers": [(b"sec-websocket-protocol", b"x")]}, "is written by"),
            ({"headers": {"Upgrade": "x"}}, "Upgrade is written by the library"),
            ({"headers": {"A": "\n"}}, "control characters"),
            ({"drain_code": 1006}, "drain_code cannot be sent: 1006"),
            ({"max_size": -1}, "max_size must not be negative"),
            ({"max_queue": (2, 4)}, "max_queue: the second bound is over the first"),
        ],
    )
    async def test_value(self, options, message) -> None:
        """An argument without such a value is a ValueError that names it."""
        await self._check(ValueError, message, options)

    async def _check(self, kind, message, options, handler=echo) -> None:
        caught = []

        async def app(request):
            try:
                accept_websocket(request, handler, **options)
            except Exception as exc:
                caught.append(exc)
            return Response(200)

        await run_script(app, OFFER)
        (exc,) = caught

        assert type(exc) is kind
        assert message in str(exc)

    async def test_handler(self) -> None:
        """The handler is checked when it is given, not when it is called."""
        await self._check(TypeError, "the handler cannot be called", {}, handler="echo")

    async def test_pairs_of_bounds(self) -> None:
        """Both bounds may be pairs, and None disables them."""
        app = app_for(echo, max_size=(5, None), max_queue=(4, 1))
        peer = await run_script(app, OFFER + masked("Hello!"))

        assert peer.sent.startswith(SWITCHED + b"\x88")
        assert peer.sent[len(SWITCHED) + 2 :].startswith(close(1009))
        app = app_for(echo, max_size=None, max_queue=None, close_timeout=None)
        peer = await run_script(app, OFFER + masked("Hello") + CLOSING)

        assert peer.sent == SWITCHED + CLOSED
